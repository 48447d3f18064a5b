//! One LLM call: what the components that make calls have in common.
//!
//! A call takes two statements with the model's work in between: [`begin`] checks everything and records the call,
//! [`ActiveCall::settle`] writes how it ended and what it used. No connection is held in between. The group's models
//! are tried in order ([`ActiveCall::first_answer`]); the attempts are stored with the call.
//!
//! A call is made in an existing job, or in a job of its own ([`Place`]), which the first statement creates and the
//! second ends. With an `Idempotency-Key` the second statement also stores the [`Outcome`], sealed, and the first
//! statement of a retry returns it.
//!
//! Uses all modules below it. The components that make calls use it: [`buffered`] and [`relay`] are the two ways to
//! make one.

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
    teams::{limits, sync},
    values::{CallId, GroupName, JobId, TeamId},
};
use active::Model;
use axum::{http::HeaderValue, response::Response};
use serde::Deserialize;
use std::time::{Duration, Instant};

/// The maximum number of models in a group. Together with the time limit of each, their number bounds the duration of a
/// call.
pub const MAX_MODELS: usize = 16;

/// The job in which a call is made.
pub enum Place<'a> {
    /// An existing job.
    Job(JobId),
    /// A job that is created for the call.
    NewJob(&'a NewJob),
}

/// A request for a call after its first statement.
pub enum Begun {
    /// The call is to be made.
    Call(Box<ActiveCall>),
    /// The call was made before, under the same `Idempotency-Key`.
    Repeat(Box<(Outcome, Settled)>),
}

/// The answer of `begin_call` and `begin_job_with_call`.
#[derive(Deserialize)]
struct BegunCall {
    job_id: JobId,
    call_id: CallId,
    team_id: TeamId,
    model_group: GroupName,
    models: Vec<Model>,
    litellm: Option<DesiredTeam>,
}

/// The maximum time that the parts of a call may take.
#[derive(Clone, Copy)]
struct Times {
    /// Until a model answers, or begins to.
    model: Duration,
    /// Between two events of a stream.
    idle: Duration,
    /// From the beginning of the answer until the call is settled. Of a stream, only the time of its model counts, and
    /// its reader may take as long once more.
    lifetime: Duration,
}

/// Checks and records a call. `lifetime` is the maximum time that an answer may take once it has begun. After that, and
/// the time that the group's models may take to begin, the call counts as abandoned.
pub async fn begin(
    key: &TeamKey,
    mutation: &Mutation,
    place: Place<'_>,
    request: &CallRequest<'_>,
    lifetime: Duration,
) -> Result<Begun> {
    let started = Instant::now();
    let messages = messages::Keeping::of(request).await?;
    let times = Times {
        model: Duration::from_secs(settings::parsed("llm_timeout_seconds").await?),
        idle: Duration::from_secs(settings::parsed("llm_idle_seconds").await?),
        lifetime,
    };
    let owns_job = matches!(place, Place::NewJob(_));
    let sees_costs = key.sees_costs().await?;
    // Repeatable: if the answer is lost and the statement is sent again, it finds the ids that are chosen here.
    let function = beginning(key, place, request, times).await?.repeatable();
    let begun: BegunCall = match mutation.begin(function).await? {
        Beginning::Repeat(settled, outcome) => {
            let outcome = serde_json::from_slice(&outcome).map_err(Error::internal)?;
            return Ok(Begun::Repeat(Box::new((outcome, Settled::seen(settled, sees_costs)))));
        }
        Beginning::New(begun) => begun,
    };
    if let Some(pending) = begun.litellm
        && let Err(failure) = sync::team(pending).await
    {
        // With LiteLLM's current state the call may fail; the next call synchronizes again.
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
        times,
        attempts: vec![],
        upstream: Duration::ZERO,
        uncertain: false,
        refused: false,
        sees_costs,
        messages,
    })))
}

/// The function that checks and records the call.
async fn beginning(
    key: &TeamKey,
    place: Place<'_>,
    request: &CallRequest<'_>,
    times: Times,
) -> Result<Function> {
    let seconds = |time: Duration| i32::try_from(time.as_secs()).unwrap_or(i32::MAX);
    let answer = if request.streamed { times.lifetime.saturating_mul(2) } else { times.lifetime };
    let (deadline, model) = (seconds(answer), seconds(times.model));
    let defaults = limits::defaults().await?;
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
            p_limits: defaults,
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
            p_limits: defaults,
        )),
    })
}

/// The response with headers for the ids of the call and its job.
pub fn with_ids(mut response: Response, job_id: JobId, call_id: CallId) -> Response {
    for (name, id) in [(JOB_ID, job_id.to_string()), (CALL_ID, call_id.to_string())] {
        if let Ok(value) = HeaderValue::from_str(&id) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}
