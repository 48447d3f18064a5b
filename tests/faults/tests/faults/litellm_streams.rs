//! LiteLLM's streams break off at any byte, turn into nonsense, or never end.

use crate::asking::{BOUND, ask, call, forget_connections, messages, places};
use api_tests::{Answer, Sse, Team, eventually};
use faults::{After, Application, Direction, RawServer, Script, Setup};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::time::timeout;

async fn app() -> Application {
    let variables = vec![("llm_timeout_seconds", "2".into()), ("llm_idle_seconds", "2".into())];
    Application::start_with(Setup { variables, ..Setup::default() }).await
}

/// The head of a stream, and an event of one.
const STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
const CHUNK: &str = r#"data: {"id":"x","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"A"}}]}"#;

/// A stream as its caller saw it.
enum Seen {
    /// An ordinary answer instead of one.
    Refused(Answer),
    /// All events, to `[DONE]`.
    Whole(String),
    /// Events, and then `event: error` with this.
    Broken(Value),
}

/// Makes a streamed call and reads it to its end, which must come in time, and be told.
async fn stream(team: &Team, job: &str, prompt: &str, context: &str) -> Seen {
    let path = format!("/api/jobs/{job}/llm-call-stream");
    let request = team.client.request(Method::POST, &path).body(messages(prompt).to_string());
    let read = async {
        let sse = Sse::of(request).await;
        if sse.headers["content-type"] != "text/event-stream" {
            return Seen::Refused(sse.into_answer().await);
        }
        let events = sse.rest().await;
        let last = events.last().unwrap_or_else(|| panic!("{context}: no event at all"));
        if let Some(error) = last.strip_prefix("event: error\ndata: ") {
            return Seen::Broken(serde_json::from_str(error).expect("JSON"));
        }
        assert_eq!(last, "data: [DONE]", "{context}: an end without a word: {events:?}");
        let texts =
            events.iter().filter_map(|event| serde_json::from_str(event.strip_prefix("data: ")?).ok());
        Seen::Whole(texts.filter_map(|event: Value| Some(event["content"].as_str()?.to_owned())).collect())
    };
    timeout(BOUND, read).await.unwrap_or_else(|_| panic!("{context}: no end within {BOUND:?}"))
}

/// What the job's one call ended as, once it has.
async fn end_of(team: &Team, job: &str) -> String {
    eventually("the call's end", async || {
        let call = team.read(job).await["calls"][0].clone();
        call["status"].as_str().filter(|status| *status != "open").map(str::to_owned)
    })
    .await
}

/// Whether completing the job is charged.
async fn is_charged(team: &Team, job: &str) -> bool {
    team.complete(job, "completed").await.ok()["costs"]["credit_applied"] == json!(true)
}

#[tokio::test]
async fn a_stream_cut_at_any_byte_ends_with_an_error_and_costs_nothing() {
    let app = app().await;
    let team = app.team(10_000).await;
    for direction in [Direction::ToServer, Direction::ToClient] {
        let before = app.to_litellm.passed(direction);
        let Seen::Whole(text) = stream(&team, &team.job().await, "hello", "uncut").await else {
            panic!("the uncut stream is not whole")
        };
        assert_eq!(text, "You said: hello");
        let length = app.to_litellm.passed(direction) - before;
        let mut broken = 0;
        for at in places(length, 50) {
            let context = format!("{direction:?}, cut after {at} of {length} bytes");
            let job = team.job().await;
            app.to_litellm.cut_once_after(direction, at);
            let seen = stream(&team, &job, "hello", &context).await;
            app.to_litellm.cut_no_more();
            let status = end_of(&team, &job).await;
            match seen {
                Seen::Whole(text) => {
                    assert_eq!(
                        (text.as_str(), status.as_str()),
                        ("You said: hello", "succeeded"),
                        "{context}"
                    );
                    assert!(is_charged(&team, &job).await, "{context}");
                }
                Seen::Broken(error) => {
                    assert_eq!(error["error"]["code"], "llm_failed", "{context}: {error}");
                    assert_eq!(status, "failed", "{context}");
                    assert!(!is_charged(&team, &job).await, "{context}");
                    broken += 1;
                }
                Seen::Refused(answer) => {
                    assert!([502, 503].contains(&answer.status.as_u16()), "{context}: {}", answer.text);
                    assert_eq!(status, "failed", "{context}");
                    assert!(!is_charged(&team, &job).await, "{context}");
                }
            }
        }
        assert!(broken > 0 || direction == Direction::ToServer, "no stream broke off");
    }
    app.recovers().await;
}

#[tokio::test]
async fn a_buffered_answer_cut_at_any_byte_is_no_answer_and_costs_nothing() {
    let app = app().await;
    let team = app.team(10_000).await;
    for direction in [Direction::ToServer, Direction::ToClient] {
        let before = app.to_litellm.passed(direction);
        ask(call(&team, &team.job().await, "hello", None)).await.expect("an answer").ok();
        let length = app.to_litellm.passed(direction) - before;
        let mut broken = 0;
        for at in places(length, 50) {
            let context = format!("{direction:?}, cut after {at} of {length} bytes");
            let job = team.job().await;
            app.to_litellm.cut_once_after(direction, at);
            let answer = ask(call(&team, &job, "hello", None)).await.expect("an answer");
            app.to_litellm.cut_no_more();
            let status = end_of(&team, &job).await;
            if answer.status == 200 {
                assert_eq!(answer.body["response"]["content"], "You said: hello", "{context}");
                assert_eq!(status, "succeeded", "{context}");
                assert!(is_charged(&team, &job).await, "{context}");
            } else {
                assert!([502, 503].contains(&answer.status.as_u16()), "{context}: {}", answer.text);
                assert_eq!(status, "failed", "{context}");
                assert!(!is_charged(&team, &job).await, "{context}");
                broken += 1;
            }
        }
        assert!(broken > 0, "{direction:?}: no cut was noticed");
    }
    app.recovers().await;
}

#[tokio::test]
async fn a_stream_that_goes_on_without_end_is_ended_in_time() {
    let seconds = |name, seconds: u64| (name, seconds.to_string());
    let variables = vec![seconds("llm_idle_seconds", 10), seconds("llm_stream_seconds", 3)];
    let app = Application::start_with(Setup { variables, ..Setup::default() }).await;
    let team = app.team(10).await;
    let chunks = format!("{}\n\n", CHUNK).repeat(10_000);
    let script = Script::of(format!("{STREAM}{chunks}")).paced(CHUNK.len() + 2, Duration::from_millis(50));
    let server = RawServer::start(script).await.expect("a server");
    app.to_litellm.set_target(server.address());
    forget_connections(&app).await;
    let job = team.job().await;
    let since = Instant::now();
    match stream(&team, &job, "hello", "without end").await {
        Seen::Broken(error) => assert_eq!(error["error"]["code"], "llm_timeout", "{error}"),
        Seen::Whole(text) => panic!("it was taken for whole: {text}"),
        Seen::Refused(answer) => panic!("{}", answer.text),
    }
    assert!(since.elapsed() > Duration::from_secs(3), "{:?}", since.elapsed());
    assert_eq!(end_of(&team, &job).await, "failed");
    assert!(!is_charged(&team, &job).await);
    app.to_litellm.set_target(app.litellm_address());
    forget_connections(&app).await;
    app.recovers().await;
}

#[tokio::test]
async fn a_stream_that_turns_into_nonsense_stops_or_never_ends_is_an_error_in_time() {
    let of = |text: &str| Script::of(format!("{STREAM}{CHUNK}\n\n{text}"));
    let slow = Duration::from_millis(50);
    let cases = [
        ("no JSON", of("data: <html>\n\n"), "llm_failed"),
        ("half of JSON", of("data: {\"choices\": [\n\n"), "llm_failed"),
        ("another type", of("data: {\"choices\": 7}\n\n"), "llm_failed"),
        ("no text", Script::of([of("data: ").bytes, vec![0xff, 0xfe, b'\n', b'\n']].concat()), "llm_failed"),
        ("no more", of(""), "llm_failed"),
        ("a reset", of("").then(After::Reset), "llm_failed"),
        ("silence", of("").then(After::Hold), "llm_timeout"),
        ("signs of life alone", of(&": alive\n\n".repeat(10_000)).paced(9, slow), "llm_timeout"),
        ("an event without end", of(&format!("data: {}", "x".repeat(64 << 20))).then(After::Hold), ""),
        ("an event by the byte", of(&format!("data: {}", "x".repeat(10_000))).paced(1, slow), "llm_timeout"),
    ];
    let app = app().await;
    let (team, other) = (app.team(100).await, app.team(1).await);
    for (name, script, code) in cases {
        let server = RawServer::start(script).await.expect("a server");
        app.to_litellm.set_target(server.address());
        forget_connections(&app).await;
        let job = team.job().await;
        match stream(&team, &job, "hello", name).await {
            Seen::Broken(error) => {
                let told = error["error"]["code"].as_str().unwrap_or_default();
                assert!(told == code || code.is_empty(), "{name}: {error}");
            }
            // What comes by the byte has not come at all in time.
            Seen::Refused(answer) if name.contains("by the byte") || name.contains("alone") => {
                assert_eq!((answer.status.as_u16(), &answer.body["code"]), (504, &json!(code)), "{name}");
            }
            Seen::Refused(answer) => panic!("{name}: {}", answer.text),
            Seen::Whole(text) => panic!("{name}: it was taken for whole: {text}"),
        }
        assert_eq!(end_of(&team, &job).await, "failed", "{name}");
        assert!(!is_charged(&team, &job).await, "{name}");
        // Who shares the instance has not suffered.
        other.balance().await;
    }
    app.to_litellm.set_target(app.litellm_address());
    forget_connections(&app).await;
    app.recovers().await;
}
