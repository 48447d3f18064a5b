//! Metadata is any JSON object of up to 16 KiB, given back as it came.

use crate::fixtures::{stored, unique};
use api_tests::{Answer, Client, Team, TestApp};
use reqwest::Method;
use serde_json::{Value, json};

/// What a parser that rebuilds JSON would change: order, notation, big numbers, spaces, repeated and escaped names.
const ODD: &str = r#"{"z": 1.0, "a":1e2,"big":123456789012345678901234567890, "0": [ 1 ,2.50], "é\u00e9\/": "\u0041", "": null, "x":{"b":{},"a":-0.0}}"#;

async fn post(client: &Client, path: &str, body: String) -> Answer {
    Answer::of(client.request(Method::POST, path).body(body)).await
}

/// Fails the test unless the answer is good and has this text in it.
#[track_caller]
fn assert_has(answer: Answer, text: &str) {
    assert!(
        answer.status == 200 && answer.text.contains(text),
        "expected {text} in {} {}",
        answer.status,
        answer.text
    );
}

#[tokio::test]
async fn metadata_comes_back_as_it_came_from_everything_that_has_it() {
    let app = TestApp::start().await;
    let admin = app.admin();
    let body = format!(r#"{{"organization_id":"Org","name":"Test","metadata":{ODD}}}"#);
    assert_has(post(&admin, "/api/organizations/create", body).await, ODD);
    assert_has(admin.get("/api/organizations/Org").await, ODD);

    let body = format!(
        r#"{{"group_name":"Group","models":[{{"model_name":"gpt-4o","priority":0,"config":{{"seed":1.0}}}}],"metadata":{ODD}}}"#
    );
    assert_has(post(&admin, "/api/model-groups/create", body).await, ODD);
    assert_has(admin.get("/api/model-groups/Group").await, ODD);
    assert_has(admin.get("/api/model-groups").await, ODD);

    let id = unique("team");
    let body =
        format!(r#"{{"team_id":"{id}","organization_id":"Org","model_groups":["Group"],"metadata":{ODD}}}"#);
    post(&admin, "/api/teams/create", body).await.ok();
    assert_has(admin.get(&format!("/api/teams/{id}")).await, ODD);
    assert_has(admin.get("/api/teams").await, ODD);

    let body = format!(r#"{{"amount":1,"metadata":{ODD}}}"#);
    assert_has(post(&admin, &format!("/api/credits/teams/{id}/add"), body).await, ODD);
    assert_has(admin.get(&format!("/api/credits/teams/{id}/transactions")).await, ODD);
    app.check_invariants().await;
}

async fn job_with(team: &Team, metadata: &str) -> String {
    let body = format!(r#"{{"team_id":"{}","job_type":"test","metadata":{metadata}}}"#, team.id);
    let job = post(&team.client, "/api/jobs/create", body).await.ok();
    job["job_id"].as_str().expect("an id").to_owned()
}

async fn complete_with(team: &Team, job: &str, metadata: &str) -> Answer {
    let body = format!(r#"{{"status":"completed","metadata":{metadata}}}"#);
    post(&team.client, &format!("/api/jobs/{job}/complete"), body).await
}

#[tokio::test]
async fn a_jobs_metadata_comes_back_as_it_came_before_and_after_completing() {
    let app = TestApp::start().await;
    let team = app.team(5).await;
    let job = job_with(&team, ODD).await;
    let (path, list) = (format!("/api/jobs/{job}"), format!("/api/teams/{}/jobs", team.id));
    assert_has(team.client.get(&path).await, ODD);
    assert_has(team.client.get(&list).await, ODD);
    team.complete(&job, "completed").await.ok();
    assert_has(team.client.get(&path).await, ODD);
    app.check_invariants().await;
}

#[tokio::test]
async fn completing_merges_metadata_and_its_members_keep_their_text() {
    let app = TestApp::start().await;
    let team = app.team(5).await;
    let job = job_with(&team, r#"{"z": 1.0, "kept": [ 1.50 ], "replaced": {"a": 1, "b": 2}}"#).await;
    complete_with(&team, &job, r#"{"replaced": {"c": 12345678901234567890.0}, "new": 1e2}"#).await.ok();
    let answer = team.client.get(&format!("/api/jobs/{job}")).await;
    let metadata = &answer.body["metadata"];
    assert_eq!(metadata.as_object().map(|members| members.len()), Some(4), "{metadata}");
    assert_eq!(metadata["replaced"]["a"], Value::Null, "members are replaced whole");
    for text in ["1.0", "[ 1.50 ]", "12345678901234567890.0", "1e2"] {
        assert_has(answer.clone(), text);
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn a_repeated_completion_does_not_merge_again() {
    let app = TestApp::start().await;
    let team = app.team(5).await;
    let job = job_with(&team, r#"{"a": 1}"#).await;
    let first = complete_with(&team, &job, r#"{"b": 1}"#).await.ok();
    assert_eq!(complete_with(&team, &job, r#"{"b": 2, "c": 3}"#).await.ok(), first);
    assert_eq!(team.read(&job).await["metadata"], json!({"a": 1, "b": 1}));
}

/// An object of just so many bytes.
fn object_of(bytes: usize) -> String {
    format!(r#"{{"a":"{}"}}"#, "x".repeat(bytes - 8))
}

/// Objects that are valid JSON and that a parser or a database may choke on.
fn awkward() -> Vec<String> {
    let deep = |escape: &str| format!(r#"{{"deep":{}"{escape}"{}}}"#, "[".repeat(5000), "]".repeat(5000));
    let flat =
        [r#"{"a":"\ud83d\ude00"}"#, r#"{"a":1e400}"#, r#"{"a":1e400,"b":"\u0041"}"#, r#"{"a":1,"a":2}"#];
    flat.into_iter().map(str::to_owned).chain([deep(""), deep("\\u0041")]).collect()
}

#[tokio::test]
async fn awkward_metadata_comes_back_and_does_not_keep_a_job_from_being_completed() {
    let app = TestApp::start().await;
    let team = app.team(20).await;
    let mut flaws = vec![];
    for metadata in awkward() {
        let mut expect = |what: &str, answer: &Answer, good: bool| {
            if !good {
                flaws.push(format!("{metadata:.30} {what}: {} {:.200}", answer.status, answer.text));
            }
        };
        let body = format!(r#"{{"team_id":"{}","job_type":"test","metadata":{metadata}}}"#, team.id);
        let created = post(&team.client, "/api/jobs/create", body).await;
        expect("creating", &created, created.status == 200);
        if let Some(job) = created.body["job_id"].as_str() {
            let read = team.client.get(&format!("/api/jobs/{job}")).await;
            expect("reading", &read, read.text.contains(&metadata));
            let completed = complete_with(&team, job, r#"{"done":true}"#).await;
            expect("completing", &completed, completed.status == 200);
        }
        let completed = complete_with(&team, &job_with(&team, r#"{"b":1}"#).await, &metadata).await;
        expect("completing with it", &completed, completed.status == 200);
    }
    assert!(flaws.is_empty(), "{}", flaws.join("\n"));
    app.check_invariants().await;
}

#[tokio::test]
async fn no_metadata_is_the_empty_object() {
    let app = TestApp::start().await;
    let team = app.team(5).await;
    for metadata in ["null", "{}"] {
        let job = job_with(&team, metadata).await;
        assert_eq!(team.read(&job).await["metadata"], json!({}));
    }
    let job = team.job().await;
    assert_eq!(team.read(&job).await["metadata"], json!({}));
}

#[tokio::test]
async fn metadata_may_have_16_kib_and_not_a_byte_more() {
    let app = TestApp::start().await;
    let team = app.team(5).await;
    let most = 16 * 1024;
    let (job, merged) = (job_with(&team, &object_of(most)).await, job_with(&team, &object_of(most)).await);
    let body = format!(r#"{{"team_id":"{}","job_type":"test","metadata":{}}}"#, team.id, object_of(most + 1));
    let before = stored(&app).await;
    for refused in [
        post(&team.client, "/api/jobs/create", body).await,
        complete_with(&team, &job, &object_of(most + 1)).await,
    ] {
        refused.refused(400, "invalid_request", "metadata: expected at most 16384 bytes of JSON");
    }
    assert_eq!(stored(&app).await, before);
    team.complete(&job, "completed").await.ok();
    assert_has(team.client.get(&format!("/api/jobs/{job}")).await, &object_of(most));

    let more = object_of(most).replace("\"a\"", "\"b\"");
    complete_with(&team, &merged, &more).await.ok();
    let members = team.read(&merged).await["metadata"].as_object().map(|members| members.len());
    assert_eq!(members, Some(2), "nothing is lost where the two together have more");
    app.check_invariants().await;
}

#[tokio::test]
async fn text_that_the_database_can_not_hold_is_refused() {
    let app = TestApp::start().await;
    let team = app.team(9).await;
    let job = job_with(&team, r#"{"a": "\\u0000 \\ud800"}"#).await; // escaped backslashes, so no escapes
    let before = stored(&app).await;
    for metadata in [
        r#"{"a":"\u0000"}"#,
        r#"{"\u0000":1}"#,
        r#"{"a":{"b":["\ud800"]}}"#,
        r#"{"a":"\ud800\ud800"}"#,
        r#"{"\udc00":1}"#,
        r#"{"a":"\udc00\ud800"}"#,
        r#"{"a":"\\\u0000"}"#,
        r#"{"a":"\uD800x"}"#,
    ] {
        let body = format!(r#"{{"team_id":"{}","job_type":"test","metadata":{metadata}}}"#, team.id);
        for refused in [
            post(&team.client, "/api/jobs/create", body).await,
            complete_with(&team, &job, metadata).await,
            post(
                &app.admin(),
                "/api/organizations/create",
                format!(r#"{{"name":"Test","metadata":{metadata}}}"#),
            )
            .await,
        ] {
            let detail = refused.body["detail"].as_str().unwrap_or_default();
            assert!(
                refused.status == 400 && detail.starts_with("metadata: "),
                "{metadata}: {} {}",
                refused.status,
                refused.text
            );
        }
    }
    assert_eq!(stored(&app).await, before);
    complete_with(&team, &job, r#"{"done":true}"#).await.ok();
    app.check_invariants().await;
}
