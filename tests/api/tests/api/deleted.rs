//! Deleted teams: out of sight with their keys, here and in LiteLLM, while what they did stays.

use crate::{fixtures::sql, litellm_teams::directly, teams::show};
use api_tests::{Answer, Team, TestApp};
use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

async fn delete(app: &TestApp, team: &Team) -> Answer {
    app.admin().delete(&format!("/api/teams/{}", team.id)).await
}

fn gone(team: &Team) -> String {
    format!("Team '{}' not found", team.id)
}

async fn count(app: &TestApp, statement: &str) -> i64 {
    app.database.client.query_one(statement, &[]).await.expect("a count").get(0)
}

/// `DELETE /api/teams/{team_id}`
#[tokio::test]
async fn a_deleted_team_is_gone_with_all_its_keys_and_what_it_did_stays() {
    let app = TestApp::start().await;
    let organization = app.organization().await;
    let team = app.team_with(json!({"organization_id": organization, "credits_allocated": 5})).await;
    let made = app.admin().post(&format!("/api/teams/{}/keys/create", team.id), json!({})).await.ok();
    let second = made["virtual_key"].as_str().expect("a key").to_owned();
    let second = Team { id: team.id.clone(), client: app.bearer(&second), key: second };
    let (done, called, open) = (team.job().await, second.job().await, team.job().await);
    team.call(&done, "hello").await.ok();
    team.complete(&done, "completed").await.ok();
    team.call(&called, "hello").await.ok();

    assert_eq!(delete(&app, &team).await.ok(), json!({"team_id": team.id, "deleted": true}));

    for key in [&team, &second] {
        key.client.get("/api/model-groups").await.refused(401, "unauthenticated", "Invalid API key");
        let body = json!({"team_id": team.id, "job_type": "test"});
        key.client.post("/api/jobs/create", body).await.refused(401, "unauthenticated", "Invalid API key");
        key.call(&called, "hello").await.refused(401, "unauthenticated", "Invalid API key");
        if app.stand_in().is_some() {
            assert_eq!(directly(&app, key, "gpt-4o-mini").await, 401);
        }
    }
    if let Some(stand_in) = app.stand_in() {
        assert_eq!((stand_in.team(&team.id), stand_in.keys_of(&team.id)), (None, vec![]));
    }
    for (job, status) in [(&done, "completed"), (&called, "cancelled"), (&open, "cancelled")] {
        let job = app.admin().get(&format!("/api/jobs/{job}")).await.ok();
        assert_eq!(job["status"], status);
        assert_eq!(job["error_message"].is_null(), status == "completed", "{job}");
    }
    assert_eq!(count(&app, "SELECT held FROM credit_accounts").await, 0);
    assert_eq!(count(&app, "SELECT count(*) FROM credit_transactions").await, 2);
    let usage = app.admin().get(&format!("/api/organizations/{organization}/usage")).await.ok();
    assert_eq!(usage["summary"]["total_jobs"], 3, "{usage}");
    app.check_invariants().await;
}

#[tokio::test]
async fn a_deleted_team_is_found_nowhere_and_its_id_stays_taken() {
    let app = TestApp::start().await;
    let (team, kept) = (app.team(5).await, app.team(5).await);
    let organization = show(&app, &team).await["organization_id"].clone();
    let key = show(&app, &team).await["key"]["key_id"].clone();
    let group = app.model_group(&["gpt-4"]).await;
    delete(&app, &team).await.ok();

    let list = app.admin().get("/api/teams").await.ok();
    assert_eq!((&list["total"], &list["teams"][0]["team_id"]), (&json!(1), &json!(kept.id)));
    let of_organization = format!("/api/organizations/{}/teams", organization.as_str().expect("an id"));
    assert_eq!(app.admin().get(&of_organization).await.ok()["team_count"], 0);
    let (path, key) = (format!("/api/teams/{}", team.id), key.as_str().expect("an id"));
    let credits = format!("/api/credits/teams/{}", team.id);
    for (method, path, body) in [
        (Method::PUT, path.clone(), json!({"team_alias": "x"})),
        (Method::DELETE, path.clone(), Value::Null),
        (Method::PUT, format!("{path}/suspend"), json!({})),
        (Method::PUT, format!("{path}/resume"), json!({})),
        (Method::PUT, format!("{path}/model-groups"), json!([group])),
        (Method::PUT, format!("{path}/access-groups"), json!([])),
        (Method::GET, format!("{path}/keys"), Value::Null),
        (Method::POST, format!("{path}/keys/create"), json!({})),
        (Method::POST, format!("{path}/keys/rotate"), json!({})),
        (Method::DELETE, format!("{path}/keys/{key}"), Value::Null),
        (Method::GET, format!("/api/model-groups/{group}/resolve?team_id={}", team.id), Value::Null),
        (Method::POST, "/api/jobs/create".into(), json!({"team_id": team.id, "job_type": "test"})),
        (Method::POST, format!("{credits}/add"), json!({"amount": 1})),
        (Method::POST, format!("{credits}/adjust"), json!({"credits_amount": 1, "reason": "x"})),
        (Method::POST, format!("{credits}/check"), json!({})),
        (
            Method::POST,
            format!("{credits}/configure-auto-refill"),
            json!({"enabled": true, "refill_amount": 1, "refill_period": "daily"}),
        ),
    ] {
        let mut request = app.admin().request(method.clone(), &path);
        if !body.is_null() {
            request = request.body(body.to_string());
        }
        let answer = Answer::of(request).await;
        let named = format!("{method} {path}");
        assert_eq!((named.as_str(), answer.status.as_u16()), (named.as_str(), 404), "{}", answer.text);
        answer.refused(404, "not_found", &gone(&team));
    }
    let again = json!({"organization_id": organization, "team_id": team.id});
    let again = app.admin().post("/api/teams/create", again).await;
    again.refused(409, "already_exists", &format!("Team '{}' already exists", team.id));
    if let Some(stand_in) = app.stand_in() {
        assert_eq!(stand_in.team(&team.id), None);
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn the_admin_reads_a_deleted_team_as_before_and_its_keys_read_nothing() {
    let app = TestApp::start().await;
    let team = app.team(5).await;
    let job = team.job().await;
    team.call(&job, "hello").await.ok();
    team.complete(&job, "completed").await.ok();
    app.admin().put(&format!("/api/teams/{}/suspend", team.id), json!({})).await.ok();
    app.admin().put(&format!("/api/teams/{}/resume", team.id), json!({})).await.ok();
    let reads = [
        format!("/api/credits/teams/{}/balance", team.id),
        format!("/api/credits/teams/{}/transactions", team.id),
        format!("/api/credits/teams/{}/transactions?format=csv", team.id),
        format!("/api/teams/{}/usage", team.id),
        format!("/api/teams/{}/usage?format=csv", team.id),
        format!("/api/teams/{}/jobs", team.id),
        format!("/api/teams/{}/alerts", team.id),
        format!("/api/jobs/{job}"),
        format!("/api/jobs/{job}/costs"),
    ];
    let mut before = vec![];
    for path in &reads {
        before.push(app.admin().get(path).await);
    }
    delete(&app, &team).await.ok();
    for (path, before) in reads.iter().zip(before) {
        let after = app.admin().get(path).await;
        assert_eq!((after.status, &after.text), (before.status, &before.text), "{path}");
        assert_eq!(team.client.get(path).await.status, 401, "{path}");
    }
    let shown = show(&app, &team).await;
    assert_eq!((&shown["status"], &shown["credits"]["credits_used"]), (&json!("deleted"), &json!(1)));
    assert_eq!(team.client.get(&format!("/api/teams/{}", team.id)).await.status, 401);
}

#[tokio::test]
async fn a_team_with_more_jobs_than_one_statement_ends_is_deleted_with_all_of_them() {
    let app = TestApp::start().await;
    let team = app.team(1000).await;
    let jobs = format!(
        "INSERT INTO jobs (job_id, team_id, terms_id, job_type, metadata, expires_at)
         SELECT uuid_v7(), team_id, terms_id, 'test', '{{}}',
                now() + CASE WHEN i <= 450 THEN interval '1 day' ELSE interval '-1 day' END
         FROM teams, generate_series(1, 900) AS i WHERE team_id = '{0}';
         UPDATE credit_accounts SET held = 900 WHERE team_id = '{0}';
         INSERT INTO usage_days (team_id, day, job_type, opened_jobs)
         VALUES ('{0}', (now() AT TIME ZONE 'UTC')::date, 'test', 900);
         INSERT INTO job_totals (shard, created) VALUES (5000, 900)",
        team.id
    );
    app.database.client.batch_execute(&jobs).await.expect("many jobs");
    delete(&app, &team).await.ok();
    assert_eq!(count(&app, "SELECT count(*) FROM jobs WHERE status = 'cancelled'").await, 450);
    assert_eq!(count(&app, "SELECT count(*) FROM jobs WHERE status = 'expired'").await, 450);
    assert_eq!(show(&app, &team).await["credits"]["credits_reserved"], 0);
    app.check_invariants().await;
}

#[tokio::test]
async fn what_only_a_deleted_team_used_can_be_deleted() {
    let app = TestApp::start().await;
    let (own, shared) = (app.model_group(&["gpt-4"]).await, app.model_group(&["gpt-4o"]).await);
    let access = json!({"group_name": "All", "model_groups": [shared]});
    app.admin().post("/api/model-access-groups/create", access).await.ok();
    let organization = app.organization().await;
    let fields = json!({
        "organization_id": organization, "model_groups": [own], "access_groups": ["All"], "default_model_group": shared,
    });
    let team = app.team_with(fields).await;
    delete(&app, &team).await.ok();
    for path in [
        "/api/model-access-groups/All".into(),
        format!("/api/model-groups/{own}"),
        format!("/api/model-groups/{shared}"),
        format!("/api/organizations/{organization}"),
    ] {
        app.admin().delete(&path).await.ok();
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn a_deletion_that_litellm_does_not_hear_is_a_503_and_the_same_request_again_or_upkeep_finishes_it() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    for (fault, by_upkeep) in ["down", "/key/delete", "/team/info", "/team/delete"]
        .into_iter()
        .flat_map(|fault| [(fault, false), (fault, true)])
    {
        let team = app.team(5).await;
        let job = team.job().await;
        match fault {
            "down" => stand_in.set_down(true),
            path => stand_in.fail_next(path, 500, 1),
        }
        let answer = delete(&app, &team).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.body["code"]),
            (503, &json!("unavailable")),
            "{fault}: {}",
            answer.text
        );
        assert!(answer.header("retry-after").is_some());
        team.client.get("/api/model-groups").await.refused(401, "unauthenticated", "Invalid API key");
        assert_eq!(show(&app, &team).await["status"], "deleting");
        stand_in.set_down(false);
        assert!(stand_in.team(&team.id).is_some(), "else there is nothing to finish");

        if by_upkeep {
            let done = app.admin().post("/api/upkeep", json!({})).await.ok();
            assert_eq!(done["steps"]["deletions"], json!({"done": 1, "more": false, "error": null}));
        } else {
            delete(&app, &team).await.ok();
        }
        assert_eq!((stand_in.team(&team.id), stand_in.keys_of(&team.id)), (None, vec![]), "{fault}");
        assert_eq!(show(&app, &team).await["status"], "deleted");
        assert_eq!(app.admin().get(&format!("/api/jobs/{job}")).await.ok()["status"], "cancelled");
        delete(&app, &team).await.refused(404, "not_found", &gone(&team));
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn a_suspended_team_and_one_with_overdue_jobs_can_be_deleted_too() {
    let app = TestApp::start().await;
    let (suspended, overdue) = (app.team(5).await, app.team(5).await);
    suspended.job().await;
    app.admin().put(&format!("/api/teams/{}/suspend", suspended.id), json!({})).await.ok();
    let (late, open) = (overdue.job().await, overdue.job().await);
    sql(&app, &format!("UPDATE jobs SET expires_at = now() - interval '1 second' WHERE job_id = '{late}'"))
        .await;
    for team in [&suspended, &overdue] {
        delete(&app, team).await.ok();
    }
    for (job, status) in [(late, "expired"), (open, "cancelled")] {
        assert_eq!(app.admin().get(&format!("/api/jobs/{job}")).await.ok()["status"], status);
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn a_call_that_is_under_way_when_its_team_goes_is_still_written_down() {
    let app = TestApp::start().await;
    let team = app.team(5).await;
    let job = team.job().await;
    let (answer, ()) = futures::join!(team.call(&job, "[[first_ms=1500]] hello"), async {
        team.open_call(&job).await;
        delete(&app, &team).await.ok();
    });
    assert!(
        answer.status == 200 || answer.status.is_client_error() || answer.status == 502,
        "{}",
        answer.text
    );
    let shown = app.admin().get(&format!("/api/jobs/{job}")).await.ok();
    assert_eq!((&shown["status"], &shown["calls"][0]["status"]), (&json!("cancelled"), &json!("cancelled")));
    if answer.status == 200 {
        assert!(shown["calls"][0]["tokens"].as_i64() > Some(0), "{shown}");
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn whatever_happens_while_a_team_is_deleted_nothing_of_it_stays_open() {
    let app = TestApp::start().await;
    for _ in 0..4 {
        let team = app.team(50).await;
        let other_key =
            async { app.admin().post(&format!("/api/teams/{}/keys/create", team.id), json!({})).await };
        let work = (0..6).map(|_| {
            let team = team.clone();
            async move {
                let body = json!({"team_id": team.id, "job_type": "test"});
                let made = team.client.post("/api/jobs/create", body).await;
                let Some(job) = made.body["job_id"].as_str().map(str::to_owned) else { return made };
                let called = team.call(&job, "hello").await;
                if called.status != 200 { called } else { team.complete(&job, "completed").await }
            }
        });
        let deletion = async {
            tokio::time::sleep(std::time::Duration::from_millis(60)).await;
            delete(&app, &team).await
        };
        let (answers, deleted, made) = futures::join!(join_all(work), deletion, other_key);
        deleted.ok();
        for answer in answers {
            assert!(
                answer.status.as_u16() < 500 || answer.status == 502,
                "{} {}",
                answer.status,
                answer.text
            );
        }
        if let Some(key) = made.body["virtual_key"].as_str() {
            app.bearer(key).get("/api/model-groups").await.refused(401, "unauthenticated", "Invalid API key");
        }
        if let Some(stand_in) = app.stand_in() {
            assert_eq!((stand_in.team(&team.id), stand_in.keys_of(&team.id).len()), (None, 0));
        }
        let open = "SELECT count(*) FROM jobs WHERE status IN ('pending', 'in_progress')";
        assert_eq!(count(&app, open).await, 0);
        app.check_invariants().await;
    }
}
