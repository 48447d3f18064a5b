//! Ending a job.

use axum::Json;
use serde::Deserialize;
use shared::{
    alerts,
    api::PathJob,
    auth::Principal,
    change,
    change::Change,
    database::{optional_text, text, uuid},
    error::Result,
    input::{Body, Metadata, Prose},
    job::{CompletedJob, Completion},
};
use utoipa::ToSchema;

/// How the job ended.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"status": "completed", "metadata": {"pages": 12}}))]
pub struct CompleteJob {
    status: FinalStatus,
    /// Added to the job's.
    #[serde(default)]
    metadata: Metadata,
    #[serde(default, deserialize_with = "Prose::unless_blank")]
    #[schema(value_type = Option<String>)]
    error_message: Option<Prose>,
}

/// How a job can end.
#[derive(Deserialize, Clone, Copy, ToSchema)]
#[serde(try_from = "String", rename_all = "lowercase")]
enum FinalStatus {
    Completed,
    Failed,
    Cancelled,
}

impl FinalStatus {
    fn word(self) -> &'static str {
        match self {
            FinalStatus::Completed => "completed",
            FinalStatus::Failed => "failed",
            FinalStatus::Cancelled => "cancelled",
        }
    }
}

impl TryFrom<String> for FinalStatus {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let all = [FinalStatus::Completed, FinalStatus::Failed, FinalStatus::Cancelled];
        all.into_iter()
            .find(|status| status.word() == text)
            .ok_or("expected one of completed, failed, cancelled")
    }
}

/// Complete a job
///
/// Credits are deducted when the status is `completed`, no call failed, and none were deducted for it before. Calls that are still open
/// count as cancelled. The same request again gets the same answer.
#[utoipa::path(post, path = "/api/jobs/{job_id}/complete", tag = "Jobs", params(("job_id" = Uuid, Path)),
    request_body = CompleteJob,
    responses((status = 200, body = CompletedJob), (status = 409, description = "`job_finished`")))]
pub async fn complete(
    principal: Principal,
    change: Change,
    PathJob(job_id): PathJob,
    Body(end): Body<CompleteJob>,
) -> Result<Json<CompletedJob>> {
    let parameters = vec![
        principal.key_id(),
        uuid(job_id),
        text(end.status.word()),
        text(end.metadata),
        optional_text(end.error_message),
    ];
    let Completion { completion, alerts } =
        change.insist(change!("complete_job($2, $3, $4, $5::text::json, $6)"), parameters).await?;
    if alerts {
        alerts::deliver();
    }
    Ok(Json(completion.into()))
}
