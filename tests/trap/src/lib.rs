//! **Test-only**, no part of the application: a component that traps on demand, beside the product's components and on
//! top of the same `shared` crate. The black-box tests add it to `spin.toml` to see what a defect that panics would
//! leave behind.
//!
//! `POST /test/trap/{job_id}?when=…`, with a team's key and the body of a call:
//!
//! | `when` | what happens |
//! | --- | --- |
//! | `at-once` | panics |
//! | `opened` | records a call as open, then panics before it is settled |
//! | `waiting` | records a call as open and never answers: a neighbour for a request that panics in the same instance |
//! | `answering` | records a call as open, sends one event, then panics in the task that sends the others |

use axum::{
    body::{Body, Bytes},
    response::{IntoResponse, Response},
};
use futures::{SinkExt, StreamExt, channel::mpsc};
use serde::Deserialize;
use shared::{
    calls::{self, CallRequest, Place, Streaming},
    error::Result,
    http::{Api, Mutation, PathOf, Query, RawBody, TeamKey, access},
    values::JobId,
};
use spin_sdk::{http::Request, http_service, time::sleep, wasip3::spawn};
use std::{convert::Infallible, sync::LazyLock, time::Duration};

static API: LazyLock<Api> =
    LazyLock::new(|| Api::new().route::<__path_trap, _, _, access::Team>(trap).guarded());

#[http_service]
async fn handle(request: Request) -> impl spin_sdk::http::IntoResponse {
    API.answer(request).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    when: When,
}

#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum When {
    AtOnce,
    Opened,
    Waiting,
    Answering,
}

/// Longer than any test runs.
const NEVER: Duration = Duration::from_secs(3600);

/// Traps.
#[utoipa::path(post, path = "/test/trap/{job_id}")]
async fn trap(
    key: TeamKey,
    mutation: Mutation,
    PathOf(job_id): PathOf<JobId>,
    Query(Wish { when }): Query<Wish>,
    RawBody(body): RawBody,
) -> Result<Response> {
    assert!(when != When::AtOnce, "a trap on demand");
    let request = CallRequest::parse(&body, Streaming::Never)?;
    calls::begin(&key, &mutation, Place::Job(job_id), &request, Duration::from_secs(60)).await?;
    assert!(when != When::Opened, "a trap on demand, with an open call");
    if when == When::Waiting {
        sleep(NEVER).await;
    }
    let (mut sender, receiver) = mpsc::channel::<Bytes>(1);
    spawn(async move {
        _ = sender.send(Bytes::from_static(b"data: {}\n\n")).await;
        // So that the event is on its way before its sender is gone.
        sleep(Duration::from_millis(200)).await;
        panic!("a trap on demand, in the middle of an answer");
    });
    Ok(Body::from_stream(receiver.map(Ok::<_, Infallible>)).into_response())
}
