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
    /// The job's id.
    job_id: JobId,
    /// The team that pays for it.
    team_id: TeamId,
    /// The user for whom the job is done, as the caller knows them.
    user_id: Option<String>,
    /// The kind of job.
    job_type: String,
    /// Where the job stands.
    status: JobStatus,
    /// The caller's own data about the job.
    #[schema(value_type = Object)]
    metadata: Box<RawValue>,
    /// What went wrong, as the request that ended the job said it.
    error_message: Option<String>,
    /// When the job was created (RFC 3339, UTC).
    created_at: String,
    /// When the job's first call began (RFC 3339, UTC); `null`: it has had none.
    started_at: Option<String>,
    /// When the job ended (RFC 3339, UTC); `null`: it is open.
    completed_at: Option<String>,
    /// When the job expires if it has not ended before (RFC 3339, UTC).
    expires_at: String,
    /// The number of its calls.
    total_calls: i64,
    /// The number of calls that a model answered.
    successful_calls: i64,
    /// The number of calls that no model answered.
    failed_calls: i64,
    /// The number of calls that were refused because of what the caller sent or has used up.
    refused_calls: i64,
    /// The tokens of all prompts and answers.
    total_tokens: i64,
    /// The known cost of its calls in US dollars; `null`: no call's cost is known, or the team may not see it.
    total_cost_usd: Option<Usd>,
    /// The number of calls whose cost is not known, or not known yet.
    unpriced_calls: i64,
    /// The average latency of its calls, from a call's arrival to the end of its answer, in milliseconds.
    avg_latency_ms: i64,
    /// Whether credits were deducted for the job.
    credit_applied: bool,
    /// The number of credits that were deducted for the job so far.
    credits_charged: i64,
    /// The number of those credits that were refunded.
    credits_refunded: i64,
    /// Whether the job has ended and no cost can come late that changes what was deducted.
    charge_is_final: bool,
}

/// A call of a job.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Call {
    /// The call's id.
    call_id: CallId,
    /// The purpose that the caller gave.
    purpose: Option<String>,
    /// The model group that was called.
    model_group: GroupName,
    /// Where the call stands.
    status: CallStatus,
    /// Whether the answer was a stream.
    streamed: bool,
    /// The tokens of the prompt and the answer.
    tokens: i64,
    /// The tokens of the prompt.
    prompt_tokens: i64,
    /// The tokens of the answer.
    completion_tokens: i64,
    /// The cost in US dollars; `null`: not known, or not known yet, or the team may not see it.
    cost_usd: Option<Usd>,
    /// Whether the model said of its tokens or cost what can't be true; they count as unknown then.
    implausible_usage: bool,
    /// The time from the call's arrival to the end of its answer, in milliseconds; `null`: it has not ended.
    latency_ms: Option<i64>,
    /// The error that the caller received; `null`: none.
    error: Option<String>,
    /// The caller's own data about the call.
    #[schema(value_type = Object)]
    metadata: Box<RawValue>,
    /// When the call began (RFC 3339, UTC).
    created_at: String,
    /// The models that were tried, in order. Only the admin sees them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Object>>)]
    attempts: Option<Box<RawValue>>,
    /// The messages of the request, if the deployment stores them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Object>>)]
    messages: Option<Box<RawValue>>,
    /// The model's message, if the deployment stores it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    response: Option<Box<RawValue>>,
}

/// A job with its calls.
#[derive(Serialize, ToSchema)]
pub struct JobWithCalls {
    #[serde(flatten)]
    job: Job,
    /// The job's newest 100 calls, oldest first.
    calls: Vec<Call>,
    /// Whether the job has more calls: `GET /api/jobs/{job_id}/calls` goes on with the first `call_id` as its `cursor`.
    more_calls: bool,
}

/// Read a job
///
/// The answer includes the job's newest 100 calls.
#[utoipa::path(get, path = "/api/jobs/{job_id}", tag = "Jobs", params(("job_id" = Uuid, Path)),
    responses((status = 200, body = JobWithCalls)))]
pub async fn get(caller: Caller, PathOf(job_id): PathOf<JobId>) -> Result<Json<JobWithCalls>> {
    #[derive(Deserialize)]
    struct Answer {
        job: Job,
        calls: Vec<Call>,
        more_calls: bool,
    }
    let Answer { mut job, mut calls, more_calls } =
        function!(get_job(p_actor: caller.reader(), p_job_id: job_id)).run().await?;
    if !caller.sees_costs().await? {
        job.total_cost_usd = None;
        calls.iter_mut().for_each(|call| call.cost_usd = None);
    }
    Ok(Json(JobWithCalls { job, calls, more_calls }))
}

/// Which calls of a job are asked for.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct CallPage {
    /// The maximum number of calls on the page.
    #[serde(default = "default_limit", deserialize_with = "PageLimit::from_text")]
    #[param(value_type = i64, minimum = 1, maximum = 1000, default = 50, required = false)]
    limit: PageLimit,
    /// The `next_cursor` of the page before: only calls that began before that one.
    cursor: Option<CallId>,
}

/// A page of a job's calls, newest first.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Calls {
    /// The job.
    job_id: JobId,
    /// The number of calls on all pages.
    total: i64,
    /// The calls of this page, newest first.
    calls: Vec<Call>,
    /// The `cursor` of the next page; `null` on the last page.
    next_cursor: Option<CallId>,
}

/// List a job's calls
///
/// Calls are sorted newest first.
#[utoipa::path(get, path = "/api/jobs/{job_id}/calls", tag = "Jobs", params(("job_id" = Uuid, Path), CallPage),
    responses((status = 200, body = Calls)))]
pub async fn calls(
    caller: Caller,
    PathOf(job_id): PathOf<JobId>,
    Query(page): Query<CallPage>,
) -> Result<Json<Calls>> {
    let function = function!(list_calls(
        p_job_id: job_id,
        p_actor: caller.reader(),
        p_limit: page.limit,
        p_before_call: page.cursor,
    ));
    let mut page: Calls = function.run().await?;
    if !caller.sees_costs().await? {
        page.calls.iter_mut().for_each(|call| call.cost_usd = None);
    }
    Ok(Json(page))
}

/// The cost of a job, and of each of its calls.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct JobCosts {
    /// The job.
    job_id: JobId,
    /// The team that pays for it.
    team_id: TeamId,
    /// The kind of job.
    job_type: String,
    /// Where the job stands.
    status: JobStatus,
    /// The sums over its calls.
    costs: Sums,
    /// Whether credits were deducted for the job.
    credit_applied: bool,
    /// The cost of each of the newest 100 calls, oldest first.
    breakdown: Vec<CallCost>,
    /// Whether the job has more calls.
    more_calls: bool,
}

/// The cost of a call.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct CallCost {
    /// The call.
    call_id: CallId,
    /// The purpose that the caller gave.
    purpose: Option<String>,
    /// The model group that was called.
    model_group: GroupName,
    /// The tokens of the prompt.
    prompt_tokens: i64,
    /// The tokens of the answer.
    completion_tokens: i64,
    /// The cost in US dollars; `null`: not known, or not known yet, or the team may not see it.
    cost_usd: Option<Usd>,
    /// When the call began (RFC 3339, UTC).
    created_at: String,
}

/// Read a job's costs
#[utoipa::path(get, path = "/api/jobs/{job_id}/costs", tag = "Jobs", params(("job_id" = Uuid, Path)),
    responses((status = 200, body = JobCosts)))]
pub async fn costs(caller: Caller, PathOf(job_id): PathOf<JobId>) -> Result<Json<JobCosts>> {
    let mut job: JobCosts =
        function!(get_job_costs(p_actor: caller.reader(), p_job_id: job_id)).run().await?;
    if !caller.sees_costs().await? {
        job.costs.total_cost_usd = None;
        job.breakdown.iter_mut().for_each(|call| call.cost_usd = None);
    }
    Ok(Json(job))
}

/// Which jobs are asked for.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct JobFilter {
    /// The maximum number of jobs on the page.
    #[serde(default = "default_limit", deserialize_with = "PageLimit::from_text")]
    #[param(value_type = i64, minimum = 1, maximum = 1000, default = 50, required = false)]
    limit: PageLimit,
    /// The number of jobs to skip. Not together with `cursor`.
    #[serde(default, deserialize_with = "PageOffset::optional_from_text")]
    #[param(value_type = Option<i64>, minimum = 0, maximum = 1_000_000_000_000_i64)]
    offset: Option<PageOffset>,
    /// The `next_cursor` of the page before. Not together with `offset`.
    cursor: Option<JobId>,
    /// Only jobs with this status, in upper or lower case.
    #[serde(default, deserialize_with = "status")]
    #[param(value_type = Option<String>, pattern = "^(pending|in_progress|completed|failed|cancelled|expired)$")]
    status: Option<JobStatus>,
    /// Only jobs of this type.
    job_type: Option<Label>,
    /// Only jobs for this user.
    user_id: Option<Label>,
}

fn status<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<JobStatus>, D::Error> {
    let word = String::deserialize(deserializer)?.to_ascii_lowercase();
    JobStatus::try_from(word).map(Some).map_err(D::Error::custom)
}

/// A page of a team's jobs, newest first.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Jobs {
    /// The team.
    team_id: TeamId,
    /// The number of jobs that match the filter, on all pages.
    total: i64,
    /// The jobs of this page, newest first.
    jobs: Vec<Job>,
    /// The `cursor` of the next page; `null` on the last page.
    next_cursor: Option<JobId>,
}

/// List a team's jobs
///
/// Jobs are sorted newest first.
#[utoipa::path(get, path = "/api/teams/{team_id}/jobs", tag = "Jobs", params(("team_id" = TeamId, Path), JobFilter),
    responses((status = 200, body = Jobs)))]
pub async fn list(
    caller: Caller,
    VisibleTeam(team_id): VisibleTeam,
    Query(filter): Query<JobFilter>,
) -> Result<Json<Jobs>> {
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
    let mut page: Jobs = function.run().await?;
    if !caller.sees_costs().await? {
        page.jobs.iter_mut().for_each(|job| job.total_cost_usd = None);
    }
    Ok(Json(page))
}
