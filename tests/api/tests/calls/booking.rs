//! Every number counts on the day on which it happens, so a month that is over stays as it was reported.

use crate::fixtures::{call, paying_team, prompt, sql};
use api_tests::{Team, TestApp};
use serde_json::{Value, json};

/// Usage of the month before this one, and of this one.
async fn months(app: &TestApp, team: &Team) -> [Value; 2] {
    let statement = "SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM'),
                            to_char(now() AT TIME ZONE 'UTC' - interval '1 month', 'YYYY-MM')";
    let row = app.database.client.query_one(statement, &[]).await.expect("the months");
    let usage = async |column: usize| {
        let path = format!("/api/teams/{}/usage?period={}", team.id, row.get::<_, String>(column));
        let mut usage = app.admin().get(&path).await.ok();
        // What is left now, whatever the period.
        usage.as_object_mut().expect("an object").remove("remaining_budget");
        usage
    };
    [usage(1).await, usage(0).await]
}

/// Makes what was today the last day of the month before; open jobs go on.
async fn the_month_ends(app: &TestApp) {
    let statement = "SELECT extract(day FROM now() AT TIME ZONE 'UTC')::integer";
    let days = app.database.client.query_one(statement, &[]).await.expect("the day").get(0);
    app.database.days_pass(days).await;
    sql(app, "UPDATE jobs SET expires_at = now() + interval '1 day' WHERE completed_at IS NULL").await;
}

/// Deductions of the month before this one and of this one, less refunds, as the ledger has them.
async fn ledger(app: &TestApp, team: &Team) -> [i64; 2] {
    let path = format!("/api/credits/teams/{}/transactions?limit=1000", team.id);
    let rows = app.admin().get(&path).await.ok()["transactions"].clone();
    let month = "SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM')";
    let month: String = app.database.client.query_one(month, &[]).await.expect("the month").get(0);
    let mut sums = [0; 2];
    for row in rows.as_array().expect("rows") {
        let amount = row["credits_amount"].as_i64().expect("an amount");
        let at = usize::from(row["created_at"].as_str().expect("a time").starts_with(&month));
        match row["transaction_type"].as_str() {
            Some("deduction") => sums[at] += amount,
            Some("refund") => sums[at] -= amount,
            _ => {}
        }
    }
    sums
}

#[tokio::test]
async fn a_job_of_the_last_day_of_a_month_that_ends_on_the_first_of_the_next_is_charged_in_the_next() {
    let app = TestApp::start().await;
    let group = app.model_group(&["expensive"]).await;
    let team = paying_team(&app, &group, json!({"credits_allocated": 100})).await;
    let (ended, open) = (team.job().await, team.job().await);
    // $0.30 is three credits; half a dollar is five.
    call(&team, &ended, prompt("[[prompt_tokens=300]] [[completion_tokens=0]]")).await.ok();
    team.complete(&ended, "completed").await.ok();
    call(&team, &open, prompt("[[prompt_tokens=500]] [[completion_tokens=0]]")).await.ok();

    the_month_ends(&app).await;
    let [over, _] = months(&app, &team).await;
    let summary = &over["summary"];
    assert_eq!(
        [&summary["total_jobs"], &summary["charged_jobs"], &summary["credits_used"]],
        [&json!(2), &json!(1), &json!(3)]
    );
    assert_eq!(summary["total_cost_usd"], json!(0.8));

    call(&team, &open, prompt("[[prompt_tokens=200]] [[completion_tokens=0]]")).await.ok();
    team.complete(&open, "completed").await.ok();
    let refund = json!({"job_id": ended, "credits": 1, "reason": "a gift"});
    app.admin().post(&format!("/api/credits/teams/{}/refund", team.id), refund).await.ok();

    let [after, this] = months(&app, &team).await;
    assert_eq!(after, over, "a month that is over");
    let summary = &this["summary"];
    assert_eq!(
        [&summary["total_jobs"], &summary["charged_jobs"], &summary["credits_used"]],
        [&json!(0), &json!(1), &json!(6)]
    );
    assert_eq!(summary["total_cost_usd"], json!(0.2));
    assert_eq!(ledger(&app, &team).await, [3, 6]);
    app.check_invariants().await;
}
