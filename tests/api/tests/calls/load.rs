//! Many calls at once.

use crate::fixtures::{app_with_connections, calls_that_are, events, prompt, stream};
use api_tests::{Team, TestApp, eventually};
use futures::future::join_all;
use serde_json::json;
use std::time::Duration;

/// A team with one credit, whose job may have any number of open calls.
async fn busy_team(app: &TestApp) -> Team {
    app.team_with(json!({"credits_allocated": 1, "limits": {"open_calls_per_job": 0}})).await
}

#[tokio::test]
async fn fifty_calls_on_a_slow_model_all_settle_and_hold_up_nobody_else() {
    let app = app_with_connections(16).await;
    let (team, other) = (busy_team(&app).await, app.team(1).await);
    let (job, others_job) = (team.job().await, other.job().await);
    let slow = {
        let (team, job) = (team.clone(), job.clone());
        tokio::spawn(
            async move { join_all((0..50).map(|_| team.call(&job, "[[first_ms=6000]] hello"))).await },
        )
    };
    eventually("fifty open calls", async || (calls_that_are(&app, "open").await == 50).then_some(())).await;

    other.call(&others_job, "hello").await.ok();
    assert_eq!(calls_that_are(&app, "open").await, 50, "the other team was answered while all fifty wait");

    for answer in slow.await.expect("the calls") {
        assert_eq!(answer.ok()["response"]["content"], "You said: hello");
    }
    let read = team.read(&job).await;
    assert_eq!((&read["successful_calls"], &read["total_calls"]), (&json!(50), &json!(50)));
    let tokens: i64 =
        read["calls"].as_array().expect("calls").iter().filter_map(|call| call["tokens"].as_i64()).sum();
    assert_eq!(read["total_tokens"], json!(tokens));
    assert_eq!(team.complete(&job, "completed").await.ok()["costs"]["credit_applied"], json!(true));
    app.check_invariants().await;
}

#[tokio::test]
async fn forty_streams_at_once_in_one_job_do_not_mix() {
    let app = app_with_connections(16).await;
    let team = busy_team(&app).await;
    let job = team.job().await;
    let words: Vec<String> = (0..40).map(|index| format!("word-{index} of {index}")).collect();
    let streams = words.iter().map(async |word| {
        let (events, done) =
            events(stream(&team, &job, prompt(&format!("[[delay_ms=50]]{word}"))).await).await;
        assert!(done, "{word}");
        let text: String = events.iter().filter_map(|event| event["content"].as_str()).collect();
        assert_eq!(text, format!("You said: {word}"));
        events.last().expect("a summary")["call_id"].as_str().expect("an id").to_owned()
    });
    let mut ids = join_all(streams).await;
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 40);
    assert_eq!(team.read(&job).await["successful_calls"], json!(40));
    app.check_invariants().await;
}

#[tokio::test]
async fn a_job_completed_among_its_calls_counts_each_of_them_once() {
    let app = TestApp::start().await;
    let team = busy_team(&app).await;
    let job = team.job().await;
    let call = async |index: u32| team.call(&job, &format!("[[first_ms={}]] x", 50 * index)).await;
    let calls = join_all((0..20).map(call));
    let complete = async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        team.complete(&job, "completed").await.ok()
    };
    let (answers, completed) = tokio::join!(calls, complete);
    // Opened before the job's end, a call is answered even after it; opened later, it is refused.
    let opened = answers.iter().filter(|answer| answer.status == 200).count() as i64;
    assert!(answers.iter().all(|answer| [200, 409].contains(&answer.status.as_u16())));
    let costs = &completed["costs"];
    assert_eq!((&costs["total_calls"], &costs["failed_calls"]), (&json!(opened), &json!(0)));
    let read = team.read(&job).await;
    assert_eq!(read["total_calls"], json!(opened));
    assert_eq!(read["successful_calls"], costs["successful_calls"]);
    assert_eq!(calls_that_are(&app, "open").await, 0);
    let settled = "SELECT count(*) FROM calls WHERE settled_at IS NULL OR total_tokens = 0";
    let unsettled: i64 = app.database.client.query_one(settled, &[]).await.expect("a count").get(0);
    assert_eq!(unsettled, 0, "the late ones have their tokens too");
    app.check_invariants().await;
}
