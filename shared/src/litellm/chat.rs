//! Chat completions: one attempt with one model.

use super::{Answer, Envelope, Problem, SendError, Unanswered, read, send, sse};
use crate::{
    error::{Code, Error},
    platform::time::within,
    values::{CallId, GroupName, TeamId, TokenCount, Usd, VirtualKey, shortened},
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

/// The reason why an attempt gave no answer.
#[derive(Debug)]
pub struct Failure {
    /// What the failure means for the call.
    pub class: Class,
    /// The status of LiteLLM's answer; `None`: there was no answer.
    pub status: Option<u16>,
    /// The reason, for the admin. It may name models, so the caller does not get it.
    pub reason: String,
    /// Whether it is certain that the attempt cost nothing. LiteLLM may finish and bill an attempt that was given up
    /// here, and it bills a stream that broke off before anything of it was passed on, though it answers with an error.
    pub cost_known: bool,
}

/// What a failure means for the call. After the failures of the first group another model is tried, after those of the
/// second it is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Class {
    /// LiteLLM itself can't be reached.
    Unreachable,
    /// No answer came in time.
    TimedOut,
    /// The provider's rate limit was exceeded.
    Overloaded,
    /// The provider or LiteLLM failed.
    Failed,
    /// LiteLLM or the provider does not know the model.
    UnknownModel,

    /// The request is invalid; with the provider's message.
    BadRequest(Option<String>),
    /// LiteLLM does not accept the key, or no longer.
    KeyRefused,
    /// The key may not use the model.
    ModelDenied,
    /// The budget of the key or its team is used up.
    BudgetExhausted,
    /// LiteLLM's rate limit of the key or its team was exceeded; with the seconds until a retry may succeed.
    RateLimited(Option<String>),
    /// The provider refuses LiteLLM's credentials.
    Misconfigured,
}

impl Class {
    /// The same without the provider's message.
    pub fn without_words(self) -> Self {
        match self {
            Class::BadRequest(_) => Class::BadRequest(None),
            class => class,
        }
    }

    /// Whether another model may answer.
    pub fn worth_another_model(&self) -> bool {
        use Class::*;
        matches!(self, Unreachable | TimedOut | Overloaded | Failed | UnknownModel)
    }

    /// Whether the failure is about what the caller sent or has used up.
    pub fn is_callers_fault(&self) -> bool {
        matches!(self, Class::BadRequest(_) | Class::BudgetExhausted | Class::RateLimited(_))
    }

    /// The caller's error if the call ends with this failure. It names neither models nor providers.
    pub fn answer(&self, team_id: &TeamId, model_group: &GroupName) -> Error {
        let failed = |code, reason: &str| Error::new(code, format!("LLM call failed: {reason}"));
        match self {
            Class::Unreachable => Error::unavailable("LiteLLM"),
            Class::TimedOut => failed(Code::LlmTimeout, "Timed out"),
            Class::Overloaded => failed(Code::LlmFailed, "Rate limit exceeded"),
            Class::Failed => failed(Code::LlmFailed, "The model failed"),
            Class::UnknownModel => failed(Code::LlmFailed, "The model is not available"),
            Class::Misconfigured => failed(Code::LlmFailed, "The model is not accessible"),
            Class::BadRequest(words) => {
                failed(Code::InvalidRequest, words.as_deref().unwrap_or("The model refused the request"))
            }
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
    /// A defect of this application.
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
        // Without a call id the request reached no model; an error that a model gave says its cost, which is 0.
        let cost_known = answer.header("x-litellm-call-id").is_none()
            || answer.header("x-litellm-response-cost").is_some();
        Failure { class, status: Some(answer.status.as_u16()), reason: problem.message, cost_known }
    }
}

fn classify(answer: &Answer, problem: &Problem) -> Class {
    let kind = problem.kind.as_deref().unwrap_or_default();
    // LiteLLM gives a call id to every request that reached a model, and none to those that it refuses itself.
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

/// The maximum number of characters of a provider's message.
const WORDS: usize = 1000;

/// The provider's message, taken out of LiteLLM's, which wraps it in the names of exceptions, models and deployments.
/// `None` if it is empty or can't be passed on.
fn provider_message(message: &str) -> Option<String> {
    let first_line = message.lines().next().unwrap_or_default();
    let words = first_line.split_once("Exception - ").map_or(first_line, |(_, words)| words);
    // The provider may quote the request. The message is stored as text, which can't hold U+0000.
    (!words.is_empty() && !words.starts_with("litellm."))
        .then(|| shortened(words, WORDS).replace(char::is_control, "\u{fffd}"))
}

/// The tokens and the cost of an answer.
///
/// The numbers come from providers, which say anything. If one of them can't be true, none of them is taken: see
/// [`Usage::IMPLAUSIBLE`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Box<RawValue>")]
pub struct Usage {
    /// The tokens of the prompt.
    pub prompt_tokens: i64,
    /// The tokens of the answer.
    pub completion_tokens: i64,
    /// The tokens of the prompt and the answer.
    pub total_tokens: i64,
    /// The cost in US dollars, which a stream's last event has; `None`: unknown, since LiteLLM has no price for the
    /// model.
    pub cost: Option<Usd>,
    /// Whether the numbers were out of bounds, and are unknown therefore.
    pub implausible: bool,
}

impl Usage {
    /// The usage of a call without an answer: no tokens, no cost.
    pub const NONE: Usage = Usage {
        prompt_tokens: 0,
        completion_tokens: 0,
        total_tokens: 0,
        cost: Some(Usd::ZERO),
        implausible: false,
    };

    /// Unknown as a whole, because a number was out of bounds.
    pub const IMPLAUSIBLE: Usage =
        Usage { prompt_tokens: 0, completion_tokens: 0, total_tokens: 0, cost: None, implausible: true };

    /// The same with the cost that a header says.
    fn with_cost(self, header: Option<&str>) -> Self {
        match header.map(Usd::cost) {
            _ if self.implausible => self,
            None => Usage { cost: None, ..self },
            Some(Some(cost)) => Usage { cost: Some(cost), ..self },
            Some(None) => Usage::IMPLAUSIBLE,
        }
    }

    /// The usage of two attempts together.
    pub fn plus(self, other: Usage) -> Usage {
        self.checked_plus(other).unwrap_or(Usage::IMPLAUSIBLE)
    }

    /// `None`: one of them, or the sum, is implausible.
    fn checked_plus(self, other: Usage) -> Option<Usage> {
        if self.implausible || other.implausible {
            return None;
        }
        let sum = |a: i64, b: i64| a.checked_add(b).filter(|sum| *sum <= TokenCount::MAX);
        let cost = self.cost.zip(other.cost).map(|(cost, more)| cost.saturating_add(more));
        Some(Usage {
            prompt_tokens: sum(self.prompt_tokens, other.prompt_tokens)?,
            completion_tokens: sum(self.completion_tokens, other.completion_tokens)?,
            total_tokens: sum(self.total_tokens, other.total_tokens)?,
            cost: match cost {
                Some(cost) => Some(cost.plausible_cost()?),
                None => None,
            },
            implausible: false,
        })
    }
}

impl From<Box<RawValue>> for Usage {
    fn from(said: Box<RawValue>) -> Self {
        #[derive(Deserialize)]
        struct Said {
            prompt_tokens: Option<TokenCount>,
            completion_tokens: Option<TokenCount>,
            total_tokens: Option<TokenCount>,
            // In LiteLLM's log it is called `spend`.
            #[serde(alias = "spend")]
            cost: Option<Usd>,
            #[serde(default)]
            implausible: bool,
        }
        let tokens = |count: Option<TokenCount>| count.map_or(0, TokenCount::get);
        // A list would be read as the members in their order.
        let members = Some(said.get()).filter(|said| said.starts_with('{')).map(serde_json::from_str);
        match members {
            Some(Ok(Said { prompt_tokens, completion_tokens, total_tokens, cost, implausible: false }))
                if cost.is_none_or(|cost| cost.plausible_cost().is_some()) =>
            {
                Usage {
                    prompt_tokens: tokens(prompt_tokens),
                    completion_tokens: tokens(completion_tokens),
                    total_tokens: tokens(total_tokens),
                    cost: cost.and_then(Usd::plausible_cost),
                    implausible: false,
                }
            }
            _ => Usage::IMPLAUSIBLE,
        }
    }
}

/// A buffered answer of a model.
#[derive(Debug, Serialize, Deserialize)]
pub struct Completion {
    /// The members of the message, as they arrived.
    pub message: BTreeMap<String, Box<RawValue>>,
    /// Why the model stopped.
    pub finish_reason: Option<String>,
    /// The tokens and the cost; the cost comes from a header of LiteLLM's answer.
    pub usage: Usage,
}

/// One attempt of a call with one model.
#[derive(Clone, Copy)]
pub struct Attempt<'a> {
    /// The id under which LiteLLM records what was spent.
    pub call_id: CallId,
    /// The team's key.
    pub key: &'a VirtualKey,
    /// The maximum time until a buffered answer is complete, or until a stream's first event.
    pub limit: Duration,
}

impl Attempt<'_> {
    async fn send(self, body: Vec<u8>) -> Result<Response, AttemptError> {
        let headers = [("x-litellm-call-id", self.call_id.to_string())];
        Ok(send(Method::POST, "/chat/completions", self.key, &headers, body, self.limit).await?)
    }

    /// Requests a buffered answer.
    pub async fn complete(self, body: Vec<u8>) -> Result<Completion, AttemptError> {
        let since = Instant::now();
        let response = self.send(body).await?;
        let left = self.limit.saturating_sub(since.elapsed());
        Ok(completion(&read(response, left).await?)?)
    }

    /// Requests a stream and waits for its first event: until then a failure is like that of a buffered answer.
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

/// Reads an answer to a request for a buffered completion.
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
    let usage = whole.usage.unwrap_or_default().with_cost(answer.header("x-litellm-response-cost"));
    Ok(Completion { message: choice.message, finish_reason: choice.finish_reason, usage })
}

/// One event of a stream.
#[derive(Debug)]
pub enum Event {
    /// A chunk of the answer.
    Chunk(Chunk),
    /// `[DONE]`: the answer is complete.
    Done,
}

/// A chunk of an answer.
#[derive(Debug, Deserialize)]
pub struct Chunk {
    /// One choice; none in the chunk with the usage.
    #[serde(default)]
    pub choices: Vec<ChunkChoice>,
    /// When the answer was made, in seconds since 1970 (UTC).
    #[serde(default)]
    pub created: i64,
    /// In the last chunk: the usage of the answer.
    #[serde(default)]
    pub usage: Option<Usage>,
}

/// The part of the answer that a chunk adds.
#[derive(Debug, Deserialize)]
pub struct ChunkChoice {
    /// The members that are added, as they arrived.
    #[serde(default)]
    pub delta: BTreeMap<String, Box<RawValue>>,
    /// In the last chunk of the text: why the model stopped.
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
    /// The events of a body, in whatever pieces it arrives.
    pub fn of<E: fmt::Display>(body: impl Stream<Item = Result<Bytes, E>> + Send + 'static) -> Self {
        let body = body.map(|chunk| chunk.map_err(|error| error.to_string()));
        Self { body: Box::pin(body), reader: sse::Reader::default(), first: None }
    }

    /// The next event. An end without `[DONE]` is a failure: LiteLLM ends a stream so after an error in the middle.
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
    // A cheap test: few events are errors, and all of those contain this text.
    if data.contains("\"error\"")
        && let Ok(Envelope { error }) = serde_json::from_str(data)
    {
        return Err(Failure::of_model(error.message));
    }
    serde_json::from_str(data).map(Event::Chunk).map_err(Failure::unreadable)
}

#[cfg(test)]
mod tests {
    use super::{WORDS, provider_message};

    #[test]
    fn a_providers_words_are_unwrapped_and_bounded() {
        let message = |text: &str| provider_message(text);
        assert_eq!(
            message("litellm.BadRequestError: OpenAIException - no such tool\nmore").as_deref(),
            Some("no such tool")
        );
        for nothing in ["", "litellm.BadRequestError: x", "OpenAIException - "] {
            assert_eq!(message(nothing), None, "{nothing}");
        }
        let long = message(&"ä".repeat(WORDS + 1)).expect("words");
        assert_eq!((long.chars().count(), long.ends_with("ä…")), (WORDS, true));
        assert_eq!(message(&"ä".repeat(WORDS)), Some("ä".repeat(WORDS)));
    }
}
