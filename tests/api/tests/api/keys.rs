//! Virtual keys: several for a team, replaced without a gap, and stopped at once, here and in LiteLLM.

use crate::{
    fixtures::{assert_time, assert_uuid, stored},
    litellm_teams::directly,
    teams::show,
};
use api_tests::{Answer, Team, TestApp};
use serde_json::{Value, json};
use std::time::Duration;
use uuid::Uuid;

/// The team with the key of this answer.
pub fn with_new_key(app: &TestApp, made: &Value) -> Team {
    let key = made["virtual_key"].as_str().expect("a key").to_owned();
    Team { id: made["team_id"].as_str().expect("an id").into(), client: app.bearer(&key), key }
}

/// Rotates a key of the team.
pub async fn rotate(app: &TestApp, team: &Team, body: Value) -> Answer {
    app.admin().post(&format!("/api/teams/{}/keys/rotate", team.id), body).await
}

/// A further key of the team, with this alias.
pub async fn further(app: &TestApp, team: &Team, alias: &str) -> Value {
    app.admin().post(&format!("/api/teams/{}/keys/create", team.id), json!({"alias": alias})).await.ok()
}

/// Revokes a key.
pub async fn revoke(app: &TestApp, team: &Team, key: &Value) -> Answer {
    app.admin().delete(&format!("/api/teams/{}/keys/{}", team.id, key.as_str().expect("an id"))).await
}

/// The keys of a team as the admin sees them, newest first.
pub async fn keys(app: &TestApp, team: &Team) -> Vec<Value> {
    let list = app.admin().get(&format!("/api/teams/{}/keys", team.id)).await.ok();
    assert_eq!(list["team_id"], json!(team.id));
    list["keys"].as_array().expect("a list").clone()
}

/// Fails the test unless the key works: here, and in LiteLLM when it is used there directly.
pub async fn assert_works(app: &TestApp, team: &Team) {
    let job = team.job().await;
    team.call(&job, "hello").await.ok();
    team.complete(&job, "cancelled").await.ok();
    if app.stand_in().is_some() {
        assert_eq!(directly(app, team, "gpt-4o-mini").await, 200);
    }
}

/// Fails the test unless the key is refused, by everything here, and by LiteLLM.
pub async fn assert_dead(app: &TestApp, team: &Team) {
    team.client.get(&format!("/api/teams/{}", team.id)).await.refused(
        401,
        "unauthenticated",
        "Invalid API key",
    );
    let body = json!({"team_id": team.id, "job_type": "test"});
    team.client.post("/api/jobs/create", body).await.refused(401, "unauthenticated", "Invalid API key");
    if app.stand_in().is_some() {
        assert_eq!(directly(app, team, "gpt-4o-mini").await, 401);
    }
}

/// `POST /api/teams/{team_id}/keys/create`
#[tokio::test]
async fn a_further_key_works_beside_the_first_with_the_same_models_and_limits() {
    let app = TestApp::start().await;
    let fields = json!({"credits_allocated": 9, "rpm_limit": 60, "max_budget": 25, "budget_duration": "30d"});
    let team = app.team_with(fields).await;
    let made = further(&app, &team, "ci").await;
    assert_eq!((&made["team_id"], &made["key"]["alias"]), (&json!(team.id), &json!("ci")));
    assert_uuid(&made["key"]["key_id"]);
    assert_time(&made["key"]["created_at"]);
    assert_eq!((&made["key"]["revoked_at"], made.get("warnings")), (&Value::Null, None));
    let second = with_new_key(&app, &made);
    assert!(second.key.starts_with("sk-") && second.key != team.key);
    assert_eq!(made["key"]["hint"], json!(second.key[second.key.len() - 4..]));
    assert_works(&app, &second).await;
    assert_works(&app, &team).await;
    if let Some(stand_in) = app.stand_in() {
        let known = stand_in.keys_of(&team.id);
        assert_eq!(known.len(), 2);
        assert_eq!((&known[0].models, known[0].rpm_limit), (&known[1].models, known[1].rpm_limit));
        assert_eq!(
            (known[0].max_budget, &known[0].budget_duration),
            (known[1].max_budget, &known[1].budget_duration)
        );
    }
    let unnamed = app.admin().post(&format!("/api/teams/{}/keys/create", team.id), json!({})).await.ok();
    assert!(unnamed["key"]["alias"].is_string());
    let same_name = further(&app, &team, "ci").await;
    assert_works(&app, &with_new_key(&app, &same_name)).await;
    app.check_invariants().await;
}

/// `GET /api/teams/{team_id}/keys`
#[tokio::test]
async fn keys_are_listed_newest_first_with_hints_and_never_in_full() {
    let app = TestApp::start().await;
    let team = app.team(5).await;
    let (ci, web) = (further(&app, &team, "ci").await, further(&app, &team, "web").await);
    revoke(&app, &team, &ci["key"]["key_id"]).await.ok();
    with_new_key(&app, &web).job().await;

    let answer = app.admin().get(&format!("/api/teams/{}/keys", team.id)).await;
    for made in [&ci, &web] {
        assert!(!answer.text.contains(made["virtual_key"].as_str().expect("a key")));
    }
    assert!(!answer.text.contains("sk-") && !answer.text.contains(&team.key));
    let listed = keys(&app, &team).await;
    let aliases: Vec<&Value> = listed.iter().map(|key| &key["alias"]).collect();
    assert_eq!(aliases, ["web", "ci", "default"]);
    for (key, hinted) in
        [(&listed[0], &web["virtual_key"]), (&listed[1], &ci["virtual_key"]), (&listed[2], &json!(team.key))]
    {
        let hinted = hinted.as_str().expect("a key");
        assert_eq!(key["hint"], json!(hinted[hinted.len() - 4..]));
        assert_eq!(
            key.as_object().expect("an object").keys().map(String::as_str).collect::<Vec<_>>(),
            ["alias", "created_at", "hint", "key_id", "last_used_at", "revoked_at"]
        );
    }
    assert_time(&listed[0]["last_used_at"]);
    assert_time(&listed[1]["revoked_at"]);
    assert_eq!((&listed[2]["last_used_at"], &listed[2]["revoked_at"]), (&Value::Null, &Value::Null));
    assert_eq!(show(&app, &team).await["key"], listed[0], "the team shows its newest");
    app.admin().get("/api/teams/None/keys").await.refused(404, "not_found", "Team 'None' not found");
}

/// `POST /api/teams/{team_id}/keys/rotate`
#[tokio::test]
async fn a_rotated_key_is_replaced_at_once_and_its_place_keeps_its_name() {
    let app = TestApp::start().await;
    let team = app.team(9).await;
    let job = team.job().await; // and the key is cached
    let made = rotate(&app, &team, json!({})).await.ok();
    assert_eq!((&made["key"]["alias"], made.get("warnings")), (&json!("default"), None));
    let new = with_new_key(&app, &made);
    assert_works(&app, &new).await;
    assert_dead(&app, &team).await;
    new.complete(&job, "completed").await.ok();
    let listed = keys(&app, &team).await;
    assert_eq!(listed[0]["key_id"], made["key"]["key_id"]);
    assert_time(&listed[1]["revoked_at"]);
    if let Some(stand_in) = app.stand_in() {
        assert_eq!(stand_in.keys_of(&team.id).len(), 1);
    }

    let named = rotate(&app, &team, json!({"alias": "renamed"})).await.ok();
    assert_eq!(named["key"]["alias"], "renamed");
    assert_eq!(rotate(&app, &team, json!({"grace_seconds": 0})).await.ok()["key"]["alias"], "renamed");
    app.check_invariants().await;
}

#[tokio::test]
async fn within_its_grace_a_replaced_key_works_on_and_then_no_more() {
    let app = TestApp::start().await;
    let team = app.team(9).await;
    assert_works(&app, &team).await;
    let new = with_new_key(&app, &rotate(&app, &team, json!({"grace_seconds": 4})).await.ok());
    assert_works(&app, &new).await;
    assert_works(&app, &team).await;
    assert_time(&keys(&app, &team).await[1]["revoked_at"]);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_dead(&app, &team).await;
    assert_works(&app, &new).await;

    // A day of grace ends with what comes first.
    let last = with_new_key(&app, &rotate(&app, &team, json!({"grace_seconds": 86_400})).await.ok());
    assert_works(&app, &new).await;
    let replaced = keys(&app, &team).await[1]["key_id"].clone();
    if let Some(stand_in) = app.stand_in() {
        let expires = stand_in.keys_of(&team.id).iter().filter(|key| key.expires.is_some()).count();
        assert_eq!(expires, 1);
        // What changes of the team meanwhile makes its time there no longer.
        app.admin().put(&format!("/api/teams/{}", team.id), json!({"rpm_limit": 50})).await.ok();
        assert_works(&app, &new).await;
    }
    revoke(&app, &team, &replaced).await.ok();
    assert_dead(&app, &new).await;
    assert_works(&app, &last).await;
    app.check_invariants().await;
}

#[tokio::test]
async fn one_of_several_keys_is_rotated_by_its_id() {
    let app = TestApp::start().await;
    let team = app.team(9).await;
    let ci = further(&app, &team, "ci").await;
    let web = further(&app, &team, "web").await;
    let made = rotate(&app, &team, json!({"key_id": ci["key"]["key_id"]})).await.ok();
    assert_eq!(made["key"]["alias"], "ci");
    assert_dead(&app, &with_new_key(&app, &ci)).await;
    for key in [&team, &with_new_key(&app, &web), &with_new_key(&app, &made)] {
        assert_works(&app, key).await;
    }
    let again = rotate(&app, &team, json!({"key_id": ci["key"]["key_id"]})).await;
    let id = ci["key"]["key_id"].as_str().expect("an id");
    again.refused(404, "not_found", &format!("Key '{id}' not found"));
    app.check_invariants().await;
}

#[tokio::test]
async fn bad_requests_for_keys_are_refused_and_nothing_changes() {
    let app = TestApp::start().await;
    let (team, other) = (app.team(5).await, app.team(5).await);
    let others = show(&app, &other).await["key"]["key_id"].clone();
    let before = stored(&app).await;
    let path = format!("/api/teams/{}/keys", team.id);
    for (verb, body, field) in [
        ("rotate", json!({"grace_seconds": -1}), "grace_seconds"),
        ("rotate", json!({"grace_seconds": 2_592_001}), "grace_seconds"),
        ("rotate", json!({"grace_seconds": 1.5}), "grace_seconds"),
        ("rotate", json!({"grace": 1}), "grace"),
        ("rotate", json!({"key_id": "x"}), "key_id"),
        ("rotate", json!({"alias": ""}), "alias"),
        ("create", json!({"alias": ""}), "alias"),
        ("create", json!({"alias": 1}), "alias"),
        ("create", json!({"grace_seconds": 1}), "grace_seconds"),
        ("create", json!({"virtual_key": "sk-mine"}), "virtual_key"),
    ] {
        let answer = app.admin().post(&format!("{path}/{verb}"), body.clone()).await;
        let detail = answer.body["detail"].as_str().unwrap_or_default();
        assert!(
            answer.status == 400 && detail.starts_with(&format!("{field}: ")),
            "{body}: {} {}",
            answer.status,
            answer.text
        );
    }
    let other_id = others.as_str().expect("an id");
    let gone = format!("Key '{other_id}' not found");
    rotate(&app, &team, json!({"key_id": others})).await.refused(404, "not_found", &gone);
    revoke(&app, &team, &others).await.refused(404, "not_found", &gone);
    for unknown in [Uuid::now_v7().to_string(), "None".into()] {
        let gone = format!("Key '{unknown}' not found");
        app.admin().delete(&format!("{path}/{unknown}")).await.refused(404, "not_found", &gone);
    }
    for (verb, body) in [("rotate", json!({})), ("create", json!({}))] {
        let answer = app.admin().post(&format!("/api/teams/None/keys/{verb}"), body).await;
        answer.refused(404, "not_found", "Team 'None' not found");
    }
    let none = app.admin().delete(&format!("/api/teams/None/keys/{other_id}")).await;
    none.refused(404, "not_found", "Team 'None' not found");
    assert_eq!(stored(&app).await, before);
    other.job().await;
}

/// `DELETE /api/teams/{team_id}/keys/{key_id}`
#[tokio::test]
async fn a_revoked_key_stops_at_once_and_revoking_it_again_changes_nothing() {
    let app = TestApp::start().await;
    let team = app.team(9).await;
    let made = further(&app, &team, "ci").await;
    let ci = with_new_key(&app, &made);
    ci.balance().await; // so that it is cached
    let revoked = revoke(&app, &team, &made["key"]["key_id"]).await.ok();
    assert_eq!((&revoked["revoked"], &revoked["key"]["alias"]), (&json!(true), &json!("ci")));
    assert_time(&revoked["key"]["revoked_at"]);
    assert_dead(&app, &ci).await;
    assert_works(&app, &team).await;
    let again = revoke(&app, &team, &made["key"]["key_id"]).await.ok();
    assert_eq!(again["key"]["revoked_at"], revoked["key"]["revoked_at"]);

    let first = show(&app, &team).await["key"]["key_id"].clone();
    revoke(&app, &team, &first).await.ok();
    assert_dead(&app, &team).await;
    assert_eq!(show(&app, &team).await["key"], Value::Null);
    if let Some(stand_in) = app.stand_in() {
        assert!(stand_in.keys_of(&team.id).is_empty());
    }
    let new = with_new_key(&app, &rotate(&app, &team, json!({})).await.ok());
    assert_works(&app, &new).await;
    app.check_invariants().await;
}
