//! The two routes for streamed calls.

use axum::response::Response;
use shared::{
    calls::{CallBody, CallRequest, Form, NewJobBody, Place, Streaming, relay::stream},
    error::Result,
    http::{Mutation, PathOf, RawBody, TeamKey},
    values::JobId,
};

/// Make a streamed call
///
/// Each event is `data: {json}`: a chunk in OpenAI's form, in which `model` is the name of the model group and the text
/// is also at top level as `content`. The last event but one is a summary with `call_id`, `finish_reason`, `usage` and
/// `metadata`; the last is `data: [DONE]`. A failure before the first event is an ordinary error response; a later one
/// is `event: error` with `{"error": {"code", "detail"}}`, and no `[DONE]` follows.
#[utoipa::path(post, path = "/api/jobs/{job_id}/llm-call-stream", tag = "Calls", params(("job_id" = Uuid, Path)),
    request_body = CallBody, responses((status = 200, body = String, content_type = "text/event-stream"),
        (status = 402, description = "`budget_exhausted`"), (status = 409, description = "`job_finished`"),
        (status = 403, description = "`model_group_denied`, `job_limit`"),
        (status = 429, description = "`rate_limited`, `too_many_calls`"),
        (status = 502, description = "`llm_failed`"),
        (status = 504, description = "`llm_timeout`")))]
pub async fn llm_call_stream(
    key: TeamKey,
    mutation: Mutation,
    PathOf(job_id): PathOf<JobId>,
    RawBody(body): RawBody,
) -> Result<Response> {
    let request = CallRequest::parse(&body, Streaming::Always)?;
    stream(&key, &mutation, Place::Job(job_id), &request, Form::Own).await
}

/// Create a job, make its streamed call and complete it
///
/// The summary at the end also has the job's `job_id`, `status`, `completed_at` and `costs`. If the call fails, the job
/// fails too, and no credits are deducted. If the caller closes the connection before the end, the job is completed and
/// charged, since the caller has received part of the answer.
#[utoipa::path(post, path = "/api/jobs/create-and-call-stream", tag = "Calls", request_body = NewJobBody,
    responses((status = 200, body = String, content_type = "text/event-stream"),
        (status = 402, description = "`insufficient_credits`, `budget_exhausted`"),
        (status = 403, description = "`model_group_denied`, `job_limit`"),
        (status = 429, description = "`rate_limited`, `too_many_calls`"),
        (status = 502, description = "`llm_failed`"),
        (status = 504, description = "`llm_timeout`")))]
pub async fn create_and_call_stream(
    key: TeamKey,
    mutation: Mutation,
    RawBody(body): RawBody,
) -> Result<Response> {
    let (job, request) = CallRequest::parse_with_job(&body, Streaming::Always)?;
    stream(&key, &mutation, Place::NewJob(&job), &request, Form::Own).await
}
