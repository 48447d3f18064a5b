//! Requests to an application that is in trouble.

use api_tests::{Answer, Client, Team};
use faults::Application;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use std::{io::Write, time::Duration};
use tokio::time::{sleep, timeout};

/// Longer than any request may take while something is wrong that is not the model's slowness: up to 15 s in which its
/// key is looked up, and 20 s for its statement, which is sent once more when it was lost within 5 s.
pub const BOUND: Duration = Duration::from_secs(40);

/// The answer, or `None` where the connection ended without a whole one. Fails the test when there is neither within
/// [`BOUND`].
#[track_caller]
pub fn ask(request: RequestBuilder) -> impl Future<Output = Option<Answer>> {
    let caller = std::panic::Location::caller();
    async move {
        let answer = timeout(BOUND, Answer::try_of(request)).await;
        answer.unwrap_or_else(|_| panic!("{caller}: no answer within {BOUND:?}")).ok()
    }
}

/// A POST, with an `Idempotency-Key` where one is given.
pub fn post(client: &Client, path: &str, body: &Value, key: Option<&str>) -> RequestBuilder {
    let request = client.request(Method::POST, path).body(body.to_string());
    match key {
        Some(key) => request.header("idempotency-key", key),
        None => request,
    }
}

/// The opening of a job.
pub fn create_job(team: &Team, key: Option<&str>) -> RequestBuilder {
    post(&team.client, "/api/jobs/create", &json!({"team_id": team.id, "job_type": "test"}), key)
}

/// A buffered call.
pub fn call(team: &Team, job: &str, prompt: &str, key: Option<&str>) -> RequestBuilder {
    post(&team.client, &format!("/api/jobs/{job}/llm-call"), &messages(prompt), key)
}

/// The completion of a job.
pub fn complete(team: &Team, job: &str, key: Option<&str>) -> RequestBuilder {
    post(&team.client, &format!("/api/jobs/{job}/complete"), &json!({"status": "completed"}), key)
}

/// The body of a call with this prompt.
pub fn messages(prompt: &str) -> Value {
    json!({"messages": [{"role": "user", "content": prompt}]})
}

/// Lets the deadlines of all open calls pass, and of what requests have claimed that are gone.
pub async fn let_deadlines_pass(app: &Application) {
    let past = "UPDATE calls SET deadline = now() - interval '1 second' WHERE status = 'open';
                UPDATE teams SET creation_lease = now() WHERE status = 'creating';
                UPDATE idempotency_keys SET claimed_until = now() WHERE answer IS NULL";
    app.database.connect().await.batch_execute(past).await.expect("moved");
}

/// Ends the connections to LiteLLM that are kept, and lets the hosts notice it: a request on a dead one fails.
pub async fn forget_connections(app: &Application) {
    app.to_litellm.cut();
    sleep(Duration::from_millis(200)).await;
}

/// Fails the test unless completing the job is charged.
pub async fn is_charged(team: &Team, job: &str, context: &str) {
    let costs = team.complete(job, "completed").await.ok()["costs"].clone();
    assert_eq!((&costs["failed_calls"], &costs["credit_applied"]), (&json!(0), &json!(true)), "{context}");
}

/// Places in so many bytes at which to cut: about `number` of them, each at another one of its stretch. With
/// `EVERY_BYTE=1` in the environment they are all, which takes long.
pub fn places(bytes: u64, number: u64) -> impl Iterator<Item = u64> {
    let all = std::env::var_os("EVERY_BYTE").is_some();
    let step = if all { 1 } else { (bytes / number).max(1) };
    (0..=bytes / step).map(move |place| place * step + place % step)
}

/// Fails the test unless the second answer is a success, and the first one's if that was one.
#[track_caller]
pub fn assert_repeats(second: &Answer, first: &Answer, context: &str) {
    assert_eq!(second.status, 200, "{context}: the repeat: {}", second.text);
    if first.status == 200 {
        let without_warnings = |answer: &Answer| {
            let mut body = answer.body.clone();
            body.as_object_mut().map(|body| body.remove("warnings"));
            body
        };
        assert_eq!(without_warnings(second), without_warnings(first), "{context}");
        assert_eq!(second.header("idempotent-replayed"), Some("true"), "{context}");
    }
}

/// Says in the output of the tests why one of them shows nothing here.
pub fn skipped(why: &str) {
    // Not by a macro: what those print is kept back of tests that pass.
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}

/// Fails the test unless this is what a caller is told of a database or a LiteLLM that is away.
#[track_caller]
pub fn assert_unavailable(answer: &Answer, context: &str) {
    assert_eq!(
        (answer.status.as_u16(), &answer.body["code"]),
        (503, &json!("unavailable")),
        "{context}: {}",
        answer.text
    );
    let seconds = answer.header("retry-after").and_then(|seconds| seconds.parse::<u32>().ok());
    assert!(seconds.is_some(), "{context}: no retry-after in {:?}", answer.headers);
}
