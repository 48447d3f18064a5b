//! A streamed call: the form and the order of its events, and when they come.

use crate::fixtures::{events, members, prompt, prompt_with, stream};
use api_tests::{Options, TestApp};
use serde_json::{Value, json};
use std::time::Instant;

/// `POST /api/jobs/{job_id}/llm-call-stream`
#[tokio::test]
async fn a_stream_is_openais_chunks_then_a_summary_then_done() {
    let app = TestApp::start().await;
    let group = app.model_group(&["gpt-4o-mini"]).await;
    let team = app.team_with(json!({"credits_allocated": 1, "model_groups": [group]})).await;
    let job = team.job().await;

    let stream = stream(&team, &job, prompt("hello")).await;

    let header =
        |name: &str| stream.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    assert!(header("content-type").starts_with("text/event-stream"), "{}", header("content-type"));
    assert_eq!(header("cache-control"), "no-cache");
    assert!(header("server-timing").contains("llm;dur="), "{}", header("server-timing"));
    assert!(!header("x-request-id").is_empty());
    let call_id = header("x-call-id").to_owned();

    let (events, done) = events(stream).await;
    assert!(done, "the last event is [DONE]");
    let (summary, chunks) = events.split_last().expect("events");
    let mut text = String::new();
    for chunk in chunks {
        assert_eq!(chunk["object"], "chat.completion.chunk");
        assert_eq!(chunk["model"], json!(group));
        assert!(chunk["id"].is_string() && chunk["created"].is_i64(), "{chunk}");
        let choices = chunk["choices"].as_array().expect("choices");
        assert_eq!((choices.len(), &choices[0]["index"]), (1, &json!(0)));
        assert_eq!(chunk.get("content"), choices[0]["delta"].get("content"), "{chunk}");
        text += chunk["content"].as_str().unwrap_or_default();
    }
    assert_eq!(text, "You said: hello");
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    let reasons: Vec<_> = chunks.iter().map(|chunk| &chunk["choices"][0]["finish_reason"]).collect();
    let (last, others) = reasons.split_last().expect("chunks");
    assert_eq!(**last, json!("stop"));
    assert!(others.iter().all(|reason| reason.is_null()), "{reasons:?}");

    assert_eq!(members(summary), ["call_id", "finish_reason", "metadata", "usage"].into());
    assert_eq!((&summary["call_id"], &summary["finish_reason"]), (&json!(call_id), &json!("stop")));
    assert_eq!(summary["usage"], json!({"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}));
    assert_eq!(summary["metadata"]["model_group"], json!(group));
    assert_eq!(summary["metadata"]["tokens_used"], json!(5));
    assert!(summary["metadata"]["latency_ms"].is_u64(), "{summary}");

    let call = team.read(&job).await["calls"][0].clone();
    assert_eq!(
        (&call["call_id"], &call["status"], &call["streamed"]),
        (&json!(call_id), &json!("succeeded"), &json!(true))
    );
    app.check_invariants().await;
}

#[tokio::test]
async fn every_event_is_sent_the_moment_it_is_made() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    let job = team.job().await;
    let mut stream = stream(&team, &job, prompt("[[chunks=5]] [[delay_ms=400]]")).await;

    let mut came = vec![];
    while let Some(event) = stream.next_data().await {
        if event["content"].as_str().is_some_and(|text| !text.is_empty()) {
            if came.is_empty() {
                assert_eq!(team.read(&job).await["calls"][0]["status"], "open", "the model is still at it");
            }
            came.push(Instant::now());
        }
    }

    assert_eq!(came.len(), 5);
    // Made 1.6 s apart; collected first, they would come together.
    assert!(came[4] - came[0] >= std::time::Duration::from_millis(1000), "{:?}", came[4] - came[0]);
    app.check_invariants().await;
}

#[tokio::test]
async fn whoever_has_seen_the_end_of_a_stream_finds_its_call_settled() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    let job = team.job().await;
    for calls in 1..=5 {
        let mut stream = stream(&team, &job, prompt("hello")).await;
        while stream.next_data().await.is_some_and(|event| event["usage"].is_null()) {}
        let read = team.read(&job).await;
        assert_eq!((&read["successful_calls"], &read["total_tokens"]), (&json!(calls), &json!(5 * calls)));
    }
    assert_eq!(team.complete(&job, "completed").await.ok()["costs"]["credit_applied"], json!(true));
    app.check_invariants().await;
}

#[tokio::test]
async fn two_megabytes_come_through_whole_and_in_order_to_a_reader_that_pauses() {
    let app = TestApp::start().await;
    let team = app.team_using(&["huge"], 1).await;
    let job = team.job().await;
    let mut stream = stream(&team, &job, prompt("hello")).await;
    let (mut length, mut pieces) = (0, 0);
    while let Some(event) = stream.next_data().await {
        let Some(text) = event["content"].as_str().filter(|text| !text.is_empty()) else { continue };
        assert!(text.starts_with(&format!("word{pieces} ")), "piece {pieces}: {text:.20}");
        (length, pieces) = (length + text.len(), pieces + 1);
        if pieces == 100 {
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        }
    }
    assert_eq!((pieces, length), (2000, 2_000_000));
    let call = &team.read(&job).await["calls"][0];
    assert_eq!((&call["status"], &call["completion_tokens"]), (&json!("succeeded"), &json!(2000)));
    app.check_invariants().await;
}

#[tokio::test]
async fn a_function_call_is_streamed_piece_by_piece() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    let job = team.job().await;
    let function = json!({"name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}});
    let body = prompt_with("Berlin?", json!({"tools": [{"type": "function", "function": function}]}));
    let (events, done) = events(stream(&team, &job, body).await).await;
    let calls: Vec<&Value> =
        events.iter().map(|event| &event["choices"][0]["delta"]["tool_calls"][0]["function"]).collect();
    let arguments: String = calls.iter().filter_map(|call| call["arguments"].as_str()).collect();
    assert!(calls.iter().any(|call| call["name"] == "weather"), "{events:?}");
    assert_eq!(serde_json::from_str::<Value>(&arguments).expect("JSON"), json!({"city": "sample"}));
    assert!(events.iter().all(|event| event.get("content").is_none_or(Value::is_null)), "{events:?}");
    assert_eq!((&events.last().expect("a summary")["finish_reason"], done), (&json!("tool_calls"), true));
    app.check_invariants().await;
}

#[tokio::test]
async fn text_in_any_script_and_of_any_form_survives_the_stream() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    let job = team.job().await;
    let said = "Grüße 日本語 🦀 \"quoted\" back\\slash\n\ndata: [DONE]\n\nevent: error\r\nend";
    let (events, _) = events(stream(&team, &job, prompt(said)).await).await;
    let text: String = events.iter().filter_map(|event| event["content"].as_str()).collect();
    assert_eq!(text, format!("You said: {said}"));
    app.check_invariants().await;
}

/// Takes 17 s: a silence has to be longer than 15 s for a ping to come, and LiteLLM itself gives up after 30.
#[tokio::test]
async fn a_silent_model_is_bridged_by_pings() {
    let variables = vec![("llm_idle_seconds", "60".to_owned())];
    let app = TestApp::start_with(Options { variables, ..Options::default() }).await;
    let team = app.team(1).await;
    let job = team.job().await;
    let started = Instant::now();
    let stream = stream(&team, &job, prompt("[[chunks=1]] [[delay_ms=17000]]")).await;
    let events = stream.rest().await;
    let ping = events.iter().position(|event| event == ": ping").expect("a ping");
    let piece = events.iter().position(|event| event.contains("word0")).expect("the piece");
    assert!(ping < piece, "{events:?}");
    assert_eq!(events.iter().filter(|event| event.starts_with(':')).count(), 1, "{events:?}");
    assert_eq!(events.last().map(String::as_str), Some("data: [DONE]"));
    assert!(started.elapsed().as_secs() >= 17);
    app.check_invariants().await;
}
