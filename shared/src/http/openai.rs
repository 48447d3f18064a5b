//! The parts of OpenAI's API that this API answers with.

use crate::{
    error::{Code, Error},
    litellm::chat,
    values::CallId,
};
use serde::Serialize;
use utoipa::ToSchema;

/// The id of a completion.
pub fn id(call_id: CallId) -> String {
    format!("chatcmpl-{call_id}")
}

/// The tokens of a call.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub struct Usage {
    /// The tokens of the prompt.
    prompt_tokens: i64,
    /// The tokens of the answer.
    completion_tokens: i64,
    /// The tokens of the prompt and the answer.
    total_tokens: i64,
}

impl Usage {
    /// What the caller may know of a call's usage; `None`: the provider's numbers can't be true.
    pub fn of(usage: chat::Usage) -> Option<Self> {
        let chat::Usage { prompt_tokens, completion_tokens, total_tokens, implausible, .. } = usage;
        (!implausible).then_some(Self { prompt_tokens, completion_tokens, total_tokens })
    }
}

/// The body of an error response in OpenAI's form.
#[derive(Serialize, ToSchema)]
#[schema(as = OpenAiError)]
pub struct ErrorBody<'a> {
    /// The error.
    error: Problem<'a>,
}

/// An error in OpenAI's form.
#[derive(Serialize, ToSchema)]
#[schema(as = OpenAiProblem)]
pub struct Problem<'a> {
    /// A sentence for people.
    message: &'a str,
    /// OpenAI's name for the kind of error.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The field with the invalid value; `null`: none.
    param: Option<&'a str>,
    /// This API's stable code, the same as in its other error responses.
    code: &'static str,
}

impl<'a> ErrorBody<'a> {
    /// The same error in OpenAI's form.
    pub fn of(error: &'a Error) -> Self {
        let kind = match error.code {
            Code::Unauthenticated => "authentication_error",
            Code::WrongTeam | Code::TeamSuspended | Code::ModelGroupDenied => "permission_error",
            Code::InsufficientCredits | Code::BudgetExhausted => "insufficient_quota",
            Code::RateLimited => "rate_limit_error",
            Code::LlmFailed | Code::LlmTimeout | Code::Unavailable | Code::Internal => "server_error",
            _ => "invalid_request_error",
        };
        let param =
            error.detail.split_once(": ").map(|(field, _)| field).filter(|field| {
                error.code == Code::InvalidRequest && !field.contains(' ') && *field != "body"
            });
        Self { error: Problem { message: &error.detail, kind, param, code: error.code.answer().1 } }
    }
}
