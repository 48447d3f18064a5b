//! What of a call's body reaches LiteLLM, and what is refused.

use crate::fixtures::{
    call, completions, events, group_of, members, prompt, prompt_with, spend_log, stream, stream_refusal,
};
use api_tests::{Answer, TestApp};
use serde_json::{Value, json};

/// OpenAI's parameters, with values that a model would take.
fn parameters() -> Value {
    json!({
        "temperature": 0.7, "top_p": 0.9, "max_tokens": 50, "max_completion_tokens": 60, "n": 1, "stop": ["END"],
        "seed": 42, "user": "u1", "frequency_penalty": 0.1, "presence_penalty": -0.1, "logit_bias": {"50256": -100},
        "logprobs": true, "top_logprobs": 2, "response_format": {"type": "text"}, "tool_choice": "none",
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}],
        "parallel_tool_calls": false, "reasoning_effort": "low",
    })
}

#[tokio::test]
async fn openais_parameters_reach_the_model_as_they_came() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let team = app.team(1).await;
    let job = team.job().await;
    let body = prompt_with("hello", parameters());

    call(&team, &job, body.clone()).await.ok();
    events(stream(&team, &job, body.clone()).await).await;

    let mut expected = body;
    expected["model"] = json!("gpt-4o-mini");
    expected["stream"] = json!(false);
    let sent = completions(stand_in);
    assert_eq!(sent[0].body, expected);
    expected["stream"] = json!(true);
    expected["stream_options"] = json!({"include_usage": true});
    assert_eq!(sent[1].body, expected);
    app.check_invariants().await;
}

#[tokio::test]
async fn litellm_sees_the_teams_own_key_and_our_id_of_the_call() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let team = app.team(1).await;
    let job = team.job().await;

    let buffered = team.call(&job, "hello").await.ok()["call_id"].clone();
    let (events, _) = events(stream(&team, &job, prompt("hello")).await).await;
    let streamed = events.last().expect("a summary")["call_id"].clone();

    let key = stand_in.keys_of(&team.id).remove(0).token;
    for request in completions(stand_in) {
        assert_eq!(request.key_hash.as_deref(), Some(key.as_str()));
    }
    for call_id in [buffered, streamed] {
        let call_id = call_id.as_str().expect("an id");
        let logs = spend_log(stand_in, call_id).await;
        assert_eq!(logs[0]["litellm_call_id"], call_id);
        assert_eq!(logs[0]["team_id"], json!(team.id));
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn what_would_steer_litellm_is_refused_by_name_and_changes_nothing() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    let job = team.job().await;
    for field in [
        "api_base",
        "base_url",
        "api_key",
        "api_version",
        "metadata",
        "litellm_metadata",
        "fallbacks",
        "user_config",
        "model_list",
        "extra_body",
        "extra_headers",
        "headers",
        "mock_response",
        "custom_llm_provider",
        "tags",
        "num_retries",
        "timeout",
        "stream_timeout",
        "guardrails",
        "cache",
        "caching",
        "no-log",
        "input_cost_per_token",
        "router_settings_override",
        "litellm_call_id",
        "litellm_session_id",
        "temprature",
    ] {
        for refusal in [
            call(&team, &job, prompt_with("hello", json!({field: "x"}))).await,
            stream_refusal(&team, &job, prompt_with("hello", json!({field: "x"}))).await,
        ] {
            assert_eq!(
                (refusal.status.as_u16(), &refusal.body["code"]),
                (400, &json!("invalid_request")),
                "{field}"
            );
            let detail = refusal.body["detail"].as_str().expect("a detail");
            assert!(detail.starts_with(&format!("{field}: ")), "{detail}");
        }
    }
    // The same name, spelled otherwise.
    let escaped = r#"{"messages": [{"role": "user", "content": "hello"}], "\u0061pi_base": "http://x"}"#;
    let path = format!("/api/jobs/{job}/llm-call");
    let refusal = Answer::of(team.client.request(reqwest::Method::POST, &path).body(escaped)).await;
    assert!(
        refusal.body["detail"].as_str().is_some_and(|detail| detail.starts_with("api_base: ")),
        "{}",
        refusal.text
    );
    assert_eq!(team.read(&job).await["status"], "pending");
    app.check_invariants().await;
}

#[tokio::test]
async fn a_contradicting_stream_parameter_is_refused_and_an_agreeing_one_is_not() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    let job = team.job().await;
    let with = |stream: bool| prompt_with("hello", json!({"stream": stream}));
    for (refusal, here) in
        [(call(&team, &job, with(true)).await, false), (stream_refusal(&team, &job, with(false)).await, true)]
    {
        refusal.refused(
            400,
            "invalid_request",
            &format!("stream: this route answers with stream = {here}; expected that or none"),
        );
    }
    call(&team, &job, with(false)).await.ok();
    assert!(events(stream(&team, &job, with(true)).await).await.1);
    app.check_invariants().await;
}

#[tokio::test]
async fn bad_messages_and_values_are_refused_by_their_field() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    let job = team.job().await;
    for (body, field) in [
        (json!({}), "messages"),
        (json!({"messages": []}), "messages"),
        (json!({"messages": "hello"}), "messages"),
        (json!({"messages": [{"content": "no role"}]}), "messages[0].role"),
        (json!({"messages": [{"role": "robot", "content": "x"}]}), "messages[0].role"),
        (json!({"messages": [{"role": "user", "content": 5}]}), "messages[0].content"),
        (prompt_with("hello", json!({"temperature": 3})), "temperature"),
        (prompt_with("hello", json!({"max_tokens": 0})), "max_tokens"),
        (prompt_with("hello", json!({"n": 2})), "n"),
        (prompt_with("hello", json!({"model_group": "a b"})), "model_group"),
        (prompt_with("hello", json!({"call_metadata": []})), "call_metadata"),
    ] {
        let refusal = call(&team, &job, body.clone()).await;
        assert_eq!(
            (refusal.status.as_u16(), &refusal.body["code"]),
            (400, &json!("invalid_request")),
            "{body}"
        );
        let detail = refusal.body["detail"].as_str().expect("a detail");
        assert!(detail.starts_with(&format!("{field}: ")), "{detail}");
    }
    assert_eq!(team.read(&job).await["total_calls"], json!(0));
    app.check_invariants().await;
}

/// A team whose default group has this one model with these defaults.
async fn team_with_defaults(app: &TestApp, model: &str, config: Value) -> api_tests::Team {
    let group = group_of(app, json!([{"model_name": model, "priority": 0, "config": config}])).await;
    app.team_with(json!({"credits_allocated": 1, "model_groups": [group]})).await
}

#[tokio::test]
async fn a_groups_defaults_apply_where_the_caller_says_nothing() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let config = json!({"temperature": 0.1, "max_tokens": 2, "timeout_ms": 9000});
    let team = team_with_defaults(&app, "gpt-4o-mini", config).await;
    let job = team.job().await;

    let short = call(&team, &job, prompt("hello")).await.ok();
    let long =
        call(&team, &job, prompt_with("hello", json!({"max_tokens": 20, "temperature": 0}))).await.ok();

    assert_eq!(short["response"]["finish_reason"], "length");
    assert_eq!(short["response"]["content"], "You said:");
    assert_eq!(long["response"]["content"], "You said: hello");
    let sent: Vec<_> = completions(stand_in).into_iter().map(|request| request.body).collect();
    assert_eq!((&sent[0]["temperature"], &sent[0]["max_tokens"]), (&json!(0.1), &json!(2)));
    assert_eq!((&sent[1]["temperature"], &sent[1]["max_tokens"]), (&json!(0), &json!(20)));
    assert!(sent.iter().all(|body| !members(body).contains("timeout_ms")), "{sent:?}");
    app.check_invariants().await;
}

#[tokio::test]
async fn a_models_own_time_limit_cuts_it_short() {
    let app = TestApp::start().await;
    let team = team_with_defaults(&app, "gpt-4o-mini", json!({"timeout_ms": 500})).await;
    let job = team.job().await;
    // Without that limit the model answers, long before the deployment's own limit.
    for refusal in [
        call(&team, &job, prompt("[[first_ms=8000]] hello")).await,
        stream_refusal(&team, &job, prompt("[[first_ms=8000]] hello")).await,
    ] {
        refusal.refused(504, "llm_timeout", "LLM call failed: Timed out");
    }
    app.check_invariants().await;
}
