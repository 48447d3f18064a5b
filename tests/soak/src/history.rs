//! What clients did and heard: all that the audit judges by.

use serde_json::Value;
use std::time::{SystemTime, UNIX_EPOCH};
use uuid::Uuid;

/// Microseconds since 1970, by the clock that the database reads too.
pub type Micros = i64;

/// The end of what may happen at any later time.
pub const NEVER: Micros = Micros::MAX;

/// The time now.
pub fn now() -> Micros {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Micros::try_from(elapsed.as_micros()).unwrap_or(NEVER)
}

/// What can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A job is opened.
    CreateJob,
    /// A buffered call in a job.
    Call,
    /// A streamed call in a job.
    Stream,
    /// A job, its call and its completion in one request.
    OwnJob,
    /// The same, streamed.
    OwnStream,
    /// A call by OpenAI's API, in a job or in one of its own, buffered or streamed.
    Chat,
    /// A job is ended.
    Complete,
    /// What is overdue is ended in all teams.
    Expire,
    /// Credits are added.
    Add,
    /// A balance is corrected.
    Adjust,
    /// Credits of a job are refunded.
    Refund,
    /// A team is suspended.
    Suspend,
    /// And works again.
    Resume,
    /// A key is replaced.
    Rotate,
    /// A key is revoked, after a new one was made.
    Revoke,
    /// LiteLLM is put right for a team.
    Resync,
    /// A balance is read.
    ReadBalance,
    /// A job is read.
    ReadJob,
    /// A team's jobs are listed.
    ListJobs,
    /// A team's ledger is read.
    ReadLedger,
    /// A team's usage is read.
    ReadUsage,
    /// The models of a group are asked for.
    Resolve,
    /// Something is asked with a key of another team.
    Intrude,
    /// Something else is asked under a used `Idempotency-Key`.
    Mismatch,
    /// Not a request: a period of the automatic refill passes.
    PeriodPasses,
    /// Not a request: the deadline of an open call passes.
    CallDeadlinePasses,
    /// Not a request: LiteLLM is to be asked again for costs that it did not know.
    CostsAreDue,
    /// Not a request: a job that was opened a day ago.
    OldJob,
    /// Not a request: what is open at one instant is counted.
    CountOpen,
    /// Not a request: what a host does that dies right after it has opened a call.
    LoseCall,
    /// Not a request: what a host does that did not hear that a call is settled.
    SettleAgain,
}

impl Kind {
    /// Whether it makes a call.
    pub fn calls(self) -> bool {
        matches!(self, Kind::Call | Kind::Stream | Kind::OwnJob | Kind::OwnStream | Kind::Chat)
    }

    /// Whether it is one, rather than something else that happens.
    pub fn is_request(self) -> bool {
        use Kind::*;
        let other = [PeriodPasses, CallDeadlinePasses, CostsAreDue, OldJob, CountOpen, LoseCall, SettleAgain];
        !other.contains(&self)
    }

    /// Whether it changes nothing but what is overdue.
    pub fn reads(self) -> bool {
        matches!(
            self,
            Kind::ReadBalance
                | Kind::ReadJob
                | Kind::ListJobs
                | Kind::ReadLedger
                | Kind::ReadUsage
                | Kind::Resolve
        )
    }
}

/// Who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The admin.
    Admin,
    /// A team with the key of this number among its keys.
    Key(usize),
}

/// How a stream ended for its reader.
#[derive(Clone, Debug, PartialEq)]
pub enum StreamEnd {
    /// With `[DONE]`; with the summary before it, if the form has one.
    Done(Value),
    /// With an error event.
    Failed(Value),
    /// Without `[DONE]` and without an error event.
    Broken,
    /// The client closed the connection.
    Left,
}

/// The answer to a request, as its client received it.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// The status; 0: nothing came back, and nobody knows what became of the request.
    pub status: u16,
    /// The body, if it was JSON.
    pub body: Value,
    /// Whether it says that it is the answer of an earlier request.
    pub replayed: bool,
    /// The call that the headers name.
    pub call: Option<Uuid>,
    /// The job that the headers or the body name.
    pub job: Option<Uuid>,
    /// The end of the stream, if the answer is one.
    pub stream: Option<StreamEnd>,
    /// Whether it says when to come again.
    pub retry_after: bool,
    /// The number of the host that was asked.
    pub host: usize,
}

impl Heard {
    /// Whether the request may or may not have had an effect. Of a call that failed it is known that it was made.
    pub fn is_unknown(&self) -> bool {
        self.status == 0 || (self.status == 503 && self.call.is_none())
    }

    /// Whether the request succeeded.
    pub fn is_ok(&self) -> bool {
        self.status == 200
    }

    /// The stable word of a failure, in the API's own form or in OpenAI's.
    pub fn code(&self) -> &str {
        self.body["code"].as_str().or_else(|| self.body["error"]["code"].as_str()).unwrap_or_default()
    }

    /// The sentence of a failure.
    pub fn detail(&self) -> &str {
        self.body["detail"].as_str().or_else(|| self.body["error"]["message"].as_str()).unwrap_or_default()
    }

    /// Whether a call failed because of what its caller sent or has used up.
    pub fn is_refused_call(&self) -> bool {
        self.call.is_some() && ["invalid_request", "budget_exhausted", "rate_limited"].contains(&self.code())
    }

    /// The limit that a failure names.
    pub fn limit(&self) -> Option<&str> {
        let limited = ["too_many_calls", "job_limit", "rate_limited"].contains(&self.code());
        self.detail().split_once(": ").map(|(name, _)| name).filter(|_| limited && self.call.is_none())
    }

    /// Whether a failure says that the job is over, and how it ended.
    pub fn job_is_over(&self) -> Option<&str> {
        (self.code() == "job_finished").then(|| self.detail().rsplit(' ').next().unwrap_or_default())
    }
}

/// One request and what came of it.
#[derive(Clone, Debug)]
pub struct Record {
    /// The kind of operation.
    pub kind: Kind,
    /// The number of the team.
    pub team: usize,
    /// The caller.
    pub by: By,
    /// The number of the host.
    pub host: usize,
    /// The job that it is about, where that exists before.
    pub job: Option<Uuid>,
    /// What all requests of one intent have in common and no others; the application keeps it with what it does.
    pub tag: String,
    /// Whether it carries an `Idempotency-Key`, which is then the tag's.
    pub repeatable: bool,
    /// The body of the request.
    pub asked: Value,
    /// When it was sent.
    pub start: Micros,
    /// When the answer was complete.
    pub end: Micros,
    /// The answer.
    pub heard: Heard,
}

impl Record {
    /// When it can have had its effect.
    pub fn until(&self) -> Micros {
        if self.heard.is_unknown() { NEVER } else { self.end }
    }
}
