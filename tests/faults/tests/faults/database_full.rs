//! The disk of PostgreSQL gets full: tables can't grow, then the log can't, which ends the server.

use crate::asking::{ask, assert_unavailable, create_job, post, skipped};
use api_tests::{PATIENCE, Team, eventually};
use faults::{Application, Disk, Postgres, Setup};
use serde_json::json;
use std::time::Instant;
use uuid::Uuid;

async fn app_on_a_small_disk() -> Option<Application> {
    match Postgres::start_on(Disk::Small(160 << 20), &["max_wal_size=48MB"]).await {
        Ok(postgres) => {
            Some(Application::start_with(Setup { postgres: Some(postgres), ..Setup::default() }).await)
        }
        Err(error) => {
            skipped(&format!("a full disk, as a small one can't be made here: {error:#}"));
            None
        }
    }
}

/// Opens a job that takes some space, and says whether that worked.
async fn open_a_large_job(team: &Team) -> bool {
    // What is stored is compressed, so it must not be all the same.
    let noise: String = (0..400).map(|_| Uuid::new_v4().simple().to_string()).collect();
    let body = json!({"team_id": team.id, "job_type": "test", "metadata": {"noise": noise}});
    let answer = ask(post(&team.client, "/api/jobs/create", &body, None)).await.expect("an answer");
    if answer.status != 200 {
        assert_unavailable(&answer, "a full disk");
    }
    answer.status == 200
}

#[tokio::test]
async fn on_a_full_disk_nothing_is_half_done_and_it_goes_on_when_there_is_space_again() {
    let Some(app) = app_on_a_small_disk().await else { return };
    let postgres = app.postgres.as_ref().expect("its own");
    let team = app.team(1_000_000).await;
    assert!(open_a_large_job(&team).await);
    let mut opened = 1;

    postgres.fill_disk().await.expect("filled");
    // What has space already is used up first.
    let since = Instant::now();
    let mut refused = 0;
    while refused < 5 {
        assert!(since.elapsed() < PATIENCE, "{opened} jobs, and still space");
        match open_a_large_job(&team).await {
            true => opened += 1,
            false => refused += 1,
        }
    }
    // A server that has no space for its log ends all its sessions, and then perhaps itself.
    let client = app.database.connect().await;
    for statement in ["SELECT pg_switch_wal()", "CREATE TABLE one_more ()"] {
        let _ = client.batch_execute(statement).await;
    }
    let key = Uuid::new_v4().to_string();
    let answer = ask(create_job(&team, Some(&key))).await.expect("an answer");
    if answer.status != 200 {
        assert_unavailable(&answer, "no space for the log");
    }
    assert!(postgres.log().await.contains("No space left on device"), "the disk was not full");

    postgres.free_disk().await.expect("freed");
    eventually("a server", async || {
        if !postgres.runs().await {
            postgres.restart().await.ok()?;
        }
        ask(team.client.request(reqwest::Method::GET, "/health")).await.filter(|health| health.status == 200)
    })
    .await;
    // Whether the last one was opened before the server ended, only its repeat can tell.
    ask(create_job(&team, Some(&key))).await.expect("an answer").ok();
    opened += 1;
    assert_eq!(app.number("SELECT count(*) FROM jobs").await, opened);
    assert_eq!(team.balance().await["credits_reserved"], opened);
    assert!(open_a_large_job(&team).await);
    app.recovers().await;
}
