//! What the tests of calls share.

use api_tests::{Answer, Options, Sse, Team, TestApp, eventually};
use litellm_stand_in::{Recorded, StandIn};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use uuid::Uuid;

/// An application whose components have so few connections to the database each that waiting calls can't hold one.
pub async fn app_with_connections(max_pg_connections: usize) -> TestApp {
    let settings = host::Settings { max_pg_connections, ..host::Settings::default() };
    TestApp::start_with(Options { settings, ..Options::default() }).await
}

/// A request with this prompt and nothing else.
pub fn prompt(prompt: &str) -> Value {
    json!({"messages": [{"role": "user", "content": prompt}]})
}

/// A request with this prompt and these fields.
pub fn prompt_with(text: &str, fields: Value) -> Value {
    let mut body = prompt(text);
    let fields = fields.as_object().expect("an object").clone();
    body.as_object_mut().expect("an object").extend(fields);
    body
}

/// Makes a buffered call with this body.
pub async fn call(team: &Team, job: &str, body: Value) -> Answer {
    team.client.post(&format!("/api/jobs/{job}/llm-call"), body).await
}

/// Begins a streamed call with this body.
pub async fn stream(team: &Team, job: &str, body: Value) -> Sse {
    team.client.stream(&format!("/api/jobs/{job}/llm-call-stream"), body).await
}

/// The answer to a streamed call that is not a stream.
pub async fn stream_refusal(team: &Team, job: &str, body: Value) -> Answer {
    team.client.post(&format!("/api/jobs/{job}/llm-call-stream"), body).await
}

/// A stream's events as JSON, and whether it ended with `[DONE]`. Comments are left out; an `event: error` stays in
/// with its data.
pub async fn events(stream: Sse) -> (Vec<Value>, bool) {
    assert_eq!(stream.status, 200);
    let mut events = stream.rest().await;
    let done = events.last().is_some_and(|last| last == "data: [DONE]");
    if done {
        events.pop();
    }
    let data = |event: &String| event.lines().find_map(|line| line.strip_prefix("data: ").map(str::to_owned));
    (events.iter().filter_map(data).map(|data| serde_json::from_str(&data).expect("JSON")).collect(), done)
}

/// What LiteLLM was asked to complete, in order.
pub fn completions(stand_in: &StandIn) -> Vec<Recorded> {
    stand_in.requests().into_iter().filter(|request| request.path.ends_with("/chat/completions")).collect()
}

/// The models that LiteLLM was asked for, in order.
pub fn models_asked(stand_in: &StandIn) -> Vec<String> {
    let model = |request: &Recorded| request.body["model"].as_str().expect("a model").to_owned();
    completions(stand_in).iter().map(model).collect()
}

/// What LiteLLM has logged about a call.
pub async fn spend_log(stand_in: &StandIn, call_id: &str) -> Value {
    let address = format!("{}/spend/logs?request_id={call_id}", stand_in.url());
    let key = format!("Bearer {}", stand_in.master_key());
    let answer = reqwest::Client::new().get(address).header("authorization", key).send().await;
    answer.expect("the spend log").json().await.expect("JSON")
}

/// A model group with a new name and these models, each with its priority and config.
pub async fn group_of(app: &TestApp, models: Value) -> String {
    let name = format!("Group-{}", Uuid::now_v7().simple());
    app.admin().post("/api/model-groups/create", json!({"group_name": name, "models": models})).await.ok();
    name
}

/// The one call of a job, once it fits.
pub async fn call_when(team: &Team, job: &str, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
    eventually(what, async || {
        let call = team.read(job).await["calls"][0].clone();
        fits(&call).then_some(call)
    })
    .await
}

/// The calls of the whole database that have this status.
pub async fn calls_that_are(app: &TestApp, status: &str) -> i64 {
    let row = app.database.client.query_one("SELECT count(*) FROM calls WHERE status = $1", &[&status]).await;
    row.expect("a count").get(0)
}

/// The names of a JSON object's members.
pub fn members(value: &Value) -> BTreeSet<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

/// A team with these fields whose jobs cost ten credits for a dollar, and one credit where nothing is known. LiteLLM's
/// budget does not bound it.
pub async fn paying_team(app: &TestApp, group: &str, fields: Value) -> Team {
    let mut body = json!({
        "credits_allocated": 1, "max_budget": 1_000_000, "billing_mode": "consumption_usd", "credits_per_dollar": 10,
        "model_groups": [group],
    });
    body.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
    app.team_with(body).await
}

/// What the ledger says of a job, oldest first: each row's type, amount and reason.
pub async fn ledger_of(app: &TestApp, team: &Team, job: &str) -> Vec<(String, i64, String)> {
    let path = format!("/api/credits/teams/{}/transactions?limit=1000", team.id);
    let ledger = app.admin().get(&path).await.ok();
    let rows = ledger["transactions"].as_array().expect("rows").iter().rev();
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    rows.filter(|row| row["job_id"] == job)
        .map(|row| {
            let amount = row["credits_amount"].as_i64().expect("an amount");
            (text(&row["transaction_type"]), amount, text(&row["reason"]))
        })
        .collect()
}

/// Waits until a job is finally charged, and reads it.
pub async fn finally_charged(team: &Team, job: &str) -> Value {
    eventually("the final charge", async || {
        let read = team.read(job).await;
        (read["charge_is_final"] == true).then_some(read)
    })
    .await
}

/// What the upkeep has done that a timer asks for.
pub async fn upkeep(app: &TestApp) -> Value {
    app.admin().post("/api/upkeep", json!({})).await.ok()
}

/// Runs a statement that is not the application's.
pub async fn sql(app: &TestApp, statement: &str) {
    app.database.client.batch_execute(statement).await.expect("the statement");
}

/// Waits for a minute of the clock that has more than half of its seconds before it, by which rates are limited.
pub async fn early_in_a_minute(app: &TestApp) {
    eventually("the first half of a minute", async || {
        let second = "SELECT extract(second FROM clock_timestamp())::float8 < 30";
        app.database.client.query_one(second, &[]).await.expect("the time").get::<_, bool>(0).then_some(())
    })
    .await;
}
