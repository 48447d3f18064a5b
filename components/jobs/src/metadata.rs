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
    job_id: JobId,
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
    caller: Caller,
    mutation: Mutation,
    PathOf(job_id): PathOf<JobId>,
    Body(body): Body<MergeMetadata>,
) -> Result<Json<JobMetadata>> {
    let function =
        function!(merge_job_metadata(p_actor: caller.actor(), p_job_id: job_id, p_metadata: body.metadata));
    mutation.run(function).await.map(Json)
}
