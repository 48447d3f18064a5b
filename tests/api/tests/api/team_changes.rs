//! Teams that are changed, suspended and resumed.

use crate::{
    fixtures::stored,
    litellm_teams::{directly, known},
    teams::show,
};
use api_tests::{Team, TestApp};
use serde_json::{Value, json};

/// `PUT /api/teams/{team_id}/model-groups`
#[tokio::test]
async fn model_groups_are_replaced_at_once_and_the_key_stays() {
    let app = TestApp::start().await;
    let (old, new) = (app.model_group(&["gpt-4o"]).await, app.model_group(&["gpt-4o-mini", "gpt-4"]).await);
    let team = app.team_with(json!({"model_groups": [old], "credits_allocated": 2})).await;
    let job = team.job().await;
    let call = |group: &str| {
        let body = json!({"model_group": group, "messages": [{"role": "user", "content": "hello"}]});
        let (client, path) = (team.client.clone(), format!("/api/jobs/{job}/llm-call"));
        async move { client.post(&path, body).await }
    };
    let denied = |group: &str| format!("Team '{}' does not have access to model group '{group}'", team.id);
    call(&old).await.ok();
    call(&new).await.refused(403, "model_group_denied", &denied(&new));

    let path = format!("/api/teams/{}/model-groups", team.id);
    let changed = app.admin().put(&path, json!([new, new])).await.ok();
    assert_eq!(
        (&changed["model_groups"], &changed["allowed_models"]),
        (&json!([new]), &json!(["gpt-4o-mini", "gpt-4"]))
    );
    assert_eq!(show(&app, &team).await["model_groups"], json!([new]));
    call(&new).await.ok();
    call(&old).await.refused(403, "model_group_denied", &denied(&old));

    let before = stored(&app).await;
    app.admin().put(&path, json!([old, "None"])).await.refused(
        404,
        "not_found",
        "Model group 'None' not found",
    );
    assert_eq!(stored(&app).await, before);
    app.admin().put("/api/teams/None/model-groups", json!([])).await.refused(
        404,
        "not_found",
        "Team 'None' not found",
    );
    app.check_invariants().await;
}

/// `PUT /api/teams/{team_id}/suspend`
/// `PUT /api/teams/{team_id}/resume`
#[tokio::test]
async fn suspending_and_resuming_can_be_repeated_and_end_no_job() {
    let app = TestApp::start().await;
    let team = app.team(2).await;
    let job = team.job().await;
    for (verb, status) in
        [("suspend", "suspended"), ("suspend", "suspended"), ("resume", "active"), ("resume", "active")]
    {
        let answer = app.admin().put(&format!("/api/teams/{}/{verb}", team.id), json!({})).await.ok();
        assert_eq!((&answer["team_id"], &answer["status"]), (&json!(team.id), &json!(status)));
        assert_eq!(show(&app, &team).await["status"], status);
        app.admin().put(&format!("/api/teams/None/{verb}"), json!({})).await.refused(
            404,
            "not_found",
            "Team 'None' not found",
        );
    }
    team.call(&job, "hello").await.ok();
    team.complete(&job, "completed").await.ok();
    app.check_invariants().await;
}

#[tokio::test]
async fn a_suspended_team_can_be_topped_up_and_assigned_groups_and_stays_suspended() {
    let app = TestApp::start().await;
    let team = app.team(2).await;
    let path = |rest: &str| format!("/api/teams/{}/{rest}", team.id);
    app.admin().put(&path("suspend"), json!({})).await.ok();
    app.admin().post(&format!("/api/credits/teams/{}/add", team.id), json!({"amount": 1})).await.ok();
    assert_eq!(app.admin().put(&path("model-groups"), json!([])).await.ok()["status"], "suspended");
    if let Some(stand_in) = app.stand_in() {
        assert!(stand_in.team(&team.id).is_some_and(|team| team.blocked && team.max_budget == Some(0.3)));
    }
    team.client.get("/api/model-groups").await.refused(
        403,
        "team_suspended",
        &format!("Team '{}' is suspended", team.id),
    );
    app.check_invariants().await;
}

/// `PUT /api/teams/{team_id}`
#[tokio::test]
async fn every_field_of_a_team_can_be_changed_and_null_takes_a_limit_away() {
    let app = TestApp::start().await;
    let (first, second) = (app.model_group(&["gpt-4"]).await, app.model_group(&["gpt-4o"]).await);
    let team = app.team_with(json!({"model_groups": [first, second], "credits_allocated": 5})).await;
    let path = format!("/api/teams/{}", team.id);
    let tiers = json!({"mode": "tiered", "tiers": [
        {"up_to": 100, "price_per_job_usd": "0.50"}, {"up_to": null, "price_per_job_usd": "0.40"}]});
    let mut expected = show(&app, &team).await;
    for (field, value) in [
        ("team_alias", json!("Größe & Co.")),
        ("budget_mode", json!("soft")),
        ("credit_limit", json!(7)),
        ("credit_limit", Value::Null),
        ("budget_mode", json!("hard")),
        ("max_budget", json!(12.345)),
        ("budget_duration", json!("7d")),
        ("budget_duration", Value::Null),
        ("max_budget", Value::Null),
        ("rpm_limit", json!(61)),
        ("rpm_limit", Value::Null),
        ("tpm_limit", json!(10_001)),
        ("tpm_limit", Value::Null),
        ("default_model_group", json!(second)),
        ("default_model_group", Value::Null),
        ("billing_mode", json!("consumption_usd")),
        ("credits_per_dollar", json!(20.5)),
        ("billing_mode", json!("consumption_tokens")),
        ("tokens_per_credit", json!(500)),
        ("pricing", json!({"mode": "flat", "price_per_job_usd": "0.50"})),
        ("pricing", json!({"mode": "markup", "markup_percent": "30"})),
        ("pricing", tiers),
        ("pricing", Value::Null),
        ("webhook_url", json!("https://hooks.example.com/a/b")),
        ("webhook_url", Value::Null),
        ("metadata", json!({"b": [2.50]})),
    ] {
        let changed = app.admin().put(&path, json!({field: value})).await.ok();
        assert!(changed["updated_at"].as_str() > expected["updated_at"].as_str(), "{field}");
        expected[field] = value;
        // Without a budget of its own a team has what its credits are worth.
        if expected["max_budget"].is_null() || field == "budget_mode" || field == "credit_limit" {
            expected["max_budget"] = match (&expected["budget_mode"], expected["credit_limit"].as_i64()) {
                (mode, _) if mode == "hard" => json!(0.5),
                (_, Some(_)) => json!(1.2),
                (_, None) => Value::Null,
            };
        }
        expected["updated_at"] = changed["updated_at"].clone();
        assert_eq!(changed, expected, "{field}");
        assert_eq!(show(&app, &team).await, expected, "{field}");
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn a_changed_team_is_told_to_litellm_with_its_name_budget_and_limits() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let team = app.team(5).await;
    let path = format!("/api/teams/{}", team.id);
    app.admin().post(&format!("{path}/keys/create"), json!({})).await.ok();
    for (fields, alias, budget, duration, rpm, tpm) in [
        (json!({"team_alias": "New"}), "New", Some(0.5), None, None, None),
        (json!({"max_budget": 12.5, "budget_duration": "7d"}), "New", Some(12.5), Some("7d"), None, None),
        (
            json!({"rpm_limit": 61, "tpm_limit": 10_001}),
            "New",
            Some(12.5),
            Some("7d"),
            Some(61),
            Some(10_001),
        ),
        (
            json!({"max_budget": null, "budget_duration": null, "rpm_limit": null, "tpm_limit": null}),
            "New",
            Some(0.5),
            None,
            None,
            None,
        ),
    ] {
        app.admin().put(&path, fields.clone()).await.ok();
        let known = stand_in.team(&team.id).expect("the team");
        assert_eq!(known.team_alias.as_deref(), Some(alias), "{fields}");
        assert_eq!(
            (known.max_budget, known.budget_duration.as_deref(), known.rpm_limit, known.tpm_limit),
            (budget, duration, rpm, tpm),
            "{fields}"
        );
        let keys = stand_in.keys_of(&team.id);
        assert_eq!(keys.len(), 2);
        for key in keys {
            assert_eq!(
                (key.max_budget, key.budget_duration.as_deref(), key.rpm_limit, key.tpm_limit),
                (budget, duration, rpm, tpm),
                "{fields}"
            );
        }
    }
}

#[tokio::test]
async fn a_refused_change_of_a_team_leaves_it_as_it_is_here_and_in_litellm() {
    let app = TestApp::start().await;
    let team = app.team(5).await;
    let other = app.model_group(&["gpt-4"]).await;
    let path = format!("/api/teams/{}", team.id);
    let before = stored(&app).await;
    let known_before = app.stand_in().map(|stand_in| known(stand_in, &team.id));
    for (body, field) in [
        (json!({"team_id": "x"}), "team_id"),
        (json!({"organization_id": "x"}), "organization_id"),
        (json!({"credits_allocated": 5}), "credits_allocated"),
        (json!({"model_groups": []}), "model_groups"),
        (json!({"status": "suspended"}), "status"),
        (json!({"team_alias": ""}), "team_alias"),
        (json!({"budget_mode": "strict"}), "budget_mode"),
        (json!({"credit_limit": -1}), "credit_limit"),
        (json!({"budget_duration": "1y"}), "budget_duration"),
        (json!({"max_budget": -0.01}), "max_budget"),
        (json!({"rpm_limit": 0}), "rpm_limit"),
        (json!({"tpm_limit": 1.5}), "tpm_limit"),
        (json!({"default_model_group": other}), "default_model_group"),
        (json!({"billing_mode": "free"}), "billing_mode"),
        (json!({"credits_per_dollar": 0}), "credits_per_dollar"),
        (json!({"tokens_per_credit": 0}), "tokens_per_credit"),
        (json!({"pricing": {"mode": "flat"}}), "pricing"),
        (json!({"pricing": {"mode": "flat", "price_per_job_usd": "-1"}}), "pricing.price_per_job_usd"),
        (json!({"pricing": {"mode": "tiered", "tiers": []}}), "pricing"),
        (
            json!({"pricing": {"mode": "tiered", "tiers": [{"up_to": 5, "price_per_job_usd": "1"}]}}),
            "pricing",
        ),
        (json!({"webhook_url": "ftp://x"}), "webhook_url"),
        (json!({"webhook_url": "https://me:secret@x.example"}), "webhook_url"),
        (json!({"metadata": []}), "metadata"),
        (json!({"rpm_limit": 5, "tpm_limti": 5}), "tpm_limti"),
    ] {
        let answer = app.admin().put(&path, body.clone()).await;
        let detail = answer.body["detail"].as_str().unwrap_or_default();
        assert!(
            answer.status == 400 && detail.starts_with(&format!("{field}: ")),
            "{body}: {} {}",
            answer.status,
            answer.text
        );
    }
    let unknown = app.admin().put(&path, json!({"team_alias": "x", "default_model_group": "None"})).await;
    unknown.refused(404, "not_found", "Model group 'None' not found");
    let none = app.admin().put("/api/teams/None", json!({"team_alias": "x"})).await;
    none.refused(404, "not_found", "Team 'None' not found");
    assert_eq!(stored(&app).await, before);
    assert_eq!(app.stand_in().map(|stand_in| known(stand_in, &team.id)), known_before);
}

/// `PUT /api/teams/{team_id}/access-groups`
#[tokio::test]
async fn access_groups_are_replaced_at_once_and_a_default_that_goes_with_them_is_none() {
    let app = TestApp::start().await;
    let (own, shared) = (app.model_group(&["gpt-4o-mini"]).await, app.model_group(&["gpt-4"]).await);
    for (name, groups) in [("All", json!([shared])), ("Empty", json!([]))] {
        let body = json!({"group_name": name, "model_groups": groups});
        app.admin().post("/api/model-access-groups/create", body).await.ok();
    }
    let team = app.team_with(json!({"model_groups": [own], "credits_allocated": 2})).await;
    let path = format!("/api/teams/{}", team.id);
    let put = |names: Value| {
        let (admin, path) = (app.admin(), format!("{path}/access-groups"));
        async move { admin.put(&path, names).await }
    };
    let changed = put(json!(["Empty", "All", "All"])).await.ok();
    assert_eq!(
        (&changed["access_groups"], &changed["allowed_models"]),
        (&json!(["Empty", "All"]), &json!(["gpt-4o-mini", "gpt-4"]))
    );
    if let Some(stand_in) = app.stand_in() {
        assert_eq!(known(stand_in, &team.id).0, ["gpt-4o-mini", "gpt-4"]);
    }
    let defaulted = app.admin().put(&path, json!({"default_model_group": shared})).await.ok();
    assert_eq!(defaulted["default_model_group"], json!(shared));
    let job = team.job().await;
    assert_eq!(team.call(&job, "hello").await.ok()["metadata"]["model_group"], json!(shared));

    let changed = put(json!(["Empty"])).await.ok();
    assert_eq!(
        (&changed["default_model_group"], &changed["allowed_models"]),
        (&Value::Null, &json!(["gpt-4o-mini"]))
    );
    assert_eq!(team.call(&job, "hello").await.ok()["metadata"]["model_group"], json!(own));
    if let Some(stand_in) = app.stand_in() {
        assert_eq!(known(stand_in, &team.id).0, ["gpt-4o-mini"]);
    }
    let before = stored(&app).await;
    put(json!(["All", "None"])).await.refused(404, "not_found", "Model access group 'None' not found");
    let none = app.admin().put("/api/teams/None/access-groups", json!([])).await;
    none.refused(404, "not_found", "Team 'None' not found");
    assert_eq!(stored(&app).await, before);
    team.complete(&job, "completed").await.ok();
    app.check_invariants().await;
}

#[tokio::test]
async fn suspending_stops_every_key_of_a_team_also_one_that_is_made_meanwhile() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let team = app.team(2).await;
    let path = format!("/api/teams/{}", team.id);
    let further = async || {
        let made = app.admin().post(&format!("{path}/keys/create"), json!({})).await.ok();
        let key = made["virtual_key"].as_str().expect("a key").to_owned();
        Team { id: team.id.clone(), client: app.bearer(&key), key }
    };
    let second = further().await;
    second.balance().await; // so that it is cached
    app.admin().put(&format!("{path}/suspend"), json!({})).await.ok();
    let third = further().await;
    let refused = format!("Team '{}' is suspended", team.id);
    for key in [&team, &second, &third] {
        key.client.get(&path).await.refused(403, "team_suspended", &refused);
        assert_eq!(directly(&app, key, "gpt-4o-mini").await, 401);
    }
    assert_eq!(stand_in.keys_of(&team.id).iter().filter(|key| key.blocked == Some(true)).count(), 3);

    app.admin().put(&format!("{path}/resume"), json!({})).await.ok();
    for key in [&team, &second, &third] {
        key.client.get(&path).await.ok();
        assert_eq!(directly(&app, key, "gpt-4o-mini").await, 200);
    }
    assert!(stand_in.keys_of(&team.id).iter().all(|key| key.blocked == Some(false)));
    app.check_invariants().await;
}

#[tokio::test]
async fn what_litellm_did_not_hear_of_a_team_it_is_told_before_the_teams_next_call() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let team = app.team(5).await;
    let job = team.job().await;
    let group = app.model_group(&["gpt-4"]).await;
    stand_in.set_down(true);
    let path = format!("/api/teams/{}/model-groups", team.id);
    let answer = app.admin().put(&path, json!([group])).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.body["code"]),
        (503, &json!("unavailable")),
        "{}",
        answer.text
    );
    stand_in.set_down(false);
    assert_eq!(known(stand_in, &team.id).0, ["gpt-4o-mini"], "else there is nothing to tell");

    let answer = team.call(&job, "hello").await.ok();
    assert_eq!(answer["metadata"]["model_group"], json!(group));
    assert_eq!(known(stand_in, &team.id).0, ["gpt-4"]);
    team.complete(&job, "completed").await.ok();
    app.check_invariants().await;
}
