//! The limit that no WebAssembly host can beat on the same machine: a buffered call of a job as a plain native server
//! would make it, with the same two SQL functions and the same call of LiteLLM. It knows every key that it has seen,
//! pools its connections, keeps its statements prepared, resets nothing, and checks nothing but what the functions
//! check. **It is no product.**

use anyhow::Result;
use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, Request, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use clap::Parser;
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Instant,
};
use tokio_postgres::{Config, NoTls};
use uuid::Uuid;

/// A native server with one route, `POST /api/jobs/{job_id}/llm-call`, to compare with.
#[derive(Parser)]
struct Options {
    /// Where to listen
    #[arg(long)]
    listen: SocketAddr,
    /// The database as the application has it, as `key=value` pairs
    #[arg(long, env = "DATABASE", hide_env_values = true)]
    database: String,
    /// The most connections to the database
    #[arg(long, default_value_t = 64)]
    max_pg_connections: usize,
    /// The address of LiteLLM
    #[arg(long)]
    litellm_url: String,
}

struct Server {
    pool: Pool,
    http: Client<HttpConnector, Full<Bytes>>,
    completions: String,
    keys: Mutex<HashMap<[u8; 32], Uuid>>,
}

const LOOK_UP: &str = "SELECT lookup_key($1) ->> 'key_id'";
const OPEN: &str = "SELECT begin_call('key:' || $1::uuid, $2, NULL, NULL, false, '{}', 60, 120, $3)";
const SETTLE: &str =
    "SELECT settle_call($1, $2, 'succeeded', $3, $4, $5, $6::text::numeric, $7, $8::json, NULL, true)";

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    let config: Config = options.database.parse()?;
    let settings = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let pool = Pool::builder(Manager::from_config(config, NoTls, settings))
        .max_size(options.max_pg_connections)
        .build()?;
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let server = Arc::new(Server {
        pool,
        http: Client::builder(TokioExecutor::new()).build(connector),
        completions: format!("{}/chat/completions", options.litellm_url),
        keys: Mutex::default(),
    });
    let router = Router::new().route("/api/jobs/{job_id}/llm-call", post(call)).with_state(server);
    let listener = tokio::net::TcpListener::bind(options.listen).await?;
    axum::serve(axum::serve::ListenerExt::tap_io(listener, |stream| _ = stream.set_nodelay(true)), router)
        .await?;
    Ok(())
}

#[derive(Deserialize)]
struct Opened {
    models: Vec<Model>,
    model_group: String,
}

#[derive(Deserialize)]
struct Model {
    model_name: String,
}

async fn call(
    State(server): State<Arc<Server>>,
    Path(job_id): Path<Uuid>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match server.call(job_id, &headers, &body).await {
        Ok(answer) => Json(answer).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}")).into_response(),
    }
}

impl Server {
    async fn call(&self, job_id: Uuid, headers: &HeaderMap, body: &[u8]) -> Result<Value> {
        let since = Instant::now();
        let authorization =
            headers.get(header::AUTHORIZATION).map_or("", |value| value.to_str().unwrap_or(""));
        let hash: [u8; 32] = Sha256::digest(authorization.trim_start_matches("Bearer ")).into();
        let call_id = Uuid::now_v7();
        let known = self.keys.lock().expect("keys").get(&hash).copied();
        let opened: Opened = {
            let client = self.pool.get().await?;
            let key_id = match known {
                Some(key_id) => key_id,
                None => {
                    let statement = client.prepare_cached(LOOK_UP).await?;
                    let key_id: String = client.query_one(&statement, &[&&hash[..]]).await?.get(0);
                    let key_id = key_id.parse()?;
                    self.keys.lock().expect("keys").insert(hash, key_id);
                    key_id
                }
            };
            let statement = client.prepare_cached(OPEN).await?;
            let opened: Value = client.query_one(&statement, &[&key_id, &job_id, &call_id]).await?.get(0);
            serde_json::from_value(opened)?
        };

        let mut request: Value = serde_json::from_slice(body)?;
        request["model"] = opened.models.first().map(|model| model.model_name.clone()).into();
        let request = Request::post(&self.completions)
            .header(header::AUTHORIZATION, authorization)
            .header(header::CONTENT_TYPE, "application/json")
            .header("x-litellm-call-id", call_id.to_string())
            .body(Full::from(request.to_string()))?;
        let answer = self.http.request(request).await?;
        let cost = answer.headers().get("x-litellm-response-cost").and_then(|cost| cost.to_str().ok());
        let cost = cost.map(str::to_owned);
        let mut completion: Value = serde_json::from_slice(&answer.into_body().collect().await?.to_bytes())?;

        let latency = i64::try_from(since.elapsed().as_millis())?;
        let usage = &completion["usage"];
        let tokens = |name: &str| usage[name].as_i64().unwrap_or(0);
        let model = opened.models.first().map(|model| model.model_name.as_str());
        let attempts = json!([{"model": model, "outcome": "answered", "latency_ms": latency}]);
        {
            let client = self.pool.get().await?;
            let statement = client.prepare_cached(SETTLE).await?;
            let (prompt, answer, total) =
                (tokens("prompt_tokens"), tokens("completion_tokens"), tokens("total_tokens"));
            client
                .query_one(
                    &statement,
                    &[&job_id, &call_id, &prompt, &answer, &total, &cost, &latency, &attempts],
                )
                .await?;
        }
        Ok(json!({
            "call_id": call_id,
            "response": completion["choices"][0]["message"].take(),
            "metadata": {"latency_ms": latency, "tokens_used": completion["usage"]["total_tokens"],
                "model_group": opened.model_group},
        }))
    }
}
