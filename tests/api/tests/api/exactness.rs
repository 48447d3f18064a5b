//! Credits are exact, whatever happens at the same time.

use api_tests::TestApp;
use futures::future::join_all;
use serde_json::json;

#[tokio::test]
async fn one_job_completed_sixteen_times_at_once_is_deducted_once() {
    let app = TestApp::start().await;
    let team = app.team(10).await;
    let job = team.job().await;
    team.call(&job, "hello").await.ok();

    let answers = join_all((0..16).map(|_| team.complete(&job, "completed"))).await;

    let first = answers[0].clone().ok();
    assert_eq!(first["costs"]["credit_applied"], json!(true));
    for answer in answers {
        assert_eq!(answer.ok(), first);
    }
    assert_eq!(team.balance().await["credits_remaining"], json!(9));
    app.check_invariants().await;
}

#[tokio::test]
async fn five_credits_open_five_of_forty_jobs_at_once() {
    let app = TestApp::start().await;
    let team = app.team(5).await;

    let body = json!({"team_id": team.id, "job_type": "test"});
    let answers = join_all((0..40).map(|_| team.client.post("/api/jobs/create", body.clone()))).await;

    let (opened, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 200);
    assert_eq!((opened.len(), refused.len()), (5, 35));
    for answer in refused {
        answer.refused(402, "insufficient_credits", "Insufficient credits. Required: 1, Available: 0");
    }
    let balance = team.balance().await;
    assert_eq!((&balance["credits_reserved"], &balance["credits_available"]), (&json!(5), &json!(0)));
    app.check_invariants().await;
}
