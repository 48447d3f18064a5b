//! `POST /chat/completions`: from the request to a buffered answer, or to the task that streams one.

use axum::Json;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, State as FromApp};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use chrono::Utc;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::auth;
use crate::banned;
use crate::behaviour::Behaviour;
use crate::call::Call;
use crate::error::ApiError;
use crate::models::{self, Model};
use crate::reply::{Reply, last_prompt};
use crate::state::App;
use crate::stream;
use crate::upstream::Failure;

/// A request that is about to go to a model.
pub(crate) struct Order {
    pub model: &'static Model,
    pub behaviour: Behaviour,
    /// How long LiteLLM waits for the first byte, and for each further one.
    pub timeout: Duration,
    pub body: Value,
}

/// `POST /chat/completions` and `POST /v1/chat/completions`.
pub(crate) async fn completions(
    FromApp(app): FromApp<App>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    auth::presented_key(&headers)?;
    let body = parse(&body)?;
    banned::refuse(body.as_object().ok_or_else(ApiError::no_object)?)?;
    let caller = auth::model_caller(&app, &headers, body["model"].as_str())?;
    let mut call = Call::begin(&app, caller, &headers, &body)?;
    let model = match requested_model(&body) {
        Ok(model) => model,
        Err(error) => return Err(call.end_failed(error)),
    };
    let timeout = chosen_timeout(model, &headers, &body);
    call.timeout = Some(timeout);
    let order = match order(model, timeout, body) {
        Ok(order) => order,
        Err(error) => return Err(call.end_failed(error)),
    };
    call.said_cost = order.behaviour.cost.clone();
    if order.body["stream"] == true {
        return stream::start(call, order).await;
    }
    // On a task of its own, so that it runs to its end and is billed when the client leaves.
    let answer = tokio::spawn(buffered(call, order));
    answer
        .await
        .unwrap_or_else(|_| Err(ApiError::new(500, "internal_server_error", "stand-in: the call broke off")))
}

/// `GET /v1/models`, as far as the caller may call them.
pub(crate) async fn list_models(
    FromApp(app): FromApp<App>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    let caller = auth::model_caller(&app, &headers, None)?;
    let names = auth::visible_models(&app.state(), &caller);
    Ok(Json(models::listing(&names)))
}

/// `GET /v1/models/{id}`, which LiteLLM shows to the admin only.
pub(crate) async fn show_model(
    FromApp(app): FromApp<App>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    auth::admin(&app, &headers, &format!("/v1/models/{id}"))?;
    match Model::named(&id) {
        Some(model) => Ok(Json(models::entry(model.name))),
        None => {
            Err(ApiError::detail(404, json!(format!("The model `{id}` does not exist or is not accessible"))))
        }
    }
}

fn parse(body: &[u8]) -> Result<Value, ApiError> {
    if body.is_empty() {
        return Ok(json!({}));
    }
    serde_json::from_slice(body).map_err(|error| {
        let complaint = if error.is_eof() {
            format!(
                "unexpected end of data: line {} column {} (char {})",
                error.line(),
                error.column() + 1,
                body.len()
            )
        } else {
            error.to_string()
        };
        let message = format!("Invalid JSON payload: {complaint}");
        ApiError::new(400, "invalid_request_error", message).param("request_body")
    })
}

fn requested_model(body: &Value) -> Result<&'static Model, ApiError> {
    if !body["model"].is_string() && !body["model"].is_null() {
        return Err(ApiError::new(400, "bad_request_error", "'model' must be a string.").param("model"));
    }
    if body["messages"].is_null() {
        let message = "/chat/completions: Missing required parameter: 'messages'.";
        return Err(ApiError::new(400, "invalid_request_error", message).param("messages"));
    }
    let name = body["model"].as_str().unwrap_or("None");
    Model::named(name).ok_or_else(|| {
        let message = format!(
            "/chat/completions: Invalid model name passed in model={name}. Call `/v1/models` to view available models \
             for your key."
        );
        ApiError::new(400, "invalid_request_error", message.as_str())
            .member("provider_specific_fields", json!({"error": message}))
    })
}

/// The caller may choose how long LiteLLM waits: in other fields for a stream than for a buffered answer.
fn chosen_timeout(model: &Model, headers: &HeaderMap, body: &Value) -> Duration {
    let seconds = |value: &Value| value.as_f64().or_else(|| value.as_str()?.parse().ok());
    let header = || headers.get("x-litellm-timeout")?.to_str().ok()?.parse().ok();
    let chosen = if body["stream"] == true {
        seconds(&body["stream_timeout"])
    } else {
        seconds(&body["timeout"]).or_else(|| seconds(&body["request_timeout"])).or_else(header)
    };
    let positive = chosen.filter(|seconds| *seconds > 0.0);
    positive.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).unwrap_or(model.timeout)
}

fn order(model: &'static Model, timeout: Duration, body: Value) -> Result<Order, ApiError> {
    if !body["messages"].is_array() {
        let message = format!(
            "Invalid request format: litellm.APIConnectionError: APIConnectionError: OpenAIException - 'str' object \
             has no attribute 'get'\n\nLiteLLM: model group '{}' failed with the error above. No fallback was \
             attempted.",
            model.name
        );
        return Err(ApiError::new(400, "invalid_request_error", message));
    }
    let behaviour = Behaviour::of(model.name)
        .marked(&last_prompt(&body))
        .map_err(|complaint| Failure::complaint(&complaint).to_error(model))?;
    Ok(Order { model, behaviour, timeout, body })
}

async fn buffered(call: Call, order: Order) -> Result<Response, ApiError> {
    let model = order.model;
    let late = Err(Failure::Timeout { after: order.timeout, streamed: false });
    let reply = match tokio::time::timeout(order.timeout, whole(&order)).await.unwrap_or(late) {
        Ok(reply) => reply,
        Err(failure) => return Err(call.end_failed(failure.to_error(model))),
    };
    let choices: Vec<Value> = (0..reply.choices).map(|index| reply.choice(&call.ident, index)).collect();
    let usage = match reply.usage {
        Some(usage) => usage.to_json(),
        None => json!({"completion_tokens": 0, "prompt_tokens": 0, "total_tokens": 0}),
    };
    let value = json!({
        "id": call.answer_id(), "created": Utc::now().timestamp(), "model": model.name, "object": "chat.completion",
        "system_fingerprint": "fp_fake", "choices": choices, "usage": usage,
    });
    let headers = call.end_answered(model, reply.usage.unwrap_or_default());
    let mut response = Response::new(Body::from(value.to_string()));
    *response.headers_mut() = headers;
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
    Ok(response)
}

/// The reply of a model that answers all at once.
async fn whole(order: &Order) -> Result<Reply, Failure> {
    let reply = begin(order).await?;
    let behaviour = &order.behaviour;
    if behaviour.error_after.is_some() {
        return Err(Failure::internal());
    }
    if behaviour.stall_after.is_some() {
        std::future::pending::<()>().await;
    }
    if behaviour.cut_after.is_some() {
        return Err(Failure::Connection);
    }
    Ok(reply)
}

/// What happens before the first byte of any answer.
pub(crate) async fn begin(order: &Order) -> Result<Reply, Failure> {
    let behaviour = &order.behaviour;
    if behaviour.refused {
        return Err(Failure::Connection);
    }
    // Even no time at all would be a millisecond.
    if !behaviour.first().is_zero() {
        sleep(behaviour.first()).await;
    }
    if behaviour.status != 200 {
        return Err(Failure::asked(behaviour));
    }
    Reply::to(&order.body, behaviour).map_err(|complaint| Failure::complaint(&complaint))
}
