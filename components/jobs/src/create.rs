//! Creating a job.

use axum::Json;
use serde::{Deserialize, Serialize};
use shared::{
    error::Result,
    function,
    http::{Body, Caller, Mutation},
    platform::settings,
    teams::limits,
    values::{JobId, JobStatus, Label, Metadata, TeamId, Whole},
};
use utoipa::ToSchema;

/// A job to create.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"team_id": "acme-engineering", "job_type": "resume_analysis", "user_id": "jane@acme.com"}))]
pub struct CreateJob {
    /// The team that pays for the job; for a virtual key, its own team.
    team_id: TeamId,
    /// The user for whom the job is done, as the caller knows them.
    user_id: Option<Label>,
    /// The kind of job, by which usage reports are grouped.
    job_type: Label,
    /// The caller's own data about the job.
    #[serde(default)]
    metadata: Metadata,
    /// Seconds until the job expires: 1 to 2,592,000 (30 days). Without it, the deployment's variable
    /// `job_lifetime_seconds` applies.
    expires_in_seconds: Option<Whole<1, 2_592_000>>,
}

/// A new job. It holds one credit until it ends or expires.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct CreatedJob {
    /// The job's id.
    job_id: JobId,
    /// `pending`; for a repeated request, the job's current status.
    status: JobStatus,
    /// When the job was created (RFC 3339, UTC).
    created_at: String,
    /// When the job expires if it has not ended before (RFC 3339, UTC).
    expires_at: String,
}

/// Create a job
///
/// The job holds one credit of the team until it ends or expires.
#[utoipa::path(post, path = "/api/jobs/create", tag = "Jobs", request_body = CreateJob,
    responses((status = 200, body = CreatedJob), (status = 402, description = "`insufficient_credits`"),
        (status = 404, description = "`not_found`"),
        (status = 429, description = "`too_many_calls`")))]
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
        p_limits: limits::defaults().await?,
    ));
    mutation.run_repeatable(function).await.map(Json)
}
