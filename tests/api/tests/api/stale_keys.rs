//! What a key that is no longer good can still do: here nothing at once; where a cache has not heard of it, read for a
//! while.

use crate::{
    fixtures::{sql, stored},
    idempotency::{post, prompt},
};
use api_tests::{Answer, Options, Team, TestApp, eventually};
use futures::future::join_all;
use host::Settings;
use rusqlite::Connection;
use serde_json::{Value, json};
use std::{path::Path, time::SystemTime};

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

#[tokio::test]
async fn a_key_that_has_ended_hears_nothing_of_its_earlier_requests() {
    let app = app_caching_for(60).await;
    if app.stand_in().is_none() {
        return;
    }
    let team = app.team(5).await;
    let jobs = [team.job().await, team.job().await];
    let paths = jobs.each_ref().map(|job| format!("/api/jobs/{job}/llm-call"));
    post(&team.client, &paths[0], "kept", &prompt("hello")).await.ok();
    let slow = prompt("[[first_ms=1500]] hello");
    let repeats = async || {
        // What is kept, what is under way, and what was asked otherwise.
        vec![
            post(&team.client, &paths[0], "kept", &prompt("hello")).await,
            post(&team.client, &paths[1], "slow", &slow).await,
            post(&team.client, &paths[0], "kept", &prompt("other")).await,
        ]
    };
    let refusals = async {
        team.open_call(&jobs[1]).await;
        let known: Vec<u16> = repeats().await.iter().map(|answer| answer.status.as_u16()).collect();
        assert_eq!(known, [200, 409, 422]);
        sql(&app, "UPDATE teams SET status = 'suspended'").await;
        for answer in repeats().await {
            answer.refused(403, "team_suspended", &format!("Team '{}' is suspended", team.id));
        }
        sql(&app, "UPDATE teams SET status = 'active'").await;
        sql(&app, "UPDATE virtual_keys SET revoked_at = now()").await;
        for answer in repeats().await {
            answer.refused(401, "unauthenticated", "Invalid API key");
        }
    };
    let (first, ()) = futures::join!(post(&team.client, &paths[1], "slow", &slow), refusals);
    first.ok();
    app.check_invariants().await;
}

fn in_store<T>(folder: &Path, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> T {
    work(&Connection::open(folder.join("sqlite_key_value.db")).expect("the store")).expect("the store")
}

#[tokio::test]
async fn a_look_up_that_puts_its_entry_after_the_key_was_forgotten_misleads_no_other_request() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("a_late_entry");
    let app = TestApp::start_with(Options {
        variables: vec![("auth_cache_seconds", "60".to_owned())],
        settings: Settings { state_dir: Some(folder.clone()), ..Settings::default() },
        ..Options::default()
    })
    .await;
    let team = app.team(5).await;
    show(&team).await.ok();
    let (key, mut entry) = in_store(&folder, |store| {
        let entry = "SELECT key, value FROM spin_key_value WHERE key LIKE 'virtual-key:%' AND value LIKE ?1";
        store.query_row(entry, [format!("%{}%", team.id)], |row| {
            let (key, entry): (String, Vec<u8>) = (row.get(0)?, row.get(1)?);
            Ok((key, serde_json::from_slice::<Value>(&entry).expect("an entry")))
        })
    });
    put(&app, &team, "suspend").await;

    // Whoever had asked before the suspension writes this now, and is about to look whether the key was forgotten
    // meanwhile.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a time").as_secs();
    entry["since"] = json!(now);
    let put = "INSERT INTO spin_key_value (store, key, value) VALUES ('default', ?1, ?2)";
    in_store(&folder, |store| store.execute(put, (&key, entry.to_string().into_bytes())));
    show(&team).await.refused(403, "team_suspended", &format!("Team '{}' is suspended", team.id));
    std::fs::remove_dir_all(folder).expect("the store's folder");
}
