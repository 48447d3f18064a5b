//! Which jobs are charged: by default those that were completed; if their terms say so, those that delivered something.

use crate::fixtures::{call_when, calls_that_are, events, ledger_of, prompt, sql, stream};
use api_tests::{Team, TestApp, eventually};
use serde_json::{Value, json};

async fn team(app: &TestApp, charge_when: &str) -> Team {
    app.team_with(json!({"credits_allocated": 9, "charge_when": charge_when})).await
}

/// Streams three pieces and breaks.
async fn broken_stream(team: &Team, job: &str) {
    let (_, done) = events(stream(team, job, prompt("[[chunks=8]] [[error_after=3]] hello")).await).await;
    assert!(!done);
    call_when(team, job, "LiteLLM's bill", |call| call["cost_usd"].as_f64() > Some(0.0)).await;
}

/// Usage of this month: charged jobs, and free ones that delivered something.
async fn charged_and_free(app: &TestApp, team: &Team) -> (Value, Value) {
    let usage = app.admin().get(&format!("/api/teams/{}/usage", team.id)).await.ok();
    (usage["summary"]["charged_jobs"].clone(), usage["summary"]["free_jobs_with_output"].clone())
}

#[tokio::test]
async fn a_job_that_delivered_something_is_charged_however_it_ends_if_its_terms_say_so() {
    let app = TestApp::start().await;
    for (charge_when, charged) in [("completed", false), ("delivered", true)] {
        let team = team(&app, charge_when).await;
        assert_eq!(
            team.client.get(&format!("/api/teams/{}", team.id)).await.ok()["charge_when"],
            charge_when
        );
        for end in ["failed", "cancelled", "expired"] {
            let job = team.job().await;
            team.call(&job, "hello").await.ok();
            if end == "expired" {
                sql(&app, &format!("UPDATE jobs SET expires_at = now() WHERE job_id = '{job}'")).await;
            } else {
                let costs = team.complete(&job, end).await.ok()["costs"].clone();
                assert_eq!(costs["credit_applied"], charged, "{charge_when} {end}");
            }
            let read = team.read(&job).await;
            assert_eq!(
                [
                    &read["status"],
                    &read["credit_applied"],
                    &read["credits_charged"],
                    &read["charge_is_final"]
                ],
                [&json!(end), &json!(charged), &json!(i32::from(charged)), &json!(true)],
                "{charge_when}"
            );
        }
        // Completed, with a call that broke after it had delivered something.
        let job = team.job().await;
        broken_stream(&team, &job).await;
        let costs = team.complete(&job, "completed").await.ok()["costs"].clone();
        assert_eq!((&costs["failed_calls"], &costs["credit_applied"]), (&json!(1), &json!(charged)));
        let expected = if charged { (json!(4), json!(0)) } else { (json!(0), json!(4)) };
        assert_eq!(charged_and_free(&app, &team).await, expected, "{charge_when}");
        assert_eq!(team.balance().await["credits_used"], expected.0);
    }
    let metrics = app.admin().get("/metrics").await.text;
    assert!(metrics.contains("\nllm_jobs_free_jobs_with_output_total 4\n"), "{metrics}");
    app.check_invariants().await;
}

#[tokio::test]
async fn a_job_that_delivered_nothing_is_not_charged_for_having_tried() {
    let app = TestApp::start().await;
    let team = team(&app, "delivered").await;
    for (prompt, end) in
        [(None, "failed"), (Some("[[status=500]]"), "completed"), (Some("[[status=400]]"), "failed")]
    {
        let job = team.job().await;
        if let Some(prompt) = prompt {
            assert_ne!(team.call(&job, prompt).await.status, 200);
        }
        let costs = team.complete(&job, end).await.ok()["costs"].clone();
        assert_eq!(costs["credit_applied"], false, "{prompt:?}");
    }
    // Without a call, or with calls, a completed job is charged as ever.
    let job = team.job().await;
    assert_eq!(team.complete(&job, "completed").await.ok()["costs"]["credit_applied"], true);
    assert_eq!(charged_and_free(&app, &team).await, (json!(1), json!(0)));
    app.check_invariants().await;
}

#[tokio::test]
async fn an_answer_that_comes_after_its_job_was_cancelled_is_charged_then() {
    let app = TestApp::start().await;
    let team = team(&app, "delivered").await;
    let job = team.job().await;
    let slow = team.call(&job, "[[first_ms=3000]] hello");
    let cancel = async {
        team.open_call(&job).await;
        team.complete(&job, "cancelled").await.ok()
    };
    let (answer, cancelled) = futures::join!(slow, cancel);
    answer.ok();
    assert_eq!(
        [&cancelled["costs"]["credits_charged"], &cancelled["costs"]["charge_is_final"]],
        [&json!(0), &json!(false)]
    );
    let read = team.read(&job).await;
    assert_eq!([&read["credits_charged"], &read["charge_is_final"]], [&json!(1), &json!(true)]);
    let expected = ("deduction".to_owned(), 1, "Job test: delivered output".to_owned());
    assert_eq!(ledger_of(&app, &team, &job).await, [expected]);
    app.check_invariants().await;
}

#[tokio::test]
async fn a_job_keeps_the_rule_that_its_team_had_when_it_was_opened() {
    let app = TestApp::start().await;
    let team = team(&app, "completed").await;
    let path = format!("/api/teams/{}", team.id);
    let before = team.job().await;
    app.admin().put(&path, json!({"charge_when": "delivered"})).await.ok();
    let after = team.job().await;
    app.admin().put(&path, json!({"charge_when": "completed"})).await.ok();
    for (job, charged) in [(before, false), (after, true)] {
        team.call(&job, "hello").await.ok();
        assert_eq!(team.complete(&job, "failed").await.ok()["costs"]["credit_applied"], charged);
    }
    let refused = app.admin().put(&path, json!({"charge_when": "always"})).await;
    assert_eq!(refused.status, 400);
    assert!(refused.body["detail"].as_str().is_some_and(|detail| detail.starts_with("charge_when: ")));
    app.check_invariants().await;
}

#[tokio::test]
async fn a_buffered_answer_whose_reader_has_left_was_delivered() {
    let app = TestApp::start().await;
    let team = team(&app, "delivered").await;
    let job = team.job().await;
    tokio::select! {
        _ = team.call(&job, "[[first_ms=2000]] hello") => panic!("answered before the client left"),
        () = team.open_call(&job) => {}
    }
    eventually("the answer", async || (calls_that_are(&app, "succeeded").await == 1).then_some(())).await;
    assert_eq!(team.complete(&job, "failed").await.ok()["costs"]["credits_charged"], 1);
    app.check_invariants().await;
}
