//! Old months of jobs go, the ledger and the usage stay; and what is said in calls is not kept at all.

use crate::fixtures::sql;
use api_tests::{Options, Team, TestApp};
use serde_json::{Value, json};

async fn app_keeping(months: u32) -> TestApp {
    let variables = vec![("retention_months", months.to_string())];
    TestApp::start_with(Options { variables, ..Options::default() }).await
}

/// A completed job with a call, which lies so many months back, as if it had been created then. Gives its id and its
/// month.
async fn old_job(app: &TestApp, team: &Team, months: u32) -> (String, String) {
    let job = team.job().await;
    team.call(&job, "hello").await.ok();
    team.complete(&job, "completed").await.ok();
    let names = format!(
        "SELECT to_char(day, 'YYYY-MM'), to_char(day, 'YYYY_MM'), uuid_v7_floor(day)::text,
                uuid_v7_floor(date_trunc('month', day))::text,
                uuid_v7_floor(date_trunc('month', day) + interval '1 month')::text,
                day::text
         FROM (SELECT date_trunc('month', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'
                      - make_interval(months => {months}) + interval '10 days' AS day) AS days"
    );
    let row = app.database.client.query_one(&names, &[]).await.expect("the names");
    let [month, name, old, from, to, at] = [0, 1, 2, 3, 4, 5].map(|column| row.get::<_, String>(column));
    let move_back = format!(
        "CREATE TABLE IF NOT EXISTS jobs_{name} PARTITION OF jobs FOR VALUES FROM ('{from}') TO ('{to}');
         CREATE TABLE IF NOT EXISTS calls_{name} PARTITION OF calls FOR VALUES FROM ('{from}') TO ('{to}');
         ALTER TABLE credit_transactions DISABLE TRIGGER USER;
         UPDATE credit_transactions SET job_id = '{old}', created_at = '{at}' WHERE job_id = '{job}';
         ALTER TABLE credit_transactions ENABLE TRIGGER USER;
         UPDATE calls SET job_id = '{old}', created_at = '{at}', ended_at = '{at}', settled_at = '{at}'
         WHERE job_id = '{job}';
         UPDATE jobs SET job_id = '{old}', created_at = '{at}', started_at = '{at}', completed_at = '{at}'
         WHERE job_id = '{job}';
         UPDATE usage_days SET day = '{at}'::timestamptz AT TIME ZONE 'UTC' WHERE team_id = '{team}';
         UPDATE usage_models SET day = '{at}'::timestamptz AT TIME ZONE 'UTC' WHERE team_id = '{team}';",
        team = team.id
    );
    app.database.client.batch_execute(&move_back).await.expect("a job of an old month");
    (old, month)
}

async fn upkeep(app: &TestApp) -> Value {
    app.admin().post("/api/upkeep", json!({})).await.ok()
}

#[tokio::test]
async fn months_that_are_over_long_enough_go_and_their_ledger_and_usage_stay() {
    let app = app_keeping(1).await;
    let (old, last, now) = (app.team(5).await, app.team(5).await, app.team(5).await);
    let (old_id, old_month) = old_job(&app, &old, 2).await;
    let (last_id, _) = old_job(&app, &last, 1).await;
    let new_id = now.job().await;
    app.check_invariants().await;
    let usage = format!("/api/teams/{}/usage?period={old_month}", old.id);
    let ledger = format!("/api/credits/teams/{}/transactions", old.id);
    let (usage_before, ledger_before) =
        (app.admin().get(&usage).await.ok(), app.admin().get(&ledger).await.ok());
    assert_eq!(usage_before["summary"]["total_calls"], 1);
    assert_eq!(old.read(&old_id).await["calls"][0]["status"], "succeeded");

    let done = upkeep(&app).await;

    assert_eq!(
        (&done["steps"]["old_months"]["done"], &done["steps"]["months"]["done"]),
        (&json!(1), &json!(0))
    );
    old.client.get(&format!("/api/jobs/{old_id}")).await.refused(404, "not_found", "Job not found");
    assert_eq!(last.read(&last_id).await["total_calls"], 1, "one month besides the current one is kept");
    assert_eq!(now.read(&new_id).await["status"], "pending");
    assert_eq!(app.admin().get(&usage).await.ok(), usage_before);
    assert_eq!(app.admin().get(&ledger).await.ok(), ledger_before);
    assert_eq!(ledger_before["transactions"][0]["job_id"], json!(old_id));
    assert_eq!(old.balance().await["credits_used"], 1);
    let listed = old.client.get(&format!("/api/teams/{}/jobs", old.id)).await.ok();
    assert_eq!(listed["jobs"], json!([]));
    assert_eq!(upkeep(&app).await["steps"]["old_months"]["done"], 0);
    let job = old.job().await;
    old.complete(&job, "completed").await.ok();
}

#[tokio::test]
async fn without_a_limit_no_month_goes() {
    let app = app_keeping(0).await;
    let team = app.team(5).await;
    let (id, _) = old_job(&app, &team, 30).await;
    assert_eq!(upkeep(&app).await["steps"]["old_months"]["done"], 0);
    assert_eq!(team.read(&id).await["total_calls"], 1);
    app.check_invariants().await;
}

#[tokio::test]
async fn upkeep_makes_the_months_to_come() {
    let app = TestApp::start().await;
    let newest = "SELECT max(relname::text) FROM pg_class WHERE relname ~ '^jobs_[0-9]{4}_[0-9]{2}$'";
    let newest: String = app.database.client.query_one(newest, &[]).await.expect("a month").get(0);
    let drop = format!("DROP TABLE {newest}, {}", newest.replace("jobs", "calls"));
    app.database.client.batch_execute(&drop).await.expect("a month less");
    let twice = futures::join!(upkeep(&app), upkeep(&app));
    let made = [&twice.0, &twice.1].map(|done| done["steps"]["months"]["done"].as_i64().expect("a number"));
    assert_eq!(made.iter().sum::<i64>(), 1);
    assert_eq!(upkeep(&app).await["steps"]["months"]["done"], 0);
    let exists = "SELECT to_regclass($1::text) IS NOT NULL";
    assert!(app.database.client.query_one(exists, &[&newest]).await.expect("an answer").get::<_, bool>(0));
    app.check_invariants().await;
}

#[tokio::test]
async fn jobs_of_a_month_that_nobody_made_a_table_for_work_all_the_same() {
    let app = TestApp::start().await;
    let this = "SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY_MM')";
    let this: String = app.database.client.query_one(this, &[]).await.expect("a month").get(0);
    sql(&app, &format!("DROP TABLE jobs_{this}, calls_{this}")).await;
    let team = app.team(2).await;
    let job = team.job().await;
    team.call(&job, "hello").await.ok();
    upkeep(&app).await;
    team.call(&job, "hello").await.ok();
    assert_eq!(team.complete(&job, "completed").await.ok()["costs"]["successful_calls"], 2);
    app.check_invariants().await;
}

#[tokio::test]
async fn what_is_said_in_calls_is_written_nowhere() {
    let app = TestApp::start().await;
    let (asked, answered) = ("canary-in-the-prompt", "canary-in-the-system-message");
    let team = app.team_using(&["err503", "gpt-4o-mini"], 9).await;
    let job = team.job().await;
    let messages = json!([
        {"role": "system", "content": answered},
        {"role": "user", "content": [{"type": "text", "text": asked}]},
    ]);
    let failing = json!([{"role": "user", "content": format!("{asked} [[status=400]]")}]);
    let cut = json!([{"role": "user", "content": format!("{asked} [[chunks=5]] [[cut_after=2]]")}]);
    for messages in [&messages, &failing, &cut] {
        let body = json!({"messages": messages});
        team.client.post(&format!("/api/jobs/{job}/llm-call"), body.clone()).await;
        team.client.stream(&format!("/api/jobs/{job}/llm-call-stream"), body.clone()).await.rest().await;
        team.client.post("/v1/chat/completions", body).await;
    }
    let own = json!({"job_type": "test", "messages": messages});
    let once = team
        .client
        .request(reqwest::Method::POST, "/api/jobs/create-and-call")
        .header("idempotency-key", "once");
    api_tests::Answer::of(once.body(own.to_string())).await.ok();
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;

    let everything = app.database.everything().await;
    for word in [asked, answered, "You said"] {
        assert!(!everything.contains(word), "{word} is in the database");
        assert!(!app.logs().contains(word), "{word} is in the log");
    }
    assert!(everything.contains(&job));
    let read = team.read(&job).await;
    let kept = |call: &Value| call.get("messages").is_some() || call.get("response").is_some();
    assert!(!read["calls"].as_array().expect("calls").iter().any(kept), "{read}");
}
