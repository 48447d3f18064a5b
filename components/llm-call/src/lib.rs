//! One buffered LLM call inside a job.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use shared::{
    api::{Api, PathJob},
    auth::{Access, TeamKey},
    call::{self, CallRequest, End},
    error::{Error, Result},
    input::RawBody,
    litellm::chat::{Completion, Usage},
};
use spin_sdk::{http::Request, http_service};
use std::{collections::BTreeMap, sync::LazyLock, time::Duration};
use uuid::Uuid;

static API: LazyLock<Api> =
    LazyLock::new(|| Api::new().post("/api/jobs/{job_id}/llm-call", Access::Team, llm_call));

#[http_service]
async fn handle(request: Request) -> impl spin_sdk::http::IntoResponse {
    API.answer(request).await
}

/// The model's answer, and what the caller may know about how it came to be.
#[derive(Serialize)]
struct Answer {
    call_id: Uuid,
    response: BTreeMap<String, Box<RawValue>>,
    metadata: CallMetadata,
}

#[derive(Serialize)]
struct CallMetadata {
    tokens_used: i64,
    latency_ms: u128,
    model_group: String,
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

/// How long an answer may take to arrive once it has begun.
const LIFETIME: Duration = Duration::from_secs(60);

/// `POST /api/jobs/{job_id}/llm-call`
///
/// The handler runs to its end although the caller leaves, so the call is settled all the same.
async fn llm_call(key: TeamKey, PathJob(job_id): PathJob, RawBody(body): RawBody) -> Result<Response> {
    let request = CallRequest::parse(&body, false)?;
    let mut call = call::open(&key, job_id, &request, false, LIFETIME).await?;
    let answer =
        call.first_answer(&key, &request, false, async |attempt, body| attempt.complete(body).await).await;
    let Completion { message, finish_reason, usage } = match answer {
        Ok(completion) => completion,
        Err(failure) => {
            call.settle(End::Failed, &Usage::NONE, Some(&failure)).await?;
            return Ok(call.with_headers(failure.into_response()));
        }
    };
    call.settle(End::Succeeded, &usage, None).await?;
    let mut response: BTreeMap<_, _> =
        message.into_iter().filter(|(name, _)| MESSAGE.contains(&name.as_str())).collect();
    response.insert("finish_reason".into(), to_raw_value(&finish_reason).map_err(Error::internal)?);
    let metadata = CallMetadata {
        tokens_used: usage.total_tokens,
        latency_ms: call.latency().as_millis(),
        model_group: call.model_group.clone(),
    };
    Ok(call.with_headers(Json(Answer { call_id: call.call_id, response, metadata }).into_response()))
}
