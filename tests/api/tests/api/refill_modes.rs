//! What automatic refills do: they add up to a cap, or reset; and nothing while a team is suspended.

use crate::refills::{configure, let_pass};
use api_tests::{Team, TestApp};
use serde_json::json;

/// The team's ledger, oldest first, as `type amount`.
async fn ledger(app: &TestApp, team: &Team) -> Vec<String> {
    let path = format!("/api/credits/teams/{}/transactions", team.id);
    let ledger = app.admin().get(&path).await.ok();
    let rows = ledger["transactions"].as_array().expect("a list").iter().rev();
    rows.map(|row| format!("{} {}", row["transaction_type"].as_str().unwrap_or("?"), row["credits_amount"]))
        .collect()
}

#[tokio::test]
async fn a_refill_adds_up_to_the_cap_and_nothing_above_it() {
    let app = TestApp::start().await;
    let team = app.team(10).await;
    let body =
        json!({"enabled": true, "refill_amount": 5, "refill_period": "daily", "mode": "add", "cap": 17});
    let set = configure(&app, &team, body).await.ok();
    assert_eq!((&set["refill_mode"], &set["refill_cap"]), (&json!("add"), &json!(17)));
    let_pass(&app, "4 days").await;
    let balance = team.balance().await;
    assert_eq!((&balance["credits_remaining"], &balance["refill_cap"]), (&json!(17), &json!(17)));
    assert_eq!(ledger(&app, &team).await, ["allocation 10", "refill 5", "refill 2"]);
    let job = team.job().await;
    team.complete(&job, "completed").await.ok();
    let_pass(&app, "1 days").await;
    assert_eq!(team.balance().await["credits_remaining"], 17, "what was used is added again");
    app.check_invariants().await;
}

#[tokio::test]
async fn a_reset_makes_the_amount_the_remaining_from_below_and_from_above() {
    let app = TestApp::start().await;
    let team = app.team(10).await;
    let body = json!({"enabled": true, "refill_amount": 6, "refill_period": "monthly", "mode": "reset_to"});
    configure(&app, &team, body).await.ok();
    let_pass(&app, "31 days").await;
    assert_eq!(team.balance().await["credits_remaining"], 6);
    for _ in 0..3 {
        let job = team.job().await;
        team.complete(&job, "completed").await.ok();
    }
    let_pass(&app, "31 days").await;
    let balance = team.balance().await;
    assert_eq!((&balance["credits_remaining"], &balance["credits_used"]), (&json!(6), &json!(3)));
    let_pass(&app, "93 days").await;
    assert_eq!(
        team.balance().await["credits_remaining"],
        6,
        "periods that passed unseen change nothing more"
    );
    let expected = ["allocation 10", "expiry 4", "deduction 1", "deduction 1", "deduction 1", "refill 3"];
    assert_eq!(ledger(&app, &team).await, expected);
    app.check_invariants().await;
}

#[tokio::test]
async fn nothing_accrues_while_a_team_is_suspended() {
    let app = TestApp::start().await;
    let team = app.team(10).await;
    let body = json!({"enabled": true, "refill_amount": 5, "refill_period": "daily"});
    configure(&app, &team, body).await.ok();
    let_pass(&app, "2 days").await;
    app.admin().put(&format!("/api/teams/{}/suspend", team.id), json!({})).await.ok();
    let remaining = async || {
        app.admin().get(&format!("/api/teams/{}", team.id)).await.ok()["credits"]["credits_remaining"].clone()
    };
    assert_eq!(remaining().await, 20, "what was due before is made");
    let_pass(&app, "3 days").await;
    assert_eq!(remaining().await, 20);
    let_pass(&app, "3 days").await;
    app.admin().put(&format!("/api/teams/{}/resume", team.id), json!({})).await.ok();
    assert_eq!(remaining().await, 20, "and nothing is made up for");
    let_pass(&app, "1 days").await;
    assert_eq!(remaining().await, 25);
    app.check_invariants().await;
}

#[tokio::test]
async fn a_mode_or_a_cap_that_makes_no_sense_is_refused() {
    let app = TestApp::start().await;
    let team = app.team(10).await;
    for (member, value, field) in
        [("mode", json!("set"), "mode"), ("cap", json!(0), "cap"), ("cap", json!("x"), "cap")]
    {
        let mut body = json!({"enabled": true, "refill_amount": 5, "refill_period": "daily"});
        body[member] = value;
        let answer = configure(&app, &team, body.clone()).await;
        assert_eq!(answer.status, 400, "{body}");
        assert!(answer.body["detail"].as_str().is_some_and(|detail| detail.starts_with(field)), "{body}");
    }
    let body =
        json!({"enabled": true, "refill_amount": 5, "refill_period": "daily", "mode": "reset_to", "cap": 9});
    configure(&app, &team, body).await.refused(
        400,
        "invalid_request",
        "cap: expected only with mode add; reset_to makes refill_amount the remaining",
    );
    assert_eq!(team.balance().await["auto_refill"], false);
    app.check_invariants().await;
}
