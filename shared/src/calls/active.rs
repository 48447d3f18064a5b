//! A call between its first statement, which records it, and its second, which settles it.

use super::{
    CallRequest, Failed, Outcome, Settled, Settlement, Times, messages, settlement::Ending, with_ids,
};
use crate::{
    error::{Error, Result},
    function,
    http::{Mutation, TeamKey},
    litellm::chat::{Attempt, AttemptError, Class, Failure, Usage},
    store::idempotency::Request,
    teams::sync,
    values::{CallId, CallStatus, GroupName, JobId, TeamId, shortened},
};
use axum::{http::HeaderValue, response::Response};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// A call that is recorded as open and must be settled.
pub struct ActiveCall {
    /// The call's job.
    pub job_id: JobId,
    /// The call's id, which LiteLLM records it under too.
    pub call_id: CallId,
    /// The model group in use: the requested one, or the team's default.
    pub model_group: GroupName,
    pub(super) mutation: Mutation,
    /// Whether the job was created for this call and ends with it.
    pub(super) owns_job: bool,
    pub(super) team_id: TeamId,
    pub(super) models: Vec<Model>,
    pub(super) started: Instant,
    pub(super) times: Times,
    pub(super) attempts: Vec<Tried>,
    /// The time spent waiting for LiteLLM so far.
    pub(super) upstream: Duration,
    /// Whether an attempt was given up whose usage LiteLLM may still record and bill.
    pub(super) uncertain: bool,
    /// Whether the last attempt was refused because of what the caller sent or has used up.
    pub(super) refused: bool,
    /// Whether the caller may see what its job costs in US dollars.
    pub(super) sees_costs: bool,
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
    /// The maximum time that the model may take to answer, or to begin a stream: its `timeout_ms`, at most `limit`.
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
    /// No model answered.
    Failed,
    /// The call was refused because of what the caller sent or has used up.
    Refused,
    /// The caller closed the connection before the answer was complete, or read nothing for too long.
    Cancelled,
}

impl From<End> for CallStatus {
    fn from(end: End) -> Self {
        match end {
            End::Succeeded => CallStatus::Succeeded,
            End::Failed => CallStatus::Failed,
            End::Refused => CallStatus::Refused,
            End::Cancelled => CallStatus::Cancelled,
        }
    }
}

impl ActiveCall {
    /// Tries the group's models in order until one answers or a failure makes further attempts pointless. `attempt`
    /// sends the body for one model.
    pub async fn first_answer<T>(
        &mut self,
        key: &TeamKey,
        request: &CallRequest<'_>,
        attempt: impl for<'a> AsyncFn(Attempt<'a>, Vec<u8>) -> Result<T, AttemptError>,
    ) -> Result<T> {
        let mut last = Class::UnknownModel;
        // Whether LiteLLM was synchronized because it refused the key, which is done once in a call.
        let mut synchronized = false;
        for model in std::mem::take(&mut self.models) {
            let body = || request.body_for(&model.model_name, &model.config);
            let limit = model.limit(self.times.model);
            let begun = Instant::now();
            let sent = Attempt { call_id: self.call_id, key: &key.secret, limit };
            let mut answer = attempt(sent, body()?).await;
            if is_refused_key(&answer) && !synchronized {
                synchronized = true;
                if self.synchronize().await {
                    answer = attempt(sent, body()?).await;
                }
            }
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
        self.refused = last.is_callers_fault();
        Err(self.failure(&last))
    }

    /// Synchronizes LiteLLM with the call's team: the database has accepted the key that LiteLLM refuses, so LiteLLM
    /// does not have the team's present state yet. Returns whether that was done.
    async fn synchronize(&self) -> bool {
        let synchronized = async {
            let desired = function!(litellm_desired_team(p_team_id: &self.team_id)).run().await?;
            sync::team(desired).await
        };
        synchronized
            .await
            .map_err(|error: Error| error.log("telling LiteLLM of a key that it refuses"))
            .is_ok()
    }

    /// The error for the caller. Where a provider's message quotes the model's name, the name of the model group
    /// replaces it.
    pub fn failure(&self, class: &Class) -> Error {
        let Class::BadRequest(Some(words)) = class else {
            return class.answer(&self.team_id, &self.model_group);
        };
        let words = self.attempts.iter().fold(words.clone(), |words, tried| {
            replace_name(&words, &tried.model, self.model_group.as_str())
        });
        Class::BadRequest(Some(words)).answer(&self.team_id, &self.model_group)
    }

    /// The time since the request for the call arrived.
    pub fn latency(&self) -> Duration {
        self.started.elapsed()
    }

    /// The response with the ids of the call and its job, and with `server-timing`: the time so far that was spent here
    /// (`app`) and waiting for LiteLLM (`llm`), in milliseconds.
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

    /// The maximum time that the next event of a stream may take to arrive, and the maximum time that the caller may
    /// take to read an event.
    pub fn idle_limit(&self) -> Duration {
        self.times.idle
    }

    /// The maximum time that the model of a stream may take from its first event to its last, and the maximum time that
    /// its reader may keep it waiting in all.
    pub fn lifetime(&self) -> Duration {
        self.times.lifetime
    }

    /// Whether the outcome is stored for retries of the request.
    pub fn keeps_outcome(&self) -> bool {
        self.mutation.is_idempotent()
    }

    /// Whether the text of a stream is stored.
    pub fn keeps_messages(&self) -> bool {
        self.messages.is_on()
    }

    /// Settles a call that no model answered, and returns the caller's error response.
    pub async fn settle_failure(&self, failure: Error) -> Result<Response> {
        let outcome = Outcome::Failed(Failed::new(self, &failure));
        let end = if self.refused { End::Refused } else { End::Failed };
        self.settle(end, &Usage::NONE, false, Some(&failure), &outcome).await?;
        Ok(self.with_headers(outcome.failure()))
    }

    /// Settles the call: writes how it ended, what it used and whether output was delivered, and stores its outcome.
    /// `error` is the caller's error.
    ///
    /// If an attempt was given up, only LiteLLM knows its cost, and only later: then this writes what is known so far,
    /// and the rest follows in the background. While the database is unavailable, everything follows in the background.
    pub async fn settle(
        &self,
        end: End,
        usage: &Usage,
        delivered: bool,
        error: Option<&Error>,
        outcome: &Outcome,
    ) -> Result<Settled> {
        self.messages.keep(self, outcome);
        let mut settlement = self.settlement(end, usage, delivered, error, Request::default())?;
        if self.keeps_outcome() {
            let outcome = serde_json::to_vec(outcome).map_err(Error::internal)?;
            settlement.request = self.mutation.request();
            settlement.sealed = self.mutation.seal(&outcome).await?;
        }
        let settled = if self.uncertain {
            settlement.without_cost().announce_and_follow_log().await
        } else {
            settlement.write().await?
        };
        Ok(settled.seen(self.sees_costs))
    }

    /// The settlement of a call whose stream broke off. Only LiteLLM knows its cost, and only later. A retry of its
    /// request is a new call.
    pub fn broken_off(
        &self,
        end: End,
        usage: &Usage,
        delivered: bool,
        error: Option<&Error>,
    ) -> Result<Settlement> {
        Ok(self.settlement(end, usage, delivered, error, self.mutation.request())?.without_cost())
    }

    fn settlement(
        &self,
        end: End,
        usage: &Usage,
        delivered: bool,
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
                delivered,
                latency: self.latency(),
                attempts: serde_json::to_string(&self.attempts).map_err(Error::internal)?,
                error: error.map(|error| error.detail.clone()),
            },
        })
    }
}

/// Whether LiteLLM did not accept the key.
fn is_refused_key<T>(answer: &Result<T, AttemptError>) -> bool {
    matches!(answer, Err(AttemptError::Failed(Failure { class: Class::KeyRefused, .. })))
}

/// The failure without its message if that quotes the prompt, which must not get into tables and later responses.
fn without_prompt(mut failure: Failure, request: &CallRequest<'_>) -> Failure {
    if request.is_quoted_in(&failure.reason) {
        failure.class = failure.class.without_words();
        failure.reason = "a message that quotes the prompt".into();
    }
    failure
}

/// `words` with `other` in the place of `name`, where that is not a part of a longer word or name.
fn replace_name(words: &str, name: &str, other: &str) -> String {
    let goes_on = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
    let mut replaced = String::new();
    let mut rest = words;
    while let Some((before, after)) = rest.split_once(name).filter(|_| !name.is_empty()) {
        replaced.push_str(before);
        let inside = replaced.ends_with(goes_on) || after.starts_with(goes_on);
        replaced.push_str(if inside { name } else { other });
        rest = after;
    }
    replaced + rest
}

/// The maximum number of characters that are kept of why an attempt failed.
const REASON: usize = 200;

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
            reason: Some(shortened(&failure.reason, REASON)),
            latency_ms: latency.as_millis(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::replace_name;

    #[test]
    fn a_name_is_replaced_where_it_stands_alone() {
        for (words, name, replaced) in [
            ("gpt-4 is overloaded", "gpt-4", "Chat is overloaded"),
            (
                "'gpt-4': use gpt-4, not gpt-4o or my-gpt-4",
                "gpt-4",
                "'Chat': use Chat, not gpt-4o or my-gpt-4",
            ),
            ("The model model of openai/model.", "model", "The Chat Chat of openai/Chat."),
            ("Modell und models", "model", "Modell und models"),
            ("größe größer", "größe", "Chat größer"),
            ("nothing", "", "nothing"),
            ("aaaa aa", "aa", "aaaa Chat"),
        ] {
            assert_eq!(replace_name(words, name, "Chat"), replaced);
        }
    }
}
