//! Calls: as many as were asked for, each ended as its caller heard.

use super::{Audit, rules, told};
use crate::{
    history::{Kind, Record, StreamEnd},
    state::Call,
    storm::Part,
    team::TIMES_OUT,
};
use std::collections::BTreeSet;
use uuid::Uuid;

impl Audit<'_> {
    pub(super) fn calls(&mut self) {
        let made: Vec<&str> = self.made.keys().copied().collect();
        for tag in made {
            if !self.requests(tag).iter().any(|record| record.kind.calls() || record.kind == Kind::LoseCall) {
                self.violated(rules::CALL_ASKED, tag);
            }
        }
        let asked: Vec<&str> = self
            .asked
            .iter()
            .filter(|(_, records)| records.iter().any(|record| record.kind.calls()))
            .map(|(tag, _)| *tag)
            .collect();
        for tag in asked {
            self.number_of_calls(tag);
        }
        let overdue = self.overdue();
        for record in self.history {
            if record.kind == Kind::SettleAgain && record.heard.body != false {
                self.violated(rules::SETTLED_ONCE, told(record));
            }
            if record.kind == Kind::LoseCall {
                self.lost(record);
            }
        }
        for record in self.history.iter().filter(|record| record.kind.calls()) {
            let Some(id) = record.heard.call else { continue };
            match self.state.calls.get(&id) {
                None => self.violated(rules::CALL_KEPT, told(record)),
                Some(call) => self.end_of_call(record, call, overdue.contains(&id)),
            }
        }
    }

    /// Calls whose deadlines passed while somebody was at them, which happens only here.
    pub(super) fn overdue(&self) -> BTreeSet<Uuid> {
        let passes = self.history.iter().filter(|record| record.kind == Kind::CallDeadlinePasses);
        passes.filter_map(|record| record.heard.call).collect()
    }

    /// A call that nobody settles is ended by its deadline, if its job does not end before.
    fn lost(&mut self, record: &Record) {
        let call = record.heard.call.and_then(|id| self.state.calls.get(&id));
        if call.is_none_or(|call| !["abandoned", "cancelled"].contains(&call.status.as_str())) {
            self.violated(rules::ABANDONED, format!("{} but {call:?}", told(record)));
        }
    }

    fn number_of_calls(&mut self, tag: &str) {
        let requests = self.requests(tag).to_vec();
        let heard: BTreeSet<Uuid> = requests.iter().filter_map(|record| record.heard.call).collect();
        let unknown =
            requests.iter().filter(|record| record.heard.is_unknown() && record.heard.call.is_none()).count();
        let calls: Vec<&Call> = self.made.get(tag).cloned().unwrap_or_default();
        if calls.len() < heard.len() || calls.len() > heard.len() + unknown {
            let requests: Vec<String> = requests.iter().map(|record| told(record)).collect();
            let seen = format!("{} calls of {}", calls.len(), requests.join("; "));
            self.violated(rules::CALL_NUMBER, seen);
        }
        let succeeded = calls.iter().filter(|call| call.status == "succeeded").count();
        if succeeded > 1 && requests.iter().any(|record| record.repeatable) {
            self.violated(rules::CALL_ONCE, format!("{tag}: {calls:?}"));
        }
    }

    fn end_of_call(&mut self, record: &Record, call: &Call, overdue: bool) {
        let heard = &record.heard;
        let ended_as: &[&str] = match &heard.stream {
            None if heard.is_ok() => &["succeeded"],
            None if heard.is_refused_call() => &["refused"],
            None => &["failed"],
            Some(StreamEnd::Done(_)) => &["succeeded"],
            Some(StreamEnd::Failed(_)) => &["failed"],
            Some(StreamEnd::Left) if record.repeatable => &["succeeded", "failed"],
            Some(StreamEnd::Left | StreamEnd::Broken) => &["succeeded", "failed", "cancelled"],
        };
        let job_ended_first = call.status == "cancelled" && self.may_end_before(call.job, record);
        let abandoned = call.status == "abandoned" && (overdue || self.is_orphaned(record));
        if !ended_as.contains(&call.status.as_str()) && !job_ended_first && !abandoned {
            self.violated(rules::CALL_END, format!("{} but {call:?}", told(record)));
        }
        let told_tokens = heard.body["metadata"]["tokens_used"]
            .as_i64()
            .or_else(|| heard.body["usage"]["total_tokens"].as_i64());
        // What was given up on may have used some, too, which only LiteLLM's log tells.
        let more = self.meets(record, Part::LiteLlm) || call.group == TIMES_OUT;
        let differs = |tokens: &i64| if more { *tokens > call.tokens } else { *tokens != call.tokens };
        if let Some(tokens) = told_tokens.filter(|_| call.settled.is_some()).filter(differs) {
            let seen = format!("{} told {tokens} but {call:?}", told(record));
            self.violated(rules::CALL_TOKENS, seen);
        }
        if let Some(Call { job, .. }) = heard.job.filter(|job| *job != call.job).map(|_| call) {
            self.violated(rules::CALL_JOB, format!("{} but {job}", told(record)));
        }
    }

    /// Whether the job may have been ended by somebody else before the call's end was written: by a completion, or by
    /// the end of the call that the job was made for.
    fn may_end_before(&self, job: Uuid, record: &Record) -> bool {
        // A stream that can be asked for again goes on without its reader.
        let goes_on = record.repeatable && record.heard.stream == Some(StreamEnd::Left);
        let later = goes_on || self.is_settled_later(record) || self.is_orphaned(record);
        let own = self.own.get(&job).is_some_and(|tag| *tag == record.tag);
        self.state.jobs.get(&job).is_some_and(|job| {
            let by_itself = own && job.ended_by.is_none();
            let cause = self.cause(job).filter(|_| !by_itself);
            cause.is_some_and(|cause| later || cause.from <= record.end)
        })
    }
}
