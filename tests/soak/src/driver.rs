//! Many clients at once, in rounds.

use crate::{
    audit::{self, Violation, may_stay_unsettled},
    direct::Direct,
    history::{By, Heard, Kind, Micros, Record, now},
    model::{Interval, Suspension},
    request::Request,
    state::State,
    storm::{Fault, Faults, Storm},
    team::{Key, Team, UNPRICED_MODEL, lock, make_groups, make_teams},
    world::{ADMIN_KEY, World},
};
use anyhow::{Context, Result};
use fastrand::Rng;
use futures::future::join_all;
use litellm_stand_in::StandIn;
use reqwest::Method;
use serde_json::Value;
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use uuid::Uuid;

/// In every prompt, and nowhere else: it must not turn up in any table or log.
pub const CANARY: &str = "canary-5e1f2c";

/// What every `Idempotency-Key` begins with. It must not turn up either.
pub const IDEMPOTENCY_KEY: &str = "idempotency-";

/// How often a request that carries an `Idempotency-Key` is repeated until its outcome is known.
const REPEATS: u32 = 60;

/// How long somebody waits who got no answer, or was told to come again.
const DISCOURAGED: Duration = Duration::from_millis(100);

/// How long calls get to be settled once nobody asks for anything any more: LiteLLM's log is followed for half a
/// minute.
const SETTLING: Duration = Duration::from_secs(75);

/// How often upkeep is asked at the most until all costs are known that LiteLLM knows.
const RUNS_OF_UPKEEP: u32 = 100;

/// What a token of a model without a price turns out to cost, in US dollars.
const LATE_PRICE: f64 = 0.001;

/// How to drive.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The choices of the clients follow from it.
    pub seed: u64,
    /// Clients at once.
    pub clients: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { seed: fastrand::u64(..), clients: 24 }
    }
}

/// A driven world.
pub struct Soak {
    /// What is driven.
    pub world: World,
    /// How.
    pub options: Options,
    http: reqwest::Client,
    rounds: usize,
    tags: Arc<AtomicU64>,
}

/// One round: its teams, and what was heard in it.
pub struct Round {
    /// What is driven.
    pub hosts: Vec<String>,
    /// The round's teams.
    pub teams: Vec<Team>,
    /// Everything that was asked, in the order of the answers.
    pub history: Mutex<Vec<Record>>,
    /// Set where something was heard that must never be: there is no need to go on.
    pub alarmed: AtomicBool,
    /// What has failed so far.
    pub faults: Faults,
    /// For what the API does not do: letting time pass.
    pub database: Direct,
    /// LiteLLM's address and its admin's key.
    pub litellm: (String, String),
    http: reqwest::Client,
    tags: Arc<AtomicU64>,
}

/// How long a round is, and what is in it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// How long things fail at first. Only in a world that is shaky.
    pub storm: Duration,
    /// How long nothing fails.
    pub calm: Duration,
    /// Whether it ends early once something was heard that must never be.
    pub impatient: bool,
}

/// The result of a round.
pub struct Judged {
    /// All requests and their answers.
    pub history: Vec<Record>,
    /// The faults of the round.
    pub faults: Vec<Fault>,
    /// The violations that the audit found.
    pub violations: Vec<Violation>,
}

/// What somebody wants, in one request or in several until it is known what came of it.
#[derive(Clone)]
pub struct Intent {
    /// The kind of operation.
    pub kind: Kind,
    /// The number of the team.
    pub team: usize,
    /// The caller.
    pub by: By,
    /// The job that it is about.
    pub job: Option<Uuid>,
    /// What the application keeps with it.
    pub tag: String,
    /// Whether it carries an `Idempotency-Key`.
    pub repeatable: bool,
    /// The request.
    pub method: Method,
    /// Its path.
    pub path: String,
    /// Its body.
    pub body: Value,
    /// The job of a call of OpenAI's API.
    pub job_header: bool,
    /// Hang up after so many events of a stream.
    pub leave_after: Option<usize>,
}

impl Soak {
    /// Makes what all rounds share.
    pub async fn new(world: World, options: Options) -> Result<Self> {
        let http = reqwest::Client::new();
        make_groups(&world, &http).await?;
        Ok(Self { world, options, http, rounds: 0, tags: Arc::default() })
    }

    /// Drives new teams for so long, waits until nothing is under way, and judges.
    pub async fn round(&mut self, weather: Weather) -> Result<Judged> {
        let round = Arc::new(Round {
            hosts: self.world.hosts.clone(),
            teams: make_teams(&self.world, &self.http, self.rounds).await?,
            history: Mutex::default(),
            alarmed: AtomicBool::new(false),
            faults: Faults::default(),
            database: Direct::new(self.world.database().clone()),
            litellm: (self.world.litellm().url(), self.world.litellm().master_key().to_owned()),
            http: self.http.clone(),
            tags: self.tags.clone(),
        });
        let began = Instant::now();
        let gives_up = move |round: &Round| weather.impatient && round.alarmed.load(Ordering::Relaxed);
        let seed = self.options.seed.wrapping_add((self.rounds as u64) << 32);
        let clients = (1..=self.options.clients).map(|client| {
            let round = round.clone();
            tokio::spawn(async move {
                let mut random = Rng::with_seed(seed.wrapping_add(client));
                while began.elapsed() < weather.storm + weather.calm && !gives_up(&round) {
                    round.step(&mut random).await;
                }
            })
        });
        let clients = join_all(clients.collect::<Vec<_>>());
        let storm = async {
            let Some(application) = self.world.shaky() else { return Ok(()) };
            Storm { application, faults: &round.faults, until: began + weather.storm }.rage(seed).await
        };
        let until = began + weather.storm + weather.calm;
        let prices = prices_come(self.world.litellm(), until, Rng::with_seed(seed));
        let (clients, storm, ()) = tokio::join!(clients, storm, prices);
        storm.context("a fault could not be mended")?;
        for client in clients {
            client.context("a client failed")?;
        }
        self.rounds += 1;
        price_log(self.world.litellm());
        round.come_to_rest(self.world.litellm(), gives_up(&round)).await?;
        let state = State::read(&*round.database.client().await?, &round.teams).await?;
        let history = std::mem::take(&mut *lock(&round.history));
        let faults = round.faults.all();
        let mut violations = audit::audit(&history, &round.teams, &faults, &state);
        violations.extend(audit::of_world(&self.world, &round.teams, &history).await?);
        Ok(Judged { history, faults, violations })
    }
}

impl Round {
    /// A tag that nothing else has.
    pub fn tag(&self) -> String {
        format!("tag-{:x}-", self.tags.fetch_add(1, Ordering::Relaxed))
    }

    /// One request of an intent, written down.
    pub async fn attempt(&self, intent: &Intent, host: usize) -> Heard {
        let identity = match intent.by {
            By::Admin => ("x-admin-key", ADMIN_KEY.to_owned()),
            By::Key(number) => {
                let secret =
                    lock(&self.teams[intent.team].keys).get(number).map(|key: &Key| key.secret.clone());
                ("authorization", format!("Bearer {}", secret.unwrap_or_default()))
            }
        };
        let request = Request {
            method: intent.method.clone(),
            path: intent.path.clone(),
            body: intent.body.clone(),
            identity,
            key: intent.repeatable.then(|| format!("{IDEMPOTENCY_KEY}{}", intent.tag)),
            job: intent.job.filter(|_| intent.job_header),
            leave_after: intent.leave_after,
        };
        let start = now();
        let heard = Heard { host, ..request.send(&self.http, &self.hosts[host]).await };
        let end = now();
        if heard.is_unknown() {
            tokio::time::sleep(DISCOURAGED).await;
        }
        self.write_down(Record {
            kind: intent.kind,
            team: intent.team,
            by: intent.by,
            host,
            job: intent.job,
            tag: intent.tag.clone(),
            repeatable: intent.repeatable,
            asked: intent.body.clone(),
            start,
            end,
            heard: heard.clone(),
        });
        heard
    }

    /// Writes down what happened.
    pub fn write_down(&self, record: Record) {
        if !audit::is_possible(&record, &self.faults.all()) {
            self.alarmed.store(true, Ordering::Relaxed);
        }
        self.loses_interest(&record);
        lock(&self.history).push(record);
    }

    /// Asks once, or, with an `Idempotency-Key`, until it is known what came of it.
    pub async fn ask(&self, intent: &Intent, random: &mut Rng) -> Heard {
        let mut intent = intent.clone();
        for repeat in 0..REPEATS {
            let heard = self.attempt(&intent, random.usize(..self.hosts.len())).await;
            let in_doubt = heard.is_unknown()
                || ["idempotency_in_progress", "in_progress"].contains(&heard.code())
                || matches!(
                    heard.stream,
                    Some(crate::history::StreamEnd::Left | crate::history::StreamEnd::Broken)
                );
            if !intent.repeatable || !in_doubt || repeat + 1 == REPEATS {
                return heard;
            }
            // Whoever left comes back for all of it.
            intent.leave_after = None;
            tokio::time::sleep(Duration::from_millis(100 + random.u64(..200))).await;
        }
        Heard::default()
    }

    /// Waits, within bounds, until nothing is under way, and ends what is overdue. With `hurry`, nobody waits for what
    /// may never come.
    async fn come_to_rest(&self, litellm: &StandIn, hurry: bool) -> Result<()> {
        // The last deadlines that are near pass.
        let near = "SELECT coalesce(max(extract(epoch FROM due - now())), 0)::float8 FROM (
                        SELECT expires_at AS due FROM jobs WHERE status IN ('pending', 'in_progress')
                        UNION ALL SELECT deadline FROM calls WHERE status = 'open') AS deadlines
                    WHERE due < now() + interval '10 seconds'";
        for row in self.database.query(near, &[]).await? {
            tokio::time::sleep(Duration::from_secs_f64(row.get::<_, f64>(0).max(0.0) + 0.05)).await;
        }
        let began = Instant::now();
        let patience = if hurry { Duration::from_secs(2) } else { SETTLING };
        while self.is_unsettled().await? && began.elapsed() < patience {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        // Nobody is left for what is still open.
        let ids: Vec<&str> = self.teams.iter().map(|team| team.id.as_str()).collect();
        let passes = "UPDATE calls SET deadline = now() - interval '1 second' WHERE status = 'open' \
                      AND team_id = ANY ($1)";
        self.database.query(passes, &[&ids]).await?;
        self.ask(&self.expiry(), &mut Rng::new()).await;
        // LiteLLM is asked for costs until everything that it knows is known. Others are asked for once more.
        let billed: Vec<String> = audit::bills(litellm).await?.into_keys().collect();
        let due = "UPDATE calls SET cost_check_at = now() WHERE cost_check_at IS NOT NULL AND status <> 'open' \
                   AND team_id = ANY ($1) RETURNING call_id::text = ANY ($2)";
        for _ in 0..RUNS_OF_UPKEEP {
            let asked = self.database.query(due, &[&ids, &billed]).await?;
            self.ask(&self.expiry(), &mut Rng::new()).await;
            if !asked.iter().any(|row| row.get(0)) {
                break;
            }
        }
        Ok(())
    }

    /// Whether there is a call that somebody is to settle.
    async fn is_unsettled(&self) -> Result<bool> {
        let ids: Vec<&str> = self.teams.iter().map(|team| team.id.as_str()).collect();
        let unsettled =
            "SELECT coalesce(purpose, '') FROM calls WHERE settled_at IS NULL AND team_id = ANY ($1)";
        let tags: Vec<String> =
            self.database.query(unsettled, &[&ids]).await?.iter().map(|row| row.get(0)).collect();
        let faults = self.faults.all();
        let history = lock(&self.history);
        Ok(tags.iter().any(|tag| {
            let requests: Vec<&Record> = history.iter().filter(|record| record.tag == *tag).collect();
            !may_stay_unsettled(tag, &requests, &faults)
        }))
    }

    /// Tells a team's suspension to the audit.
    pub fn suspended(&self, team: usize, suspension: Suspension) {
        lock(&self.teams[team].suspensions).push(suspension);
    }
}

/// LiteLLM learns now and then what calls have cost for which it had no price.
async fn prices_come(litellm: &StandIn, until: Instant, mut random: Rng) {
    while Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(random.u64(500..3000))).await;
        price_log(litellm);
    }
}

fn price_log(litellm: &StandIn) {
    litellm.price_log(UNPRICED_MODEL, LATE_PRICE);
}

/// The host that has dropped what it knew of a team's keys before it answered, if that is certain: a replayed answer is
/// not of the host that did it, and one that took long may have given up on its store.
pub fn forgetful(start: Micros, heard: &Heard) -> Option<usize> {
    (heard.is_ok() && !heard.replayed && now() - start < 1_000_000).then_some(heard.host)
}

/// From the start of a request to where it can have had its effect.
pub fn window(start: Micros, heard: &Heard) -> Interval {
    Interval::new(start, if heard.is_unknown() { crate::history::NEVER } else { now() })
}
