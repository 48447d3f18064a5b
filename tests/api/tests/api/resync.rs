//! Putting LiteLLM right for a team.

use api_tests::{Answer, Team, TestApp, behind_our_back};
use serde_json::{Value, json};

async fn resync(app: &TestApp, team: &Team) -> Value {
    app.admin().post(&format!("/api/teams/{}/resync", team.id), json!({})).await.ok()
}

/// The only key of a team: its id, and its name in LiteLLM.
async fn key(app: &TestApp, team: &Team) -> (String, String) {
    let keys = app.admin().get(&format!("/api/teams/{}/keys", team.id)).await.ok();
    let id = keys["keys"][0]["key_id"].as_str().expect("a key").to_owned();
    (id, team.key.clone())
}

/// `POST /api/teams/{team_id}/resync`
#[tokio::test]
async fn what_litellm_has_otherwise_is_named_and_put_right() {
    let app = TestApp::start().await;
    let Some(litellm) = app.stand_in() else { return };
    let team = app.team_with(json!({"credits_allocated": 10, "rpm_limit": 50})).await;
    let (key_id, secret) = key(&app, &team).await;
    let right = json!({"team_id": team.id, "changed": [], "keys_to_rotate": []});
    assert_eq!(resync(&app, &team).await, right);

    let changed = json!({"team_id": team.id, "max_budget": 99, "models": ["gpt-4"], "team_alias": "other"});
    behind_our_back(litellm, "/team/update", changed).await;
    let changed = json!({"key": secret, "rpm_limit": 1, "blocked": true, "max_parallel_requests": 1});
    behind_our_back(litellm, "/key/update", changed).await;
    let answer = resync(&app, &team).await;
    let key_field = |field| format!("keys.{key_id}.{field}");
    let expected = [
        "team.models".to_owned(),
        "team.max_budget".to_owned(),
        "team.team_alias".to_owned(),
        key_field("rpm_limit"),
        key_field("blocked"),
        key_field("max_parallel_requests"),
    ];
    assert_eq!(answer["changed"], json!(expected));
    assert_eq!(resync(&app, &team).await, right);
    let job = team.job().await;
    team.call(&job, "hello").await.ok();
    app.check_invariants().await;
}

#[tokio::test]
async fn a_team_that_litellm_has_lost_is_made_again_and_its_keys_are_to_be_rotated() {
    let app = TestApp::start().await;
    let Some(litellm) = app.stand_in() else { return };
    let team = app.team(10).await;
    let (key_id, _) = key(&app, &team).await;
    behind_our_back(litellm, "/team/delete", json!({"team_ids": [team.id]})).await;
    let lost = resync(&app, &team).await;
    assert_eq!((&lost["changed"], &lost["keys_to_rotate"]), (&json!(["team"]), &json!([key_id])));
    let job = team.job().await;
    assert_eq!(team.call(&job, "hello").await.status, 401, "a lost key can't be made again");

    let rotated = app.admin().post(&format!("/api/teams/{}/keys/rotate", team.id), json!({})).await.ok();
    let new = app.bearer(rotated["virtual_key"].as_str().expect("a key"));
    let body = json!({"messages": [{"role": "user", "content": "hello"}]});
    new.post(&format!("/api/jobs/{job}/llm-call"), body).await.ok();
    let right = json!({"team_id": team.id, "changed": [], "keys_to_rotate": []});
    assert_eq!(resync(&app, &team).await, right);
    app.admin().delete(&format!("/api/teams/{}", team.id)).await.ok();
    app.check_invariants().await;
}

#[tokio::test]
async fn a_resync_is_done_once_under_an_idempotency_key_and_needs_litellm_and_a_team() {
    let app = TestApp::start().await;
    let Some(litellm) = app.stand_in() else { return };
    let team = app.team(10).await;
    behind_our_back(litellm, "/team/update", json!({"team_id": team.id, "max_budget": 99})).await;
    let twice = async || {
        let path = format!("/api/teams/{}/resync", team.id);
        let request = app.admin().request(reqwest::Method::POST, &path).header("idempotency-key", "resync-1");
        Answer::of(request.body("{}")).await
    };
    let first = twice().await;
    assert_eq!(first.body["changed"], json!(["team.max_budget"]));
    let second = twice().await;
    assert_eq!(second.header("idempotent-replayed"), Some("true"));
    assert_eq!(first.ok(), second.ok());
    app.admin().post("/api/teams/nobody/resync", json!({})).await.refused(
        404,
        "not_found",
        "Team 'nobody' not found",
    );
    app.check_invariants().await;
}
