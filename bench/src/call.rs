//! Buffered calls: what we add to them, and how many we carry.

use crate::{
    figures::{Figures, Goal, Rounds},
    options::Options,
    world::{MODEL, World},
    wrk::{Load, Seen},
};
use anyhow::{Context, Result};
use api_tests::Team;
use serde_json::{Value, json};

/// Calls in flight.
const IN_FLIGHT: [u32; 3] = [1, 16, 64];

/// Teams that call, and jobs of each in which calls are made.
const TEAMS: usize = 32;
const JOBS: usize = 8;

/// Somebody who answers calls.
struct Target<'a> {
    name: &'static str,
    url: &'a str,
    load: Load,
    /// By calls in flight.
    seen: [Vec<Seen>; IN_FLIGHT.len()],
}

impl<'a> Target<'a> {
    fn new(name: &'static str, url: &'a str, load: Load) -> Self {
        Self { name, url, load, seen: Default::default() }
    }

    fn run(&self, in_flight: u32, seconds: u32) -> Result<Seen> {
        self.load
            .run(self.url, in_flight, seconds)
            .with_context(|| format!("{}, {in_flight} in flight", self.name))
    }

    /// In each round, the most calls a second with any number in flight.
    fn most(&self) -> impl Iterator<Item = f64> {
        let rounds = self.seen.iter().map(Vec::len).min().unwrap_or_default();
        (0..rounds).map(|round| self.seen.iter().map(|seen| seen[round].rate()).fold(0.0, f64::max))
    }

    fn rounds(&self, at: usize, figure: impl Fn(&Seen) -> f64) -> Rounds {
        self.seen[at].iter().map(figure).collect()
    }
}

/// A chat of about a kilobyte, as the application takes it; with a model, as LiteLLM does.
pub fn chat(model: Option<&str>) -> String {
    let system = "You are a careful assistant who answers in one short sentence. ".repeat(8);
    let user = "Summarise the attached minutes of the meeting for somebody who was not there. ".repeat(5);
    let mut body = json!({
        "messages": [{"role": "system", "content": system}, {"role": "user", "content": user}],
        "temperature": 0.2,
        "max_tokens": 200,
    });
    if let Some(model) = model {
        body["model"] = Value::from(model);
    }
    body.to_string()
}

/// The path of a call in each of some new jobs, with its key.
pub async fn calls_in_jobs(teams: &[Team], jobs: usize) -> Vec<(&str, String)> {
    let mut calls = vec![];
    for _ in 0..jobs {
        for team in teams {
            calls.push((team.key.as_str(), format!("/api/jobs/{}/llm-call", team.job().await)));
        }
    }
    calls
}

/// Measures calls through the stand-in alone, the native baseline, us, and a real LiteLLM where there is one.
pub async fn measure(world: &World, options: &Options, figures: &mut Figures) -> Result<()> {
    let teams = world.teams(TEAMS).await;
    let calls = calls_in_jobs(&teams, JOBS).await;
    let reusing = world.another_application(&world.database, &["--max-instance-reuse-count", "100000"])?;
    let direct = |key: &str| Load::post([(key, "/chat/completions".to_owned())], &chat(Some(MODEL)));
    let through = || Load::post(calls.iter().cloned(), &chat(None));
    let mut targets = vec![
        Target::new("the stand-in alone", &world.stand_in.url, direct(&world.stand_in_key)?),
        Target::new("the native baseline", &world.native.url, through()?),
        Target::new("us", &world.application.url, through()?),
        Target::new("us, instances reused 100,000 times", &reusing.url, through()?),
    ];
    if let Some(litellm) = &world.litellm {
        targets.push(Target::new("the real LiteLLM alone", &litellm.url, direct(&litellm.key)?));
    }

    for target in &targets {
        // Connections, plans, instances and caches that are there from then on.
        target.run(64, options.seconds)?;
    }
    for _ in 0..options.rounds {
        for (at, in_flight) in IN_FLIGHT.into_iter().enumerate() {
            for target in &mut targets {
                let seen = target.run(in_flight, options.seconds)?;
                target.seen[at].push(seen);
            }
        }
    }

    let [alone, native, us, ..] = &targets[..] else { unreachable!("these three are always there") };
    let real = targets.get(4);
    for target in &targets {
        for (at, in_flight) in IN_FLIGHT.into_iter().enumerate() {
            let of = |figure: &str| format!("{figure}, {}, {in_flight} in flight", target.name);
            figures.add("call", of("p50"), "ms", &target.rounds(at, |seen| seen.p50_ms));
            figures.add("call", of("p99"), "ms", &target.rounds(at, |seen| seen.p99_ms));
            figures.add("call", of("calls"), "/s", &target.rounds(at, Seen::rate));
        }
    }
    let pairs =
        |first: &Target, second: &Target, at: usize, figure: &dyn Fn(&Seen, &Seen) -> f64| -> Rounds {
            first.seen[at].iter().zip(&second.seen[at]).map(|(first, second)| figure(first, second)).collect()
        };
    for (at, in_flight) in IN_FLIGHT.into_iter().enumerate() {
        let added = pairs(us, alone, at, &|us, alone| us.p50_ms - alone.p50_ms);
        let name = format!("p50 added by us, {in_flight} in flight");
        if in_flight == 1 {
            figures.add_with_goal("call", name, "ms", &added, Goal::AtMost(1.5));
        } else {
            figures.add("call", name, "ms", &added);
        }
        let added = pairs(us, alone, at, &|us, alone| us.p99_ms - alone.p99_ms);
        figures.add("call", format!("p99 added by us, {in_flight} in flight"), "ms", &added);
    }
    for target in &targets {
        figures.add("call", format!("most calls, {}", target.name), "/s", &target.most().collect());
    }
    let times = |other: &Target, unit: f64| -> Rounds {
        us.most().zip(other.most()).map(|(us, other)| unit * us / other).collect()
    };
    let share = times(native, 100.0);
    figures.add_with_goal(
        "call",
        "our most calls/s, of the native baseline's",
        "%",
        &share,
        Goal::AtLeast(40.0),
    );
    figures.add("call", "our most calls/s, of the stand-in's ceiling", "%", &times(alone, 100.0));
    if let Some(real) = real {
        let added = us.seen[0].iter().zip(&alone.seen[0]).zip(&real.seen[0]);
        let added =
            added.map(|((us, alone), real)| 100.0 * (us.p50_ms - alone.p50_ms) / real.p50_ms).collect();
        figures.add_with_goal(
            "call",
            "p50 added by us, of what the real LiteLLM takes, 1 in flight",
            "%",
            &added,
            Goal::AtMost(5.0),
        );
        let times = times(real, 1.0);
        figures.add_with_goal(
            "call",
            "our most calls/s, to the real LiteLLM's",
            "×",
            &times,
            Goal::AtLeast(10.0),
        );
    }
    Ok(())
}
