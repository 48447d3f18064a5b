//! What others do to LiteLLM without this application.

use litellm_stand_in::StandIn;
use serde_json::Value;

/// Sends a request of LiteLLM's admin, as somebody else who administers it would; fails the test unless it succeeds.
pub async fn behind_our_back(stand_in: &StandIn, path: &str, body: Value) {
    let request =
        reqwest::Client::new().post(format!("{}{path}", stand_in.url())).bearer_auth(stand_in.master_key());
    crate::Answer::of(request.header("content-type", "application/json").body(body.to_string())).await.ok();
}
