//! A slow model holds up nobody: not with its calls, nor with its streams, however few connections to the database
//! there are.

use crate::asking::{ask, call, messages};
use api_tests::{Options, TestApp, eventually};
use futures::future::join_all;
use serde_json::json;
use std::time::Duration;

/// How long the slow model is silent: longer than it takes to begin all the calls, also on a machine that is busy.
/// LiteLLM gives up on a model after 30 s.
const SILENCE: Duration = Duration::from_secs(28);

#[tokio::test]
async fn a_fast_call_is_answered_while_two_hundred_slow_ones_of_another_team_wait() {
    let settings = host::Settings { max_pg_connections: 16, ..host::Settings::default() };
    let variables = vec![("llm_timeout_seconds", "60".to_owned())];
    let app = TestApp::start_with(Options { settings, variables, ..Options::default() }).await;
    // As many calls in one job as it likes.
    let limits = json!({"open_calls_per_job": 0});
    let slow = app.team_with(json!({"credits_allocated": 1, "limits": limits})).await;
    let fast = app.team(1).await;
    let (slow_job, fast_job) = (slow.job().await, fast.job().await);
    let prompt = format!("[[first_ms={}]] hello", SILENCE.as_millis());
    let waiting = {
        let (slow, job) = (slow.clone(), slow_job.clone());
        tokio::spawn(async move {
            let buffered = join_all((0..100).map(|_| slow.call(&job, &prompt)));
            let path = format!("/api/jobs/{job}/llm-call-stream");
            let streamed = join_all((0..100).map(async |_| {
                let events = slow.client.stream(&path, messages(&prompt)).await.rest().await;
                events.last().cloned()
            }));
            tokio::join!(buffered, streamed)
        })
    };
    let open = async || {
        let count = "SELECT count(*) FROM calls WHERE status = 'open'";
        app.database.client.query_one(count, &[]).await.expect("a count").get::<_, i64>(0)
    };
    eventually("two hundred calls under way", async || (open().await == 200).then_some(())).await;

    ask(call(&fast, &fast_job, "hello", None)).await.expect("an answer").ok();
    let path = format!("/api/jobs/{fast_job}/llm-call-stream");
    let events = fast.client.stream(&path, messages("hello")).await.rest().await;
    assert_eq!(events.last().map(String::as_str), Some("data: [DONE]"));
    fast.complete(&fast_job, "completed").await.ok();
    assert_eq!(open().await, 200, "all of them still wait");

    let (buffered, streamed) = waiting.await.expect("the slow calls");
    assert!(buffered.iter().all(|answer| answer.status == 200));
    assert!(streamed.iter().all(|last| last.as_deref() == Some("data: [DONE]")));
    assert_eq!(slow.read(&slow_job).await["successful_calls"], 200);
    slow.complete(&slow_job, "completed").await.ok();
    app.check_invariants().await;
}
