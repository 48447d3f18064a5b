//! Model groups: what teams see in place of models.

use crate::{
    fixtures::{assert_time, assert_uuid, stored},
    teams::show,
};
use api_tests::TestApp;
use serde_json::{Value, json};

/// A model of a group.
pub fn model(name: &str, priority: u32) -> Value {
    json!({"model_name": name, "priority": priority})
}

/// `POST /api/model-groups/create`
/// `GET /api/model-groups/{group_name}`
#[tokio::test]
async fn a_group_is_shown_as_it_was_made_with_its_models_in_order_of_priority() {
    let app = TestApp::start().await;
    let config = json!({"temperature": 0.2, "max_tokens": 100, "timeout_ms": 5000});
    let body = json!({
        "group_name": "Resume_Agent.v1-x", "display_name": "Résumé agent", "description": "Reads résumés",
        "metadata": {"a": 1},
        "models": [
            model("gpt-4o-mini", 7), {"model_name": "gpt-4o", "priority": 0, "config": config}, model("gpt-4", 1)],
    });
    let made = app.admin().post("/api/model-groups/create", body.clone()).await.ok();
    for field in ["group_name", "display_name", "description", "metadata"] {
        assert_eq!(made[field], body[field], "{field}");
    }
    let models: Vec<&Value> = made["models"].as_array().expect("models").iter().collect();
    assert_eq!(
        models.iter().map(|model| &model["model_name"]).collect::<Vec<_>>(),
        ["gpt-4o", "gpt-4", "gpt-4o-mini"]
    );
    assert_eq!(models.iter().map(|model| &model["priority"]).collect::<Vec<_>>(), [0, 1, 7]);
    assert_eq!(models[0]["config"], config);
    assert_eq!(made["status"], "active");
    assert_uuid(&made["model_group_id"]);
    assert_time(&made["created_at"]);
    assert_eq!(app.admin().get("/api/model-groups/Resume_Agent.v1-x").await.ok(), made);
}

#[tokio::test]
async fn a_group_without_a_display_name_is_displayed_by_its_name() {
    let app = TestApp::start().await;
    let body = json!({"group_name": "Chat", "models": [model("gpt-4o", 0)]});
    let made = app.admin().post("/api/model-groups/create", body).await.ok();
    assert_eq!(
        (&made["display_name"], &made["description"], &made["metadata"]),
        (&json!("Chat"), &Value::Null, &json!({}))
    );
    assert_eq!(made["models"][0]["config"], json!({}));
}

#[tokio::test]
async fn a_taken_name_is_refused_and_the_group_stays_as_it_is() {
    let app = TestApp::start().await;
    let create = |models: Value| {
        let admin = app.admin();
        async move {
            admin.post("/api/model-groups/create", json!({"group_name": "Chat", "models": models})).await
        }
    };
    create(json!([model("gpt-4o", 0)])).await.ok();
    let before = stored(&app).await;
    create(json!([model("gpt-4", 0)])).await.refused(
        409,
        "already_exists",
        "Model group 'Chat' already exists",
    );
    assert_eq!(stored(&app).await, before);
    app.admin().get("/api/model-groups/chat").await.refused(404, "not_found", "Model group 'chat' not found");
}

/// `GET /api/model-groups`
#[tokio::test]
async fn the_list_has_a_total_and_pages() {
    let app = TestApp::start().await;
    for name in ["c", "a", "e", "b", "d"] {
        let body = json!({"group_name": name, "models": [model("gpt-4o", 0)]});
        app.admin().post("/api/model-groups/create", body).await.ok();
    }
    for (query, expected) in [
        ("", vec!["a", "b", "c", "d", "e"]),
        ("?limit=2", vec!["a", "b"]),
        ("?limit=2&offset=3", vec!["d", "e"]),
        ("?limit=2&offset=4", vec!["e"]),
        ("?offset=5", vec![]),
    ] {
        let list = app.admin().get(&format!("/api/model-groups{query}")).await.ok();
        let names: Vec<&Value> =
            list["model_groups"].as_array().expect("a list").iter().map(|g| &g["group_name"]).collect();
        assert_eq!(
            (names, &list["total"]),
            (expected.iter().map(|name| json!(name)).collect::<Vec<_>>().iter().collect(), &json!(5))
        );
    }
}

#[tokio::test]
async fn a_team_sees_the_groups_that_it_may_use_and_no_models() {
    let app = TestApp::start().await;
    let (first, second) =
        (app.model_group(&["gpt-4", "gpt-4o"]).await, app.model_group(&["claude-3-opus"]).await);
    let other = app.model_group(&["gpt-4-turbo"]).await;
    let team = app.team_with(json!({"model_groups": [second, first]})).await;

    let list = team.client.get("/api/model-groups").await;
    let own = team.client.get(&format!("/api/model-groups/{first}")).await;
    for text in [&list.text, &own.text] {
        for hidden in ["gpt", "claude", "models", "config", other.as_str()] {
            assert!(!text.contains(hidden), "{hidden} in {text}");
        }
    }
    let list = list.ok();
    let names: Vec<&Value> =
        list["model_groups"].as_array().expect("a list").iter().map(|g| &g["group_name"]).collect();
    assert_eq!(
        (names, &list["total"]),
        (vec![&json!(second), &json!(first)], &json!(2)),
        "in the order of assignment"
    );
    assert_eq!(own.ok()["group_name"], json!(first));
    for hidden in [other.as_str(), "None"] {
        let answer = team.client.get(&format!("/api/model-groups/{hidden}")).await;
        answer.refused(404, "not_found", &format!("Model group '{hidden}' not found"));
    }
}

#[tokio::test]
async fn a_teams_list_has_pages_too() {
    let app = TestApp::start().await;
    let (first, second) = (app.model_group(&["gpt-4"]).await, app.model_group(&["gpt-4o"]).await);
    let team = app.team_with(json!({"model_groups": [first, second]})).await;
    let page = team.client.get("/api/model-groups?limit=1&offset=1").await.ok();
    let names: Vec<&Value> =
        page["model_groups"].as_array().expect("a list").iter().map(|g| &g["group_name"]).collect();
    assert_eq!((names, &page["total"]), (vec![&json!(second)], &json!(2)));
}

/// `GET /api/model-groups/{group_name}/resolve`
#[tokio::test]
async fn resolving_shows_models_only_to_those_who_may_use_them() {
    let app = TestApp::start().await;
    let group = app.model_group(&["gpt-4", "gpt-4o", "gpt-4o-mini"]).await;
    let single = app.model_group(&["gpt-4"]).await;
    let other = app.model_group(&["claude-3-opus"]).await;
    let team = app.team_with(json!({"model_groups": [group, single]})).await;
    for client in [app.admin(), team.client.clone()] {
        let resolve = |name: &str| {
            let (client, path) =
                (client.clone(), format!("/api/model-groups/{name}/resolve?team_id={}", team.id));
            async move { client.get(&path).await }
        };
        let expected = json!({
            "group_name": group, "primary_model": "gpt-4", "fallback_models": ["gpt-4o", "gpt-4o-mini"],
            "team_has_access": true,
        });
        assert_eq!(resolve(&group).await.ok(), expected);
        let expected = json!({"group_name": single, "primary_model": "gpt-4", "fallback_models": [],
            "team_has_access": true});
        assert_eq!(resolve(&single).await.ok(), expected);
        let expected = json!({"group_name": other, "primary_model": null, "fallback_models": [],
            "team_has_access": false});
        assert_eq!(resolve(&other).await.ok(), expected);
        resolve("None").await.refused(404, "not_found", "Model group 'None' not found");
    }
    let own = team.client.get(&format!("/api/model-groups/{single}/resolve")).await.ok();
    assert_eq!(
        (&own["primary_model"], &own["team_has_access"]),
        (&json!("gpt-4"), &json!(true)),
        "a team need not say which"
    );
    let of_nobody = app.admin().get(&format!("/api/model-groups/{group}/resolve?team_id=None")).await;
    of_nobody.refused(404, "not_found", "Team 'None' not found");
}

/// `PUT /api/model-groups/{group_name}`
#[tokio::test]
async fn changing_a_group_keeps_what_is_left_out_and_null_takes_away() {
    let app = TestApp::start().await;
    let body = json!({
        "group_name": "Chat", "display_name": "Chat", "description": "Talks", "metadata": {"a": 1},
        "models": [{"model_name": "gpt-4o", "priority": 3, "config": {"temperature": 0.5}}],
    });
    let mut expected = app.admin().post("/api/model-groups/create", body).await.ok();
    for (field, value) in [
        ("display_name", json!("Größe")),
        ("description", json!("Talks more")),
        ("description", Value::Null),
        ("metadata", json!({"b": [1.50]})),
        ("models", json!([{"model_name": "gpt-4", "priority": 0, "config": {"max_tokens": 5}}])),
    ] {
        let changed = app.admin().put("/api/model-groups/Chat", json!({field: value})).await.ok();
        assert!(changed["updated_at"].as_str() > expected["updated_at"].as_str(), "{field}");
        expected[field] = value;
        expected["updated_at"] = changed["updated_at"].clone();
        assert_eq!(changed, expected, "{field}");
        assert_eq!(app.admin().get("/api/model-groups/Chat").await.ok(), expected, "{field}");
    }
}

/// `GET /api/model-groups/{group_name}/models`
/// `PUT /api/model-groups/{group_name}/models`
#[tokio::test]
async fn a_groups_models_are_replaced_by_a_bare_list() {
    let app = TestApp::start().await;
    let group = app.model_group(&["gpt-4o"]).await;
    let path = format!("/api/model-groups/{group}/models");
    let config = json!({"temperature": 0.2, "timeout_ms": 5000});
    let list = json!([model("gpt-4", 2), {"model_name": "gpt-4o-mini", "priority": 1, "config": config}]);
    let changed = app.admin().put(&path, list).await.ok();
    let expected = json!([
        {"model_name": "gpt-4o-mini", "priority": 1, "config": config},
        {"model_name": "gpt-4", "priority": 2, "config": {}},
    ]);
    assert_eq!((&changed["group_name"], &changed["models"]), (&json!(group), &expected));
    assert_eq!(app.admin().get(&path).await.ok(), json!({"group_name": group, "models": expected}));
    assert_eq!(app.admin().get(&format!("/api/model-groups/{group}")).await.ok()["models"], expected);
    for answer in [
        app.admin().get("/api/model-groups/None/models").await,
        app.admin().put("/api/model-groups/None/models", json!([model("gpt-4", 0)])).await,
        app.admin().put("/api/model-groups/None", json!({"display_name": "x"})).await,
    ] {
        answer.refused(404, "not_found", "Model group 'None' not found");
    }
}

#[tokio::test]
async fn models_that_are_not_valid_together_are_refused_and_the_group_stays_as_it_is() {
    let app = TestApp::start().await;
    let group = app.model_group(&["gpt-4o"]).await;
    let path = format!("/api/model-groups/{group}");
    let before = stored(&app).await;
    let with = |config: Value| json!([{"model_name": "gpt-4", "priority": 0, "config": config}]);
    for (models, field) in [
        (json!([]), "models"),
        (json!((0..17).map(|at| model("gpt-4", at)).collect::<Vec<_>>()), "models"),
        (json!([model("gpt-4", 1), model("gpt-4o", 1)]), "models"),
        (with(json!({"temperature": 9})), "models[0].config.temperature"),
        (with(json!({"api_base": "http://x"})), "models[0].config.api_base"),
        (with(json!({"timeout_ms": 0})), "models[0].config.timeout_ms"),
    ] {
        for answer in [
            app.admin().put(&format!("{path}/models"), models.clone()).await,
            app.admin().put(&path, json!({"models": models})).await,
        ] {
            let detail = answer.body["detail"].as_str().unwrap_or_default();
            assert!(
                answer.status == 400 && detail.starts_with(&format!("{field}: ")),
                "{models}: {} {}",
                answer.status,
                answer.text
            );
        }
    }
    for (path, body) in [
        (format!("{path}/models"), json!({"models": [model("gpt-4", 0)]})),
        (format!("{path}/models"), json!(["gpt-4"])),
        (format!("{path}/models"), json!([{"model_name": "gpt-4"}])),
        (format!("{path}/models"), json!([{"model_name": "gpt-4", "priority": 0, "weight": 1}])),
        (path.clone(), json!({"group_name": "other"})),
        (path.clone(), json!({"display_nam": "x"})),
    ] {
        let answer = app.admin().put(&path, body.clone()).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.body["code"]),
            (400, &json!("invalid_request")),
            "{body}: {}",
            answer.text
        );
    }
    assert_eq!(stored(&app).await, before);
}

#[tokio::test]
async fn text_that_can_not_be_stored_is_refused_in_a_models_config_too() {
    let app = TestApp::start().await;
    for escape in ["\\u0000", "\\ud800"] {
        let body = format!(
            r#"{{"group_name": "Chat", "models": [{{"model_name": "gpt-4o", "priority": 0, "config": {{"stop": "a{escape}"}}}}]}}"#
        );
        let request = app.admin().request(reqwest::Method::POST, "/api/model-groups/create").body(body);
        let answer = api_tests::Answer::of(request).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.body["code"]),
            (400, &json!("invalid_request")),
            "{}",
            answer.text
        );
    }
}

/// `DELETE /api/model-groups/{group_name}`
#[tokio::test]
async fn a_group_can_be_deleted_once_nobody_uses_it() {
    let app = TestApp::start().await;
    let group = app.model_group(&["gpt-4o"]).await;
    let path = format!("/api/model-groups/{group}");
    let in_use = format!("Model group '{group}' is still assigned to teams or access groups");
    let team = app.team_with(json!({"model_groups": [group]})).await;
    app.admin().delete(&path).await.refused(409, "in_use", &in_use);

    let access = json!({"group_name": "All", "model_groups": [group]});
    app.admin().post("/api/model-access-groups/create", access).await.ok();
    app.admin().put(&format!("/api/teams/{}/model-groups", team.id), json!([])).await.ok();
    app.admin().delete(&path).await.refused(409, "in_use", &in_use);

    app.admin().put("/api/model-access-groups/All/model-groups", json!([])).await.ok();
    assert_eq!(app.admin().delete(&path).await.ok(), json!({"group_name": group, "deleted": true}));
    let gone = format!("Model group '{group}' not found");
    app.admin().delete(&path).await.refused(404, "not_found", &gone);
    app.admin().get(&path).await.refused(404, "not_found", &gone);
    let assign = app.admin().put(&format!("/api/teams/{}/model-groups", team.id), json!([group])).await;
    assign.refused(404, "not_found", &gone);
    let list = app.admin().get("/api/model-groups").await.ok();
    assert_eq!(list, json!({"total": 0, "model_groups": []}));
    let again = json!({"group_name": group, "models": [model("gpt-4", 0)]});
    app.admin().post("/api/model-groups/create", again).await.ok();
}

#[tokio::test]
async fn a_default_that_came_from_an_access_group_is_none_when_it_goes_and_can_be_deleted() {
    let app = TestApp::start().await;
    let (default, other) = (app.model_group(&["gpt-4o"]).await, app.model_group(&["gpt-4o-mini"]).await);
    let access = json!({"group_name": "All", "model_groups": [default, other]});
    app.admin().post("/api/model-access-groups/create", access).await.ok();
    let fields = json!({"access_groups": ["All"], "default_model_group": default, "credits_allocated": 1});
    let team = app.team_with(fields).await;
    assert_eq!(show(&app, &team).await["default_model_group"], json!(default));

    app.admin().put("/api/model-access-groups/All/model-groups", json!([other])).await.ok();
    assert_eq!(show(&app, &team).await["default_model_group"], Value::Null);
    let job = team.job().await;
    assert_eq!(team.call(&job, "hello").await.ok()["metadata"]["model_group"], json!(other));
    app.admin().delete(&format!("/api/model-groups/{default}")).await.ok();
    team.complete(&job, "completed").await.ok();
    app.check_invariants().await;
}
