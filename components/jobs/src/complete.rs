//! Ending a job.

use axum::Json;
use serde::{Deserialize, Serialize};
use shared::{
    api::PathJob,
    auth::Principal,
    database::{self, optional_text, text, uuid},
    error::Result,
    input::{Body, Metadata, Prose},
    money::Usd,
};

/// How the job ended.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompleteJob {
    status: FinalStatus,
    #[serde(default)]
    metadata: Metadata,
    #[serde(default, deserialize_with = "Prose::unless_blank")]
    error_message: Option<Prose>,
}

/// `completed`, `failed` or `cancelled`.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct FinalStatus(String);

impl TryFrom<String> for FinalStatus {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.as_str() {
            "completed" | "failed" | "cancelled" => Ok(Self(text)),
            _ => Err("expected one of completed, failed, cancelled"),
        }
    }
}

/// What ending a job answers. Kept with the job, so that the same request again gets the same.
#[derive(Serialize, Deserialize)]
pub struct CompletedJob {
    job_id: String,
    status: String,
    completed_at: String,
    costs: Costs,
    calls: Vec<Call>,
}

/// The sums over a job's calls, and what it cost in credits.
#[derive(Serialize, Deserialize)]
struct Costs {
    total_calls: i64,
    successful_calls: i64,
    failed_calls: i64,
    total_tokens: i64,
    /// The sum of what is known; `null` when nothing is.
    total_cost_usd: Option<Usd>,
    /// Calls whose cost is not known, or not yet.
    unpriced_calls: i64,
    avg_latency_ms: i64,
    credit_applied: bool,
    credits_remaining: i64,
}

/// A call as ending its job shows it.
#[derive(Serialize, Deserialize)]
struct Call {
    call_id: String,
    purpose: Option<String>,
    model_group: String,
    tokens: i64,
    latency_ms: Option<i64>,
    error: Option<String>,
}

/// `POST /api/jobs/{job_id}/complete`
pub async fn complete(
    principal: Principal,
    PathJob(job_id): PathJob,
    Body(end): Body<CompleteJob>,
) -> Result<Json<CompletedJob>> {
    let FinalStatus(status) = end.status;
    let parameters = vec![
        principal.key_id(),
        uuid(job_id),
        text(status),
        text(end.metadata),
        optional_text(end.error_message),
    ];
    database::call("SELECT complete_job($1, $2, $3, $4::text::json, $5)::text AS answer", parameters)
        .await
        .map(Json)
}
