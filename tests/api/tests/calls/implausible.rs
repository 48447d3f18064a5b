//! Numbers from providers that can't be true: the answer is delivered, they count as unknown, and nobody else notices.

use crate::fixtures::{call, events, models_asked, prompt, stream, upkeep};
use api_tests::{Team, TestApp};
use serde_json::{Value, json};

/// More than a `bigint` holds, and more than a call may use.
const CLAIMS: [&str; 7] = [
    "[[prompt_tokens=9223372036854775800]]",
    "[[prompt_tokens=9223372036854775808]]",
    "[[prompt_tokens=18446744073709551615]]",
    "[[prompt_tokens=5000000000000000000]] [[completion_tokens=5000000000000000000]]",
    "[[completion_tokens=1000000001]]",
    "[[completion_tokens=-35]]",
    "[[prompt_tokens=-1]] [[completion_tokens=2]]",
];

/// Costs that LiteLLM's header or a stream's last event may say. Those that are no number come in headers only.
const COSTS: [(&str, bool); 5] =
    [("1000000.01", true), ("1e300", true), ("-0.5", true), ("nan", false), ("much", false)];

/// A team with these fields that LiteLLM gives no budget, since it believes what models say.
async fn unbounded(app: &TestApp, mut fields: Value) -> Team {
    fields["budget_mode"] = json!("soft");
    app.team_with(fields).await
}

/// Fails the test unless this is a call whose numbers are unknown.
#[track_caller]
fn assert_unknown(call: &Value, claim: &str) {
    assert_eq!(
        [&call["status"], &call["implausible_usage"], &call["tokens"], &call["cost_usd"]],
        [&json!("succeeded"), &json!(true), &json!(0), &json!(null)],
        "{claim}"
    );
    assert_eq!([&call["prompt_tokens"], &call["completion_tokens"]], [&json!(0), &json!(0)], "{claim}");
}

/// Reads a stream to its `[DONE]`: its text, and its summary.
async fn streamed(team: &Team, job: &str, text: &str) -> (String, Value) {
    let (mut events, done) = events(stream(team, job, prompt(text)).await).await;
    assert!(done, "{text}");
    let summary = events.pop().expect("a summary");
    (events.iter().filter_map(|event| event["content"].as_str()).collect(), summary)
}

#[tokio::test]
async fn tokens_that_can_not_be_true_are_unknown_and_the_answer_is_delivered() {
    let app = TestApp::start().await;
    // Another model would be asked if the answer were not taken.
    let group = app.model_group(&["gpt-4o-mini", "gpt-4o"]).await;
    let team = unbounded(&app, json!({"credits_allocated": 20, "model_groups": [group]})).await;
    for claim in CLAIMS {
        let job = team.job().await;
        let answer = team.call(&job, &format!("{claim} hello")).await.ok();
        assert_eq!(answer["response"]["content"], "You said: hello", "{claim}");
        assert_eq!(answer["metadata"]["tokens_used"], json!(null), "{claim}");
        let (text, summary) = streamed(&team, &job, &format!("{claim} hello")).await;
        assert_eq!((text.as_str(), &summary["usage"]), ("You said: hello", &json!(null)), "{claim}");
        assert_eq!(summary["metadata"]["tokens_used"], json!(null), "{claim}");

        let read = team.read(&job).await;
        assert_eq!(read["calls"].as_array().map(Vec::len), Some(2));
        for call in read["calls"].as_array().expect("calls") {
            assert_unknown(call, claim);
        }
        let costs = team.complete(&job, "completed").await.ok()["costs"].clone();
        assert_eq!(
            [
                &costs["total_tokens"],
                &costs["total_cost_usd"],
                &costs["unpriced_calls"],
                &costs["credit_applied"]
            ],
            [&json!(0), &json!(null), &json!(2), &json!(true)],
            "{claim}"
        );
    }
    if let Some(stand_in) = app.stand_in() {
        assert_eq!(
            models_asked(stand_in),
            vec!["gpt-4o-mini"; 2 * CLAIMS.len()],
            "one model was paid each time"
        );
    }
    upkeep(&app).await;
    app.check_invariants().await;
}

#[tokio::test]
async fn absurd_tokens_of_one_team_harm_no_other_teams_calls_with_the_same_group_and_no_report() {
    let app = TestApp::start().await;
    let (organization, group) = (app.organization().await, app.model_group(&["gpt-4o-mini"]).await);
    let fields = json!({"organization_id": organization, "credits_allocated": 20, "model_groups": [group]});
    let (first, second) = (unbounded(&app, fields.clone()).await, unbounded(&app, fields.clone()).await);
    for team in [&first, &second] {
        let job = team.job().await;
        for claim in ["[[prompt_tokens=9223372036854775800]] x", "[[prompt_tokens=5000000000000000000]] x"] {
            team.call(&job, claim).await.ok();
            team.call(&job, claim).await.ok();
        }
        team.complete(&job, "completed").await.ok();
    }
    let other = app.team_with(fields).await;
    for _ in 0..10 {
        let job = other.job().await;
        other.call(&job, "[[prompt_tokens=10]] [[completion_tokens=5]] x").await.ok();
        assert_eq!(other.complete(&job, "completed").await.ok()["costs"]["credit_applied"], true);
    }
    assert_eq!(other.balance().await["credits_available"], 10);
    let admin = app.admin();
    assert_eq!(admin.get("/metrics").await.status, 200);
    let usage = admin.get(&format!("/api/organizations/{organization}/usage")).await.ok();
    assert_eq!(
        [
            &usage["summary"]["total_calls"],
            &usage["summary"]["total_tokens"],
            &usage["summary"]["unpriced_calls"]
        ],
        [&json!(18), &json!(150), &json!(8)]
    );
    for team in [first, second, other] {
        admin.get(&format!("/api/teams/{}/usage", team.id)).await.ok();
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn the_most_that_is_plausible_many_times_over_overflows_no_sum() {
    let app = TestApp::start().await;
    let group = app.model_group(&["gpt-4o-mini"]).await;
    let fields = json!({
        "credits_allocated": 1, "model_groups": [group],
        "limits": {"cost_usd_per_job": 0}, "billing_mode": "consumption_tokens", "tokens_per_credit": 1,
    });
    let team = unbounded(&app, fields).await;
    let job = team.job().await;
    let most = "[[prompt_tokens=1000000000]] [[completion_tokens=0]] [[cost=1000000]] x";
    for _ in 0..12 {
        team.call(&job, most).await.ok();
    }
    let costs = team.complete(&job, "completed").await.ok()["costs"].clone();
    assert_eq!(
        [&costs["total_tokens"], &costs["total_cost_usd"], &costs["credits_charged"]],
        [&json!(12_000_000_000_i64), &json!(12_000_000), &json!(12_000_000_000_i64)]
    );
    app.admin().get(&format!("/api/teams/{}/usage", team.id)).await.ok();
    app.check_invariants().await;
}

#[tokio::test]
async fn a_cost_that_can_not_be_true_is_unknown_with_the_tokens_beside_it() {
    let app = TestApp::start().await;
    if app.stand_in().is_none() {
        return;
    }
    let team = unbounded(&app, json!({"credits_allocated": 9})).await;
    for (cost, is_number) in COSTS {
        let job = team.job().await;
        let text = format!("[[prompt_tokens=10]] [[completion_tokens=5]] [[cost={cost}]] hello");
        let answer = team.call(&job, &text).await.ok();
        assert_eq!(answer["response"]["content"], "You said: hello", "{cost}");
        assert_unknown(&team.read(&job).await["calls"][0], cost);
        if is_number {
            let (text, _) = streamed(&team, &job, &text).await;
            assert_eq!(text, "You said: hello", "{cost}");
            assert_unknown(&team.read(&job).await["calls"][1], cost);
        }
        team.complete(&job, "completed").await.ok();
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn a_cost_in_litellms_log_that_can_not_be_true_is_not_taken_either() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let team = app.team_using(&["unpriced"], 1).await;
    let job = team.job().await;
    let answer = team.call(&job, "[[prompt_tokens=10]] [[completion_tokens=5]] x").await.ok();
    stand_in.set_spend(answer["call_id"].as_str().expect("an id"), -3.0);
    assert_eq!(upkeep(&app).await["steps"]["costs"]["done"], 0);
    let call = team.read(&job).await["calls"][0].clone();
    assert_eq!((&call["cost_usd"], &call["tokens"]), (&json!(null), &json!(15)), "{call}");
    team.complete(&job, "completed").await.ok();
    app.check_invariants().await;
}

#[tokio::test]
async fn openais_own_form_leaves_an_implausible_usage_out_too() {
    let app = TestApp::start().await;
    let team = unbounded(&app, json!({"credits_allocated": 9})).await;
    let text = "[[prompt_tokens=9223372036854775808]] hello";
    let mut body = prompt(text);
    let answer = team.client.post("/v1/chat/completions", body.clone()).await.ok();
    assert_eq!(answer["choices"][0]["message"]["content"], "You said: hello");
    assert_eq!(answer["usage"], json!(null), "{answer}");
    body["stream"] = json!(true);
    body["stream_options"] = json!({"include_usage": true});
    let events = team.client.stream("/v1/chat/completions", body).await.rest().await;
    assert_eq!(events.last().map(String::as_str), Some("data: [DONE]"));
    assert!(!events.concat().contains("9223372036854775808"));
    app.check_invariants().await;
}

#[tokio::test]
async fn a_job_that_is_charged_by_consumption_is_charged_at_least_one_credit_for_unknown_numbers() {
    let app = TestApp::start().await;
    for mode in ["consumption_usd", "consumption_tokens"] {
        let team = app.team_with(json!({"credits_allocated": 5, "billing_mode": mode})).await;
        let job = team.job().await;
        call(&team, &job, prompt("[[prompt_tokens=9223372036854775800]] x")).await.ok();
        let costs = team.complete(&job, "completed").await.ok()["costs"].clone();
        assert_eq!(
            [&costs["credits_charged"], &costs["charge_is_final"]],
            [&json!(1), &json!(true)],
            "{mode}"
        );
    }
    app.check_invariants().await;
}
