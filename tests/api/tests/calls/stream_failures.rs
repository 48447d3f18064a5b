//! A stream whose model fails. Before the first event that is in `fallbacks`; this is after it.

use crate::fixtures::{call_when, events, prompt, stream, stream_refusal};
use api_tests::{Options, TestApp, eventually};
use serde_json::json;

#[tokio::test]
async fn a_failure_within_a_stream_is_an_error_event_and_no_done() {
    let app = TestApp::start().await;
    for model in ["cut", "midstream-error", "stall"] {
        let team = app.team_using(&[model, "gpt-4o-mini"], 1).await;
        let job = team.job().await;

        let events = stream(&team, &job, prompt("hello")).await.rest().await;

        let (last, others) = events.split_last().expect("events");
        let data = last.strip_prefix("event: error\ndata: ").unwrap_or_else(|| panic!("{model}: {last}"));
        let error: serde_json::Value = serde_json::from_str(data).expect("JSON");
        assert_eq!(
            error,
            json!({"error": {"code": "llm_failed", "detail": "LLM call failed: The model failed"}})
        );
        assert!(others.iter().any(|event| event.contains(r#""content":"#)), "{model}: {others:?}");
        assert!(
            !others.iter().any(|event| event.contains("[DONE]") || event.contains("event:")),
            "{model}: {others:?}"
        );

        // What was made until then was billed; LiteLLM tells it some seconds later.
        let call = call_when(&team, &job, "the bill", |call| !call["cost_usd"].is_null()).await;
        assert_eq!(
            (&call["status"], &call["error"]),
            (&json!("failed"), &error["error"]["detail"]),
            "{model}"
        );
        assert!(call["tokens"].as_i64() > Some(0), "{model}: {call}");
        let costs = team.complete(&job, "completed").await.ok()["costs"].clone();
        assert_eq!((&costs["failed_calls"], &costs["credit_applied"]), (&json!(1), &json!(false)), "{model}");
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn a_stream_that_broke_before_its_first_event_costs_what_litellm_billed_for_it() {
    let app = TestApp::start().await;
    let team = app.team_using(&["gpt-4o-mini"], 1).await;
    let job = team.job().await;
    // Without a pause LiteLLM has passed nothing on, and answers with an error; but the model has begun.
    let answer = stream_refusal(&team, &job, prompt("hello [[cut_after=2]]")).await;
    answer.refused(502, "llm_failed", "LLM call failed: The model failed");
    let call = call_when(&team, &job, "the bill", |call| !call["cost_usd"].is_null()).await;
    assert_eq!(call["status"], "failed");
    assert!(call["tokens"].as_i64() > Some(0) && call["cost_usd"].as_f64() > Some(0.0), "{call}");
    app.check_invariants().await;
}

#[tokio::test]
async fn whoever_has_seen_a_stream_fail_is_not_charged_however_soon_the_job_is_completed() {
    let app = TestApp::start().await;
    let team = app.team_using(&["midstream-error"], 1).await;
    for _ in 0..5 {
        let job = team.job().await;
        let mut stream = stream(&team, &job, prompt("hello")).await;
        while let Some(event) = stream.next().await
            && !event.starts_with("event: error")
        {}
        let costs = team.complete(&job, "completed").await.ok()["costs"].clone();
        assert_eq!((&costs["failed_calls"], &costs["credit_applied"]), (&json!(1), &json!(false)));
        call_when(&team, &job, "the bill", |call| !call["cost_usd"].is_null()).await;
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn no_other_model_goes_on_where_a_stream_broke_off() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let team = app.team_using(&["cut", "gpt-4o-mini"], 1).await;
    let job = team.job().await;
    stream(&team, &job, prompt("hello")).await.rest().await;
    assert_eq!(crate::fixtures::models_asked(stand_in), ["cut"]);
    call_when(&team, &job, "the bill", |call| !call["cost_usd"].is_null()).await;
    app.check_invariants().await;
}

#[tokio::test]
async fn a_model_that_falls_silent_for_too_long_has_timed_out() {
    let variables = vec![("llm_timeout_seconds", "2".to_owned()), ("llm_idle_seconds", "2".to_owned())];
    let app = TestApp::start_with(Options { variables, ..Options::default() }).await;
    let team = app.team(1).await;
    let job = team.job().await;
    let events = stream(&team, &job, prompt("[[chunks=4]] [[stall_after=2]]")).await.rest().await;
    let last = events.last().expect("an event");
    assert!(last.starts_with("event: error\n") && last.contains(r#""code":"llm_timeout""#), "{last}");
    let call = call_when(&team, &job, "the end", |call| call["status"] != "open").await;
    assert_eq!((&call["status"], &call["error"]), (&json!("failed"), &json!("LLM call failed: Timed out")));
    call_when(&team, &job, "the bill", |call| !call["cost_usd"].is_null()).await;
    app.check_invariants().await;
}

#[tokio::test]
async fn litellm_going_down_within_a_stream_is_an_error_event_and_the_tokens_are_kept() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let team = app.team(1).await;
    let job = team.job().await;
    let mut stream = stream(&team, &job, prompt("[[chunks=50]] [[delay_ms=100]]")).await;
    for _ in 0..4 {
        stream.next_data().await.expect("an event");
    }

    stand_in.set_down(true);

    let rest = stream.rest().await;
    assert!(rest.last().is_some_and(|last| last.starts_with("event: error\n")), "{rest:?}");
    assert!(!rest.iter().any(|event| event.contains("[DONE]")), "{rest:?}");
    let call = call_when(&team, &job, "the end", |call| call["status"] != "open").await;
    assert_eq!(call["status"], "failed");
    assert!(call["completion_tokens"].as_i64() >= Some(3), "{call}");
    stand_in.set_down(false);
    // It is asked again until it is there again.
    call_when(&team, &job, "the bill", |call| !call["cost_usd"].is_null()).await;
    app.check_invariants().await;
}

#[tokio::test]
async fn a_stream_that_litellm_takes_for_complete_is_complete() {
    let app = TestApp::start().await;
    let team = app.team_using(&["early-end"], 1).await;
    let job = team.job().await;
    let (events, done) = events(stream(&team, &job, prompt("hello")).await).await;
    assert_eq!((&events.last().expect("a summary")["finish_reason"], done), (&json!("stop"), true));
    eventually("the settled call", async || {
        (team.read(&job).await["successful_calls"] == json!(1)).then_some(())
    })
    .await;
    app.check_invariants().await;
}
