//! Reading jobs.

use axum::Json;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::value::RawValue;
use shared::{
    error::{Error, Result},
    function,
    http::{Caller, PageLimit, PageOffset, PathOf, Query, VisibleTeam, default_limit},
    jobs::Sums,
    values::{CallId, CallStatus, GroupName, JobId, JobStatus, Label, TeamId, Usd},
};
use utoipa::{IntoParams, ToSchema};

/// A job with the sums over its calls.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Job {
    job_id: JobId,
    team_id: TeamId,
    user_id: Option<String>,
    job_type: String,
    status: JobStatus,
    #[schema(value_type = Object)]
    metadata: Box<RawValue>,
    error_message: Option<String>,
    created_at: String,
    started_at: Option<String>,
    completed_at: Option<String>,
    expires_at: String,
    total_calls: i64,
    /// Calls that a model answered.
    successful_calls: i64,
    /// Calls that no model answered.
    failed_calls: i64,
    /// Tokens of all prompts and answers.
    total_tokens: i64,
    /// What the calls cost in US dollars, as far as that is known; `null` when nothing is.
    total_cost_usd: Option<Usd>,
    /// Calls whose cost is not known, or not yet.
    unpriced_calls: i64,
    /// Milliseconds from a call's arrival to its answer's end, on average.
    avg_latency_ms: i64,
    credit_applied: bool,
}

/// A call of a job.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Call {
    call_id: CallId,
    purpose: Option<String>,
    model_group: GroupName,
    status: CallStatus,
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
pub async fn get(caller: Caller, PathOf(job_id): PathOf<JobId>) -> Result<Json<JobWithCalls>> {
    #[derive(Deserialize)]
    struct Answer {
        job: Job,
        calls: Vec<Call>,
    }
    let Answer { job, calls } = function!(get_job(p_actor: caller.reader(), p_job_id: job_id)).run().await?;
    Ok(Json(JobWithCalls { job, calls }))
}

/// What a job cost, and each of its calls.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct JobCosts {
    job_id: JobId,
    team_id: TeamId,
    job_type: String,
    status: JobStatus,
    costs: Sums,
    credit_applied: bool,
    breakdown: Vec<CallCost>,
}

/// What a call cost.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct CallCost {
    call_id: CallId,
    purpose: Option<String>,
    model_group: GroupName,
    prompt_tokens: i64,
    completion_tokens: i64,
    /// `null`: not known, or not yet.
    cost_usd: Option<Usd>,
    created_at: String,
}

/// Read a job's costs
#[utoipa::path(get, path = "/api/jobs/{job_id}/costs", tag = "Jobs", params(("job_id" = Uuid, Path)),
    responses((status = 200, body = JobCosts)))]
pub async fn costs(caller: Caller, PathOf(job_id): PathOf<JobId>) -> Result<Json<JobCosts>> {
    function!(get_job_costs(p_actor: caller.reader(), p_job_id: job_id)).run().await.map(Json)
}

/// Which jobs are asked for.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct JobFilter {
    /// At most this many jobs.
    #[serde(default = "default_limit", deserialize_with = "PageLimit::from_text")]
    #[param(value_type = i64, minimum = 1, maximum = 1000, default = 50, required = false)]
    limit: PageLimit,
    /// Starting after this many. Not beside `cursor`.
    #[serde(default, deserialize_with = "PageOffset::optional_from_text")]
    #[param(value_type = Option<i64>, minimum = 0, maximum = 1_000_000_000_000_i64)]
    offset: Option<PageOffset>,
    /// The `next_cursor` of the page before.
    cursor: Option<JobId>,
    /// A job's status, in capital letters or small ones.
    #[serde(default, deserialize_with = "status")]
    #[param(value_type = Option<String>, pattern = "^(pending|in_progress|completed|failed|cancelled|expired)$")]
    status: Option<JobStatus>,
    job_type: Option<Label>,
    user_id: Option<Label>,
}

fn status<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<JobStatus>, D::Error> {
    let word = String::deserialize(deserializer)?.to_ascii_lowercase();
    JobStatus::try_from(word).map(Some).map_err(D::Error::custom)
}

/// A page of a team's jobs, newest first.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Jobs {
    team_id: TeamId,
    /// How many jobs the filter lets pass, on all pages.
    total: i64,
    jobs: Vec<Job>,
    /// The `cursor` for the next page; `null` on the last.
    next_cursor: Option<JobId>,
}

/// List a team's jobs
#[utoipa::path(get, path = "/api/teams/{team_id}/jobs", tag = "Jobs", params(("team_id" = TeamId, Path), JobFilter),
    responses((status = 200, body = Jobs)))]
pub async fn list(VisibleTeam(team_id): VisibleTeam, Query(filter): Query<JobFilter>) -> Result<Json<Jobs>> {
    if filter.cursor.is_some() && filter.offset.is_some() {
        return Err(Error::invalid("cursor", "given beside offset; expected one of them"));
    }
    let function = function!(list_jobs(
        p_team_id: team_id,
        p_status: filter.status,
        p_job_type: filter.job_type,
        p_user_id: filter.user_id,
        p_limit: filter.limit,
        p_offset: filter.offset.map_or(0, PageOffset::get),
        p_before_job: filter.cursor,
    ));
    function.run().await.map(Json)
}
