//! The events that the caller gets: `data: {json}`, a blank line.

use axum::body::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use shared::{
    error::{Error, ErrorBody},
    litellm::chat::{Chunk, Usage},
};
use std::collections::BTreeMap;
use uuid::Uuid;

/// The members of a delta that are passed on; the others may name the model or its provider.
const DELTA: [&str; 7] =
    ["role", "content", "tool_calls", "function_call", "refusal", "audio", "reasoning_content"];

/// A piece of the answer in OpenAI's form, with its text also at top level, and the group's name as the model.
pub fn chunk(call_id: Uuid, model_group: &str, chunk: &Chunk) -> Option<Bytes> {
    #[derive(Serialize)]
    struct Piece<'a> {
        id: String,
        object: &'static str,
        created: i64,
        model: &'a str,
        choices: [Choice<'a>; 1],
        #[serde(skip_serializing_if = "Option::is_none")]
        content: Option<&'a RawValue>,
    }
    #[derive(Serialize)]
    struct Choice<'a> {
        index: u8,
        delta: BTreeMap<&'a str, &'a RawValue>,
        finish_reason: Option<&'a str>,
    }
    let choice = chunk.choices.first()?;
    let delta: BTreeMap<&str, &RawValue> = choice
        .delta
        .iter()
        .filter(|(name, value)| DELTA.contains(&name.as_str()) && value.get() != "null")
        .map(|(name, value)| (name.as_str(), value.as_ref()))
        .collect();
    if delta.is_empty() && choice.finish_reason.is_none() {
        return None;
    }
    data(&Piece {
        id: format!("chatcmpl-{call_id}"),
        object: "chat.completion.chunk",
        created: chunk.created,
        model: model_group,
        content: delta.get("content").copied(),
        choices: [Choice { index: 0, delta, finish_reason: choice.finish_reason.as_deref() }],
    })
}

/// The last event but one.
pub fn summary(
    call_id: Uuid,
    model_group: &str,
    finish_reason: Option<&str>,
    usage: &Usage,
    latency_ms: u128,
) -> Option<Bytes> {
    #[derive(Serialize)]
    struct Summary<'a> {
        call_id: Uuid,
        finish_reason: Option<&'a str>,
        usage: Tokens,
        metadata: Metadata<'a>,
    }
    #[derive(Serialize)]
    struct Tokens {
        prompt_tokens: i64,
        completion_tokens: i64,
        total_tokens: i64,
    }
    #[derive(Serialize)]
    struct Metadata<'a> {
        tokens_used: i64,
        latency_ms: u128,
        model_group: &'a str,
    }
    let Usage { prompt_tokens, completion_tokens, total_tokens, .. } = *usage;
    data(&Summary {
        call_id,
        finish_reason,
        usage: Tokens { prompt_tokens, completion_tokens, total_tokens },
        metadata: Metadata { tokens_used: total_tokens, latency_ms, model_group },
    })
}

/// The last event of a complete stream.
pub const DONE: Bytes = Bytes::from_static(b"data: [DONE]\n\n");

/// A comment that keeps the connection open while the model is silent.
pub const PING: Bytes = Bytes::from_static(b": ping\n\n");

/// The last event of a stream that failed.
pub fn error(error: &Error) -> Option<Bytes> {
    #[derive(Serialize)]
    struct Failed<'a> {
        error: ErrorBody<'a>,
    }
    let data = data(&Failed { error: error.body() })?;
    Some([b"event: error\n", data.as_ref()].concat().into())
}

fn data(value: &impl Serialize) -> Option<Bytes> {
    let mut event = b"data: ".to_vec();
    serde_json::to_writer(&mut event, value).ok()?;
    event.extend_from_slice(b"\n\n");
    Some(event.into())
}
