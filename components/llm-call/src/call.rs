//! The two routes for buffered calls.

use axum::{Json, response::Response};
use serde::Serialize;
use serde_json::value::RawValue;
use shared::{
    calls::{Answered, CallBody, CallRequest, NewJobBody, Place, Settled, Streaming, buffered::complete},
    error::Result,
    http::{Mutation, PathOf, RawBody, TeamKey},
    jobs::Costs,
    values::{CallId, GroupName, JobId, JobStatus},
};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// The model's answer to a call.
#[derive(Serialize, ToSchema)]
pub struct CallAnswer {
    /// The call's id.
    call_id: CallId,
    /// The model's message, with `finish_reason`.
    #[schema(value_type = Object, example = json!({"role": "assistant", "content": "Hello!", "finish_reason": "stop"}))]
    response: BTreeMap<String, Box<RawValue>>,
    /// Facts about the call.
    metadata: CallMetadata,
}

/// Facts about a call that its caller may know.
#[derive(Serialize, ToSchema)]
pub struct CallMetadata {
    /// The tokens of the prompt and the answer; `null`: the model said something that can't be true.
    tokens_used: Option<i64>,
    /// The time from the call's arrival to the end of the model's answer, in milliseconds.
    #[schema(value_type = i64)]
    latency_ms: u128,
    /// The model group that was called.
    model_group: GroupName,
}

fn metadata(answered: &Answered) -> CallMetadata {
    CallMetadata {
        tokens_used: (!answered.usage.implausible).then_some(answered.usage.total_tokens),
        latency_ms: answered.latency_ms,
        model_group: answered.model_group.clone(),
    }
}

/// Make a call
///
/// The models of the group are tried in order until one answers.
#[utoipa::path(post, path = "/api/jobs/{job_id}/llm-call", tag = "Calls", params(("job_id" = Uuid, Path)),
    request_body = CallBody, responses((status = 200, body = CallAnswer),
        (status = 402, description = "`budget_exhausted`"), (status = 409, description = "`job_finished`"),
        (status = 403, description = "`model_group_denied`, `job_limit`"),
        (status = 429, description = "`rate_limited`, `too_many_calls`"),
        (status = 502, description = "`llm_failed`"),
        (status = 504, description = "`llm_timeout`")))]
pub async fn llm_call(
    key: TeamKey,
    mutation: Mutation,
    PathOf(job_id): PathOf<JobId>,
    RawBody(body): RawBody,
) -> Result<Response> {
    let request = CallRequest::parse(&body, Streaming::Never)?;
    let form = |answered: Answered, _: Settled| {
        let metadata = metadata(&answered);
        Ok(Json(CallAnswer { call_id: answered.call_id, response: answered.response()?, metadata }))
    };
    complete(&key, &mutation, Place::Job(job_id), &request, form).await
}

/// The model's answer, and the job that the call was made in.
#[derive(Serialize, ToSchema)]
pub struct JobAnswer {
    /// The id of the job that was created for the call.
    job_id: JobId,
    /// The call's id.
    call_id: CallId,
    /// `completed`. It is `in_progress` if the database became unavailable before the end of the job could be written,
    /// which then happens in the background.
    status: JobStatus,
    /// When the job ended (RFC 3339, UTC); `null` while its status is `in_progress`.
    completed_at: Option<String>,
    /// The model's message, with `finish_reason`.
    #[schema(value_type = Object, example = json!({"role": "assistant", "content": "Hello!", "finish_reason": "stop"}))]
    response: BTreeMap<String, Box<RawValue>>,
    /// Facts about the call.
    metadata: CallMetadata,
    /// The cost of the job; `null` while its status is `in_progress`.
    costs: Option<Costs>,
}

/// Create a job, make its call and complete it
///
/// If the call fails, the job fails too, and no credits are deducted.
#[utoipa::path(post, path = "/api/jobs/create-and-call", tag = "Calls", request_body = NewJobBody,
    responses((status = 200, body = JobAnswer),
        (status = 402, description = "`insufficient_credits`, `budget_exhausted`"),
        (status = 403, description = "`model_group_denied`, `job_limit`"),
        (status = 429, description = "`rate_limited`, `too_many_calls`"),
        (status = 502, description = "`llm_failed`"),
        (status = 504, description = "`llm_timeout`")))]
pub async fn create_and_call(key: TeamKey, mutation: Mutation, RawBody(body): RawBody) -> Result<Response> {
    let (job, request) = CallRequest::parse_with_job(&body, Streaming::Never)?;
    let form = |answered: Answered, settled: Settled| {
        let (status, completed_at, costs) = match settled.completion.map(|completion| completion.completion) {
            Some(job) => (job.status.into(), Some(job.completed_at), Some(job.costs)),
            None => (JobStatus::InProgress, None, None),
        };
        Ok(Json(JobAnswer {
            job_id: answered.job_id,
            call_id: answered.call_id,
            status,
            completed_at,
            response: answered.response()?,
            metadata: metadata(&answered),
            costs,
        }))
    };
    complete(&key, &mutation, Place::NewJob(&job), &request, form).await
}
