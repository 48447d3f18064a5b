//! Keys that are made and stopped while LiteLLM fails, while others do the same, and while another node has them
//! cached.

use crate::{
    fixtures::{sql, stored, unique},
    keys::{assert_dead, assert_works, further, keys, revoke, rotate, with_new_key},
    litellm_teams::directly,
    teams::show,
};
use api_tests::{Answer, Options, Team, TestApp};
use futures::future::join_all;
use litellm_stand_in::StandIn;
use serde_json::{Value, json};

fn is_unavailable(answer: &Answer) {
    assert_eq!(
        (answer.status.as_u16(), &answer.body["code"]),
        (503, &json!("unavailable")),
        "{}",
        answer.text
    );
}

#[tokio::test]
async fn a_rotation_that_litellm_refuses_changes_nothing() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let team = app.team(9).await;
    let before = show(&app, &team).await["key"]["key_id"].clone();
    stand_in.fail_next("/key/generate", 500, 1);
    is_unavailable(&rotate(&app, &team, json!({})).await);
    stand_in.set_down(true);
    is_unavailable(&rotate(&app, &team, json!({})).await);
    is_unavailable(&app.admin().post(&format!("/api/teams/{}/keys/create", team.id), json!({})).await);
    stand_in.set_down(false);
    let listed = keys(&app, &team).await;
    assert_eq!((listed.len(), &listed[0]["key_id"], &listed[0]["revoked_at"]), (1, &before, &Value::Null));
    assert_eq!(stand_in.keys_of(&team.id).len(), 1);
    assert_works(&app, &team).await;
    let new = with_new_key(&app, &rotate(&app, &team, json!({})).await.ok());
    assert_works(&app, &new).await;
    assert_dead(&app, &team).await;
    app.check_invariants().await;
}

#[tokio::test]
async fn a_key_that_nobody_has_seen_is_cleared_away_by_the_next_one() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let team = app.team(9).await;
    sql(&app, "ALTER FUNCTION activate_key RENAME TO lost").await;
    let answer = rotate(&app, &team, json!({})).await;
    assert_eq!(answer.status, 500, "{}", answer.text);
    sql(&app, "ALTER FUNCTION lost RENAME TO activate_key").await;
    assert_eq!(stand_in.keys_of(&team.id).len(), 2, "LiteLLM holds one that nobody has seen");
    assert_eq!(keys(&app, &team).await.len(), 1);
    assert_works(&app, &team).await;
    // Its maker may still be at it for a while.
    sql(&app, "UPDATE virtual_keys SET created_at = now() - interval '1 hour' WHERE key_hash IS NULL").await;
    let new = with_new_key(&app, &further(&app, &team, "ci").await);
    assert_eq!(stand_in.keys_of(&team.id).len(), 2);
    assert_eq!(sql(&app, "DELETE FROM virtual_keys WHERE key_hash IS NULL").await, 0);
    assert_works(&app, &team).await;
    assert_works(&app, &new).await;
}

#[tokio::test]
async fn a_new_key_is_shown_although_litellm_did_not_hear_of_the_old_one() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let team = app.team(9).await;
    stand_in.fail_next("/key/delete", 500, 1);
    let made = rotate(&app, &team, json!({})).await.ok();
    let warning = "LiteLLM could not be told of the replaced key; the team's next call does it";
    assert_eq!(made["warnings"], json!([warning]));
    team.client.get(&format!("/api/teams/{}", team.id)).await.refused(
        401,
        "unauthenticated",
        "Invalid API key",
    );
    assert_eq!(stand_in.keys_of(&team.id).len(), 2, "else there is nothing to tell");
    let new = with_new_key(&app, &made);
    assert_works(&app, &new).await;
    assert_dead(&app, &team).await;
    assert_eq!(stand_in.keys_of(&team.id).len(), 1);
    app.check_invariants().await;
}

#[tokio::test]
async fn a_revocation_that_litellm_does_not_hear_is_a_503_and_the_same_request_again_tells_it() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let team = app.team(9).await;
    let made = further(&app, &team, "ci").await;
    let ci = with_new_key(&app, &made);
    ci.balance().await;
    stand_in.set_down(true);
    is_unavailable(&revoke(&app, &team, &made["key"]["key_id"]).await);
    let body = json!({"team_id": ci.id, "job_type": "test"});
    ci.client.post("/api/jobs/create", body).await.refused(401, "unauthenticated", "Invalid API key");
    ci.client.get(&format!("/api/teams/{}", ci.id)).await.refused(401, "unauthenticated", "Invalid API key");
    stand_in.set_down(false);
    revoke(&app, &team, &made["key"]["key_id"]).await.ok();
    assert_dead(&app, &ci).await;
    assert_works(&app, &team).await;
}

/// How often LiteLLM was asked for a key.
fn generated(stand_in: &StandIn) -> usize {
    stand_in.requests().iter().filter(|request| request.path == "/key/generate").count()
}

#[tokio::test]
async fn rotations_at_once_leave_only_keys_that_somebody_was_shown() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let team = app.team(20).await;
    let asked = generated(stand_in);
    let made = join_all((0..4).map(|_| rotate(&app, &team, json!({})))).await;
    let made: Vec<Team> = made.into_iter().map(|answer| with_new_key(&app, &answer.ok())).collect();
    assert_eq!(generated(stand_in) - asked, 4);
    assert_dead(&app, &team).await;
    let listed = keys(&app, &team).await;
    assert_eq!(listed.len(), 5);
    let alive = listed.iter().filter(|key| key["revoked_at"].is_null()).count();
    assert_eq!(stand_in.keys_of(&team.id).len(), alive, "LiteLLM holds those that work here");
    let mut work = 0;
    for key in &made {
        let status = key.client.get(&format!("/api/teams/{}", key.id)).await.status;
        assert!(status == 200 || status == 401);
        assert_eq!(directly(&app, key, "gpt-4o-mini").await, status.as_u16());
        work += usize::from(status == 200);
    }
    assert_eq!(work, alive);
    assert!(work >= 1);
    app.check_invariants().await;
}

#[tokio::test]
async fn a_rotated_key_changes_nothing_on_a_node_that_still_has_it_cached() {
    let variables = |app: Option<&TestApp>| {
        let mut variables = vec![("auth_cache_seconds", "60".to_owned())];
        variables.extend(app.into_iter().flat_map(|app| app.database.variables()));
        variables.extend(app.and_then(TestApp::stand_in).map(|stand_in| ("litellm_url", stand_in.url())));
        Options { variables, ..Options::default() }
    };
    let app = TestApp::start_with(variables(None)).await;
    if app.stand_in().is_none() {
        return;
    }
    let other = TestApp::start_with(variables(Some(&app))).await;
    let team = app.team_with(json!({"team_id": unique("team"), "credits_allocated": 5})).await;
    let there = Team { client: other.bearer(&team.key), ..team.clone() };
    there.balance().await; // so that it is cached there
    let new = with_new_key(&app, &rotate(&app, &team, json!({})).await.ok());
    assert_dead(&app, &team).await;
    let before = stored(&app).await;
    let body = json!({"team_id": team.id, "job_type": "test"});
    there.client.post("/api/jobs/create", body).await.refused(401, "unauthenticated", "Invalid API key");
    assert_eq!(stored(&app).await, before);
    let there = Team { client: other.bearer(&new.key), ..new.clone() };
    assert_works(&app, &there).await;
}
