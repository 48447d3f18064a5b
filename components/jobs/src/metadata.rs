//! Adding to a job's metadata.

use axum::Json;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use shared::{
    error::Result,
    function,
    http::{Body, Caller, Mutation, PathOf},
    values::{JobId, Metadata},
};
use utoipa::ToSchema;

/// Metadata to merge into a job's.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"metadata": {"reviewed": true}}))]
pub struct MergeMetadata {
    /// The members to add or to replace.
    metadata: Metadata,
}

/// A job's metadata after the change.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct JobMetadata {
    /// The job.
    job_id: JobId,
    /// All of the job's metadata.
    #[schema(value_type = Object)]
    metadata: Box<RawValue>,
    /// When the metadata was changed (RFC 3339, UTC).
    updated_at: String,
}

/// Add to a job's metadata
///
/// Members of the same name are replaced; all others stay. This also works for jobs that have ended.
#[utoipa::path(patch, path = "/api/jobs/{job_id}/metadata", tag = "Jobs", params(("job_id" = Uuid, Path)),
    request_body = MergeMetadata, responses((status = 200, body = JobMetadata)))]
pub async fn merge(
    caller: Caller,
    mutation: Mutation,
    PathOf(job_id): PathOf<JobId>,
    Body(body): Body<MergeMetadata>,
) -> Result<Json<JobMetadata>> {
    let function =
        function!(merge_job_metadata(p_actor: caller.actor(), p_job_id: job_id, p_metadata: body.metadata));
    mutation.run(function).await.map(Json)
}
