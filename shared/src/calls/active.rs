//! A call between its two statements.

use super::{
    CallRequest, Failed, Limits, Outcome, Settled, Settlement, messages, settlement::Ending, with_ids,
};
use crate::{
    error::{Error, Result},
    http::{Mutation, TeamKey},
    litellm::chat::{Attempt, AttemptError, Class, Failure, Usage},
    store::idempotency::Request,
    values::{CallId, CallStatus, GroupName, JobId, TeamId},
};
use axum::{http::HeaderValue, response::Response};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// A call that is recorded as under way, and must be settled.
pub struct ActiveCall {
    /// Its job.
    pub job_id: JobId,
    /// Its id, also LiteLLM's id for it.
    pub call_id: CallId,
    /// The group in use: the one asked for, or the team's default.
    pub model_group: GroupName,
    pub(super) mutation: Mutation,
    /// Whether its job is its own, and ends with it.
    pub(super) owns_job: bool,
    pub(super) team_id: TeamId,
    pub(super) models: Vec<Model>,
    pub(super) started: Instant,
    pub(super) limits: Limits,
    pub(super) attempts: Vec<Tried>,
    /// How long LiteLLM has taken.
    pub(super) upstream: Duration,
    /// A model was given up on of which LiteLLM may yet use and bill something.
    pub(super) uncertain: bool,
    pub(super) messages: messages::Keeping,
}

/// A model of the group.
#[derive(Deserialize)]
pub(super) struct Model {
    model_name: String,
    /// Default call parameters, and `timeout_ms`.
    config: BTreeMap<String, Box<RawValue>>,
}

impl Model {
    /// How long it may take to answer, or to begin to.
    fn limit(&self, limit: Duration) -> Duration {
        let own = self.config.get("timeout_ms").and_then(|limit| limit.get().parse().ok());
        own.map_or(limit, |millis| limit.min(Duration::from_millis(millis)))
    }
}

/// An entry of a call's `attempts`.
#[serde_with::skip_serializing_none]
#[derive(Serialize)]
pub(super) struct Tried {
    model: String,
    outcome: &'static str,
    status: Option<u16>,
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

impl From<End> for CallStatus {
    fn from(end: End) -> Self {
        match end {
            End::Succeeded => CallStatus::Succeeded,
            End::Failed => CallStatus::Failed,
            End::Cancelled => CallStatus::Cancelled,
        }
    }
}

impl ActiveCall {
    /// Tries the group's models in order until one answers or a failure is not worth another model. `attempt` gets the body for one
    /// model.
    pub async fn first_answer<T>(
        &mut self,
        key: &TeamKey,
        request: &CallRequest<'_>,
        attempt: impl for<'a> AsyncFn(Attempt<'a>, Vec<u8>) -> Result<T, AttemptError>,
    ) -> Result<T> {
        let mut last = Class::UnknownModel;
        for model in std::mem::take(&mut self.models) {
            let body = request.body_for(&model.model_name, &model.config)?;
            let limit = model.limit(self.limits.model);
            let begun = Instant::now();
            let answer = attempt(Attempt { call_id: self.call_id, key: &key.secret, limit }, body).await;
            let latency = begun.elapsed();
            self.upstream = self.upstream.saturating_add(latency);
            let failure = match answer {
                Ok(answer) => {
                    self.attempts.push(Tried::answered(model, latency));
                    return Ok(answer);
                }
                Err(AttemptError::Ours(error)) => return Err(error),
                Err(AttemptError::Failed(failure)) => without_prompt(failure, request),
            };
            self.uncertain |= !failure.cost_known;
            last = failure.class.clone();
            self.attempts.push(Tried::failed(model, failure, latency));
            if !last.worth_another_model() {
                break;
            }
        }
        Err(self.failure(&last))
    }

    /// What the caller is told of a failure. A provider's words may quote the model's name, which becomes the group's.
    pub fn failure(&self, class: &Class) -> Error {
        let mut error = class.answer(&self.team_id, &self.model_group);
        for tried in &self.attempts {
            error.detail = error.detail.replace(&tried.model, self.model_group.as_str());
        }
        error
    }

    /// Since the call began.
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
        self.limits.idle
    }

    /// How long a stream may take from its first event to its last.
    pub fn lifetime(&self) -> Duration {
        self.limits.lifetime
    }

    /// Whether the outcome is kept for repeats of the request.
    pub fn keeps_outcome(&self) -> bool {
        self.mutation.is_idempotent()
    }

    /// Whether the text of a stream is kept.
    pub fn keeps_messages(&self) -> bool {
        self.messages.is_on()
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
        let mut settlement = self.settlement(end, usage, error, Request::default())?;
        if self.keeps_outcome() {
            let outcome = serde_json::to_vec(outcome).map_err(Error::internal)?;
            settlement.request = self.mutation.request();
            settlement.sealed = self.mutation.seal(&outcome).await?;
        }
        if !self.uncertain {
            return settlement.write().await;
        }
        Ok(settlement.without_cost().announce_and_follow_log().await)
    }

    /// What is to be written about the end of a call that broke off: what it cost only LiteLLM knows, and only later. A repeat of its
    /// request is a new call.
    pub fn broken_off(&self, end: End, usage: &Usage, error: Option<&Error>) -> Result<Settlement> {
        Ok(self.settlement(end, usage, error, self.mutation.request())?.without_cost())
    }

    fn settlement(
        &self,
        end: End,
        usage: &Usage,
        error: Option<&Error>,
        request: Request,
    ) -> Result<Settlement> {
        Ok(Settlement {
            job_id: self.job_id,
            call_id: self.call_id,
            owns_job: self.owns_job,
            request,
            sealed: None,
            tried: self.attempts.len(),
            ending: Ending {
                status: end.into(),
                usage: *usage,
                latency: self.latency(),
                attempts: serde_json::to_string(&self.attempts).map_err(Error::internal)?,
                error: error.map(|error| error.detail.clone()),
            },
        })
    }
}

/// A failure whose words do not quote the prompt, which would get into tables and later answers.
fn without_prompt(mut failure: Failure, request: &CallRequest<'_>) -> Failure {
    if request.is_quoted_in(&failure.reason) {
        failure.class = failure.class.without_words();
        failure.reason = "a message that quotes the prompt".into();
    }
    failure
}

impl Tried {
    fn answered(model: Model, latency: Duration) -> Self {
        let latency_ms = latency.as_millis();
        Self { model: model.model_name, outcome: "answered", status: None, reason: None, latency_ms }
    }

    fn failed(model: Model, failure: Failure, latency: Duration) -> Self {
        Self {
            model: model.model_name,
            outcome: "failed",
            status: failure.status,
            reason: Some(failure.reason.chars().take(500).collect()),
            latency_ms: latency.as_millis(),
        }
    }
}
