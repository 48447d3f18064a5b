//! The price that a customer pays for a job beside its credits: flat, with a markup, or in tiers.

use crate::{
    amounts::{amount, decimal},
    billing::{revenue, stream, team, tokens},
    fixtures::sql,
};
use api_tests::TestApp;
use futures::future::join_all;
use rust_decimal::Decimal;
use serde_json::{Value, json};

#[tokio::test]
async fn a_flat_price_is_booked_for_each_job_that_is_charged() {
    let app = TestApp::start().await;
    // As text or as a number.
    for price in [json!("0.35"), json!(0.35)] {
        let team = team(&app, json!({"pricing": {"mode": "flat", "price_per_job_usd": price}})).await;
        for status in ["completed", "failed", "completed", "cancelled", "completed"] {
            let job = team.job().await;
            team.call(&job, &tokens(100, 0)).await.ok();
            team.complete(&job, status).await.ok();
        }
        let usage = app.admin().get(&format!("/api/teams/{}/usage", team.id)).await.text;
        assert_eq!(amount(&usage, &["revenue_usd"]), decimal("1.05"));
        assert_eq!(amount(&usage, &["margin_usd"]), decimal("0.55"), "all five calls have cost something");
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn a_markup_is_booked_on_what_the_calls_of_charged_jobs_cost_to_the_last_digit() {
    let app = TestApp::start().await;
    let team = team(&app, json!({"pricing": {"mode": "markup", "markup_percent": 12.5}})).await;
    let mut cost = Decimal::ZERO;
    for (prompt, completion) in [(100, 50), (7, 11), (1, 0)] {
        let job = team.job().await;
        team.call(&job, &tokens(prompt, completion)).await.ok();
        stream(&team, &job, &tokens(completion, prompt)).await;
        team.complete(&job, "completed").await.ok();
        cost += amount(&team.client.get(&format!("/api/jobs/{job}")).await.text, &["total_cost_usd"]);
    }
    let free = team.job().await;
    team.call(&free, &tokens(1000, 0)).await.ok();
    team.complete(&free, "failed").await.ok();
    assert_eq!(revenue(&app, &team).await, cost * decimal("1.125"));
    app.check_invariants().await;
}

#[tokio::test]
async fn a_markup_follows_a_cost_that_is_known_only_after_the_job_was_completed() {
    let app = TestApp::start().await;
    let team = team(&app, json!({"pricing": {"mode": "markup", "markup_percent": 100}})).await;
    let job = team.job().await;
    let body = json!({"messages": [{"role": "user", "content": "[[chunks=10]] [[delay_ms=100]] hello"}]});
    let mut stream = team.client.stream(&format!("/api/jobs/{job}/llm-call-stream"), body).await;
    stream.next_data().await.expect("an event");
    team.complete(&job, "completed").await.ok();
    assert_eq!(revenue(&app, &team).await, Decimal::ZERO);
    stream.rest().await;
    let cost = amount(&team.client.get(&format!("/api/jobs/{job}")).await.text, &["total_cost_usd"]);
    assert!(cost > Decimal::ZERO);
    assert_eq!(revenue(&app, &team).await, cost * decimal("2"));
    app.check_invariants().await;
}

/// Two jobs for 0.50, two for 0.40, then 0.30 each.
fn tiers() -> Value {
    json!({"mode": "tiered", "tiers": [
        {"up_to": 2, "price_per_job_usd": "0.50"}, {"up_to": 4, "price_per_job_usd": "0.40"},
        {"up_to": null, "price_per_job_usd": "0.30"},
    ]})
}

#[tokio::test]
async fn tiers_go_by_the_jobs_that_were_charged_before_in_the_month() {
    let app = TestApp::start().await;
    let team = team(&app, json!({"pricing": tiers()})).await;
    for (status, expected) in [
        ("completed", "0.50"),
        ("failed", "0.50"),
        ("completed", "1.00"),
        ("completed", "1.40"),
        ("cancelled", "1.40"),
        ("completed", "1.80"),
        ("completed", "2.10"),
        ("completed", "2.40"),
    ] {
        let job = team.job().await;
        team.complete(&job, status).await.ok();
        assert_eq!(revenue(&app, &team).await, decimal(expected), "{status}");
    }
    app.check_invariants().await;
    // A month goes by.
    sql(&app, "UPDATE usage_days SET day = (day - interval '1 month')::date").await;
    let job = team.job().await;
    team.complete(&job, "completed").await.ok();
    assert_eq!(revenue(&app, &team).await, decimal("0.50"), "each month begins with the first tier");
}

#[tokio::test]
async fn jobs_that_are_completed_at_once_share_the_tiers_without_a_gap() {
    let app = TestApp::start().await;
    let team = team(&app, json!({"pricing": tiers()})).await;
    let jobs = join_all((0..12).map(|_| team.job())).await;
    join_all(jobs.iter().map(async |job| team.complete(job, "completed").await.ok())).await;
    assert_eq!(revenue(&app, &team).await, decimal("4.20"));
    app.check_invariants().await;
}
