//! The outcome of a call, as it is stored for retries of its request.

use super::{ActiveCall, with_ids};
use crate::{
    error::{Code, Error, Result},
    litellm::chat::{Completion, Usage},
    values::{CallId, GroupName, JobId},
};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

/// The outcome of a call.
#[derive(Clone, Serialize, Deserialize)]
pub enum Outcome {
    /// A model answered.
    Answered(Answered),
    /// No model answered.
    Failed(Failed),
    /// A model answered with a stream.
    Streamed(Streamed),
}

/// A buffered answer.
#[derive(Clone, Serialize, Deserialize)]
pub struct Answered {
    /// The call's job.
    pub job_id: JobId,
    /// The call's id.
    pub call_id: CallId,
    /// The model group that was called.
    pub model_group: GroupName,
    /// When the answer was made, in seconds since 1970 (UTC).
    pub created: u64,
    /// The members of the model's message that are passed on, as they arrived.
    pub message: BTreeMap<String, Box<RawValue>>,
    /// Why the model stopped.
    pub finish_reason: Option<String>,
    /// The tokens and the cost of the answer.
    pub usage: Usage,
    /// The time from the call's arrival to the end of the answer, in milliseconds.
    pub latency_ms: u128,
}

/// The members of a model's message that are passed on; others may name the model or its provider.
const MESSAGE: [&str; 8] = [
    "role",
    "content",
    "tool_calls",
    "function_call",
    "refusal",
    "annotations",
    "audio",
    "reasoning_content",
];

impl Answered {
    /// The outcome of a call that a model has answered.
    pub fn new(call: &ActiveCall, completion: Completion) -> Self {
        let message = completion.message.into_iter().filter(|(name, _)| MESSAGE.contains(&name.as_str()));
        Self {
            job_id: call.job_id,
            call_id: call.call_id,
            model_group: call.model_group.clone(),
            created: now(),
            message: message.collect(),
            finish_reason: completion.finish_reason,
            usage: completion.usage,
            latency_ms: call.latency().as_millis(),
        }
    }

    /// The model's message with `finish_reason`, as this API's own routes return it.
    pub fn response(&self) -> Result<BTreeMap<String, Box<RawValue>>> {
        let mut response = self.message.clone();
        response.insert("finish_reason".into(), to_raw_value(&self.finish_reason).map_err(Error::internal)?);
        Ok(response)
    }
}

/// A failure of a call.
#[derive(Clone, Serialize, Deserialize)]
pub struct Failed {
    job_id: JobId,
    call_id: CallId,
    code: Code,
    detail: String,
    retry_after: Option<String>,
}

impl Failed {
    /// The outcome of a call that ended with this error.
    pub fn new(call: &ActiveCall, error: &Error) -> Self {
        Self {
            job_id: call.job_id,
            call_id: call.call_id,
            code: error.code,
            detail: error.detail.clone(),
            retry_after: error.retry_after.clone(),
        }
    }
}

/// A streamed answer.
#[derive(Clone, Serialize, Deserialize)]
pub struct Streamed {
    /// The call's job.
    pub job_id: JobId,
    /// The call's id.
    pub call_id: CallId,
    /// The model group that was called.
    pub model_group: GroupName,
    /// When the answer began, in seconds since 1970 (UTC).
    pub created: u64,
    /// The events of its chunks, as they were sent. Collected only if they are stored for retries of the request.
    pub events: String,
    /// The text of the answer. Collected only if messages are stored.
    pub content: String,
    /// Why the model stopped.
    pub finish_reason: Option<String>,
    /// The tokens and the cost of the answer.
    pub usage: Usage,
    /// The time from the call's arrival to the end of the answer, in milliseconds.
    pub latency_ms: u128,
}

impl Outcome {
    /// The response to the caller of a call that failed.
    pub fn failure(self) -> Response {
        let Outcome::Failed(Failed { job_id, call_id, code, detail, retry_after }) = self else {
            return Error::internal("an outcome of another kind").into_response();
        };
        let error = Error::from_parts(code, detail, retry_after);
        with_ids(error.into_response(), job_id, call_id)
    }
}

/// The current time in seconds since 1970 (UTC).
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
