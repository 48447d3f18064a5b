//! What a call came to, as it is kept for repeats of its request.

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

/// What a call came to.
#[derive(Clone, Serialize, Deserialize)]
pub enum Outcome {
    /// A model answered.
    Answered(Answered),
    /// None did.
    Failed(Failed),
    /// A model answered, event by event.
    Streamed(Streamed),
}

/// A buffered answer.
#[derive(Clone, Serialize, Deserialize)]
pub struct Answered {
    /// The call's job.
    pub job_id: JobId,
    /// The call.
    pub call_id: CallId,
    /// The group that answered.
    pub model_group: GroupName,
    /// When, in seconds since 1970.
    pub created: u64,
    /// The members of the model's message that are passed on, as they came.
    pub message: BTreeMap<String, Box<RawValue>>,
    /// Why the model stopped.
    pub finish_reason: Option<String>,
    /// What it used.
    pub usage: Usage,
    /// How long it took.
    pub latency_ms: u128,
}

/// The members of a model's message that are passed on; the others may name the model or its provider.
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
    /// Of a model's answer.
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

    /// The model's message with `finish_reason`, as this API's own routes answer it.
    pub fn response(&self) -> Result<BTreeMap<String, Box<RawValue>>> {
        let mut response = self.message.clone();
        response.insert("finish_reason".into(), to_raw_value(&self.finish_reason).map_err(Error::internal)?);
        Ok(response)
    }
}

/// A failure.
#[derive(Clone, Serialize, Deserialize)]
pub struct Failed {
    job_id: JobId,
    call_id: CallId,
    code: Code,
    detail: String,
    retry_after: Option<String>,
}

impl Failed {
    /// Of what the caller is told.
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
    /// The call.
    pub call_id: CallId,
    /// The group that answered.
    pub model_group: GroupName,
    /// When, in seconds since 1970.
    pub created: u64,
    /// The events with its pieces, as they were sent. Collected only for repeats of the request.
    pub events: String,
    /// Its text. Collected only where it is kept.
    pub content: String,
    /// Why the model stopped.
    pub finish_reason: Option<String>,
    /// What it used.
    pub usage: Usage,
    /// How long it took.
    pub latency_ms: u128,
}

impl Outcome {
    /// The answer to a caller whose call failed.
    pub fn failure(self) -> Response {
        let Outcome::Failed(Failed { job_id, call_id, code, detail, retry_after }) = self else {
            return Error::internal("an outcome of another kind").into_response();
        };
        let error = Error::from_parts(code, detail, retry_after);
        with_ids(error.into_response(), job_id, call_id)
    }
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
