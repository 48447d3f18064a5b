//! What SQL answers about jobs.

use crate::values::{CallId, FinalStatus, GroupName, JobId, Usd};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The sums over a job's calls.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Sums {
    /// How many calls it has.
    pub total_calls: i64,
    /// Calls that a model answered.
    pub successful_calls: i64,
    /// Calls that no model answered.
    pub failed_calls: i64,
    /// Tokens of all prompts and answers.
    pub total_tokens: i64,
    /// What the calls cost in US dollars, as far as that is known; `null` when nothing is.
    pub total_cost_usd: Option<Usd>,
    /// Calls whose cost is not known, or not yet.
    pub unpriced_calls: i64,
    /// Milliseconds from a call's arrival to its answer's end, on average.
    pub avg_latency_ms: i64,
}

/// The answer of `complete_job`.
#[derive(Deserialize)]
pub struct Completion {
    /// What ending the job answered, the first time.
    pub completion: CompletedJob,
    /// Whether a webhook is due to hear something.
    pub alerts: bool,
}

/// A job that has ended.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct CompletedJob {
    /// Its id.
    pub job_id: JobId,
    /// How it ended.
    pub status: FinalStatus,
    /// When it ended.
    pub completed_at: String,
    /// What it cost.
    pub costs: Costs,
    /// Its calls, in the order in which they were made.
    pub calls: Vec<CompletedCall>,
}

/// The sums over a job's calls, and what it cost in credits.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Costs {
    total_calls: i64,
    successful_calls: i64,
    failed_calls: i64,
    total_tokens: i64,
    /// What the calls cost in US dollars, as far as that is known; `null` when nothing is.
    total_cost_usd: Option<Usd>,
    /// Calls whose cost is not known, or not yet.
    unpriced_calls: i64,
    /// Milliseconds from a call's arrival to its answer's end, on average.
    avg_latency_ms: i64,
    /// Whether credits were deducted.
    credit_applied: bool,
    /// How many credits were deducted.
    credits_charged: i64,
    /// What the team has left.
    credits_remaining: i64,
}

/// A call as ending its job shows it.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct CompletedCall {
    call_id: CallId,
    purpose: Option<String>,
    model_group: GroupName,
    tokens: i64,
    latency_ms: Option<i64>,
    error: Option<String>,
}
