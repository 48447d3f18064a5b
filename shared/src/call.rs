//! One LLM call: what the components that make calls have in common.
//!
//! A call is two statements with the model's work in between: [`open`] checks everything and records it, [`OpenCall::settle`] writes
//! how it ended and what it used. No connection is held in between. The group's models are tried in order
//! ([`OpenCall::first_answer`]); what was tried is kept with the call.
//!
//! A call is made in a job, or in one of its own ([`Place`]), which the first statement then creates and the second ends.
//! With an `Idempotency-Key` the second statement also keeps the [`Outcome`], sealed, and the first gives it back.

pub mod buffered;
mod event;
mod messages;
mod outcome;
pub mod relay;
mod request;
mod schema;
mod settlement;

pub use event::Form;
pub use outcome::{Answered, Failed, Outcome, Streamed};
pub use request::{CallRequest, NewJob, Streaming, check_config};
pub use schema::{CallBody, NewJobBody};
pub use settlement::{Settled, Settlement};

use crate::{
    api::CALL_ID,
    auth::TeamKey,
    change::{Change, JOB_ID, Statement},
    database::{self, optional_text, text, uuid},
    error::{Error, Result},
    litellm::{
        admin::Wanted,
        chat::{Attempt, Class, Failure, Usage},
    },
    settings, team,
};
use axum::{http::HeaderValue, response::Response};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use spin_sdk::pg::ParameterValue;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use uuid::Uuid;

/// The most models that a group may hold. With the time that each may take, their number bounds a call.
pub const MAX_MODELS: usize = 16;

/// Where a call is made.
pub enum Place<'a> {
    /// In a job that exists.
    Job(Uuid),
    /// In a job of its own.
    NewJob(&'a NewJob),
}

/// A request for a call, once it is claimed.
pub enum Opened {
    /// It is to be made.
    Call(Box<OpenCall>),
    /// It was made before, under the same `Idempotency-Key`.
    Kept(Box<(Outcome, Settled)>),
}

/// A call that is recorded as open, and must be settled.
pub struct OpenCall {
    /// Its job.
    pub job_id: Uuid,
    /// Its id, also LiteLLM's id for it.
    pub call_id: Uuid,
    /// The group in use: the one asked for, or the team's default.
    pub model_group: String,
    change: Change,
    /// Whether its job is its own, and ends with it.
    owns_job: bool,
    team_id: String,
    models: Vec<Model>,
    started: Instant,
    limit: Duration,
    idle_limit: Duration,
    lifetime: Duration,
    attempts: Vec<Tried>,
    upstream: Duration,
    /// A model was given up on of which LiteLLM may yet use and bill something.
    uncertain: bool,
    messages: messages::Keeping,
}

#[derive(Deserialize)]
struct Model {
    model_name: String,
    /// Default call parameters, and `timeout_ms`.
    config: BTreeMap<String, Box<RawValue>>,
}

/// An entry of a call's `attempts`.
#[derive(Serialize)]
struct Tried {
    model: String,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    latency_ms: u128,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The model's answer is complete.
    Succeeded,
    /// No model gave one.
    Failed,
    /// The caller left before it was complete.
    Cancelled,
}

/// The answer of the first statement.
#[derive(Deserialize)]
struct Claimed {
    kept: Option<KeptOutcome>,
    opened: Option<OpenedCall>,
}

#[derive(Deserialize)]
struct KeptOutcome {
    settled: Settled,
    sealed: Option<String>,
}

#[derive(Deserialize)]
struct OpenedCall {
    job_id: Uuid,
    call_id: Uuid,
    team_id: String,
    model_group: String,
    models: Vec<Model>,
    litellm: Option<Wanted>,
}

/// Checks and records a call. `lifetime` is how long an answer may take once it has begun; after that and the time that the group's
/// models may take to begin, the call counts as abandoned.
pub async fn open(
    key: &TeamKey,
    change: &Change,
    place: Place<'_>,
    request: &CallRequest<'_>,
    lifetime: Duration,
) -> Result<Opened> {
    let started = Instant::now();
    let messages = messages::Keeping::of(request).await?;
    let limit = Duration::from_secs(settings::parsed("llm_timeout_seconds").await?);
    let idle_limit = Duration::from_secs(settings::parsed("llm_idle_seconds").await?);
    let seconds = |time: Duration| ParameterValue::Int32(i32::try_from(time.as_secs()).unwrap_or(i32::MAX));
    // From `$2` on.
    let mut parameters = vec![
        seconds(lifetime),
        seconds(limit),
        uuid(Uuid::now_v7()),
        uuid(key.key_id),
        optional_text(request.model_group.as_ref()),
        optional_text(request.purpose.as_ref()),
        ParameterValue::Boolean(request.streamed),
        text(&request.call_metadata),
    ];
    let (statement, owns_job) = match place {
        Place::Job(job_id) => {
            parameters.push(uuid(job_id));
            (OPEN_CALL, false)
        }
        Place::NewJob(job) => {
            parameters.push(uuid(Uuid::now_v7()));
            parameters.extend(job.parameters().await?);
            (OPEN_JOB_WITH_CALL, true)
        }
    };
    // Sent again when its answer got lost, it finds the ids that are chosen here.
    let (text, parameters) = change.with(statement, parameters);
    let opened = match database::insist(text, parameters).await? {
        Claimed { kept: Some(KeptOutcome { settled, sealed }), .. } => {
            change.mark_replayed();
            let sealed = sealed.ok_or_else(|| Error::internal("a kept call without its outcome"))?;
            let outcome = serde_json::from_slice(&change.open(&sealed).await?).map_err(Error::internal)?;
            return Ok(Opened::Kept(Box::new((outcome, settled))));
        }
        Claimed { opened: Some(opened), .. } => opened,
        Claimed { .. } => return Err(Error::internal("open_call answered nothing")),
    };
    if let Some(untold) = opened.litellm
        && let Err(failure) = team::tell(untold).await
    {
        // By what LiteLLM knows now the call may fail; the next one tells it again.
        failure.log("telling LiteLLM of a team before its call");
    }
    Ok(Opened::Call(Box::new(OpenCall {
        job_id: opened.job_id,
        call_id: opened.call_id,
        model_group: opened.model_group,
        change: change.clone(),
        owns_job,
        team_id: opened.team_id,
        models: opened.models,
        started,
        limit,
        idle_limit,
        lifetime,
        attempts: vec![],
        upstream: Duration::ZERO,
        uncertain: false,
        messages,
    })))
}

/// A statement that begins a call, which is the request's work: until it is over, the claim holds.
macro_rules! begin {
    ($call:literal) => {
        Statement {
            claiming: concat!(
                "WITH claimed AS MATERIALIZED (SELECT claim($1::text::json, 0) AS kept) ",
                "SELECT json_build_object('kept', kept, 'opened', CASE WHEN kept IS NULL THEN lease($1::text::json, ",
                $call,
                ") END)::text AS answer FROM claimed"
            ),
            plain: concat!("SELECT json_build_object('kept', $1::text, 'opened', ", $call, ")::text AS answer"),
        }
    };
}

const OPEN_CALL: Statement = begin!("open_call($5, $10, $6, $7, $8, $9::text::json, $2, $3, $4)");

const OPEN_JOB_WITH_CALL: Statement = begin!(
    "open_job_with_call($5, $11, $12, $13, $14::text::json, $15, $6, $7, $8, $9::text::json, $2, $3, $10, $4)"
);

impl OpenCall {
    /// Tries the group's models in order until one answers or a failure is not worth another model.
    /// `attempt` gets the body for one model; its inner result is the model's, its outer one a defect of ours.
    pub async fn first_answer<T>(
        &mut self,
        key: &TeamKey,
        request: &CallRequest<'_>,
        attempt: impl for<'a> AsyncFn(Attempt<'a>, Vec<u8>) -> Result<Result<T, Failure>>,
    ) -> Result<T> {
        let mut last = Class::UnknownModel;
        for model in std::mem::take(&mut self.models) {
            let body = request.body_for(&model.model_name, &model.config)?;
            let limit = model
                .config
                .get("timeout_ms")
                .and_then(|limit| limit.get().parse().ok())
                .map_or(self.limit, |millis| self.limit.min(Duration::from_millis(millis)));
            let begun = Instant::now();
            let answer = attempt(Attempt { call_id: self.call_id, key: &key.secret, limit }, body).await?;
            self.upstream = self.upstream.saturating_add(begun.elapsed());
            let latency_ms = begun.elapsed().as_millis();
            match answer {
                Ok(answer) => {
                    let model = model.model_name;
                    self.attempts.push(Tried {
                        model,
                        outcome: "answered",
                        status: None,
                        reason: None,
                        latency_ms,
                    });
                    return Ok(answer);
                }
                Err(Failure { class, status, reason, cost_known }) => {
                    self.uncertain |= !cost_known;
                    // A quoted prompt would get into tables and later answers.
                    let (class, reason) = if request.is_quoted_in(&reason) {
                        (class.without_words(), "a message that quotes the prompt".into())
                    } else {
                        (class, reason)
                    };
                    let reason: String = reason.chars().take(500).collect();
                    let model = model.model_name;
                    self.attempts.push(Tried {
                        model,
                        outcome: "failed",
                        status,
                        reason: Some(reason),
                        latency_ms,
                    });
                    if !class.worth_another_model() {
                        return Err(self.failure(&class));
                    }
                    last = class;
                }
            }
        }
        Err(self.failure(&last))
    }

    /// What the caller is told of a failure. A provider's words may quote the model's name, which becomes the group's.
    pub fn failure(&self, class: &Class) -> Error {
        let mut error = class.answer(&self.team_id, &self.model_group);
        for tried in &self.attempts {
            error.detail = error.detail.replace(&tried.model, &self.model_group);
        }
        error
    }

    /// Since the call was opened.
    pub fn latency(&self) -> Duration {
        self.started.elapsed()
    }

    /// The answer with the ids of the call and its job, and with what part of the time until now was ours and what LiteLLM's.
    pub fn with_headers(&self, response: Response) -> Response {
        let millis = |time: Duration| time.as_secs_f64() * 1000.0;
        let ours = self.latency().saturating_sub(self.upstream);
        let timing = format!("app;dur={:.1}, llm;dur={:.1}", millis(ours), millis(self.upstream));
        let mut response = with_ids(response, self.job_id, self.call_id);
        if let Ok(value) = HeaderValue::from_str(&timing) {
            response.headers_mut().insert("server-timing", value);
        }
        response
    }

    /// How long the next event of a stream may take to come, and to be taken by its reader.
    pub fn idle_limit(&self) -> Duration {
        self.idle_limit
    }

    /// How long a stream may take from its first event to its last.
    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// Whether the outcome is kept for repeats of the request.
    pub fn keeps_outcome(&self) -> bool {
        self.change.is_idempotent()
    }

    /// A call that no model answered: settles it, and gives back what the caller is told.
    pub async fn settle_failure(&self, failure: Error) -> Result<Response> {
        let outcome = Outcome::Failed(Failed::new(self, &failure));
        self.settle(End::Failed, &Usage::NONE, Some(&failure), &outcome).await?;
        Ok(self.with_headers(outcome.failure()))
    }

    /// Writes the end of the call and what it used, and keeps its outcome. `error` is what the caller was told.
    ///
    /// Where a model was given up on, only LiteLLM knows what that cost, and only later: then this writes what is known, and the
    /// rest follows in the background. While the database is away all of it follows in the background.
    pub async fn settle(
        &self,
        end: End,
        usage: &Usage,
        error: Option<&Error>,
        outcome: &Outcome,
    ) -> Result<Settled> {
        self.messages.keep(self, outcome);
        let mut settlement = self.settlement(end, usage, error)?;
        if self.keeps_outcome() {
            settlement.request = self.change.parameter();
            let outcome = serde_json::to_vec(outcome).map_err(Error::internal)?;
            settlement.sealed = self.change.seal(&outcome).await?;
        }
        if !self.uncertain {
            return settlement.write().await;
        }
        Ok(settlement.without_cost().announce_and_follow_log().await)
    }

    /// What is to be written about the end of a call that broke off: what it cost only LiteLLM knows, and only later. A repeat of its
    /// request is a new call.
    pub fn broken_off(&self, end: End, usage: &Usage, error: Option<&Error>) -> Result<Settlement> {
        let mut settlement = self.settlement(end, usage, error)?.without_cost();
        settlement.request = self.change.parameter();
        Ok(settlement)
    }

    /// Whether the text of a stream is kept.
    pub fn keeps_messages(&self) -> bool {
        self.messages.is_on()
    }

    fn settlement(&self, end: End, usage: &Usage, error: Option<&Error>) -> Result<Settlement> {
        Ok(Settlement {
            job_id: self.job_id,
            call_id: self.call_id,
            owns_job: self.owns_job,
            request: ParameterValue::DbNull,
            sealed: None,
            status: match end {
                End::Succeeded => "succeeded",
                End::Failed => "failed",
                End::Cancelled => "cancelled",
            },
            usage: *usage,
            latency: self.latency(),
            tried: self.attempts.len(),
            attempts: serde_json::to_string(&self.attempts).map_err(Error::internal)?,
            error: error.map(|error| error.detail.clone()),
        })
    }
}

/// The answer with the ids of the call and its job.
pub fn with_ids(mut response: Response, job_id: Uuid, call_id: Uuid) -> Response {
    for (name, id) in [(JOB_ID, job_id), (CALL_ID, call_id)] {
        if let Ok(value) = HeaderValue::from_str(&id.to_string()) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}
