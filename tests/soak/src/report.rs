//! What a run prints.

use crate::{
    audit::{Violation, rules::RULES},
    driver::Judged,
    history::{Record, StreamEnd},
    storm::Part,
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, fmt, time::Duration};

/// What a run did and found.
#[derive(Default)]
pub struct Report {
    seed: u64,
    rounds: u64,
    duration: Duration,
    /// How often each kind had each outcome.
    operations: BTreeMap<String, BTreeMap<String, u64>>,
    faults: BTreeMap<String, u64>,
    violations: Vec<Violation>,
}

impl Report {
    /// Of a run with this seed.
    pub fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// Adds a round.
    pub fn add(&mut self, round: Judged, duration: Duration) {
        self.rounds += 1;
        self.duration += duration;
        for record in &round.history {
            let outcomes = self.operations.entry(format!("{:?}", record.kind)).or_default();
            *outcomes.entry(outcome(record)).or_default() += 1;
        }
        for fault in &round.faults {
            let part = match fault.part {
                Part::Database => "database",
                Part::LiteLlm => "LiteLLM",
                Part::Host(_) => "host",
            };
            *self.faults.entry(format!("{part} {}", fault.how)).or_default() += 1;
        }
        self.violations.extend(round.violations);
    }

    /// What was wrong.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// How many requests there were.
    pub fn requests(&self) -> u64 {
        self.operations.values().flat_map(BTreeMap::values).sum()
    }

    /// The same for programs.
    pub fn to_json(&self) -> Value {
        json!({
            "seed": self.seed, "rounds": self.rounds, "seconds": self.duration.as_secs(), "requests": self.requests(),
            "operations": self.operations, "faults": self.faults, "rules": RULES,
            "violations": self.violations.iter()
                .map(|violation| json!({"rule": violation.rule, "seen": violation.seen}))
                .collect::<Vec<_>>(),
        })
    }
}

/// How it ended, in a word or two.
fn outcome(record: &Record) -> String {
    let heard = &record.heard;
    match &heard.stream {
        Some(StreamEnd::Done(_)) => "200 streamed".into(),
        Some(StreamEnd::Failed(_)) => "200 stream failed".into(),
        Some(StreamEnd::Broken) => "200 stream broke".into(),
        Some(StreamEnd::Left) => "200 left".into(),
        None if heard.status == 0 => "nothing heard".into(),
        None if heard.replayed => format!("{} replayed", heard.status),
        None => format!("{} {}", heard.status, heard.code()).trim_end().into(),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, outcomes) in &self.operations {
            let outcomes: Vec<String> =
                outcomes.iter().map(|(outcome, number)| format!("{number} × {outcome}")).collect();
            writeln!(f, "{kind:>18}  {}", outcomes.join(", "))?;
        }
        let faults: Vec<String> =
            self.faults.iter().map(|(kind, number)| format!("{number} × {kind}")).collect();
        writeln!(
            f,
            "{:>18}  {}",
            "faults",
            if faults.is_empty() { "none".into() } else { faults.join(", ") }
        )?;
        let seconds = self.duration.as_secs();
        writeln!(
            f,
            "seed {}: {} requests in {} rounds, {seconds} s, judged by {} rules and the database's invariants",
            self.seed,
            self.requests(),
            self.rounds,
            RULES.len()
        )?;
        let mut by_rule: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for violation in &self.violations {
            by_rule.entry(violation.rule).or_default().push(&violation.seen);
        }
        for (rule, seen) in &by_rule {
            writeln!(f, "VIOLATED {} times: {rule}", seen.len())?;
            for seen in seen.iter().take(3) {
                let cut: String = seen.chars().take(2500).collect();
                writeln!(f, "    {cut}")?;
            }
        }
        write!(f, "{} violations", self.violations.len())
    }
}
