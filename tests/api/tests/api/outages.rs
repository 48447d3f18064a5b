//! When the database is away, stuck or broken: an honest status, nothing half done, and all is well afterwards.

use crate::fixtures::{ROUTES, path, sql, stored};
use api_tests::{Answer, Client, PATIENCE, Team, TestApp};
use serde_json::json;
use tokio::time::timeout;
use tokio_postgres::NoTls;

/// Lets nobody connect to this database, and ends the connections that the application has.
pub async fn set_away(app: &TestApp, away: bool) {
    let name = "SELECT current_database()::text";
    let name: String = app.database.client.query_one(name, &[]).await.expect("its name").get(0);
    let server = std::env::var("TEST_DATABASE_URL").expect("TEST_DATABASE_URL");
    let (client, connection) = tokio_postgres::connect(&server, NoTls).await.expect("the server");
    tokio::spawn(connection);
    client
        .batch_execute(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS {}", !away))
        .await
        .expect("altered");
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 \
               AND application_name = 'llm-jobs'";
    client.query(end, &[&name]).await.expect("ended");
}

#[track_caller]
fn assert_unavailable(answer: &Answer, context: &str) {
    assert_eq!(
        (answer.status.as_u16(), &answer.body["code"]),
        (503, &json!("unavailable")),
        "{context}: {}",
        answer.text
    );
    assert!(answer.header("retry-after").is_some_and(|seconds| seconds.parse::<u32>().is_ok()), "{context}");
}

/// A request that is good for the route, but for the names in it.
async fn ask(app: &TestApp, team: &Team, job: &str, method: &reqwest::Method, route: &str) -> Answer {
    let body = match route.rsplit('/').next().unwrap_or_default() {
        "create" if route.contains("organizations") => json!({"name": "Test"}),
        "create" if route.contains("model-groups") => {
            json!({"group_name": "New", "models": [{"model_name": "gpt-4o", "priority": 0}]})
        }
        "create" if route.contains("access") => json!({"group_name": "New"}),
        "create" if route.contains("teams") => json!({"organization_id": "Any", "team_id": "new"}),
        "create" => json!({"team_id": team.id, "job_type": "test"}),
        "add" => json!({"amount": 1}),
        "complete" => json!({"status": "completed"}),
        "model-groups" => json!([]),
        route if route.starts_with("llm-call") => json!({"messages": [{"role": "user", "content": "hello"}]}),
        _ => json!({}),
    };
    let client = if route.starts_with("/api/jobs") { team.client.clone() } else { app.admin() };
    let query = if route.ends_with("resolve") { "?team_id={team}" } else { "" };
    let request = client.request(method.clone(), &path(&format!("{route}{query}"), &team.id, job));
    Answer::of(if *method == reqwest::Method::GET { request } else { request.body(body.to_string()) }).await
}

#[tokio::test]
async fn while_the_database_is_away_every_route_is_a_503_and_nothing_is_lost() {
    let app = TestApp::start().await;
    let team = app.team(5).await;
    let job = team.job().await;
    team.call(&job, "hello").await.ok();
    let before = stored(&app).await;
    set_away(&app, true).await;
    for (method, route, _) in ROUTES {
        assert_unavailable(&ask(&app, &team, &job, &method, route).await, route);
    }
    let health = app.nobody().get("/health").await;
    assert_eq!(health.status, 503, "{}", health.text);
    assert_ne!(health.body["status"], "healthy");

    set_away(&app, false).await;
    assert_eq!(stored(&app).await, before);
    app.nobody().get("/health").await.ok();
    team.complete(&job, "completed").await.ok();
    app.check_invariants().await;
}

#[tokio::test]
async fn a_database_without_the_schema_or_with_an_older_one_is_unhealthy_and_says_why() {
    let app = TestApp::start().await;
    let health = app.nobody().get("/health").await.ok();
    assert_eq!([&health["database"], &health["schema_version"]], [&json!("up"), &health["version"]]);
    for (change, database, version) in [
        ("UPDATE schema_functions SET release = '0.1.99'", "schema_outdated", json!("0.1.99")),
        ("DROP SCHEMA public CASCADE; CREATE SCHEMA public", "schema_missing", json!(null)),
    ] {
        app.database.client.batch_execute(change).await.expect("changed");
        let health = app.nobody().get("/health").await;
        assert_eq!(health.status, 503, "{}", health.text);
        assert_eq!(
            [&health.body["status"], &health.body["database"], &health.body["schema_version"]],
            [&json!("unhealthy"), &json!(database), &version]
        );
    }
}

async fn post_job(client: &Client, team: &Team) -> Answer {
    client.post("/api/jobs/create", json!({"team_id": team.id, "job_type": "test"})).await
}

#[tokio::test]
async fn a_database_that_is_stuck_is_not_waited_for_without_end() {
    let app = TestApp::start().await;
    let team = app.team(5).await;
    let job = team.job().await;
    let other = app.database.connect().await;
    other.batch_execute("BEGIN; SELECT * FROM credit_accounts FOR UPDATE").await.expect("locked");
    // While it is still stuck.
    let both = async { futures::join!(post_job(&team.client, &team), team.complete(&job, "completed")) };
    let (create, complete) = timeout(PATIENCE, both).await.expect("answers");
    assert_unavailable(&create, "create");
    assert_unavailable(&complete, "complete");
    other.batch_execute("ROLLBACK").await.expect("unlocked");
    team.complete(&job, "completed").await.ok();
    assert_eq!(team.balance().await["credits_available"], 4);
    app.check_invariants().await;
}

#[tokio::test]
async fn a_defect_of_ours_tells_the_request_id_and_nothing_else() {
    let app = TestApp::start().await;
    let team = app.team(5).await;
    sql(&app, "ALTER FUNCTION get_balance RENAME TO lost").await;
    let request =
        team.client.request(reqwest::Method::GET, &format!("/api/credits/teams/{}/balance", team.id));
    let answer = Answer::of(request.header("x-request-id", "the-request")).await;
    assert_eq!((answer.status.as_u16(), &answer.body["code"]), (500, &json!("internal")), "{}", answer.text);
    assert_eq!(answer.header("x-request-id"), Some("the-request"));
    for inside in ["get_balance", "function", "SELECT", "42883", team.id.as_str()] {
        assert!(!answer.text.contains(inside), "{}", answer.text);
    }
    let logs = app.logs();
    assert!(logs.contains("the-request") && logs.contains("get_balance"), "{logs}");
}

#[tokio::test]
async fn every_failure_of_the_server_has_its_request_id_in_the_log() {
    let app = TestApp::start().await;
    let team = app.team(5).await;
    set_away(&app, true).await;
    let answer = team.client.get(&format!("/api/teams/{}", team.id)).await;
    set_away(&app, false).await;
    assert_unavailable(&answer, "the team");
    let id = answer.header("x-request-id").expect("an id");
    assert!(app.logs().contains(id), "{}", app.logs());
}
