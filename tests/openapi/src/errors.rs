//! The codes of failures: what each means, and a sentence that goes with it.

use serde_json::{Value, json};
use shared::{
    error::{Code, Error},
    http::openai,
};

/// What a code means.
pub fn meaning(code: Code) -> &'static str {
    told(code).0
}

/// What is told of a code: what it means, and a sentence that may come with it.
fn told(code: Code) -> (&'static str, &'static str) {
    match code {
        Code::InvalidRequest => (
            "The request is malformed, or a value is not allowed. `detail` names the field.",
            "team_id: expected 1 to 128 of A-Z a-z 0-9 _ . -",
        ),
        Code::Unauthenticated => {
            ("No key, a malformed header, or a key that is not, or no longer, valid.", "Invalid API key")
        }
        Code::InsufficientCredits => {
            ("No credit is left: top up.", "Insufficient credits. Required: 1, Available: 0")
        }
        Code::BudgetExhausted => (
            "LiteLLM's budget of the key or its team is used up: top up.",
            "LLM call failed: Budget exceeded",
        ),
        Code::WrongTeam => {
            ("The key belongs to another team.", "API key does not belong to team 'acme-engineering'")
        }
        Code::TeamSuspended => ("The key's team is suspended.", "Team 'acme-engineering' is suspended"),
        Code::ModelGroupDenied => (
            "The team may not use the model group.",
            "Team 'acme-engineering' does not have access to model group 'ChatAgent'",
        ),
        Code::NotFound => {
            ("There is no such thing, or it is another team's.", "Team 'acme-engineering' not found")
        }
        Code::MethodNotAllowed => (
            "The path exists, with the methods that the header `allow` names.",
            "Method not allowed here; allowed: GET,HEAD",
        ),
        Code::AlreadyExists => ("The id or name is taken.", "Team 'acme-engineering' already exists"),
        Code::InUse => (
            "It can't go while others use it.",
            "Model group 'ChatAgent' is still assigned to teams or access groups",
        ),
        Code::JobFinished => {
            ("The job has ended.", "Job '019a9f3e-7c1d-7e55-b0a8-3c1f2d9e4b6a' is already completed")
        }
        Code::TooManyCalls => (
            "The team has as much open as it may; `detail` names the limit. Try again after `retry-after`.",
            "open_calls_per_job: a job of team 'acme-engineering' may have at most 16 open calls",
        ),
        Code::JobLimit => (
            "The job has made as many calls, or cost as much, as it may; `detail` names the limit. Create another job.",
            "calls_per_job: a job of team 'acme-engineering' may make at most 1000 calls",
        ),
        Code::RefundExceedsCharge => (
            "The refund is greater than what the job was charged, less earlier refunds.",
            "credits: the job was charged 1 credits, 1 of which are refunded",
        ),
        Code::InProgress => (
            "Another request is doing the same at this moment: try again.",
            "Team 'acme-engineering' is being created by another request",
        ),
        Code::IdempotencyInProgress => (
            "The request with the same `Idempotency-Key` is not done yet: try again.",
            "Idempotency-Key: the request with this key is still under way",
        ),
        Code::RequestTimeout => {
            ("The body took longer than 30 seconds to arrive.", "body: expected within 30 seconds")
        }
        Code::TooLarge => ("The body is larger than 4 MiB.", "body: expected at most 4194304 bytes"),
        Code::UnsupportedMediaType => ("The body is compressed.", "content-encoding: expected none"),
        Code::IdempotencyMismatch => (
            "The `Idempotency-Key` was used with another request.",
            "Idempotency-Key: it was used with another request",
        ),
        Code::RateLimited => (
            "LiteLLM's rate limit for the key or its team: try again after `retry-after` seconds.",
            "LLM call failed: Rate limit exceeded",
        ),
        Code::Internal => (
            "A defect of the service. `x-request-id` identifies it in the log.",
            "Internal error. The x-request-id of this answer identifies it in the log.",
        ),
        Code::LlmFailed => ("Every model of the group failed.", "LLM call failed: The model failed"),
        Code::Unavailable => (
            "The database or LiteLLM can't be reached: try again after `retry-after` seconds.",
            "LiteLLM can't be reached at the moment",
        ),
        Code::LlmTimeout => (
            "Every model of the group failed, the last by not answering in time.",
            "LLM call failed: Timed out",
        ),
    }
}

/// The two forms of error answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// This API's own.
    Own,
    /// OpenAI's, under `/v1/`.
    OpenAi,
}

impl Form {
    /// The name of its schema.
    pub fn schema(self) -> &'static str {
        match self {
            Form::Own => "Error",
            Form::OpenAi => "OpenAiError",
        }
    }

    /// The body of an answer with this code.
    pub fn example(self, code: Code) -> Value {
        let error = Error::new(code, told(code).1);
        match self {
            Form::Own => json!(error.body()),
            Form::OpenAi => json!(openai::ErrorBody::of(&error)),
        }
    }
}
