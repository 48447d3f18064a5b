//! Costs that come late: LiteLLM is asked again for the costs of calls that ended without one.

use futures::{StreamExt, stream};
use serde::Deserialize;
use shared::{
    error::Result,
    function,
    litellm::admin,
    platform::time::within,
    values::{CallId, JobId},
};
use std::time::Duration;

/// The maximum number of calls of one run.
const CALLS: i64 = 500;

/// The number of requests to LiteLLM at once.
const AT_ONCE: usize = 4;

/// The maximum time of one run. Calls that it does not come to are due again.
const LIMIT: Duration = Duration::from_secs(15);

#[derive(Deserialize)]
struct Unpriced {
    job_id: JobId,
    call_id: CallId,
    /// Whether LiteLLM is not asked again.
    last: bool,
}

/// Asks LiteLLM for the costs that are due, and writes them. Returns the number of calls whose cost became known.
pub async fn ask() -> Result<i64> {
    let due: Vec<Unpriced> = function!(take_unpriced_calls(p_limit: CALLS)).run().await?;
    let mut known = 0_i64;
    let mut answers = stream::iter(due).map(price).buffer_unordered(AT_ONCE);
    let all = async {
        while let Some(priced) = answers.next().await {
            match priced {
                Ok(priced) => known = known.saturating_add(priced.into()),
                Err(error) => error.log("asking LiteLLM for the cost of a call"),
            }
        }
    };
    within(LIMIT, all).await;
    Ok(known)
}

/// Writes what LiteLLM has recorded of a call. Returns whether that has a cost.
async fn price(call: Unpriced) -> Result<bool> {
    #[derive(Deserialize)]
    struct Priced {
        settled: bool,
    }
    let Unpriced { job_id, call_id, last } = call;
    let attempts = admin::spend_of(call_id).await?;
    if attempts.is_empty() && !last {
        return Ok(false);
    }
    let usage = (!attempts.is_empty()).then(|| admin::sum(&attempts));
    let cost = usage.and_then(|usage| usage.cost);
    let implausible = usage.is_some_and(|usage| usage.implausible);
    let function = function!(price_call(
        p_job_id: job_id,
        p_call_id: call_id,
        p_prompt_tokens: usage.map(|usage| usage.prompt_tokens),
        p_completion_tokens: usage.map(|usage| usage.completion_tokens),
        p_total_tokens: usage.map(|usage| usage.total_tokens),
        p_cost_usd: cost,
        p_implausible: implausible,
        p_last: last || implausible,
    ));
    let Priced { settled } = function.run().await?;
    Ok(settled && cost.is_some())
}
