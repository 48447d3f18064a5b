//! Whose fault it is that a call delivers nothing: the caller's makes no job free.

use crate::fixtures::{call_when, models_asked, prompt, prompt_with, stream, stream_refusal};
use api_tests::{Options, Team, TestApp, behind_our_back};
use serde_json::{Value, json};

/// Prompts that the model refuses, or LiteLLM for it.
const REFUSALS: [&str; 5] = [
    "[[status=400]] x",
    "[[status=413]] x",
    "[[status=422]] x",
    "[[status=400]] [[code=content_policy_violation]] x",
    "[[status=400]] [[code=context_length_exceeded]] x",
];

/// Completes a job: its refused calls, its failed ones, and whether it is charged.
async fn completed(team: &Team, job: &str) -> [Value; 3] {
    let costs = team.complete(job, "completed").await.ok()["costs"].clone();
    [costs["refused_calls"].clone(), costs["failed_calls"].clone(), costs["credit_applied"].clone()]
}

#[tokio::test]
async fn a_call_that_the_caller_provokes_to_fail_makes_no_job_free_that_delivered_something() {
    let app = TestApp::start().await;
    let team = app.team(20).await;
    for refusal in REFUSALS {
        for streamed in [false, true] {
            let job = team.job().await;
            team.call(&job, "hello").await.ok();
            let refused = if streamed {
                stream_refusal(&team, &job, prompt(refusal)).await
            } else {
                team.call(&job, refusal).await
            };
            assert_eq!((refused.status.as_u16(), &refused.body["code"]), (400, &json!("invalid_request")));
            let calls = team.read(&job).await["calls"].clone();
            assert_eq!([&calls[0]["status"], &calls[1]["status"]], ["succeeded", "refused"], "{refusal}");
            assert_eq!(completed(&team, &job).await, [json!(1), json!(0), json!(true)], "{refusal}");
        }
    }
    let usage = app.admin().get(&format!("/api/teams/{}/usage", team.id)).await.ok();
    let summary = &usage["summary"];
    assert_eq!(
        [&summary["refused_calls"], &summary["charged_jobs"], &summary["free_jobs_with_output"]],
        [&json!(10), &json!(10), &json!(0)]
    );
    let metrics = app.admin().get("/metrics").await.text;
    let refused = metrics.lines().find(|line| line.contains("status=\"refused\"")).expect("refused calls");
    assert!(refused.ends_with(" 10"), "{refused}");
    app.check_invariants().await;
}

#[tokio::test]
async fn a_job_all_of_whose_calls_were_refused_is_free_since_nothing_was_delivered() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    let job = team.job().await;
    for refusal in REFUSALS {
        assert_eq!(team.call(&job, refusal).await.status, 400);
    }
    assert_eq!(completed(&team, &job).await, [json!(5), json!(0), json!(false)]);
    assert_eq!(team.balance().await["credits_available"], 1);
    // A job without any call is charged as ever.
    let job = team.job().await;
    assert_eq!(completed(&team, &job).await, [json!(0), json!(0), json!(true)]);
    app.check_invariants().await;
}

#[tokio::test]
async fn one_failed_call_keeps_the_credit_beside_refused_ones_too() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    let job = team.job().await;
    team.call(&job, "hello").await.ok();
    assert_eq!(team.call(&job, "[[status=400]] x").await.status, 400);
    assert_eq!(team.call(&job, "[[status=500]] x").await.status, 502);
    assert_eq!(completed(&team, &job).await, [json!(1), json!(1), json!(false)]);
    app.check_invariants().await;
}

#[tokio::test]
async fn what_the_caller_has_used_up_is_the_callers_fault() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    for (limit, status) in [(json!({"max_budget": 0}), 402), (json!({"rpm_limit": 1}), 429)] {
        let team = app.team(2).await;
        let job = team.job().await;
        team.call(&job, "hello").await.ok();
        let mut body = limit.clone();
        body["key"] = json!(stand_in.keys_of(&team.id).remove(0).token);
        behind_our_back(stand_in, "/key/update", body).await;
        let until_refused = async || loop {
            let answer = team.call(&job, "hello").await;
            if answer.status != 200 {
                return answer;
            }
        };
        assert_eq!(until_refused().await.status, status);
        let costs = completed(&team, &job).await;
        assert_eq!([&costs[1], &costs[2]], [&json!(0), &json!(true)], "{limit}");
        assert!(costs[0].as_i64() >= Some(1), "{limit}");
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn a_job_of_its_own_whose_call_is_refused_has_failed_and_is_free() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    let body = prompt_with("[[status=400]] x", json!({"job_type": "test"}));
    let answer = team.client.post("/api/jobs/create-and-call", body).await;
    assert_eq!((answer.status.as_u16(), &answer.body["code"]), (400, &json!("invalid_request")));
    let job = team.read(answer.header("x-job-id").expect("a job")).await;
    assert_eq!(
        [&job["status"], &job["refused_calls"], &job["failed_calls"], &job["credit_applied"]],
        [&json!("failed"), &json!(1), &json!(0), &json!(false)]
    );
    assert_eq!(team.balance().await["credits_available"], 1);
    app.check_invariants().await;
}

/// An application in which a stream may take two seconds in all, and its model be silent for much longer.
async fn app_with_short_streams() -> TestApp {
    let variables = vec![
        ("llm_stream_seconds", "2".to_owned()),
        ("llm_idle_seconds", "60".to_owned()),
        ("llm_timeout_seconds", "10".to_owned()),
    ];
    TestApp::start_with(Options { variables, ..Options::default() }).await
}

#[tokio::test]
async fn a_reader_who_keeps_the_stream_waiting_until_its_time_is_up_has_left_and_pays() {
    let app = app_with_short_streams().await;
    let team = app.team(1).await;
    let job = team.job().await;
    // More than all buffers on the way hold, so the model is not what takes so long.
    let mut unread = stream(&team, &job, prompt("[[chunks=3000]] [[chunk_bytes=20000]] hello")).await;
    assert!(unread.next_data().await.is_some());

    let call = call_when(&team, &job, "the end of the call", |call| call["status"] != "open").await;

    assert_eq!((&call["status"], &call["error"]), (&json!("cancelled"), &json!(null)));
    let used = call_when(&team, &job, "LiteLLM's bill", |call| !call["cost_usd"].is_null()).await;
    assert!(used["tokens"].as_i64() > Some(0), "{used}");
    assert_eq!(completed(&team, &job).await, [json!(0), json!(0), json!(true)]);
    drop(unread);
    app.check_invariants().await;
}

#[tokio::test]
async fn a_model_that_takes_until_the_streams_time_is_up_has_failed() {
    let app = app_with_short_streams().await;
    let team = app.team(1).await;
    let job = team.job().await;
    let stream = stream(&team, &job, prompt("[[chunks=100]] [[delay_ms=100]] hello")).await;
    let last = stream.rest().await.pop().expect("an event");
    assert!(last.starts_with("event: error\n") && last.contains("llm_timeout"), "{last}");
    call_when(&team, &job, "LiteLLM's bill", |call| !call["cost_usd"].is_null()).await;
    assert_eq!(completed(&team, &job).await, [json!(0), json!(1), json!(false)]);
    if let Some(stand_in) = app.stand_in() {
        assert_eq!(models_asked(stand_in).len(), 1);
    }
    app.check_invariants().await;
}
