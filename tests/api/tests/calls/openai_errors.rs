//! Errors of OpenAI's own API: in the form that its clients read.

use crate::{
    fixtures::{call_when, members, prompt, prompt_with},
    openai::{CHAT, chat, chat_stream, chunks, credits_left},
};
use api_tests::{Answer, Team, TestApp};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Fails the test unless this is an error in OpenAI's form: status, type, code and param.
#[track_caller]
pub fn assert_error(answer: &Answer, status: u16, kind: &str, code: &str, param: Option<&str>) {
    assert_eq!(answer.status, status, "{}", answer.text);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert!(answer.header("x-request-id").is_some());
    assert_eq!(members(&answer.body), ["error"].into(), "{}", answer.text);
    let error = &answer.body["error"];
    assert_eq!(members(error), ["code", "message", "param", "type"].into());
    assert_eq!(
        [&error["type"], &error["code"], &error["param"]],
        [&json!(kind), &json!(code), &json!(param)],
        "{error}"
    );
    assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()));
    if let Some(length) = answer.header("content-length") {
        assert_eq!(length, answer.text.len().to_string());
    }
}

#[tokio::test]
async fn refusals_are_in_openais_form_and_leave_nothing_behind() {
    let app = TestApp::start().await;
    let (team, poor) = (app.team(5).await, app.team(0).await);
    let before = app.database.everything().await;
    for (param, fields) in [
        ("temperature", json!({"temperature": 3})),
        ("max_tokens", json!({"max_tokens": 0})),
        ("n", json!({"n": 2})),
        ("model", json!({"model": "openai/gpt-4o"})),
        ("messages", json!({"messages": []})),
        ("messages", json!({"messages": "hello"})),
        ("messages[0].role", json!({"messages": [{"role": "robot", "content": "x"}]})),
        ("stream", json!({"stream": "yes"})),
        ("api_base", json!({"api_base": "http://evil"})),
        ("metadata", json!({"metadata": {}})),
        ("job_type", json!({"job_type": "chat"})),
    ] {
        let answer = chat(&team, prompt_with("hello", fields)).await;
        assert_error(&answer, 400, "invalid_request_error", "invalid_request", Some(param));
        let message = answer.body["error"]["message"].as_str().expect("a message");
        assert!(message.starts_with(&format!("{param}: ")), "{message}");
    }
    assert_error(
        &chat(&team, json!({})).await,
        400,
        "invalid_request_error",
        "invalid_request",
        Some("messages"),
    );
    let text = async |body: String| Answer::of(team.client.request(Method::POST, CHAT).body(body)).await;
    assert_error(&text("{".into()).await, 400, "invalid_request_error", "invalid_request", None);
    assert_error(&text("[]".into()).await, 400, "invalid_request_error", "invalid_request", None);
    assert_error(
        &app.nobody().post(CHAT, prompt("x")).await,
        401,
        "authentication_error",
        "unauthenticated",
        None,
    );
    assert_error(
        &app.bearer("sk-wrong").post(CHAT, prompt("x")).await,
        401,
        "authentication_error",
        "unauthenticated",
        None,
    );
    assert_error(
        &app.admin().post(CHAT, prompt("x")).await,
        401,
        "authentication_error",
        "unauthenticated",
        None,
    );
    let answer = chat(&poor, prompt("hello")).await;
    assert_error(&answer, 402, "insufficient_quota", "insufficient_credits", None);
    assert_eq!(answer.body["error"]["message"], "Insufficient credits. Required: 1, Available: 0");
    let denied = chat(&team, prompt_with("hello", json!({"model": "gpt-4o-mini"}))).await;
    assert_error(&denied, 403, "permission_error", "model_group_denied", None);
    assert_eq!(app.database.everything().await, before);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_in_openais_form() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    let address = app.url().trim_start_matches("http://").to_owned();
    let mut connection = TcpStream::connect(address).await.expect("a connection");
    // The body is announced but not sent: a client that sends it may find the connection closed before it reads the
    // answer.
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: test\r\nauthorization: Bearer {}\r\ncontent-length: 5000000\r\n\r\n",
        team.key
    );
    connection.write_all(head.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.expect("an answer, and the end of the connection");
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(
        answer.contains(r#"{"error":{"message":"body: "#) && answer.contains(r#""code":"too_large"}}"#),
        "{answer}"
    );
}

#[tokio::test]
async fn a_suspended_team_is_refused_in_openais_form() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    app.admin().put(&format!("/api/teams/{}/suspend", team.id), json!({})).await.ok();
    assert_error(&chat(&team, prompt("hello")).await, 403, "permission_error", "team_suspended", None);
    assert_eq!(credits_left_of(&app, &team).await, 1);
}

async fn credits_left_of(app: &TestApp, team: &Team) -> i64 {
    let balance = app.admin().get(&format!("/api/credits/teams/{}/balance", team.id)).await.ok();
    balance["credits_available"].as_i64().expect("a number")
}

#[tokio::test]
async fn what_is_no_route_or_another_method_is_an_error_in_openais_form() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    for path in [
        "/v1/embeddings",
        "/v1",
        "/v1/",
        "/v1/chat",
        "/v1/chat/completions/",
        "/v1/models/a/b",
        "/v1/responses",
    ] {
        for method in [Method::GET, Method::POST] {
            let answer = Answer::of(team.client.request(method, path)).await;
            assert_error(&answer, 404, "invalid_request_error", "not_found", None);
        }
    }
    for (method, path, allowed) in [
        (Method::GET, CHAT, "POST"),
        (Method::DELETE, "/v1/models", "GET"),
        (Method::POST, "/v1/models/x", "GET"),
    ] {
        let answer = Answer::of(team.client.request(method, path)).await;
        assert_error(&answer, 405, "invalid_request_error", "method_not_allowed", None);
        assert!(answer.header("allow").is_some_and(|list| list.contains(allowed)), "{:?}", answer.headers);
    }
}

#[tokio::test]
async fn failures_of_the_models_are_in_openais_form_and_cost_nothing() {
    let app = TestApp::start().await;
    for stream in [false, true] {
        for (models, status, kind, code) in [
            (&["err500", "err503"][..], 502, "server_error", "llm_failed"),
            (&["err401"], 502, "server_error", "llm_failed"),
            (&["timeout"], 504, "server_error", "llm_timeout"),
            (&["err400"], 400, "invalid_request_error", "invalid_request"),
        ] {
            let team = app.team_using(models, 1).await;
            let answer = chat(&team, prompt_with("hello", json!({"stream": stream}))).await;
            assert_eq!(answer.body["error"]["param"], Value::Null, "{}", answer.text);
            assert_error(&answer, status, kind, code, None);
            let job = team.read(answer.header("x-job-id").expect("a job")).await;
            assert_eq!((&job["status"], &job["credit_applied"]), (&json!("failed"), &json!(false)));
            assert_eq!(credits_left(&team).await, 1);
        }
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn litellms_limits_are_in_openais_form_too() {
    let app = TestApp::start().await;
    let limited = app.team_with(json!({"credits_allocated": 5, "rpm_limit": 1})).await;
    chat(&limited, prompt("hello")).await.ok();
    let answer = chat(&limited, prompt("hello")).await;
    assert_error(&answer, 429, "rate_limit_error", "rate_limited", None);
    assert!(answer.header("retry-after").is_some());
    let group = app.model_group(&["expensive"]).await;
    let spent =
        app.team_with(json!({"credits_allocated": 5, "max_budget": 0.5, "model_groups": [group]})).await;
    chat(&spent, prompt("[[prompt_tokens=1000]]")).await.ok();
    let answer = chat(&spent, prompt("hello")).await;
    assert_error(&answer, 402, "insufficient_quota", "budget_exhausted", None);
    assert_eq!((credits_left(&limited).await, credits_left(&spent).await), (4, 4));
    app.check_invariants().await;
}

#[tokio::test]
async fn a_stream_that_breaks_ends_with_an_error_in_openais_form() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    let stream = chat_stream(&team, "[[chunks=8]] [[error_after=3]] hello", json!({})).await;
    let job = stream.headers["x-job-id"].to_str().expect("text").to_owned();
    let (mut chunks, done) = chunks(stream).await;
    assert!(!done, "it is not complete");
    let last = chunks.pop().expect("an error");
    assert_eq!(members(&last), ["error"].into());
    assert_eq!(
        (&last["error"]["type"], &last["error"]["code"]),
        (&json!("server_error"), &json!("llm_failed"))
    );
    assert_eq!(chunks[0]["object"], "chat.completion.chunk");
    call_when(&team, &job, "LiteLLM's bill", |call| call["cost_usd"].as_f64() > Some(0.0)).await;
    assert_eq!((team.read(&job).await["status"].clone(), credits_left(&team).await), (json!("failed"), 1));
    app.check_invariants().await;
}
