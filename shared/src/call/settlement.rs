//! How a call ended and what it used, on its way into the database.

use crate::{
    change::Statement,
    database::{self, optional_text, text, uuid},
    error::{Code, Error, Result},
    job::Completion,
    litellm::{admin, chat::Usage},
    money::Usd,
};
use serde::Deserialize;
use spin_sdk::{pg::ParameterValue, time::sleep, wasip3::spawn};
use std::time::Duration;
use uuid::Uuid;

/// What is known once a call is settled.
#[derive(Default, Deserialize)]
pub struct Settled {
    /// How the job ended, of a call in a job of its own. `None` also while the database is away.
    pub completion: Option<Completion>,
}

/// The end of a call. Written once: what comes later for the same call changes nothing.
#[derive(Clone)]
pub struct Settlement {
    pub(super) job_id: Uuid,
    pub(super) call_id: Uuid,
    /// Whether the job ends with it.
    pub(super) owns_job: bool,
    /// The request, whose outcome is kept or whose claim is released.
    pub(super) request: ParameterValue,
    /// The outcome to keep; `None`: there is none, and a repeat of the request is a new call.
    pub(super) sealed: Option<String>,
    pub(super) status: &'static str,
    pub(super) usage: Usage,
    pub(super) latency: Duration,
    /// How many models were tried.
    pub(super) tried: usize,
    pub(super) attempts: String,
    pub(super) error: Option<String>,
}

/// `$1` is the request, `$2` the sealed outcome. `member` is what of a [`Settled`] the call answers.
macro_rules! settle {
    ($member:literal, $call:literal) => {
        Statement {
            claiming: concat!(
                "WITH settled AS MATERIALIZED (SELECT json_build_object('",
                $member,
                "', ",
                $call,
                ") AS job) SELECT json_build_object('settled', job, 'kept', keep_or_release($1::text::json, $2, job))::text ",
                "AS answer FROM settled"
            ),
            plain: concat!(
                "SELECT json_build_object('settled', json_build_object('",
                $member,
                "', ",
                $call,
                "), 'kept', coalesce($1::text, $2::text))::text AS answer"
            ),
        }
    };
}

const SETTLE_CALL: Statement = settle!(
    "first",
    "settle_call($3, $4, $5, $6, $7, $8, $9::text::numeric, $10, $11::text::json, $12, $13)"
);

const SETTLE_JOB_WITH_CALL: Statement = settle!(
    "completion",
    "settle_job_with_call($3, $4, $5, $6, $7, $8, $9::text::numeric, $10, $11::text::json, $12, $13)"
);

#[derive(Deserialize)]
struct Answer {
    settled: Settled,
}

impl Settlement {
    /// With a cost that is not known.
    pub fn without_cost(mut self) -> Self {
        self.usage.cost = None;
        self
    }

    fn statement(&self) -> &'static str {
        let statement = if self.owns_job { SETTLE_JOB_WITH_CALL } else { SETTLE_CALL };
        // Its claim may have been released by now.
        statement.text(&self.request)
    }

    /// Writes it. While the database is away that goes on in the background, for five minutes; a call for which it never succeeds
    /// ends by its deadline.
    pub async fn write(&self) -> Result<Settled> {
        match database::insist::<Answer>(self.statement(), self.parameters(true)).await {
            Err(error) if error.code == Code::Unavailable => {
                spawn(self.clone().write_later());
                Ok(Settled::default())
            }
            written => written.map(|answer| answer.settled),
        }
    }

    async fn write_later(self) {
        // Soon at first: who completes the job meanwhile takes the call for one that nobody waits for.
        let waits = [Duration::from_millis(500); 10].into_iter().chain([Duration::from_secs(5); 60]);
        for wait in waits {
            sleep(wait).await;
            match database::call::<Answer>(self.statement(), self.parameters(true)).await {
                Err(error) if error.code == Code::Unavailable => {}
                Err(error) => return error.log("settling a call"),
                Ok(_) => return,
            }
        }
        Error::unavailable("The database").log("settling a call");
    }

    /// Writes what is known so far, for whoever reads the job before the settling. A failure is no loss.
    pub async fn announce(&self) -> Settled {
        let answer = database::insist::<Answer>(self.statement(), self.parameters(false)).await;
        answer.map(|answer| answer.settled).unwrap_or_default()
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
            self.request = ParameterValue::DbNull;
        }
        for wait in [1, 1, 2, 3, 4, 5, 7, 10] {
            sleep(Duration::from_secs(wait)).await;
            // LiteLLM being out of reach is one more reason to ask again.
            let Ok(entries) = admin::spend_of(self.call_id).await else { continue };
            if !entries.is_empty() {
                let sum =
                    |part: fn(&admin::Spend) -> i64| entries.iter().map(part).fold(0, i64::saturating_add);
                self.usage = Usage {
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

    fn parameters(&self, last: bool) -> Vec<ParameterValue> {
        let Usage { prompt_tokens, completion_tokens, total_tokens, cost } = self.usage;
        vec![
            self.request.clone(),
            optional_text(self.sealed.as_ref()),
            uuid(self.job_id),
            uuid(self.call_id),
            text(self.status),
            ParameterValue::Int64(prompt_tokens.max(0)),
            ParameterValue::Int64(completion_tokens.max(0)),
            ParameterValue::Int64(total_tokens.max(0)),
            optional_text(cost.map(|cost| cost.max(Usd::ZERO))),
            ParameterValue::Int64(i64::try_from(self.latency.as_millis()).unwrap_or(i64::MAX)),
            text(&self.attempts),
            optional_text(self.error.as_ref()),
            ParameterValue::Boolean(last),
        ]
    }
}
