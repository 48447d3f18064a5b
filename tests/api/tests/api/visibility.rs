//! What teams see of costs and models: as the deployment has it, or as the admin has it for a team.

use api_tests::{Options, Team, TestApp};
use serde_json::{Value, json};

/// Every place where the team sees a cost, as a name and what is shown there.
async fn costs(team: &Team) -> Vec<(&'static str, Value)> {
    let job = team.job().await;
    team.call(&job, "hello").await.ok();
    let completed = team.complete(&job, "completed").await.ok();
    let messages = json!([{"role": "user", "content": "hello"}]);
    let own = json!({"job_type": "own", "messages": messages});
    let called = team.client.post("/api/jobs/create-and-call", own.clone()).await.ok();
    let streamed = team.client.stream("/api/jobs/create-and-call-stream", own).await.rest().await;
    let summary = streamed.iter().rev().find_map(|event| {
        let data: Value = serde_json::from_str(event.strip_prefix("data: ")?).ok()?;
        data.get("costs").cloned()
    });
    let read = team.read(&job).await;
    let shown = team.client.get(&format!("/api/jobs/{job}/costs")).await.ok();
    let list = team.client.get(&format!("/api/teams/{}/jobs", team.id)).await.ok();
    let usage = team.client.get(&format!("/api/teams/{}/usage", team.id)).await.ok();
    let table = team.client.get(&format!("/api/teams/{}/usage?format=csv", team.id)).await.text;
    let mut lines = table.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let columns = lines.next().expect("a head");
    let place = columns.iter().position(|column| *column == "cost_usd").expect("a column");
    let cell = lines.next().expect("a line")[place].to_owned();
    vec![
        ("completing", completed["costs"]["total_cost_usd"].clone()),
        ("create-and-call", called["costs"]["total_cost_usd"].clone()),
        ("create-and-call-stream", summary.expect("a summary")["total_cost_usd"].clone()),
        ("a job", read["total_cost_usd"].clone()),
        ("its calls", read["calls"][0]["cost_usd"].clone()),
        ("its costs", shown["costs"]["total_cost_usd"].clone()),
        ("their breakdown", shown["breakdown"][0]["cost_usd"].clone()),
        ("the list of jobs", list["jobs"][0]["total_cost_usd"].clone()),
        ("usage", usage["summary"]["total_cost_usd"].clone()),
        ("its average", usage["summary"]["avg_cost_per_job"].clone()),
        ("its job types", usage["job_types"]["own"]["cost_usd"].clone()),
        ("its table", if cell.is_empty() { Value::Null } else { json!(cell) }),
    ]
}

/// What the team sees of its models: the models that it may use, and those of a call.
async fn models(app: &TestApp, team: &Team) -> (Value, Value, Value) {
    let read = team.client.get(&format!("/api/teams/{}", team.id)).await.ok();
    let group = read["model_groups"][0].as_str().expect("a group");
    let path = format!("/api/model-groups/{group}/resolve?team_id={}", team.id);
    let resolved = team.client.get(&path).await.ok();
    assert_eq!(resolved["team_has_access"], true);
    assert_eq!(app.admin().get(&path).await.ok()["primary_model"], "gpt-4o-mini", "the admin sees all");
    (read["allowed_models"].clone(), resolved["primary_model"].clone(), resolved["fallback_models"].clone())
}

#[tokio::test]
async fn costs_are_shown_to_teams_unless_the_deployment_or_the_admin_hides_them() {
    let off = ("costs_visible_to_teams", "false".to_owned());
    let hidden = TestApp::start_with(Options { variables: vec![off], ..Options::default() }).await;
    let usual = TestApp::start().await;
    for (app, own, visible) in [
        (&usual, Value::Null, true),
        (&usual, json!(false), false),
        (&hidden, Value::Null, false),
        (&hidden, json!(true), true),
    ] {
        let team = app.team_with(json!({"credits_allocated": 9, "costs_visible_to_teams": own})).await;
        for (place, cost) in costs(&team).await {
            assert_eq!(!cost.is_null(), visible, "{place}: {cost}, own: {own}");
        }
        let job = team.client.get(&format!("/api/teams/{}/jobs", team.id)).await.ok()["jobs"][0].clone();
        let path = format!("/api/jobs/{}", job["job_id"].as_str().expect("an id"));
        assert!(app.admin().get(&path).await.ok()["total_cost_usd"].is_number(), "the admin sees all");
    }
    usual.check_invariants().await;
    hidden.check_invariants().await;
}

#[tokio::test]
async fn models_are_shown_to_teams_unless_the_deployment_or_the_admin_hides_them() {
    let off = ("models_visible_to_teams", "false".to_owned());
    let hidden = TestApp::start_with(Options { variables: vec![off], ..Options::default() }).await;
    let usual = TestApp::start().await;
    let shown = (json!(["gpt-4o-mini"]), json!("gpt-4o-mini"), json!([]));
    let nothing = (Value::Null, Value::Null, json!([]));
    for (app, own, expected) in [
        (&usual, Value::Null, &shown),
        (&usual, json!(false), &nothing),
        (&hidden, Value::Null, &nothing),
        (&hidden, json!(true), &shown),
    ] {
        let team = app.team_with(json!({"credits_allocated": 9, "models_visible_to_teams": own})).await;
        assert_eq!(&models(app, &team).await, expected, "own: {own}");
    }
    usual.check_invariants().await;
    hidden.check_invariants().await;
}

#[tokio::test]
async fn what_a_team_sees_can_be_changed_and_given_back_to_the_deployment() {
    let app = TestApp::start().await;
    let team = app.team(9).await;
    for (own, visible) in
        [(json!(false), false), (json!(true), true), (json!(false), false), (Value::Null, true)]
    {
        let body = json!({"costs_visible_to_teams": own, "models_visible_to_teams": own});
        let changed = app.admin().put(&format!("/api/teams/{}", team.id), body).await.ok();
        assert_eq!((&changed["costs_visible_to_teams"], &changed["models_visible_to_teams"]), (&own, &own));
        let usage = team.client.get(&format!("/api/teams/{}/usage", team.id)).await.ok();
        assert_eq!(usage["summary"]["total_cost_usd"].is_number(), visible, "{own}");
        assert_eq!(models(&app, &team).await.0.is_array(), visible, "{own}");
    }
    app.check_invariants().await;
}
