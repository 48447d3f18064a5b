//! `/v1/chat/completions`.

use axum::{Json, http::HeaderMap, response::Response};
use serde::Serialize;
use serde_json::value::RawValue;
use shared::{
    calls::{
        Answered, CallBody, CallRequest, Form, NewJob, Place, Streaming, buffered::complete, relay::stream,
    },
    error::{Code, Error, Result},
    http::{
        Mutation, RawBody, TeamKey,
        mutation::JOB_ID,
        openai::{ErrorBody, Usage, id},
    },
    values::{GroupName, JobId, Metadata},
};
use std::collections::BTreeMap;
use utoipa::ToSchema;
use uuid::Uuid;

/// The type of the job that is created for a call without `x-job-id`.
const JOB_TYPE: &str = "chat.completions";

/// A completion in OpenAI's form.
#[derive(Serialize, ToSchema)]
pub struct ChatCompletion {
    /// The completion's id: `chatcmpl-` and the call's id.
    id: String,
    /// Always `chat.completion`.
    object: &'static str,
    /// When the answer was made, in seconds since 1970 (UTC).
    created: u64,
    /// The model group that was called.
    model: GroupName,
    /// The answer, as the only element.
    choices: [ChatChoice; 1],
    /// The tokens of the prompt and the answer; `null`: the model said something that can't be true.
    usage: Option<Usage>,
}

/// The answer of a completion, which has exactly one.
#[derive(Serialize, ToSchema)]
pub struct ChatChoice {
    /// Always 0.
    index: u8,
    /// The model's message.
    #[schema(value_type = Object)]
    message: BTreeMap<String, Box<RawValue>>,
    /// Always `null`.
    #[schema(value_type = Option<Object>)]
    logprobs: Option<()>,
    /// Why the model stopped.
    finish_reason: Option<String>,
}

/// Create a chat completion
///
/// `model` is a model group; without it, the team's default is used. With `stream`, the answer is a stream of chunks.
/// The header `x-job-id` makes the call in an existing job; without it, a job is created for the call and charged like
/// any other.
#[utoipa::path(post, path = "/v1/chat/completions", tag = "OpenAI",
    params(("x-job-id" = Option<Uuid>, Header, description = "The job that the call belongs to.")),
    request_body = CallBody,
    responses(
        (status = 200, content((ChatCompletion = "application/json"), (String = "text/event-stream"))),
        (status = 402, body = ErrorBody<'static>, description = "`insufficient_credits`, `budget_exhausted`"),
        (status = 403, body = ErrorBody<'static>, description = "`model_group_denied`, `job_limit`"),
        (status = 404, body = ErrorBody<'static>, description = "`not_found`"),
        (status = 409, body = ErrorBody<'static>, description = "`job_finished`"),
        (status = 429, body = ErrorBody<'static>, description = "`rate_limited`, `too_many_calls`"),
        (status = 502, body = ErrorBody<'static>, description = "`llm_failed`"),
        (status = 504, body = ErrorBody<'static>, description = "`llm_timeout`")))]
pub async fn create(
    key: TeamKey,
    mutation: Mutation,
    headers: HeaderMap,
    RawBody(body): RawBody,
) -> Result<Response> {
    let request = CallRequest::parse(&body, Streaming::AsAsked)?;
    let own_job;
    let place = match headers.get(JOB_ID) {
        Some(job_id) => Place::Job(
            job_id
                .to_str()
                .ok()
                .and_then(|id| Uuid::try_parse(id).ok())
                .map(JobId)
                .ok_or_else(|| Error::new(Code::NotFound, "Job not found"))?,
        ),
        None => {
            let job_type = JOB_TYPE.to_owned().try_into().map_err(Error::internal)?;
            own_job = NewJob { team_id: None, user_id: None, job_type, metadata: Metadata::default() };
            Place::NewJob(&own_job)
        }
    };
    if request.streamed {
        let form = Form::OpenAi { include_usage: request.include_usage };
        return stream(&key, &mutation, place, &request, form).await;
    }
    complete(&key, &mutation, place, &request, |answered, _| Ok(Json(completion(answered)))).await
}

fn completion(answered: Answered) -> ChatCompletion {
    ChatCompletion {
        id: id(answered.call_id),
        object: "chat.completion",
        created: answered.created,
        model: answered.model_group,
        choices: [ChatChoice {
            index: 0,
            message: answered.message,
            logprobs: None,
            finish_reason: answered.finish_reason,
        }],
        usage: Usage::of(answered.usage),
    }
}
