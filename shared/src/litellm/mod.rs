//! The only client of LiteLLM.
//!
//! [`admin`] synchronizes LiteLLM's teams and keys with ours, using the master key. [`chat`] makes the calls with the
//! team's own key, so that LiteLLM's budgets, model lists and rate limits apply. The client follows the recorded
//! behaviour of LiteLLM 1.106.2. There a status alone says little (422 is an exhausted budget or a malformed body, 401
//! one of half a dozen things), so errors are distinguished by their `type`.

pub mod admin;
pub mod chat;
mod sse;

use crate::{
    error::{Error, Result},
    platform::{outbound, settings, time::within},
    values::VirtualKey,
};
use axum::http::{self, HeaderMap, Method, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use serde::{Deserialize, Deserializer};
use spin_sdk::{
    http::Response,
    wasip3::{
        http::types::{ErrorCode, RequestOptions},
        http_compat::RequestOptionsExtension,
    },
};
use std::{fmt, time::Duration};

/// Why there is no answer from LiteLLM.
#[derive(Debug)]
pub enum Unanswered {
    /// No connection was made, so LiteLLM has not received the request.
    Unreachable(String),
    /// The connection broke.
    Broken(String),
    /// It took longer than allowed.
    TimedOut,
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unanswered::Unreachable(reason) => write!(f, "LiteLLM can't be reached: {reason}"),
            Unanswered::Broken(reason) => write!(f, "the connection to LiteLLM broke: {reason}"),
            Unanswered::TimedOut => f.write_str("LiteLLM took too long"),
        }
    }
}

/// Why a request has no answer from LiteLLM: LiteLLM gave none, or a defect of this application prevented the request.
#[derive(Debug)]
enum SendError {
    Unanswered(Unanswered),
    Ours(Error),
}

impl From<Error> for SendError {
    fn from(error: Error) -> Self {
        SendError::Ours(error)
    }
}

impl From<Unanswered> for SendError {
    fn from(unanswered: Unanswered) -> Self {
        SendError::Unanswered(unanswered)
    }
}

/// Sends a request to LiteLLM and waits for the head of the answer, `limit` at most.
async fn send(
    method: Method,
    path: &str,
    key: &VirtualKey,
    headers: &[(&'static str, String)],
    body: Vec<u8>,
    limit: Duration,
) -> Result<Response, SendError> {
    let url = settings::text("litellm_url").await?;
    let mut request = http::Request::builder()
        .method(method)
        .uri(format!("{}{path}", url.trim_end_matches('/')))
        .header(header::AUTHORIZATION, format!("Bearer {}", key.expose()))
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONTENT_LENGTH, body.len());
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let request = request.extension(connecting().await?).body(Bytes::from(body)).map_err(Error::internal)?;
    match within(limit, outbound::send(request)).await {
        None => Err(Unanswered::TimedOut.into()),
        Some(Err(
            error @ (ErrorCode::ConnectionRefused
            | ErrorCode::ConnectionTimeout
            | ErrorCode::DnsError(_)
            | ErrorCode::DestinationNotFound),
        )) => Err(Unanswered::Unreachable(error.to_string()).into()),
        Some(Err(error)) => Err(Unanswered::Broken(error.to_string()).into()),
        Some(Ok(response)) => Ok(response),
    }
}

/// LiteLLM's master key, with which it is administrated.
async fn master_key() -> Result<VirtualKey> {
    settings::text("litellm_master_key").await.map(VirtualKey::new)
}

/// The request option with the maximum time that the host may take to connect.
async fn connecting() -> Result<RequestOptionsExtension> {
    let limit = Duration::from_secs(settings::parsed("litellm_connect_seconds").await?);
    let options = RequestOptions::new();
    // A host may not support this option. Then its own limit applies, and the limit for the whole answer.
    _ = options.set_connect_timeout(Some(u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX)));
    Ok(RequestOptionsExtension(options))
}

/// The maximum size of an answer that is not a stream.
const MAX_ANSWER_BYTES: usize = 32 * 1024 * 1024;

/// Reads the rest of an answer, `limit` at most.
async fn read(response: Response, limit: Duration) -> Result<Answer, Unanswered> {
    let (parts, body) = response.into_parts();
    let body = match within(limit, Limited::new(body, MAX_ANSWER_BYTES).collect()).await {
        None => return Err(Unanswered::TimedOut),
        Some(Err(error)) => return Err(Unanswered::Broken(error.to_string())),
        Some(Ok(body)) => body.to_bytes(),
    };
    Ok(Answer { status: parts.status, headers: parts.headers, body })
}

/// A whole answer of LiteLLM.
#[derive(Debug)]
pub struct Answer {
    /// The answer's status.
    pub status: StatusCode,
    /// The answer's headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Answer {
    /// A header as text.
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// LiteLLM's error message. An answer without its usual envelope yields empty texts.
    fn problem(&self) -> Problem {
        serde_json::from_slice::<Envelope>(&self.body).map(|envelope| envelope.error).unwrap_or_default()
    }
}

/// LiteLLM's envelope for errors, as an answer's body and as an event of a stream.
#[derive(Deserialize)]
struct Envelope {
    error: Problem,
}

/// The content of the envelope.
#[derive(Deserialize, Default, Debug, Clone)]
pub struct Problem {
    /// A message for people; it may be a Python dictionary printed as text. Keys in it are masked.
    #[serde(default, deserialize_with = "without_keys")]
    pub message: String,
    /// The type by which failures are distinguished.
    #[serde(default, rename = "type")]
    pub kind: Option<String>,
}

/// Reads a text and masks the keys that it quotes: LiteLLM and providers show what they refuse. All keys of LiteLLM
/// begin with `sk-`.
fn without_keys<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let of_a_key = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let text = String::deserialize(deserializer)?;
    let words = text.split_inclusive(|c: char| !of_a_key(c));
    Ok(words
        .map(|word| match word.strip_prefix("sk-") {
            Some(secret) => format!("sk-…{}", secret.trim_start_matches(of_a_key)),
            None => word.to_owned(),
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_in_messages_are_masked() {
        let body = r#"{"error": {"message": "'Bearer sk-a_B-9', sk-b; ask-me (sk-) key=sk-c\nsk-d"}}"#;
        let envelope: Envelope = serde_json::from_str(body).expect("an envelope");
        assert_eq!(envelope.error.message, "'Bearer sk-…', sk-…; ask-me (sk-…) key=sk-…\nsk-…");
    }
}
