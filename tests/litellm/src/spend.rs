//! The spend log: one row for each call that reached a model or was refused on its way.

use axum::Json;
use axum::extract::{Query, State as FromApp};
use axum::http::HeaderMap;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::auth;
use crate::cost::{Cost, Usage, number};
use crate::error::ApiError;
use crate::state::App;

/// One call as the spend log has it.
#[derive(Debug, Clone)]
pub(crate) struct SpendRow {
    /// The answer's id; of a failed call its call id.
    pub request_id: String,
    pub call_id: String,
    /// The key's hash.
    pub api_key: String,
    pub team_id: Option<String>,
    pub model: String,
    pub usage: Usage,
    pub cost: Cost,
    pub started: DateTime<Utc>,
    pub ended: DateTime<Utc>,
    /// Why it failed: status and message. A client that left is an error 499 of a call that succeeded.
    pub error: Option<(u16, String)>,
}

/// The status of a call whose client left in the middle of the stream.
pub(crate) const CLIENT_LEFT: u16 = 499;

impl SpendRow {
    fn to_json(&self) -> Value {
        let time = |time: DateTime<Utc>| time.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
        let failed = self.error.as_ref().is_some_and(|(status, _)| *status != CLIENT_LEFT);
        let error = self
            .error
            .as_ref()
            .map(|(status, message)| json!({"error_code": status.to_string(), "error_message": message}));
        let team_id = self.team_id.clone().unwrap_or_default();
        json!({
            "request_id": self.request_id, "litellm_call_id": self.call_id, "call_type": "acompletion",
            "api_key": self.api_key, "team_id": team_id, "user": "", "end_user": "", "organization_id": "",
            "spend": self.cost.total(), "total_tokens": number(self.usage.total()),
            "prompt_tokens": number(self.usage.prompt), "completion_tokens": number(self.usage.completion),
            "startTime": time(self.started), "endTime": time(self.ended),
            "completionStartTime": time(self.ended),
            "request_duration_ms": (self.ended - self.started).num_milliseconds(),
            "model": format!("openai/{}", self.model), "model_group": self.model, "custom_llm_provider": "openai",
            "status": if failed { "failure" } else { "success" }, "cache_hit": "None", "request_tags": [],
            "messages": {}, "response": {},
            "metadata": {
                "status": failed.then_some("failure"), "litellm_call_id": self.call_id, "user_api_key": self.api_key,
                "user_api_key_team_id": self.team_id, "error_information": error,
                "cost_breakdown": {
                    "input_cost": self.cost.input, "output_cost": self.cost.output, "total_cost": self.cost.total(),
                },
            },
        })
    }
}

/// The query of `GET /spend/logs`.
#[derive(Deserialize)]
pub(crate) struct LogQuery {
    request_id: Option<String>,
}

/// `GET /spend/logs?request_id=`, by the answer's id or the call id; without it everything.
pub(crate) async fn logs(
    FromApp(app): FromApp<App>,
    headers: HeaderMap,
    Query(query): Query<LogQuery>,
) -> Result<Json<Value>, ApiError> {
    auth::admin(&app, &headers, "/spend/logs")?;
    let state = app.state();
    let asked = |row: &&SpendRow| match &query.request_id {
        Some(id) => row.request_id == *id || row.call_id == *id,
        None => true,
    };
    let written = state.spend_log.iter().filter(|_| !state.spend_log_is_late);
    Ok(Json(written.filter(asked).map(SpendRow::to_json).collect()))
}
