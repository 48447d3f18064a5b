//! A team is created here and in LiteLLM, or in neither, whatever fails on the way.

use crate::{
    fixtures::{sql, unique},
    litellm_teams::known,
};
use api_tests::{Answer, Team, TestApp};
use futures::future::join_all;
use serde_json::{Value, json};
use std::time::Duration;

async fn new_team(app: &TestApp) -> (String, Value) {
    let (organization, group) = (app.organization().await, app.model_group(&["gpt-4o-mini"]).await);
    let id = unique("team");
    (
        id.clone(),
        json!({"organization_id": organization, "team_id": id, "model_groups": [group], "credits_allocated": 5}),
    )
}

/// Fails the test unless the team exists once in both places, and works.
async fn assert_works(app: &TestApp, created: Answer) {
    let created = created.ok();
    let id = created["team_id"].as_str().expect("an id").to_owned();
    let key = created["virtual_key"].as_str().expect("a key").to_owned();
    assert_eq!(
        known(app.stand_in().expect("the stand-in"), &id),
        (vec!["gpt-4o-mini".into()], Some(0.5), false)
    );
    let team = Team { id, client: app.bearer(&key), key };
    let job = team.job().await;
    team.call(&job, "hello").await.ok();
    assert_eq!(team.balance().await["credits_allocated"], 5);
    team.complete(&job, "completed").await.ok();
    app.check_invariants().await;
}

#[tokio::test]
async fn when_litellm_fails_half_way_nothing_is_left_and_a_repeat_works() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    for path in ["/team/new", "/key/generate"] {
        for status in [500, 400] {
            let (id, body) = new_team(&app).await;
            stand_in.fail_next(path, status, 1);
            let answer = app.admin().post("/api/teams/create", body.clone()).await;
            assert!(answer.status.is_server_error(), "{path} {status}: {}", answer.text);
            if status == 500 {
                assert_eq!((answer.status.as_u16(), &answer.body["code"]), (503, &json!("unavailable")));
            }
            assert_eq!((stand_in.team(&id), stand_in.keys_of(&id)), (None, vec![]), "{path} {status}");
            let shown = app.admin().get(&format!("/api/teams/{id}")).await;
            shown.refused(404, "not_found", &format!("Team '{id}' not found"));
            let rows = app
                .database
                .client
                .query("SELECT FROM teams WHERE team_id = $1", &[&id])
                .await
                .expect("teams");
            assert_eq!(rows.len(), 0, "{path} {status}");
            assert_works(&app, app.admin().post("/api/teams/create", body).await).await;
        }
    }
}

#[tokio::test]
async fn what_could_not_be_cleared_is_cleared_by_a_repeat() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    for clearing in ["/team/delete", "/team/info"] {
        let (id, body) = new_team(&app).await;
        stand_in.fail_next("/key/generate", 500, 1);
        stand_in.fail_next(clearing, 500, 1);
        let answer = app.admin().post("/api/teams/create", body.clone()).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.body["code"]),
            (503, &json!("unavailable")),
            "{}",
            answer.text
        );
        assert!(stand_in.team(&id).is_some(), "else there is nothing to clear");
        app.admin().get(&format!("/api/teams/{id}")).await.refused(
            404,
            "not_found",
            &format!("Team '{id}' not found"),
        );
        let list = app.admin().get("/api/teams").await;
        assert!(!list.text.contains(&id), "a team that is half made is not listed");
        assert_works(&app, app.admin().post("/api/teams/create", body).await).await;
    }
}

#[tokio::test]
async fn while_litellm_is_down_no_team_is_created_and_later_it_is() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let (id, body) = new_team(&app).await;
    stand_in.set_down(true);
    for _ in 0..2 {
        let answer = app.admin().post("/api/teams/create", body.clone()).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.body["code"]),
            (503, &json!("unavailable")),
            "{}",
            answer.text
        );
        assert!(answer.header("retry-after").is_some());
    }
    stand_in.set_down(false);
    assert_eq!(stand_in.team(&id), None);
    assert_works(&app, app.admin().post("/api/teams/create", body).await).await;
}

#[tokio::test]
async fn a_request_that_died_half_way_is_taken_over_when_its_time_is_over() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let (id, body) = new_team(&app).await;
    stand_in.fail_next("/key/generate", 500, 1);
    stand_in.fail_next("/team/delete", 500, 1);
    app.admin().post("/api/teams/create", body.clone()).await;
    sql(&app, "UPDATE teams SET creation_lease = now() + interval '1 minute'").await;
    let answer = app.admin().post("/api/teams/create", body.clone()).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.body["code"]),
        (409, &json!("in_progress")),
        "{}",
        answer.text
    );
    assert!(stand_in.team(&id).is_some());
    sql(&app, "UPDATE teams SET creation_lease = now() - interval '1 second'").await;
    assert_works(&app, app.admin().post("/api/teams/create", body).await).await;
}

#[tokio::test]
async fn a_team_that_somebody_else_made_in_litellm_is_refused_and_not_touched() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let (id, body) = new_team(&app).await;
    let theirs =
        json!({"team_id": id, "models": ["gpt-4"], "max_budget": 7, "metadata": {"owner": "somebody else"}});
    let admin = |path: &str| {
        reqwest::Client::new().post(format!("{}{path}", stand_in.url())).bearer_auth(stand_in.master_key())
    };
    Answer::of(admin("/team/new").json(&theirs)).await.ok();
    Answer::of(admin("/key/generate").json(&json!({"team_id": id}))).await.ok();
    let before = (stand_in.team(&id), stand_in.keys_of(&id));
    for _ in 0..2 {
        let answer = app.admin().post("/api/teams/create", body.clone()).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.body["code"]),
            (409, &json!("already_exists")),
            "{}",
            answer.text
        );
        assert!(answer.body["detail"].as_str().is_some_and(|detail| detail.contains(&id)), "{}", answer.text);
        assert_eq!((stand_in.team(&id), stand_in.keys_of(&id)), before);
    }
    app.admin().get(&format!("/api/teams/{id}")).await.refused(
        404,
        "not_found",
        &format!("Team '{id}' not found"),
    );
}

#[tokio::test]
async fn of_identical_requests_at_once_one_creates_the_team() {
    let app = TestApp::start().await;
    if app.stand_in().is_none() {
        return;
    }
    for _ in 0..5 {
        let (_, body) = new_team(&app).await;
        let answers = join_all((0..4).map(|_| {
            let (admin, body) = (app.admin(), body.clone());
            async move { admin.post("/api/teams/create", body).await }
        }))
        .await;
        let (mut made, refused): (Vec<_>, Vec<_>) =
            answers.into_iter().partition(|answer| answer.status == 200);
        assert_eq!((made.len(), refused.len()), (1, 3));
        for answer in refused {
            assert_eq!(answer.status, 409, "{}", answer.text);
        }
        assert_works(&app, made.remove(0)).await;
    }
}

#[tokio::test]
async fn a_team_that_litellm_has_and_that_was_not_made_visible_is_finished_by_a_repeat() {
    let app = TestApp::start().await;
    if app.stand_in().is_none() {
        return;
    }
    let (id, body) = new_team(&app).await;
    sql(&app, "ALTER FUNCTION activate_team RENAME TO lost").await;
    let answer = app.admin().post("/api/teams/create", body.clone()).await;
    assert_eq!(answer.status, 500, "{}", answer.text);
    sql(&app, "ALTER FUNCTION lost RENAME TO activate_team").await;
    app.admin().get(&format!("/api/teams/{id}")).await.refused(
        404,
        "not_found",
        &format!("Team '{id}' not found"),
    );
    sql(&app, "UPDATE teams SET creation_lease = now() - interval '1 second'").await;
    assert_works(&app, app.admin().post("/api/teams/create", body).await).await;
}

#[tokio::test]
async fn models_that_change_while_a_team_is_created_reach_its_key() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let (group, shared) = (app.model_group(&["gpt-4"]).await, app.model_group(&["gpt-4-turbo"]).await);
    let access = json!({"group_name": "All", "model_groups": []});
    app.admin().post("/api/model-access-groups/create", access).await.ok();
    let id = unique("team");
    let body = json!({
        "organization_id": app.organization().await, "team_id": id, "model_groups": [group], "access_groups": ["All"],
        "credits_allocated": 5,
    });
    // With this the request gets as far as LiteLLM, and its last statement waits before it begins.
    let other = app.database.connect().await;
    let parameters =
        "p_attempt uuid, p_team_id text, p_version bigint, p_litellm_alias text, p_key_hash bytea,
        p_hint text, p_credits bigint";
    let held_back = format!(
        "ALTER FUNCTION activate_team RENAME TO activate_now;
         CREATE FUNCTION activate_team({parameters}) RETURNS json LANGUAGE plpgsql SECURITY DEFINER AS $$
         BEGIN
             PERFORM pg_advisory_xact_lock(1);
             RETURN activate_now($1, $2, $3, $4, $5, $6, $7);
         END $$;
         SELECT pg_advisory_lock(1)"
    );
    other.batch_execute(&held_back).await.expect(&held_back);
    let change = async {
        tokio::time::sleep(Duration::from_millis(1000)).await;
        assert_eq!(stand_in.keys_of(&id).len(), 1, "LiteLLM has made the key");
        let models = json!([{"model_name": "gpt-4o", "priority": 0}]);
        app.admin().put(&format!("/api/model-groups/{group}/models"), models).await.ok();
        app.admin().put("/api/model-access-groups/All/model-groups", json!([shared])).await.ok();
        other.batch_execute("SELECT pg_advisory_unlock(1)").await.expect("the end of the lock");
    };
    let admin = app.admin();
    let (created, ()) = futures::join!(admin.post("/api/teams/create", body), change);
    let created = created.ok();
    let key = created["virtual_key"].as_str().expect("a key").to_owned();
    assert_eq!(created["allowed_models"], json!(["gpt-4o", "gpt-4-turbo"]));
    let team = Team { id, client: app.bearer(&key), key };
    let job = team.job().await;
    team.call(&job, "hello").await.ok();
    assert_eq!(known(stand_in, &team.id).0, ["gpt-4o", "gpt-4-turbo"]);
    app.check_invariants().await;
}
