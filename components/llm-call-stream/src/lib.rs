//! One streamed LLM call inside a job.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod event;
mod relay;

use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use futures::{StreamExt, channel::mpsc};
use relay::Relay;
use shared::{
    api::{Api, PathJob},
    auth::{Access, TeamKey},
    call::{self, CallRequest, End},
    error::Result,
    input::RawBody,
    litellm::chat::Usage,
};
use spin_sdk::{http::Request, http_service, wasip3::spawn};
use std::{convert::Infallible, sync::LazyLock, time::Duration};

static API: LazyLock<Api> =
    LazyLock::new(|| Api::new().post("/api/jobs/{job_id}/llm-call-stream", Access::Team, llm_call_stream));

#[http_service]
async fn handle(request: Request) -> impl spin_sdk::http::IntoResponse {
    API.answer(request).await
}

/// How long a stream may take from its first event to its last.
const LIFETIME: Duration = Duration::from_secs(3600);

/// Events that may wait for a slow reader before the model is read no further.
const WAITING_EVENTS: usize = 16;

/// `POST /api/jobs/{job_id}/llm-call-stream`
///
/// Up to the first event a failure is an ordinary answer, and other models are tried. From then on a task of its own relays the
/// stream; it outlives the request, so the call is settled although the caller leaves.
async fn llm_call_stream(key: TeamKey, PathJob(job_id): PathJob, RawBody(body): RawBody) -> Result<Response> {
    let request = CallRequest::parse(&body, true)?;
    let mut call = call::open(&key, job_id, &request, true, LIFETIME).await?;
    let first =
        call.first_answer(&key, &request, true, async |attempt, body| attempt.stream(body).await).await;
    let events = match first {
        Ok(events) => events,
        Err(failure) => {
            call.settle(End::Failed, &Usage::NONE, Some(&failure)).await?;
            return Ok(call.with_headers(failure.into_response()));
        }
    };
    let (sender, receiver) = mpsc::channel(WAITING_EVENTS);
    let mut response =
        call.with_headers(Body::from_stream(receiver.map(Ok::<_, Infallible>)).into_response());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // nginx and its like would otherwise collect events before they pass them on.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    spawn(Relay::new(call, sender).run(events));
    Ok(response)
}
