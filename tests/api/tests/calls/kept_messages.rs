//! What is said in calls is kept where the deployment wants that, for so many days, and shown with the job.

use crate::fixtures::{call, events, prompt, stream};
use api_tests::{Options, Team, TestApp, eventually};
use serde_json::{Value, json};

async fn keeping() -> TestApp {
    let variables = vec![("store_messages_days", "1".to_owned())];
    TestApp::start_with(Options { variables, ..Options::default() }).await
}

/// The calls of a job, once all of them show what was said: that is written just after the answer.
async fn kept(team: &Team, job: &str) -> Vec<Value> {
    eventually("what was said", async || {
        let calls = team.read(job).await["calls"].as_array().expect("calls").clone();
        calls.iter().all(|call| call.get("messages").is_some()).then_some(calls)
    })
    .await
}

#[tokio::test]
async fn a_job_shows_what_was_asked_and_answered_in_its_calls() {
    let app = keeping().await;
    let (team, other) = (app.team(2).await, app.team(1).await);
    let job = team.job().await;
    let messages = json!([
        {"role": "system", "content": "Be brief. \u{e9}\u{1f600}"},
        {"role": "user", "content": [{"type": "text", "text": "hello"}]},
    ]);
    call(&team, &job, json!({"messages": messages})).await.ok();
    events(stream(&team, &job, prompt("to be streamed")).await).await;
    let v1 = team.client.request(reqwest::Method::POST, "/v1/chat/completions").header("x-job-id", &job);
    api_tests::Answer::of(v1.body(prompt("from an SDK").to_string())).await.ok();

    let calls = kept(&team, &job).await;

    assert_eq!(calls[0]["messages"], messages);
    assert_eq!(calls[1]["messages"], prompt("to be streamed")["messages"]);
    let answers = ["You said: hello", "You said: to be streamed", "You said: from an SDK"];
    for (call, answer) in calls.iter().zip(answers) {
        assert_eq!(call["response"]["role"], "assistant");
        assert_eq!(call["response"]["content"], answer);
    }
    assert!(
        !team.client.get(&format!("/api/jobs/{job}")).await.text.contains("gpt"),
        "nor does it name a model"
    );
    let admins = app.admin().get(&format!("/api/jobs/{job}")).await.ok();
    assert_eq!(admins["calls"][0]["messages"], messages);
    other.client.get(&format!("/api/jobs/{job}")).await.refused(404, "not_found", "Job not found");
    let list = team.client.get(&format!("/api/teams/{}/jobs", team.id)).await.text;
    assert!(!list.contains("You said"), "a list is no place for it");
    app.check_invariants().await;
}

#[tokio::test]
async fn of_a_call_that_failed_the_question_is_kept() {
    let app = keeping().await;
    let team = app.team(2).await;
    let job = team.job().await;
    call(&team, &job, prompt("[[status=500]] hello")).await;
    let calls = kept(&team, &job).await;
    assert_eq!(calls[0]["messages"][0]["content"], "[[status=500]] hello");
    assert_eq!(calls[0].get("response").filter(|response| !response.is_null()), None);
    app.check_invariants().await;
}

#[tokio::test]
async fn a_job_of_its_own_keeps_what_was_said_as_well() {
    let app = keeping().await;
    let team = app.team(2).await;
    let mut body = prompt("hello");
    body["job_type"] = json!("chat");
    let answer = team.client.post("/api/jobs/create-and-call", body.clone()).await.ok();
    let job = answer["job_id"].as_str().expect("an id");
    assert_eq!(kept(&team, job).await[0]["response"]["content"], "You said: hello");
    let stream = team.client.stream("/api/jobs/create-and-call-stream", body).await;
    let job = stream.headers["x-job-id"].to_str().expect("text").to_owned();
    events(stream).await;
    assert_eq!(kept(&team, &job).await[0]["response"]["content"], "You said: hello");
    app.check_invariants().await;
}

#[tokio::test]
async fn what_was_kept_long_enough_is_out_of_sight_at_once_and_gone_after_upkeep() {
    let app = keeping().await;
    let team = app.team(2).await;
    let (old, new) = (team.job().await, team.job().await);
    for job in [&old, &new] {
        team.call(job, "hello").await.ok();
        kept(&team, job).await;
    }
    let days = "SELECT extract(epoch FROM expires_at - now())::float8 / 86400 FROM call_messages LIMIT 1";
    let days: f64 = app.database.client.query_one(days, &[]).await.expect("a row").get(0);
    assert!((0.99..=1.0).contains(&days), "{days}");
    let pass = "UPDATE call_messages SET expires_at = now() WHERE job_id = $1::text::uuid";
    app.database.client.execute(pass, &[&old]).await.expect("a day goes by");

    let read = team.read(&old).await;

    assert!(
        read["calls"][0].get("messages").is_none() && read["calls"][0].get("response").is_none(),
        "{read}"
    );
    app.admin().post("/api/upkeep", json!({})).await.ok();
    let left = app.database.client.query("SELECT job_id::text FROM call_messages", &[]).await.expect("rows");
    assert_eq!(
        left.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>(),
        std::slice::from_ref(&new)
    );
    assert_eq!(kept(&team, &new).await.len(), 1);
    app.check_invariants().await;
}
