//! The models of a group are tried in order, as long as another one may do better.

use crate::fixtures::{call, events, group_of, models_asked, prompt, stream, stream_refusal};
use api_tests::{Team, TestApp};
use serde_json::{Value, json};

/// What goes wrong with a model and is worth another one, and what the caller is told if it is the last one.
const PASSING: [(&str, u16, &str, &str); 7] = [
    ("err429", 502, "llm_failed", "LLM call failed: Rate limit exceeded"),
    ("err500", 502, "llm_failed", "LLM call failed: The model failed"),
    ("err503", 502, "llm_failed", "LLM call failed: The model failed"),
    ("refused", 502, "llm_failed", "LLM call failed: The model failed"),
    ("err404", 502, "llm_failed", "LLM call failed: The model is not available"),
    ("no-such-model", 502, "llm_failed", "LLM call failed: The model is not available"),
    ("timeout", 504, "llm_timeout", "LLM call failed: Timed out"),
];

/// What no other model would do better.
const FINAL: [(&str, u16, &str, &str); 3] = [
    ("err400", 400, "invalid_request", "LLM call failed: Invalid value for a parameter."),
    ("err400-context", 400, "invalid_request", "LLM call failed: Invalid value for a parameter."),
    ("err401", 502, "llm_failed", "LLM call failed: The model is not accessible"),
];

/// The attempts of the job's one call, as the admin sees them.
async fn attempts(app: &TestApp, job: &str) -> Value {
    app.admin().get(&format!("/api/jobs/{job}")).await.ok()["calls"][0]["attempts"].clone()
}

/// The names of the models in a call's attempts.
fn tried(attempts: &Value) -> Vec<&str> {
    let attempts = attempts.as_array().expect("a list");
    attempts.iter().map(|attempt| attempt["model"].as_str().expect("a model")).collect()
}

async fn team_and_job(app: &TestApp, models: &[&str]) -> (Team, String) {
    let team = app.team_using(models, 1).await;
    let job = team.job().await;
    (team, job)
}

#[tokio::test]
async fn a_model_that_fails_gives_way_to_the_next() {
    let app = TestApp::start().await;
    for (model, ..) in PASSING {
        let (team, job) = team_and_job(&app, &[model, "gpt-4o-mini", "gpt-4o"]).await;
        let answer = team.call(&job, "hello").await.ok();
        assert_eq!(answer["response"]["content"], "You said: hello", "{model}");
        assert_eq!(tried(&attempts(&app, &job).await), [model, "gpt-4o-mini"]);
        let read = team.read(&job).await;
        assert_eq!((&read["successful_calls"], &read["failed_calls"]), (&json!(1), &json!(0)), "{model}");
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn a_stream_too_begins_with_the_first_model_that_works() {
    let app = TestApp::start().await;
    for (model, ..) in PASSING {
        let (team, job) = team_and_job(&app, &[model, "gpt-4o-mini"]).await;
        let (events, done) = events(stream(&team, &job, prompt("hello")).await).await;
        let text: String = events.iter().filter_map(|event| event["content"].as_str()).collect();
        assert_eq!((text.as_str(), done), ("You said: hello", true), "{model}");
        assert_eq!(tried(&attempts(&app, &job).await), [model, "gpt-4o-mini"]);
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn a_failure_that_no_model_would_do_better_is_answered_at_once() {
    let app = TestApp::start().await;
    for (model, status, code, detail) in FINAL {
        let (team, job) = team_and_job(&app, &[model, "gpt-4o-mini"]).await;
        team.call(&job, "hello").await.refused(status, code, detail);
        stream_refusal(&team, &job, prompt("hello")).await.refused(status, code, detail);
        assert_eq!(tried(&attempts(&app, &job).await), [model]);
        let read = team.read(&job).await;
        // The request itself was refused, or what LiteLLM may use: a fault of the caller's or of the seller's.
        let expected = if code == "invalid_request" { [2, 0] } else { [0, 2] };
        assert_eq!([&read["refused_calls"], &read["failed_calls"]], expected, "{model}");
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn litellm_is_asked_in_the_groups_order_and_no_further_than_needed() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    // Listed in another order than that of their priorities.
    let model = |name: &str, priority: u32| json!({"model_name": name, "priority": priority});
    let models = json!([model("gpt-4o", 9), model("err503", 1), model("gpt-4o-mini", 2), model("err500", 0)]);
    let group = group_of(&app, models).await;
    let team = app.team_with(json!({"credits_allocated": 1, "model_groups": [group]})).await;
    let job = team.job().await;
    team.call(&job, "hello").await.ok();
    assert_eq!(models_asked(stand_in), ["err500", "err503", "gpt-4o-mini"]);
    app.check_invariants().await;
}

#[tokio::test]
async fn when_every_model_fails_the_last_failure_decides() {
    let app = TestApp::start().await;
    for (model, status, code, detail) in PASSING {
        let first = if model == "timeout" { "err500" } else { "err429" };
        let (team, job) = team_and_job(&app, &[first, model]).await;
        let answer = team.call(&job, "hello").await;
        assert!(answer.header("x-call-id").is_some() && answer.header("server-timing").is_some(), "{model}");
        answer.refused(status, code, detail);
        stream_refusal(&team, &job, prompt("hello")).await.refused(status, code, detail);
        assert_eq!(tried(&attempts(&app, &job).await), [first, model]);
        let call = &team.read(&job).await["calls"][0];
        assert_eq!((&call["status"], &call["error"]), (&json!("failed"), &json!(detail)), "{model}");
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn a_buffered_answer_that_breaks_off_or_hangs_gives_way_to_the_next_model() {
    let app = TestApp::start().await;
    for model in ["cut", "midstream-error", "stall"] {
        let (team, job) = team_and_job(&app, &[model, "gpt-4o-mini"]).await;
        assert_eq!(team.call(&job, "hello").await.ok()["response"]["content"], "You said: hello", "{model}");
        assert_eq!(tried(&attempts(&app, &job).await), [model, "gpt-4o-mini"]);
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn a_model_slower_than_its_own_limit_gives_way_to_the_next() {
    let app = TestApp::start().await;
    let slow = json!({"model_name": "slow", "priority": 0, "config": {"timeout_ms": 300}});
    let group = group_of(&app, json!([slow, {"model_name": "gpt-4o-mini", "priority": 1}])).await;
    let team = app.team_with(json!({"credits_allocated": 1, "model_groups": [group]})).await;
    let job = team.job().await;
    team.call(&job, "hello").await.ok();
    assert_eq!(tried(&attempts(&app, &job).await), ["slow", "gpt-4o-mini"]);
    app.check_invariants().await;
}

#[tokio::test]
async fn only_the_admin_sees_what_was_tried_and_why_it_failed() {
    let app = TestApp::start().await;
    let (team, job) = team_and_job(&app, &["err503", "gpt-4o-mini"]).await;
    team.call(&job, "hello").await.ok();

    let attempts = attempts(&app, &job).await;
    assert_eq!(attempts.as_array().map(Vec::len), Some(2));
    let (failed, answered) = (&attempts[0], &attempts[1]);
    assert_eq!((&failed["model"], &failed["outcome"]), (&json!("err503"), &json!("failed")));
    assert_eq!(failed["status"], json!(503));
    assert!(failed["reason"].as_str().expect("a reason").contains("overloaded"), "{failed}");
    assert!(failed["latency_ms"].is_u64() && answered["latency_ms"].is_u64());
    assert_eq!((&answered["model"], &answered["outcome"]), (&json!("gpt-4o-mini"), &json!("answered")));

    let seen = team.read(&job).await;
    assert!(!crate::fixtures::members(&seen["calls"][0]).contains("attempts"), "{seen}");
    app.check_invariants().await;
}

#[tokio::test]
async fn litellm_out_of_reach_is_503_and_the_call_has_failed() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let (team, job) = team_and_job(&app, &["gpt-4o-mini", "gpt-4o"]).await;
    stand_in.set_down(true);
    for answer in [team.call(&job, "hello").await, stream_refusal(&team, &job, prompt("hello")).await] {
        assert!(answer.header("retry-after").is_some());
        answer.refused(503, "unavailable", "LiteLLM can't be reached at the moment");
    }
    stand_in.set_down(false);
    assert_eq!(team.read(&job).await["failed_calls"], json!(2));
    call(&team, &job, prompt("hello")).await.ok();
    assert_eq!(team.complete(&job, "completed").await.ok()["costs"]["credit_applied"], json!(false));
    app.check_invariants().await;
}
