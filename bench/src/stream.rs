//! Streams: what we add to the first event and to each further one, and what an open one costs.

use crate::{
    figures::{Figures, Goal, Rounds, percentile},
    options::Options,
    programs::Program,
    world::{MODEL, World},
};
use anyhow::{Context, Result, ensure};
use api_tests::Team;
use futures::{StreamExt, future::try_join_all};
use serde_json::json;
use std::time::{Duration, Instant, SystemTime};

/// Streams that are open at once, which together make this many events a second.
const OPEN: [usize; 3] = [1, 100, 1000];
const EVENTS_A_SECOND: usize = 500;

/// How long they stay open.
const LIFETIME: Duration = Duration::from_secs(12);

/// How many streams are opened a second.
const OPENED_A_SECOND: u32 = 250;

/// Streams that are opened one after the other, to see when the first event comes.
const FIRST_EVENTS: usize = 60;

/// Where streams come from.
#[derive(Clone)]
struct Source {
    http: reqwest::Client,
    url: String,
    key: String,
    model: Option<&'static str>,
}

/// What was seen of a stream.
#[derive(Default)]
struct Seen {
    /// From the request to the first event.
    first_ms: f64,
    /// From each event's being sent to its being here.
    late_ms: Vec<f64>,
}

impl Source {
    fn new(url: String, key: String, model: Option<&'static str>) -> Result<Self> {
        let http = reqwest::Client::builder().pool_max_idle_per_host(0).tcp_nodelay(true).build()?;
        Ok(Self { http, url, key, model })
    }

    /// Reads a stream of so many events to its end.
    async fn read(&self, events: usize, pause: Duration) -> Result<Seen> {
        let prompt = format!("[[clock=1]] [[chunks={events}]] [[delay_ms={}]] hello", pause.as_millis());
        let mut body = json!({"messages": [{"role": "user", "content": prompt}]});
        if let Some(model) = self.model {
            body["model"] = model.into();
            body["stream"] = true.into();
        }
        let since = Instant::now();
        let request = self.http.post(&self.url).bearer_auth(&self.key).body(body.to_string());
        let response = request.header("content-type", "application/json").send().await?;
        ensure!(response.status() == 200, "{} answered {}", self.url, response.status());
        let (mut seen, mut unread, mut done) = (Seen::default(), String::new(), false);
        let mut body = response.bytes_stream();
        while let Some(chunk) = body.next().await {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs_f64();
            if seen.first_ms == 0.0 {
                seen.first_ms = since.elapsed().as_secs_f64() * 1e3;
            }
            unread.push_str(std::str::from_utf8(&chunk?)?);
            while let Some((event, rest)) = unread.split_once("\n\n") {
                done |= event == "data: [DONE]";
                let content = event.split_once("\"content\":\"").map(|(_, content)| content);
                let sent = content.and_then(|content| content.split(' ').next()?.parse::<f64>().ok());
                seen.late_ms.extend(sent.map(|micros| now * 1e3 - micros / 1e3));
                unread = rest.to_owned();
            }
        }
        ensure!(done, "a stream of {} ended before its end", self.url);
        ensure!(seen.late_ms.len() == events, "{} of {events} events came", seen.late_ms.len());
        Ok(seen)
    }
}

/// Measures streams through the stand-in alone and through us.
pub async fn measure(world: &World, options: &Options, figures: &mut Figures) -> Result<()> {
    let team = world.teams(1).await.pop().context("a team")?;
    let direct = Source::new(
        format!("{}/chat/completions", world.stand_in.url),
        world.stand_in_key.clone(),
        Some(MODEL),
    )?;
    let ours = source(&world.application, &team).await?;

    let mut first: [Rounds; 3] = Default::default();
    for round in 0..=options.rounds {
        let mut p50 = [0.0; 2];
        for (at, source) in [&direct, &ours].into_iter().enumerate() {
            let mut first_ms = vec![];
            for _ in 0..FIRST_EVENTS {
                first_ms.push(source.read(1, Duration::ZERO).await?.first_ms);
            }
            p50[at] = percentile(&mut first_ms, 50.0);
        }
        // The first one warms up.
        if round > 0 {
            first[0].add(p50[0]);
            first[1].add(p50[1]);
            first[2].add(p50[1] - p50[0]);
        }
    }
    figures.add("stream", "first event, the stand-in alone, p50", "ms", &first[0]);
    figures.add("stream", "first event, us, p50", "ms", &first[1]);
    figures.add_with_goal("stream", "first event later by us, p50", "ms", &first[2], Goal::AtMost(2.0));

    for open in OPEN {
        let pause = Duration::from_secs_f64(open as f64 / EVENTS_A_SECOND as f64);
        let events = (LIFETIME.as_secs_f64() / pause.as_secs_f64()).ceil() as usize;
        let mut late: [Rounds; 2] = Default::default();
        let (mut more, mut each) = (Rounds::default(), Rounds::default());
        for _ in 0..options.rounds.min(3) {
            // Of its own, since memory that was in use once stays with a process.
            let host = world.another_application(&world.database, &[])?;
            let ours = source(&host, &team).await?;
            ours.read(1, Duration::ZERO).await?;
            let before = host.memory_mib()?;
            let (mut seen, ()) = tokio::try_join!(read_at_once(&ours, open, events, pause), async {
                let all_open = Duration::from_secs(1) * (open as u32) / OPENED_A_SECOND;
                tokio::time::sleep(all_open + (LIFETIME - all_open) / 2).await;
                let grown = host.memory_mib()? - before;
                more.add(grown);
                each.add(1024.0 * grown / open as f64);
                Ok(())
            })?;
            late[1].add(percentile(&mut seen, 50.0));
            let mut seen = read_at_once(&direct, open, events, pause).await?;
            late[0].add(percentile(&mut seen, 50.0));
        }
        let of = |figure: &str| format!("{figure}, {open} streams open");
        figures.add("stream", of("an event on its way, the stand-in alone, p50"), "ms", &late[0]);
        figures.add("stream", of("an event on its way, us, p50"), "ms", &late[1]);
        if open == 1000 {
            figures.add_with_goal("stream", of("memory more"), "MiB", &more, Goal::AtMost(256.0));
        } else {
            figures.add("stream", of("memory more"), "MiB", &more);
        }
        figures.add("stream", of("memory each"), "KiB", &each);
    }
    Ok(())
}

/// Streams of a new job at this host.
async fn source(host: &Program, team: &Team) -> Result<Source> {
    let job = team.job().await;
    Source::new(format!("{}/api/jobs/{job}/llm-call-stream", host.url), team.key.clone(), None)
}

/// How long the events of so many streams were on their way.
async fn read_at_once(source: &Source, open: usize, events: usize, pause: Duration) -> Result<Vec<f64>> {
    let streams = (0..open).map(async |number| {
        tokio::time::sleep(Duration::from_secs(1) * (number as u32) / OPENED_A_SECOND).await;
        source.read(events, pause).await
    });
    Ok(try_join_all(streams).await?.into_iter().flat_map(|seen| seen.late_ms).collect())
}
