//! A job's metadata can be added to, as long as the job is there.

use crate::{
    amounts::members,
    fixtures::{assert_time, sql, stored},
};
use api_tests::{Answer, Client, TestApp};
use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

async fn merge_text(client: &Client, job: &str, body: &str) -> Answer {
    let request = client.request(Method::PATCH, &format!("/api/jobs/{job}/metadata"));
    Answer::of(request.body(body.to_owned())).await
}

async fn merge(client: &Client, job: &str, metadata: Value) -> Answer {
    merge_text(client, job, &json!({"metadata": metadata}).to_string()).await
}

/// `PATCH /api/jobs/{job_id}/metadata`
#[tokio::test]
async fn members_are_added_and_replaced_and_others_stay() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    let body = json!({"team_id": team.id, "job_type": "test", "metadata": {"a": 1, "b": {"x": 1, "y": 2}}});
    let job =
        team.client.post("/api/jobs/create", body).await.ok()["job_id"].as_str().expect("an id").to_owned();
    for (added, expected) in [
        (json!({"c": [1, 2]}), json!({"a": 1, "b": {"x": 1, "y": 2}, "c": [1, 2]})),
        (json!({"b": {"x": 5}}), json!({"a": 1, "b": {"x": 5}, "c": [1, 2]})),
        (json!({}), json!({"a": 1, "b": {"x": 5}, "c": [1, 2]})),
        (json!({"a": null}), json!({"a": null, "b": {"x": 5}, "c": [1, 2]})),
        (json!({"": "é\n\"", "a": "again"}), json!({"": "é\n\"", "a": "again", "b": {"x": 5}, "c": [1, 2]})),
    ] {
        let merged = merge(&team.client, &job, added.clone()).await.ok();
        assert_eq!((&merged["job_id"], &merged["metadata"]), (&json!(job), &expected), "{added}");
        assert_time(&merged["updated_at"]);
        assert_eq!(team.read(&job).await["metadata"], expected, "{added}");
    }
    let end = json!({"status": "failed", "metadata": {"d": 1}});
    team.client.post(&format!("/api/jobs/{job}/complete"), end).await.ok();
    assert_eq!(team.read(&job).await["metadata"]["d"], 1, "completing adds, too");
    app.check_invariants().await;
}

#[tokio::test]
async fn a_jobs_metadata_can_be_added_to_after_its_end_and_changes_nothing_else() {
    let app = TestApp::start().await;
    let team = app.team(5).await;
    for end in ["completed", "failed", "cancelled", "expired"] {
        let job = team.job().await;
        if end == "expired" {
            sql(&app, "UPDATE jobs SET expires_at = now() WHERE status = 'pending'").await;
        } else {
            team.complete(&job, end).await.ok();
        }
        let mut before = team.read(&job).await;
        assert_eq!(before["status"], end);
        merge(&team.client, &job, json!({"reviewed": true})).await.ok();
        before["metadata"] = json!({"reviewed": true});
        assert_eq!(team.read(&job).await, before);
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn values_keep_the_digits_that_they_came_with() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    let job = team.job().await;
    let values =
        r#"{"pi": 3.140, "big": 12345678901234567890123, "tiny": 1E-7, "text": "\u00e9\ud83d\ude00/\/"}"#;
    merge_text(&team.client, &job, &format!(r#"{{"metadata": {values}}}"#)).await.ok();
    merge(&team.client, &job, json!({"more": 1})).await.ok();
    let read = team.client.get(&format!("/api/jobs/{job}")).await.text;
    let kept = members(members(&read)["metadata"].get());
    for (name, value) in members(values) {
        assert_eq!(kept[&name].get(), value.get(), "{name}");
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn what_many_add_at_once_is_all_there() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    let job = team.job().await;
    let added = (0..12).map(|n| {
        let client = if n % 2 == 0 { team.client.clone() } else { app.admin() };
        let job = &job;
        async move { merge(&client, job, json!({format!("m{n}"): n})).await.ok() }
    });
    join_all(added).await;
    assert_eq!(team.read(&job).await["metadata"].as_object().map(serde_json::Map::len), Some(12));
    app.check_invariants().await;
}

#[tokio::test]
async fn metadata_that_is_none_or_too_much_is_refused_by_name() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    let job = team.job().await;
    let before = stored(&app).await;
    for (field, body) in [
        ("metadata", json!({})),
        ("metadata", json!({"metadata": [1]})),
        ("metadata", json!({"metadata": "text"})),
        ("metadata", json!({"metadata": {"a": "x".repeat(16 * 1024)}})),
        ("meta", json!({"meta": {}})),
        ("status", json!({"metadata": {}, "status": "completed"})),
    ] {
        let answer = merge_text(&team.client, &job, &body.to_string()).await;
        let named =
            answer.body["detail"].as_str().is_some_and(|detail| detail.starts_with(&format!("{field}: ")));
        assert!(answer.status == 400 && named, "{field}: {}", answer.text);
    }
    assert_eq!(stored(&app).await, before);
    merge(&team.client, &job, json!({"a": "x".repeat(16 * 1024 - 8)})).await.ok();
}

#[tokio::test]
async fn metadata_does_not_grow_beyond_its_limit_bit_by_bit() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    let job = team.job().await;
    merge(&team.client, &job, json!({"a": "x".repeat(10_000)})).await.ok();
    let before = team.read(&job).await;
    let refused = merge(&team.client, &job, json!({"b": "x".repeat(10_000)})).await;
    assert_eq!(
        (refused.status.as_u16(), &refused.body["code"]),
        (400, &json!("invalid_request")),
        "{:.200}",
        refused.text
    );
    assert_eq!(team.read(&job).await, before);
    merge(&team.client, &job, json!({"a": "y".repeat(10_000)})).await.ok();
    app.check_invariants().await;
}

#[tokio::test]
async fn the_metadata_of_anothers_job_is_out_of_reach() {
    let app = TestApp::start().await;
    let (team, other) = (app.team(1).await, app.team(1).await);
    let job = team.job().await;
    for id in [job.as_str(), &Uuid::now_v7().to_string(), "nope"] {
        merge(&other.client, id, json!({"a": 1})).await.refused(404, "not_found", "Job not found");
    }
    assert_eq!(team.read(&job).await["metadata"], json!({}));
    merge(&app.admin(), &job, json!({"a": 1})).await.ok();
    assert_eq!(team.read(&job).await["metadata"], json!({"a": 1}));
}
