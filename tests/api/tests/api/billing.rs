//! What a job costs by its team's terms: credits by consumption, and the price that its customer pays beside them.

use crate::{
    amounts::{amount, decimal},
    credits::add,
    fixtures::{stored, unique},
};
use api_tests::{Answer, Team, TestApp};
use futures::future::join_all;
use rust_decimal::Decimal;
use serde_json::{Value, json};

/// A prompt that is answered with so many tokens.
pub fn tokens(prompt: u32, completion: u32) -> String {
    format!("[[prompt_tokens={prompt}]] [[completion_tokens={completion}]] x")
}

/// A team with these fields that uses `expensive`: a dollar for a thousand tokens. LiteLLM's budget does not bound it.
pub async fn team(app: &TestApp, fields: Value) -> Team {
    let mut body = json!({
        "credits_allocated": 100, "max_budget": 1_000_000, "model_groups": [app.model_group(&["expensive"]).await],
    });
    body.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
    app.team_with(body).await
}

/// Makes a streamed call and reads it to its end.
pub async fn stream(team: &Team, job: &str, prompt: &str) {
    let body = json!({"messages": [{"role": "user", "content": prompt}]});
    let stream = team.client.stream(&format!("/api/jobs/{job}/llm-call-stream"), body).await;
    assert_eq!(stream.rest().await.last().map(String::as_str), Some("data: [DONE]"));
}

/// A job of one call with so many prompt tokens, completed: what its end answered.
async fn job_of_tokens(team: &Team, prompt_tokens: u32) -> Value {
    let job = team.job().await;
    team.call(&job, &tokens(prompt_tokens, 0)).await.ok();
    team.complete(&job, "completed").await.ok()["costs"].clone()
}

async fn change(app: &TestApp, team: &Team, fields: Value) {
    app.admin().put(&format!("/api/teams/{}", team.id), fields).await.ok();
}

/// This month's revenue from a team.
pub async fn revenue(app: &TestApp, team: &Team) -> Decimal {
    amount(&app.admin().get(&format!("/api/teams/{}/usage", team.id)).await.text, &["revenue_usd"])
}

#[tokio::test]
async fn consumption_in_dollars_is_rounded_up_to_whole_credits_and_at_least_one() {
    let app = TestApp::start().await;
    let team = team(&app, json!({"billing_mode": "consumption_usd"})).await;
    let mut remaining = 100;
    // Ten credits for a dollar, where nothing is said.
    for (prompt_tokens, credits) in [(0, 1), (1, 1), (99, 1), (100, 1), (101, 2), (1000, 10), (1001, 11)] {
        let costs = job_of_tokens(&team, prompt_tokens).await;
        remaining -= credits;
        assert_eq!(
            (&costs["credit_applied"], &costs["credits_charged"], &costs["credits_remaining"]),
            (&json!(true), &json!(credits), &json!(remaining)),
            "{prompt_tokens} tokens: {costs}"
        );
    }
    let job = team.job().await;
    assert_eq!(team.complete(&job, "completed").await.ok()["costs"]["credits_charged"], 1, "without a call");
    app.check_invariants().await;
}

#[tokio::test]
async fn consumption_is_summed_up_as_decimals_before_it_is_rounded() {
    let app = TestApp::start().await;
    let rate = json!({"billing_mode": "consumption_usd", "credits_per_dollar": 10});
    let team = team(&app, rate).await;
    let job = team.job().await;
    // Three dimes: as floats they would be 0.30000000000000004, and four credits.
    for _ in 0..2 {
        team.call(&job, &tokens(100, 0)).await.ok();
    }
    stream(&team, &job, &tokens(100, 0)).await;
    let costs = team.complete(&job, "completed").await.ok()["costs"].clone();
    assert_eq!((&costs["credits_charged"], &costs["total_cost_usd"]), (&json!(3), &json!(0.3)));
    app.check_invariants().await;
}

#[tokio::test]
async fn the_rates_of_consumption_are_the_teams_own() {
    let app = TestApp::start().await;
    for (fields, prompt_tokens, credits) in [
        (json!({"billing_mode": "consumption_usd", "credits_per_dollar": 2.5}), 1000, 3),
        (json!({"billing_mode": "consumption_usd", "credits_per_dollar": 0.1}), 10_000, 1),
        (json!({"billing_mode": "consumption_usd", "credits_per_dollar": 100}), 11, 2),
        (json!({"billing_mode": "consumption_tokens"}), 10_000, 1),
        (json!({"billing_mode": "consumption_tokens"}), 10_001, 2),
        (json!({"billing_mode": "consumption_tokens", "tokens_per_credit": 7}), 49, 7),
        (json!({"billing_mode": "consumption_tokens", "tokens_per_credit": 7}), 50, 8),
        (json!({"billing_mode": "consumption_tokens", "tokens_per_credit": 1}), 0, 1),
        (json!({"billing_mode": "job_based", "tokens_per_credit": 1}), 5000, 1),
    ] {
        let costs = job_of_tokens(&team(&app, fields.clone()).await, prompt_tokens).await;
        assert_eq!(costs["credits_charged"], credits, "{fields}, {prompt_tokens} tokens: {costs}");
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn tokens_of_all_calls_count_together_whether_streamed_or_not() {
    let app = TestApp::start().await;
    let team = team(&app, json!({"billing_mode": "consumption_tokens", "tokens_per_credit": 1000})).await;
    let job = team.job().await;
    team.call(&job, &tokens(200, 200)).await.ok();
    stream(&team, &job, &tokens(300, 100)).await;
    stream(&team, &job, &tokens(100, 300)).await;
    let costs = team.complete(&job, "completed").await.ok()["costs"].clone();
    assert_eq!((&costs["total_tokens"], &costs["credits_charged"]), (&json!(1200), &json!(2)));
    let path = format!("/api/credits/teams/{}/transactions?limit=1", team.id);
    let entry = team.client.get(&path).await.ok()["transactions"][0].clone();
    assert_eq!(
        (&entry["transaction_type"], &entry["credits_amount"], &entry["balance_after"]),
        (&json!("deduction"), &json!(2), &json!(98))
    );
    app.check_invariants().await;
}

#[tokio::test]
async fn a_job_that_is_not_charged_costs_nothing_whatever_it_used() {
    let app = TestApp::start().await;
    let team = team(&app, json!({"billing_mode": "consumption_tokens", "tokens_per_credit": 10})).await;
    for status in ["failed", "cancelled", "completed"] {
        let job = team.job().await;
        team.call(&job, &tokens(1000, 0)).await.ok();
        if status == "completed" {
            assert_eq!(team.call(&job, "[[status=500]]").await.status, 502);
        }
        let costs = team.complete(&job, status).await.ok()["costs"].clone();
        assert_eq!(
            (&costs["credit_applied"], &costs["credits_charged"], &costs["credits_remaining"]),
            (&json!(false), &json!(0), &json!(100)),
            "{status}"
        );
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn a_consumption_is_charged_in_full_below_zero_and_nothing_starts_until_it_is_topped_up() {
    let app = TestApp::start().await;
    let team = team(
        &app,
        json!({"billing_mode": "consumption_usd", "credits_per_dollar": 10, "credits_allocated": 2}),
    )
    .await;
    let (first, second) = (team.job().await, team.job().await);
    team.call(&first, &tokens(1500, 0)).await.ok();
    let costs = team.complete(&first, "completed").await.ok()["costs"].clone();
    assert_eq!((&costs["credits_charged"], &costs["credits_remaining"]), (&json!(15), &json!(-13)));

    let body = json!({"team_id": team.id, "job_type": "test"});
    let refusal = |available: i64| format!("Insufficient credits. Required: 1, Available: {available}");
    let refused = team.client.post("/api/jobs/create", body.clone()).await;
    refused.refused(402, "insufficient_credits", &refusal(-14));
    // What was open goes on, and is charged in full, too.
    team.call(&second, &tokens(250, 0)).await.ok();
    let costs = team.complete(&second, "completed").await.ok()["costs"].clone();
    assert_eq!((&costs["credits_charged"], &costs["credits_remaining"]), (&json!(3), &json!(-16)));
    let balance = team.balance().await;
    assert_eq!(
        (&balance["credits_remaining"], &balance["credits_reserved"], &balance["credits_available"]),
        (&json!(-16), &json!(0), &json!(-16))
    );

    for (amount, available) in [(10, -6), (6, 0)] {
        add(&app, &team, json!({"amount": amount})).await.ok();
        let refused = team.client.post("/api/jobs/create", body.clone()).await;
        refused.refused(402, "insufficient_credits", &refusal(available));
    }
    add(&app, &team, json!({"amount": 1})).await.ok();
    let job = team.job().await;
    team.complete(&job, "cancelled").await.ok();
    app.check_invariants().await;
}

#[tokio::test]
async fn a_soft_team_consumes_down_to_its_limit_and_the_last_job_below_it() {
    let app = TestApp::start().await;
    let team = team(
        &app,
        json!({"billing_mode": "consumption_tokens", "tokens_per_credit": 100, "credits_allocated": 1,
               "budget_mode": "soft", "credit_limit": 5}),
    )
    .await;
    assert_eq!(job_of_tokens(&team, 500).await["credits_remaining"], -4);
    assert_eq!(job_of_tokens(&team, 500).await["credits_remaining"], -9);
    let refused = team.client.post("/api/jobs/create", json!({"team_id": team.id, "job_type": "test"})).await;
    refused.refused(402, "insufficient_credits", "Insufficient credits. Required: 1, Available: -9");
    app.check_invariants().await;
}

#[tokio::test]
async fn a_limit_that_is_lowered_stops_new_jobs_and_lets_open_ones_end() {
    let app = TestApp::start().await;
    let team = team(&app, json!({"credits_allocated": 1, "budget_mode": "soft"})).await;
    let jobs = join_all((0..5).map(|_| team.job())).await;
    team.complete(&jobs[0], "completed").await.ok();
    for (fields, taken) in [
        (json!({"credit_limit": 10}), true),
        (json!({"credit_limit": 5}), false),
        (json!({"credit_limit": 2}), false),
        (json!({"credit_limit": null}), true),
        (json!({"budget_mode": "hard"}), false),
    ] {
        change(&app, &team, fields.clone()).await;
        let answer =
            team.client.post("/api/jobs/create", json!({"team_id": team.id, "job_type": "test"})).await;
        assert_eq!(answer.status, if taken { 200 } else { 402 }, "{fields}: {}", answer.text);
        let check = team.client.post(&format!("/api/credits/teams/{}/check", team.id), json!({})).await.ok();
        assert!(taken || check["has_credits"] == false, "{fields}");
    }
    for (job, end) in jobs[1..].iter().zip(["completed", "failed", "completed", "cancelled"]) {
        team.complete(job, end).await.ok();
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn a_job_keeps_the_terms_that_its_team_had_when_it_was_created() {
    let app = TestApp::start().await;
    let team = team(&app, json!({"pricing": {"mode": "flat", "price_per_job_usd": "1"}})).await;
    let terms = [
        (json!({}), 1, "1"),
        (json!({"billing_mode": "consumption_tokens", "tokens_per_credit": 100}), 10, "1"),
        (json!({"tokens_per_credit": 50}), 20, "1"),
        (json!({"billing_mode": "consumption_usd", "credits_per_dollar": 7}), 7, "1"),
        (json!({"pricing": {"mode": "flat", "price_per_job_usd": "2.5"}}), 7, "2.5"),
        (json!({"pricing": null, "billing_mode": "job_based"}), 1, "0"),
    ];
    let mut jobs = vec![];
    for (fields, ..) in &terms {
        change(&app, &team, fields.clone()).await;
        jobs.push(team.job().await);
    }
    let mut earned = Decimal::ZERO;
    for (job, (fields, credits, price)) in jobs.iter().zip(&terms).rev() {
        team.call(job, &tokens(1000, 0)).await.ok();
        let costs = team.complete(job, "completed").await.ok()["costs"].clone();
        assert_eq!(costs["credits_charged"], *credits, "{fields}");
        earned += decimal(price);
        assert_eq!(revenue(&app, &team).await, earned, "{fields}");
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn many_completions_at_once_charge_each_consumption_once() {
    let app = TestApp::start().await;
    let team = team(
        &app,
        json!({"billing_mode": "consumption_tokens", "tokens_per_credit": 100, "credits_allocated": 10}),
    )
    .await;
    let jobs = join_all((0..10).map(|_| team.job())).await;
    join_all((0_u32..).zip(&jobs).map(async |(n, job)| team.call(job, &tokens(100 * n, 0)).await.ok())).await;
    join_all(jobs.iter().chain(&jobs).map(async |job| team.complete(job, "completed").await.ok())).await;
    // 1 + 1 + 2 + … + 9
    assert_eq!(team.balance().await["credits_used"], 46);
    app.check_invariants().await;
}

#[tokio::test]
async fn terms_that_make_no_sense_are_refused_by_name_and_change_nothing() {
    let app = TestApp::start().await;
    let team = team(&app, json!({})).await;
    let organization = app.organization().await;
    let before = stored(&app).await;
    let flat = |price: Value| json!({"mode": "flat", "price_per_job_usd": price});
    let tier = |up_to: Value| json!({"up_to": up_to, "price_per_job_usd": "1"});
    let tiered = |tiers: Value| json!({"mode": "tiered", "tiers": tiers});
    for (field, value) in [
        ("billing_mode", json!("hourly")),
        ("billing_mode", json!("JOB_BASED")),
        ("credits_per_dollar", json!(0)),
        ("credits_per_dollar", json!(-1)),
        ("credits_per_dollar", json!("10")),
        ("credits_per_dollar", json!(1e300)),
        ("tokens_per_credit", json!(0)),
        ("tokens_per_credit", json!(1.5)),
        ("pricing", json!("flat")),
        ("pricing", json!({})),
        ("pricing", json!({"mode": "free"})),
        ("pricing", json!({"mode": "flat"})),
        ("pricing", json!({"mode": "flat", "markup_percent": 3})),
        ("pricing", json!({"mode": "flat", "price_per_job_usd": "1", "markup_percent": 3})),
        ("pricing", json!({"mode": "markup", "price_per_job_usd": "1"})),
        ("pricing", json!({"mode": "flat", "price_per_job_usd": "1", "currency": "EUR"})),
        ("pricing", flat(json!("-0.01"))),
        ("pricing", flat(json!("1,5"))),
        ("pricing", flat(json!("a dollar"))),
        ("pricing", flat(json!(null))),
        ("pricing", tiered(json!([]))),
        ("pricing", tiered(json!([tier(json!(100))]))),
        ("pricing", tiered(json!([tier(json!(null)), tier(json!(null))]))),
        ("pricing", tiered(json!([tier(json!(5)), tier(json!(5)), tier(json!(null))]))),
        ("pricing", tiered(json!([tier(json!(5)), tier(json!(4)), tier(json!(null))]))),
        ("pricing", tiered(json!([tier(json!(0)), tier(json!(null))]))),
    ] {
        let check = |answer: Answer| {
            let named = answer.body["detail"].as_str().is_some_and(|detail| {
                detail.starts_with(&format!("{field}: ")) || detail.starts_with(&format!("{field}."))
            });
            assert!(answer.status == 400 && named, "{field} {value}: {}", answer.text);
        };
        check(app.admin().put(&format!("/api/teams/{}", team.id), json!({field: value})).await);
        let new = json!({"organization_id": organization, "team_id": unique("team"), field: value});
        check(app.admin().post("/api/teams/create", new).await);
    }
    assert_eq!(stored(&app).await, before);
}
