//! The ledger: every change of a balance, in order.

use crate::{
    credits::add,
    fixtures::{assert_time, assert_uuid},
};
use api_tests::{Team, TestApp};
use serde_json::{Value, json};

async fn transactions(team: &Team, query: &str) -> Value {
    team.client.get(&format!("/api/credits/teams/{}/transactions{query}", team.id)).await.ok()
}

/// `GET /api/credits/teams/{team_id}/transactions`
#[tokio::test]
async fn the_ledger_has_every_change_newest_first_each_continuing_the_one_before() {
    let app = TestApp::start().await;
    let team = app.team(3).await;
    let (job, failed) = (team.job().await, team.job().await);
    team.complete(&job, "completed").await.ok();
    team.complete(&failed, "failed").await.ok();
    let body = json!({"amount": 4, "reason": "Monthly allocation", "metadata": {"invoice": 7}});
    let added = add(&app, &team, body).await.ok();

    let ledger = transactions(&team, "").await;
    let rows = ledger["transactions"].as_array().expect("a list");
    let seen: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!([
                row["transaction_type"],
                row["credits_amount"],
                row["balance_before"],
                row["balance_after"],
                row["job_id"]
            ])
        })
        .collect();
    let expected =
        json!([["allocation", 4, 2, 6, null], ["deduction", 1, 3, 2, job], ["allocation", 3, 0, 3, null]]);
    assert_eq!(json!(seen), expected);
    assert_eq!(
        (&ledger["total"], &ledger["total_transactions"], &ledger["team_id"]),
        (&json!(3), &json!(3), &json!(team.id))
    );
    assert_eq!(rows[0], added["transaction"]);
    assert_eq!(
        (&rows[0]["reason"], &rows[0]["metadata"]),
        (&json!("Monthly allocation"), &json!({"invoice": 7}))
    );
    assert_eq!(rows[1]["reason"], "Job test completed successfully");
    for row in rows {
        assert_uuid(&row["transaction_id"]);
        assert_time(&row["created_at"]);
        assert_eq!(row["team_id"], json!(team.id));
    }
    assert_eq!(app.admin().get(&format!("/api/credits/teams/{}/transactions", team.id)).await.ok(), ledger);
    app.check_invariants().await;
}

#[tokio::test]
async fn the_ledger_has_pages() {
    let app = TestApp::start().await;
    let (team, other) = (app.team(1).await, app.team(7).await);
    for amount in 2..=60 {
        add(&app, &team, json!({"amount": amount})).await.ok();
    }
    add(&app, &other, json!({"amount": 7})).await.ok();
    for (query, newest, oldest) in [
        ("", 60, 11),
        ("?limit=60", 60, 1),
        ("?limit=1000", 60, 1),
        ("?limit=3", 60, 58),
        ("?limit=3&offset=1", 59, 57),
        ("?limit=10&offset=55", 5, 1),
        ("?offset=59", 1, 1),
    ] {
        let page = transactions(&team, query).await;
        let amounts: Vec<i64> = page["transactions"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|row| row["credits_amount"].as_i64().expect("an amount"))
            .collect();
        assert_eq!(amounts, (oldest..=newest).rev().collect::<Vec<i64>>(), "{query}");
        assert_eq!(page["total"], 60);
    }
    for query in ["?offset=60", "?offset=1000000000000"] {
        let page = transactions(&team, query).await;
        assert_eq!((&page["transactions"], &page["total"]), (&json!([]), &json!(60)), "{query}");
    }
}
