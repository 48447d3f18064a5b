//! Adding to a job's metadata.

use axum::Json;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use shared::{
    api::PathJob,
    auth::Principal,
    change,
    change::Change,
    database::{text, uuid},
    error::Result,
    input::{Body, Metadata},
};
use utoipa::ToSchema;

/// What is added.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"metadata": {"reviewed": true}}))]
pub struct MergeMetadata {
    metadata: Metadata,
}

/// All of a job's metadata.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct JobMetadata {
    job_id: String,
    #[schema(value_type = Object)]
    metadata: Box<RawValue>,
    updated_at: String,
}

/// Add to a job's metadata
///
/// Members of the same name are replaced, others stay. Also for jobs that have ended.
#[utoipa::path(patch, path = "/api/jobs/{job_id}/metadata", tag = "Jobs", params(("job_id" = Uuid, Path)),
    request_body = MergeMetadata, responses((status = 200, body = JobMetadata)))]
pub async fn merge(
    principal: Principal,
    change: Change,
    PathJob(job_id): PathJob,
    Body(body): Body<MergeMetadata>,
) -> Result<Json<JobMetadata>> {
    let parameters = vec![principal.key_id(), uuid(job_id), text(body.metadata)];
    change.run(change!("merge_job_metadata($2, $3, $4::text::json)"), parameters).await.map(Json)
}
