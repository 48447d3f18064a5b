//! How a call ended and what it used, on its way into the database.

use crate::{
    database::{self, optional_text, text, uuid},
    error::{Code, Error, Result},
    litellm::{admin, chat::Usage},
    money::Usd,
};
use spin_sdk::{pg::ParameterValue, time::sleep, wasip3::spawn};
use std::time::Duration;
use uuid::Uuid;

/// The end of a call. Written once: what comes later for the same call changes nothing.
#[derive(Clone)]
pub struct Settlement {
    pub(super) call_id: Uuid,
    pub(super) status: &'static str,
    pub(super) usage: Usage,
    pub(super) latency: Duration,
    /// How many models were tried.
    pub(super) tried: usize,
    pub(super) attempts: String,
    pub(super) error: Option<String>,
}

const STATEMENT: &str =
    "SELECT settle_call($1, $2, $3, $4, $5, $6::text::numeric, $7, $8::text::json, $9, $10)::text AS answer";

impl Settlement {
    /// With a cost that is not known.
    pub fn without_cost(mut self) -> Self {
        self.usage.cost = None;
        self
    }

    /// Writes it. While the database is away that goes on in the background, for five minutes; a call for which it never succeeds
    /// ends by its deadline.
    pub async fn write(&self) -> Result<()> {
        match database::insist::<bool>(STATEMENT, self.parameters(true)).await {
            Err(error) if error.code == Code::Unavailable => {
                spawn(self.clone().write_later());
                Ok(())
            }
            written => written.map(drop),
        }
    }

    async fn write_later(self) {
        for _ in 0..60 {
            sleep(Duration::from_secs(5)).await;
            match database::call::<bool>(STATEMENT, self.parameters(true)).await {
                Err(error) if error.code == Code::Unavailable => {}
                Err(error) => return error.log("settling a call"),
                Ok(_) => return,
            }
        }
        Error::unavailable("The database").log("settling a call");
    }

    /// Writes what is known so far, for whoever reads the job before the settling. A failure is no loss.
    pub async fn announce(&self) {
        _ = database::insist::<bool>(STATEMENT, self.parameters(false)).await;
    }

    /// Writes it with what LiteLLM recorded of the call under its id, over all models that were tried. That appears some seconds after
    /// the model has ended; if it does not within half a minute, what is known already stands.
    pub async fn write_from_log(mut self) -> Result<()> {
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
        self.write().await
    }

    fn parameters(&self, last: bool) -> Vec<ParameterValue> {
        let Usage { prompt_tokens, completion_tokens, total_tokens, cost } = self.usage;
        vec![
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
