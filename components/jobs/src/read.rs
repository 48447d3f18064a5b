//! Reading jobs.

use axum::Json;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use shared::{
    api::{PathJob, PathSlug},
    auth::Principal,
    database::{self, optional_text, text, uuid},
    error::Result,
    input::{Label, Page, Query},
    money::Usd,
};
use spin_sdk::pg::ParameterValue;

/// A job with the sums over its calls.
#[derive(Serialize, Deserialize)]
pub struct Job {
    job_id: String,
    team_id: String,
    user_id: Option<String>,
    job_type: String,
    status: String,
    metadata: Box<RawValue>,
    error_message: Option<String>,
    created_at: String,
    started_at: Option<String>,
    completed_at: Option<String>,
    expires_at: String,
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
}

/// A call of a job.
#[derive(Serialize, Deserialize)]
pub struct Call {
    call_id: String,
    purpose: Option<String>,
    model_group: String,
    status: String,
    streamed: bool,
    tokens: i64,
    prompt_tokens: i64,
    completion_tokens: i64,
    cost_usd: Option<Usd>,
    latency_ms: Option<i64>,
    error: Option<String>,
    metadata: Box<RawValue>,
    created_at: String,
    /// The models that were tried; for the admin only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    attempts: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Answer {
    job: Job,
    calls: Vec<Call>,
}

/// A job with its calls.
#[derive(Serialize)]
pub struct JobWithCalls {
    #[serde(flatten)]
    job: Job,
    calls: Vec<Call>,
}

/// `GET /api/jobs/{job_id}`
pub async fn get(principal: Principal, PathJob(job_id): PathJob) -> Result<Json<JobWithCalls>> {
    let parameters = vec![uuid(job_id), optional_text(principal.team_id())];
    let Answer { job, calls } = database::call("SELECT get_job($1, $2)::text AS answer", parameters).await?;
    Ok(Json(JobWithCalls { job, calls }))
}

/// Which jobs are asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobFilter {
    #[serde(default = "Page::default_limit", deserialize_with = "Page::limit")]
    limit: i64,
    #[serde(default, deserialize_with = "Page::offset")]
    offset: i64,
    status: Option<JobStatus>,
    job_type: Option<Label>,
    user_id: Option<Label>,
}

/// A job's status, in any case.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct JobStatus(String);

impl TryFrom<String> for JobStatus {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        const ALL: [&str; 6] = ["pending", "in_progress", "completed", "failed", "cancelled", "expired"];
        let status = text.to_ascii_lowercase();
        if ALL.contains(&status.as_str()) {
            Ok(Self(status))
        } else {
            Err(format!("expected one of {}", ALL.join(", ")))
        }
    }
}

/// A page of a team's jobs, newest first.
#[derive(Serialize, Deserialize)]
pub struct Jobs {
    team_id: String,
    total: i64,
    jobs: Vec<Job>,
}

/// `GET /api/teams/{team_id}/jobs`
pub async fn list(
    principal: Principal,
    PathSlug(team_id): PathSlug,
    Query(filter): Query<JobFilter>,
) -> Result<Json<Jobs>> {
    principal.may_see(team_id.as_str())?;
    let parameters = vec![
        text(team_id),
        optional_text(filter.status.map(|status| status.0)),
        optional_text(filter.job_type),
        optional_text(filter.user_id),
        ParameterValue::Int64(filter.limit),
        ParameterValue::Int64(filter.offset),
    ];
    database::call("SELECT list_jobs($1, $2, $3, $4, $5, $6)::text AS answer", parameters).await.map(Json)
}
