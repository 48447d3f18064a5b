//! LiteLLM is synchronized with teams, at once.

use crate::{fixtures::unique, teams::show};
use api_tests::{Answer, Options, Team, TestApp};
use futures::future::join_all;
use litellm_stand_in::StandIn;
use serde_json::json;

/// Models, budget and whether it is blocked: of the team in LiteLLM, and of its only key.
pub fn known(stand_in: &StandIn, id: &str) -> (Vec<String>, Option<f64>, bool) {
    let team = stand_in.team(id).expect("the team in LiteLLM");
    let keys = stand_in.keys_of(id);
    assert_eq!(keys.len(), 1, "one key");
    assert_eq!(
        (&keys[0].models, keys[0].max_budget),
        (&team.models, team.max_budget),
        "team and key are told the same"
    );
    (team.models, team.max_budget, team.blocked)
}

#[tokio::test]
async fn litellm_has_the_team_with_its_models_budget_and_limits() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let (first, second) =
        (app.model_group(&["gpt-4", "gpt-4o"]).await, app.model_group(&["gpt-4o", "gpt-4o-mini"]).await);
    let fields = json!({
        "model_groups": [first, second], "credits_allocated": 1000, "team_alias": "Acme",
        "max_budget": 99.5, "budget_duration": "30d", "rpm_limit": 60, "tpm_limit": 10_000,
    });
    let team = app.team_with(fields).await;
    assert_eq!(
        known(stand_in, &team.id),
        (vec!["gpt-4".into(), "gpt-4o".into(), "gpt-4o-mini".into()], Some(99.5), false)
    );
    let (of_team, of_key) = (stand_in.team(&team.id).expect("a team"), stand_in.keys_of(&team.id).remove(0));
    assert_eq!(of_team.team_alias.as_deref(), Some("Acme"));
    assert_eq!((of_key.rpm_limit, of_key.tpm_limit), (Some(60), Some(10_000)));
    assert_eq!(
        (of_team.budget_duration.as_deref(), of_key.budget_duration.as_deref()),
        (Some("30d"), Some("30d"))
    );
    let hash = "SELECT encode(key_hash, 'hex') FROM virtual_keys";
    let hash: String = app.database.client.query_one(hash, &[]).await.expect("a key").get(0);
    assert_eq!(of_key.token, hash);
}

#[tokio::test]
async fn the_budget_is_what_may_be_used_unless_one_is_given() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    for (fields, budget) in [
        (json!({"credits_allocated": 5}), Some(0.5)),
        (json!({"credits_allocated": 0}), Some(0.0)),
        (json!({"credits_allocated": 5, "max_budget": 12.345}), Some(12.345)),
        (json!({"credits_allocated": 5, "max_budget": 0}), Some(0.0)),
        (json!({"credits_allocated": 5, "budget_mode": "soft", "credit_limit": 10}), Some(1.5)),
        (json!({"credits_allocated": 5, "budget_mode": "soft"}), None),
        (json!({"credits_allocated": 5, "budget_mode": "soft", "max_budget": 3}), Some(3.0)),
        (json!({"credits_allocated": 5, "budget_mode": "hard", "credit_limit": 10}), Some(0.5)),
    ] {
        let team = app.team_with(fields.clone()).await;
        assert_eq!(known(stand_in, &team.id).1, budget, "{fields}");
    }
}

/// What LiteLLM answers to the team's own key when it is used there directly.
pub async fn directly(app: &TestApp, team: &Team, model: &str) -> u16 {
    let url = format!("{}/chat/completions", app.stand_in().expect("the stand-in").url());
    let body = json!({"model": model, "messages": [{"role": "user", "content": "hello"}]});
    let request = reqwest::Client::new().post(url).bearer_auth(&team.key).json(&body);
    Answer::of(request).await.status.as_u16()
}

#[tokio::test]
async fn a_team_without_models_may_use_none_not_all() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let team = app.team_with(json!({"model_groups": [], "credits_allocated": 5})).await;
    assert!(!known(stand_in, &team.id).0.is_empty(), "to LiteLLM an empty list means all");
    assert_eq!(directly(&app, &team, "gpt-4o-mini").await, 403);

    let team = app.team(5).await;
    assert_eq!(directly(&app, &team, "gpt-4o-mini").await, 200);
    assert_eq!(directly(&app, &team, "gpt-4").await, 403);
    app.admin().put(&format!("/api/teams/{}/model-groups", team.id), json!([])).await.ok();
    assert_eq!(directly(&app, &team, "gpt-4o-mini").await, 403);
}

#[tokio::test]
async fn changed_model_groups_reach_litellm_at_once_and_the_key_goes_on_working() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let team = app.team(5).await;
    let group = app.model_group(&["gpt-4", "gpt-4o"]).await;
    let key = stand_in.keys_of(&team.id).remove(0).token;
    app.admin().put(&format!("/api/teams/{}/model-groups", team.id), json!([group])).await.ok();
    assert_eq!(known(stand_in, &team.id).0, ["gpt-4", "gpt-4o"]);
    assert_eq!(stand_in.keys_of(&team.id).remove(0).token, key);
    assert_eq!(directly(&app, &team, "gpt-4").await, 200);
    assert_eq!(directly(&app, &team, "gpt-4o-mini").await, 403);
}

#[tokio::test]
async fn of_many_changes_at_once_litellm_ends_up_with_the_one_that_holds_here() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let team = app.team(5).await;
    let mut groups = vec![];
    for model in ["gpt-4", "gpt-4o", "gpt-4-turbo", "claude-3-opus"] {
        groups.push(app.model_group(&[model]).await);
    }
    for _ in 0..3 {
        let path = format!("/api/teams/{}/model-groups", team.id);
        join_all(groups.iter().map(|group| {
            let (admin, path) = (app.admin(), path.clone());
            async move { admin.put(&path, json!([group])).await.ok() }
        }))
        .await;
        let here = app.admin().get(&format!("/api/teams/{}", team.id)).await.ok();
        assert_eq!(json!(known(stand_in, &team.id).0), here["allowed_models"]);
    }
}

#[tokio::test]
async fn a_change_that_litellm_does_not_hear_is_a_503_and_the_same_request_again_tells_it() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let team = app.team(5).await;
    let group = app.model_group(&["gpt-4"]).await;
    for path in ["/key/update", "/team/update"] {
        stand_in.fail_next(path, 500, 1);
        let put = || async {
            app.admin().put(&format!("/api/teams/{}/model-groups", team.id), json!([group])).await
        };
        let answer = put().await;
        assert_eq!(
            (answer.status.as_u16(), &answer.body["code"]),
            (503, &json!("unavailable")),
            "{}",
            answer.text
        );
        assert!(answer.header("retry-after").is_some());
        put().await.ok();
        assert_eq!(known(stand_in, &team.id).0, ["gpt-4"]);
        app.admin().put(&format!("/api/teams/{}/model-groups", team.id), json!([])).await.ok();
    }
    stand_in.set_down(true);
    let answer = app.admin().put(&format!("/api/teams/{}/suspend", team.id), json!({})).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.body["code"]),
        (503, &json!("unavailable")),
        "{}",
        answer.text
    );
    let detail = format!("Team '{}' is suspended", team.id);
    team.client.get("/api/model-groups").await.refused(403, "team_suspended", &detail);
    stand_in.set_down(false);
    app.admin().put(&format!("/api/teams/{}/suspend", team.id), json!({})).await.ok();
    assert!(known(stand_in, &team.id).2);
}

#[tokio::test]
async fn a_suspended_team_is_blocked_in_litellm_until_it_is_resumed() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let team = app.team(5).await;
    app.admin().put(&format!("/api/teams/{}/suspend", team.id), json!({})).await.ok();
    assert!(known(stand_in, &team.id).2);
    assert_eq!(directly(&app, &team, "gpt-4o-mini").await, 401);
    app.admin().put(&format!("/api/teams/{}/resume", team.id), json!({})).await.ok();
    assert!(!known(stand_in, &team.id).2);
    assert_eq!(directly(&app, &team, "gpt-4o-mini").await, 200);
}

#[tokio::test]
async fn credits_are_worth_what_the_deployment_says() {
    let variables = vec![("usd_per_credit", "0.025".to_owned())];
    let app = TestApp::start_with(Options { variables, ..Options::default() }).await;
    let team = app.team(100).await;
    assert_eq!(show(&app, &team).await["max_budget"].as_f64(), Some(2.5));
    app.admin().post(&format!("/api/credits/teams/{}/add", team.id), json!({"amount": 10})).await.ok();
    assert_eq!(show(&app, &team).await["max_budget"].as_f64(), Some(2.75));
    let Some(stand_in) = app.stand_in() else { return };
    assert_eq!(stand_in.team(&team.id).and_then(|team| team.max_budget), Some(2.75));
}

#[tokio::test]
async fn every_budget_duration_is_one_that_litellm_takes_or_is_refused() {
    let app = TestApp::start().await;
    for duration in ["1s", "30m", "24h", "7d", "30d", "2w", "1mo", "365d", "65535s", "65535d", "65535w"] {
        let team = app.team_with(json!({"max_budget": 5, "budget_duration": duration})).await;
        assert_eq!(show(&app, &team).await["budget_duration"], duration);
    }
    let organization = app.organization().await;
    // LiteLLM takes some numbers of months only in some months of the year.
    for duration in ["2mo", "11mo", "12mo", "65535mo"] {
        let body = json!({
            "organization_id": organization, "team_id": unique("team"), "max_budget": 5, "budget_duration": duration,
        });
        let answer = app.admin().post("/api/teams/create", body).await;
        let named =
            answer.body["detail"].as_str().is_some_and(|detail| detail.starts_with("budget_duration: "));
        assert!(
            answer.status == 200 || answer.status == 400 && named,
            "{duration}: {} {}",
            answer.status,
            answer.text
        );
    }
}

#[tokio::test]
async fn every_limit_that_is_allowed_is_one_that_litellm_takes() {
    let app = TestApp::start().await;
    for fields in [
        json!({"rpm_limit": 1, "tpm_limit": 1}),
        json!({"rpm_limit": 1_000_000_000, "tpm_limit": 1_000_000_000}),
        json!({"max_budget": 0.000_000_1, "credits_allocated": 1_000_000_000}),
        json!({"max_budget": 123_456_789.123_456}),
        json!({"credits_allocated": 1_000_000_000, "credit_limit": 1_000_000_000, "budget_mode": "soft"}),
        json!({"team_alias": "x".repeat(500), "team_id": unique(&"t".repeat(90))}),
    ] {
        app.team_with(fields).await;
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn a_group_that_changes_while_a_team_gets_it_reaches_litellm_as_it_is_in_the_end() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let (group, first, second) = (
        app.model_group(&["gpt-4"]).await,
        app.model_group(&["gpt-4o"]).await,
        app.model_group(&["gpt-4o-mini"]).await,
    );
    let access = json!({"group_name": "All", "model_groups": [first]});
    app.admin().post("/api/model-access-groups/create", access).await.ok();
    for (assign, names, change, value, expected) in [
        (
            "model-groups",
            json!([group]),
            format!("/api/model-groups/{group}/models"),
            json!([{"model_name": "gpt-4-turbo", "priority": 0}]),
            "gpt-4-turbo",
        ),
        (
            "access-groups",
            json!(["All"]),
            "/api/model-access-groups/All/model-groups".to_owned(),
            json!([second]),
            "gpt-4o-mini",
        ),
    ] {
        let team = app.team_with(json!({"model_groups": [], "credits_allocated": 5})).await;
        let job = team.job().await;
        // Each change is made, and waits for its entry in the log before the other one can see it.
        let other = app.database.connect().await;
        other.batch_execute("BEGIN; LOCK TABLE audit_log IN SHARE MODE").await.expect("a lock");
        let (admin, path) = (app.admin(), format!("/api/teams/{}/{assign}", team.id));
        let release = async {
            tokio::time::sleep(std::time::Duration::from_millis(1000)).await;
            other.batch_execute("COMMIT").await.expect("the end of the lock");
        };
        let (assigned, changed, ()) =
            futures::join!(admin.put(&path, names), admin.put(&change, value), release);
        assigned.ok();
        changed.ok();
        assert_eq!(show(&app, &team).await["allowed_models"], json!([expected]));
        team.call(&job, "hello").await.ok();
        assert_eq!(known(stand_in, &team.id).0, [expected]);
    }
    app.check_invariants().await;
}
