//! Usage of teams: which days it is of, who sees what of it, and what it costs to read.

use crate::{
    amounts::{amount, decimal},
    fixtures::sql,
};
use api_tests::{Answer, Team, TestApp};
use rust_decimal::Decimal;
use serde_json::{Value, json};

pub async fn job_of(team: &Team, job_type: &str) -> String {
    let job =
        team.client.post("/api/jobs/create", json!({"team_id": team.id, "job_type": job_type})).await.ok();
    job["job_id"].as_str().expect("an id").to_owned()
}

/// A job of this type, completed after one call that costs `prompt_tokens` thousandths of a dollar.
pub async fn completed(team: &Team, job_type: &str, prompt_tokens: u32) -> String {
    let job = job_of(team, job_type).await;
    team.call(&job, &format!("[[prompt_tokens={prompt_tokens}]] [[completion_tokens=0]]")).await.ok();
    team.complete(&job, "completed").await.ok();
    job
}

/// A team whose calls are many and dear, with these fields.
pub async fn busy_team(app: &TestApp, groups: &[String], fields: Value) -> Team {
    let mut body = json!({"credits_allocated": 100_000, "max_budget": 1_000_000, "model_groups": groups});
    body.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
    app.team_with(body).await
}

pub async fn usage(app: &TestApp, team: &Team, query: &str) -> Answer {
    app.admin().get(&format!("/api/teams/{}/usage{query}", team.id)).await
}

#[tokio::test]
async fn a_team_sees_its_usage_without_what_is_the_sellers() {
    let app = TestApp::start().await;
    let (team, other) = (app.team(5).await, app.team(5).await);
    completed(&team, "a", 1000).await;
    let path = format!("/api/teams/{}/usage", team.id);
    let sellers = app.admin().get(&path).await.ok();
    let shown = team.client.get(&path).await;
    assert!(!shown.text.contains("gpt"), "{}", shown.text);
    let shown = shown.ok();
    let members: Vec<&String> = shown.as_object().expect("an object").keys().collect();
    assert_eq!(members, ["job_types", "period", "summary", "team_id"]);
    for member in members {
        assert_eq!(shown[member], sellers[member]);
    }
    let hidden: Vec<&String> = sellers
        .as_object()
        .expect("an object")
        .keys()
        .filter(|name| shown.get(name.as_str()).is_none())
        .collect();
    assert_eq!(
        hidden,
        ["margin_usd", "models_used", "remaining_budget", "request_count", "revenue_usd", "total_spend"]
    );
    let refused = format!("API key does not belong to team '{}'", team.id);
    other.client.get(&path).await.refused(403, "wrong_team", &refused);
    app.admin().get("/api/teams/None/usage").await.refused(404, "not_found", "Team 'None' not found");
    let organization = "/api/organizations/None/usage";
    app.admin().get(organization).await.refused(404, "not_found", "Organization 'None' not found");
    assert_eq!(team.client.get(organization).await.status, 401);
}

/// A team with jobs of 1, 2, 4, 8, 16 and 32 thousandths of a dollar, on days of autumn 2025 and today.
pub async fn on_several_days(app: &TestApp) -> Team {
    let group = app.model_group(&["expensive"]).await;
    let team =
        busy_team(app, &[group], json!({"pricing": {"mode": "flat", "price_per_job_usd": "1.5"}})).await;
    let days = ["2025-09-30", "2025-10-01", "2025-10-13", "2025-10-31", "2025-11-01"];
    for (n, day) in days.iter().enumerate() {
        completed(&team, day, 1 << n).await;
        for table in ["usage_days", "usage_models"] {
            sql(app, &format!("UPDATE {table} SET day = '{day}' WHERE day > '2025-12-31'")).await;
        }
    }
    completed(&team, "today", 32).await;
    team
}

#[tokio::test]
async fn usage_is_of_a_month_a_day_a_range_or_else_of_this_month() {
    let app = TestApp::start().await;
    let team = on_several_days(&app).await;
    let today = team.client.get(&format!("/api/teams/{}/jobs?limit=1", team.id)).await.ok();
    let today = today["jobs"][0]["created_at"].as_str().expect("a time")[..10].to_owned();
    let month = today[..7].to_owned();
    for (query, period, cost, jobs) in [
        ("", month.as_str(), "0.032", 1),
        (&format!("?period={month}"), &month, "0.032", 1),
        (&format!("?period={today}"), &today, "0.032", 1),
        ("?period=2025-10", "2025-10", "0.014", 3),
        ("?period=2025-09", "2025-09", "0.001", 1),
        ("?period=2025-12", "2025-12", "0", 0),
        ("?period=2025-10-13", "2025-10-13", "0.004", 1),
        ("?period=2025-10-14", "2025-10-14", "0", 0),
        ("?from=2025-10-13&to=2025-10-31", "2025-10-13/2025-10-31", "0.012", 2),
        ("?from=2025-10-31&to=2025-10-31", "2025-10-31/2025-10-31", "0.008", 1),
        ("?from=2025-09-30&to=2025-11-01", "2025-09-30/2025-11-01", "0.031", 5),
        ("?from=2000-01-01&to=2100-01-01", "2000-01-01/2100-01-01", "0.063", 6),
    ] {
        let usage = usage(&app, &team, query).await;
        assert_eq!(amount(&usage.text, &["summary", "total_cost_usd"]), decimal(cost), "{query}");
        assert_eq!(amount(&usage.text, &["revenue_usd"]), decimal("1.5") * Decimal::from(jobs), "{query}");
        assert_eq!(amount(&usage.text, &["remaining_budget"]), decimal("999999.937"), "{query}: of all time");
        let json = usage.ok();
        assert_eq!(
            (&json["period"], &json["summary"]["total_jobs"]),
            (&json!(period), &json!(jobs)),
            "{query}"
        );
        assert_eq!(json["job_types"].as_object().map(serde_json::Map::len), Some(jobs), "{query}");
        let requests = json["models_used"]["expensive"]["requests"].as_u64().unwrap_or_default();
        assert_eq!(requests, jobs as u64, "{query}");
    }
}

#[tokio::test]
async fn usage_of_days_without_jobs_is_nothing_and_no_failure() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    let usage = usage(&app, &team, "?period=2025-10").await.ok();
    for (name, value) in usage["summary"].as_object().expect("a summary") {
        assert_eq!(*value, 0, "{name}");
    }
    assert_eq!((&usage["job_types"], &usage["models_used"]), (&json!({}), &json!({})));
    let organization = app.organization().await;
    let empty = app.admin().get(&format!("/api/organizations/{organization}/usage")).await.ok();
    assert_eq!((&empty["teams"], &empty["summary"]["total_jobs"]), (&json!({}), &json!(0)));
}

#[tokio::test]
async fn the_first_and_the_last_days_that_can_be_written_are_days_or_are_refused() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    for query in [
        "from=0001-01-01&to=9999-12-31",
        "period=9999-12",
        "period=9999-12-31",
        "period=0001-01",
        "period=0000-12",
        "period=0000-02-29",
        "from=0000-01-01&to=2025-01-01",
    ] {
        let answer = usage(&app, &team, &format!("?{query}")).await;
        assert!([200, 400].contains(&answer.status.as_u16()), "{query}: {}", answer.text);
        let table = usage(&app, &team, &format!("?{query}&format=csv")).await;
        assert_eq!(table.status, answer.status, "{query}: {}", table.text);
    }
}

#[tokio::test]
async fn a_period_that_is_none_is_refused_by_name() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    let organization = app.organization().await;
    for (field, query) in [
        ("period", "period="),
        ("period", "period=2025"),
        ("period", "period=2025-13"),
        ("period", "period=2025-00"),
        ("period", "period=2025-1"),
        ("period", "period=2025-02-29"),
        ("period", "period=2025-10-13T00:00:00Z"),
        ("period", "period=last-month"),
        ("period", "period=2025-10&from=2025-10-01"),
        ("period", "period=2025-10&from=2025-10-01&to=2025-10-02"),
        ("period", "period=2025-10&period=2025-11"),
        ("to", "from=2025-10-01"),
        ("from", "to=2025-10-01"),
        ("from", "from=2025-10&to=2025-10-31"),
        ("to", "from=2025-10-01&to=31.10.2025"),
        ("to", "from=2025-10-02&to=2025-10-01"),
        ("format", "format=xml"),
        ("month", "month=2025-10"),
    ] {
        for path in
            [format!("/api/teams/{}/usage", team.id), format!("/api/organizations/{organization}/usage")]
        {
            let answer = app.admin().get(&format!("{path}?{query}")).await;
            let named = answer.body["detail"]
                .as_str()
                .is_some_and(|detail| detail.starts_with(&format!("{field}: ")));
            assert!(answer.status == 400 && named, "{query}: {}", answer.text);
        }
    }
}

#[tokio::test]
async fn reports_read_no_job_and_no_call() {
    let app = TestApp::start().await;
    let team = app.team(5).await;
    completed(&team, "a", 1).await;
    let organization =
        team.client.get(&format!("/api/teams/{}", team.id)).await.ok()["organization_id"].clone();
    let organization = organization.as_str().expect("an id");
    // Whoever looks into a table that is locked so waits, and fails after five seconds.
    let mut locking = app.database.connect().await;
    let lock = locking.transaction().await.expect("a transaction");
    lock.batch_execute("LOCK TABLE jobs, calls IN ACCESS EXCLUSIVE MODE").await.expect("the lock");
    for path in [
        format!("/api/teams/{}/usage", team.id),
        format!("/api/teams/{}/usage?format=csv", team.id),
        format!("/api/organizations/{organization}/usage"),
        format!("/api/organizations/{organization}/usage?format=csv"),
        format!("/api/teams/{}/alerts", team.id),
        format!("/api/credits/teams/{}/transactions", team.id),
        "/metrics".into(),
        "/api/audit-log".into(),
    ] {
        let answer = app.admin().get(&path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
    }
    lock.rollback().await.expect("the end");
    app.check_invariants().await;
}

/// Completed jobs of a team, as if they had always been there.
async fn add_jobs(app: &TestApp, team: &Team, number: u32) {
    let add = format!(
        "UPDATE credit_accounts SET held = held + {number};
         WITH added AS (
             INSERT INTO jobs (job_id, team_id, terms_id, job_type, status, metadata, completed_at, credit_applied,
             credits_due, credits_charged, expires_at)
             SELECT uuid_v7(), team_id, terms_id, 'test', 'completed', '{{}}', now(), true, 1, 1, now()
             FROM teams, generate_series(1, {number}) WHERE team_id = '{}' RETURNING job_id, team_id)
         SELECT count(post_transaction(team_id, 'deduction', -1, 'test', job_id, '{{}}', 1, NULL, NULL)) FROM added;",
        team.id
    );
    app.database.client.batch_execute(&add).await.expect("more jobs");
    app.database.client.batch_execute("VACUUM (FULL, ANALYZE)").await.expect("upkeep");
}

/// How many blocks of the database an answer reads.
async fn blocks_read(app: &TestApp, path: &str) -> i64 {
    let database = &app.database.client;
    // What is read once a connection is no part of it.
    for _ in 0..3 {
        app.admin().get(path).await.ok();
    }
    let here = "FROM pg_database WHERE datname = current_database()";
    database
        .query(&format!("SELECT pg_stat_statements_reset(0, oid, 0) {here}"), &[])
        .await
        .expect("a reset");
    for _ in 0..5 {
        app.admin().get(path).await.ok();
    }
    let count = format!(
        "SELECT (max(shared_blks_hit + shared_blks_read) / 5)::bigint FROM pg_stat_statements
         WHERE query LIKE 'SELECT %AS answer%' AND dbid = (SELECT oid {here})"
    );
    database.query_one(&count, &[]).await.expect("the count").get(0)
}

#[tokio::test]
async fn no_list_or_report_reads_more_as_jobs_add_up() {
    let app = TestApp::start().await;
    app.database.client.batch_execute("CREATE EXTENSION pg_stat_statements").await.expect("the extension");
    let team = app.team_with(json!({"budget_mode": "soft"})).await;
    completed(&team, "test", 1).await;
    let paths = [
        format!("/api/teams/{}/usage", team.id),
        format!("/api/teams/{}/jobs?limit=10", team.id),
        format!("/api/teams/{}/jobs?limit=10&job_type=test", team.id),
        format!("/api/credits/teams/{}/transactions?limit=10", team.id),
        format!("/api/credits/teams/{}/balance", team.id),
        "/metrics".into(),
    ];
    let mut blocks = vec![];
    for number in [1000, 9000] {
        add_jobs(&app, &team, number).await;
        let mut read = vec![];
        for path in &paths {
            read.push(blocks_read(&app, path).await);
        }
        blocks.push(read);
    }
    for ((path, few), many) in paths.iter().zip(&blocks[0]).zip(&blocks[1]) {
        // An index that is one level deeper is one block more for each look-up.
        assert!(*many <= few * 2 + 20, "{path}: {few} blocks with 1,000 jobs, {many} with 10,000");
    }
}
