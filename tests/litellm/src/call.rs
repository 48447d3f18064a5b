//! One call of a model: what it holds while it is under way, the headers that tell about it, and what it is billed.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use chrono::{DateTime, Utc};
use serde_json::Value;
use uuid::Uuid;

use crate::auth::Caller;
use crate::cost::{Cost, Usage, python_float};
use crate::error::ApiError;
use crate::limits::Reservation;
use crate::models::Model;
use crate::spend::{CLIENT_LEFT, SpendRow};
use crate::state::App;
use crate::upstream::seconds;

/// A call that has passed authentication, budgets and rate limits. It must be ended with one of the `end_…` methods,
/// each of which bills it and gives back what it held.
pub(crate) struct Call {
    app: App,
    caller: Caller,
    team_id: Option<String>,
    /// LiteLLM's id of the call: the caller's `x-litellm-call-id`, or a new one.
    id: String,
    /// The random part of the answer's ids.
    pub ident: String,
    started: DateTime<Utc>,
    reservation: Option<Reservation>,
    /// How long LiteLLM waits for the model, once one is chosen.
    pub timeout: Option<Duration>,
    /// What LiteLLM says that the call cost, in place of what it cost.
    pub said_cost: Option<String>,
    /// Headers about the key's limits.
    key_headers: HeaderMap,
    model: String,
}

impl Call {
    /// Counts the call against the limits of its key and team.
    ///
    /// # Errors
    /// 429 when a limit is reached.
    pub fn begin(app: &App, caller: Caller, headers: &HeaderMap, body: &Value) -> Result<Call, ApiError> {
        let id = headers.get("x-litellm-call-id").and_then(|value| value.to_str().ok());
        let mut call = Call {
            app: app.clone(),
            team_id: None,
            id: id.map_or_else(|| Uuid::new_v4().to_string(), str::to_owned),
            ident: Uuid::new_v4().simple().to_string(),
            started: Utc::now(),
            reservation: None,
            timeout: None,
            said_cost: None,
            key_headers: HeaderMap::new(),
            model: body["model"].as_str().unwrap_or_default().to_owned(),
            caller,
        };
        if let Caller::Key(hash) = &call.caller {
            let mut state = app.state();
            if let Some(key) = state.keys.get(hash) {
                call.team_id = key.team_id.clone();
                let limits = [
                    ("x-litellm-key-tpm-limit", key.tpm_limit.map(|limit| limit.to_string())),
                    ("x-litellm-key-rpm-limit", key.rpm_limit.map(|limit| limit.to_string())),
                    ("x-litellm-key-max-budget", key.max_budget.map(python_float)),
                ];
                for (name, value) in limits {
                    if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
                        call.key_headers.insert(name, value);
                    }
                }
            }
            let taken = Reservation::take(&mut state, hash, body, call.started);
            drop(state);
            match taken {
                Ok(reservation) => call.reservation = Some(reservation),
                Err(refusal) => return Err(call.end_failed(refusal)),
            }
        }
        Ok(call)
    }

    /// Ends a call that was answered in full; the headers of a buffered answer.
    pub fn end_answered(self, model: &Model, usage: Usage) -> HeaderMap {
        let cost = Cost::of(model, usage);
        let key_spend = self.key_spend() + cost.total();
        let mut headers = self.answer_headers(model);
        match &self.said_cost {
            Some(said) => insert(&mut headers, "x-litellm-response-cost", said),
            None if cost.total() == 0.0 => {}
            None => insert(&mut headers, "x-litellm-response-cost", &python_float(cost.total())),
        }
        insert(&mut headers, "x-litellm-response-cost-original", &python_float(cost.total()));
        insert(&mut headers, "x-litellm-response-cost-input", &python_float(cost.input));
        insert(&mut headers, "x-litellm-response-cost-output", &python_float(cost.output));
        insert(&mut headers, "x-litellm-key-spend", &python_float(key_spend));
        insert(&mut headers, "llm_provider-content-type", "application/json");
        if let Some(reservation) = &self.reservation {
            headers.extend(reservation.headers.clone());
        }
        self.end_streamed(model, usage);
        headers
    }

    /// Ends a call whose stream was complete.
    pub fn end_streamed(self, model: &Model, usage: Usage) {
        let request_id = self.answer_id();
        self.end(request_id, Cost::of(model, usage), usage, None);
    }

    /// Ends a call whose client left during the stream: what was made until then is billed.
    pub fn end_left(self, model: &Model, usage: Usage) {
        let request_id = self.answer_id();
        let error = (CLIENT_LEFT, "Client disconnected".to_owned());
        self.end(request_id, Cost::of(model, usage), usage, Some(error));
    }

    /// Ends a call whose stream broke after some of it was passed on: that is billed.
    pub fn end_broken(self, model: &Model, usage: Usage, message: &str) {
        let request_id = self.id.clone();
        self.end(request_id, Cost::of(model, usage), usage, Some((500, message.to_owned())));
    }

    /// Ends a call that failed before any of its answer was passed on; the error with the call's headers.
    pub fn end_failed(self, error: ApiError) -> ApiError {
        let mut headers = self.key_headers.clone();
        insert(&mut headers, "x-litellm-call-id", &self.id);
        insert(&mut headers, "x-litellm-response-cost", "0");
        insert(&mut headers, "x-litellm-key-spend", "0.0");
        if let Some(timeout) = self.timeout {
            insert(&mut headers, "x-litellm-timeout", &seconds(timeout));
        }
        if error.headers.contains_key("llm_provider-content-type") {
            headers.extend(self.provider_headers());
        }
        let request_id = self.id.clone();
        let reason = (error.status.as_u16(), error.message().to_owned());
        self.end(request_id, Cost::default(), Usage::default(), Some(reason));
        error.with_headers(headers)
    }

    /// The headers of a streamed answer, which are sent before anything is known about its cost.
    pub fn stream_headers(&self, model: &Model) -> HeaderMap {
        let mut headers = self.answer_headers(model);
        for part in ["original", "input", "output"] {
            insert(&mut headers, &format!("x-litellm-response-cost-{part}"), "0.0");
        }
        insert(&mut headers, "x-litellm-key-spend", &python_float(self.key_spend()));
        insert(&mut headers, "llm_provider-content-type", "text/event-stream");
        insert(&mut headers, "content-type", "text/event-stream; charset=utf-8");
        insert(&mut headers, "cache-control", "no-cache");
        insert(&mut headers, "x-accel-buffering", "no");
        headers
    }

    /// The answer's id.
    pub fn answer_id(&self) -> String {
        format!("chatcmpl-{}", self.ident)
    }

    fn answer_headers(&self, model: &Model) -> HeaderMap {
        let took = (Utc::now() - self.started).as_seconds_f64() * 1000.0;
        let request_id = format!("req_{}", self.ident);
        let model_name = format!("openai/{}", model.name);
        let mut headers = self.key_headers.clone();
        let pairs = [
            ("x-litellm-call-id", self.id.as_str()),
            ("x-litellm-model-id", &model.id()),
            ("x-litellm-model-name", &model_name),
            ("x-litellm-model-group", model.name),
            ("x-litellm-version", "1.106.2"),
            ("x-litellm-attempted-retries", "0"),
            ("x-litellm-attempted-fallbacks", "0"),
            ("x-litellm-response-cost-discount-amount", "0.0"),
            ("x-litellm-response-cost-margin-amount", "0.0"),
            ("x-litellm-response-cost-margin-percent", "0.0"),
            ("x-litellm-response-cost-tool-usage", "0.0"),
            ("x-litellm-response-duration-ms", &python_float(took)),
            ("llm_provider-request-id", &request_id),
        ];
        for (name, value) in pairs {
            insert(&mut headers, name, value);
        }
        headers.extend(self.provider_headers());
        headers
    }

    /// The upstream's own headers, as LiteLLM passes them on.
    fn provider_headers(&self) -> HeaderMap {
        let request_id = format!("req_{}", self.ident);
        let pairs = [
            ("x-ratelimit-limit-requests", "500"),
            ("x-ratelimit-remaining-requests", "499"),
            ("llm_provider-x-ratelimit-limit-requests", "500"),
            ("llm_provider-x-ratelimit-remaining-requests", "499"),
            ("llm_provider-x-request-id", &request_id),
            ("request-id", &request_id),
        ];
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            insert(&mut headers, name, value);
        }
        headers
    }

    fn key_spend(&self) -> f64 {
        match &self.caller {
            Caller::Master => 0.0,
            Caller::Key(hash) => self.app.state().keys.get(hash).map(|key| key.spend).unwrap_or_default(),
        }
    }

    fn end(self, request_id: String, cost: Cost, usage: Usage, error: Option<(u16, String)>) {
        let ended = Utc::now();
        let said = self.said_cost.and_then(|said| said.parse::<f64>().ok()).filter(|usd| usd.is_finite());
        let cost = said.map_or(cost, Cost::whole);
        let row = SpendRow {
            request_id,
            call_id: self.id,
            api_key: self.caller.log_name().to_owned(),
            team_id: self.team_id,
            model: self.model,
            usage,
            cost,
            started: self.started,
            ended,
            error,
        };
        let mut state = self.app.state();
        state.log_spend(row);
        if let Caller::Key(hash) = &self.caller {
            state.charge(hash, cost.total(), ended);
        }
        if let Some(reservation) = self.reservation {
            reservation.release(&mut state, usage.total());
        }
    }
}

/// Values that are no header text are left out.
fn insert(headers: &mut HeaderMap, name: &str, value: &str) {
    if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_str(value)) {
        headers.insert(name, value);
    }
}
