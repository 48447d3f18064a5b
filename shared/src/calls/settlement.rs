//! How a call ended and what it used, on its way into the database.

use crate::{
    error::{Code, Error, Result},
    function,
    jobs::Completion,
    litellm::{admin, chat::Usage},
    store::{Function, idempotency::Request, parameters::Json},
    values::{CallId, CallStatus, JobId, Usd},
};
use serde::Deserialize;
use spin_sdk::{time::sleep, wasip3::spawn};
use std::time::Duration;

/// What is known once a call is settled.
#[derive(Default, Deserialize)]
pub struct Settled {
    /// How the job ended, of a call in a job of its own. `None` also while the database is away.
    pub completion: Option<Completion>,
}

/// The end of a call. Written once: what comes later for the same call changes nothing.
#[derive(Clone)]
pub struct Settlement {
    pub(super) job_id: JobId,
    pub(super) call_id: CallId,
    /// Whether the job ends with it.
    pub(super) owns_job: bool,
    /// The request, whose outcome is kept or whose claim is released.
    pub(super) request: Request,
    /// The outcome to keep; `None`: there is none, and a repeat of the request is a new call.
    pub(super) sealed: Option<String>,
    /// How many models were tried.
    pub(super) tried: usize,
    pub(super) ending: Ending,
}

/// What is written about the end of a call.
#[derive(Clone)]
pub(super) struct Ending {
    pub status: CallStatus,
    pub usage: Usage,
    pub latency: Duration,
    /// The models that were tried, as JSON.
    pub attempts: String,
    /// What the caller was told.
    pub error: Option<String>,
}

impl Settlement {
    /// With a cost that is not known.
    pub fn without_cost(mut self) -> Self {
        self.ending.usage.cost = None;
        self
    }

    /// Writes it. While the database is away that goes on in the background, for five minutes; a call for which it never succeeds
    /// ends by its deadline.
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
        self.request.finish(function, self.sealed.clone()).await?.answer()
    }

    async fn write_later(self) {
        // Soon at first: who completes the job meanwhile takes the call for one that nobody waits for.
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

    /// Writes what is known so far, for whoever reads the job before the settling. A failure is no loss.
    pub async fn announce(&self) -> Settled {
        self.send(self.function(false).repeatable()).await.unwrap_or_default()
    }

    /// Writes what is known so far, and in the background all of it.
    pub async fn announce_and_follow_log(self) -> Settled {
        let settled = self.announce().await;
        spawn(async {
            if let Err(error) = self.write_from_log().await {
                error.log("settling a call");
            }
        });
        settled
    }

    /// Writes it with what LiteLLM recorded of the call under its id, over all models that were tried. That appears some seconds after
    /// the model has ended; if it does not within half a minute, what is known already stands.
    pub async fn write_from_log(mut self) -> Result<()> {
        if self.sealed.is_none() {
            // What it claimed is released already, and by now perhaps a repeat's.
            self.request = Request::default();
        }
        for wait in [1, 1, 2, 3, 4, 5, 7, 10] {
            sleep(Duration::from_secs(wait)).await;
            // LiteLLM being out of reach is one more reason to ask again.
            let Ok(entries) = admin::spend_of(self.call_id).await else { continue };
            if !entries.is_empty() {
                let sum =
                    |part: fn(&admin::Spend) -> i64| entries.iter().map(part).fold(0, i64::saturating_add);
                self.ending.usage = Usage {
                    prompt_tokens: sum(|entry| entry.prompt_tokens),
                    completion_tokens: sum(|entry| entry.completion_tokens),
                    total_tokens: sum(|entry| entry.total_tokens),
                    cost: entries.iter().map(|entry| entry.spend).reduce(Usd::saturating_add),
                };
            }
            // One entry for each model, also for those that failed.
            if entries.len() >= self.tried {
                break;
            }
        }
        self.write().await.map(drop)
    }

    /// `last`: nothing follows.
    fn function(&self, last: bool) -> Function {
        let Ending { status, usage, latency, attempts, error } = self.ending.clone();
        let Usage { prompt_tokens, completion_tokens, total_tokens, cost } = usage;
        let latency_ms = i64::try_from(latency.as_millis()).unwrap_or(i64::MAX);
        macro_rules! settling {
            ($function:ident) => {
                function!($function(
                    p_job_id: self.job_id,
                    p_call_id: self.call_id,
                    p_status: status,
                    p_prompt_tokens: prompt_tokens.max(0),
                    p_completion_tokens: completion_tokens.max(0),
                    p_total_tokens: total_tokens.max(0),
                    p_cost_usd: cost.map(|cost| cost.max(Usd::ZERO)),
                    p_latency_ms: latency_ms,
                    p_attempts: Json(attempts),
                    p_error: error,
                    p_final: last,
                ))
            };
        }
        if self.owns_job { settling!(settle_job_with_call) } else { settling!(settle_call) }
    }
}
