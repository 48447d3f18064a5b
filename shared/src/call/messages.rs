//! What was said in a call, kept only where the deployment wants that (`store_messages_days` above 0), and for so many days.

use super::{CallRequest, OpenCall, Outcome};
use crate::{
    database::{self, optional_text, text, uuid},
    error::{Error, Result},
    settings,
};
use serde_json::json;
use spin_sdk::{pg::ParameterValue, wasip3::spawn};

/// The messages of a request that are to be kept, if any are.
pub(super) struct Keeping(Option<(String, i32)>);

impl Keeping {
    pub(super) async fn of(request: &CallRequest<'_>) -> Result<Self> {
        let days: i32 = settings::parsed("store_messages_days").await?;
        Ok(Self((days > 0).then(|| (request.messages().to_owned(), days))))
    }

    pub(super) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Writes them with the model's message, in the background. Losing them is no harm to anybody's credits.
    pub(super) fn keep(&self, call: &OpenCall, outcome: &Outcome) {
        let Some((messages, days)) = &self.0 else { return };
        let response = match outcome {
            Outcome::Answered(answered) => serde_json::to_string(&answered.message).ok(),
            Outcome::Streamed(streamed) => {
                Some(json!({ "role": "assistant", "content": streamed.content }).to_string())
            }
            Outcome::Failed(_) => None,
        };
        let parameters = vec![
            uuid(call.job_id),
            uuid(call.call_id),
            text(messages),
            optional_text(response),
            ParameterValue::Int32(*days),
        ];
        spawn(async {
            let statement =
                "SELECT keep_messages($1, $2, $3::text::json, $4::text::json, $5)::text AS answer";
            if let Err(error) = database::call::<bool>(statement, parameters).await {
                Error::log(error, "keeping what was said in a call");
            }
        });
    }
}
