//! Teams as they are created and shown.

use crate::fixtures::{assert_time, stored, unique};
use api_tests::{Team, TestApp};
use serde_json::{Value, json};

/// The team as the admin sees it.
pub async fn show(app: &TestApp, team: &Team) -> Value {
    app.admin().get(&format!("/api/teams/{}", team.id)).await.ok()
}

/// `POST /api/teams/create`
/// `GET /api/teams/{team_id}`
#[tokio::test]
async fn creating_a_team_answers_all_that_it_is_and_its_key() {
    let app = TestApp::start().await;
    let organization = app.organization().await;
    let (first, second) =
        (app.model_group(&["gpt-4", "gpt-4o"]).await, app.model_group(&["gpt-4o", "gpt-4o-mini"]).await);
    let id = unique("Team_A.1");
    let body = json!({
        "organization_id": organization, "team_id": id, "team_alias": "Acme – Production", "credits_allocated": 1000,
        "model_groups": [second, first], "access_groups": [], "metadata": {"a": 1}, "max_budget": 25,
        "budget_duration": "30d", "rpm_limit": 60, "tpm_limit": 10_000, "default_model_group": first,
        "budget_mode": "soft", "credit_limit": 7,
    });
    let mut created = app.admin().post("/api/teams/create", body).await.ok();
    let key = created.as_object_mut().and_then(|team| team.remove("virtual_key")).expect("a key");
    let key = key.as_str().expect("a key").to_owned();
    assert!(key.starts_with("sk-") && key.len() > 20);
    let expected = json!({
        "team_id": id, "organization_id": organization, "team_alias": "Acme – Production",
        "model_groups": [second, first],
        "access_groups": [], "allowed_models": ["gpt-4o", "gpt-4o-mini", "gpt-4"], "credits_allocated": 1000,
        "credits_remaining": 1000, "message": "Team created successfully with LiteLLM integration",
    });
    assert_eq!(created, expected);

    let shown = app.bearer(&key).get(&format!("/api/teams/{id}")).await.ok();
    let told =
        ["team_id", "organization_id", "team_alias", "model_groups", "access_groups", "allowed_models"];
    for field in told {
        assert_eq!(shown[field], expected[field], "{field}");
    }
    let credits = json!({
        "credits_allocated": 1000, "credits_used": 0, "credits_remaining": 1000, "credits_reserved": 0,
        "credits_available": 1000,
    });
    for (field, value) in [
        ("credits", credits),
        ("status", json!("active")),
        ("metadata", json!({"a": 1})),
        ("max_budget", json!(25)),
        ("budget_duration", json!("30d")),
        ("rpm_limit", json!(60)),
        ("tpm_limit", json!(10_000)),
        ("default_model_group", json!(first)),
        ("budget_mode", json!("soft")),
        ("credit_limit", json!(7)),
    ] {
        assert_eq!(shown[field], value, "{field}");
    }
    assert_eq!(shown["key"]["hint"], json!(key[key.len() - 4..]));
    assert_time(&shown["key"]["created_at"]);
    assert_eq!(app.admin().get(&format!("/api/teams/{id}")).await.ok(), shown);
    app.check_invariants().await;
}

#[tokio::test]
async fn a_team_needs_nothing_but_an_organization() {
    let app = TestApp::start().await;
    let organization = app.organization().await;
    let created = app.admin().post("/api/teams/create", json!({"organization_id": organization})).await.ok();
    let id = created["team_id"].as_str().expect("an id");
    assert!(created["team_alias"].is_string());
    let empty = json!([]);
    for field in ["model_groups", "access_groups", "allowed_models"] {
        assert_eq!(created[field], empty, "{field}");
    }
    assert_eq!((&created["credits_allocated"], &created["credits_remaining"]), (&json!(0), &json!(0)));
    let team = Team {
        id: id.into(),
        key: String::new(),
        client: app.bearer(created["virtual_key"].as_str().expect("a key")),
    };
    let body = json!({"team_id": id, "job_type": "test"});
    let refused = "Insufficient credits. Required: 1, Available: 0";
    team.client.post("/api/jobs/create", body).await.refused(402, "insufficient_credits", refused);
    app.check_invariants().await;
}

#[tokio::test]
async fn what_a_team_names_must_exist_and_a_refused_one_leaves_nothing() {
    let app = TestApp::start().await;
    let (organization, group) = (app.organization().await, app.model_group(&["gpt-4o"]).await);
    let before = stored(&app).await;
    let id = unique("team");
    for (fields, detail) in [
        (json!({"organization_id": "None"}), "Organization 'None' not found".to_owned()),
        (json!({"model_groups": [group, "None"]}), "Model group 'None' not found".into()),
        (json!({"access_groups": ["None"]}), "Model access group 'None' not found".into()),
        (json!({"default_model_group": "None"}), "Model group 'None' not found".into()),
    ] {
        let mut body = json!({"organization_id": organization, "team_id": id});
        body.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
        app.admin().post("/api/teams/create", body).await.refused(404, "not_found", &detail);
    }
    let body = json!({"organization_id": organization, "team_id": id, "default_model_group": group});
    let answer = app.admin().post("/api/teams/create", body).await;
    assert_eq!(answer.status, 400, "{}", answer.text);
    assert!(
        answer.body["detail"].as_str().is_some_and(|detail| detail.starts_with("default_model_group: ")),
        "{}",
        answer.text
    );
    assert_eq!(stored(&app).await, before);
    if let Some(stand_in) = app.stand_in() {
        assert_eq!(stand_in.team(&id), None);
    }
}

#[tokio::test]
async fn a_taken_id_is_refused_and_its_team_stays_as_it_is() {
    let app = TestApp::start().await;
    let team = app.team(5).await;
    let before = stored(&app).await;
    let body =
        json!({"organization_id": app.organization().await, "team_id": team.id, "credits_allocated": 100});
    let answer = app.admin().post("/api/teams/create", body).await;
    answer.refused(409, "already_exists", &format!("Team '{}' already exists", team.id));
    let after = stored(&app).await;
    let lines = |text: &str| {
        text.lines().filter(|line| line.contains(&team.id)).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(lines(&after), lines(&before));
    if let Some(stand_in) = app.stand_in() {
        assert_eq!(
            (stand_in.keys_of(&team.id).len(), stand_in.team(&team.id).and_then(|t| t.max_budget)),
            (1, Some(0.5))
        );
    }
    team.job().await;
}

/// `GET /api/teams`
#[tokio::test]
async fn teams_are_listed_by_id_with_a_total_and_in_pages() {
    let app = TestApp::start().await;
    let mut teams = vec![];
    for _ in 0..3 {
        teams.push(app.team(2).await);
    }
    teams.sort_by(|a, b| a.id.cmp(&b.id));
    for (query, expected) in
        [("", vec![0, 1, 2]), ("?limit=2", vec![0, 1]), ("?limit=2&offset=2", vec![2]), ("?offset=3", vec![])]
    {
        let list = app.admin().get(&format!("/api/teams{query}")).await.ok();
        let ids: Vec<&Value> =
            list["teams"].as_array().expect("a list").iter().map(|team| &team["team_id"]).collect();
        assert_eq!(ids, expected.iter().map(|at| teams[*at].id.as_str()).collect::<Vec<_>>(), "{query}");
        assert_eq!(list["total"], 3, "{query}");
    }
    let list = app.admin().get("/api/teams").await.ok();
    assert_eq!(list["teams"][0], show(&app, &teams[0]).await, "a team in the list is the team");
    app.admin().get("/api/teams/None").await.refused(404, "not_found", "Team 'None' not found");
}

#[tokio::test]
async fn a_default_group_is_used_by_calls_that_name_none() {
    let app = TestApp::start().await;
    let (first, second) = (app.model_group(&["gpt-4o"]).await, app.model_group(&["gpt-4o-mini"]).await);
    let fields =
        json!({"model_groups": [first, second], "default_model_group": second, "credits_allocated": 2});
    let team = app.team_with(fields).await;
    let job = team.job().await;
    assert_eq!(team.call(&job, "hello").await.ok()["metadata"]["model_group"], json!(second));
    let body = json!([first]);
    app.admin().put(&format!("/api/teams/{}/model-groups", team.id), body).await.ok();
    let answer = team.call(&job, "hello").await.ok();
    assert_eq!(
        answer["metadata"]["model_group"],
        json!(first),
        "the default is gone, so it is the first one"
    );
    app.check_invariants().await;
}

#[tokio::test]
async fn a_key_shows_when_it_last_did_something() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    assert_eq!(show(&app, &team).await["key"]["last_used_at"], Value::Null);
    team.job().await;
    assert_time(&show(&app, &team).await["key"]["last_used_at"]);
}
