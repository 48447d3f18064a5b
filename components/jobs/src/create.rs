//! Opening a job.

use axum::Json;
use serde::{Deserialize, Serialize};
use shared::{
    error::Result,
    function,
    http::{Body, Caller, Mutation},
    platform::settings,
    values::{JobId, JobStatus, Label, Metadata, TeamId, Whole},
};
use utoipa::ToSchema;

/// What a job is for.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"team_id": "acme-engineering", "job_type": "resume_analysis", "user_id": "jane@acme.com"}))]
pub struct CreateJob {
    /// The key's team.
    team_id: TeamId,
    user_id: Option<Label>,
    job_type: Label,
    #[serde(default)]
    metadata: Metadata,
    /// Up to 30 days; without it, what the variable `job_lifetime_seconds` says.
    expires_in_seconds: Option<Whole<1, 2_592_000>>,
}

/// A new job. It holds a credit until it ends or `expires_at` passes.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct CreatedJob {
    job_id: JobId,
    /// `pending`; of a repeat, what it is by now.
    status: JobStatus,
    created_at: String,
    expires_at: String,
}

/// Create a job
///
/// It holds one credit until it ends.
#[utoipa::path(post, path = "/api/jobs/create", tag = "Jobs", request_body = CreateJob,
    responses((status = 200, body = CreatedJob), (status = 402, description = "`insufficient_credits`"),
        (status = 404, description = "`not_found`")))]
pub async fn create(
    caller: Caller,
    mutation: Mutation,
    Body(new): Body<CreateJob>,
) -> Result<Json<CreatedJob>> {
    let lifetime = match new.expires_in_seconds {
        Some(seconds) => seconds.as_i32(),
        None => settings::parsed("job_lifetime_seconds").await?,
    };
    let function = function!(create_job(
        p_actor: caller.actor(),
        p_team_id: new.team_id,
        p_user_id: new.user_id,
        p_job_type: new.job_type,
        p_metadata: new.metadata,
        p_lifetime_seconds: lifetime,
        p_job_id: JobId::new_v7(),
    ));
    mutation.run_repeatable(function).await.map(Json)
}
