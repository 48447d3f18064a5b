//! What comes from LiteLLM's address is no answer, or none that can be meant.

use crate::asking::{ask, assert_unavailable, call, forget_connections, is_charged, messages, post};
use api_tests::{Answer, Team, eventually};
use faults::{After, Application, Mode, RawServer, Script, Setup};
use serde_json::json;
use std::time::Duration;

/// What a caller gets: the status, its code, and the text of the detail.
type Told = (u16, &'static str, &'static str);

const FAILED: Told = (502, "llm_failed", "LLM call failed: The model failed");
const TIMED_OUT: Told = (504, "llm_timeout", "LLM call failed: Timed out");
const AWAY: Told = (503, "unavailable", "LiteLLM can't be reached at the moment");
const TOO_MANY: Told = (429, "rate_limited", "LLM call failed: Rate limit exceeded");
const BUSY: Told = (502, "llm_failed", "LLM call failed: Rate limit exceeded");
const DENIED: Told = (502, "llm_failed", "LLM call failed: The model is not accessible");

/// How long a model may take, in these tests.
const PATIENCE: Duration = Duration::from_secs(2);

async fn app() -> Application {
    let seconds = PATIENCE.as_secs().to_string();
    let variables = vec![("llm_timeout_seconds", seconds.clone()), ("llm_idle_seconds", seconds)];
    Application::start_with(Setup { variables, ..Setup::default() }).await
}

/// Puts something else into LiteLLM's place.
async fn replace_litellm(app: &Application, script: Script) -> RawServer {
    let server = RawServer::start(script).await.expect("a server");
    app.to_litellm.set_target(server.address());
    forget_connections(app).await;
    server
}

async fn bring_litellm_back(app: &Application) {
    app.to_litellm.set(Mode::Pass).await;
    app.to_litellm.set_target(app.litellm_address());
    forget_connections(app).await;
}

#[track_caller]
fn assert_told(answer: &Answer, told: Told, context: &str) {
    let (status, code, detail) = told;
    assert_eq!(
        (answer.status.as_u16(), &answer.body["code"], &answer.body["detail"]),
        (status, &json!(code), &json!(detail)),
        "{context}: {}",
        answer.text
    );
    assert_eq!(answer.body.as_object().map(|body| body.len()), Some(2), "{context}: {}", answer.text);
    let seconds = answer.header("retry-after").and_then(|seconds| seconds.parse::<u32>().ok());
    assert!(seconds.is_some(), "{context}: when to come again is not said: {:?}", answer.headers);
}

/// Makes a buffered and a streamed call, each in a job of its own, which both must be told the same; and nothing is
/// charged.
async fn both_calls_are_told(app: &Application, team: &Team, told: Told, context: &str) {
    for route in ["llm-call", "llm-call-stream"] {
        let context = format!("{context}, {route}");
        let job = team.job().await;
        let request = post(&team.client, &format!("/api/jobs/{job}/{route}"), &messages("hello"), None);
        let answer = ask(request).await.unwrap_or_else(|| panic!("{context}: no answer"));
        assert_told(&answer, told, &context);
        costs_nothing(app, team, &job, told, &context).await;
    }
}

/// The job has one call, which failed, or was refused where the caller was told that it has used up its own limit;
/// completing it is free.
async fn costs_nothing(app: &Application, team: &Team, job: &str, told: Told, context: &str) {
    let (status, counted) =
        if told == TOO_MANY { ("refused", "refused_calls") } else { ("failed", "failed_calls") };
    let call = team.read(job).await["calls"][0].clone();
    assert_eq!(call["status"], status, "{context}: {call}");
    let costs = team.complete(job, "completed").await.ok()["costs"].clone();
    assert_eq!((&costs[counted], &costs["credit_applied"]), (&json!(1), &json!(false)), "{context}");
    let calls = costs["failed_calls"].as_i64().zip(costs["refused_calls"].as_i64());
    assert_eq!(calls.map(|(failed, refused)| failed + refused), Some(1), "{context}");
    assert_eq!(app.number("SELECT used FROM credit_accounts").await, 0, "{context}");
}

#[tokio::test]
async fn an_address_that_is_not_litellms_any_more_is_a_503_at_once() {
    let app = app().await;
    let team = app.team(10).await;
    for mode in [Mode::Refuse, Mode::Reset] {
        app.to_litellm.set(mode).await;
        forget_connections(&app).await;
        both_calls_are_told(&app, &team, AWAY, &format!("{mode:?}")).await;
    }
    bring_litellm_back(&app).await;
    app.recovers().await;
}

#[tokio::test]
async fn an_address_that_never_answers_is_a_504_in_time() {
    let app = app().await;
    let team = app.team(10).await;
    app.to_litellm.set(Mode::Stall).await;
    forget_connections(&app).await;
    both_calls_are_told(&app, &team, TIMED_OUT, "stalled").await;
    app.to_litellm.set(Mode::Pass).await;
    let silent = replace_litellm(&app, Script::of("").then(After::Hold)).await;
    both_calls_are_told(&app, &team, TIMED_OUT, "silent").await;
    drop(silent);
    bring_litellm_back(&app).await;
    app.recovers().await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_address_that_no_connection_reaches_is_a_503_in_time() {
    let variables =
        vec![("litellm_connect_seconds", "1".to_owned()), ("llm_timeout_seconds", "60".to_owned())];
    let app = Application::start_with(Setup { variables, ..Setup::default() }).await;
    let team = app.team(10).await;
    app.to_litellm.set(Mode::Ignore).await;
    forget_connections(&app).await;
    both_calls_are_told(&app, &team, AWAY, "ignored").await;
    bring_litellm_back(&app).await;
    app.recovers().await;
}

#[tokio::test]
async fn what_is_no_answer_of_litellm_is_a_failure_of_the_model_and_nothing_of_it_is_passed_on() {
    let json = "content-type: application/json\r\n";
    let of = |body: &str| Script::http("200 OK", json, body);
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
    let cases = [
        ("no HTTP", Script::of("220 mail.example ESMTP\r\n\r\n"), AWAY),
        ("nothing", Script::of(""), AWAY),
        ("a reset", Script::of("").then(After::Reset), AWAY),
        ("half a head", Script::of("HTTP/1.1 200 OK\r\ncontent-ty"), AWAY),
        ("a head without end", Script::of(format!("{head}x-more: {}", "x".repeat(1 << 20))), AWAY),
        ("no JSON", of("<html>proxy error</html>"), FAILED),
        ("half of JSON", of(r#"{"choices": [{"message": {"role": "assist"#), FAILED),
        ("an empty body", of(""), FAILED),
        ("null", of("null"), FAILED),
        ("a list", of("[]"), FAILED),
        ("no choices", of(r#"{"choices": []}"#), FAILED),
        ("choices that are none", of(r#"{"choices": [null]}"#), FAILED),
        ("a message that is none", of(r#"{"choices": [{"message": 7}]}"#), FAILED),
        ("no text", Script::http("200 OK", json, "\u{0}\u{1}\u{fffd}"), FAILED),
        (
            "another encoding",
            Script::http("200 OK", "content-encoding: gzip\r\n", "\u{1f}\u{8b}\u{8}"),
            FAILED,
        ),
        ("no content", Script::of("HTTP/1.1 204 No Content\r\n\r\n"), FAILED),
        ("elsewhere", Script::http("302 Found", "location: http://127.0.0.1:1/\r\n", ""), FAILED),
        ("a server error", Script::http("500 Internal Server Error", json, r#"{"error": "secret"}"#), FAILED),
        (
            "a gateway's error",
            Script::http("502 Bad Gateway", "content-type: text/html\r\n", "secret"),
            FAILED,
        ),
        ("an unknown status", Script::http("599 What", json, "{}"), FAILED),
        ("credentials refused", Script::http("403 Forbidden", json, "secret"), DENIED),
    ];
    let app = app().await;
    let team = app.team(100).await;
    for (name, script, told) in cases {
        let server = replace_litellm(&app, script).await;
        both_calls_are_told(&app, &team, told, name).await;
        drop(server);
    }
    bring_litellm_back(&app).await;
    app.recovers().await;
}

#[tokio::test]
async fn an_answer_whose_numbers_are_none_is_passed_on_without_them() {
    let app = app().await;
    let team = app.team(10).await;
    let numbers =
        ["7", "[]", "{\"total_tokens\": 1e999}", "{\"prompt_tokens\": -1}", "{\"total_tokens\": \"many\"}"];
    for (number, usage) in (1..).zip(numbers) {
        let body = format!(r#"{{"choices": [{{"message": {{"content": "hello"}}}}], "usage": {usage}}}"#);
        let script = Script::http("200 OK", "content-type: application/json\r\n", &body);
        let server = replace_litellm(&app, script).await;
        let job = team.job().await;
        let answer = ask(call(&team, &job, "hello", None)).await.expect("an answer").ok();
        assert_eq!(answer["response"]["content"], "hello", "{usage}");
        assert_eq!(answer["metadata"]["tokens_used"], json!(null), "{usage}: {answer}");
        let call = team.read(&job).await["calls"][0].clone();
        let told = (&call["status"], &call["implausible_usage"], &call["tokens"], &call["cost_usd"]);
        assert_eq!(told, (&json!("succeeded"), &json!(true), &json!(0), &json!(null)), "{usage}: {call}");
        is_charged(&team, &job, usage).await;
        assert_eq!(app.number("SELECT used FROM credit_accounts").await, number, "{usage}");
        drop(server);
    }
    bring_litellm_back(&app).await;
    app.recovers().await;
}

#[tokio::test]
async fn a_body_that_breaks_off_or_never_ends_is_no_answer() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100000000\r\n\r\n";
    let chunked = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    let piece = format!("{:x}\r\n{}\r\n", 1 << 20, " ".repeat(1 << 20));
    let app = app().await;
    let team = app.team(100).await;
    let cases = [
        ("breaks off", Script::of(format!("{head}{{")), AWAY),
        ("is reset", Script::of(format!("{head}{{")).then(After::Reset), AWAY),
        ("chunks that are none", Script::of(format!("{chunked}nonsense\r\n")), AWAY),
        ("stops", Script::of(format!("{head}{{")).then(After::Hold), TIMED_OUT),
        (
            "trickles",
            Script::of(format!("{head}{{{}", " ".repeat(10_000))).paced(1, Duration::from_millis(50)),
            TIMED_OUT,
        ),
    ];
    for (name, script, told) in cases {
        let server = replace_litellm(&app, script).await;
        let job = team.job().await;
        let answer = ask(call(&team, &job, "hello", None)).await.expect("an answer");
        assert_told(&answer, told, name);
        costs_nothing(&app, &team, &job, told, name).await;
        drop(server);
    }
    // Endless, as fast as it is read: it is not read to memory's end.
    let endless = Script::of(format!("{chunked}{}", piece.repeat(64))).then(After::Hold);
    let server = replace_litellm(&app, endless).await;
    let job = team.job().await;
    let answer = ask(call(&team, &job, "hello", None)).await.expect("an answer");
    assert!([502, 503, 504].contains(&answer.status.as_u16()), "{}", answer.text);
    costs_nothing(&app, &team, &job, FAILED, "endless").await;
    drop(server);
    bring_litellm_back(&app).await;
    app.recovers().await;
}

#[tokio::test]
async fn in_a_storm_of_429_the_keys_own_limit_is_passed_on_and_the_providers_is_not() {
    let app = app().await;
    let team = app.team(1000).await;
    let error = r#"{"error": {"message": "too many", "type": "None", "param": "None", "code": "429"}}"#;
    let own = Script::http(
        "429 Too Many Requests",
        "content-type: application/json\r\nretry-after: 37\r\nrate_limit_type: requests\r\n",
        error,
    );
    let server = replace_litellm(&app, own).await;
    let storm = futures::future::join_all((0..40).map(async |_| {
        let job = team.job().await;
        let answer = ask(call(&team, &job, "hello", None)).await.expect("an answer");
        // Of so many connections at once the server may not have taken all, or not in time.
        if answer.status == 503 {
            assert_unavailable(&answer, "a connection that was not taken");
            return 0;
        }
        if answer.status == 504 {
            assert_told(&answer, TIMED_OUT, "a connection that was taken late");
            return 0;
        }
        assert_told(&answer, TOO_MANY, "the key's limit");
        assert_eq!(answer.header("retry-after"), Some("37"));
        1
    }));
    let told: usize = storm.await.into_iter().sum();
    assert!(told > 20, "only {told} were told");
    drop(server);
    for when in ["", "retry-after: soon\r\n", "retry-after: -1\r\n"] {
        let headers = format!("content-type: application/json\r\nrate_limit_type: requests\r\n{when}");
        let server = replace_litellm(&app, Script::http("429 Too Many Requests", &headers, error)).await;
        both_calls_are_told(&app, &team, TOO_MANY, when).await;
        drop(server);
    }
    let providers =
        Script::http("429 Too Many Requests", "retry-after: 37\r\nx-litellm-call-id: x\r\n", error);
    let server = replace_litellm(&app, providers).await;
    both_calls_are_told(&app, &team, BUSY, "the provider's limit").await;
    drop(server);
    bring_litellm_back(&app).await;
    assert_eq!(app.number("SELECT used FROM credit_accounts").await, 0);
    app.recovers().await;
}

#[tokio::test]
async fn a_first_model_that_is_out_of_reach_does_not_keep_the_second_from_answering() {
    let app = app().await;
    let team = app.team_using(&["timeout", "err503", "gpt-4o-mini"], 1).await;
    let job = team.job().await;
    let answer = ask(call(&team, &job, "hello", None)).await.expect("an answer").ok();
    assert_eq!(answer["response"]["content"], "You said: hello");
    let costs = team.complete(&job, "completed").await.ok()["costs"].clone();
    assert_eq!(costs["credit_applied"], json!(true));
    // What the model given up on cost is known when it has ended.
    eventually("every call settled", async || {
        (app.number("SELECT count(*) FROM calls WHERE settled_at IS NULL").await == 0).then_some(())
    })
    .await;
    app.recovers().await;
}
