//! Completing a job.

use axum::Json;
use serde::Deserialize;
use shared::{
    alerts,
    error::Result,
    function,
    http::{Body, Caller, Mutation, PathOf},
    jobs::{CompletedJob, Completion},
    values::{FinalStatus, JobId, Metadata, Prose},
};
use utoipa::ToSchema;

/// How the job ended.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"status": "completed", "metadata": {"pages": 12}}))]
pub struct CompleteJob {
    /// The job's final status.
    status: FinalStatus,
    /// The caller's own data, merged into the job's metadata: members of the same name are replaced.
    #[serde(default)]
    metadata: Metadata,
    /// What went wrong: 1 to 10,000 characters. Blank text counts as none.
    #[serde(default, deserialize_with = "Prose::unless_blank")]
    #[schema(value_type = Option<String>)]
    error_message: Option<Prose>,
}

/// Complete a job
///
/// Credits are deducted if the status is `completed`, no call of the job failed, and not all of its calls were
/// refused; by the team's `charge_when`, also if a call delivered output. Calls that are still open count as
/// cancelled. Sending the same request again gets the same answer, but with `credits_charged`, `credits_refunded` and
/// `charge_is_final` as of now: if the team is charged by consumption, costs that come late are deducted later.
#[utoipa::path(post, path = "/api/jobs/{job_id}/complete", tag = "Jobs", params(("job_id" = Uuid, Path)),
    request_body = CompleteJob,
    responses((status = 200, body = CompletedJob), (status = 409, description = "`job_finished`")))]
pub async fn complete(
    caller: Caller,
    mutation: Mutation,
    PathOf(job_id): PathOf<JobId>,
    Body(end): Body<CompleteJob>,
) -> Result<Json<CompletedJob>> {
    let function = function!(complete_job(
        p_actor: caller.actor(),
        p_job_id: job_id,
        p_status: end.status,
        p_metadata: end.metadata,
        p_error_message: end.error_message,
    ));
    let Completion { mut completion, alerts } = mutation.run_repeatable(function).await?;
    if !caller.sees_costs().await? {
        completion.costs.hide();
    }
    if alerts {
        alerts::deliver();
    }
    Ok(Json(completion))
}
