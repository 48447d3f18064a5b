//! Access groups: named sets of model groups.

use crate::fixtures::{assert_time, assert_uuid, stored};
use api_tests::{Answer, TestApp};
use serde_json::{Value, json};

async fn create(app: &TestApp, body: Value) -> Answer {
    app.admin().post("/api/model-access-groups/create", body).await
}

#[tokio::test]
async fn an_access_group_is_shown_as_it_was_made() {
    let app = TestApp::start().await;
    let (first, second) = (app.model_group(&["gpt-4"]).await, app.model_group(&["gpt-4o"]).await);
    let body = json!({
        "group_name": "Premium", "display_name": "Premium models", "description": "The best", "model_groups": [second, first],
    });
    let made = create(&app, body.clone()).await.ok();
    for (field, value) in body.as_object().expect("an object") {
        assert_eq!(&made[field], value, "{field}");
    }
    assert_eq!(made["status"], "active");
    assert_uuid(&made["access_group_id"]);
    assert_time(&made["created_at"]);
    assert_eq!(app.admin().get("/api/model-access-groups/Premium").await.ok(), made);

    let bare = create(&app, json!({"group_name": "Bare"})).await.ok();
    assert_eq!((&bare["display_name"], &bare["model_groups"]), (&json!("Bare"), &json!([])));
}

#[tokio::test]
async fn a_taken_name_and_an_unknown_model_group_are_refused_and_leave_nothing() {
    let app = TestApp::start().await;
    create(&app, json!({"group_name": "Premium"})).await.ok();
    let before = stored(&app).await;
    create(&app, json!({"group_name": "Premium"})).await.refused(
        409,
        "already_exists",
        "Model access group 'Premium' already exists",
    );
    create(&app, json!({"group_name": "Other", "model_groups": ["None"]})).await.refused(
        404,
        "not_found",
        "Model group 'None' not found",
    );
    assert_eq!(stored(&app).await, before);
    app.admin().get("/api/model-access-groups/Other").await.refused(
        404,
        "not_found",
        "Model access group 'Other' not found",
    );
}

#[tokio::test]
async fn models_make_a_model_group_of_the_same_name() {
    let app = TestApp::start().await;
    let made = create(&app, json!({"group_name": "Basic", "models": ["gpt-4o-mini", "gpt-4o"]})).await.ok();
    assert_eq!(made["model_groups"], json!(["Basic"]));
    let group = app.admin().get("/api/model-groups/Basic").await.ok();
    let names: Vec<&Value> =
        group["models"].as_array().expect("models").iter().map(|m| &m["model_name"]).collect();
    assert_eq!(names, ["gpt-4o-mini", "gpt-4o"]);

    let team = app.team_with(json!({"access_groups": ["Basic"], "credits_allocated": 1})).await;
    let job = team.job().await;
    let answer = team.call(&job, "hello").await.ok();
    assert_eq!(answer["metadata"]["model_group"], "Basic");
    team.complete(&job, "completed").await.ok();
    app.check_invariants().await;
}

#[tokio::test]
async fn models_are_refused_where_their_group_can_not_be_made() {
    let app = TestApp::start().await;
    let taken = app.model_group(&["gpt-4"]).await;
    let before = stored(&app).await;
    create(&app, json!({"group_name": taken, "models": ["gpt-4o"]})).await.refused(
        409,
        "already_exists",
        &format!("Model group '{taken}' already exists"),
    );
    let both =
        create(&app, json!({"group_name": "Basic", "models": ["gpt-4o"], "model_groups": [taken]})).await;
    assert_eq!((both.status.as_u16(), &both.body["code"]), (400, &json!("invalid_request")), "{}", both.text);
    assert_eq!(stored(&app).await, before);
}

#[tokio::test]
async fn a_team_may_use_all_groups_of_its_access_groups_after_its_own() {
    let app = TestApp::start().await;
    let (own, second) = (app.model_group(&["gpt-4o-mini"]).await, app.model_group(&["gpt-4-turbo"]).await);
    let (shared, further) = (app.model_group(&["gpt-4o"]).await, app.model_group(&["gpt-4"]).await);
    create(&app, json!({"group_name": "Both", "model_groups": [shared, own]})).await.ok();
    create(&app, json!({"group_name": "Further", "model_groups": [further]})).await.ok();
    let fields =
        json!({"model_groups": [own, second], "access_groups": ["Both", "Further"], "credits_allocated": 5});
    let team = app.team_with(fields).await;

    let shown = team.client.get(&format!("/api/teams/{}", team.id)).await.ok();
    let (groups, access_groups) = (json!([own, second]), json!(["Both", "Further"]));
    assert_eq!((&shown["model_groups"], &shown["access_groups"]), (&groups, &access_groups));
    assert_eq!(shown["allowed_models"], json!(["gpt-4o-mini", "gpt-4-turbo", "gpt-4o", "gpt-4"]));
    let job = team.job().await;
    for (asked, expected) in [(json!(null), &own), (json!(shared), &shared), (json!(further), &further)] {
        let body = json!({"model_group": asked, "messages": [{"role": "user", "content": "hello"}]});
        let answer = team.client.post(&format!("/api/jobs/{job}/llm-call"), body).await.ok();
        assert_eq!(&answer["metadata"]["model_group"], expected);
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn a_team_whose_access_groups_are_empty_has_no_model_group() {
    let app = TestApp::start().await;
    create(&app, json!({"group_name": "Empty"})).await.ok();
    let team = app.team_with(json!({"access_groups": ["Empty"], "credits_allocated": 1})).await;
    let job = team.job().await;
    let answer = team.call(&job, "hello").await;
    answer.refused(403, "model_group_denied", &format!("Team '{}' has no model group", team.id));
    assert_eq!(team.read(&job).await["status"], "pending");
    app.check_invariants().await;
}
