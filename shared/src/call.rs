//! One LLM call inside a job: what `llm-call` and `llm-call-stream` have in common.
//!
//! A call is two statements with the model's work in between: [`open`] checks everything and records it, a [`Settlement`] writes
//! how it ended and what it used. No connection is held in between. The group's models are tried in order
//! ([`OpenCall::first_answer`]); what was tried is kept with the call.

mod request;
mod settlement;

pub use request::{CallRequest, check_config};
pub use settlement::Settlement;

use crate::{
    auth::TeamKey,
    database::{self, text, uuid},
    error::{Error, Result},
    litellm::chat::{Attempt, Class, Failure, Usage},
    settings,
};
use axum::{http::HeaderValue, response::Response};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use spin_sdk::{pg::ParameterValue, wasip3::spawn};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use uuid::Uuid;

/// The most models that a group may hold. With the time that each may take, it bounds a call.
pub const MAX_MODELS: usize = 16;

/// A call that is recorded as open, and must be settled.
pub struct OpenCall {
    /// Its id, also LiteLLM's id for it.
    pub call_id: Uuid,
    /// The group in use: the one asked for, or the team's default.
    pub model_group: String,
    team_id: String,
    models: Vec<Model>,
    started: Instant,
    limit: Duration,
    attempts: Vec<Tried>,
    upstream: Duration,
    /// A model was given up on of which LiteLLM may yet use and bill something.
    uncertain: bool,
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

/// Checks and records a call. `lifetime` is how long an answer may take once it has begun; after that and the time that all models
/// may take to begin, the call counts as abandoned.
pub async fn open(
    key: &TeamKey,
    job_id: Uuid,
    request: &CallRequest<'_>,
    streamed: bool,
    lifetime: Duration,
) -> Result<OpenCall> {
    #[derive(Deserialize)]
    struct Opened {
        call_id: Uuid,
        team_id: String,
        model_group: String,
        models: Vec<Model>,
    }
    let started = Instant::now();
    let limit = Duration::from_secs(settings::parsed("llm_timeout_seconds").await?);
    let deadline =
        limit.saturating_mul(u32::try_from(MAX_MODELS).unwrap_or(u32::MAX)).saturating_add(lifetime);
    let Opened { call_id, team_id, model_group, models } = database::call(
        "SELECT open_call($1, $2, $3, $4, $5, $6::text::json, $7)::text AS answer",
        vec![
            uuid(key.key_id),
            uuid(job_id),
            database::optional_text(request.model_group.as_ref()),
            database::optional_text(request.purpose.as_ref()),
            ParameterValue::Boolean(streamed),
            text(&request.call_metadata),
            ParameterValue::Int32(i32::try_from(deadline.as_secs()).unwrap_or(i32::MAX)),
        ],
    )
    .await?;
    Ok(OpenCall {
        call_id,
        model_group,
        team_id,
        models,
        started,
        limit,
        attempts: vec![],
        upstream: Duration::ZERO,
        uncertain: false,
    })
}

impl OpenCall {
    /// Tries the group's models in order until one answers or a failure is not worth another model.
    /// `attempt` gets the body for one model; its inner result is the model's, its outer one a defect of ours.
    pub async fn first_answer<T>(
        &mut self,
        key: &TeamKey,
        request: &CallRequest<'_>,
        streamed: bool,
        attempt: impl for<'a> AsyncFn(Attempt<'a>, Vec<u8>) -> Result<Result<T, Failure>>,
    ) -> Result<T> {
        let mut last = Class::UnknownModel;
        for model in std::mem::take(&mut self.models) {
            let body = request.body_for(&model.model_name, &model.config, streamed)?;
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

    /// The answer with the call's id, and with what part of the time until now was ours and what LiteLLM's.
    pub fn with_headers(&self, mut response: Response) -> Response {
        let millis = |time: Duration| time.as_secs_f64() * 1000.0;
        let ours = self.latency().saturating_sub(self.upstream);
        let timing = format!("app;dur={:.1}, llm;dur={:.1}", millis(ours), millis(self.upstream));
        for (name, value) in [("x-call-id", self.call_id.to_string()), ("server-timing", timing)] {
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }

    /// How long the next event of a stream may take.
    pub fn idle_limit(&self) -> Duration {
        self.limit
    }

    /// Writes the end of the call and what it used. `error` is what the caller was told.
    ///
    /// Where a model was given up on, only LiteLLM knows what that cost, and only later: then this writes what is known, and the
    /// rest follows in the background.
    pub async fn settle(&self, end: End, usage: &Usage, error: Option<&Error>) -> Result<()> {
        let settlement = self.settlement(end, usage, error)?;
        if !self.uncertain {
            return settlement.write().await;
        }
        let settlement = settlement.without_cost();
        settlement.announce().await;
        spawn(async move {
            if let Err(error) = settlement.write_from_log().await {
                error.log("settling a call");
            }
        });
        Ok(())
    }

    /// What is to be written about the end of the call.
    pub fn settlement(&self, end: End, usage: &Usage, error: Option<&Error>) -> Result<Settlement> {
        Ok(Settlement {
            call_id: self.call_id,
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
