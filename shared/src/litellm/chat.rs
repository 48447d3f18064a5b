//! Chat completions: one attempt with one model.

use super::{Answer, Envelope, Problem, SendError, Unanswered, read, send, sse};
use crate::{
    error::{Code, Error},
    platform::time::within,
    values::{CallId, GroupName, TeamId, Usd, VirtualKey},
};
use axum::http::{Method, StatusCode};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use http_body_util::BodyDataStream;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use spin_sdk::http::Response;
use std::{
    collections::BTreeMap,
    fmt,
    pin::Pin,
    time::{Duration, Instant},
};

/// Why a model gave no answer.
#[derive(Debug)]
pub struct Failure {
    /// What it means for the call.
    pub class: Class,
    /// LiteLLM's status, if there was one.
    pub status: Option<u16>,
    /// What the seller may want to read; names models, so it is not for the caller.
    pub reason: String,
    /// Whether it is certain that this attempt cost nothing. What is given up on may run to its end in LiteLLM, and a stream that broke
    /// before anything of it was passed on is answered with an error, but billed.
    pub cost_known: bool,
}

/// What a failure means for the call. The first group is worth another model, the second is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Class {
    /// LiteLLM itself can't be reached.
    Unreachable,
    /// No answer in time.
    TimedOut,
    /// The provider's rate limit.
    Overloaded,
    /// The provider or LiteLLM failed.
    Failed,
    /// LiteLLM or the provider knows no such model.
    UnknownModel,

    /// The request is at fault; what the provider says about it.
    BadRequest(String),
    /// LiteLLM does not take the key (any more).
    KeyRefused,
    /// The key may not use the model.
    ModelDenied,
    /// The budget of the key or its team is used up.
    BudgetExhausted,
    /// LiteLLM's rate limit of the key or its team; when to come again.
    RateLimited(Option<String>),
    /// The provider refuses LiteLLM's credentials.
    Misconfigured,
}

impl Class {
    /// The same without the provider's words.
    pub fn without_words(self) -> Self {
        match self {
            Class::BadRequest(_) => Class::BadRequest(REFUSED.into()),
            class => class,
        }
    }

    /// Whether another model may do better.
    pub fn worth_another_model(&self) -> bool {
        use Class::*;
        matches!(self, Unreachable | TimedOut | Overloaded | Failed | UnknownModel)
    }

    /// What the caller is told when this is how the call ends. Names neither models nor providers.
    pub fn answer(&self, team_id: &TeamId, model_group: &GroupName) -> Error {
        let failed = |code, reason: &str| Error::new(code, format!("LLM call failed: {reason}"));
        match self {
            Class::Unreachable => Error::unavailable("LiteLLM"),
            Class::TimedOut => failed(Code::LlmTimeout, "Timed out"),
            Class::Overloaded => failed(Code::LlmFailed, "Rate limit exceeded"),
            Class::Failed => failed(Code::LlmFailed, "The model failed"),
            Class::UnknownModel => failed(Code::LlmFailed, "The model is not available"),
            Class::Misconfigured => failed(Code::LlmFailed, "The model is not accessible"),
            Class::BadRequest(reason) => failed(Code::InvalidRequest, reason),
            Class::KeyRefused => Error::new(Code::Unauthenticated, "Invalid API key"),
            Class::ModelDenied => Error::new(
                Code::ModelGroupDenied,
                format!("Team '{team_id}' does not have access to model group '{model_group}'"),
            ),
            Class::BudgetExhausted => failed(Code::BudgetExhausted, "Budget exceeded"),
            Class::RateLimited(when) => {
                let error = failed(Code::RateLimited, "Rate limit exceeded");
                when.as_ref().map_or(error.clone(), |when| error.retry_after(when))
            }
        }
    }
}

impl From<Unanswered> for Failure {
    fn from(unanswered: Unanswered) -> Self {
        let (class, cost_known) = match unanswered {
            Unanswered::Unreachable(_) => (Class::Unreachable, true),
            Unanswered::Broken(_) => (Class::Unreachable, false),
            Unanswered::TimedOut => (Class::TimedOut, false),
        };
        Failure { class, status: None, reason: unanswered.to_string(), cost_known }
    }
}

/// Why an attempt gave no answer.
#[derive(Debug)]
pub enum AttemptError {
    /// The model or LiteLLM failed.
    Failed(Failure),
    /// There was a defect of ours.
    Ours(Error),
}

impl<F: Into<Failure>> From<F> for AttemptError {
    fn from(failure: F) -> Self {
        AttemptError::Failed(failure.into())
    }
}

impl From<SendError> for AttemptError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Unanswered(unanswered) => unanswered.into(),
            SendError::Ours(error) => AttemptError::Ours(error),
        }
    }
}

impl Failure {
    fn unreadable(reason: impl ToString) -> Self {
        Self::of_model(format!("unreadable answer: {}", reason.to_string()))
    }

    /// A failure within an answer.
    fn of_model(reason: String) -> Self {
        Failure { class: Class::Failed, status: None, reason, cost_known: false }
    }

    fn of(answer: &Answer) -> Self {
        let problem = answer.problem();
        let class = classify(answer, &problem);
        // Without a call id it got as far as no model; an error that a model gave says its cost, which is 0.
        let cost_known = answer.header("x-litellm-call-id").is_none()
            || answer.header("x-litellm-response-cost").is_some();
        Failure { class, status: Some(answer.status.as_u16()), reason: problem.message, cost_known }
    }
}

fn classify(answer: &Answer, problem: &Problem) -> Class {
    let kind = problem.kind.as_deref().unwrap_or_default();
    // LiteLLM gives a call id to everything that got as far as a model, and none to what it refuses on its own.
    let reached_a_model = answer.header("x-litellm-call-id").is_some();
    match (answer.status.as_u16(), kind) {
        (_, "budget_exceeded") => Class::BudgetExhausted,
        (429, _) if answer.header("rate_limit_type").is_some() => {
            let seconds = answer.header("retry-after").filter(|seconds| seconds.parse::<u32>().is_ok());
            Class::RateLimited(seconds.map(str::to_owned))
        }
        (429, _) => Class::Overloaded,
        (408, _) => Class::TimedOut,
        (401, _) if !reached_a_model => Class::KeyRefused,
        (401 | 402, _) => Class::Misconfigured,
        (403, _) if kind.ends_with("_model_access_denied") => Class::ModelDenied,
        (403, _) => Class::Misconfigured,
        (404, _) if !reached_a_model => Class::KeyRefused,
        (404, _) => Class::UnknownModel,
        (400, _) if problem.message.contains("Invalid model name passed in") => Class::UnknownModel,
        (400..=499, _) => Class::BadRequest(provider_message(&problem.message)),
        _ => Class::Failed,
    }
}

/// What a caller is told where the provider has no words of its own, or none that can be passed on.
const REFUSED: &str = "The model refused the request";

/// The provider's own words out of LiteLLM's message, which wraps them in the names of exceptions, models and deployments.
fn provider_message(message: &str) -> String {
    let first_line = message.lines().next().unwrap_or_default();
    let words = first_line.split_once("Exception - ").map_or(first_line, |(_, words)| words);
    if words.is_empty() || words.starts_with("litellm.") {
        REFUSED.into()
    } else {
        // The provider may quote what it was sent. This is kept as text, which can't hold U+0000.
        words.replace(char::is_control, "\u{fffd}")
    }
}

/// Tokens and cost of an answer.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt.
    #[serde(default)]
    pub prompt_tokens: i64,
    /// Tokens of the answer.
    #[serde(default)]
    pub completion_tokens: i64,
    /// Tokens of the prompt and the answer.
    #[serde(default)]
    pub total_tokens: i64,
    /// In a stream's last event; unknown when LiteLLM has no price for the model.
    #[serde(default)]
    pub cost: Option<Usd>,
}

impl Usage {
    /// Of a call that got no answer: no tokens, no cost.
    pub const NONE: Usage =
        Usage { prompt_tokens: 0, completion_tokens: 0, total_tokens: 0, cost: Some(Usd::ZERO) };
}

/// A buffered answer of a model.
#[derive(Debug, Serialize, Deserialize)]
pub struct Completion {
    /// The message's members as they came.
    pub message: BTreeMap<String, Box<RawValue>>,
    /// Why the model stopped.
    pub finish_reason: Option<String>,
    /// What it used; its cost is LiteLLM's header.
    pub usage: Usage,
}

/// Where a request goes: one attempt of one call.
#[derive(Clone, Copy)]
pub struct Attempt<'a> {
    /// LiteLLM records what was spent under this.
    pub call_id: CallId,
    /// The team's key.
    pub key: &'a VirtualKey,
    /// How long the answer may take, or a stream its first event.
    pub limit: Duration,
}

impl Attempt<'_> {
    async fn send(self, body: Vec<u8>) -> Result<Response, AttemptError> {
        let headers = [("x-litellm-call-id", self.call_id.to_string())];
        Ok(send(Method::POST, "/chat/completions", self.key, &headers, body, self.limit).await?)
    }

    /// A buffered answer.
    pub async fn complete(self, body: Vec<u8>) -> Result<Completion, AttemptError> {
        let since = Instant::now();
        let response = self.send(body).await?;
        let left = self.limit.saturating_sub(since.elapsed());
        Ok(completion(&read(response, left).await?)?)
    }

    /// A stream that has brought its first event: up to there, a failure is one like that of a buffered answer.
    pub async fn stream(self, body: Vec<u8>) -> Result<Events, AttemptError> {
        let since = Instant::now();
        let response = self.send(body).await?;
        let left = self.limit.saturating_sub(since.elapsed());
        if response.status() != StatusCode::OK {
            return Err(Failure::of(&read(response, left).await?).into());
        }
        let mut events = Events::of(BodyDataStream::new(response.into_body()));
        let first = within(left, events.next()).await.ok_or(Unanswered::TimedOut)??;
        events.first = Some(first);
        Ok(events)
    }
}

/// What an answer to a request for a completion means.
pub fn completion(answer: &Answer) -> Result<Completion, Failure> {
    #[derive(Deserialize)]
    struct Whole {
        choices: Vec<Choice>,
        #[serde(default)]
        usage: Option<Usage>,
    }
    #[derive(Deserialize)]
    struct Choice {
        message: BTreeMap<String, Box<RawValue>>,
        #[serde(default)]
        finish_reason: Option<String>,
    }
    if !answer.status.is_success() {
        return Err(Failure::of(answer));
    }
    let whole: Whole = serde_json::from_slice(&answer.body).map_err(Failure::unreadable)?;
    let choice = whole.choices.into_iter().next().ok_or_else(|| Failure::unreadable("no choice in it"))?;
    let cost = answer.header("x-litellm-response-cost").and_then(Usd::parse);
    let usage = Usage { cost, ..whole.usage.unwrap_or_default() };
    Ok(Completion { message: choice.message, finish_reason: choice.finish_reason, usage })
}

/// One event of a stream.
#[derive(Debug)]
pub enum Event {
    /// A piece of the answer.
    Chunk(Chunk),
    /// `[DONE]`: the answer is complete.
    Done,
}

/// A piece of an answer.
#[derive(Debug, Deserialize)]
pub struct Chunk {
    /// One choice, or none beside the usage.
    #[serde(default)]
    pub choices: Vec<ChunkChoice>,
    /// When the answer was made, in seconds since 1970.
    #[serde(default)]
    pub created: i64,
    /// In the last chunk: what the answer used.
    #[serde(default)]
    pub usage: Option<Usage>,
}

/// What a chunk adds.
#[derive(Debug, Deserialize)]
pub struct ChunkChoice {
    /// The members that are added to, as they came.
    #[serde(default)]
    pub delta: BTreeMap<String, Box<RawValue>>,
    /// In the last piece: why the model stopped.
    #[serde(default)]
    pub finish_reason: Option<String>,
}

/// The events of a stream.
pub struct Events {
    body: Pin<Box<dyn Stream<Item = Result<Bytes, String>> + Send>>,
    reader: sse::Reader,
    first: Option<Event>,
}

impl Events {
    /// Those of a body, in whatever chunks it arrives.
    pub fn of<E: fmt::Display>(body: impl Stream<Item = Result<Bytes, E>> + Send + 'static) -> Self {
        let body = body.map(|chunk| chunk.map_err(|error| error.to_string()));
        Self { body: Box::pin(body), reader: sse::Reader::default(), first: None }
    }

    /// The next event. An end without `[DONE]` is a failure: LiteLLM ends so after an error in the middle.
    pub async fn next(&mut self) -> Result<Event, Failure> {
        if let Some(event) = self.first.take() {
            return Ok(event);
        }
        loop {
            if let Some(data) = self.reader.next() {
                return parse_event(&data);
            }
            match self.body.next().await {
                None => return Err(Failure::of_model("the stream ended early".into())),
                Some(Err(reason)) => return Err(Failure::of_model(reason)),
                Some(Ok(chunk)) => self.reader.push(&chunk).map_err(Failure::of_model)?,
            }
        }
    }
}

fn parse_event(data: &str) -> Result<Event, Failure> {
    if data == "[DONE]" {
        return Ok(Event::Done);
    }
    // Few events are errors, and none is without this.
    if data.contains("\"error\"")
        && let Ok(Envelope { error }) = serde_json::from_str(data)
    {
        return Err(Failure::of_model(error.message));
    }
    serde_json::from_str(data).map(Event::Chunk).map_err(Failure::unreadable)
}
