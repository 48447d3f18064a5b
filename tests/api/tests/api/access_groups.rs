//! Access groups: named sets of model groups.

use crate::{
    fixtures::{assert_time, assert_uuid, stored},
    litellm_teams::known,
    teams::show,
};
use api_tests::{Answer, TestApp};
use serde_json::{Value, json};

async fn create(app: &TestApp, body: Value) -> Answer {
    app.admin().post("/api/model-access-groups/create", body).await
}

/// `POST /api/model-access-groups/create`
/// `GET /api/model-access-groups/{group_name}`
#[tokio::test]
async fn an_access_group_is_shown_as_it_was_made() {
    let app = TestApp::start().await;
    let (first, second) = (app.model_group(&["gpt-4"]).await, app.model_group(&["gpt-4o"]).await);
    let body = json!({
        "group_name": "Premium", "display_name": "Premium models", "description": "The best",
        "model_groups": [second, first],
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

/// `GET /api/model-access-groups`
#[tokio::test]
async fn access_groups_are_listed_by_name_with_a_total_and_in_pages() {
    let app = TestApp::start().await;
    let group = app.model_group(&["gpt-4"]).await;
    for name in ["c", "a", "b"] {
        create(&app, json!({"group_name": name, "model_groups": [group]})).await.ok();
    }
    for (query, expected) in [
        ("", vec!["a", "b", "c"]),
        ("?limit=2", vec!["a", "b"]),
        ("?limit=1&offset=2", vec!["c"]),
        ("?offset=3", vec![]),
    ] {
        let list = app.admin().get(&format!("/api/model-access-groups{query}")).await.ok();
        let groups = list["model_access_groups"].as_array().expect("a list");
        let names: Vec<&Value> = groups.iter().map(|group| &group["group_name"]).collect();
        assert_eq!(
            (names, &list["total"]),
            (expected.iter().map(|n| json!(n)).collect::<Vec<_>>().iter().collect(), &json!(3))
        );
    }
    let list = app.admin().get("/api/model-access-groups?limit=1").await.ok();
    assert_eq!(list["model_access_groups"][0], app.admin().get("/api/model-access-groups/a").await.ok());
}

/// `PUT /api/model-access-groups/{group_name}`
#[tokio::test]
async fn changing_an_access_group_keeps_what_is_left_out_and_null_takes_away() {
    let app = TestApp::start().await;
    let (first, second) = (app.model_group(&["gpt-4"]).await, app.model_group(&["gpt-4o"]).await);
    let body = json!({"group_name": "All", "description": "Everything", "model_groups": [first]});
    let mut expected = create(&app, body).await.ok();
    for (field, value) in [
        ("display_name", json!("Größe")),
        ("description", json!("Nearly everything")),
        ("description", Value::Null),
        ("model_groups", json!([second, first])),
        ("model_groups", json!([])),
    ] {
        let changed = app.admin().put("/api/model-access-groups/All", json!({field: value})).await.ok();
        expected[field] = value;
        expected["updated_at"] = changed["updated_at"].clone();
        assert_eq!(changed, expected, "{field}");
        assert_eq!(app.admin().get("/api/model-access-groups/All").await.ok(), expected, "{field}");
    }
    let before = stored(&app).await;
    for body in [
        json!({"group_name": "x"}),
        json!({"models": ["gpt-4"]}),
        json!({"display_name": ""}),
        json!({"model_groups": "x"}),
    ] {
        let answer = app.admin().put("/api/model-access-groups/All", body.clone()).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.body["code"]),
            (400, &json!("invalid_request")),
            "{body}"
        );
    }
    let unknown = json!({"display_name": "x", "model_groups": [first, "None"]});
    let answer = app.admin().put("/api/model-access-groups/All", unknown).await;
    answer.refused(404, "not_found", "Model group 'None' not found");
    let answer = app.admin().put("/api/model-access-groups/None", json!({})).await;
    answer.refused(404, "not_found", "Model access group 'None' not found");
    assert_eq!(stored(&app).await, before);
}

/// `PUT /api/model-access-groups/{group_name}/model-groups`
#[tokio::test]
async fn the_model_groups_of_an_access_group_reach_all_teams_that_have_it_at_once() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let (first, second) = (app.model_group(&["gpt-4"]).await, app.model_group(&["gpt-4o"]).await);
    create(&app, json!({"group_name": "All", "model_groups": [first]})).await.ok();
    let fields = json!({"access_groups": ["All"], "credits_allocated": 5});
    let (one, two) = (app.team_with(fields.clone()).await, app.team_with(fields).await);
    let job = one.job().await;
    one.call(&job, "hello").await.ok();

    let path = "/api/model-access-groups/All/model-groups";
    let changed = app.admin().put(path, json!([second, second])).await.ok();
    assert_eq!(changed["model_groups"], json!([second]));
    for team in [&one, &two] {
        assert_eq!(known(stand_in, &team.id).0, ["gpt-4o"]);
        assert_eq!(show(&app, team).await["allowed_models"], json!(["gpt-4o"]));
    }
    assert_eq!(one.call(&job, "hello").await.ok()["metadata"]["model_group"], json!(second));
    let old = json!({"model_group": first, "messages": [{"role": "user", "content": "hello"}]});
    one.client.post(&format!("/api/jobs/{job}/llm-call"), old).await.refused(
        403,
        "model_group_denied",
        &format!("Team '{}' does not have access to model group '{first}'", one.id),
    );
    app.admin().put(path, json!(["None"])).await.refused(404, "not_found", "Model group 'None' not found");
    let none = app.admin().put("/api/model-access-groups/None/model-groups", json!([])).await;
    none.refused(404, "not_found", "Model access group 'None' not found");
    one.complete(&job, "completed").await.ok();
    app.check_invariants().await;
}

#[tokio::test]
async fn litellm_hears_of_an_access_group_that_changed_while_it_was_down_before_the_next_call() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let (first, second) = (app.model_group(&["gpt-4"]).await, app.model_group(&["gpt-4o"]).await);
    create(&app, json!({"group_name": "All", "model_groups": [first]})).await.ok();
    let team = app.team_with(json!({"access_groups": ["All"], "credits_allocated": 5})).await;
    let job = team.job().await;
    stand_in.set_down(true);
    let changed = app.admin().put("/api/model-access-groups/All/model-groups", json!([second])).await.ok();
    let warning = "LiteLLM could not be told of the change for 1 teams; their next call does it";
    assert_eq!(changed["warnings"], json!([warning]));
    stand_in.set_down(false);
    let mut stream = team
        .client
        .stream(
            &format!("/api/jobs/{job}/llm-call-stream"),
            json!({"messages": [{"role": "user", "content": "hello"}]}),
        )
        .await;
    assert_eq!(stream.status, 200);
    while stream.next().await.is_some() {}
    assert_eq!(known(stand_in, &team.id).0, ["gpt-4o"]);
    team.complete(&job, "completed").await.ok();
    app.check_invariants().await;
}

/// `DELETE /api/model-access-groups/{group_name}`
#[tokio::test]
async fn an_access_group_can_be_deleted_once_no_team_has_it() {
    let app = TestApp::start().await;
    let group = app.model_group(&["gpt-4"]).await;
    create(&app, json!({"group_name": "All", "model_groups": [group]})).await.ok();
    let team = app.team_with(json!({"access_groups": ["All"]})).await;
    let path = "/api/model-access-groups/All";
    let in_use = "Model access group 'All' is still assigned to teams";
    app.admin().delete(path).await.refused(409, "in_use", in_use);
    app.admin().put(&format!("/api/teams/{}/access-groups", team.id), json!([])).await.ok();
    assert_eq!(app.admin().delete(path).await.ok(), json!({"group_name": "All", "deleted": true}));
    let gone = "Model access group 'All' not found";
    app.admin().delete(path).await.refused(404, "not_found", gone);
    app.admin().get(path).await.refused(404, "not_found", gone);
    let assign = app.admin().put(&format!("/api/teams/{}/access-groups", team.id), json!(["All"])).await;
    assign.refused(404, "not_found", gone);
    assert_eq!(app.admin().get("/api/model-access-groups").await.ok()["total"], 0);
    app.admin().get(&format!("/api/model-groups/{group}")).await.ok();
    create(&app, json!({"group_name": "All"})).await.ok();
}
