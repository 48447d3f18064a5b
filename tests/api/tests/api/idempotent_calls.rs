//! Calls that carry an `Idempotency-Key`: the model is asked once.

use crate::{
    fixtures::{sql, stored},
    idempotency::{assert_replay, is_replayed, mismatch, post, prompt},
};
use api_tests::{Answer, Client, TestApp, eventually};
use litellm_stand_in::StandIn;
use reqwest::Method;
use serde_json::{Value, json};

/// How often LiteLLM was asked for a completion.
pub fn completions(stand_in: &StandIn) -> usize {
    stand_in.requests().iter().filter(|request| request.path.ends_with("/chat/completions")).count()
}

#[tokio::test]
async fn a_repeated_call_is_answered_without_asking_the_model_again() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let team = app.team(5).await;
    let job = team.job().await;
    let path = format!("/api/jobs/{job}/llm-call");
    let first = post(&team.client, &path, "call", &prompt("a canary sings")).await;
    assert!(first.clone().ok()["response"]["content"].as_str().is_some_and(|text| text.contains("canary")));
    assert!(!stored(&app).await.contains("canary"), "what was said is not stored");
    for _ in 0..2 {
        assert_replay(&first, &post(&team.client, &path, "call", &prompt("a canary sings")).await);
    }
    assert_eq!(completions(stand_in), 1);
    assert_eq!(team.read(&job).await["calls"].as_array().map(Vec::len), Some(1));
    team.complete(&job, "completed").await.ok();
    assert_replay(&first, &post(&team.client, &path, "call", &prompt("a canary sings")).await);
    let late = post(&team.client, &path, "late", &prompt("hello")).await;
    late.refused(409, "job_finished", &format!("Job '{job}' is already completed"));
    app.check_invariants().await;
}

/// Repeats the request under the key `left` until it is no longer under way.
async fn repeat_until_done(client: &Client, path: &str, body: &Value) -> Answer {
    eventually("the answer", async || {
        let again = post(client, path, "left", body).await;
        if again.status != 200 {
            assert_eq!(
                (again.status.as_u16(), &again.body["code"]),
                (409, &json!("idempotency_in_progress"))
            );
        }
        Some(again).filter(|again| again.status == 200)
    })
    .await
}

#[tokio::test]
async fn a_repeated_stream_is_the_same_events() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let team = app.team(5).await;
    let job = team.job().await;
    let path = format!("/api/jobs/{job}/llm-call-stream");
    let body = prompt("[[chunks=20]] hello");
    let first = post(&team.client, &path, "stream", &body).await;
    assert!(first.status == 200 && first.text.ends_with("data: [DONE]\n\n"), "{}", first.text);
    assert!(!stored(&app).await.contains("word1"), "what was said is not stored");
    for _ in 0..2 {
        assert_replay(&first, &post(&team.client, &path, "stream", &body).await);
    }
    assert_eq!(completions(stand_in), 1);
    mismatch(post(&team.client, &path, "stream", &prompt("other")).await);
    assert_eq!(team.read(&job).await["calls"].as_array().map(Vec::len), Some(1));
    team.complete(&job, "completed").await.ok();
    app.check_invariants().await;
}

#[tokio::test]
async fn a_call_that_failed_fails_again_without_asking_the_model() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    for (model, status) in [("err400", 400), ("err503", 502), ("err429", 502), ("refused", 502)] {
        let team = app.team_using(&[model], 5).await;
        let job = team.job().await;
        for route in ["llm-call", "llm-call-stream"] {
            let path = format!("/api/jobs/{job}/{route}");
            let first = post(&team.client, &path, route, &prompt("hello")).await;
            assert_eq!(first.status, status, "{model}: {}", first.text);
            let asked = completions(stand_in);
            assert_replay(&first, &post(&team.client, &path, route, &prompt("hello")).await);
            assert_eq!(completions(stand_in), asked, "{model}");
        }
        let job = team.read(&job).await;
        assert_eq!(job["calls"].as_array().map(Vec::len), Some(2), "{job}");
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn a_stream_that_was_left_goes_on_for_the_repeat_and_one_that_broke_off_is_made_anew() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let team = app.team_using(&["gpt-4o-mini"], 5).await;
    let job = team.job().await;
    let path = format!("/api/jobs/{job}/llm-call-stream");
    let body = prompt("[[chunks=40]] [[delay_ms=50]] hello");
    let request = team.client.request(Method::POST, &path).header("idempotency-key", "left");
    let mut response = request.body(body.to_string()).send().await.expect("an answer");
    response.chunk().await.expect("a chunk").expect("a chunk");
    drop(response);
    let again = repeat_until_done(&team.client, &path, &body).await;
    assert!(again.text.ends_with("data: [DONE]\n\n"));
    assert!(is_replayed(&again));
    assert_eq!(completions(stand_in), 1);
    assert_eq!(post(&team.client, &path, "left", &body).await.text, again.text);

    let broken = app.team_using(&["midstream-error"], 5).await;
    let other = broken.job().await;
    let path = format!("/api/jobs/{other}/llm-call-stream");
    for _ in 0..2 {
        let answer = post(&broken.client, &path, "broken", &prompt("hello")).await;
        assert!(
            !is_replayed(&answer) && answer.text.contains("event: error"),
            "{} {}",
            answer.status,
            answer.text
        );
    }
    assert_eq!(broken.read(&other).await["calls"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn a_stream_in_a_job_of_its_own_that_was_left_and_asked_for_again_costs_one_credit() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let team = app.team(5).await;
    let mut body = prompt("[[chunks=30]] [[delay_ms=50]] hello");
    body["team_id"] = json!(team.id);
    body["job_type"] = json!("test");
    let path = "/api/jobs/create-and-call-stream";
    let request = team.client.request(Method::POST, path).header("idempotency-key", "left");
    let mut response = request.body(body.to_string()).send().await.expect("an answer");
    response.chunk().await.expect("a chunk").expect("a chunk");
    let job = response.headers()["x-job-id"].clone();
    drop(response);
    let again = repeat_until_done(&team.client, path, &body).await;
    assert!(is_replayed(&again));
    assert_eq!(again.header("x-job-id").map(str::as_bytes), Some(job.as_bytes()));
    assert_eq!((completions(stand_in), &team.balance().await["credits_used"]), (1, &json!(1)));
    app.check_invariants().await;
}

#[tokio::test]
async fn a_buffered_call_whose_caller_left_is_answered_to_the_repeat() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let team = app.team(5).await;
    let job = team.job().await;
    let path = format!("/api/jobs/{job}/llm-call");
    let body = prompt("[[first_ms=800]] hello");
    tokio::select! {
        answer = post(&team.client, &path, "left", &body) => panic!("answered before the caller left: {}", answer.text),
        () = team.open_call(&job) => {}
    }
    let again = repeat_until_done(&team.client, &path, &body).await;
    assert!(is_replayed(&again));
    assert_eq!(completions(stand_in), 1);
    team.complete(&job, "completed").await.ok();
    app.check_invariants().await;
}

#[tokio::test]
async fn a_twin_of_a_call_that_is_under_way_is_told_to_come_back() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let team = app.team(5).await;
    for (route, body) in [
        ("llm-call", prompt("[[first_ms=1500]] hello")),
        ("llm-call-stream", prompt("[[chunks=15]] [[delay_ms=100]] hello")),
    ] {
        let job = team.job().await;
        let path = format!("/api/jobs/{job}/{route}");
        let asked = completions(stand_in);
        let twin = async {
            team.open_call(&job).await;
            let twin = post(&team.client, &path, "twin", &body).await;
            assert_eq!(twin.header("retry-after"), Some("1"));
            let detail = "Idempotency-Key: the request with this key is still under way";
            twin.refused(409, "idempotency_in_progress", detail);
            mismatch(post(&team.client, &path, "twin", &prompt("other")).await);
        };
        let (first, ()) = futures::join!(post(&team.client, &path, "twin", &body), twin);
        assert_eq!(first.status, 200, "{}", first.text);
        assert_eq!(completions(stand_in), asked + 1);
        assert_replay(&first, &post(&team.client, &path, "twin", &body).await);
        sql(&app, "DELETE FROM idempotency_keys").await;
        team.complete(&job, "completed").await.ok();
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn a_repeated_job_with_its_call_is_one_job_one_call_and_one_credit() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let team = app.team(9).await;
    let mut body = prompt("hello");
    body["team_id"] = json!(team.id);
    body["job_type"] = json!("test");
    for (at, route) in
        ["/api/jobs/create-and-call", "/api/jobs/create-and-call-stream"].into_iter().enumerate()
    {
        let first = post(&team.client, route, route, &body).await;
        assert_eq!(first.status, 200, "{}", first.text);
        assert_replay(&first, &post(&team.client, route, route, &body).await);
        assert_eq!(
            (completions(stand_in), team.balance().await["credits_used"].as_u64()),
            (at + 1, Some(at as u64 + 1))
        );
    }
    let completion = json!({"messages": [{"role": "user", "content": "hello"}]});
    for (at, stream) in [false, true].into_iter().enumerate() {
        let mut body = completion.clone();
        body["stream"] = json!(stream);
        let key = format!("openai-{stream}");
        let first = post(&team.client, "/v1/chat/completions", &key, &body).await;
        assert_eq!(first.status, 200, "{}", first.text);
        assert_replay(&first, &post(&team.client, "/v1/chat/completions", &key, &body).await);
        assert_eq!(completions(stand_in), at + 3);
    }
    let failing = app.team_using(&["err503"], 5).await;
    body["team_id"] = json!(failing.id);
    let first = post(&failing.client, "/api/jobs/create-and-call", "failing", &body).await;
    assert_eq!(first.status, 502, "{}", first.text);
    let asked = completions(stand_in);
    assert_replay(&first, &post(&failing.client, "/api/jobs/create-and-call", "failing", &body).await);
    assert_eq!(completions(stand_in), asked);
    let jobs = failing.client.get(&format!("/api/teams/{}/jobs", failing.id)).await.ok();
    assert_eq!((&jobs["total"], &jobs["jobs"][0]["status"]), (&json!(1), &json!("failed")));
    assert_eq!(team.balance().await["credits_used"], 4);
    app.check_invariants().await;
}

#[tokio::test]
async fn the_job_that_a_header_names_is_part_of_the_request() {
    let app = TestApp::start().await;
    if app.stand_in().is_none() {
        return;
    }
    let team = app.team(5).await;
    let (one, two) = (team.job().await, team.job().await);
    let complete = async |job: &str| {
        let request = team.client.request(Method::POST, "/v1/chat/completions").header("x-job-id", job);
        Answer::of(request.header("idempotency-key", "k").body(prompt("hello").to_string())).await
    };
    complete(&one).await.ok();
    let refused = complete(&two).await;
    assert_eq!(
        (refused.status.as_u16(), &refused.body["error"]["code"]),
        (422, &json!("idempotency_mismatch")),
        "{}",
        refused.text
    );
    for job in [one, two] {
        team.complete(&job, "completed").await.ok();
    }
    app.check_invariants().await;
}
