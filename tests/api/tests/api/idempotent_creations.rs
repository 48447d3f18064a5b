//! Teams and keys that are made under an `Idempotency-Key`: once, and shown again to whoever asks again.

use crate::{
    fixtures::{sql, stored, unique},
    idempotency::{assert_replay, is_replayed, mismatch, post, prompt},
    idempotent_calls::completions,
};
use api_tests::{Team, TestApp};
use futures::future::join_all;
use serde_json::json;

#[tokio::test]
async fn a_repeated_creation_of_a_team_shows_the_same_key_which_is_stored_nowhere() {
    let app = TestApp::start().await;
    let (organization, group) = (app.organization().await, app.model_group(&["gpt-4o-mini"]).await);
    let body = json!({"organization_id": organization, "model_groups": [group], "credits_allocated": 5});
    let idempotency_key = unique("a key, unguessed");
    let first = post(&app.admin(), "/api/teams/create", &idempotency_key, &body).await;
    let made = first.clone().ok();
    let key = made["virtual_key"].as_str().expect("a key");
    let all = stored(&app).await;
    for secret in [key, &key[3..], &idempotency_key, &hex(key), &hex(&idempotency_key)] {
        assert!(!all.contains(secret), "{secret} is stored");
    }
    assert!(!app.logs().contains(key));

    assert_replay(&first, &post(&app.admin(), "/api/teams/create", &idempotency_key, &body).await);
    assert_eq!(app.admin().get("/api/teams").await.ok()["total"], 1);
    let id = made["team_id"].as_str().expect("an id").to_owned();
    if let Some(stand_in) = app.stand_in() {
        assert_eq!(stand_in.keys_of(&id).len(), 1);
    }
    let team = Team { id, client: app.bearer(key), key: key.into() };
    let job = team.job().await;
    team.call(&job, "hello").await.ok();
    team.complete(&job, "completed").await.ok();
    app.check_invariants().await;
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_failed_creation_of_a_team_keeps_nothing_and_the_repeat_begins_anew() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let organization = app.organization().await;
    for (at, faults) in
        [&["/team/new"][..], &["/key/generate"], &["/key/generate", "/team/delete"]].iter().enumerate()
    {
        let body =
            json!({"organization_id": organization, "team_id": unique("team"), "credits_allocated": 5});
        let key = format!("k{at}");
        for fault in *faults {
            stand_in.fail_next(fault, 500, 1);
        }
        let failed = post(&app.admin(), "/api/teams/create", &key, &body).await;
        assert_eq!(
            (failed.status.as_u16(), &failed.body["code"]),
            (503, &json!("unavailable")),
            "{}",
            failed.text
        );
        let first = post(&app.admin(), "/api/teams/create", &key, &body).await;
        first.clone().ok();
        assert_replay(&first, &post(&app.admin(), "/api/teams/create", &key, &body).await);
    }
    assert_eq!(app.admin().get("/api/teams").await.ok()["total"], 3);
    app.check_invariants().await;
}

#[tokio::test]
async fn a_repeated_rotation_shows_the_same_key_and_makes_no_other() {
    let app = TestApp::start().await;
    let team = app.team(5).await;
    let path = format!("/api/teams/{}/keys/rotate", team.id);
    let first = post(&app.admin(), &path, "rotation", &json!({})).await;
    let key = first.clone().ok()["virtual_key"].as_str().expect("a key").to_owned();
    assert!(!stored(&app).await.contains(&key[3..]));
    assert_replay(&first, &post(&app.admin(), &path, "rotation", &json!({})).await);
    mismatch(post(&app.admin(), &path, "rotation", &json!({"grace_seconds": 1})).await);
    let keys = app.admin().get(&format!("/api/teams/{}/keys", team.id)).await.ok();
    assert_eq!(keys["keys"].as_array().map(Vec::len), Some(2));
    let new = Team { id: team.id.clone(), client: app.bearer(&key), key };
    new.job().await;
    team.client.get("/api/model-groups").await.refused(401, "unauthenticated", "Invalid API key");

    let Some(stand_in) = app.stand_in() else { return };
    assert_eq!(stand_in.keys_of(&team.id).len(), 1);
    stand_in.fail_next("/key/generate", 500, 1);
    let failed = post(&app.admin(), &path, "second", &json!({})).await;
    assert_eq!(failed.status, 503, "{}", failed.text);
    let first = post(&app.admin(), &path, "second", &json!({})).await;
    first.clone().ok();
    assert_replay(&first, &post(&app.admin(), &path, "second", &json!({})).await);
}

#[tokio::test]
async fn a_request_that_died_half_way_is_done_by_a_repeat_when_its_time_is_over() {
    let app = TestApp::start().await;
    let organization = app.organization().await;
    let body = json!({"organization_id": organization, "team_id": unique("team"), "credits_allocated": 5});
    sql(&app, "ALTER FUNCTION activate_team RENAME TO lost").await;
    let died = post(&app.admin(), "/api/teams/create", "k", &body).await;
    assert_eq!(died.status, 500, "{}", died.text);
    sql(&app, "ALTER FUNCTION lost RENAME TO activate_team").await;
    let early = post(&app.admin(), "/api/teams/create", "k", &body).await;
    assert_eq!(early.header("retry-after"), Some("1"));
    early.refused(
        409,
        "idempotency_in_progress",
        "Idempotency-Key: the request with this key is still under way",
    );
    sql(&app, "UPDATE idempotency_keys SET claimed_until = now()").await;
    sql(&app, "UPDATE teams SET creation_lease = now()").await;
    let first = post(&app.admin(), "/api/teams/create", "k", &body).await;
    first.clone().ok();
    assert_replay(&first, &post(&app.admin(), "/api/teams/create", "k", &body).await);
    app.check_invariants().await;
}

#[tokio::test]
async fn of_twins_at_once_that_need_litellm_one_is_done_and_the_others_come_back_later() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let team = app.team(5).await;
    let job = team.job().await;
    let organization = app.organization().await;
    let (admin, client) = (app.admin(), team.client.clone());
    for (client, path, body) in [
        (
            &admin,
            "/api/teams/create".into(),
            json!({"organization_id": organization, "credits_allocated": 5}),
        ),
        (&admin, format!("/api/teams/{}/keys/create", team.id), json!({"alias": "ci"})),
        (&client, format!("/api/jobs/{job}/llm-call"), prompt("[[first_ms=300]] hello")),
        (&client, format!("/api/jobs/{job}/llm-call-stream"), prompt("[[first_ms=300]] hello")),
    ] {
        let answers = join_all((0..8).map(|_| post(client, &path, &path, &body))).await;
        let (done, waiting): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 200);
        assert_eq!(done.iter().filter(|answer| !is_replayed(answer)).count(), 1, "{path}");
        assert!(done.iter().all(|answer| answer.text == done[0].text), "{path}");
        for answer in waiting {
            assert!(answer.header("retry-after").is_some(), "{path}: {}", answer.text);
            assert_eq!(
                (answer.status.as_u16(), &answer.body["code"]),
                (409, &json!("idempotency_in_progress")),
                "{path}"
            );
        }
        let later = post(client, &path, &path, &body).await;
        assert!(is_replayed(&later), "{path}");
        assert_eq!(later.text, done[0].text, "{path}");
    }
    assert_eq!(app.admin().get("/api/teams").await.ok()["total"], 2);
    assert_eq!((stand_in.keys_of(&team.id).len(), completions(stand_in)), (2, 2));
    team.complete(&job, "completed").await.ok();
    app.check_invariants().await;
}
