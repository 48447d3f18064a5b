//! Reading jobs.

use axum::Json;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use shared::{
    api::{PathJob, PathSlug},
    auth::Principal,
    database::{self, optional_text, text, uuid},
    error::{Error, Result},
    input::{Label, Page, Query, Slug},
    job::Sums,
    money::Usd,
};
use spin_sdk::pg::ParameterValue;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// A job as SQL tells it.
#[derive(Deserialize)]
struct Row {
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
    sums: Sums,
    credit_applied: bool,
}

/// A job with the sums over its calls.
#[derive(Serialize, ToSchema)]
pub struct Job {
    job_id: String,
    team_id: String,
    user_id: Option<String>,
    job_type: String,
    /// `pending`, `in_progress`, `completed`, `failed`, `cancelled` or `expired`.
    status: String,
    #[schema(value_type = Object)]
    metadata: Box<RawValue>,
    error_message: Option<String>,
    created_at: String,
    started_at: Option<String>,
    completed_at: Option<String>,
    expires_at: String,
    #[serde(flatten)]
    sums: Sums,
    credit_applied: bool,
}

impl From<Row> for Job {
    fn from(row: Row) -> Self {
        Self {
            job_id: row.job_id,
            team_id: row.team_id,
            user_id: row.user_id,
            job_type: row.job_type,
            status: row.status,
            metadata: row.metadata,
            error_message: row.error_message,
            created_at: row.created_at,
            started_at: row.started_at,
            completed_at: row.completed_at,
            expires_at: row.expires_at,
            sums: row.sums,
            credit_applied: row.credit_applied,
        }
    }
}

/// A call of a job.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Call {
    call_id: String,
    purpose: Option<String>,
    model_group: String,
    /// `open`, `succeeded`, `failed`, `cancelled` or `abandoned`.
    status: String,
    streamed: bool,
    tokens: i64,
    prompt_tokens: i64,
    completion_tokens: i64,
    /// `null`: not known, or not yet.
    cost_usd: Option<Usd>,
    latency_ms: Option<i64>,
    error: Option<String>,
    #[schema(value_type = Object)]
    metadata: Box<RawValue>,
    created_at: String,
    /// The models that were tried; for the admin only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Object>>)]
    attempts: Option<Box<RawValue>>,
    /// The request's messages, where the deployment keeps them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Object>>)]
    messages: Option<Box<RawValue>>,
    /// The model's message, where the deployment keeps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    response: Option<Box<RawValue>>,
}

/// A job with its calls.
#[derive(Serialize, ToSchema)]
pub struct JobWithCalls {
    #[serde(flatten)]
    job: Job,
    calls: Vec<Call>,
}

/// Read a job
///
/// With its calls.
#[utoipa::path(get, path = "/api/jobs/{job_id}", tag = "Jobs", params(("job_id" = Uuid, Path)),
    responses((status = 200, body = JobWithCalls)))]
pub async fn get(principal: Principal, PathJob(job_id): PathJob) -> Result<Json<JobWithCalls>> {
    #[derive(Deserialize)]
    struct Answer {
        job: Row,
        calls: Vec<Call>,
    }
    let parameters = vec![uuid(job_id), optional_text(principal.team_id())];
    let Answer { job, calls } = database::call("SELECT get_job($1, $2)::text AS answer", parameters).await?;
    Ok(Json(JobWithCalls { job: job.into(), calls }))
}

/// What a job cost, and each of its calls.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct JobCosts {
    job_id: String,
    team_id: String,
    job_type: String,
    status: String,
    costs: Sums,
    credit_applied: bool,
    breakdown: Vec<CallCost>,
}

/// What a call cost.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct CallCost {
    call_id: String,
    purpose: Option<String>,
    model_group: String,
    prompt_tokens: i64,
    completion_tokens: i64,
    /// `null`: not known, or not yet.
    cost_usd: Option<Usd>,
    created_at: String,
}

/// Read a job's costs
#[utoipa::path(get, path = "/api/jobs/{job_id}/costs", tag = "Jobs", params(("job_id" = Uuid, Path)),
    responses((status = 200, body = JobCosts)))]
pub async fn costs(principal: Principal, PathJob(job_id): PathJob) -> Result<Json<JobCosts>> {
    let parameters = vec![uuid(job_id), optional_text(principal.team_id())];
    database::call("SELECT get_job_costs($1, $2)::text AS answer", parameters).await.map(Json)
}

/// Which jobs are asked for.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct JobFilter {
    /// At most this many.
    #[serde(default = "Page::default_limit", deserialize_with = "Page::limit")]
    #[param(minimum = 1, maximum = 1000, default = 50, required = false)]
    limit: i64,
    /// Starting after this many. Not beside `cursor`.
    #[serde(default, deserialize_with = "Page::optional_offset")]
    #[param(value_type = Option<i64>, minimum = 0, maximum = 1_000_000_000_000_i64)]
    offset: Option<i64>,
    /// The `next_cursor` of the page before.
    cursor: Option<Uuid>,
    /// In any case.
    #[param(value_type = Option<String>, pattern = "^(pending|in_progress|completed|failed|cancelled|expired)$")]
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
#[derive(Serialize, ToSchema)]
pub struct Jobs {
    team_id: String,
    /// All that the filter lets pass.
    total: i64,
    jobs: Vec<Job>,
    /// The `cursor` for the next page; `null` on the last.
    next_cursor: Option<Uuid>,
}

/// List a team's jobs
#[utoipa::path(get, path = "/api/teams/{team_id}/jobs", tag = "Jobs", params(("team_id" = Slug, Path), JobFilter),
    responses((status = 200, body = Jobs)))]
pub async fn list(
    principal: Principal,
    PathSlug(team_id): PathSlug,
    Query(filter): Query<JobFilter>,
) -> Result<Json<Jobs>> {
    #[derive(Deserialize)]
    struct Answer {
        team_id: String,
        total: i64,
        next: Option<Uuid>,
        jobs: Vec<Row>,
    }
    principal.may_see(team_id.as_str())?;
    if filter.cursor.is_some() && filter.offset.is_some() {
        return Err(Error::invalid("cursor", "given beside offset; expected one of them"));
    }
    let parameters = vec![
        text(team_id),
        optional_text(filter.status.map(|status| status.0)),
        optional_text(filter.job_type),
        optional_text(filter.user_id),
        ParameterValue::Int64(filter.limit),
        ParameterValue::Int64(filter.offset.unwrap_or_default()),
        filter.cursor.map_or(ParameterValue::DbNull, uuid),
    ];
    let statement = "SELECT list_jobs($1, $2, $3, $4, $5, $6, $7)::text AS answer";
    let Answer { team_id, total, next, jobs } = database::call(statement, parameters).await?;
    Ok(Json(Jobs { team_id, total, jobs: jobs.into_iter().map(Job::from).collect(), next_cursor: next }))
}
