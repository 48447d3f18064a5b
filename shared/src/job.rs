//! What SQL answers about jobs.

use crate::money::Usd;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The sums over a job's calls.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Sums {
    /// All of them.
    pub total_calls: i64,
    /// Those that a model answered.
    pub successful_calls: i64,
    /// Those that none did.
    pub failed_calls: i64,
    /// Of the prompts and the answers.
    pub total_tokens: i64,
    /// The sum of what is known; `null` when nothing is.
    pub total_cost_usd: Option<Usd>,
    /// Calls whose cost is not known, or not yet.
    pub unpriced_calls: i64,
    /// From the call's arrival to its answer's end.
    pub avg_latency_ms: i64,
}

/// The answer of `complete_job`.
#[derive(Deserialize)]
pub struct Completion {
    /// What ending the job answered, the first time.
    pub completion: Completed,
    /// Whether a webhook is due to hear something.
    pub alerts: bool,
}

/// A job's end as SQL tells it.
#[derive(Deserialize)]
pub struct Completed {
    job_id: String,
    status: String,
    completed_at: String,
    costs: Sums,
    credit_applied: bool,
    credits_charged: i64,
    credits_remaining: i64,
    calls: Vec<CompletedCall>,
}

/// A job that has ended.
#[derive(Serialize, ToSchema)]
pub struct CompletedJob {
    /// Its id.
    pub job_id: String,
    /// How it ended.
    pub status: String,
    /// When.
    pub completed_at: String,
    /// What it cost.
    pub costs: Costs,
    /// Its calls.
    pub calls: Vec<CompletedCall>,
}

/// The sums over a job's calls, and what it cost in credits.
#[derive(Serialize, ToSchema)]
pub struct Costs {
    #[serde(flatten)]
    sums: Sums,
    /// Whether credits were deducted.
    credit_applied: bool,
    /// How many.
    credits_charged: i64,
    /// What the team has left.
    credits_remaining: i64,
}

/// A call as ending its job shows it.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct CompletedCall {
    call_id: String,
    purpose: Option<String>,
    model_group: String,
    tokens: i64,
    latency_ms: Option<i64>,
    error: Option<String>,
}

impl From<Completed> for CompletedJob {
    fn from(job: Completed) -> Self {
        Self {
            job_id: job.job_id,
            status: job.status,
            completed_at: job.completed_at,
            costs: Costs {
                sums: job.costs,
                credit_applied: job.credit_applied,
                credits_charged: job.credits_charged,
                credits_remaining: job.credits_remaining,
            },
            calls: job.calls,
        }
    }
}
