//! Opening a job.

use axum::Json;
use serde::{Deserialize, Serialize};
use shared::{
    auth::Principal,
    database::{self, optional_text, text},
    error::Result,
    input::{Body, Label, Metadata, Seconds, Slug},
    settings,
};
use spin_sdk::pg::ParameterValue;

/// What a job is for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateJob {
    team_id: Slug,
    user_id: Option<Label>,
    job_type: Label,
    #[serde(default)]
    metadata: Metadata,
    /// Up to 30 days.
    expires_in_seconds: Option<Seconds<2_592_000>>,
}

/// A new job. It holds a credit until it ends or `expires_at` passes.
#[derive(Serialize, Deserialize)]
pub struct CreatedJob {
    job_id: String,
    status: String,
    created_at: String,
    expires_at: String,
}

/// `POST /api/jobs/create`
pub async fn create(principal: Principal, Body(new): Body<CreateJob>) -> Result<Json<CreatedJob>> {
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
    ];
    database::call("SELECT create_job($1, $2, $3, $4, $5::text::json, $6)::text AS answer", parameters)
        .await
        .map(Json)
}
