//! A host is killed in the middle of its work and started again.

use crate::asking::{ask, call, complete, create_job, let_deadlines_pass, messages};
use api_tests::{Team, eventually};
use faults::{Application, Setup};
use futures::future::join_all;
use reqwest::RequestBuilder;
use serde_json::json;
use std::time::Duration;
use uuid::Uuid;

const OPEN: &str = "SELECT count(*) FROM calls WHERE status = 'open'";

async fn kill_and_restart(app: &Application) {
    app.hosts[0].kill().await;
    app.hosts[0].restart().await.expect("started again");
}

async fn calls_under_way(app: &Application, number: i64) {
    eventually("calls under way", async || (app.number(OPEN).await == number).then_some(())).await;
}

async fn job_for(team: &Team, seconds: u32) -> String {
    let body = json!({"team_id": team.id, "job_type": "test", "expires_in_seconds": seconds});
    let job = team.client.post("/api/jobs/create", body).await.ok();
    job["job_id"].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn calls_and_streams_of_a_killed_host_end_by_their_deadline_and_no_credit_is_lost() {
    let app = Application::start().await;
    let team = app.team(4).await;
    let (buffered, streamed, pending, short) =
        (team.job().await, team.job().await, team.job().await, job_for(&team, 4).await);
    let slow = |job: &str| tokio::spawn(ask(call(&team, job, "[[first_ms=5000]] hello", None)));
    let under_way = [slow(&buffered), slow(&short)];
    let long = messages("[[chunks=100]] [[delay_ms=100]] hello");
    let mut stream = team.client.stream(&format!("/api/jobs/{streamed}/llm-call-stream"), long).await;
    stream.next_data().await.expect("an event");
    calls_under_way(&app, 3).await;

    kill_and_restart(&app).await;

    for call in under_way {
        assert!(call.await.expect("the call").is_none(), "the connection ended without an answer");
    }
    assert!(!stream.rest().await.iter().any(|event| event.contains("[DONE]")));
    assert_eq!(app.number(OPEN).await, 3, "nobody is left to settle them");
    // One job's own deadline passes; the others' calls get to theirs.
    eventually("the short job's expiry", async || {
        (team.read(&short).await["status"] == "expired").then_some(())
    })
    .await;
    assert_eq!(team.balance().await["credits_reserved"], 3, "its hold is released");
    let_deadlines_pass(&app).await;
    app.admin().post("/api/upkeep", json!({})).await.ok();
    assert_eq!(app.number(OPEN).await, 0);
    let abandoned = "SELECT count(*) FROM calls WHERE status IN ('abandoned', 'cancelled')";
    assert_eq!(app.number(abandoned).await, 3);
    // Nobody is to blame, least of all the model: such a call has not failed, so the jobs can be completed.
    for job in [&buffered, &streamed, &pending] {
        let costs = team.complete(job, "completed").await.ok()["costs"].clone();
        assert_eq!((&costs["failed_calls"], &costs["credit_applied"]), (&json!(0), &json!(true)));
    }
    let balance = team.balance().await;
    assert_eq!((&balance["credits_used"], &balance["credits_reserved"]), (&json!(3), &json!(0)), "{balance}");
    app.recovers().await;
}

/// Sends requests, kills the host a moment later, and sends each again under its `Idempotency-Key`: together they have
/// taken effect once.
async fn killed_among(
    app: &Application,
    moment: Duration,
    effects: &str,
    requests: &[(String, RequestBuilder)],
) {
    let sent = |request: &RequestBuilder| ask(request.try_clone().expect("a request without a stream"));
    let before = app.number(effects).await;
    let all = join_all(requests.iter().map(|(_, request)| sent(request)));
    let kill = async {
        tokio::time::sleep(moment).await;
        app.hosts[0].kill().await;
    };
    let (first, ()) = tokio::join!(all, kill);
    app.hosts[0].restart().await.expect("started again");
    for ((what, request), first) in requests.iter().zip(first) {
        let again = sent(request).await.expect("an answer");
        assert_eq!(again.status, 200, "{what}: {}", again.text);
        if let Some(first) = first {
            assert_eq!(first.ok(), again.clone().ok());
            assert_eq!(again.header("idempotent-replayed"), Some("true"));
        }
    }
    let number = i64::try_from(requests.len()).expect("a few");
    assert_eq!(app.number(effects).await - before, number, "{moment:?}");
}

#[tokio::test]
async fn a_request_that_was_under_way_takes_effect_once_when_it_is_sent_again() {
    let app = Application::start().await;
    let team = app.team(1000).await;
    let keys = || (0..20).map(|_| Uuid::new_v4().to_string());
    for moment in [5, 15, 30].map(Duration::from_millis) {
        let opening = keys().map(|key| ("create".to_owned(), create_job(&team, Some(&key))));
        killed_among(&app, moment, "SELECT count(*) FROM jobs", &opening.collect::<Vec<_>>()).await;
        let jobs = join_all((0..20).map(|_| team.job())).await;
        let ending = jobs.into_iter().zip(keys());
        let ending = ending.map(|(job, key)| (format!("complete {job}"), complete(&team, &job, Some(&key))));
        let charged = "SELECT count(*) FROM credit_transactions WHERE transaction_type = 'deduction'";
        killed_among(&app, moment, charged, &ending.collect::<Vec<_>>()).await;
    }
    let open = app.number("SELECT count(*) FROM jobs WHERE status = 'pending'").await;
    let balance = team.balance().await;
    assert_eq!((&balance["credits_reserved"], &balance["credits_used"]), (&json!(open), &json!(60)));
    app.recovers().await;
}

#[tokio::test]
async fn a_call_that_was_under_way_is_made_again_under_its_key_once_its_time_is_over() {
    let app = Application::start().await;
    let team = app.team(1).await;
    let (job, key) = (team.job().await, Uuid::new_v4().to_string());
    let request = || call(&team, &job, "[[first_ms=1500]] hello", Some(&key));
    let first = tokio::spawn(ask(request()));
    calls_under_way(&app, 1).await;
    kill_and_restart(&app).await;
    assert!(first.await.expect("the call").is_none());

    let twin = ask(request()).await.expect("an answer");
    assert_eq!((twin.status.as_u16(), &twin.body["code"]), (409, &json!("idempotency_in_progress")));
    assert!(twin.header("retry-after").is_some());
    let_deadlines_pass(&app).await;
    let again = ask(request()).await.expect("an answer").ok();
    assert_eq!(ask(request()).await.expect("an answer").ok(), again);
    let costs = ask(complete(&team, &job, None)).await.expect("an answer").ok()["costs"].clone();
    assert_eq!((&costs["successful_calls"], &costs["credit_applied"]), (&json!(1), &json!(true)), "{costs}");
    app.recovers().await;
}

#[tokio::test]
async fn a_host_that_is_asked_to_end_lets_its_requests_end_and_settles_them() {
    let app = Application::start_with(Setup { hosts: 2, ..Setup::default() }).await;
    let team = app.team(1).await;
    let job = team.job().await;
    let call = tokio::spawn(ask(call(&team, &job, "[[first_ms=1500]] hello", None)));
    calls_under_way(&app, 1).await;
    app.hosts[0].stop().await;
    call.await.expect("the call").expect("an answer").ok();
    assert_eq!(app.number(OPEN).await, 0);
    let elsewhere = app.at(1, &team);
    assert_eq!(elsewhere.read(&job).await["successful_calls"], 1);
    assert_eq!(elsewhere.complete(&job, "completed").await.ok()["costs"]["credit_applied"], true);
    app.hosts[0].restart().await.expect("started again");
    app.recovers().await;
}
