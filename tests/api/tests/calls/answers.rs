//! A buffered call: what it answers, and which group it uses.

use crate::fixtures::{call, members, prompt, prompt_with};
use api_tests::TestApp;
use serde_json::json;
use uuid::Uuid;

/// `POST /api/jobs/{job_id}/llm-call`
#[tokio::test]
async fn the_answer_has_the_models_words_and_what_the_caller_may_know_about_them() {
    let app = TestApp::start().await;
    let group = app.model_group(&["gpt-4o-mini"]).await;
    let team = app.team_with(json!({"credits_allocated": 1, "model_groups": [group]})).await;
    let job = team.job().await;

    let answer = team.call(&job, "hello").await;

    let header = |name: &str| answer.header(name).expect(name).to_owned();
    let (call_id, timing) = (header("x-call-id"), header("server-timing"));
    let body = answer.ok();
    assert_eq!(members(&body), ["call_id", "metadata", "response"].into());
    assert_eq!(body["call_id"], call_id);
    assert_eq!(Uuid::parse_str(&call_id).expect("a UUID").get_version_num(), 7);
    let response = members(&body["response"]);
    assert!(!response.contains("provider_specific_fields"), "what is the provider's own: {response:?}");
    assert_eq!(body["response"]["content"], "You said: hello");
    assert_eq!(body["response"]["role"], "assistant");
    assert_eq!(body["response"]["finish_reason"], "stop");
    assert_eq!(members(&body["metadata"]), ["latency_ms", "model_group", "tokens_used"].into());
    assert_eq!(body["metadata"]["model_group"], json!(group));
    // "hello" are 2 tokens for the fake provider, and "You said: hello" 3.
    assert_eq!(body["metadata"]["tokens_used"], json!(5));
    assert!(body["metadata"]["latency_ms"].is_u64(), "{body}");
    let parts: Vec<_> = timing.split(", ").map(|part| part.split(";dur=").next().expect("a name")).collect();
    assert_eq!(parts, ["app", "llm"], "{timing}");
    for part in timing.split(", ") {
        let millis = part.split_once(";dur=").expect("a duration").1;
        assert!(millis.parse::<f64>().expect("a number") >= 0.0, "{timing}");
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn the_models_part_of_the_latency_is_told_apart_from_ours() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    let job = team.job().await;
    let answer = team.call(&job, "[[first_ms=1000]] hello").await;
    let timing = answer.header("server-timing").expect("server-timing").to_owned();
    let (_, model) = timing.rsplit_once("llm;dur=").expect("the model's part");
    assert!(model.parse::<f64>().expect("a number") >= 1000.0, "{timing}");
    assert!(answer.ok()["metadata"]["latency_ms"].as_u64() >= Some(1000));
    let stored = team.read(&job).await["calls"][0]["latency_ms"].as_u64();
    assert!(stored >= Some(1000), "{stored:?}");
    app.check_invariants().await;
}

#[tokio::test]
async fn a_function_that_the_model_calls_comes_with_its_arguments() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    let job = team.job().await;
    let weather = json!({"type": "function", "function": {"name": "weather", "parameters": {
        "type": "object", "properties": {"city": {"type": "string"}}}}});

    let body = call(&team, &job, prompt_with("Berlin?", json!({"tools": [weather]}))).await.ok();

    let response = &body["response"];
    assert_eq!(response["finish_reason"], "tool_calls");
    assert_eq!(response["content"], json!(null));
    let function = &response["tool_calls"][0]["function"];
    assert_eq!(function["name"], "weather");
    let arguments: serde_json::Value =
        serde_json::from_str(function["arguments"].as_str().expect("arguments")).expect("JSON");
    assert_eq!(arguments, json!({"city": "sample"}));
    app.check_invariants().await;
}

#[tokio::test]
async fn a_conversation_with_parts_and_tool_results_is_understood() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    let job = team.job().await;
    let body = json!({"messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "part one"}]},
        {"role": "assistant", "content": null, "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
        {"role": "user", "content": [{"type": "text", "text": "part"}, {"type": "text", "text": "two"}]},
    ]});
    assert_eq!(call(&team, &job, body).await.ok()["response"]["content"], "You said: part two");
    app.check_invariants().await;
}

#[tokio::test]
async fn the_first_call_brings_a_pending_job_into_progress() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    let job = team.job().await;
    let before = team.read(&job).await;
    assert_eq!((&before["status"], &before["started_at"]), (&json!("pending"), &json!(null)));

    let call_id = team.call(&job, "hello").await.ok()["call_id"].clone();

    let after = team.read(&job).await;
    assert_eq!(after["status"], "in_progress");
    assert!(after["started_at"].is_string());
    let call = &after["calls"][0];
    assert_eq!(
        (&call["call_id"], &call["status"], &call["streamed"]),
        (&call_id, &json!("succeeded"), &json!(false))
    );
    assert_eq!(
        (&call["tokens"], &call["prompt_tokens"], &call["completion_tokens"]),
        (&json!(5), &json!(2), &json!(3))
    );
    app.check_invariants().await;
}

#[tokio::test]
async fn a_calls_purpose_and_metadata_are_kept_and_never_sent_to_the_model() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    let job = team.job().await;
    let metadata = json!({"b": 1, "a": {"nested": [1.50, "ü"]}});
    let body = prompt_with("hello", json!({"purpose": "draft", "call_metadata": metadata}));
    call(&team, &job, body).await.ok();
    let kept = &team.read(&job).await["calls"][0];
    assert_eq!((&kept["purpose"], &kept["metadata"]), (&json!("draft"), &metadata));
    if let Some(stand_in) = app.stand_in() {
        let sent = &crate::fixtures::completions(stand_in)[0].body;
        assert_eq!(members(sent), ["messages", "model", "stream"].into());
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn a_call_names_its_group_as_model_group_or_as_model_or_not_at_all() {
    let app = TestApp::start().await;
    let (first, second) = (app.model_group(&["gpt-4o-mini"]).await, app.model_group(&["gpt-4o"]).await);
    let team = app.team_with(json!({"credits_allocated": 1, "model_groups": [first, second]})).await;
    let job = team.job().await;
    for (fields, used) in [
        (json!({}), &first),
        (json!({"model_group": null}), &first),
        (json!({"model_group": second}), &second),
        (json!({"model": second}), &second),
        (json!({"model": first}), &first),
    ] {
        let answer = call(&team, &job, prompt_with("hello", fields.clone())).await.ok();
        assert_eq!(answer["metadata"]["model_group"], json!(used), "{fields}");
    }
    call(&team, &job, prompt_with("hello", json!({"model": first, "model_group": second}))).await.refused(
        400,
        "invalid_request",
        "model: given beside model_group, for which it stands",
    );
    app.check_invariants().await;
}

#[tokio::test]
async fn the_default_group_is_the_one_that_the_team_was_given_as_such() {
    let app = TestApp::start().await;
    let (first, second) = (app.model_group(&["gpt-4o-mini"]).await, app.model_group(&["gpt-4o"]).await);
    let fields =
        json!({"credits_allocated": 1, "model_groups": [first, second], "default_model_group": second});
    let team = app.team_with(fields).await;
    let job = team.job().await;
    assert_eq!(team.call(&job, "hello").await.ok()["metadata"]["model_group"], json!(second));
    app.check_invariants().await;
}

#[tokio::test]
async fn a_team_without_groups_and_a_group_of_others_are_refused_without_a_trace() {
    let app = TestApp::start().await;
    let foreign = app.model_group(&["gpt-4o"]).await;
    let (none, some) =
        (app.team_with(json!({"credits_allocated": 1, "model_groups": []})).await, app.team(1).await);
    let (job_of_none, job_of_some) = (none.job().await, some.job().await);
    for route in ["llm-call", "llm-call-stream"] {
        none.client.post(&format!("/api/jobs/{job_of_none}/{route}"), prompt("hello")).await.refused(
            403,
            "model_group_denied",
            &format!("Team '{}' has no model group", none.id),
        );
        for group in [foreign.as_str(), "NoSuchGroup"] {
            let body = prompt_with("hello", json!({"model_group": group}));
            some.client.post(&format!("/api/jobs/{job_of_some}/{route}"), body).await.refused(
                403,
                "model_group_denied",
                &format!("Team '{}' does not have access to model group '{group}'", some.id),
            );
        }
    }
    let job = some.read(&job_of_some).await;
    assert_eq!((&job["status"], &job["total_calls"]), (&json!("pending"), &json!(0)));
    app.check_invariants().await;
}

#[tokio::test]
async fn a_call_needs_the_key_of_the_jobs_own_team_and_an_open_job() {
    let app = TestApp::start().await;
    let (team, other) = (app.team(2).await, app.team(1).await);
    let (job, finished) = (team.job().await, team.job().await);
    team.complete(&finished, "completed").await.ok();
    for route in ["llm-call", "llm-call-stream"] {
        let path = |job: &str| format!("/api/jobs/{job}/{route}");
        let missing = Uuid::now_v7().to_string();
        for (client, job) in
            [(&other.client, &job), (&team.client, &missing), (&team.client, &"x".to_owned())]
        {
            client.post(&path(job), prompt("hello")).await.refused(404, "not_found", "Job not found");
        }
        team.client.post(&path(&finished), prompt("hello")).await.refused(
            409,
            "job_finished",
            &format!("Job '{finished}' is already completed"),
        );
        // A call spends the key's own budget, so the admin can't make one.
        assert_eq!(app.admin().post(&path(&job), prompt("hello")).await.status, 401);
    }
    if let Some(stand_in) = app.stand_in() {
        assert!(crate::fixtures::completions(stand_in).is_empty());
    }
    app.check_invariants().await;
}
