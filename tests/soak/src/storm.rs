//! Faults at random while clients are at work.
//!
//! The database, LiteLLM and the hosts fail independently of each other, each in one way at a time. What fails, and for
//! how long, follows from the seed; what the clients are at just then does not.

use crate::{
    history::{NEVER, now},
    model::Interval,
    team::lock,
};
use anyhow::Result;
use fastrand::Rng;
use faults::{Application, Direction, Mode, Postgres, Proxy, RawServer, Script};
use std::{
    ops::Range,
    sync::Mutex,
    time::{Duration, Instant},
};
use tokio::time::sleep;
use tokio_postgres::{Client, NoTls};

/// Where LiteLLM is asked for completions.
const COMPLETIONS: &str = "/chat/completions";

/// What can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// PostgreSQL, or the way to it.
    Database,
    /// LiteLLM, or the way to it.
    LiteLlm,
    /// The host of this number.
    Host(usize),
}

/// Something that failed.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// The part that failed.
    pub part: Part,
    /// The kind of failure.
    pub how: &'static str,
    /// From when to when, as far as that is known.
    pub during: Interval,
}

/// The faults of a round so far.
#[derive(Default)]
pub struct Faults(Mutex<Vec<Fault>>);

impl Faults {
    /// All faults so far.
    pub fn all(&self) -> Vec<Fault> {
        lock(&self.0).clone()
    }

    fn begin(&self, part: Part, how: &'static str) -> usize {
        let mut all = lock(&self.0);
        all.push(Fault { part, how, during: Interval::new(now(), NEVER) });
        all.len() - 1
    }

    fn end(&self, number: usize) {
        lock(&self.0)[number].during.to = now();
    }
}

/// The settings of a storm: random faults of an application.
#[derive(Clone, Copy)]
pub struct Storm<'a> {
    /// The application whose parts fail.
    pub application: &'a Application,
    /// Where its faults are written down.
    pub faults: &'a Faults,
    /// When it is over, but for faults under way.
    pub until: Instant,
}

impl Storm<'_> {
    /// Goes on until it is over and everything works again.
    pub async fn rage(self, seed: u64) -> Result<()> {
        let mut random = Rng::with_seed(seed);
        let (one, two, three) = (random.fork(), random.fork(), random.fork());
        tokio::try_join!(self.over_database(one), self.over_litellm(two), self.over_hosts(three))?;
        Ok(())
    }

    /// Whether there is time for another one, after a while without.
    async fn goes_on(self, random: &mut Rng, calm: Range<u64>) -> bool {
        sleep(Duration::from_millis(random.u64(calm))).await;
        Instant::now() < self.until
    }

    async fn over_database(self, mut random: Rng) -> Result<()> {
        let mut ways = Deck::of(&[
            "killed",
            "killed",
            "shut down",
            "frozen",
            "full",
            "cut",
            "cut once",
            "cut each",
            "silent",
            "refusing",
            "resetting",
        ]);
        while self.goes_on(&mut random, 200..1500).await {
            let how = ways.draw(&mut random);
            let fault = self.faults.begin(Part::Database, how);
            self.database_fails(how, &mut random).await?;
            self.faults.end(fault);
        }
        Ok(())
    }

    async fn database_fails(self, how: &str, random: &mut Rng) -> Result<()> {
        let way = &self.application.to_database;
        let Some(postgres) = &self.application.postgres else { return Ok(()) };
        match how {
            "killed" => {
                postgres.kill().await;
                for_some(random, 50..1500).await;
                postgres.restart().await?;
            }
            "shut down" => {
                postgres.stop().await;
                for_some(random, 50..500).await;
                postgres.restart().await?;
            }
            "frozen" => {
                postgres.freeze().await;
                for_some(random, 200..3000).await;
                postgres.thaw().await;
            }
            "full" => {
                // What the application has open goes, and somebody else takes all.
                way.cut();
                let greedy = take_all_connections(postgres).await;
                for_some(random, 200..1500).await;
                drop(greedy);
            }
            "silent" => {
                way.set(Mode::Stall).await;
                for_some(random, 200..4000).await;
                // What was sent meanwhile arrives late, or never.
                if random.bool() {
                    way.cut();
                }
                way.set(Mode::Pass).await;
            }
            how => way_fails(way, how, random, 100..1000, 100..1500).await,
        }
        Ok(())
    }

    async fn over_litellm(self, mut random: Rng) -> Result<()> {
        let mut ways = Deck::of(&[
            "silent",
            "silent",
            "slow",
            "cut",
            "cut once",
            "cut each",
            "cut each",
            "refusing",
            "resetting",
            "down",
            "garbage",
            "429 storm",
            "500 storm",
        ]);
        while self.goes_on(&mut random, 200..1500).await {
            let how = ways.draw(&mut random);
            let fault = self.faults.begin(Part::LiteLlm, how);
            self.litellm_fails(how, &mut random).await?;
            self.faults.end(fault);
        }
        Ok(())
    }

    async fn litellm_fails(self, how: &str, random: &mut Rng) -> Result<()> {
        let Application { to_litellm: way, litellm, .. } = self.application;
        match how {
            "silent" => {
                way.set(Mode::Stall).await;
                for_some(random, 500..7000).await;
                way.set(Mode::Pass).await;
            }
            "slow" => {
                way.set(Mode::Delay(Duration::from_millis(random.u64(10..100)))).await;
                for_some(random, 500..2000).await;
                way.set(Mode::Pass).await;
            }
            "down" => {
                litellm.set_down(true);
                for_some(random, 100..1500).await;
                litellm.set_down(false);
            }
            "garbage" => {
                let garbage = RawServer::start(garbage(random)).await?;
                way.set_target(garbage.address());
                way.cut();
                for_some(random, 200..1500).await;
                way.set_target(self.application.litellm_address());
                way.cut();
            }
            "429 storm" | "500 storm" => {
                let status = if how == "429 storm" { 429 } else { 500 };
                litellm.fail_next(COMPLETIONS, status, random.usize(10..60));
                for_some(random, 500..2000).await;
                use_up(&litellm.url(), status).await?;
            }
            how => way_fails(way, how, random, 500..1500, 100..2000).await,
        }
        Ok(())
    }

    async fn over_hosts(self, mut random: Rng) -> Result<()> {
        while self.goes_on(&mut random, 2000..6000).await {
            let number = random.usize(..self.application.hosts.len());
            let fault = self.faults.begin(Part::Host(number), "killed");
            self.application.hosts[number].kill().await;
            for_some(&mut random, 50..500).await;
            self.application.hosts[number].restart().await?;
            self.faults.end(fault);
        }
        Ok(())
    }
}

/// What can become of any way. Connections are cut `each` so long, and none is taken for `none` so long, in
/// milliseconds.
async fn way_fails(way: &Proxy, how: &str, random: &mut Rng, each: Range<u64>, none: Range<u64>) {
    match how {
        "cut" => way.cut(),
        "cut once" => {
            way.cut_once_after(direction(random), random.u64(..5000));
            for_some(random, 100..500).await;
            way.cut_no_more();
        }
        "cut each" => {
            way.cut_each_after(direction(random), random.u64(..5000));
            for_some(random, each).await;
            way.cut_no_more();
        }
        mode => {
            way.set(if mode == "refusing" { Mode::Refuse } else { Mode::Reset }).await;
            way.cut();
            for_some(random, none).await;
            way.set(Mode::Pass).await;
        }
    }
}

/// Ways to fail, each of which comes up before any does again.
struct Deck {
    ways: &'static [&'static str],
    left: Vec<&'static str>,
}

impl Deck {
    fn of(ways: &'static [&'static str]) -> Self {
        Self { ways, left: vec![] }
    }

    fn draw(&mut self, random: &mut Rng) -> &'static str {
        if self.left.is_empty() {
            self.left = self.ways.to_vec();
            random.shuffle(&mut self.left);
        }
        self.left.pop().unwrap_or_default()
    }
}

async fn for_some(random: &mut Rng, milliseconds: Range<u64>) {
    sleep(Duration::from_millis(random.u64(milliseconds))).await;
}

fn direction(random: &mut Rng) -> Direction {
    if random.bool() { Direction::ToServer } else { Direction::ToClient }
}

/// What no LiteLLM would say.
fn garbage(random: &mut Rng) -> Script {
    let json = |body| Script::http("200 OK", "content-type: application/json\r\n", body);
    let events =
        |body: &str| Script::of(format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n{body}"));
    match random.u8(..6) {
        0 => Script::of((0..200).map(|_| random.u8(..)).collect::<Vec<u8>>()),
        1 => json("{\"choices\": 7}"),
        2 => json("<html>"),
        3 => Script::http("418 I'm a teapot", "", "[[[["),
        4 => events("data: {\"choices\": [{\"delta\": 7}]}\n\n"),
        _ => events("data: \u{0}\n\ndata: [DONE]\n\n"),
    }
}

/// Every connection that the server gives.
async fn take_all_connections(postgres: &Postgres) -> Vec<Client> {
    let mut clients = vec![];
    while let Ok((client, connection)) = tokio_postgres::connect(postgres.superuser_url(), NoTls).await {
        tokio::spawn(connection);
        clients.push(client);
    }
    clients
}

/// Asks, as nobody, until what was planned has failed.
async fn use_up(litellm: &str, status: u16) -> Result<()> {
    let http = reqwest::Client::new();
    let ask = async || http.post(format!("{litellm}{COMPLETIONS}")).body("{}").send().await;
    while ask().await?.status() == status {}
    Ok(())
}
