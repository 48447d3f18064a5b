//! The audit log: every change of the admin once, and nothing else.

use crate::fixtures::{assert_time, unique};
use api_tests::{Answer, TestApp};
use reqwest::Method;
use serde_json::{Value, json};

/// All entries, oldest first.
async fn entries(app: &TestApp) -> Vec<Value> {
    let log = app.admin().get("/api/audit-log?limit=1000").await.ok();
    assert_eq!(log["next_cursor"], Value::Null);
    let mut entries = log["entries"].as_array().expect("entries").clone();
    entries.reverse();
    entries
}

async fn send(app: &TestApp, method: &Method, path: &str, request_id: &str, body: &Value) -> Answer {
    let mut request = app.admin().request(method.clone(), path).header("x-request-id", request_id);
    if !body.is_null() {
        request = request.body(body.to_string());
    }
    Answer::of(request).await
}

/// `GET /api/audit-log`
#[tokio::test]
async fn every_change_of_the_admin_is_written_down_once_with_what_was_asked() {
    let app = TestApp::start().await;
    let organization = unique("org");
    let team = unique("team");
    let (put, post, delete) = (Method::PUT, Method::POST, Method::DELETE);
    let models = json!([{"model_name": "gpt-4o-mini", "priority": 0}]);
    let refill = json!({"enabled": true, "refill_amount": 5, "refill_period": "monthly"});
    let changes = [
        (
            &post,
            "/api/organizations/create",
            "/api/organizations/create",
            json!({"organization_id": organization, "name": "Größe 😀"}),
        ),
        (
            &put,
            "/api/organizations/{organization_id}",
            "/api/organizations/ORG",
            json!({"metadata": {"a": 1.50}}),
        ),
        (
            &post,
            "/api/model-groups/create",
            "/api/model-groups/create",
            json!({"group_name": "Chat", "models": models}),
        ),
        (&put, "/api/model-groups/{group_name}", "/api/model-groups/Chat", json!({"description": null})),
        (&put, "/api/model-groups/{group_name}/models", "/api/model-groups/Chat/models", models.clone()),
        (
            &post,
            "/api/model-access-groups/create",
            "/api/model-access-groups/create",
            json!({"group_name": "All"}),
        ),
        (
            &put,
            "/api/model-access-groups/{group_name}",
            "/api/model-access-groups/All",
            json!({"display_name": "x"}),
        ),
        (
            &put,
            "/api/model-access-groups/{group_name}/model-groups",
            "/api/model-access-groups/All/model-groups",
            json!(["Chat"]),
        ),
        (
            &post,
            "/api/teams/create",
            "/api/teams/create",
            json!({"organization_id": organization, "team_id": team, "credits_allocated": 5}),
        ),
        (&put, "/api/teams/{team_id}", "/api/teams/TEAM", json!({"team_alias": "x"})),
        (&put, "/api/teams/{team_id}/model-groups", "/api/teams/TEAM/model-groups", json!(["Chat"])),
        (&put, "/api/teams/{team_id}/access-groups", "/api/teams/TEAM/access-groups", json!(["All"])),
        (&put, "/api/teams/{team_id}/suspend", "/api/teams/TEAM/suspend", Value::Null),
        (&put, "/api/teams/{team_id}/resume", "/api/teams/TEAM/resume", json!({})),
        (&post, "/api/teams/{team_id}/keys/create", "/api/teams/TEAM/keys/create", json!({"alias": "ci"})),
        (
            &post,
            "/api/teams/{team_id}/keys/rotate",
            "/api/teams/TEAM/keys/rotate",
            json!({"grace_seconds": 5}),
        ),
        (&delete, "/api/teams/{team_id}/keys/{key_id}", "/api/teams/TEAM/keys/KEY", Value::Null),
        (
            &post,
            "/api/credits/teams/{team_id}/add",
            "/api/credits/teams/TEAM/add",
            json!({"amount": 3, "reason": "Invoice"}),
        ),
        (
            &post,
            "/api/credits/teams/{team_id}/adjust",
            "/api/credits/teams/TEAM/adjust",
            json!({"credits_amount": -1, "reason": "x"}),
        ),
        (
            &post,
            "/api/credits/teams/{team_id}/configure-auto-refill",
            "/api/credits/teams/TEAM/configure-auto-refill",
            refill,
        ),
        (&post, "/api/jobs/create", "/api/jobs/create", json!({"team_id": team, "job_type": "test"})),
        (
            &Method::PATCH,
            "/api/jobs/{job_id}/metadata",
            "/api/jobs/JOB/metadata",
            json!({"metadata": {"a": 1}}),
        ),
        (&post, "/api/jobs/{job_id}/complete", "/api/jobs/JOB/complete", json!({"status": "cancelled"})),
        (&delete, "/api/teams/{team_id}", "/api/teams/TEAM", Value::Null),
        (&delete, "/api/model-access-groups/{group_name}", "/api/model-access-groups/All", Value::Null),
        (&delete, "/api/model-groups/{group_name}", "/api/model-groups/Chat", Value::Null),
        (&delete, "/api/organizations/{organization_id}", "/api/organizations/ORG", Value::Null),
    ];
    let (mut key, mut job) = (String::new(), String::new());
    let mut expected = vec![];
    for (at, (method, route, path, body)) in changes.iter().enumerate() {
        let path = path
            .replace("ORG", &organization)
            .replace("TEAM", &team)
            .replace("KEY", &key)
            .replace("JOB", &job);
        let request_id = format!("request-{at}");
        let answer = send(&app, method, &path, &request_id, body).await;
        assert_eq!(answer.status, 200, "{method} {path}: {}", answer.text);
        let id = |value: &Value, kept: &mut String| {
            if let Some(id) = value.as_str() {
                *kept = id.to_owned();
            }
        };
        id(&answer.body["key"]["key_id"], &mut key);
        id(&answer.body["job_id"], &mut job);
        // What is said of jobs may be about persons.
        let body = if route.starts_with("/api/jobs/") { &Value::Null } else { body };
        expected.push(json!({
            "actor": "admin", "action": format!("{method} {route}"), "path": path, "body": body,
            "request_id": request_id,
        }));
    }
    let mut found = entries(&app).await;
    let mut last = 0;
    for entry in &mut found {
        let entry = entry.as_object_mut().expect("an object");
        assert_time(&entry.remove("created_at").expect("a time"));
        let number = entry.remove("entry").and_then(|number| number.as_i64()).expect("a number");
        assert!(number > last);
        last = number;
    }
    assert_eq!(found, expected);
}

#[tokio::test]
async fn what_is_refused_or_only_read_or_done_by_a_team_is_not_written_down() {
    let app = TestApp::start().await;
    let team = app.team(5).await;
    let group = app.model_group(&["gpt-4o"]).await;
    let before = entries(&app).await;
    let job = team.job().await;
    team.call(&job, "hello").await.ok();
    team.client.patch(&format!("/api/jobs/{job}/metadata"), json!({"metadata": {"a": 1}})).await.ok();
    let idempotent = team.client.request(Method::POST, "/api/jobs/create").header("idempotency-key", "k");
    Answer::of(idempotent.body(json!({"team_id": team.id, "job_type": "test"}).to_string())).await.ok();
    team.complete(&job, "completed").await.ok();
    for path in [
        "/api/organizations".into(),
        "/api/model-groups".into(),
        format!("/api/model-groups/{group}/models"),
        "/api/model-access-groups".into(),
        "/api/teams".into(),
        format!("/api/teams/{}", team.id),
        format!("/api/teams/{}/keys", team.id),
        format!("/api/teams/{}/usage", team.id),
        format!("/api/jobs/{job}"),
        "/api/audit-log".into(),
        "/metrics".into(),
    ] {
        assert_eq!(app.admin().get(&path).await.status, 200, "{path}");
    }
    let check = format!("/api/credits/teams/{}/check", team.id);
    app.admin().post(&check, json!({})).await.ok();
    let organization = app.organization().await;
    for (client, method, path, body, status) in [
        (
            app.admin(),
            Method::POST,
            "/api/organizations/create",
            json!({"organization_id": organization, "name": "x"}),
            409,
        ),
        (app.admin(), Method::POST, "/api/organizations/create", json!({"name": 1}), 400),
        (app.admin(), Method::PUT, "/api/teams/None/suspend", json!({}), 404),
        (app.admin(), Method::DELETE, "/api/teams/None", json!({}), 404),
        (app.admin(), Method::POST, "/api/teams/create", json!({"organization_id": "None"}), 404),
        (app.admin(), Method::POST, "/api/nothing", json!({}), 404),
        (team.client.clone(), Method::POST, "/api/organizations/create", json!({"name": "x"}), 401),
        (app.nobody(), Method::POST, "/api/organizations/create", json!({"name": "x"}), 401),
    ] {
        let answer = Answer::of(client.request(method, path).body(body.to_string())).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text);
    }
    let after = entries(&app).await;
    assert_eq!(after.len(), before.len() + 1, "only the organization was made: {after:?}");
}

#[tokio::test]
async fn a_team_that_could_not_be_created_is_not_written_down_and_a_change_that_litellm_missed_is() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let team = app.team(5).await;
    let organization = app.organization().await;
    let before = entries(&app).await.len();
    stand_in.fail_next("/key/generate", 500, 2);
    let body = json!({"organization_id": organization, "team_id": unique("team")});
    assert_eq!(app.admin().post("/api/teams/create", body).await.status, 503);
    assert_eq!(app.admin().post(&format!("/api/teams/{}/keys/rotate", team.id), json!({})).await.status, 503);
    assert_eq!(entries(&app).await.len(), before);
    stand_in.set_down(true);
    assert_eq!(app.admin().put(&format!("/api/teams/{}/suspend", team.id), json!({})).await.status, 503);
    stand_in.set_down(false);
    let after = entries(&app).await;
    assert_eq!(after.len(), before + 1);
    assert_eq!(after[before]["action"], "PUT /api/teams/{team_id}/suspend");
}

#[tokio::test]
async fn a_repeat_under_the_same_idempotency_key_is_not_written_down_again() {
    let app = TestApp::start().await;
    let team = app.team(5).await;
    let before = entries(&app).await.len();
    for (path, body) in [
        (format!("/api/credits/teams/{}/add", team.id), json!({"amount": 1})),
        (format!("/api/teams/{}/keys/rotate", team.id), json!({})),
        ("/api/teams/create".into(), json!({"organization_id": app.organization().await})),
    ] {
        for _ in 0..2 {
            let request = app.admin().request(Method::POST, &path).header("idempotency-key", &path);
            Answer::of(request.body(body.to_string())).await.ok();
        }
    }
    let actions: Vec<Value> =
        entries(&app).await.iter().skip(before).map(|entry| entry["action"].clone()).collect();
    assert_eq!(
        actions,
        [
            "POST /api/organizations/create",
            "POST /api/credits/teams/{team_id}/add",
            "POST /api/teams/{team_id}/keys/rotate",
            "POST /api/teams/create"
        ]
    );
}

#[tokio::test]
async fn the_log_is_read_in_pages_newest_first_while_it_grows() {
    let app = TestApp::start().await;
    for _ in 0..7 {
        app.organization().await;
    }
    let all: Vec<i64> =
        entries(&app).await.iter().rev().map(|entry| entry["entry"].as_i64().expect("a number")).collect();
    assert_eq!(all.len(), 7);
    let mut seen = vec![];
    let mut cursor = String::new();
    loop {
        let page = app.admin().get(&format!("/api/audit-log?limit=3{cursor}")).await.ok();
        let rows = page["entries"].as_array().expect("entries");
        assert!(rows.len() <= 3);
        seen.extend(rows.iter().map(|entry| entry["entry"].as_i64().expect("a number")));
        app.organization().await;
        match page["next_cursor"].as_i64() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, all, "what came meanwhile is not in between");
    for query in ["limit=0", "limit=1001", "cursor=x", "cursor=0", "cursor=-1", "offset=1"] {
        let answer = app.admin().get(&format!("/api/audit-log?{query}")).await;
        let field = query.split('=').next().expect("a name");
        let detail = answer.body["detail"].as_str().unwrap_or_default();
        assert!(
            answer.status == 400 && detail.starts_with(&format!("{field}: ")),
            "{query}: {}",
            answer.text
        );
    }
}

#[tokio::test]
async fn the_last_page_of_the_log_says_so_also_when_it_is_full() {
    let app = TestApp::start().await;
    for _ in 0..3 {
        app.organization().await;
    }
    let page = app.admin().get("/api/audit-log?limit=3").await.ok();
    assert_eq!(page["entries"].as_array().map(Vec::len), Some(3));
    assert_eq!(page["next_cursor"], Value::Null);
}

#[tokio::test]
async fn no_secret_is_in_the_log() {
    let app = TestApp::start().await;
    let team = app.team(5).await;
    let made = app.admin().post(&format!("/api/teams/{}/keys/rotate", team.id), json!({})).await.ok();
    let idempotent =
        app.admin().request(Method::POST, "/api/organizations/create").header("idempotency-key", "my-secret");
    Answer::of(idempotent.body(json!({"name": "x"}).to_string())).await.ok();
    let log = app.admin().get("/api/audit-log?limit=1000").await.text;
    for secret in [
        "sk-",
        "test-admin-key",
        "my-secret",
        &team.key[3..],
        &made["virtual_key"].as_str().expect("a key")[3..],
    ] {
        assert!(!log.contains(secret), "{secret}");
    }
}

#[tokio::test]
async fn a_huge_body_is_left_out_of_its_entry() {
    let app = TestApp::start().await;
    let organization = app.organization().await;
    let padding = " ".repeat(70 * 1024);
    let path = format!("/api/organizations/{organization}");
    let request = app.admin().request(Method::PUT, &path).body(format!("{{\"name\": \"x\"{padding}}}"));
    Answer::of(request).await.ok();
    let entries = entries(&app).await;
    assert_eq!((&entries[1]["path"], &entries[1]["body"]), (&json!(path), &Value::Null));
}

#[tokio::test]
async fn nobody_can_change_the_log() {
    let app = TestApp::start().await;
    app.organization().await;
    for statement in ["UPDATE audit_log SET actor = 'x'", "DELETE FROM audit_log", "TRUNCATE audit_log"] {
        let refused = app.database.client.execute(statement, &[]).await.expect_err(statement);
        assert!(
            refused.as_db_error().is_some_and(|error| error.message().contains("append-only")),
            "{refused}"
        );
    }
    let answer = app.admin().delete("/api/audit-log").await;
    assert_eq!((answer.status.as_u16(), &answer.body["code"]), (405, &json!("method_not_allowed")));
}
