//! PostgreSQL is killed while clients are at work, and started again.

use crate::asking::{ask, assert_unavailable, call, complete, create_job, messages, post};
use crate::database_away::{app_with_a_server_of_its_own, postgres};
use api_tests::{Answer, Team, eventually};
use futures::future::join_all;
use reqwest::RequestBuilder;
use serde_json::json;
use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};
use tokio::time::sleep;
use uuid::Uuid;

/// Sends a request again, as its client would, until it gets through. Any answer but a success must say to come again.
async fn until_done(request: impl Fn() -> RequestBuilder) -> Answer {
    eventually("the database", async || {
        let answer = ask(request()).await.expect("the host is there");
        if answer.status != 200 {
            assert_unavailable(&answer, "while the database is away");
        }
        Some(answer).filter(|answer| answer.status == 200)
    })
    .await
}

/// Opens and completes jobs until it is told to stop; says how many.
async fn work(team: &Team, stop: &AtomicBool) -> i64 {
    let mut jobs = 0;
    while !stop.load(Ordering::Relaxed) {
        let (open, end) = (Uuid::new_v4().to_string(), Uuid::new_v4().to_string());
        let job = until_done(|| create_job(team, Some(&open))).await.ok();
        let job = job["job_id"].as_str().expect("an id").to_owned();
        // It may fail with the database; what it leaves behind ends with the job.
        let answer = ask(call(team, &job, "hello", None)).await.expect("the host is there");
        if answer.status != 200 {
            assert_unavailable(&answer, "a call");
        }
        let completed = until_done(|| complete(team, &job, Some(&end))).await.ok();
        assert_eq!(completed["costs"]["credit_applied"], true, "{completed}");
        jobs += 1;
    }
    jobs
}

#[tokio::test]
async fn a_server_that_is_killed_again_and_again_loses_and_doubles_nothing() {
    let app = app_with_a_server_of_its_own(&[]).await;
    let team = app.team(1_000_000).await;
    let stop = AtomicBool::new(false);
    let faults = async {
        for round in 0..3 {
            sleep(Duration::from_millis(700 + 130 * round)).await;
            postgres(&app).kill().await;
            sleep(Duration::from_millis(300)).await;
            postgres(&app).restart().await.expect("started again");
        }
        sleep(Duration::from_millis(500)).await;
        stop.store(true, Ordering::Relaxed);
    };
    let clients = join_all((0..8).map(|_| work(&team, &stop)));
    let (jobs, ()) = tokio::join!(clients, faults);
    let jobs: i64 = jobs.iter().sum();
    assert!(jobs > 0);
    let balance = team.balance().await;
    assert_eq!((&balance["credits_used"], &balance["credits_reserved"]), (&jobs.into(), &0.into()));
    assert_eq!(app.number("SELECT count(*) FROM jobs").await, jobs);
    app.recovers().await;
}

#[tokio::test]
async fn what_was_under_way_when_the_server_was_killed_is_settled_when_it_is_back() {
    let app = app_with_a_server_of_its_own(&[]).await;
    let team = app.team(3).await;
    let (buffered, streamed) = (team.job().await, team.job().await);
    let slow = messages("[[first_ms=1500]] hello");
    let call = post(&team.client, &format!("/api/jobs/{buffered}/llm-call"), &slow, None);
    let own = json!({"job_type": "own", "messages": slow["messages"]});
    let own = post(&team.client, "/api/jobs/create-and-call", &own, None);
    let calls = [tokio::spawn(ask(call)), tokio::spawn(ask(own))];
    let path = format!("/api/jobs/{streamed}/llm-call-stream");
    let body = messages("[[chunks=20]] [[delay_ms=100]] hello");
    let mut stream = team.client.stream(&path, body).await;
    stream.next_data().await.expect("an event");
    eventually("three open calls", async || {
        (app.number("SELECT count(*) FROM calls WHERE status = 'open'").await == 3).then_some(())
    })
    .await;

    postgres(&app).kill().await;

    // The model's answer is there; whoever gets it is not to wait for the database for long.
    for call in calls {
        call.await.expect("the call").expect("an answer").ok();
    }
    let events = stream.rest().await;
    assert_eq!(events.last().map(String::as_str), Some("data: [DONE]"), "{events:?}");
    postgres(&app).restart().await.expect("started again");
    eventually("all settled", async || {
        (app.number("SELECT count(*) FROM calls WHERE status = 'succeeded'").await == 3).then_some(())
    })
    .await;
    let charged =
        "SELECT count(*) FROM jobs WHERE job_type = 'own' AND status = 'completed' AND credit_applied";
    assert_eq!(app.number(charged).await, 1, "the job of the one call has ended with it");
    for job in [buffered, streamed] {
        let costs = team.complete(&job, "completed").await.ok()["costs"].clone();
        assert_eq!((&costs["successful_calls"], &costs["unpriced_calls"]), (&1.into(), &0.into()), "{costs}");
    }
    assert_eq!(team.balance().await["credits_remaining"], 0);
    app.recovers().await;
}
