//! Tokens and costs: exact, and unknown where they are unknown.

use crate::fixtures::{call, events, group_of, prompt, stream};
use api_tests::{Team, TestApp, eventually};
use serde_json::json;

/// A prompt that is answered with so many tokens.
fn tokens(prompt: u32, completion: u32) -> String {
    format!("[[prompt_tokens={prompt}]] [[completion_tokens={completion}]] x")
}

/// What the database holds as the cost of a job's calls, digit by digit.
async fn stored_costs(app: &TestApp, job: &str) -> Vec<Option<String>> {
    let statement = "SELECT cost_usd::text FROM calls WHERE job_id = $1::text::uuid ORDER BY call_id";
    let rows = app.database.client.query(statement, &[&job]).await.expect("the calls");
    rows.iter().map(|row| row.get(0)).collect()
}

async fn read_as_text(team: &Team, job: &str) -> String {
    team.client.get(&format!("/api/jobs/{job}")).await.text
}

#[tokio::test]
async fn buffered_and_streamed_calls_cost_what_litellm_says() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    let job = team.job().await;
    call(&team, &job, prompt(&tokens(1000, 500))).await.ok();
    let (events, _) = events(stream(&team, &job, prompt(&tokens(2000, 1000))).await).await;
    let usage = &events.last().expect("a summary")["usage"];
    assert_eq!(usage, &json!({"prompt_tokens": 2000, "completion_tokens": 1000, "total_tokens": 3000}));

    let read = team.read(&job).await;
    let calls = read["calls"].as_array().expect("calls");
    let seen: Vec<_> =
        calls.iter().map(|call| (call["tokens"].as_i64(), call["cost_usd"].as_f64())).collect();
    // gpt-4o-mini: $0.15 and $0.60 for a million tokens.
    assert_eq!(seen, [(Some(1500), Some(0.00045)), (Some(3000), Some(0.0009))]);
    assert_eq!((&read["total_tokens"], &read["total_cost_usd"]), (&json!(4500), &json!(0.00135)));
    app.check_invariants().await;
}

#[tokio::test]
async fn sums_are_decimal_and_exact() {
    let app = TestApp::start().await;
    let team = app.team_using(&["expensive"], 100).await;
    let job = team.job().await;
    // Three dimes: as floats they would be 0.30000000000000004.
    for _ in 0..2 {
        call(&team, &job, prompt(&tokens(100, 0))).await.ok();
    }
    events(stream(&team, &job, prompt(&tokens(100, 0))).await).await;
    let text = read_as_text(&team, &job).await;
    assert!(text.contains(r#""total_cost_usd":0.3,"#), "{text}");
    let completed = team.complete(&job, "completed").await;
    assert!(completed.text.contains(r#""total_cost_usd":0.3,"#), "{}", completed.text);
    app.check_invariants().await;
}

#[tokio::test]
async fn what_a_small_call_costs_is_as_short_as_it_is_exact() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    let job = team.job().await;
    // Twice $0.00000465, of which floats make 0.0000092999999999999995 or the like.
    for _ in 0..2 {
        call(&team, &job, prompt(&tokens(11, 5))).await.ok();
    }
    let completed = team.complete(&job, "completed").await;
    for text in [&completed.text, &read_as_text(&team, &job).await] {
        assert!(text.contains(r#""total_cost_usd":0.0000093,"#), "{text}");
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn a_tiny_cost_that_litellm_prints_in_scientific_notation_is_not_lost() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    let job = team.job().await;
    // LiteLLM's header says 7.5e-07.
    call(&team, &job, prompt(&tokens(1, 1))).await.ok();
    assert_eq!(stored_costs(&app, &job).await, [Some("0.00000075".to_owned())]);
    assert_eq!(team.read(&job).await["total_cost_usd"].as_f64(), Some(7.5e-7));
    app.check_invariants().await;
}

#[tokio::test]
async fn a_cost_is_kept_to_its_twelfth_decimal_and_litellms_floats_leave_no_trace() {
    let app = TestApp::start().await;
    let team = app.team_using(&["expensive"], 10).await;
    let job = team.job().await;
    // LiteLLM adds 0.1 and 0.05 as floats, and prints 0.15000000000000002.
    call(&team, &job, prompt(&tokens(100, 50))).await.ok();
    events(stream(&team, &job, prompt(&tokens(100, 50))).await).await;
    assert_eq!(stored_costs(&app, &job).await, [Some("0.15".to_owned()), Some("0.15".to_owned())]);
    let text = read_as_text(&team, &job).await;
    assert!(text.contains(r#""total_cost_usd":0.3,"#), "{text}");
    app.check_invariants().await;
}

#[tokio::test]
async fn a_model_without_a_price_has_an_unknown_cost_and_not_none() {
    let app = TestApp::start().await;
    let team = app.team_using(&["unpriced"], 1).await;
    let job = team.job().await;
    team.call(&job, "hello").await.ok();
    events(stream(&team, &job, prompt("hello")).await).await;

    assert_eq!(stored_costs(&app, &job).await, [None, None]);
    let read = team.read(&job).await;
    assert_eq!((&read["total_cost_usd"], &read["calls"][0]["cost_usd"]), (&json!(null), &json!(null)));
    assert_eq!(read["total_tokens"], json!(10));
    let completed = team.complete(&job, "completed").await.ok();
    assert_eq!(completed["costs"]["total_cost_usd"], json!(null));
    assert_eq!(completed["costs"]["credit_applied"], json!(true));
    app.check_invariants().await;
}

#[tokio::test]
async fn a_job_with_priced_and_unpriced_calls_sums_what_is_known() {
    let app = TestApp::start().await;
    let (priced, unpriced) = (app.model_group(&["expensive"]).await, app.model_group(&["unpriced"]).await);
    let team = app.team_with(json!({"credits_allocated": 10, "model_groups": [priced, unpriced]})).await;
    let job = team.job().await;
    for group in [priced, unpriced] {
        let mut body = prompt(&tokens(100, 100));
        body["model_group"] = json!(group);
        call(&team, &job, body).await.ok();
    }
    let read = team.read(&job).await;
    assert_eq!((&read["total_cost_usd"], &read["total_tokens"]), (&json!(0.2), &json!(400)));
    app.check_invariants().await;
}

#[tokio::test]
async fn an_answer_without_token_counts_or_content_still_succeeds() {
    let app = TestApp::start().await;
    for (model, expected) in [("no-usage", "You said: hello"), ("empty", "")] {
        let team = app.team_using(&[model], 1).await;
        let job = team.job().await;
        let answer = team.call(&job, "hello").await.ok();
        assert_eq!(answer["response"]["content"].as_str().unwrap_or_default(), expected, "{model}");
        let (events, done) = events(stream(&team, &job, prompt("hello")).await).await;
        let text: String = events.iter().filter_map(|event| event["content"].as_str()).collect();
        assert_eq!((text.as_str(), done), (expected, true), "{model}");
        assert_eq!(team.read(&job).await["successful_calls"], json!(2), "{model}");
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn completing_sums_up_the_calls_and_deducts_one_credit() {
    let app = TestApp::start().await;
    let team = app.team(5).await;
    let job = team.job().await;
    let mut body = prompt(&tokens(1000, 500));
    body["purpose"] = json!("draft");
    call(&team, &job, body).await.ok();
    events(stream(&team, &job, prompt(&tokens(2000, 1000))).await).await;

    let completed = team.complete(&job, "completed").await.ok();

    let costs = &completed["costs"];
    let count = |name: &str| costs[name].as_i64().expect("a number");
    assert_eq!((count("total_calls"), count("successful_calls"), count("failed_calls")), (2, 2, 0));
    assert_eq!((count("total_tokens"), costs["total_cost_usd"].as_f64()), (4500, Some(0.00135)));
    assert_eq!((&costs["credit_applied"], count("credits_remaining")), (&json!(true), 4));
    let calls = completed["calls"].as_array().expect("calls");
    assert_eq!((&calls[0]["purpose"], &calls[1]["purpose"]), (&json!("draft"), &json!(null)));
    assert_eq!((&calls[0]["tokens"], &calls[1]["tokens"]), (&json!(1500), &json!(3000)));
    let latencies: Vec<_> =
        calls.iter().map(|call| call["latency_ms"].as_i64().expect("a latency")).collect();
    let average = (latencies[0] + latencies[1]) as f64 / 2.0;
    assert!((count("avg_latency_ms") as f64 - average).abs() <= 0.5, "{completed}");
    app.check_invariants().await;
}

#[tokio::test]
async fn one_failed_call_keeps_the_credit_of_the_whole_job() {
    let app = TestApp::start().await;
    let (works, fails) = (app.model_group(&["gpt-4o-mini"]).await, app.model_group(&["err500"]).await);
    let team = app.team_with(json!({"credits_allocated": 1, "model_groups": [works, fails]})).await;
    let job = team.job().await;
    call(&team, &job, prompt(&tokens(1000, 0))).await.ok();
    let mut failing = prompt("hello");
    failing["model_group"] = json!(fails);
    assert_eq!(call(&team, &job, failing).await.status, 502);

    let completed = team.complete(&job, "completed").await.ok();

    let costs = &completed["costs"];
    assert_eq!((&costs["successful_calls"], &costs["failed_calls"]), (&json!(1), &json!(1)));
    assert_eq!((&costs["credit_applied"], &costs["credits_remaining"]), (&json!(false), &json!(1)));
    assert_eq!(costs["total_cost_usd"].as_f64(), Some(0.00015));
    assert_eq!(completed["calls"][1]["error"], "LLM call failed: The model failed");
    assert_eq!(team.balance().await["credits_available"], json!(1));
    app.check_invariants().await;
}

#[tokio::test]
async fn a_call_that_we_gave_up_on_is_not_said_to_have_cost_nothing() {
    let app = TestApp::start().await;
    let impatient = json!([{"model_name": "slow", "priority": 0, "config": {"timeout_ms": 300}}]);
    let group = group_of(&app, impatient).await;
    let team = app.team_with(json!({"credits_allocated": 1, "model_groups": [group]})).await;
    let job = team.job().await;
    assert_eq!(call(&team, &job, prompt(&tokens(1000, 500))).await.status, 504);
    // LiteLLM lets the model go on, and bills all of it.
    let read = team.read(&job).await;
    assert_ne!(read["total_cost_usd"].as_f64(), Some(0.0), "unknown, or what LiteLLM says: {read}");
    app.check_invariants().await;
}

#[tokio::test]
async fn a_job_comes_to_cost_all_that_litellm_bills_for_it_abandoned_attempts_included() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let impatient = json!({"model_name": "slow", "priority": 0, "config": {"timeout_ms": 300}});
    let group = group_of(&app, json!([impatient, {"model_name": "gpt-4o-mini", "priority": 1}])).await;
    let team = app.team_with(json!({"credits_allocated": 1, "model_groups": [group]})).await;
    let job = team.job().await;
    call(&team, &job, prompt(&tokens(1000, 500))).await.ok();
    eventually("the whole bill", async || {
        let billed = stand_in.keys_of(&team.id).remove(0).spend;
        let known = team.read(&job).await["total_cost_usd"].as_f64().unwrap_or_default();
        // 0.00045 is the bill of the model that answered.
        (billed > 0.00046 && (billed - known).abs() < 1e-9).then_some(())
    })
    .await;
    app.check_invariants().await;
}
