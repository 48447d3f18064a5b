//! Whether everything that was heard was possible, and whether the end is what it adds up to.

mod answers;
mod calls;
mod credits;
mod excuses;
mod jobs;
mod limits;
mod money;
pub mod rules;
mod visibility;
mod world;

pub use answers::is_possible;
pub use excuses::may_stay_unsettled;
pub use limits::SAME_INSTANT;
pub use world::{bills, of_world};

use crate::{
    history::{Kind, NEVER, Record},
    model::{Ending, Interval},
    state::{Call, Entry, State},
    storm::Fault,
    team::Team,
};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Something that must not be.
#[derive(Clone, Debug)]
pub struct Violation {
    /// What should hold.
    pub rule: &'static str,
    /// What was seen instead.
    pub seen: String,
}

impl Violation {
    /// A violation of a rule.
    pub fn new(rule: &'static str, seen: impl Into<String>) -> Self {
        Self { rule, seen: seen.into() }
    }
}

/// What the parts of the audit share.
struct Audit<'a> {
    history: &'a [Record],
    teams: &'a [Team],
    state: &'a State,
    faults: &'a [Fault],
    /// All requests with a tag.
    asked: BTreeMap<&'a str, Vec<&'a Record>>,
    /// All calls with a tag.
    made: BTreeMap<&'a str, Vec<&'a Call>>,
    /// All calls of a job.
    calls_of: BTreeMap<Uuid, Vec<&'a Call>>,
    /// The ledger's rows of each job, oldest first.
    rows_of: BTreeMap<Uuid, Vec<&'a Entry>>,
    /// Of jobs that were made for a call, the call's tag.
    own: BTreeMap<Uuid, &'a str>,
    /// When jobs were opened.
    opened: BTreeMap<Uuid, Interval>,
    /// When jobs ended, those that did.
    endings: BTreeMap<Uuid, Ending>,
    violations: Vec<Violation>,
}

/// Judges a round.
pub fn audit(history: &[Record], teams: &[Team], faults: &[Fault], state: &State) -> Vec<Violation> {
    let mut audit = Audit {
        history,
        teams,
        state,
        faults,
        asked: BTreeMap::new(),
        made: BTreeMap::new(),
        calls_of: BTreeMap::new(),
        rows_of: BTreeMap::new(),
        own: BTreeMap::new(),
        opened: BTreeMap::new(),
        endings: BTreeMap::new(),
        violations: vec![],
    };
    // What was asked wrongly on purpose has the tag of something else.
    for record in history.iter().filter(|record| record.kind != Kind::Mismatch) {
        audit.asked.entry(&record.tag).or_default().push(record);
    }
    for call in state.calls.values() {
        audit.made.entry(&call.tag).or_default().push(call);
        audit.calls_of.entry(call.job).or_default().push(call);
        if audit.requests(&call.tag).iter().any(|record| record.kind.calls() && record.job.is_none()) {
            audit.own.insert(call.job, &call.tag);
        }
    }
    for entry in state.ledgers.iter().flatten() {
        if let Some(job) = entry.job {
            audit.rows_of.entry(job).or_default().push(entry);
        }
    }
    audit.answers();
    audit.calls();
    audit.jobs();
    audit.credits();
    audit.charges();
    audit.limits();
    audit.visibility();
    audit.settled();
    audit.violations
}

impl<'a> Audit<'a> {
    fn violated(&mut self, rule: &'static str, seen: impl Into<String>) {
        self.violations.push(Violation::new(rule, seen));
    }

    fn requests(&self, tag: &str) -> &[&'a Record] {
        self.asked.get(tag).map_or(&[], Vec::as_slice)
    }

    /// When the one effect of an intent happened: `done` says whether an answer shows that it had. `None`: no request
    /// can have had it.
    fn effect(&self, tag: &str, done: impl Fn(&Record) -> bool) -> Option<Interval> {
        let possible =
            || self.requests(tag).iter().filter(|record| record.heard.is_unknown() || done(record));
        let from = possible().map(|record| record.start).min()?;
        let to = possible().map(|record| record.until()).min().unwrap_or(NEVER);
        Some(Interval::new(from, to))
    }

    /// How often an intent may and must have had its effect: once if an answer says so; as often as requests without an
    /// answer could.
    fn expected(&self, tag: &str, done: impl Fn(&Record) -> bool) -> (usize, usize) {
        let done = usize::from(self.requests(tag).iter().any(|record| done(record)));
        let unknown = self.requests(tag).iter().any(|record| record.heard.is_unknown());
        (done, done.max(usize::from(unknown)))
    }
}

/// A request in a few words.
fn told(record: &Record) -> String {
    let heard = &record.heard;
    let stream = heard.stream.as_ref().map(|end| format!(" {end:?}")).unwrap_or_default();
    let call = heard.call.map(|call| format!(" call {call}")).unwrap_or_default();
    format!(
        "{:?} {} {:?}{} by {:?} in team {} at host {} [{}..{}]: {}{}{call}{stream} {}",
        record.kind,
        record.tag,
        record.job,
        if record.repeatable { " repeatable" } else { "" },
        record.by,
        record.team,
        record.host,
        record.start,
        record.end,
        heard.status,
        if heard.replayed { " replayed" } else { "" },
        if heard.is_ok() { String::new() } else { heard.body.to_string() },
    )
}
