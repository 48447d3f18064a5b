//! LiteLLM is synchronized with model groups that change.

use crate::{
    litellm_teams::{directly, known},
    model_groups::model,
    teams::show,
};
use api_tests::TestApp;
use serde_json::json;

#[tokio::test]
async fn models_that_litellm_does_not_know_are_warned_about_and_saved() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let admin = app.admin();
    let models = json!([model("gpt-4o", 0), model("gpt-9", 1), model("gpt-10", 2)]);
    let unknown =
        json!(["LiteLLM does not know the model 'gpt-9'", "LiteLLM does not know the model 'gpt-10'"]);
    let created =
        admin.post("/api/model-groups/create", json!({"group_name": "Chat", "models": models})).await.ok();
    assert_eq!((&created["warnings"], &created["models"][2]["model_name"]), (&unknown, &json!("gpt-10")));
    let fine = admin.put("/api/model-groups/Chat/models", json!([model("gpt-4", 0)])).await.ok();
    assert_eq!(fine.get("warnings"), None);
    let changed = admin.put("/api/model-groups/Chat", json!({"models": models})).await.ok();
    assert_eq!(changed["warnings"], unknown);
    let access = json!({"group_name": "Basic", "models": ["gpt-9"]});
    let access = admin.post("/api/model-access-groups/create", access).await.ok();
    assert_eq!(access["warnings"], json!(["LiteLLM does not know the model 'gpt-9'"]));

    stand_in.set_down(true);
    let created = json!({"group_name": "Later", "models": [model("gpt-4o", 0)]});
    let created = admin.post("/api/model-groups/create", created).await.ok();
    assert_eq!(created["warnings"], json!(["LiteLLM could not be asked whether it knows the models"]));
}

#[tokio::test]
async fn changed_models_reach_every_key_of_every_team_that_may_use_the_group() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let (group, own) = (app.model_group(&["gpt-4o"]).await, app.model_group(&["gpt-4o-mini"]).await);
    let access = json!({"group_name": "All", "model_groups": [group]});
    app.admin().post("/api/model-access-groups/create", access).await.ok();
    let direct = app.team_with(json!({"model_groups": [group], "credits_allocated": 5})).await;
    let through = app.team_with(json!({"model_groups": [own], "access_groups": ["All"]})).await;
    let other = app.team_with(json!({"model_groups": [own]})).await;
    let further = app.admin().post(&format!("/api/teams/{}/keys/create", direct.id), json!({})).await.ok();
    let suspended = app.team_with(json!({"model_groups": [group]})).await;
    app.admin().put(&format!("/api/teams/{}/suspend", suspended.id), json!({})).await.ok();
    let told_before = stand_in.team(&other.id);

    app.admin().put(&format!("/api/model-groups/{group}/models"), json!([model("gpt-4", 0)])).await.ok();

    assert_eq!(stand_in.keys_of(&direct.id).len(), 2);
    for key in stand_in.keys_of(&direct.id) {
        assert_eq!(key.models, ["gpt-4"]);
    }
    assert_eq!(stand_in.team(&direct.id).expect("a team").models, ["gpt-4"]);
    assert_eq!(known(stand_in, &through.id).0, ["gpt-4o-mini", "gpt-4"]);
    assert_eq!(
        (known(stand_in, &suspended.id).0, known(stand_in, &suspended.id).2),
        (vec!["gpt-4".into()], true)
    );
    assert_eq!(stand_in.team(&other.id), told_before, "nothing changes for others");
    assert_eq!(show(&app, &through).await["allowed_models"], json!(["gpt-4o-mini", "gpt-4"]));
    let further =
        api_tests::Team { key: further["virtual_key"].as_str().expect("a key").into(), ..direct.clone() };
    for team in [&direct, &further] {
        assert_eq!(directly(&app, team, "gpt-4").await, 200);
        assert_eq!(directly(&app, team, "gpt-4o").await, 403);
    }
}

#[tokio::test]
async fn what_litellm_did_not_hear_of_a_group_it_is_told_before_the_teams_next_call() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let group = app.model_group(&["gpt-4o"]).await;
    let team = app.team_with(json!({"model_groups": [group], "credits_allocated": 5})).await;
    let job = team.job().await;
    team.call(&job, "hello").await.ok();

    stand_in.set_down(true);
    let changed =
        app.admin().put(&format!("/api/model-groups/{group}/models"), json!([model("gpt-4", 0)])).await.ok();
    let warning = "LiteLLM could not be told of the change for 1 teams; their next call does it";
    assert!(changed["warnings"].as_array().expect("warnings").contains(&json!(warning)), "{changed}");
    stand_in.set_down(false);
    assert_eq!(known(stand_in, &team.id).0, ["gpt-4o"], "else there is nothing to tell");

    team.call(&job, "hello").await.ok();
    assert_eq!(known(stand_in, &team.id).0, ["gpt-4"]);
    let tellings = |stand_in: &litellm_stand_in::StandIn| {
        stand_in.requests().iter().filter(|request| request.path == "/team/update").count()
    };
    let told = tellings(stand_in);
    team.call(&job, "hello").await.ok();
    assert_eq!(tellings(stand_in), told, "what LiteLLM knows it is not told again");
    team.complete(&job, "completed").await.ok();
    app.check_invariants().await;
}
