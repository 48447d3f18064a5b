//! OpenAI's own API, byte for byte as far as its clients look: with model groups as models.

use crate::{
    fixtures::{call_when, completions, members, models_asked, prompt, prompt_with},
    openai_errors::assert_error,
};
use api_tests::{Answer, Sse, Team, TestApp};
use reqwest::Method;
use serde_json::{Value, json};

pub const CHAT: &str = "/v1/chat/completions";

pub async fn chat(team: &Team, body: Value) -> Answer {
    team.client.post(CHAT, body).await
}

async fn chat_in(team: &Team, job: &str, body: Value) -> Answer {
    Answer::of(team.client.request(Method::POST, CHAT).header("x-job-id", job).body(body.to_string())).await
}

pub async fn chat_stream(team: &Team, text: &str, fields: Value) -> Sse {
    let mut body = prompt_with(text, fields);
    body["stream"] = json!(true);
    team.client.stream(CHAT, body).await
}

/// A stream's chunks, and whether it ended with `[DONE]`. Nothing but `data:` may be in it.
pub async fn chunks(stream: Sse) -> (Vec<Value>, bool) {
    assert_eq!(stream.status, 200);
    let mut events = stream.rest().await;
    let done = events.pop_if(|last| last == "data: [DONE]").is_some();
    let json = |event: &String| {
        let data = event.strip_prefix("data: ").unwrap_or_else(|| panic!("{event}"));
        serde_json::from_str(data).expect("JSON")
    };
    (events.iter().map(json).collect(), done)
}

pub async fn credits_left(team: &Team) -> i64 {
    let balance = team.balance().await;
    assert_eq!(balance["credits_reserved"], 0);
    balance["credits_remaining"].as_i64().expect("a number")
}

/// `POST /v1/chat/completions`
#[tokio::test]
async fn a_completion_has_openais_form_and_is_a_job_of_its_own() {
    let app = TestApp::start().await;
    let group = app.model_group(&["gpt-4o-mini"]).await;
    let team = app.team_with(json!({"credits_allocated": 2, "model_groups": [group]})).await;
    let body = prompt_with("[[prompt_tokens=7]] [[completion_tokens=3]] hello", json!({"model": group}));

    let answer = chat(&team, body).await;

    let header = |name: &str| answer.header(name).unwrap_or_else(|| panic!("no {name}")).to_owned();
    let (job_id, call_id) = (header("x-job-id"), header("x-call-id"));
    let completion = answer.ok();
    assert_eq!(members(&completion), ["choices", "created", "id", "model", "object", "usage"].into());
    assert_eq!(completion["id"], format!("chatcmpl-{call_id}"));
    assert_eq!((&completion["object"], &completion["model"]), (&json!("chat.completion"), &json!(group)));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("now").as_secs();
    assert!(completion["created"].as_u64().is_some_and(|created| now.abs_diff(created) < 60), "{completion}");
    assert_eq!(completion["usage"], json!({"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}));
    let choice = &completion["choices"][0];
    assert_eq!(completion["choices"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        [&choice["index"], &choice["finish_reason"], &choice["logprobs"]],
        [&json!(0), &json!("stop"), &Value::Null]
    );
    assert_eq!(choice["message"]["role"], "assistant");
    assert!(choice["message"]["content"].as_str().is_some_and(|text| text.ends_with("hello")), "{choice}");

    let job = team.read(&job_id).await;
    assert_eq!(
        [
            &job["status"],
            &job["job_type"],
            &job["credit_applied"],
            &job["total_calls"],
            &job["calls"][0]["call_id"]
        ],
        [&json!("completed"), &json!("chat.completions"), &json!(true), &json!(1), &json!(call_id)]
    );
    assert_eq!(credits_left(&team).await, 1);
    app.check_invariants().await;
}

#[tokio::test]
async fn a_stream_is_openais_chunks_and_nothing_else() {
    let app = TestApp::start().await;
    let group = app.model_group(&["gpt-4o-mini"]).await;
    let team = app.team_with(json!({"credits_allocated": 3, "model_groups": [group]})).await;
    for (options, with_usage) in [
        (json!({"model": group}), false),
        (json!({"stream_options": {"include_usage": true}}), true),
        (json!({"stream_options": {"include_usage": false}}), false),
    ] {
        let stream = chat_stream(&team, "hello", options).await;
        let content_type = stream.headers["content-type"].to_str().expect("text").to_owned();
        assert!(content_type.starts_with("text/event-stream"), "{content_type}");
        let call_id = stream.headers["x-call-id"].to_str().expect("text").to_owned();
        let job_id = stream.headers["x-job-id"].to_str().expect("text").to_owned();

        let (mut chunks, done) = chunks(stream).await;

        assert!(done);
        let last = if with_usage { chunks.pop() } else { None };
        let (mut text, created) = (String::new(), chunks[0]["created"].clone());
        for chunk in chunks.iter().chain(&last) {
            assert_eq!(chunk["id"], format!("chatcmpl-{call_id}"));
            assert_eq!((&chunk["object"], &chunk["model"]), (&json!("chat.completion.chunk"), &json!(group)));
            assert_eq!((&chunk["created"], chunk["created"].is_u64()), (&created, true));
        }
        for chunk in &chunks {
            assert_eq!(members(chunk), ["choices", "created", "id", "model", "object"].into(), "{chunk}");
            let choices = chunk["choices"].as_array().expect("choices");
            assert_eq!((choices.len(), &choices[0]["index"]), (1, &json!(0)));
            text += choices[0]["delta"]["content"].as_str().unwrap_or_default();
        }
        assert_eq!(text, "You said: hello");
        assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
        let reasons: Vec<_> = chunks.iter().map(|chunk| &chunk["choices"][0]["finish_reason"]).collect();
        let (end, others) = reasons.split_last().expect("chunks");
        assert!(**end == json!("stop") && others.iter().all(|reason| reason.is_null()), "{reasons:?}");
        if let Some(last) = last {
            assert_eq!(last["choices"], json!([]));
            assert_eq!(last["usage"], json!({"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}));
        }
        let job = team.read(&job_id).await;
        assert_eq!((&job["status"], &job["total_tokens"]), (&json!("completed"), &json!(5)));
    }
    assert_eq!(credits_left(&team).await, 0);
    app.check_invariants().await;
}

#[tokio::test]
async fn with_a_job_id_calls_share_a_job_that_its_owner_completes() {
    let app = TestApp::start().await;
    let (team, other) = (app.team(2).await, app.team(1).await);
    let job = team.job().await;
    let answer = chat_in(&team, &job, prompt("hello")).await;
    assert_eq!(answer.header("x-job-id"), Some(job.as_str()));
    answer.ok();
    let mut streamed = prompt("hello");
    streamed["stream"] = json!(true);
    chat_in(&team, &job, streamed).await;
    let read = team.read(&job).await;
    assert_eq!((&read["status"], &read["successful_calls"]), (&json!("in_progress"), &json!(2)));
    for id in ["nope", "", "00000000-0000-0000-0000-000000000000"] {
        let answer = chat_in(&team, id, prompt("hello")).await;
        assert_error(&answer, 404, "invalid_request_error", "not_found", None);
        assert_eq!(answer.body["error"]["message"], "Job not found");
    }
    assert_error(
        &chat_in(&other, &job, prompt("hello")).await,
        404,
        "invalid_request_error",
        "not_found",
        None,
    );
    assert_eq!(team.complete(&job, "completed").await.ok()["costs"]["credits_charged"], 1);
    assert_error(
        &chat_in(&team, &job, prompt("hello")).await,
        409,
        "invalid_request_error",
        "job_finished",
        None,
    );
    assert_eq!((credits_left(&team).await, credits_left(&other).await), (1, 1));
    app.check_invariants().await;
}

#[tokio::test]
async fn without_a_model_the_default_group_answers_and_another_groups_model_by_name() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let (first, second) =
        (app.model_group(&["gpt-4o-mini"]).await, app.model_group(&["err503", "gpt-4o"]).await);
    let team = app.team_with(json!({"credits_allocated": 9, "model_groups": [first, second]})).await;
    for (fields, group) in [
        (json!({}), &first),
        (json!({"model": null}), &first),
        (json!({"model": second}), &second),
        (json!({"model_group": second}), &second),
    ] {
        assert_eq!(chat(&team, prompt_with("hello", fields)).await.ok()["model"], json!(group));
    }
    assert_eq!(
        models_asked(stand_in),
        ["gpt-4o-mini", "gpt-4o-mini", "err503", "gpt-4o", "err503", "gpt-4o"]
    );
    app.check_invariants().await;
}

#[tokio::test]
async fn parameters_go_on_and_tool_calls_come_back() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let team = app.team(9).await;
    let tool = json!({"type": "function",
        "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}});
    let fields =
        json!({"temperature": 0.3, "seed": 7, "user": "ann", "tools": [tool], "tool_choice": "required"});
    let answer = chat(&team, prompt_with("hello", fields.clone())).await.ok();
    let choice = &answer["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls");
    assert_eq!(choice["message"]["tool_calls"][0]["function"]["name"], "weather");
    let asked = completions(stand_in).remove(0).body;
    for (name, value) in fields.as_object().expect("an object") {
        assert_eq!(asked[name], *value, "{name}");
    }
    let (chunks, done) = chunks(chat_stream(&team, "hello", fields).await).await;
    let called = chunks
        .iter()
        .any(|chunk| chunk["choices"][0]["delta"]["tool_calls"][0]["function"]["name"] == "weather");
    assert!(called && done, "{chunks:?}");
    app.check_invariants().await;
}

#[tokio::test]
async fn whoever_hangs_up_on_a_stream_has_had_its_credits_worth() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    let mut stream = chat_stream(&team, "[[chunks=50]] [[delay_ms=100]] hello", json!({})).await;
    let job = stream.headers["x-job-id"].to_str().expect("text").to_owned();
    stream.next_data().await.expect("a chunk");
    drop(stream);
    let call = call_when(&team, &job, "the end of the call", |call| call["status"] != "open").await;
    assert_eq!((&call["status"], credits_left(&team).await), (&json!("cancelled"), 0));
    call_when(&team, &job, "LiteLLM's bill", |call| call["cost_usd"].as_f64() > Some(0.0)).await;
    app.check_invariants().await;
}

/// `GET /v1/models`
/// `GET /v1/models/{group_name}`
#[tokio::test]
async fn models_are_the_groups_that_the_team_may_use() {
    let app = TestApp::start().await;
    let (first, second, through_access) = (
        app.model_group(&["gpt-4o"]).await,
        app.model_group(&["gpt-4"]).await,
        app.model_group(&["gpt-4o-mini"]).await,
    );
    let strangers = app.model_group(&["gpt-4o"]).await;
    let access = json!({"group_name": format!("Access-{first}"), "model_groups": [through_access]});
    let access = app.admin().post("/api/model-access-groups/create", access).await.ok()["group_name"].clone();
    let fields = json!({"credits_allocated": 1, "model_groups": [first, second], "access_groups": [access]});
    let team = app.team_with(fields).await;

    let list = team.client.get("/v1/models").await;

    assert!(!list.text.contains("gpt"), "{}", list.text);
    let list = list.ok();
    assert_eq!(list["object"], "list");
    let models = list["data"].as_array().expect("a list");
    assert_eq!(
        models.iter().map(|model| &model["id"]).collect::<Vec<_>>(),
        [&first, &second, &through_access]
    );
    for model in models {
        assert_eq!(members(model), ["created", "id", "object", "owned_by"].into());
        assert_eq!((&model["object"], model["created"].is_u64()), (&json!("model"), true));
        let id = model["id"].as_str().expect("an id");
        assert_eq!(team.client.get(&format!("/v1/models/{id}")).await.ok(), *model);
    }
    for id in [strangers.as_str(), "gpt-4o", "nope"] {
        let answer = team.client.get(&format!("/v1/models/{id}")).await;
        assert_error(&answer, 404, "invalid_request_error", "not_found", None);
        assert!(answer.body["error"]["message"].as_str().is_some_and(|message| message.contains(id)));
    }
    assert_error(&app.nobody().get("/v1/models").await, 401, "authentication_error", "unauthenticated", None);
    let groupless = app.team_with(json!({"model_groups": []})).await;
    assert_eq!(groupless.client.get("/v1/models").await.ok(), json!({"object": "list", "data": []}));
}

#[tokio::test]
async fn neither_answers_nor_errors_name_a_model_or_its_price() {
    let app = TestApp::start().await;
    for chain in
        [&["gpt-4o-mini"][..], &["err500", "gpt-4o-mini"], &["err400"], &["err404"], &["gpt-nonexistent"]]
    {
        let team = app.team_using(chain, 5).await;
        for stream in [false, true] {
            let answer = chat(&team, prompt_with("hello", json!({"stream": stream}))).await;
            let headers = format!("{:?}", answer.headers).to_lowercase();
            for word in ["gpt-4", "gpt-non", "err4", "err5", "cost", "x-litellm", "fp_fake"] {
                assert!(
                    !answer.text.to_lowercase().contains(word) && !headers.contains(word),
                    "{word}: {headers} {}",
                    answer.text
                );
            }
        }
    }
    app.check_invariants().await;
}
