//! Failures of the model behind LiteLLM, and the errors that LiteLLM makes of them.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue};

use crate::behaviour::Behaviour;
use crate::error::ApiError;
use crate::models::Model;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Failure {
    /// The upstream answered with an error.
    Error { status: u16, code: Option<String>, message: String, retry_after: Option<u64> },
    /// The connection to it could not be made, or broke before the answer was complete.
    Connection,
    /// It did not answer in time.
    Timeout { after: Duration, streamed: bool },
}

/// The upstream's own words for an internal error.
pub(crate) const SERVER_ERROR: &str =
    "The server had an error while processing your request. Sorry about that!";

/// What LiteLLM says about a stream whose connection broke.
pub(crate) const CUT: &str = "litellm.APIConnectionError: APIConnectionError: OpenAIException - Response payload is \
                              not completed: <TransferEncodingError: 400, message='Not enough data to satisfy transfer \
                              length header.'>";

/// What LiteLLM says about a stream that fell silent.
pub(crate) const SILENT: &str =
    "litellm.APIConnectionError: APIConnectionError: OpenAIException - Timeout on reading data from socket";

/// What LiteLLM says about a stream with an error event.
pub(crate) const ERROR_EVENT: &str = "litellm.APIConnectionError: APIConnectionError: OpenAIException - The server had \
                                      an error while processing your request. Sorry about that!";

impl Failure {
    /// The error that a behaviour asks for.
    pub fn asked(behaviour: &Behaviour) -> Failure {
        let message = match behaviour.status {
            400 => "Invalid value for a parameter.",
            401 => "Incorrect API key provided.",
            403 => "Country, region, or territory not supported.",
            404 => "The model does not exist or you do not have access to it.",
            429 => "Rate limit reached on requests per min (RPM): Limit 3, Used 3, Requested 1.",
            503 => "The engine is currently overloaded, please try again later.",
            _ => SERVER_ERROR,
        };
        Failure::Error {
            status: behaviour.status,
            code: behaviour.code.clone(),
            message: message.to_owned(),
            retry_after: behaviour.retry_after,
        }
    }

    /// The upstream's complaint about a request that it can't follow.
    pub fn complaint(text: &str) -> Failure {
        let message = format!("fake upstream: {text}");
        Failure::Error { status: 400, code: None, message, retry_after: None }
    }

    /// An internal error of the upstream.
    pub fn internal() -> Failure {
        Failure::Error { status: 500, code: None, message: SERVER_ERROR.to_owned(), retry_after: None }
    }

    /// The error that the client of LiteLLM sees.
    pub fn to_error(&self, model: &Model) -> ApiError {
        match self {
            Failure::Error { status, code, message, retry_after } => {
                let (status, kind, text) = translated(*status, code.as_deref(), message, model);
                let mut error = ApiError::new(status, kind, with_group(&text, model));
                let mut headers = HeaderMap::new();
                headers.insert("llm_provider-content-type", HeaderValue::from_static("application/json"));
                if let Some(seconds) = retry_after {
                    headers.insert("llm_provider-retry-after", HeaderValue::from(*seconds));
                }
                error.headers.extend(headers);
                error
            }
            Failure::Connection => {
                let text =
                    "litellm.InternalServerError: InternalServerError: OpenAIException - Connection error.";
                ApiError::new(500, "internal_server_error", with_group(text, model))
            }
            Failure::Timeout { after, streamed } => {
                let seconds = seconds(*after);
                let took = format!(" - timeout value={seconds}, time taken={seconds} seconds");
                let text = format!(
                    "litellm.Timeout: APITimeoutError - Request timed out. Error_str: Request timed out.{}{}",
                    if *streamed { "" } else { &took },
                    deployment(model)
                );
                ApiError::new(408, "invalid_request_error", with_group(&text, model))
            }
        }
    }
}

/// Status, type and message that LiteLLM gives to an upstream's error.
fn translated(status: u16, code: Option<&str>, message: &str, model: &Model) -> (u16, &'static str, String) {
    let said = format!("OpenAIException - {message}");
    match status {
        400 if code == Some("content_policy_violation") => (
            400,
            "invalid_request_error",
            format!(
                "litellm.BadRequestError: litellm.ContentPolicyViolationError: ContentPolicyViolationError: {said}\n\
                 model={}. content_policy_fallback=None. fallbacks=None.\n\nSet 'content_policy_fallback' - \
                 https://docs.litellm.ai/docs/routing#fallbacks",
                model.name
            ),
        ),
        400 | 403 => (status, "invalid_request_error", format!("litellm.BadRequestError: {said}")),
        401 => {
            (401, "authentication_error", format!("litellm.AuthenticationError: AuthenticationError: {said}"))
        }
        404 => (404, "invalid_request_error", format!("litellm.NotFoundError: {said}")),
        408 | 504 => {
            let kind = if status == 408 { "invalid_request_error" } else { "internal_server_error" };
            (status, kind, format!("litellm.Timeout: Timeout Error: {said}{}", deployment(model)))
        }
        422 => (422, "server_error", format!("litellm.BadRequestError: {said}")),
        429 => (429, "throttling_error", format!("litellm.RateLimitError: RateLimitError: {said}")),
        500 => (
            500,
            "internal_server_error",
            format!("litellm.InternalServerError: InternalServerError: {said}"),
        ),
        502 => (502, "internal_server_error", format!("litellm.BadGatewayError: BadGatewayError: {said}")),
        503 => (
            503,
            "internal_server_error",
            format!("litellm.ServiceUnavailableError: ServiceUnavailableError: {said}"),
        ),
        _ => {
            let status = if (400..600).contains(&status) { status } else { 500 };
            let kind = if status < 500 { "invalid_request_error" } else { "internal_server_error" };
            (status, kind, format!("litellm.APIError: APIError: {said}"))
        }
    }
}

fn with_group(text: &str, model: &Model) -> String {
    let name = model.name;
    format!("{text}\n\nLiteLLM: model group '{name}' failed with the error above. No fallback was attempted.")
}

fn deployment(model: &Model) -> String {
    format!("\n\nDeployment Info: request_timeout: None\ntimeout: {}", seconds(model.timeout))
}

/// A duration as Python prints it in seconds.
pub(crate) fn seconds(duration: Duration) -> String {
    crate::cost::python_float(duration.as_secs_f64())
}
