//! The messages of a call and its answer. They are stored only if the deployment wants that (`store_messages_days`
//! above 0), and deleted after so many days.

use super::{ActiveCall, CallRequest, Outcome};
use crate::{error::Result, function, platform::settings, store::parameters::Json};
use serde_json::json;
use spin_sdk::wasip3::spawn;

/// The messages of a request and the number of days to store them for; `None`: they are not stored.
pub(super) struct Keeping(Option<(String, i32)>);

impl Keeping {
    pub(super) async fn of(request: &CallRequest<'_>) -> Result<Self> {
        let days: i32 = settings::parsed("store_messages_days").await?;
        Ok(Self((days > 0).then(|| (request.messages().to_owned(), days))))
    }

    pub(super) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Writes them with the model's message, in the background. If that fails they are lost, which affects no credits.
    pub(super) fn keep(&self, call: &ActiveCall, outcome: &Outcome) {
        let Some((messages, days)) = &self.0 else { return };
        let response = match outcome {
            Outcome::Answered(answered) => serde_json::to_string(&answered.message).ok(),
            Outcome::Streamed(streamed) => {
                Some(json!({ "role": "assistant", "content": streamed.content }).to_string())
            }
            Outcome::Failed(_) => None,
        };
        let function = function!(keep_messages(
            p_job_id: call.job_id,
            p_call_id: call.call_id,
            p_messages: Json(messages.clone()),
            p_response: response.map(Json),
            p_days: *days,
        ));
        spawn(async {
            if let Err(error) = function.run::<bool>().await {
                error.log("keeping the messages of a call");
            }
        });
    }
}
