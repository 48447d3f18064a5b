//! What a key that is no longer good can still do: here nothing at once; where a cache has not heard of it, read for a while.

use crate::fixtures::{sql, stored};
use api_tests::{Answer, Options, Team, TestApp, eventually};
use futures::future::join_all;
use serde_json::json;

async fn app_caching_for(seconds: u32) -> TestApp {
    let variables = vec![("auth_cache_seconds", seconds.to_string())];
    TestApp::start_with(Options { variables, ..Options::default() }).await
}

async fn put(app: &TestApp, team: &Team, verb: &str) {
    app.admin().put(&format!("/api/teams/{}/{verb}", team.id), json!({})).await.ok();
}

async fn show(team: &Team) -> Answer {
    team.client.get(&format!("/api/teams/{}", team.id)).await
}

/// Everything that a key can change.
async fn all_changes(team: &Team, job: &str) -> Vec<Answer> {
    let message = json!({"messages": [{"role": "user", "content": "hello"}]});
    vec![
        team.client.post("/api/jobs/create", json!({"team_id": team.id, "job_type": "test"})).await,
        team.call(job, "hello").await,
        team.client.post(&format!("/api/jobs/{job}/llm-call-stream"), message).await,
        team.complete(job, "completed").await,
    ]
}

#[tokio::test]
async fn suspending_and_resuming_hold_at_once_whatever_is_cached() {
    let app = app_caching_for(60).await;
    let team = app.team(5).await;
    let job = team.job().await;
    for _ in 0..3 {
        show(&team).await.ok();
        put(&app, &team, "suspend").await;
        let detail = format!("Team '{}' is suspended", team.id);
        show(&team).await.refused(403, "team_suspended", &detail);
        for answer in all_changes(&team, &job).await {
            answer.refused(403, "team_suspended", &detail);
        }
        put(&app, &team, "resume").await;
        show(&team).await.ok();
    }
    team.complete(&job, "completed").await.ok();
    app.check_invariants().await;
}

#[tokio::test]
async fn reads_that_meet_a_suspension_leave_nothing_behind_that_would_let_later_ones_pass() {
    let app = app_caching_for(60).await;
    let team = app.team(5).await;
    for _ in 0..30 {
        put(&app, &team, "resume").await; // which forgets the key, so that the reads look it up
        futures::join!(put(&app, &team, "suspend"), join_all((0..8).map(|_| show(&team))));
        show(&team).await.refused(403, "team_suspended", &format!("Team '{}' is suspended", team.id));
    }
}

#[tokio::test]
async fn a_revoked_key_that_is_still_cached_changes_nothing() {
    let app = app_caching_for(60).await;
    let team = app.team(5).await;
    let job = team.job().await;
    sql(&app, "UPDATE virtual_keys SET revoked_at = now()").await;
    let before = stored(&app).await;

    show(&team).await.ok(); // else the cache is not what this test is about
    for answer in all_changes(&team, &job).await {
        answer.refused(401, "unauthenticated", "Invalid API key");
    }

    assert_eq!(stored(&app).await, before);
    app.check_invariants().await;
}

#[tokio::test]
async fn a_suspended_team_that_is_still_cached_as_active_changes_nothing() {
    let app = app_caching_for(60).await;
    let team = app.team(5).await;
    let job = team.job().await;
    sql(&app, "UPDATE teams SET status = 'suspended'").await;
    let before = stored(&app).await;

    show(&team).await.ok();
    for answer in all_changes(&team, &job).await {
        answer.refused(403, "team_suspended", &format!("Team '{}' is suspended", team.id));
    }

    assert_eq!(stored(&app).await, before);
    app.check_invariants().await;
}

#[tokio::test]
async fn a_revoked_key_stops_reading_when_the_caches_time_is_over() {
    let app = app_caching_for(1).await;
    let team = app.team(5).await;
    show(&team).await.ok();
    sql(&app, "UPDATE virtual_keys SET revoked_at = now()").await;
    let answer =
        eventually("the cache's end", async || Some(show(&team).await).filter(|answer| answer.status != 200))
            .await;
    answer.refused(401, "unauthenticated", "Invalid API key");
}

#[tokio::test]
async fn without_a_cache_a_revoked_key_stops_at_once() {
    let app = app_caching_for(0).await;
    let team = app.team(5).await;
    show(&team).await.ok();
    sql(&app, "UPDATE virtual_keys SET revoked_at = now()").await;
    show(&team).await.refused(401, "unauthenticated", "Invalid API key");
}
