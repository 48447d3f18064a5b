//! Automatic refills: once for each period, whoever touches the account, and whenever.

use crate::fixtures::{assert_time, sql, stored};
use api_tests::{Answer, Team, TestApp};
use futures::future::{BoxFuture, FutureExt, join_all};
use serde_json::{Value, json};

/// Configures a team's automatic refills.
pub async fn configure(app: &TestApp, team: &Team, body: Value) -> Answer {
    app.admin().post(&format!("/api/credits/teams/{}/configure-auto-refill", team.id), body).await
}

/// A team with 10 credits that gets 5 more for each period.
async fn refilled(app: &TestApp, period: &str) -> Team {
    let team = app.team(10).await;
    configure(app, &team, json!({"enabled": true, "refill_amount": 5, "refill_period": period})).await.ok();
    team
}

/// Lets so much time go by for the schedules of all teams.
pub async fn let_pass(app: &TestApp, interval: &str) {
    let earlier = format!(
        "UPDATE credit_accounts SET refill_start = refill_start - interval '{interval}', \
         refill_due = refill_due - interval '{interval}'"
    );
    sql(app, &earlier).await;
}

/// The refills in the ledger, oldest first.
async fn refills(app: &TestApp, team: &Team) -> Vec<Value> {
    let path = format!("/api/credits/teams/{}/transactions?limit=1000", team.id);
    let ledger = app.admin().get(&path).await.ok();
    let rows = ledger["transactions"].as_array().expect("a list").iter().rev();
    rows.filter(|row| row["transaction_type"] == "refill").cloned().collect()
}

/// `POST /api/credits/teams/{team_id}/configure-auto-refill`
#[tokio::test]
async fn an_automatic_refill_is_configured_and_shown_in_the_balance() {
    let app = TestApp::start().await;
    let team = app.team(10).await;
    let before = team.balance().await;
    assert_eq!(
        [
            &before["auto_refill"],
            &before["refill_amount"],
            &before["refill_period"],
            &before["next_refill_at"]
        ],
        [&json!(false), &Value::Null, &Value::Null, &Value::Null]
    );
    for (period, amount) in [("daily", json!(7)), ("weekly", json!(8.0)), ("monthly", json!(9))] {
        let body = json!({"enabled": true, "refill_amount": amount, "refill_period": period});
        let set = configure(&app, &team, body).await.ok();
        assert_eq!(
            (&set["team_id"], &set["auto_refill_enabled"], &set["refill_period"]),
            (&json!(team.id), &json!(true), &json!(period))
        );
        assert_eq!(set["refill_amount"].as_f64(), amount.as_f64());
        assert!(set["message"].is_string());
        assert_time(&set["next_refill_at"]);
        let balance = team.balance().await;
        assert_eq!(balance["auto_refill"], true);
        for name in ["refill_amount", "refill_period", "next_refill_at"] {
            assert_eq!(balance[name], set[name], "{period}");
        }
        assert_eq!(balance["credits_remaining"], 10, "the first is due one period later");
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn disabling_keeps_the_values_and_enabling_again_begins_a_period_now() {
    let app = TestApp::start().await;
    let team = refilled(&app, "weekly").await;
    let disabled = configure(&app, &team, json!({"enabled": false})).await.ok();
    assert_eq!(
        (&disabled["auto_refill_enabled"], &disabled["refill_amount"], &disabled["refill_period"]),
        (&json!(false), &json!(5), &json!("weekly"))
    );
    assert_eq!(disabled["next_refill_at"], Value::Null);
    sql(&app, "UPDATE credit_accounts SET refill_start = refill_start - interval '100 days'").await;
    assert_eq!(team.balance().await["credits_remaining"], 10, "nothing is due while it is disabled");

    let changed = configure(&app, &team, json!({"enabled": false, "refill_amount": 6})).await.ok();
    assert_eq!((&changed["refill_amount"], &changed["refill_period"]), (&json!(6), &json!("weekly")));
    let body = json!({"enabled": true, "refill_amount": 6, "refill_period": "weekly"});
    configure(&app, &team, body).await.ok();
    assert_eq!(team.balance().await["credits_remaining"], 10, "nothing is made up for");
    let_pass(&app, "7 days").await;
    assert_eq!(team.balance().await["credits_remaining"], 16);
    app.check_invariants().await;
}

#[tokio::test]
async fn the_same_period_again_keeps_its_schedule_and_another_begins_anew() {
    let app = TestApp::start().await;
    let team = refilled(&app, "weekly").await;
    let_pass(&app, "3 days").await;
    let next = team.balance().await["next_refill_at"].clone();
    let body = json!({"enabled": true, "refill_amount": 50, "refill_period": "weekly"});
    assert_eq!(configure(&app, &team, body).await.ok()["next_refill_at"], next);
    let body = json!({"enabled": true, "refill_amount": 50, "refill_period": "daily"});
    let daily = configure(&app, &team, body).await.ok()["next_refill_at"].clone();
    assert!(daily.as_str() < next.as_str(), "{daily} {next}");
    let_pass(&app, "1 day").await;
    assert_eq!(team.balance().await["credits_remaining"], 60);
    app.check_invariants().await;
}

#[tokio::test]
async fn a_refill_that_makes_no_sense_is_refused_by_name() {
    let app = TestApp::start().await;
    let team = app.team(10).await;
    let before = stored(&app).await;
    let on = |amount: Value, period: Value| json!({"enabled": true, "refill_amount": amount, "refill_period": period});
    for (field, body) in [
        ("enabled", json!({})),
        ("enabled", json!({"refill_amount": 5, "refill_period": "daily"})),
        ("enabled", json!({"enabled": "yes"})),
        ("refill_amount", json!({"enabled": true, "refill_period": "daily"})),
        ("refill_period", json!({"enabled": true, "refill_amount": 5})),
        ("refill_amount", on(json!(0), json!("daily"))),
        ("refill_amount", on(json!(-5), json!("daily"))),
        ("refill_amount", on(json!(1.5), json!("daily"))),
        ("refill_amount", on(json!("5"), json!("daily"))),
        ("refill_period", on(json!(5), json!("hourly"))),
        ("refill_period", on(json!(5), json!("Daily"))),
        ("period", json!({"enabled": false, "period": "daily"})),
    ] {
        let answer = configure(&app, &team, body.clone()).await;
        let named =
            answer.body["detail"].as_str().is_some_and(|detail| detail.starts_with(&format!("{field}: ")));
        assert!(answer.status == 400 && named, "{body}: {}", answer.text);
    }
    let path = "/api/credits/teams/None/configure-auto-refill";
    let nobody = app.admin().post(path, json!({"enabled": false})).await;
    nobody.refused(404, "not_found", "Team 'None' not found");
    assert_eq!(stored(&app).await, before);
}

#[tokio::test]
async fn a_due_refill_is_made_once_however_many_touch_the_account_at_once() {
    let app = TestApp::start().await;
    let team = refilled(&app, "daily").await;
    for round in 1..=3 {
        let_pass(&app, "1 day").await;
        let touches: Vec<BoxFuture<'_, ()>> = (0..12)
            .map(|touch| match touch % 6 {
                0 => team.balance().map(drop).boxed(),
                1 => team.job().map(drop).boxed(),
                2 => async { drop(app.admin().get("/api/teams").await.ok()) }.boxed(),
                3 => async { drop(app.admin().post("/api/upkeep", json!({})).await.ok()) }.boxed(),
                4 => async { drop(team.client.get(&format!("/api/teams/{}/jobs", team.id)).await.ok()) }
                    .boxed(),
                _ => async { drop(team.client.get(&format!("/api/teams/{}", team.id)).await.ok()) }.boxed(),
            })
            .collect();
        join_all(touches).await;
        assert_eq!(team.balance().await["credits_allocated"], 10 + 5 * round);
        assert_eq!(refills(&app, &team).await.len(), round);
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn every_period_that_went_by_is_refilled_at_the_next_touch() {
    let app = TestApp::start().await;
    let team = refilled(&app, "daily").await;
    let first_due = team.balance().await["next_refill_at"].clone();
    let_pass(&app, "4 days").await;

    let balance = team.balance().await;

    assert_eq!((&balance["credits_allocated"], &balance["credits_remaining"]), (&json!(30), &json!(30)));
    assert_eq!(
        balance["next_refill_at"], first_due,
        "five days after it began, which by now was four days ago"
    );
    let rows = refills(&app, &team).await;
    let after: Vec<_> = rows.iter().map(|row| row["balance_after"].as_i64().expect("a balance")).collect();
    assert_eq!(after, [15, 20, 25, 30]);
    let due: std::collections::BTreeSet<_> =
        rows.iter().map(|row| row["metadata"]["due"].to_string()).collect();
    assert_eq!(due.len(), 4);
    assert!(
        rows.iter().all(|row| row["credits_amount"] == 5 && row["reason"] == "Automatic daily refill"),
        "{rows:?}"
    );
    app.check_invariants().await;
}

#[tokio::test]
async fn a_month_that_began_on_a_31st_ends_on_the_last_day_of_shorter_ones_and_comes_back() {
    let app = TestApp::start().await;
    let team = refilled(&app, "monthly").await;
    let began = "UPDATE credit_accounts SET refill_start = '2024-01-31T23:30:00Z', refill_due = '2024-02-29T23:30:00Z'";
    sql(&app, began).await;
    team.balance().await;
    let rows = refills(&app, &team).await;
    let due: Vec<_> =
        rows.iter().take(14).map(|row| row["metadata"]["due"].as_str().expect("a time")).collect();
    let expected = [
        "2024-02-29",
        "2024-03-31",
        "2024-04-30",
        "2024-05-31",
        "2024-06-30",
        "2024-07-31",
        "2024-08-31",
        "2024-09-30",
        "2024-10-31",
        "2024-11-30",
        "2024-12-31",
        "2025-01-31",
        "2025-02-28",
        "2025-03-31",
    ]
    .map(|day| format!("{day}T23:30:00.000000Z"));
    assert_eq!(due, expected);
    app.check_invariants().await;
}

#[tokio::test]
async fn a_due_refill_opens_the_next_job_of_a_team_that_has_nothing_left() {
    let app = TestApp::start().await;
    let team = app.team(0).await;
    configure(&app, &team, json!({"enabled": true, "refill_amount": 1, "refill_period": "daily"})).await.ok();
    let body = json!({"team_id": team.id, "job_type": "test"});
    assert_eq!(team.client.post("/api/jobs/create", body.clone()).await.status, 402);
    let_pass(&app, "1 day").await;
    team.job().await;
    assert_eq!(team.client.post("/api/jobs/create", body.clone()).await.status, 402);
    let_pass(&app, "1 day").await;
    let check = team.client.post(&format!("/api/credits/teams/{}/check", team.id), json!({})).await.ok();
    assert_eq!(check["has_credits"], true);
    team.job().await;
    app.check_invariants().await;
}

#[tokio::test]
async fn a_refill_raises_litellms_budget_before_the_teams_next_call() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let team = refilled(&app, "daily").await;
    let budgets = || {
        (stand_in.team(&team.id).and_then(|team| team.max_budget), stand_in.keys_of(&team.id)[0].max_budget)
    };
    assert_eq!(budgets(), (Some(1.0), Some(1.0)));
    let_pass(&app, "2 days").await;
    let job = team.job().await;
    team.call(&job, "hello").await.ok();
    assert_eq!(budgets(), (Some(2.0), Some(2.0)));
    app.check_invariants().await;
}

#[tokio::test]
async fn upkeep_refills_all_teams_but_those_that_are_gone() {
    let app = TestApp::start().await;
    let (one, two, gone, none) = (
        refilled(&app, "daily").await,
        refilled(&app, "weekly").await,
        refilled(&app, "daily").await,
        app.team(10).await,
    );
    let path = format!("/api/teams/{}", gone.id);
    Answer::of(app.admin().request(reqwest::Method::DELETE, &path)).await.ok();
    let_pass(&app, "8 days").await;
    app.admin().post("/api/upkeep", json!({})).await.ok();
    let ledger =
        "SELECT team_id, count(*) FROM credit_transactions WHERE transaction_type = 'refill' GROUP BY 1";
    let rows = app.database.client.query(ledger, &[]).await.expect("the ledger");
    let mut refilled: Vec<(String, i64)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    refilled.sort();
    let mut expected = [(one.id.clone(), 8), (two.id.clone(), 1)];
    expected.sort();
    assert_eq!(refilled, expected);
    assert_eq!(none.balance().await["credits_allocated"], 10);
    app.check_invariants().await;
}
