//! Opening a job.

use axum::Json;
use serde::{Deserialize, Serialize};
use shared::{
    auth::Principal,
    change,
    change::Change,
    database::{optional_text, text, uuid},
    error::Result,
    input::{Body, Label, Metadata, Seconds, Slug},
    settings,
};
use spin_sdk::pg::ParameterValue;
use utoipa::ToSchema;
use uuid::Uuid;

/// What a job is for.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"team_id": "acme-engineering", "job_type": "resume_analysis", "user_id": "jane@acme.com"}))]
pub struct CreateJob {
    /// The key's team.
    team_id: Slug,
    user_id: Option<Label>,
    job_type: Label,
    #[serde(default)]
    metadata: Metadata,
    /// Up to 30 days; without it, what the variable `job_lifetime_seconds` says.
    expires_in_seconds: Option<Seconds<2_592_000>>,
}

/// A new job. It holds a credit until it ends or `expires_at` passes.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct CreatedJob {
    job_id: String,
    /// `pending`.
    status: String,
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
    principal: Principal,
    change: Change,
    Body(new): Body<CreateJob>,
) -> Result<Json<CreatedJob>> {
    let lifetime = match new.expires_in_seconds {
        Some(Seconds(seconds)) => seconds,
        None => settings::parsed("job_lifetime_seconds").await?,
    };
    let parameters = vec![
        principal.key_id(),
        text(new.team_id),
        optional_text(new.user_id),
        text(new.job_type),
        text(new.metadata),
        ParameterValue::Int32(lifetime),
        uuid(Uuid::now_v7()),
    ];
    change.insist(change!("create_job($2, $3, $4, $5, $6::text::json, $7, $8)"), parameters).await.map(Json)
}
