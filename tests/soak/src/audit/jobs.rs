//! Jobs: each was opened by one request, and one instant of its end fits everything that was heard of it.

use super::{Audit, rules, told};
use crate::{
    history::{By, Kind, NEVER, Record, StreamEnd},
    model::{Ending, Interval},
    state::Job,
};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

impl Audit<'_> {
    pub(super) fn jobs(&mut self) {
        let mut about: BTreeMap<Uuid, Vec<&Record>> = BTreeMap::new();
        for record in self.history.iter().filter(|record| !record.heard.is_unknown()) {
            if let Some(job) = record.job.or(record.heard.job).filter(|_| record.kind != Kind::Intrude) {
                about.entry(job).or_default().push(record);
            }
        }
        let state = self.state;
        let overdue = self.overdue();
        for job in state.jobs.values() {
            let records = about.remove(&job.id).unwrap_or_default();
            self.opening(job);
            self.ending(job, &records);
            self.completion(job, &records);
            self.failure_is_free(job, &records, &overdue);
        }
        for (job, records) in about {
            let done = records.iter().find(|record| record.heard.is_ok());
            if let Some(record) = done {
                self.violated(rules::JOB_KEPT, format!("{job}: {}", told(record)));
            }
        }
        self.listed();
        self.numbers_of_jobs();
    }

    fn opening(&mut self, job: &Job) {
        let tag = job.tag.clone().or_else(|| self.own.get(&job.id).map(|tag| (*tag).to_owned()));
        let opened =
            tag.as_deref().and_then(|tag| self.effect(tag, |record| record.heard.job == Some(job.id)));
        match opened {
            Some(opened) => drop(self.opened.insert(job.id, opened)),
            None => self.violated(rules::JOB_ASKED, format!("{job:?}")),
        }
    }

    fn numbers_of_jobs(&mut self) {
        let mut made: BTreeMap<&str, usize> = BTreeMap::new();
        for job in self.state.jobs.values() {
            *made.entry(job.tag.as_deref().unwrap_or_default()).or_default() += 1;
        }
        let tags: Vec<&str> = self
            .asked
            .iter()
            .filter(|(_, all)| all[0].kind == Kind::CreateJob)
            .map(|(tag, _)| *tag)
            .collect();
        for tag in tags {
            let made = made.get(tag).copied().unwrap_or_default();
            let (least, most) = self.expected(tag, |record| record.heard.is_ok());
            if made < least || made > most {
                let requests: Vec<String> = self.requests(tag).iter().map(|record| told(record)).collect();
                self.violated(rules::JOB_ONCE, format!("{made} jobs of {}", requests.join("; ")));
            }
        }
    }

    fn ending(&mut self, job: &Job, records: &[&Record]) {
        let is_open = ["pending", "in_progress"].contains(&job.status.as_str());
        let mut ending = Ending::unknown();
        if let Some(opened) = self.opened.get(&job.id) {
            ending.from = opened.from;
        }
        if job.status == "expired" {
            ending.from = ending.from.max(job.expires);
        }
        let cause = self.cause(job);
        match cause {
            Some(cause) => ending.caused(cause),
            None if !is_open && job.status != "expired" => {
                self.violated(rules::JOB_ENDED_BY, format!("{job:?}"));
            }
            None => {}
        }
        for record in records {
            let during = Interval::new(record.start, record.end);
            if let Some(seen) = seen(record) {
                match seen {
                    Seen::Open { changed } => {
                        if changed && record.start > job.expires {
                            self.violated(rules::TOO_LATE, told(record));
                        }
                        ending.seen_open(during);
                    }
                    Seen::Ended { how, changed } => {
                        if how != job.status {
                            self.violated(rules::JOB_ENDS_ONCE, format!("{job:?}, but {}", told(record)));
                        }
                        if how == "expired" && record.end < job.expires {
                            self.violated(rules::EXPIRES, told(record));
                        }
                        // A request that is refused for the deadline undoes the expiry with everything else that it
                        // began.
                        if !(how == "expired" && changed) {
                            ending.seen_ended(during);
                        }
                    }
                }
            }
        }
        if let Some(cause) = cause.filter(|cause| cause.from > job.expires) {
            self.violated(rules::TOO_LATE, format!("{job:?} ended in {cause:?}"));
        }
        if !ending.is_possible() {
            let records: Vec<String> = records.iter().map(|record| told(record)).collect();
            self.violated(rules::ONE_END, format!("{job:?}: {ending:?}: {}", records.join("; ")));
        }
        if !is_open {
            self.endings.insert(job.id, ending);
        }
    }

    /// When what ended the job was done: a completion, or the settling of its own call.
    pub(super) fn cause(&self, job: &Job) -> Option<Interval> {
        if !["completed", "failed", "cancelled"].contains(&job.status.as_str()) {
            return None;
        }
        match &job.ended_by {
            Some(tag) => self.effect(tag, |record| record.heard.is_ok()),
            None => {
                let records = self.requests(self.own.get(&job.id)?);
                let from = records.iter().map(|record| record.start).min()?;
                let whole = |record: &&&Record| {
                    !matches!(record.heard.stream, Some(StreamEnd::Left | StreamEnd::Broken))
                        && record.heard.job == Some(job.id)
                        && !self.is_settled_later(record)
                };
                let to = records.iter().filter(whole).map(|record| record.until()).min().unwrap_or(NEVER);
                Some(Interval::new(from, to))
            }
        }
    }

    /// Whoever completes a job is told the same, and that is what its calls add up to.
    fn completion(&mut self, job: &Job, records: &[&Record]) {
        if job.completion.is_null() {
            return;
        }
        let calls = self.calls_of.get(&job.id).cloned().unwrap_or_default();
        let number = |status: &str| calls.iter().filter(|call| call.status == status).count() as i64;
        let costs = &job.completion["costs"];
        let counted = ["total_calls", "successful_calls", "failed_calls", "refused_calls"]
            .map(|name| costs[name].as_i64());
        let expected =
            [calls.len() as i64, number("succeeded"), number("failed"), number("refused")].map(Some);
        if counted != expected {
            let seen = format!("{job:?}: told {counted:?}, kept {expected:?}: {calls:?}");
            self.violated(rules::COMPLETION_CALLS, seen);
        }
        for record in records.iter().filter(|record| record.kind == Kind::Complete && record.heard.is_ok()) {
            if unchanging(&record.heard.body["costs"]) != unchanging(costs) && !self.may_hide(record, costs) {
                let seen = format!("{}: {}, not {}", told(record), record.heard.body, job.completion);
                self.violated(rules::COMPLETION_SAME, seen);
            }
        }
        // What comes late is not among it: that is another row, and the answer to a repetition.
        let charged = job.charged_at_its_end;
        if costs["credits_charged"].as_i64() != Some(charged) || costs["credit_applied"] != (charged > 0) {
            self.violated(rules::COMPLETION_CHARGE, format!("{job:?}"));
        }
    }

    /// Whether a completion's answer is the kept one but for what its reader may not see.
    fn may_hide(&self, record: &Record, costs: &Value) -> bool {
        let mut seen = unchanging(costs);
        seen["total_cost_usd"] = Value::Null;
        let hidden = record.by != By::Admin && !self.teams[record.team].costs_visible;
        hidden && unchanging(&record.heard.body["costs"]) == seen
    }

    /// A call that its caller heard fail before what completed its job began counts, unless the caller is charged for
    /// what was delivered. A call that was refused does not count.
    fn failure_is_free(&mut self, job: &Job, records: &[&Record], overdue: &BTreeSet<Uuid>) {
        if self.teams[job.team].charged_when_delivered {
            return;
        }
        let Some(completed) = self.cause(job).map(|cause| cause.from) else { return };
        let failed = |record: &&&Record| {
            let heard = &record.heard;
            let failed = matches!(heard.stream, Some(StreamEnd::Failed(_)))
                || (heard.call.is_some() && heard.status >= 400 && heard.stream.is_none());
            let counts = !heard.call.is_some_and(|call| overdue.contains(&call))
                && !self.is_settled_later(record)
                && !self.is_orphaned(record);
            failed && !heard.is_refused_call() && counts && record.end < completed
        };
        if let Some(record) = records.iter().find(failed).filter(|_| job.charged > 0) {
            self.violated(rules::FAILURE_IS_FREE, format!("{job:?} after {}", told(record)));
        }
    }

    /// Lists are true of some instant, too.
    fn listed(&mut self) {
        for record in
            self.history.iter().filter(|record| record.kind == Kind::ListJobs && record.heard.is_ok())
        {
            for listed in record.heard.body["jobs"].as_array().into_iter().flatten() {
                let id = listed["job_id"].as_str().and_then(|id| id.parse::<Uuid>().ok()).unwrap_or_default();
                let status = listed["status"].as_str().unwrap_or_default();
                let open = ["pending", "in_progress"].contains(&status);
                let (Some(job), ending) = (self.state.jobs.get(&id), self.endings.get(&id)) else {
                    self.violated(rules::JOB_LISTED, format!("{id} in {}", told(record)));
                    continue;
                };
                let possible = match ending {
                    None => open,
                    Some(ending) if open => record.start <= ending.to,
                    Some(ending) => job.status == status && ending.from <= record.end,
                };
                if !possible {
                    self.violated(
                        rules::ONE_END,
                        format!("{job:?} {ending:?} was listed as {status}: {}", told(record)),
                    );
                }
            }
        }
    }
}

/// What does not change in a completion's answer when it is asked for again.
fn unchanging(costs: &Value) -> Value {
    let mut costs = costs.clone();
    for name in ["credits_charged", "credits_refunded", "charge_is_final"] {
        costs[name] = Value::Null;
    }
    costs
}

/// What a request shows of its job. `changed`: it was refused or let through by what the job was, not just told it.
enum Seen<'a> {
    Open { changed: bool },
    Ended { how: &'a str, changed: bool },
}

fn seen(record: &Record) -> Option<Seen<'_>> {
    let heard = &record.heard;
    let status = heard.body["status"].as_str().unwrap_or_default();
    match record.kind {
        Kind::ReadJob if heard.is_ok() && ["pending", "in_progress"].contains(&status) => {
            Some(Seen::Open { changed: false })
        }
        Kind::ReadJob if heard.is_ok() => Some(Seen::Ended { how: status, changed: false }),
        Kind::Complete if heard.is_ok() => {
            Some(Seen::Ended { how: record.asked["status"].as_str()?, changed: false })
        }
        _ if heard.replayed => None,
        _ if heard.job_is_over().is_some() => Some(Seen::Ended { how: heard.job_is_over()?, changed: true }),
        Kind::LoseCall => Some(Seen::Open { changed: true }),
        kind if kind.calls() && record.job.is_some() && heard.call.is_some() => {
            Some(Seen::Open { changed: true })
        }
        _ => None,
    }
}
