//! One LLM call: what the components that make calls have in common.
//!
//! A call is two statements with the model's work in between: [`begin`] checks everything and records it, [`ActiveCall::settle`] writes
//! how it ended and what it used. No connection is held in between. The group's models are tried in order
//! ([`ActiveCall::first_answer`]); what was tried is kept with the call.
//!
//! A call is made in a job, or in one of its own ([`Place`]), which the first statement then creates and the second ends.
//! With an `Idempotency-Key` the second statement also keeps the [`Outcome`], sealed, and the first gives it back.
//!
//! Uses everything below. The components that make calls use it: [`buffered`] and [`relay`] are their two ways.

mod active;
pub mod buffered;
mod event;
mod messages;
mod outcome;
pub mod relay;
mod request;
mod schema;
mod settlement;

pub use active::{ActiveCall, End};
pub use event::Form;
pub use outcome::{Answered, Failed, Outcome, Streamed};
pub use request::{CallRequest, NewJob, Streaming, check_config};
pub use schema::{CallBody, NewJobBody};
pub use settlement::{Settled, Settlement};

use crate::{
    error::{Error, Result},
    function,
    http::{
        Mutation, TeamKey,
        api::CALL_ID,
        mutation::{Beginning, JOB_ID},
    },
    litellm::admin::DesiredTeam,
    platform::settings,
    store::Function,
    teams::sync,
    values::{CallId, GroupName, JobId, TeamId},
};
use active::Model;
use axum::{http::HeaderValue, response::Response};
use serde::Deserialize;
use std::time::{Duration, Instant};

/// The most models that a group may hold. With the time that each may take, their number bounds a call.
pub const MAX_MODELS: usize = 16;

/// Where a call is made.
pub enum Place<'a> {
    /// In a job that exists.
    Job(JobId),
    /// In a job of its own.
    NewJob(&'a NewJob),
}

/// A request for a call, once it is claimed.
pub enum Begun {
    /// It is to be made.
    Call(Box<ActiveCall>),
    /// It was made before, under the same `Idempotency-Key`.
    Repeat(Box<(Outcome, Settled)>),
}

/// The answer of `begin_call`.
#[derive(Deserialize)]
struct BegunCall {
    job_id: JobId,
    call_id: CallId,
    team_id: TeamId,
    model_group: GroupName,
    models: Vec<Model>,
    litellm: Option<DesiredTeam>,
}

/// How long a call may take.
#[derive(Clone, Copy)]
struct Limits {
    /// Until a model answers, or begins to.
    model: Duration,
    /// Between two events of a stream.
    idle: Duration,
    /// From the beginning of the answer to its end, and until that is written.
    lifetime: Duration,
}

/// Checks and records a call. `lifetime` is how long an answer may take once it has begun; after that and the time that the group's
/// models may take to begin, the call counts as abandoned.
pub async fn begin(
    key: &TeamKey,
    mutation: &Mutation,
    place: Place<'_>,
    request: &CallRequest<'_>,
    lifetime: Duration,
) -> Result<Begun> {
    let started = Instant::now();
    let messages = messages::Keeping::of(request).await?;
    let limits = Limits {
        model: Duration::from_secs(settings::parsed("llm_timeout_seconds").await?),
        idle: Duration::from_secs(settings::parsed("llm_idle_seconds").await?),
        lifetime,
    };
    let owns_job = matches!(place, Place::NewJob(_));
    // Sent again when its answer got lost, it finds the ids that are chosen here.
    let function = beginning(key, place, request, limits).await?.repeatable();
    let begun: BegunCall = match mutation.begin(function).await? {
        Beginning::Repeat(settled, outcome) => {
            let outcome = serde_json::from_slice(&outcome).map_err(Error::internal)?;
            return Ok(Begun::Repeat(Box::new((outcome, settled))));
        }
        Beginning::New(begun) => begun,
    };
    if let Some(pending) = begun.litellm
        && let Err(failure) = sync::team(pending).await
    {
        // By what LiteLLM knows now the call may fail; the next one tries again.
        failure.log("telling LiteLLM of a team before its call");
    }
    Ok(Begun::Call(Box::new(ActiveCall {
        job_id: begun.job_id,
        call_id: begun.call_id,
        model_group: begun.model_group,
        mutation: mutation.clone(),
        owns_job,
        team_id: begun.team_id,
        models: begun.models,
        started,
        limits,
        attempts: vec![],
        upstream: Duration::ZERO,
        uncertain: false,
        messages,
    })))
}

/// The function that checks and records the call.
async fn beginning(
    key: &TeamKey,
    place: Place<'_>,
    request: &CallRequest<'_>,
    limits: Limits,
) -> Result<Function> {
    let seconds = |time: Duration| i32::try_from(time.as_secs()).unwrap_or(i32::MAX);
    let (deadline, model) = (seconds(limits.lifetime), seconds(limits.model));
    Ok(match place {
        Place::Job(job_id) => function!(begin_call(
            p_actor: key.actor(),
            p_job_id: job_id,
            p_call_id: CallId::new_v7(),
            p_model_group: request.model_group.as_ref(),
            p_purpose: request.purpose.as_ref(),
            p_streamed: request.streamed,
            p_metadata: &request.call_metadata,
            p_deadline_seconds: deadline,
            p_model_seconds: model,
        )),
        Place::NewJob(job) => function!(begin_job_with_call(
            p_actor: key.actor(),
            p_team_id: job.team_id.as_ref(),
            p_user_id: job.user_id.as_ref(),
            p_job_type: &job.job_type,
            p_job_metadata: &job.metadata,
            p_lifetime_seconds: settings::parsed::<i32>("job_lifetime_seconds").await?,
            p_job_id: JobId::new_v7(),
            p_call_id: CallId::new_v7(),
            p_model_group: request.model_group.as_ref(),
            p_purpose: request.purpose.as_ref(),
            p_streamed: request.streamed,
            p_metadata: &request.call_metadata,
            p_deadline_seconds: deadline,
            p_model_seconds: model,
        )),
    })
}

/// The answer with the ids of the call and its job.
pub fn with_ids(mut response: Response, job_id: JobId, call_id: CallId) -> Response {
    for (name, id) in [(JOB_ID, job_id.to_string()), (CALL_ID, call_id.to_string())] {
        if let Ok(value) = HeaderValue::from_str(&id) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}
