//! The answers of SQL about jobs.

use crate::values::{CallId, FinalStatus, GroupName, JobId, Usd};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The sums over a job's calls.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Sums {
    /// The number of calls.
    pub total_calls: i64,
    /// The number of calls that a model answered.
    pub successful_calls: i64,
    /// The number of calls that no model answered.
    pub failed_calls: i64,
    /// The number of calls that were refused because of what the caller sent or has used up.
    pub refused_calls: i64,
    /// The tokens of all prompts and answers.
    pub total_tokens: i64,
    /// The known cost of the calls in US dollars; `null`: no call's cost is known.
    pub total_cost_usd: Option<Usd>,
    /// The number of calls whose cost is not known, or not known yet.
    pub unpriced_calls: i64,
    /// The average latency of the calls, from a call's arrival to the end of its answer, in milliseconds.
    pub avg_latency_ms: i64,
}

/// The answer of `complete_job`.
#[derive(Deserialize)]
pub struct Completion {
    /// The answer to the first request that ended the job.
    pub completion: CompletedJob,
    /// Whether alerts are due to be sent to a webhook.
    pub alerts: bool,
}

/// A job that has ended.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct CompletedJob {
    /// The job's id.
    pub job_id: JobId,
    /// How the job ended.
    pub status: FinalStatus,
    /// When the job ended (RFC 3339, UTC).
    pub completed_at: String,
    /// What the job cost, in US dollars and in credits.
    pub costs: Costs,
    /// The job's newest 100 calls, oldest first.
    pub calls: Vec<CompletedCall>,
    /// Whether the job has more calls: `GET /api/jobs/{job_id}/calls` lists them.
    #[serde(default)]
    pub more_calls: bool,
}

/// The sums over a job's calls, and the credits that it was charged.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Costs {
    /// The number of calls.
    total_calls: i64,
    /// The number of calls that a model answered.
    successful_calls: i64,
    /// The number of calls that no model answered.
    failed_calls: i64,
    /// The number of calls that were refused because of what the caller sent or has used up.
    #[serde(default)]
    refused_calls: i64,
    /// The tokens of all prompts and answers.
    total_tokens: i64,
    /// The known cost of the calls in US dollars; `null`: no call's cost is known, or the team may not see it.
    total_cost_usd: Option<Usd>,
    /// The number of calls whose cost is not known, or not known yet.
    unpriced_calls: i64,
    /// The average latency of the calls, from a call's arrival to the end of its answer, in milliseconds.
    avg_latency_ms: i64,
    /// Whether credits were deducted for the job.
    credit_applied: bool,
    /// The number of credits that were deducted for the job so far.
    credits_charged: i64,
    /// The number of those credits that were refunded.
    #[serde(default)]
    credits_refunded: i64,
    /// Whether no cost can come late that changes what was deducted.
    #[serde(default)]
    charge_is_final: bool,
    /// The team's balance afterwards, in credits; negative if a `soft` team has overdrawn it.
    credits_remaining: i64,
}

impl Costs {
    /// Hides what the seller pays.
    pub fn hide(&mut self) {
        self.total_cost_usd = None;
    }
}

/// A call of a job that has ended.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct CompletedCall {
    /// The call's id.
    call_id: CallId,
    /// The purpose that the caller gave.
    purpose: Option<String>,
    /// The model group that was called.
    model_group: GroupName,
    /// The tokens of the prompt and the answer.
    tokens: i64,
    /// The time from the call's arrival to the end of its answer, in milliseconds; `null`: it was not measured.
    latency_ms: Option<i64>,
    /// The error that the caller received; `null`: none.
    error: Option<String>,
}
