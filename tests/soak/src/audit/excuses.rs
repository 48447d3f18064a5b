//! What faults excuse: the honest answers, and ends that nobody was left to write.

use super::{Audit, Violation, rules};
use crate::{
    history::{Kind, Micros, Record, StreamEnd},
    model::Interval,
    operations::LOST,
    state::Call,
    storm::{Fault, Part},
};

/// How long a fault may be felt after it is over: until whoever met it has noticed.
const AFTERMATH: Micros = 5_000_000;

/// How long a statement may take from its instant, which rows have, until it is done: while nothing fails, and while
/// the database does.
const STATEMENT: [Micros; 2] = [5_000_000, 60_000_000];

/// Whether a fault of that part was felt in that time.
fn is_felt(faults: &[Fault], part: Part, during: Interval) -> bool {
    let during = Interval::new(during.from.saturating_sub(AFTERMATH), during.to);
    faults.iter().any(|fault| fault.part == part && fault.during.overlaps(during))
}

fn during(record: &Record) -> Interval {
    Interval::new(record.start, record.end)
}

/// Whether a request can have got this answer because of a fault.
pub(super) fn is_excused(record: &Record, faults: &[Fault]) -> bool {
    let heard = &record.heard;
    // The answer of an earlier request tells of earlier faults.
    let felt = |part| {
        let from = if heard.replayed { Micros::MIN } else { record.start };
        is_felt(faults, part, Interval::new(from, record.end))
    };
    match (&heard.stream, heard.status, heard.code()) {
        (Some(StreamEnd::Failed(_)), ..) => felt(Part::LiteLlm),
        (Some(StreamEnd::Broken), ..) | (None, 0, _) => felt(Part::Host(record.host)),
        (None, 503, "unavailable") => {
            felt(Part::Database) || (record.kind.tells_litellm() && felt(Part::LiteLlm))
        }
        // Garbage may be an error that blames the request.
        (None, 502, "llm_failed") | (None, 504, "llm_timeout") | (None, 400, "invalid_request") => {
            record.kind.calls() && felt(Part::LiteLlm)
        }
        // Whoever was at it is gone.
        (None, 409, "idempotency_in_progress") => record.repeatable && !faults.is_empty(),
        _ => false,
    }
}

impl Audit<'_> {
    /// Whether a fault of that part was felt during a request.
    pub(super) fn meets(&self, record: &Record, part: Part) -> bool {
        is_felt(self.faults, part, during(record))
    }

    /// The last fault of each part before a request ended, with the time from its end to the request.
    pub(super) fn last_faults(&self, record: &Record) -> String {
        let mut last: Vec<&Fault> = vec![];
        for fault in self.faults.iter().filter(|fault| fault.during.from <= record.end).rev() {
            if !last.iter().any(|other| other.part == fault.part) {
                last.push(fault);
            }
        }
        let since = |fault: &&Fault| {
            format!("{:?} {}, {} µs ago", fault.part, fault.how, record.start.saturating_sub(fault.during.to))
        };
        last.iter().map(since).collect::<Vec<_>>().join("; ")
    }

    /// Whether what became of a request's call was perhaps written only after the answer: the database was away.
    pub(super) fn is_settled_later(&self, record: &Record) -> bool {
        self.meets(record, Part::Database)
    }

    /// Whether perhaps nobody was left to write what became of a request's call: its host was killed during the
    /// request, or after it while there was still something to write.
    pub(super) fn is_orphaned(&self, record: &Record) -> bool {
        // What a reader has left is noticed later, and may go on.
        let later = self.is_settled_later(record) || record.heard.stream == Some(StreamEnd::Left);
        self.meets(record, Part::Host(record.host)) || (later && was_killed_since(record, self.faults))
    }

    /// When what a row says of this instant can have become true for others.
    pub(super) fn written(&self, at: Micros) -> Interval {
        let [usual, late] = STATEMENT;
        let slow = is_felt(self.faults, Part::Database, Interval::new(at, at.saturating_add(usual)));
        Interval::new(at, at.saturating_add(if slow { late } else { usual }))
    }

    /// Every call is settled, but those that nobody was left for, which have ended all the same.
    pub(super) fn settled(&mut self) {
        let unsettled: Vec<&Call> = self.state.calls.values().filter(|call| call.settled.is_none()).collect();
        for call in unsettled {
            if call.status == "open" || !may_stay_unsettled(&call.tag, self.requests(&call.tag), self.faults)
            {
                self.violations.push(Violation::new(rules::SETTLED, format!("{call:?}")));
            }
        }
    }
}

fn was_killed_since(record: &Record, faults: &[Fault]) -> bool {
    let host = Part::Host(record.host);
    faults.iter().any(|fault| fault.part == host && record.start <= fault.during.to)
}

/// Whether a call of these requests may never be settled: nobody settles it on purpose, nobody knows whether it was
/// opened, or its host was killed, perhaps while it still asked LiteLLM what the call had cost.
pub fn may_stay_unsettled(tag: &str, requests: &[&Record], faults: &[Fault]) -> bool {
    tag.starts_with(LOST)
        || requests.iter().any(|record| record.heard.is_unknown() || was_killed_since(record, faults))
}

impl Kind {
    /// Whether it sends anything to LiteLLM.
    fn tells_litellm(self) -> bool {
        self.calls()
            || matches!(
                self,
                Kind::Add
                    | Kind::Adjust
                    | Kind::Suspend
                    | Kind::Resume
                    | Kind::Rotate
                    | Kind::Revoke
                    | Kind::Resync
            )
    }
}
