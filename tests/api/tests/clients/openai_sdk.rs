//! OpenAI's SDK for Python.

use crate::{beside, python};
use api_tests::{PATIENCE, TestApp, python::run};

#[tokio::test]
async fn openais_sdk_works_unchanged_with_credits() {
    let python = python().await;
    let app = TestApp::start().await;
    let (team, poor) = (app.team_using(&["gpt-4o-mini"], 20).await, app.team(0).await);
    let groups = team.client.get("/api/model-groups").await.ok();
    let group = groups["model_groups"][0]["group_name"].as_str().expect("the team's group");
    let (job, before) = (team.job().await, team.balance().await);
    let mut command = python.program("python");
    command
        .arg(beside("openai_sdk.py"))
        .env("BASE_URL", format!("{}/v1", app.url()))
        .env("KEY", &team.key)
        .env("POOR_KEY", &poor.key)
        .env("GROUP", group)
        .env("JOB", &job);
    if let Err(failure) = run(&mut command, PATIENCE).await {
        panic!("{failure}\nthe log of the application:\n{}", app.logs());
    }
    // The script makes four completions, each a job of its own, and three in the one job.
    let calls = team.read(&job).await["calls"].as_array().map(Vec::len);
    assert_eq!(calls, Some(3));
    team.complete(&job, "completed").await.ok();
    let used = |balance: &serde_json::Value| balance["credits_used"].as_i64().expect("a number");
    assert_eq!(used(&team.balance().await) - used(&before), 5);
    app.check_invariants().await;
}
