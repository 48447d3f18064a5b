//! What a change of a key or of a team does to the next call, as it was recorded from the real LiteLLM.

mod world;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use world::{Answer, World, prompt, world};

fn sha256(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn call(world: &World, key: &str) -> Answer {
    world.chat(key, prompt("gpt-4o", "hi")).await
}

/// Changes a key, named by its hash as the product does it.
async fn change_key(world: &World, key: &str, mut fields: Value) -> Answer {
    fields["key"] = json!(sha256(key));
    world.admin("/key/update", fields).await
}

async fn change_team(world: &World, team: &str, mut fields: Value) -> Answer {
    fields["team_id"] = json!(team);
    world.admin("/team/update", fields).await
}

#[tokio::test]
async fn a_key_expires_so_long_after_its_duration_was_set() {
    let world = world().await;
    let key = world.key(json!({})).await;
    assert_eq!(change_key(&world, &key, json!({"duration": "300s"})).await.status, 200);
    assert_eq!(call(&world, &key).await.status, 200);
    let expires = world.key_info(&key).await["expires"].as_str().map(str::to_owned).expect("an expiry");
    let expires: chrono::DateTime<chrono::Utc> = expires.parse().expect("a time");
    let left = (expires - chrono::Utc::now()).num_seconds();
    assert!((295..=300).contains(&left), "{left}");

    change_key(&world, &key, json!({"duration": "0s"})).await;
    assert_eq!(call(&world, &key).await.failure(), (401, "expired_key".to_owned()));
    assert_eq!(world.key_info(&key).await["status"], "expired");
    assert_eq!(world.get(&key, "/v1/models").await.failure(), (401, "expired_key".to_owned()));
}

#[tokio::test]
async fn an_expiry_can_be_moved_and_taken_away_even_after_it_came() {
    let world = world().await;
    let key = world.key(json!({"duration": "0s"})).await;
    for (lifted, expires) in
        [(json!("300s"), true), (Value::Null, false), (json!("-1"), false), (json!(""), false)]
    {
        change_key(&world, &key, json!({"duration": "0s"})).await;
        assert_eq!(call(&world, &key).await.status, 401);
        assert_eq!(change_key(&world, &key, json!({"duration": lifted})).await.status, 200, "{lifted}");
        assert_eq!(call(&world, &key).await.status, 200, "{lifted}");
        assert_eq!(world.key_info(&key).await["expires"].is_string(), expires, "{lifted}");
    }
    for duration in ["", "-1"] {
        assert_eq!(
            world.admin("/key/generate", json!({"duration": duration})).await.status,
            500,
            "{duration:?}"
        );
    }
}

#[tokio::test]
async fn a_wrong_duration_is_refused_and_changes_nothing() {
    let world = world().await;
    let key = world.key(json!({"rpm_limit": 7})).await;
    for (duration, complaint) in
        [("x", "Invalid duration format"), ("5", "Unsupported duration unit, passed duration: 5")]
    {
        let refused = change_key(&world, &key, json!({"duration": duration, "rpm_limit": 1})).await;
        assert_eq!(refused.failure(), (400, "auth_error".to_owned()));
        assert_eq!(refused.message(), format!("Authentication Error, {complaint}"));
    }
    let info = world.key_info(&key).await;
    assert_eq!((&info["expires"], &info["rpm_limit"]), (&Value::Null, &json!(7)));
}

#[tokio::test]
async fn an_expired_key_keeps_its_alias_until_it_is_renamed_or_deleted() {
    let world = world().await;
    let key = world.key(json!({"key_alias": "a"})).await;
    change_key(&world, &key, json!({"duration": "0s"})).await;
    let taken = world.admin("/key/generate", json!({"key_alias": "a"})).await;
    assert_eq!(taken.failure(), (400, "bad_request_error".to_owned()));
    assert_eq!(change_key(&world, &key, json!({"key_alias": "a-old"})).await.status, 200);
    world.key(json!({"key_alias": "a"})).await;
    assert_eq!(
        call(&world, &key).await.failure(),
        (401, "expired_key".to_owned()),
        "renaming does not revive"
    );

    let deleted = world.admin("/key/delete", json!({"keys": [sha256(&key)]})).await;
    assert_eq!(deleted.json(), json!({"deleted_keys": [sha256(&key)]}));
    world.key(json!({"key_alias": "a-old"})).await;
    assert_eq!(call(&world, &key).await.failure(), (401, "token_not_found_in_db".to_owned()));
}

#[tokio::test]
async fn a_keys_settings_reach_the_next_call_and_null_clears_them() {
    let world = world().await;
    let team = world.team(json!({})).await;
    let key = world.key(json!({"team_id": team, "key_alias": "a"})).await;
    for (set, status, kind, clear) in [
        (json!({"models": ["gpt-4"]}), 403, "key_model_access_denied", json!({"models": []})),
        (
            json!({"models": ["no-default-models"]}),
            403,
            "key_model_access_denied",
            json!({"models": ["gpt-4o"]}),
        ),
        (json!({"max_budget": 0}), 422, "budget_exceeded", json!({"max_budget": null})),
        (json!({"tpm_limit": 1}), 429, "throttling_error", json!({"tpm_limit": null})),
        (json!({"rpm_limit": 0}), 429, "throttling_error", json!({"rpm_limit": null})),
        (json!({"blocked": true}), 401, "auth_error", json!({"blocked": null})),
    ] {
        assert_eq!(change_key(&world, &key, set.clone()).await.status, 200, "{set}");
        assert_eq!(call(&world, &key).await.failure(), (status, kind.to_owned()), "{set}");
        assert_eq!(change_key(&world, &key, clear.clone()).await.status, 200, "{clear}");
        assert_eq!(call(&world, &key).await.status, 200, "{clear}");
    }
    change_key(&world, &key, json!({"budget_duration": "30d"})).await;
    assert!(world.only_key(&team).budget_reset_at.is_some());
    change_key(&world, &key, json!({"budget_duration": null, "key_alias": null})).await;
    let record = world.only_key(&team);
    assert_eq!((record.budget_duration, record.budget_reset_at, record.key_alias), (None, None, None));
    world.key(json!({"key_alias": "a"})).await;
}

#[tokio::test]
async fn a_teams_settings_reach_the_next_call_and_null_clears_them() {
    let world = world().await;
    let team = world.team(json!({"team_alias": "one"})).await;
    let key = world.key(json!({"team_id": team})).await;
    assert_eq!(call(&world, &key).await.status, 200);
    for (set, status, kind, clear) in [
        (json!({"models": ["gpt-4"]}), 403, "team_model_access_denied", json!({"models": []})),
        (
            json!({"models": ["no-default-models"]}),
            403,
            "team_model_access_denied",
            json!({"models": ["gpt-4o"]}),
        ),
        (json!({"max_budget": 0}), 422, "budget_exceeded", json!({"max_budget": null})),
        (json!({"tpm_limit": 1}), 429, "throttling_error", json!({"tpm_limit": null})),
        (json!({"rpm_limit": 0}), 429, "throttling_error", json!({"rpm_limit": null})),
        (json!({"blocked": true}), 401, "auth_error", json!({"blocked": false})),
    ] {
        assert_eq!(change_team(&world, &team, set.clone()).await.status, 200, "{set}");
        assert_eq!(call(&world, &key).await.failure(), (status, kind.to_owned()), "{set}");
        assert_eq!(change_team(&world, &team, clear.clone()).await.status, 200, "{clear}");
        assert_eq!(call(&world, &key).await.status, 200, "{clear}");
    }
    change_team(&world, &team, json!({"team_alias": "two", "budget_duration": "30d"})).await;
    let shown = world.admin_get(&format!("/team/info?team_id={team}")).await.json();
    assert_eq!(shown["team_info"]["team_alias"], "two");
    assert!(shown["team_info"]["budget_reset_at"].is_string());
    change_team(&world, &team, json!({"team_alias": null, "budget_duration": null})).await;
    let record = world.litellm.team(&team).expect("the team");
    assert_eq!((record.team_alias, record.budget_duration, record.budget_reset_at), (None, None, None));
}

#[tokio::test]
async fn null_clears_neither_models_nor_whether_a_team_is_blocked() {
    let world = world().await;
    let team = world.team(json!({"blocked": true, "models": ["gpt-4"], "team_alias": "one"})).await;
    for field in ["models", "blocked"] {
        let refused = change_team(&world, &team, json!({field: null, "team_alias": "two"})).await;
        assert_eq!(refused.failure(), (500, "internal_server_error".to_owned()));
        assert!(refused.message().contains(&format!("`data.{field}`: A value is required but not set")));
        let new = world.admin("/team/new", json!({field: null})).await;
        assert_eq!(new.status, 422, "{}", new.text);
    }
    let record = world.litellm.team(&team).expect("the team");
    assert_eq!((record.blocked, record.team_alias.as_deref()), (true, Some("one")), "nothing has changed");
    let key = world.key(json!({"models": null})).await;
    let refused = change_key(&world, &key, json!({"models": null})).await;
    assert_eq!(refused.failure(), (400, "auth_error".to_owned()));
}

#[tokio::test]
async fn a_key_can_be_changed_by_its_alias() {
    let world = world().await;
    let key = world.key(json!({"key_alias": "a"})).await;
    let changed = world.admin("/key/update", json!({"key_alias": "a", "duration": "0s"})).await;
    assert_eq!((changed.status, &changed.json()["key"]), (200, &json!(sha256(&key))));
    assert_eq!(call(&world, &key).await.failure(), (401, "expired_key".to_owned()));
    let unknown = world.admin("/key/update", json!({"key_alias": "b", "duration": "0s"})).await;
    assert_eq!(unknown.failure(), (404, "not_found_error".to_owned()));
    assert_eq!(unknown.message(), "Key not found. No key with key_alias='b'.");
    let nameless = world.admin("/key/update", json!({"duration": "0s"})).await;
    assert_eq!(nameless.status, 422);
}

#[tokio::test]
async fn deletion_goes_by_keys_or_by_aliases_never_by_both() {
    let world = world().await;
    let first = world.key(json!({"key_alias": "a"})).await;
    let second = world.key(json!({"key_alias": "b"})).await;
    let both = json!({"keys": [sha256(&first)], "key_aliases": ["b"]});
    assert_eq!(world.admin("/key/delete", both).await.json(), json!({"deleted_keys": [sha256(&first)]}));
    assert_eq!(call(&world, &first).await.status, 401);
    assert_eq!(call(&world, &second).await.status, 200, "the aliases were not looked at");
    let both = json!({"keys": [sha256(&first)], "key_aliases": ["b"]});
    assert_eq!(world.admin("/key/delete", both).await.status, 404);

    let answer = world.admin("/key/delete", json!({"keys": null, "key_aliases": ["b", "unknown"]})).await;
    assert_eq!(answer.json(), json!({"deleted_keys": ["b", "unknown"]}));
    assert_eq!(call(&world, &second).await.failure(), (401, "token_not_found_in_db".to_owned()));
    let again = world.admin("/key/delete", json!({"key_aliases": ["b"]})).await;
    assert_eq!((again.status, again.message()), (404, "{'error': 'No keys found'}".to_owned()));
    assert_eq!(change_key(&world, &second, json!({"max_budget": 1})).await.status, 404);
    world.key(json!({"key_alias": "b"})).await;
}

#[tokio::test]
async fn a_deleted_teams_id_can_be_made_anew_without_its_old_keys() {
    let world = world().await;
    world.team(json!({"team_id": "a", "models": ["gpt-4o"]})).await;
    let old = world.key(json!({"team_id": "a", "key_alias": "k"})).await;
    world.admin("/team/delete", json!({"team_ids": ["a"]})).await;
    assert_eq!(world.admin_get("/team/info?team_id=a").await.failure(), (404, "auth_error".to_owned()));
    assert_eq!(change_team(&world, "a", json!({"team_alias": "x"})).await.status, 404);
    assert_eq!(world.admin("/team/delete", json!({"team_ids": ["a"]})).await.status, 404);
    assert_eq!(world.admin("/team/delete", json!({"team_ids": null})).await.status, 422);

    world.team(json!({"team_id": "a", "models": ["gpt-4"]})).await;
    assert_eq!(call(&world, &old).await.failure(), (401, "token_not_found_in_db".to_owned()));
    let new = world.key(json!({"team_id": "a", "key_alias": "k"})).await;
    assert_eq!(call(&world, &new).await.failure(), (403, "team_model_access_denied".to_owned()));
    assert_eq!(world.chat(&new, prompt("gpt-4", "hi")).await.status, 200);
}

#[tokio::test]
async fn a_key_that_may_call_no_model_sees_none_and_the_master_key_sees_all() {
    let world = world().await;
    let names = |answer: Answer| answer.json()["data"].as_array().map(Vec::len);
    let team = world.team(json!({"models": ["no-default-models"]})).await;
    for models in [json!([]), json!(["no-default-models"]), json!(["all-team-models"])] {
        let key = world.key(json!({"team_id": team, "models": models})).await;
        assert_eq!(names(world.get(&key, "/v1/models").await), Some(0), "{models}");
    }
    let one = world.key(json!({"models": ["no-default-models", "gpt-4o"]})).await;
    assert_eq!(names(world.get(&one, "/v1/models").await), Some(1));
    assert_eq!(names(world.admin_get("/v1/models").await), Some(27));
}

#[tokio::test]
async fn a_limit_of_requests_counts_only_those_since_there_was_one() {
    let world = world().await;
    let key = world.key(json!({"tpm_limit": 1000})).await;
    assert_eq!(call(&world, &key).await.status, 200);
    change_key(&world, &key, json!({"tpm_limit": null, "rpm_limit": 1})).await;
    assert_eq!(call(&world, &key).await.status, 200);
    assert_eq!(call(&world, &key).await.failure(), (429, "throttling_error".to_owned()));
}
