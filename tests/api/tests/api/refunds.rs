//! Refunds: never more than a job was charged.

use api_tests::{Answer, Client, Team, TestApp};
use futures::future::join_all;
use serde_json::{Value, json};

async fn refund(admin: &Client, team: &Team, body: Value) -> Answer {
    admin.post(&format!("/api/credits/teams/{}/refund", team.id), body).await
}

/// A team with 100 credits that was charged 10 of them for a job; the job.
async fn charged(app: &TestApp) -> (Team, String) {
    let terms =
        json!({"credits_allocated": 100, "billing_mode": "consumption_tokens", "tokens_per_credit": 1});
    let team = app.team_with(terms).await;
    let job = team.job().await;
    let used = team.call(&job, "one two three four").await.ok()["metadata"]["tokens_used"].clone();
    assert_eq!(used, 11, "the figures below are for that");
    team.complete(&job, "completed").await.ok();
    (team, job)
}

/// `POST /api/credits/teams/{team_id}/refund`
#[tokio::test]
async fn a_refund_gives_back_at_most_what_the_job_was_charged_over_all_its_refunds() {
    let app = TestApp::start().await;
    let (team, job) = charged(&app).await;
    let first =
        refund(&app.admin(), &team, json!({"job_id": job, "credits": 4, "reason": "Sorry"})).await.ok();
    assert_eq!(
        (&first["team_id"], &first["job_id"], &first["credits_refunded"], &first["credits_remaining"]),
        (&json!(team.id), &json!(job), &json!(4), &json!(93))
    );
    let row = &first["transaction"];
    assert_eq!(
        (&row["transaction_type"], &row["credits_amount"], &row["job_id"], &row["reason"]),
        (&json!("refund"), &json!(4), &json!(job), &json!("Sorry"))
    );
    let balance = team.balance().await;
    assert_eq!((&balance["credits_used"], &balance["credits_allocated"]), (&json!(7), &json!(100)));
    refund(&app.admin(), &team, json!({"job_id": job, "credits": 8, "reason": "Sorry"})).await.refused(
        409,
        "refund_exceeds_charge",
        "credits: the job was charged 11 credits, 4 of which are refunded",
    );
    let rest = refund(&app.admin(), &team, json!({"job_id": job, "reason": "All of it"})).await.ok();
    assert_eq!((&rest["credits_refunded"], &rest["credits_remaining"]), (&json!(7), &json!(100)));
    refund(&app.admin(), &team, json!({"job_id": job, "reason": "Again"})).await.refused(
        409,
        "refund_exceeds_charge",
        "credits: the job was charged 11 credits, 11 of which are refunded",
    );
    let read = team.read(&job).await;
    assert_eq!(
        (&read["credits_charged"], &read["credits_refunded"], &read["credit_applied"]),
        (&json!(11), &json!(11), &json!(true))
    );
    let again = team.complete(&job, "completed").await.ok();
    assert_eq!(again["costs"]["credits_refunded"], 11, "a repeated completion shows what is now");
    assert_eq!(again["costs"]["credits_remaining"], 89, "all else is as it was");
    let usage = app.admin().get(&format!("/api/teams/{}/usage", team.id)).await.ok();
    assert_eq!(
        (&usage["summary"]["credits_used"], &usage["summary"]["charged_jobs"]),
        (&json!(0), &json!(1))
    );
    app.check_invariants().await;
}

#[tokio::test]
async fn many_refunds_at_once_give_back_what_was_charged_once() {
    let app = TestApp::start().await;
    let (team, job) = charged(&app).await;
    let admin = app.admin();
    let body = json!({"job_id": job, "credits": 3, "reason": "Sorry"});
    let answers = join_all((0..12).map(|_| refund(&admin, &team, body.clone()))).await;
    let given = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!(given, 3, "three times three of eleven");
    assert_eq!(team.balance().await["credits_used"], 2);
    app.check_invariants().await;
}

#[tokio::test]
async fn a_refund_under_the_same_idempotency_key_is_made_once() {
    let app = TestApp::start().await;
    let (team, job) = charged(&app).await;
    let admin = app.admin();
    let twice = async || {
        let path = format!("/api/credits/teams/{}/refund", team.id);
        let request = admin.request(reqwest::Method::POST, &path).header("idempotency-key", "refund-1");
        Answer::of(request.body(json!({"job_id": job, "credits": 1, "reason": "x"}).to_string())).await
    };
    let first = twice().await;
    let second = twice().await;
    assert_eq!(second.header("idempotent-replayed"), Some("true"));
    assert_eq!(first.ok(), second.ok());
    assert_eq!(team.balance().await["credits_used"], 10);
    app.check_invariants().await;
}

#[tokio::test]
async fn what_was_not_charged_or_is_no_job_of_the_team_is_not_refunded() {
    let app = TestApp::start().await;
    let (team, job) = charged(&app).await;
    let other = app.team(5).await;
    refund(&app.admin(), &other, json!({"job_id": job, "reason": "x"})).await.refused(
        404,
        "not_found",
        "Job not found",
    );
    let open = team.job().await;
    refund(&app.admin(), &team, json!({"job_id": open, "reason": "x"})).await.refused(
        409,
        "refund_exceeds_charge",
        "credits: the job was charged 0 credits, 0 of which are refunded",
    );
    for (body, field) in [
        (json!({"job_id": job}), "reason"),
        (json!({"reason": "x"}), "job_id"),
        (json!({"job_id": "x", "reason": "x"}), "job_id"),
        (json!({"job_id": job, "reason": "x", "credits": 0}), "credits"),
        (json!({"job_id": job, "reason": "x", "credits": 1.5}), "credits"),
        (json!({"job_id": job, "reason": "x", "amount": 1}), "amount"),
    ] {
        let answer = refund(&app.admin(), &team, body.clone()).await;
        assert_eq!(answer.status, 400, "{body}");
        assert!(answer.body["detail"].as_str().is_some_and(|detail| detail.contains(field)), "{body}");
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn a_job_of_a_deleted_team_is_refunded_too() {
    let app = TestApp::start().await;
    let (team, job) = charged(&app).await;
    app.admin().delete(&format!("/api/teams/{}", team.id)).await.ok();
    let refunded = refund(&app.admin(), &team, json!({"job_id": job, "reason": "Goodbye"})).await.ok();
    assert_eq!(refunded["credits_refunded"], 11);
    app.check_invariants().await;
}
