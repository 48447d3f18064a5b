//! The events of the caller's stream: `data: {json}`, followed by a blank line.

use super::{Settled, Streamed};
use crate::{
    error::{Error, ErrorBody},
    http::openai,
    jobs::{CompletedJob, Costs},
    litellm::chat::Chunk,
    values::{CallId, FinalStatus, GroupName, JobId},
};
use axum::body::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// The form of a stream's events.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// This API's own form: chunks have their text also at top level, and a summary of the call comes at the end.
    Own,
    /// OpenAI's form.
    OpenAi {
        /// Whether an event with the usage comes at the end.
        include_usage: bool,
    },
}

/// The members of a delta that are passed on; others may name the model or its provider.
const DELTA: [&str; 7] =
    ["role", "content", "tool_calls", "function_call", "refusal", "audio", "reasoning_content"];

/// The last event of a complete stream.
pub(super) const DONE: Bytes = Bytes::from_static(b"data: [DONE]\n\n");

/// A comment that keeps the connection open while the model is silent.
pub(super) const PING: Bytes = Bytes::from_static(b": ping\n\n");

/// A chunk in OpenAI's form, with the name of the model group as the model.
#[derive(Serialize)]
struct Piece<'a> {
    id: String,
    object: &'static str,
    created: u64,
    model: &'a GroupName,
    choices: Vec<Choice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a RawValue>,
    /// In the event with the usage, `null` if that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<openai::Usage>>,
}

#[derive(Serialize)]
struct Choice<'a> {
    index: u8,
    delta: BTreeMap<&'a str, &'a RawValue>,
    finish_reason: Option<&'a str>,
}

impl Form {
    /// The event for a chunk of the answer; `None` if nothing in it is for the caller. `created` is in seconds since
    /// 1970 (UTC).
    pub fn chunk(
        self,
        call_id: CallId,
        model_group: &GroupName,
        created: u64,
        chunk: &Chunk,
    ) -> Option<Bytes> {
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
            id: openai::id(call_id),
            object: "chat.completion.chunk",
            created,
            model: model_group,
            content: delta.get("content").copied().filter(|_| self == Form::Own),
            choices: vec![Choice { index: 0, delta, finish_reason: choice.finish_reason.as_deref() }],
            usage: None,
        })
    }

    /// The events after the last chunk.
    pub(super) fn end(self, streamed: &Streamed, settled: Settled) -> Vec<Bytes> {
        let summary = match self {
            Form::Own => summary(streamed, settled),
            Form::OpenAi { include_usage: false } => None,
            Form::OpenAi { include_usage: true } => data(&Piece {
                id: openai::id(streamed.call_id),
                object: "chat.completion.chunk",
                created: streamed.created,
                model: &streamed.model_group,
                content: None,
                choices: vec![],
                usage: Some(openai::Usage::of(streamed.usage)),
            }),
        };
        summary.into_iter().chain([DONE]).collect()
    }

    /// The last event of a stream that failed.
    pub(super) fn error(self, error: &Error) -> Option<Bytes> {
        #[derive(Serialize)]
        struct Own<'a> {
            error: ErrorBody<'a>,
        }
        match self {
            Form::Own => {
                let data = data(&Own { error: error.body() })?;
                Some([b"event: error\n", data.as_ref()].concat().into())
            }
            Form::OpenAi { .. } => data(&openai::ErrorBody::of(error)),
        }
    }
}

fn summary(streamed: &Streamed, settled: Settled) -> Option<Bytes> {
    #[derive(Serialize)]
    struct Summary<'a> {
        call_id: CallId,
        finish_reason: Option<&'a str>,
        usage: Option<openai::Usage>,
        metadata: Metadata<'a>,
        #[serde(flatten)]
        job: Option<EndedJob>,
    }
    #[derive(Serialize)]
    struct Metadata<'a> {
        tokens_used: Option<i64>,
        latency_ms: u128,
        model_group: &'a GroupName,
    }
    /// The job that was created for the call.
    #[derive(Serialize)]
    struct EndedJob {
        job_id: JobId,
        status: FinalStatus,
        completed_at: String,
        costs: Costs,
    }
    let job = settled.completion.map(|completion| {
        let CompletedJob { job_id, status, completed_at, costs, .. } = completion.completion;
        EndedJob { job_id, status, completed_at, costs }
    });
    data(&Summary {
        call_id: streamed.call_id,
        finish_reason: streamed.finish_reason.as_deref(),
        usage: openai::Usage::of(streamed.usage),
        metadata: Metadata {
            tokens_used: (!streamed.usage.implausible).then_some(streamed.usage.total_tokens),
            latency_ms: streamed.latency_ms,
            model_group: &streamed.model_group,
        },
        job,
    })
}

fn data(value: &impl Serialize) -> Option<Bytes> {
    let mut event = b"data: ".to_vec();
    serde_json::to_writer(&mut event, value).ok()?;
    // Members are passed on as they arrived. A line break can only stand between tokens there; it would end the event's
    // line, so a space replaces it.
    event.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
    event.extend_from_slice(b"\n\n");
    Some(event.into())
}
