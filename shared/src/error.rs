//! The one error type, and the one table from failure to answer.
//!
//! An [`Error`] is what the caller gets to see: a stable code and a sentence. What is internal travels with it as its
//! cause, which is logged together with the request's id and leaks nowhere else.

use crate::platform::log::Line;
use axum::{
    Json,
    http::{HeaderValue, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use std::ops::{Deref, DerefMut};
use utoipa::ToSchema;

/// Shorthand for results that end in an answer.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure as the caller sees it. In a box: almost everything returns one, or may, and moves it about.
#[derive(Debug, Clone)]
pub struct Error(Box<Failure>);

/// What an [`Error`] holds.
#[derive(Debug, Clone)]
pub struct Failure {
    /// Which failure it is.
    pub code: Code,
    /// A sentence for the caller.
    pub detail: String,
    /// Seconds after which trying again makes sense.
    pub retry_after: Option<String>,
    /// What is behind it, for the log. Must not hold a key or a prompt.
    pub cause: Option<String>,
}

impl Deref for Error {
    type Target = Failure;

    fn deref(&self) -> &Failure {
        &self.0
    }
}

impl DerefMut for Error {
    fn deref_mut(&mut self) -> &mut Failure {
        &mut self.0
    }
}

/// The stable words for failures. Clients decide by these; `contract.md` lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The request is malformed, or a value is not allowed.
    InvalidRequest,
    /// No key, a malformed header, or a key that is not (any more) valid.
    Unauthenticated,
    /// The key belongs to another team.
    WrongTeam,
    /// The key's team is suspended.
    TeamSuspended,
    /// The team may not use the model group.
    ModelGroupDenied,
    /// No credit is left to hold.
    InsufficientCredits,
    /// LiteLLM's budget for the key or its team is used up.
    BudgetExhausted,
    /// There is no such thing, or it is another team's.
    NotFound,
    /// The path exists, with other methods.
    MethodNotAllowed,
    /// The id or name is taken.
    AlreadyExists,
    /// It can't go while others use it.
    InUse,
    /// The job has ended.
    JobFinished,
    /// Another request is doing the same at this moment.
    InProgress,
    /// The request with the same `Idempotency-Key` is not done yet.
    IdempotencyInProgress,
    /// The `Idempotency-Key` was used with another request.
    IdempotencyMismatch,
    /// The body did not arrive in time.
    RequestTimeout,
    /// The body is larger than allowed.
    TooLarge,
    /// The body is compressed.
    UnsupportedMediaType,
    /// A rate limit of the key or its team, here or in LiteLLM.
    RateLimited,
    /// The team has as much open as it may.
    TooManyCalls,
    /// The job has made as many calls, or cost as much, as it may.
    JobLimit,
    /// More was to be refunded than the job was charged.
    RefundExceedsCharge,
    /// Every model of the group failed.
    LlmFailed,
    /// Every model of the group failed, the last by not answering in time.
    LlmTimeout,
    /// The database or LiteLLM can't be reached.
    Unavailable,
    /// A defect of ours.
    Internal,
}

impl Code {
    /// All of them.
    pub const ALL: [Code; 26] = [
        Code::InvalidRequest,
        Code::Unauthenticated,
        Code::InsufficientCredits,
        Code::BudgetExhausted,
        Code::WrongTeam,
        Code::TeamSuspended,
        Code::ModelGroupDenied,
        Code::JobLimit,
        Code::NotFound,
        Code::MethodNotAllowed,
        Code::RequestTimeout,
        Code::AlreadyExists,
        Code::InUse,
        Code::JobFinished,
        Code::RefundExceedsCharge,
        Code::InProgress,
        Code::IdempotencyInProgress,
        Code::IdempotencyMismatch,
        Code::TooLarge,
        Code::UnsupportedMediaType,
        Code::RateLimited,
        Code::TooManyCalls,
        Code::Internal,
        Code::LlmFailed,
        Code::Unavailable,
        Code::LlmTimeout,
    ];

    /// The HTTP status and the word in the answer's `code`.
    pub fn answer(self) -> (StatusCode, &'static str) {
        match self {
            Code::InvalidRequest => (StatusCode::BAD_REQUEST, "invalid_request"),
            Code::Unauthenticated => (StatusCode::UNAUTHORIZED, "unauthenticated"),
            Code::InsufficientCredits => (StatusCode::PAYMENT_REQUIRED, "insufficient_credits"),
            Code::BudgetExhausted => (StatusCode::PAYMENT_REQUIRED, "budget_exhausted"),
            Code::WrongTeam => (StatusCode::FORBIDDEN, "wrong_team"),
            Code::TeamSuspended => (StatusCode::FORBIDDEN, "team_suspended"),
            Code::ModelGroupDenied => (StatusCode::FORBIDDEN, "model_group_denied"),
            Code::NotFound => (StatusCode::NOT_FOUND, "not_found"),
            Code::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
            Code::AlreadyExists => (StatusCode::CONFLICT, "already_exists"),
            Code::InUse => (StatusCode::CONFLICT, "in_use"),
            Code::JobFinished => (StatusCode::CONFLICT, "job_finished"),
            Code::InProgress => (StatusCode::CONFLICT, "in_progress"),
            Code::IdempotencyInProgress => (StatusCode::CONFLICT, "idempotency_in_progress"),
            Code::IdempotencyMismatch => (StatusCode::UNPROCESSABLE_ENTITY, "idempotency_mismatch"),
            Code::RequestTimeout => (StatusCode::REQUEST_TIMEOUT, "request_timeout"),
            Code::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            Code::UnsupportedMediaType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type"),
            Code::RateLimited => (StatusCode::TOO_MANY_REQUESTS, "rate_limited"),
            Code::TooManyCalls => (StatusCode::TOO_MANY_REQUESTS, "too_many_calls"),
            Code::JobLimit => (StatusCode::FORBIDDEN, "job_limit"),
            Code::RefundExceedsCharge => (StatusCode::CONFLICT, "refund_exceeds_charge"),
            Code::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
            Code::LlmFailed => (StatusCode::BAD_GATEWAY, "llm_failed"),
            Code::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            Code::LlmTimeout => (StatusCode::GATEWAY_TIMEOUT, "llm_timeout"),
        }
    }

    /// The SQLSTATEs with which the functions of `migrations/` fail on purpose, listed in `foundations.sql`.
    pub fn from_sqlstate(sqlstate: &str) -> Option<Code> {
        Some(match sqlstate {
            "LJ001" => Code::Unauthenticated,
            "LJ002" => Code::WrongTeam,
            "LJ003" => Code::TeamSuspended,
            "LJ004" => Code::ModelGroupDenied,
            "LJ005" => Code::InsufficientCredits,
            "LJ006" => Code::NotFound,
            "LJ007" => Code::AlreadyExists,
            "LJ008" => Code::JobFinished,
            "LJ009" => Code::InProgress,
            "LJ010" => Code::InvalidRequest,
            "LJ011" => Code::InUse,
            "LJ012" => Code::IdempotencyMismatch,
            "LJ013" => Code::IdempotencyInProgress,
            "LJ014" => Code::RateLimited,
            "LJ015" => Code::TooManyCalls,
            "LJ016" => Code::JobLimit,
            "LJ017" => Code::RefundExceedsCharge,
            _ => return None,
        })
    }
}

/// The body of every error answer; in a stream, the `error` of its event.
#[derive(Serialize, ToSchema)]
#[schema(as = Error)]
pub struct ErrorBody<'a> {
    /// A sentence for people: for bad input `<field>: what is wrong and what is allowed`.
    #[schema(example = "Insufficient credits. Required: 1, Available: 0")]
    pub detail: &'a str,
    /// The stable word to decide by.
    #[schema(example = "insufficient_credits")]
    pub code: &'static str,
}

impl Error {
    /// A failure with what the caller is told. Of one that may pass, also when to come again: at once, but for a
    /// second's thought.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        let passes =
            matches!(code, Code::RateLimited | Code::LlmFailed | Code::LlmTimeout | Code::Unavailable);
        Self::from_parts(code, detail.into(), passes.then(|| "1".to_owned()))
    }

    /// One that was taken apart before.
    pub(crate) fn from_parts(code: Code, detail: String, retry_after: Option<String>) -> Self {
        Self(Box::new(Failure { code, detail, retry_after, cause: None }))
    }

    /// A value of the request that is not allowed: names the field, and says what is wrong and what is allowed.
    pub fn invalid(field: &str, problem: impl std::fmt::Display) -> Self {
        Self::new(Code::InvalidRequest, format!("{field}: {problem}"))
    }

    /// Something that the application stands on can't be reached; `what` names it for the caller.
    pub fn unavailable(what: &str) -> Self {
        Self::new(Code::Unavailable, format!("{what} can't be reached at the moment"))
    }

    /// A defect of ours: the caller gets only the request's id, a header of every answer.
    pub fn internal(cause: impl std::fmt::Display) -> Self {
        Self::new(Code::Internal, "Internal error. The x-request-id of this answer identifies it in the log.")
            .caused_by(cause)
    }

    /// With what is behind it, for the log. Must not hold a key or a prompt.
    pub fn caused_by(mut self, cause: impl std::fmt::Display) -> Self {
        self.cause = Some(cause.to_string());
        self
    }

    /// With the seconds after which to try again.
    pub fn retry_after(mut self, seconds: impl ToString) -> Self {
        self.retry_after = Some(seconds.to_string());
        self
    }

    /// Writes it to the log, for what happens outside of any request.
    pub fn log(self, task: &str) {
        let cause = self.cause.as_deref().unwrap_or(&self.detail);
        Line { task: Some(task), cause: Some(cause), ..Line::default() }.write();
    }

    /// The body of the answer.
    pub fn body(&self) -> ErrorBody<'_> {
        ErrorBody { detail: &self.detail, code: self.code.answer().1 }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let mut response = (self.code.answer().0, Json(self.body())).into_response();
        if let Some(value) =
            self.retry_after.as_deref().and_then(|seconds| HeaderValue::from_str(seconds).ok())
        {
            response.headers_mut().insert(RETRY_AFTER, value);
        }
        // For the log, and for who shows errors in another form.
        response.extensions_mut().insert(self);
        response
    }
}
