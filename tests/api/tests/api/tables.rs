//! Usage and the ledger as comma-separated values.

use crate::{
    amounts::decimal,
    credits::add,
    usage::{completed, on_several_days, usage},
};
use api_tests::{Answer, TestApp};
use rust_decimal::Decimal;
use serde_json::{Value, json};

/// The lines of a table, the first being the names of its columns.
fn table(answer: &Answer) -> Vec<Vec<String>> {
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.header("content-type"), Some("text/csv; charset=utf-8"));
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(answer.text.as_bytes());
    reader.records().map(|row| row.expect("a row").iter().map(str::to_owned).collect()).collect()
}

#[tokio::test]
async fn as_a_table_the_ledger_has_the_same_rows_in_the_same_order() {
    let app = TestApp::start().await;
    let team = app.team(5).await;
    add(&app, &team, json!({"amount": 3, "reason": "a, \"b\"\nc", "metadata": {"invoice": "2025, 7"}}))
        .await
        .ok();
    let job = team.job().await;
    team.complete(&job, "completed").await.ok();
    let adjust = json!({"credits_amount": -2, "reason": "été"});
    app.admin().post(&format!("/api/credits/teams/{}/adjust", team.id), adjust).await.ok();
    let path = format!("/api/credits/teams/{}/transactions", team.id);
    let columns = [
        "created_at",
        "transaction_id",
        "team_id",
        "transaction_type",
        "credits_amount",
        "balance_before",
        "balance_after",
        "reason",
        "job_id",
        "metadata",
    ];
    for query in ["", "limit=2", "limit=2&offset=1", "limit=2&cursor=3"] {
        let list = team.client.get(&format!("{path}?{query}")).await.ok();
        let rows = table(&team.client.get(&format!("{path}?{query}&format=csv")).await);
        assert_eq!(rows[0], columns);
        let listed = list["transactions"].as_array().expect("rows");
        assert_eq!(rows.len(), 1 + listed.len(), "{query}");
        for (row, listed) in rows[1..].iter().zip(listed) {
            for (name, cell) in columns.iter().zip(row) {
                let expected = match &listed[*name] {
                    Value::Null => String::new(),
                    Value::String(text) => text.clone(),
                    number => number.to_string(),
                };
                if *name == "metadata" {
                    assert_eq!(serde_json::from_str::<Value>(cell).expect("JSON"), listed["metadata"]);
                } else {
                    assert_eq!(*cell, expected, "{name}");
                }
            }
        }
    }
    assert_eq!(
        table(&team.client.get(&format!("{path}?format=csv")).await)[1][4],
        "-2",
        "a number is no formula"
    );
    assert_eq!(team.client.get(&format!("{path}?format=pdf")).await.status, 400);
}

#[tokio::test]
async fn a_reason_that_a_spreadsheet_would_run_becomes_text() {
    let app = TestApp::start().await;
    let team = app.team(5).await;
    for start in ["=", "+", "-", "@", "\t=", "\r="] {
        let reason = format!("{start}HYPERLINK(\"http://evil\")");
        add(&app, &team, json!({"amount": 1, "reason": reason})).await.ok();
        let path = format!("/api/credits/teams/{}/transactions?limit=1", team.id);
        let row = table(&team.client.get(&format!("{path}&format=csv")).await).remove(1);
        assert_eq!(row[7], format!("'{reason}"));
        assert_eq!(
            team.client.get(&path).await.ok()["transactions"][0]["reason"],
            json!(reason),
            "JSON is as it came"
        );
    }
}

#[tokio::test]
async fn as_a_table_usage_has_a_line_for_each_day_and_job_type() {
    let app = TestApp::start().await;
    let team = on_several_days(&app).await;
    let rows = table(&usage(&app, &team, "?from=2025-10-01&to=2025-11-01&format=csv").await);
    let columns = [
        "day",
        "team_id",
        "job_type",
        "jobs",
        "successful_jobs",
        "failed_jobs",
        "credits_used",
        "calls",
        "tokens",
        "cost_usd",
        "revenue_usd",
        "charged_jobs",
        "free_jobs_with_output",
        "refused_calls",
    ];
    assert_eq!(rows[0], columns);
    let expected = [("2025-10-01", 2), ("2025-10-13", 4), ("2025-10-31", 8), ("2025-11-01", 16)];
    for ((day, tokens), row) in expected.iter().zip(&rows[1..]) {
        let id = team.id.as_str();
        let tokens = tokens.to_string();
        assert_eq!(row[..9], [*day, id, *day, "1", "1", "0", "1", "1", &tokens]);
        assert_eq!(decimal(&row[9]) * Decimal::from(1000), decimal(&tokens));
        assert_eq!(decimal(&row[10]), decimal("1.5"));
        assert_eq!(row[11..], ["1", "0", "0"]);
    }
    assert_eq!(rows.len(), 5);
    let path = format!("/api/teams/{}/usage?from=2025-10-01&to=2025-11-01&format=csv", team.id);
    let shown = table(&team.client.get(&path).await);
    assert!(shown[1..].iter().all(|row| row[10].is_empty()), "the revenue is the seller's: {shown:?}");
    assert_eq!(table(&usage(&app, &team, "?period=2000-01&format=csv").await).len(), 1);
    app.admin().get("/api/teams/None/usage?format=csv").await.refused(
        404,
        "not_found",
        "Team 'None' not found",
    );
}

#[tokio::test]
async fn cells_of_the_table_hold_any_job_type_and_run_no_formula() {
    let app = TestApp::start().await;
    let organization = app.organization().await;
    let mut teams = vec![];
    for _ in 0..2 {
        teams.push(app.team_with(json!({"credits_allocated": 9, "organization_id": organization})).await);
    }
    let types = ["a,b", "say \"hi\"", "=HYPERLINK(\"http://evil\")", "+1", "-1", "@SUM(A1)", "été"];
    for job_type in types {
        completed(&teams[0], job_type, 1).await;
    }
    completed(&teams[1], "x", 1).await;
    let rows = table(&app.admin().get(&format!("/api/organizations/{organization}/usage?format=csv")).await);
    let mut cells: Vec<&str> =
        rows[1..].iter().filter(|row| row[1] == teams[0].id).map(|row| row[2].as_str()).collect();
    cells.sort_unstable();
    let mut expected =
        ["a,b", "say \"hi\"", "'=HYPERLINK(\"http://evil\")", "'+1", "'-1", "'@SUM(A1)", "été"];
    expected.sort_unstable();
    assert_eq!(cells, expected);
    assert_eq!(rows.len(), 1 + types.len() + 1);
}
