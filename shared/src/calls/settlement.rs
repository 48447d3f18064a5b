//! Settling a call: writing how it ended and what it used.

use crate::{
    error::{Code, Error, Result},
    function,
    jobs::Completion,
    litellm::{admin, chat::Usage},
    store::{Function, idempotency::Request, parameters::Json},
    values::{CallId, CallStatus, JobId},
};
use serde::Deserialize;
use spin_sdk::{time::sleep, wasip3::spawn};
use std::time::Duration;

/// The result of settling a call.
#[derive(Default, Deserialize)]
pub struct Settled {
    /// How the job ended, if it was created for the call. `None` also while the database is unavailable.
    pub completion: Option<Completion>,
    /// The call is not there any more, so its usage is lost.
    #[serde(default)]
    lost: bool,
}

impl Settled {
    /// What a caller gets to see of it, who may see costs or not.
    pub(super) fn seen(mut self, sees_costs: bool) -> Self {
        if let Some(job) = &mut self.completion
            && !sees_costs
        {
            job.completion.costs.hide();
        }
        self
    }
}

/// The end of a call. It is written once: a later settlement of the same call changes nothing.
#[derive(Clone)]
pub struct Settlement {
    pub(super) job_id: JobId,
    pub(super) call_id: CallId,
    /// Whether the job ends with the call.
    pub(super) owns_job: bool,
    /// The request whose outcome is stored or whose claim is released.
    pub(super) request: Request,
    /// The outcome to store, encrypted; `None`: nothing is stored, and a retry of the request is a new call.
    pub(super) sealed: Option<String>,
    /// The number of models that were tried.
    pub(super) tried: usize,
    pub(super) ending: Ending,
}

/// The facts that are written about the end of a call.
#[derive(Clone)]
pub(super) struct Ending {
    pub status: CallStatus,
    pub usage: Usage,
    /// Whether output reached the caller.
    pub delivered: bool,
    pub latency: Duration,
    /// The models that were tried, as JSON.
    pub attempts: String,
    /// The caller's error.
    pub error: Option<String>,
}

impl Settlement {
    /// The same settlement with an unknown cost.
    pub fn without_cost(mut self) -> Self {
        self.ending.usage.cost = None;
        self
    }

    /// Writes the settlement. While the database is unavailable, that is retried in the background for five minutes; a
    /// call that can't be settled by then is abandoned at its deadline.
    pub async fn write(&self) -> Result<Settled> {
        match self.send(self.function(true).repeatable()).await {
            Err(error) if error.code == Code::Unavailable => {
                spawn(self.clone().write_later());
                Ok(Settled::default())
            }
            written => written,
        }
    }

    async fn send(&self, function: Function) -> Result<Settled> {
        let settled: Settled = self.request.finish(function, self.sealed.clone()).await?.answer()?;
        if settled.lost {
            let (job, call) = (self.job_id, self.call_id);
            Error::internal(format!("job {job} has no call {call} any more")).log("settling a call");
        }
        Ok(settled)
    }

    async fn write_later(self) {
        // The first retries come quickly: a job that is completed before its call is settled counts the call as
        // cancelled.
        let waits = [Duration::from_millis(500); 10].into_iter().chain([Duration::from_secs(5); 60]);
        for wait in waits {
            sleep(wait).await;
            match self.send(self.function(true)).await {
                Err(error) if error.code == Code::Unavailable => {}
                Err(error) => return error.log("settling a call"),
                Ok(_) => return,
            }
        }
        Error::unavailable("The database").log("settling a call");
    }

    /// Writes what is known so far, for those who read the job before the call is settled. A failure does no harm.
    pub async fn announce(&self) -> Settled {
        self.send(self.function(false).repeatable()).await.unwrap_or_default()
    }

    /// Writes what is known so far, and settles the call in the background with what LiteLLM records.
    pub async fn announce_and_follow_log(self) -> Settled {
        let settled = self.announce().await;
        spawn(async {
            if let Err(error) = self.write_from_log().await {
                error.log("settling a call");
            }
        });
        settled
    }

    /// Settles the call with the usage that LiteLLM recorded under its id, over all models that were tried. LiteLLM
    /// records it some seconds after the model has ended; if it has not within half a minute, the call is settled with
    /// what is known.
    pub async fn write_from_log(mut self) -> Result<()> {
        if self.sealed.is_none() {
            // Its claim was released before, and by now a retry may have made its own.
            self.request = Request::default();
        }
        for wait in [1, 1, 2, 3, 4, 5, 7, 10] {
            sleep(Duration::from_secs(wait)).await;
            // If LiteLLM can't be reached, it is asked again.
            let Ok(entries) = admin::spend_of(self.call_id).await else { continue };
            if !entries.is_empty() {
                self.ending.usage = admin::sum(&entries);
            }
            // LiteLLM records an entry for each attempt, failed ones included.
            if entries.len() >= self.tried {
                break;
            }
        }
        self.write().await.map(drop)
    }

    /// The function that settles the call; with `last` false, it writes what is known so far, and another settlement
    /// follows.
    fn function(&self, last: bool) -> Function {
        let Ending { status, usage, delivered, latency, attempts, error } = self.ending.clone();
        let Usage { prompt_tokens, completion_tokens, total_tokens, cost, implausible } = usage;
        let latency_ms = i64::try_from(latency.as_millis()).unwrap_or(i64::MAX);
        macro_rules! settling {
            ($function:ident) => {
                function!($function(
                    p_job_id: self.job_id,
                    p_call_id: self.call_id,
                    p_status: status,
                    p_prompt_tokens: prompt_tokens,
                    p_completion_tokens: completion_tokens,
                    p_total_tokens: total_tokens,
                    p_cost_usd: cost,
                    p_latency_ms: latency_ms,
                    p_attempts: Json(attempts),
                    p_error: error,
                    p_final: last,
                    p_delivered: delivered,
                    p_implausible: implausible,
                ))
            };
        }
        if self.owns_job { settling!(settle_job_with_call) } else { settling!(settle_call) }
    }
}
