//! A client that leaves pays for what it used, and no call stays unsettled because of it.

use crate::fixtures::{app_with_connections, call_when, calls_that_are, completions, prompt, stream};
use api_tests::{Options, Team, TestApp, eventually};
use litellm_stand_in::Outcome;
use serde_json::{Value, json};
use std::time::Duration;

/// Reads a stream until its second piece of text, and leaves.
async fn leave_within_the_stream(team: &Team, job: &str) {
    let mut stream = stream(team, job, prompt("[[chunks=100]] [[delay_ms=100]] hello")).await;
    let mut pieces = 0;
    while pieces < 2 {
        let event = stream.next_data().await.expect("an event");
        pieces += usize::from(event["content"].as_str().is_some_and(|text| !text.is_empty()));
    }
}

/// Sends a request that makes a call in the job, and leaves some time after the call was opened.
async fn leave_after(wait: Duration, team: &Team, job: &str, request: impl Future) {
    let patience = async {
        team.open_call(job).await;
        tokio::time::sleep(wait).await;
    };
    tokio::select! {
        _ = request => panic!("answered before the client left"),
        () = patience => {}
    }
}

fn has_cost(call: &Value) -> bool {
    !call["cost_usd"].is_null()
}

fn has_ended(call: &Value) -> bool {
    call["status"] != "open"
}

#[tokio::test]
async fn leaving_a_stream_cancels_the_call_and_what_was_used_is_kept() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    let job = team.job().await;

    leave_within_the_stream(&team, &job).await;

    let call = call_when(&team, &job, "the end of the call", has_ended).await;
    assert_eq!((&call["status"], &call["error"]), (&json!("cancelled"), &json!(null)));
    assert!(call["tokens"].as_i64() > Some(0), "{call}");
    let billed = call_when(&team, &job, "LiteLLM's bill", has_cost).await;
    assert_eq!(billed["status"], "cancelled");
    assert!(billed["cost_usd"].as_f64() > Some(0.0), "{billed}");
    // LiteLLM counts the prompt too, which nobody here can.
    assert!(billed["prompt_tokens"].as_i64() > Some(0), "{billed}");
    app.check_invariants().await;
}

#[tokio::test]
async fn the_model_is_told_to_stop_when_its_reader_leaves() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let team = app.team(1).await;
    let job = team.job().await;
    leave_within_the_stream(&team, &job).await;
    // The whole stream would take 10 s.
    eventually("LiteLLM being left", async || {
        (completions(stand_in)[0].outcome == Outcome::ClientLeft).then_some(())
    })
    .await;
    call_when(&team, &job, "LiteLLM's bill", has_cost).await;
    app.check_invariants().await;
}

#[tokio::test]
async fn hanging_up_does_not_save_the_credit() {
    let app = TestApp::start().await;
    let team = app.team(3).await;
    let job = team.job().await;
    leave_within_the_stream(&team, &job).await;
    call_when(&team, &job, "LiteLLM's bill", has_cost).await;

    let costs = team.complete(&job, "completed").await.ok()["costs"].clone();

    assert_eq!((&costs["total_calls"], &costs["successful_calls"]), (&json!(1), &json!(0)));
    assert_eq!((&costs["failed_calls"], &costs["credit_applied"]), (&json!(0), &json!(true)));
    assert_eq!(costs["credits_remaining"], json!(2));
    assert!(costs["total_cost_usd"].as_f64() > Some(0.0), "{costs}");
    app.check_invariants().await;
}

#[tokio::test]
async fn leaving_a_buffered_call_lets_it_run_to_its_end() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    let job = team.job().await;
    let prompt = "[[first_ms=3000]] [[prompt_tokens=1000]] [[completion_tokens=500]] hello";
    leave_after(Duration::ZERO, &team, &job, team.call(&job, prompt)).await;
    assert_eq!(team.read(&job).await["calls"][0]["status"], "open");

    let call = call_when(&team, &job, "the end of the call", has_ended).await;

    assert_eq!(call["status"], "succeeded");
    assert_eq!((&call["tokens"], call["cost_usd"].as_f64()), (&json!(1500), Some(0.00045)));
    assert_eq!(team.complete(&job, "completed").await.ok()["costs"]["credit_applied"], json!(true));
    app.check_invariants().await;
}

#[tokio::test]
async fn leaving_before_the_first_event_settles_the_call_too() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    let job = team.job().await;
    let body = prompt("[[first_ms=2000]] [[chunks=40]] [[delay_ms=100]] hello");
    leave_after(Duration::ZERO, &team, &job, stream(&team, &job, body)).await;

    let call = call_when(&team, &job, "the end of the call", has_ended).await;

    assert_eq!((&call["status"], &call["error"]), (&json!("cancelled"), &json!(null)));
    call_when(&team, &job, "LiteLLM's bill", has_cost).await;
    app.check_invariants().await;
}

#[tokio::test]
async fn completing_a_job_under_a_running_stream_cancels_the_call_and_only_what_it_used_comes_later() {
    let app = TestApp::start().await;
    let team = app.team(2).await;
    let job = team.job().await;
    let mut stream = stream(&team, &job, prompt("[[chunks=20]] [[delay_ms=100]] hello")).await;
    stream.next_data().await.expect("an event");

    let completed = team.complete(&job, "completed").await.ok();

    let costs = &completed["costs"];
    assert_eq!(
        (&costs["total_calls"], &costs["successful_calls"], &costs["failed_calls"]),
        (&json!(1), &json!(0), &json!(0))
    );
    assert_eq!((&costs["credit_applied"], &costs["credits_remaining"]), (&json!(true), &json!(1)));
    assert_eq!(costs["total_tokens"], json!(0));
    let before = team.read(&job).await;
    assert_eq!(before["calls"][0]["status"], "cancelled");

    // The stream itself goes on to its end.
    let rest = stream.rest().await;
    assert_eq!(rest.last().map(String::as_str), Some("data: [DONE]"));

    let after = team.read(&job).await;
    assert_eq!(
        (&after["calls"][0]["status"], &after["calls"][0]["error"]),
        (&json!("cancelled"), &json!(null))
    );
    assert_eq!(after["calls"][0]["completion_tokens"], json!(20));
    assert!(
        after["total_cost_usd"].as_f64() > Some(0.0) && after["total_tokens"].as_i64() > Some(20),
        "{after}"
    );
    for unchanged in
        ["status", "completed_at", "credit_applied", "successful_calls", "failed_calls", "total_calls"]
    {
        assert_eq!(after[unchanged], before[unchanged], "{unchanged}");
    }
    assert_eq!(team.complete(&job, "completed").await.ok(), completed);
    assert_eq!(team.balance().await["credits_remaining"], json!(1));
    app.check_invariants().await;
}

#[tokio::test]
async fn a_stream_that_fails_after_its_job_was_completed_does_not_give_the_credit_back() {
    let app = TestApp::start().await;
    let team = app.team(2).await;
    let job = team.job().await;
    let mut stream =
        stream(&team, &job, prompt("[[chunks=20]] [[delay_ms=100]] [[error_after=10]] hello")).await;
    stream.next_data().await.expect("an event");
    assert_eq!(team.complete(&job, "completed").await.ok()["costs"]["credit_applied"], json!(true));
    assert!(stream.rest().await.last().is_some_and(|last| last.starts_with("event: error\n")));

    let call = call_when(&team, &job, "LiteLLM's bill", has_cost).await;

    assert_eq!(call["status"], "cancelled");
    let job = team.read(&job).await;
    assert_eq!((&job["failed_calls"], &job["credit_applied"]), (&json!(0), &json!(true)));
    assert_eq!(team.balance().await["credits_remaining"], json!(1));
    app.check_invariants().await;
}

#[tokio::test]
async fn a_reader_who_takes_nothing_for_too_long_has_left() {
    let variables = vec![("llm_timeout_seconds", "2".to_owned()), ("llm_idle_seconds", "2".to_owned())];
    let app = TestApp::start_with(Options { variables, ..Options::default() }).await;
    let team = app.team(1).await;
    let job = team.job().await;
    // More than all buffers on the way hold.
    let unread = stream(&team, &job, prompt("[[chunks=3000]] [[chunk_bytes=20000]] hello")).await;

    let call = call_when(&team, &job, "the end of the call", has_ended).await;

    assert_eq!(call["status"], "cancelled");
    assert!(call["tokens"].as_i64() > Some(0), "{call}");
    drop(unread);
    call_when(&team, &job, "LiteLLM's bill", has_cost).await;
    app.check_invariants().await;
}

#[tokio::test]
async fn thirty_clients_that_leave_at_once_leave_nothing_open() {
    let app = app_with_connections(16).await;
    let team = app.team(30).await;
    let jobs = futures::future::join_all((0..30).map(|_| team.job())).await;
    let leaving = jobs.iter().enumerate().map(async |(index, job)| {
        let body = prompt("[[first_ms=500]] [[chunks=100]] [[delay_ms=100]] hello");
        // Some before the first event, most within the stream.
        let wait = Duration::from_millis(50 * index as u64);
        leave_after(wait, &team, job, async { stream(&team, job, body).await.rest().await }).await;
    });
    futures::future::join_all(leaving).await;
    eventually("no open call", async || (calls_that_are(&app, "open").await == 0).then_some(())).await;
    assert_eq!(calls_that_are(&app, "cancelled").await, 30);
    for job in jobs {
        team.complete(&job, "completed").await.ok();
    }
    assert_eq!(team.balance().await["credits_remaining"], json!(0));
    app.check_invariants().await;
}
