//! Teams and deployments that nobody has touched for long: every hold comes back, and every sum holds.

use crate::fixtures::sql;
use api_tests::{Options, Team, TestApp};
use serde_json::{Value, json};

/// A job that is open for thirty days.
async fn long_job(team: &Team) -> String {
    let body = json!({"team_id": team.id, "job_type": "test", "expires_in_seconds": 30 * 24 * 3600});
    let created = team.client.post("/api/jobs/create", body).await.ok();
    created["job_id"].as_str().expect("an id").to_owned()
}

async fn upkeep(app: &TestApp) -> Value {
    app.admin().post("/api/upkeep", json!({})).await.ok()
}

/// How many rows have no month's table.
async fn others(app: &TestApp) -> i64 {
    let count = "SELECT (SELECT count(*) FROM jobs_other) + (SELECT count(*) FROM calls_other)";
    app.database.client.query_one(count, &[]).await.expect("a count").get(0)
}

#[tokio::test]
async fn after_a_month_without_a_timer_each_touch_gives_back_what_a_job_holds() {
    for days in [33, 62, 400] {
        for touch in ["balance", "create", "read", "delete", "upkeep"] {
            let app = TestApp::start().await;
            let team = app.team(1).await;
            let id = long_job(&team).await;
            team.call(&id, "hello").await.ok();
            app.database.days_pass_with_ids(days).await;
            let list = format!("/api/teams/{}/jobs?limit=1", team.id);
            match touch {
                "balance" => {
                    let balance = team.balance().await;
                    assert_eq!(
                        (&balance["credits_reserved"], &balance["credits_available"]),
                        (&json!(0), &json!(1))
                    );
                }
                "create" => drop(team.job().await),
                "read" => assert_eq!(app.admin().get(&list).await.ok()["jobs"][0]["status"], "expired"),
                "delete" => drop(app.admin().delete(&format!("/api/teams/{}", team.id)).await.ok()),
                _ => assert_eq!(upkeep(&app).await["expired"], 1),
            }
            let held = "SELECT held FROM credit_accounts";
            let held: i64 = app.database.client.query_one(held, &[]).await.expect("a row").get(0);
            assert_eq!(held, i64::from(touch == "create"), "{days} days, {touch}");
            app.check_invariants().await;
        }
    }
}

#[tokio::test]
async fn a_job_of_the_last_of_january_that_nobody_touched_expires_in_march() {
    let app = TestApp::start().await;
    let team = app.team(2).await;
    long_job(&team).await;
    app.database.days_pass_with_ids(29).await;
    assert_eq!(team.balance().await["credits_reserved"], 1, "it is open for thirty days");
    app.database.days_pass_with_ids(2).await;
    assert_eq!(upkeep(&app).await["expired"], 1);
    assert_eq!(team.balance().await["credits_reserved"], 0);
    app.check_invariants().await;
}

#[tokio::test]
async fn a_month_goes_with_its_open_jobs_only_after_they_have_given_back_what_they_hold() {
    let variables = vec![("retention_months", "1".to_owned())];
    let app = TestApp::start_with(Options { variables, ..Options::default() }).await;
    let team = app.team(5).await;
    long_job(&team).await;
    let delivering = long_job(&team).await;
    team.call(&delivering, "hello").await.ok();
    app.database.days_pass_with_ids(100).await;
    // There was no table for that month.
    assert!(others(&app).await > 0);
    let done = upkeep(&app).await;
    assert_eq!((&done["expired"], &done["steps"]["other_months"]["done"]), (&json!(2), &json!(1)));
    assert_eq!(done["steps"]["old_months"]["done"], 1);
    assert_eq!(others(&app).await, 0);
    let balance = team.balance().await;
    assert_eq!((&balance["credits_reserved"], &balance["credits_available"]), (&json!(0), &json!(5)));
    team.client.get(&format!("/api/jobs/{delivering}")).await.refused(404, "not_found", "Job not found");
    let job = team.job().await;
    team.complete(&job, "completed").await.ok();
    assert_eq!(upkeep(&app).await["more"], false);
}

#[tokio::test]
async fn a_deployment_that_had_no_upkeep_for_three_months_is_in_order_after_one() {
    let app = TestApp::start().await;
    let tables =
        "SELECT string_agg(relname::text, ', ') FROM pg_class WHERE relname ~ '^(jobs|calls)_2[0-9_]+$'";
    let tables: String = app.database.client.query_one(tables, &[]).await.expect("tables").get(0);
    sql(&app, &format!("DROP TABLE {tables}")).await;
    let team = app.team(20).await;
    for days in [35, 30, 27] {
        let (done, open) = (team.job().await, long_job(&team).await);
        for job in [&done, &open] {
            team.call(job, "hello").await.ok();
        }
        team.complete(&done, "completed").await.ok();
        app.database.days_pass_with_ids(days).await;
    }
    let (now, call) = (team.job().await, team.job().await);
    team.call(&call, "hello").await.ok();
    let jobs = app.admin().get(&format!("/api/teams/{}/jobs?limit=100", team.id)).await.ok()["jobs"].clone();
    assert_eq!(jobs.as_array().map(Vec::len), Some(8));

    let done = upkeep(&app).await;
    for (name, step) in done["steps"].as_object().expect("the steps") {
        assert_eq!(step["error"], Value::Null, "{name}");
    }
    assert_eq!(done["more"], false, "{done}");
    assert_eq!(others(&app).await, 0);
    let after = app.admin().get(&format!("/api/teams/{}/jobs?limit=100", team.id)).await.ok()["jobs"].clone();
    assert_eq!(after, jobs);
    for job in [now, call] {
        team.complete(&job, "completed").await.ok();
    }
    assert_eq!(team.balance().await["credits_used"], 5);
    app.check_invariants().await;
}

#[tokio::test]
async fn more_that_is_overdue_than_one_request_ends_is_ended_by_the_next_ones() {
    let app = TestApp::start().await;
    let (team, other) = (app.team(500).await, app.team(1).await);
    let overdue = format!(
            "INSERT INTO jobs (job_id, team_id, terms_id, job_type, metadata, expires_at)
             SELECT uuid_v7(), team_id, terms_id, 'type ' || i % 3, '{{}}', now() - interval '1 second'
             FROM teams, generate_series(1, 450) AS i WHERE team_id = '{0}';
             UPDATE credit_accounts SET held = 450 WHERE team_id = '{0}';
             INSERT INTO usage_days (team_id, day, job_type, opened_jobs)
             SELECT '{0}', (now() AT TIME ZONE 'UTC')::date, 'type ' || i, 150 FROM generate_series(0, 2) AS i;
             INSERT INTO job_totals (shard, created) VALUES (5000, 450)",
            team.id
    );
    app.database.client.batch_execute(&overdue).await.expect("jobs that are overdue");
    other.job().await;
    let reserved = async || team.balance().await["credits_reserved"].as_i64().expect("a number");
    let (first, second) = (reserved().await, reserved().await);
    assert!(0 < second && second < first && first < 450, "{first} {second}");
    app.check_invariants().await;
    let done = upkeep(&app).await;
    assert_eq!((&done["expired"], &done["more"]), (&json!(second), &json!(false)));
    assert_eq!(reserved().await, 0);
    app.check_invariants().await;
}
