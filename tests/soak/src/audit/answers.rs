//! Every answer is one that its request can get, and says whom it lets in by keys and suspensions.

use super::{Audit, excuses::is_excused, rules, told};
use crate::{
    history::{By, Kind, Micros, Record, StreamEnd},
    model::{Interval, Suspension},
    storm::{Fault, Part},
    world::CACHE_SECONDS,
};

/// How long a look-up may be believed after it is no longer true: its lifetime, and what rounding to seconds adds.
const STALE: i64 = (CACHE_SECONDS + 1) * 1_000_000;

/// How long an answer may take, whatever fails.
const BOUND: i64 = 40 * 1_000_000;

impl Audit<'_> {
    pub(super) fn answers(&mut self) {
        for record in self.history {
            if !is_possible(record, self.faults) {
                let seen = format!("{}; {}", told(record), self.last_faults(record));
                self.violated(rules::POSSIBLE_ANSWER, seen);
            }
            let passes = [429, 502, 503, 504].contains(&record.heard.status)
                || record.heard.code() == "idempotency_in_progress";
            if passes && !record.heard.retry_after {
                self.violated(rules::COME_AGAIN, told(record));
            }
            if record.end - record.start > BOUND && record.kind.is_request() {
                self.violated(rules::IN_TIME, told(record));
            }
            if let By::Key(key) = record.by {
                self.identity(record, key);
            }
        }
        let tags: Vec<&str> = self.asked.keys().copied().collect();
        for tag in tags {
            self.repeats(tag);
        }
    }

    /// Keys that were revoked, and teams that are suspended, are refused; others are not.
    fn identity(&mut self, record: &Record, key: usize) {
        let team = &self.teams[record.team];
        let window = Interval::new(record.start, record.end);
        let life = crate::team::lock(&team.keys)[key].life;
        let suspensions = crate::team::lock(&team.suspensions).clone();
        let heard = &record.heard;
        if heard.is_unknown() {
            return;
        }
        // The answer of an earlier request tells of what was true then.
        let told_of =
            if heard.replayed { Interval::new(self.first_asked(record), window.to) } else { window };
        let may_be_suspended = suspensions.iter().any(|suspension| suspension.can_refuse(told_of));
        if heard.status == 401 {
            // LiteLLM hears of changes late when it fails.
            let fails = || self.requests(&record.tag).iter().any(|other| self.meets(other, Part::LiteLlm));
            let by_litellm = heard.call.is_some() && (may_be_suspended || fails());
            if !life.can_be_refused(told_of) && !by_litellm {
                let seen = format!("{}; {life:?}; {}", told(record), self.circumstances(record));
                self.violated(rules::KEY_WORKS, seen);
            }
        } else if heard.code() == "team_suspended" {
            if !may_be_suspended {
                self.violated(rules::NOT_SUSPENDED, told(record));
            }
        } else {
            // What is decided in SQL is decided by what is true then. The rest goes by look-ups that may be a little
            // old, but not at the host that made them old.
            let by_sql =
                ["job_finished", "insufficient_credits", "idempotency_in_progress", "idempotency_mismatch"];
            let strict = !record.kind.reads()
                && (heard.is_ok()
                    || heard.call.is_some()
                    || heard.limit().is_some()
                    || by_sql.contains(&heard.code()));
            let seen_at = |known_at| {
                let stale = if strict || known_at == Some(record.host) { 0 } else { STALE };
                Interval::new(window.from.saturating_sub(stale), window.to)
            };
            if !life.can_work(seen_at(life.known_at)) {
                self.violated(rules::KEY_REVOKED, told(record));
            }
            let must_refuse = |suspension: &Suspension| suspension.must_refuse(seen_at(suspension.known_at));
            if suspensions.iter().any(must_refuse) {
                self.violated(rules::SUSPENDED, told(record));
            }
        }
    }

    /// When the same was asked for the first time.
    fn first_asked(&self, record: &Record) -> Micros {
        self.requests(&record.tag).iter().map(|other| other.start).min().unwrap_or(record.start)
    }

    /// What was changed about the team's keys and standing shortly before a request, and what failed.
    fn circumstances(&self, record: &Record) -> String {
        let near = Interval::new(record.start - 20_000_000, record.end);
        let kinds = [Kind::Suspend, Kind::Resume, Kind::Rotate, Kind::Revoke];
        let changes = self.history.iter().filter(|other| {
            other.team == record.team
                && kinds.contains(&other.kind)
                && Interval::new(other.start, other.end).overlaps(near)
        });
        let changes: Vec<String> = changes.map(told).collect();
        let faults: Vec<_> = self.faults.iter().filter(|fault| fault.during.overlaps(near)).collect();
        format!("after {}; while {faults:?}", changes.join("; "))
    }

    /// All answers to one intent under an `Idempotency-Key` are the same, and but for the first they say so.
    fn repeats(&mut self, tag: &str) {
        let done: Vec<&Record> = self
            .requests(tag)
            .iter()
            .copied()
            .filter(|record| record.repeatable && record.heard.is_ok() && record.heard.stream.is_none())
            // What is not written yet can't be told the first time.
            .filter(|record| !(record.kind.calls() && self.is_settled_later(record)))
            .collect();
        let Some(first) = done.first() else { return };
        let warned = |record: &Record| record.heard.body["warnings"].is_array();
        if let Some(other) = done
            .iter()
            .find(|record| record.heard.body != first.heard.body && !warned(record) && !warned(first))
        {
            let seen = format!("{} {} but {}", told(other), other.heard.body, first.heard.body);
            self.violated(rules::SAME_ANSWER, seen);
        }
        if done.iter().filter(|record| !record.heard.replayed).count() > 1 {
            self.violated(rules::DONE_ONCE, told(first));
        }
    }
}

/// Whether a request can get this answer, whatever else is asked, and with these faults.
pub fn is_possible(record: &Record, faults: &[Fault]) -> bool {
    may_be_answered(record) || is_excused(record, faults)
}

/// Whether this status and code are among those that the request can get while nothing fails.
fn may_be_answered(record: &Record) -> bool {
    let heard = &record.heard;
    let prompt = record.asked["messages"][0]["content"].as_str().unwrap_or_default();
    if let Some(end) = &heard.stream {
        return match end {
            StreamEnd::Done(_) | StreamEnd::Left => true,
            StreamEnd::Failed(_) => {
                ["error_after", "end_after", "cut_after"].iter().any(|mark| prompt.contains(mark))
            }
            StreamEnd::Broken => false,
        };
    }
    let identity = matches!(record.by, By::Key(_));
    match (heard.status, heard.code()) {
        (200, _) => !matches!(record.kind, Kind::Intrude | Kind::Mismatch),
        (401, "unauthenticated" | "invalid_api_key") | (403, "team_suspended") => identity,
        (402, "insufficient_credits") => {
            matches!(record.kind, Kind::CreateJob | Kind::Adjust | Kind::OwnJob | Kind::OwnStream)
                || (record.kind == Kind::Chat && record.job.is_none())
        }
        (403, "wrong_team") => record.kind == Kind::Intrude,
        (404, "not_found") => record.kind == Kind::Intrude,
        (409, "job_finished") => {
            record.job.is_some() && (record.kind.calls() || record.kind == Kind::Complete)
        }
        (409, "idempotency_in_progress") => {
            record.repeatable && (record.kind.calls() || record.kind == Kind::Mismatch)
        }
        (403, "job_limit") => record.kind.calls() && heard.call.is_none(),
        (429, "too_many_calls") => {
            (record.kind.calls() || record.kind == Kind::CreateJob) && heard.call.is_none()
        }
        // By what is counted here, or by LiteLLM.
        (429, "rate_limited") => record.kind.calls(),
        (402, "budget_exhausted") => record.kind.calls() && heard.call.is_some(),
        (409, "refund_exceeds_charge") => record.kind == Kind::Refund,
        (422, "idempotency_mismatch") => record.kind == Kind::Mismatch,
        (400, "invalid_request") => record.kind.calls() && prompt.contains("status=400"),
        // What is cut before LiteLLM has passed anything on has not begun.
        (502, "llm_failed") => {
            record.kind.calls()
                && (record.asked["model_group"] == crate::team::BREAKS || prompt.contains("cut_after"))
        }
        _ => false,
    }
}
