//! What the client of LiteLLM sees when the model fails, before its answer and in the middle of it.

mod world;

use std::time::Instant;

use serde_json::{Value, json};
use world::{prompt, stream, world};

#[tokio::test]
async fn an_upstreams_error_comes_with_its_status_in_both_ways_of_calling() {
    let expected = [
        ("err400", 400, "invalid_request_error", "litellm.BadRequestError: OpenAIException - Invalid value"),
        (
            "err400-context",
            400,
            "invalid_request_error",
            "litellm.BadRequestError: OpenAIException - Invalid value",
        ),
        (
            "err401",
            401,
            "authentication_error",
            "litellm.AuthenticationError: AuthenticationError: OpenAIException",
        ),
        (
            "err404",
            404,
            "invalid_request_error",
            "litellm.NotFoundError: OpenAIException - The model does not",
        ),
        (
            "err429",
            429,
            "throttling_error",
            "litellm.RateLimitError: RateLimitError: OpenAIException - Rate limit",
        ),
        (
            "err500",
            500,
            "internal_server_error",
            "litellm.InternalServerError: InternalServerError: OpenAIExcep",
        ),
        (
            "err503",
            503,
            "internal_server_error",
            "litellm.ServiceUnavailableError: ServiceUnavailableError: Open",
        ),
        (
            "midstream-error",
            500,
            "internal_server_error",
            "litellm.InternalServerError: InternalServerError: Op",
        ),
        (
            "refused",
            500,
            "internal_server_error",
            "litellm.InternalServerError: InternalServerError: OpenAIExcepti",
        ),
        (
            "cut",
            500,
            "internal_server_error",
            "litellm.InternalServerError: InternalServerError: OpenAIException",
        ),
    ];
    let world = world().await;
    let master = world.litellm.master_key();
    for (model, status, kind, message) in expected {
        let mut bodies = vec![prompt(model, "hi")];
        if !["midstream-error", "cut"].contains(&model) {
            bodies.push(stream(model, "hi"));
        }
        for body in bodies {
            let answer = world.chat(master, body).await;
            assert_eq!(answer.failure(), (status, kind.to_owned()), "{model}");
            assert!(answer.message().starts_with(message), "{model}: {}", answer.message());
            assert!(answer.message().ends_with("failed with the error above. No fallback was attempted."));
            assert_eq!(answer.error("code"), status.to_string());
            assert_eq!(answer.header("x-litellm-response-cost"), "0");
            assert_eq!(answer.header("x-litellm-call-id").len(), 36);
        }
    }
}

#[tokio::test]
async fn an_upstreams_rate_limit_tells_its_retry_after_under_another_name() {
    let world = world().await;
    let answer = world.chat(world.litellm.master_key(), prompt("err429", "hi")).await;
    assert_eq!(answer.header("llm_provider-retry-after"), "7");
    assert!(!answer.headers.contains_key("retry-after"));
    assert!(!answer.headers.contains_key("rate_limit_type"));
}

#[tokio::test]
async fn marks_ask_for_any_status() {
    let world = world().await;
    let master = world.litellm.master_key();
    let expected = [
        (403, 403, "invalid_request_error"),
        (408, 408, "invalid_request_error"),
        (418, 418, "invalid_request_error"),
        (422, 422, "server_error"),
        (502, 502, "internal_server_error"),
        (504, 504, "internal_server_error"),
        (301, 500, "internal_server_error"),
    ];
    for (asked, status, kind) in expected {
        let answer = world.chat(master, prompt("gpt-4o", &format!("[[status={asked}]]"))).await;
        assert_eq!(answer.failure(), (status, kind.to_owned()));
    }
    let answer = world.chat(master, prompt("gpt-4o", "[[nope=1]]")).await;
    assert_eq!(answer.status, 400);
    assert!(answer.message().contains("there is no mark nope"));
    let answer =
        world.chat(master, prompt("gpt-4o", "[[status=400]] [[code=content_policy_violation]]")).await;
    assert!(answer.message().contains("ContentPolicyViolationError"));
}

#[tokio::test]
async fn litellm_gives_up_on_a_silent_model_with_408() {
    let world = world().await;
    let master = world.litellm.master_key();
    let begun = Instant::now();
    // None of them ever says anything.
    let bodies = [prompt("timeout", "hi"), stream("timeout", "hi"), prompt("stall", "hi")];
    let [buffered, streamed, stalled] = bodies.map(|body| world.chat(master, body));
    let (buffered, streamed, stalled) = futures::join!(buffered, streamed, stalled);
    assert!(begun.elapsed().as_secs_f64() >= 2.0);
    for answer in [&buffered, &streamed, &stalled] {
        assert_eq!(answer.failure(), (408, "invalid_request_error".to_owned()));
        assert_eq!(answer.header("x-litellm-timeout"), "2.0");
    }
    assert!(buffered.message().contains("timeout value=2.0"));
    assert!(!streamed.message().contains("timeout value"));
}

#[tokio::test]
async fn the_caller_may_shorten_the_wait() {
    let world = world().await;
    let master = world.litellm.master_key();
    let mut body = prompt("gpt-4o", "[[first_ms=5000]]");
    body["timeout"] = json!(0.1);
    let answer = world.chat(master, body).await;
    assert_eq!((answer.status, answer.header("x-litellm-timeout")), (408, "0.1"));
    let mut body = stream("gpt-4o", "[[first_ms=300]]");
    body["timeout"] = json!(0.1);
    assert_eq!(world.chat(master, body.clone()).await.status, 200, "a stream has a time limit of its own");
    body["stream_timeout"] = json!(0.1);
    assert_eq!(world.chat(master, body).await.status, 408);
}

#[tokio::test]
async fn a_stream_that_breaks_ends_with_an_error_event_and_without_done() {
    let world = world().await;
    let key = world.key(json!({})).await;
    let expected = [
        ("cut", "word0 word1 word2 ", "Response payload is not completed"),
        ("midstream-error", "word0 word1 word2 ", "The server had an error while processing your request"),
        ("stall", "You said:", "Timeout on reading data from socket"),
    ];
    for (model, text, message) in expected {
        let before = world.key_info(&key).await["spend"].as_f64().unwrap_or_default();
        let answer = world.chat(&key, stream(model, "hi")).await;
        assert_eq!((answer.status, answer.streamed().as_str()), (200, text));
        let last = answer.events().pop().expect("an event");
        assert!(last["error"]["message"].as_str().is_some_and(|said| said.contains(message)), "{last}");
        assert_eq!((&last["error"]["code"], &last["error"]["type"]), (&json!("500"), &Value::Null));
        let after = world.key_info(&key).await["spend"].as_f64().unwrap_or_default();
        assert!(after > before, "what was streamed is billed");
    }
    let rows = world.admin_get("/spend/logs").await.json();
    assert_eq!(rows[0]["status"], "failure");
    assert_eq!(rows[0]["spend"].as_f64(), Some(1.45e-5), "as the real one billed it");
}

#[tokio::test]
async fn a_pause_longer_than_the_time_limit_breaks_a_stream() {
    let world = world().await;
    let mut body = stream("gpt-4o", "[[delay_ms=500]] hi");
    body["stream_timeout"] = json!(0.1);
    let answer = world.chat(world.litellm.master_key(), body).await;
    assert_eq!((answer.status, answer.streamed().as_str()), (200, ""));
    assert!(answer.text.contains("Timeout on reading data from socket"));
}

#[tokio::test]
async fn a_stream_that_breaks_at_once_is_an_ordinary_error() {
    let world = world().await;
    let answer = world.chat(world.litellm.master_key(), stream("gpt-4o", "[[cut_after=2]] hi")).await;
    assert_eq!((answer.status, answer.header("content-type")), (500, "application/json"));
    assert!(answer.json()["error"]["type"].is_null());
}

#[tokio::test]
async fn an_early_end_looks_like_a_complete_stream() {
    let world = world().await;
    let answer = world.chat(world.litellm.master_key(), stream("early-end", "hi there")).await;
    let events = answer.events();
    assert_eq!(events[4]["choices"][0]["finish_reason"], "stop");
    assert_eq!(events[5]["usage"]["completion_tokens"].as_u64(), Some(7));
    assert_eq!(events[5]["usage"]["cost"].as_f64(), Some(0.000015000000000000002));
    assert_eq!(events[6], "[DONE]");
}

#[tokio::test]
async fn an_empty_answer_costs_its_prompt_only() {
    let world = world().await;
    let answer = world.chat(world.litellm.master_key(), prompt("empty", "hi there")).await;
    assert_eq!((answer.status, answer.content().as_str()), (200, ""));
    assert_eq!(answer.header("x-litellm-response-cost"), "1e-06");
}

#[tokio::test]
async fn a_huge_answer_streams_two_megabytes() {
    let world = world().await;
    let answer = world.chat(world.litellm.master_key(), stream("huge", "hi")).await;
    assert_eq!(answer.streamed().len(), 2_000_000);
}

#[tokio::test]
async fn requests_that_no_model_can_answer_are_refused() {
    let world = world().await;
    let master = world.litellm.master_key();
    let answer = world.chat(master, prompt("nope", "hi")).await;
    assert_eq!(answer.failure(), (400, "invalid_request_error".to_owned()));
    assert!(answer.message().contains("Invalid model name passed in model=nope."));
    assert_eq!(answer.json()["error"]["provider_specific_fields"]["error"], answer.message().as_str());
    let answer = world.chat(master, json!({"model": "gpt-4o"})).await;
    assert_eq!((answer.status, answer.error("param")), (400, "messages".to_owned()));
    let answer = world.chat(master, json!({"model": 5, "messages": []})).await;
    assert_eq!(answer.failure(), (400, "bad_request_error".to_owned()));
    let answer = world.chat(master, json!({"model": "gpt-4o", "messages": "hi"})).await;
    assert!(answer.message().contains("'str' object has no attribute 'get'"));
    assert_eq!(world.chat(master, json!({"model": "gpt-4o", "messages": []})).await.status, 200);
    let answer = world
        .send(|client| client.post(world.url("/chat/completions")).bearer_auth(master).body(r#"{"model": "#))
        .await;
    assert_eq!((answer.status, answer.error("param")), (400, "request_body".to_owned()));
    assert_eq!(answer.message(), "Invalid JSON payload: unexpected end of data: line 1 column 11 (char 10)");
}
