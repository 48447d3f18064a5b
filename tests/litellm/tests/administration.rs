//! Teams and keys: making, changing, blocking and deleting them.

mod world;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use world::{prompt, world};

fn sha256(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_team_is_made_with_a_chosen_id_and_its_settings() {
    let world = world().await;
    let settings = json!({
        "team_id": "acme", "team_alias": "Acme", "models": ["gpt-4o"], "max_budget": 5, "budget_duration": "30d",
        "tpm_limit": 100000, "rpm_limit": 100, "metadata": {"tenant": "t1"}, "no_such_field": 1,
    });
    let answer = world.admin("/team/new", settings).await.json();
    assert_eq!((&answer["team_id"], &answer["team_alias"]), (&json!("acme"), &json!("Acme")));
    assert_eq!(answer["max_budget"].as_f64(), Some(5.0));
    assert_eq!(answer["members_with_roles"][0]["user_id"], "default_user_id");
    assert!(answer["budget_reset_at"].as_str().is_some_and(|at| at.ends_with("-01T00:00:00Z")), "{answer}");
    let team = world.litellm.team("acme").expect("the team");
    assert_eq!(
        (team.models, team.max_budget, team.rpm_limit),
        (vec!["gpt-4o".to_owned()], Some(5.0), Some(100))
    );
    assert_eq!((team.metadata, team.blocked, team.spend), (json!({"tenant": "t1"}), false, 0.0));

    let again = world.admin("/team/new", json!({"team_id": "acme"})).await;
    assert_eq!(again.failure(), (400, "internal_server_error".to_owned()));
    let message = "{'error': 'Team id = acme already exists. Please use a different team id.'}";
    assert_eq!(again.message(), message);
    assert_eq!(
        world.admin("/team/new", json!({"team_alias": "Acme"})).await.status,
        200,
        "aliases are not unique"
    );
}

#[tokio::test]
async fn bad_settings_are_refused_as_pydantic_does() {
    let world = world().await;
    let refused = [
        ("/team/new", json!({"max_budget": "abc"}), "float_parsing", json!(["body", "max_budget"])),
        ("/team/new", json!({"models": "gpt"}), "list_type", json!(["body", "models"])),
        ("/team/new", json!({"models": null}), "list_type", json!(["body", "models"])),
        ("/team/new", json!({"metadata": "x"}), "dict_type", json!(["body", "metadata"])),
        ("/team/new", json!({"blocked": "maybe"}), "bool_parsing", json!(["body", "blocked"])),
        ("/key/generate", json!({"rpm_limit": 1.5}), "int_from_float", json!(["body", "rpm_limit"])),
        ("/key/generate", json!({"team_id": 5}), "string_type", json!(["body", "team_id"])),
        ("/key/block", json!({}), "missing", json!(["body", "key"])),
        ("/key/delete", json!({}), "value_error", json!(["body"])),
        ("/team/delete", json!({"team_id": "x"}), "missing", json!(["body", "team_ids"])),
    ];
    for (path, body, kind, loc) in refused {
        let answer = world.admin(path, body.clone()).await;
        assert_eq!(answer.status, 422, "{path} {body}");
        let detail = &answer.json()["detail"][0];
        assert_eq!((&detail["type"], &detail["loc"]), (&json!(kind), &loc), "{path} {body}");
    }
    let negative = world.admin("/team/new", json!({"max_budget": -1})).await;
    assert_eq!(negative.status, 400);
    assert!(negative.message().contains("max_budget must be a non-negative finite number. Received: -1.0"));
    let banana = world.admin("/key/generate", json!({"budget_duration": "banana"})).await;
    assert!(banana.message().contains("Invalid budget_duration 'banana'."));
    let key = world.key(json!({"rpm_limit": "7", "max_budget": "1.5"})).await;
    assert_eq!(world.key_info(&key).await["rpm_limit"].as_u64(), Some(7), "numbers may be strings");
}

#[tokio::test]
async fn an_update_changes_what_it_names_and_null_clears() {
    let world = world().await;
    let team = world.team(json!({"max_budget": 1, "rpm_limit": 5, "metadata": {"a": 1, "b": 2}})).await;
    let body = json!({"team_id": team, "max_budget": null, "metadata": {"c": 3}});
    let answer = world.admin("/team/update", body).await;
    assert_eq!((answer.status, &answer.json()["data"]["max_budget"]), (200, &Value::Null));
    let now = world.litellm.team(&team).expect("the team");
    assert_eq!((now.max_budget, now.rpm_limit, now.metadata), (None, Some(5), json!({"c": 3})));

    let key =
        world.key(json!({"team_id": team, "max_budget": 2, "tpm_limit": 9, "key_alias": "first"})).await;
    let body = json!({"key": sha256(&key), "max_budget": null, "spend": 0.25, "models": ["gpt-4o"]});
    let answer = world.admin("/key/update", body).await;
    assert_eq!((answer.status, &answer.json()["key"]), (200, &json!(sha256(&key))), "the hash is accepted");
    let record = world.only_key(&team);
    assert_eq!((record.max_budget, record.tpm_limit, record.spend), (None, Some(9), 0.25));
    assert_eq!(record.models, ["gpt-4o"]);

    let answer = world.admin("/team/update", json!({"team_id": "nope"})).await;
    assert_eq!(
        (answer.status, answer.message()),
        (404, "{'error': 'Team not found, passed team_id=nope'}".into())
    );
    let answer = world.admin("/key/update", json!({"key": "sk-nope", "max_budget": 1})).await;
    assert_eq!(
        (answer.failure(), answer.message()),
        ((404, "not_found_error".into()), "Key not found.".into())
    );
}

#[tokio::test]
async fn the_team_is_shown_with_its_keys_to_the_admin_and_to_itself() {
    let world = world().await;
    let team = world.team(json!({"team_alias": "a"})).await;
    let other = world.team(json!({})).await;
    let key = world.key(json!({"team_id": team})).await;
    let shown = world.admin_get(&format!("/team/info?team_id={team}")).await.json();
    assert_eq!((&shown["team_id"], &shown["team_info"]["team_alias"]), (&json!(team), &json!("a")));
    assert_eq!(shown["keys"][0]["token"], sha256(&key).as_str());
    assert_eq!(world.get(&key, &format!("/team/info?team_id={team}")).await.status, 200);
    assert_eq!(world.get(&key, &format!("/team/info?team_id={other}")).await.status, 403);
    let unknown = world.admin_get("/team/info?team_id=nope").await;
    assert_eq!(unknown.failure(), (404, "auth_error".to_owned()));
    assert_eq!(unknown.message(), "{'message': 'Team not found, passed team id: nope.'}");
    assert_eq!(world.admin_get("/team/info").await.status, 422);
}

#[tokio::test]
async fn a_key_is_shown_once_and_known_by_its_hash() {
    let world = world().await;
    let answer = world.admin("/key/generate", json!({"team_id": "t", "metadata": {"customer": 1}})).await;
    let made = answer.json();
    let key = made["key"].as_str().expect("a key").to_owned();
    assert!(key.starts_with("sk-") && key.len() == 25);
    assert_eq!((&made["token"], &made["token_id"]), (&json!(sha256(&key)), &json!(sha256(&key))));
    assert_eq!(made["key_name"], format!("sk-...{}", &key[21..]));
    for asked in [key.clone(), sha256(&key)] {
        let answer = world.admin_get(&format!("/key/info?key={asked}")).await.json();
        assert_eq!((&answer["key"], &answer["info"]["status"]), (&json!(asked), &json!("active")));
        assert_eq!(answer["info"]["metadata"], json!({"customer": 1}));
    }
    let own = world.get(&key, "/key/info").await.json();
    assert_eq!(own["key"], sha256(&key).as_str());
    let unknown = world.admin_get("/key/info?key=sk-nope").await;
    assert_eq!(unknown.message(), "Key not found in database");
    assert!(!format!("{:?}", world.litellm.keys_of("t")).contains(&key));
}

#[tokio::test]
async fn aliases_are_unique_over_all_keys_until_the_key_is_deleted() {
    let world = world().await;
    let key = world.key(json!({"key_alias": "one"})).await;
    let other = world.key(json!({"key_alias": "two"})).await;
    let twice = world.admin("/key/generate", json!({"key_alias": "one"})).await;
    assert_eq!(
        (twice.failure(), twice.error("param")),
        ((400, "bad_request_error".into()), "key_alias".into())
    );
    let renamed = world.admin("/key/update", json!({"key": other, "key_alias": "one"})).await;
    assert_eq!(renamed.status, 400);
    assert_eq!(world.admin("/key/update", json!({"key": key, "key_alias": "one"})).await.status, 200);
    world.admin("/key/delete", json!({"keys": [key]})).await;
    world.key(json!({"key_alias": "one"})).await;
}

#[tokio::test]
async fn a_chosen_key_that_exists_is_answered_but_not_changed() {
    let world = world().await;
    let chosen = "sk-chosen-key-0001";
    world.key(json!({"key": chosen, "key_alias": "first"})).await;
    let again = world.admin("/key/generate", json!({"key": chosen, "key_alias": "second"})).await;
    assert_eq!((again.status, &again.json()["key_alias"]), (200, &json!("second")));
    assert_eq!(world.key_info(chosen).await["key_alias"], "first");
    for (key, complaint) in [
        ("abc-chosen-key-0001", "must start with 'sk-'. Received: abc-****0001"),
        ("sk-short", "must be at least 16 characters long."),
    ] {
        let answer = world.admin("/key/generate", json!({"key": key})).await;
        assert_eq!(answer.status, 400);
        assert!(answer.message().contains(complaint), "{}", answer.message());
    }
}

#[tokio::test]
async fn deleted_keys_are_refused_and_still_shown_as_deleted() {
    let world = world().await;
    let key = world.key(json!({"key_alias": "a"})).await;
    let answer = world.admin("/key/delete", json!({"keys": [key, "sk-unknown"]})).await;
    assert_eq!(answer.json(), json!({"deleted_keys": [key, "sk-unknown"]}));
    assert_eq!(world.key_info(&sha256(&key)).await["status"], "deleted");
    let refused = world.chat(&key, prompt("gpt-4o", "hi")).await;
    assert_eq!(refused.failure(), (401, "token_not_found_in_db".to_owned()));
    let again = world.admin("/key/delete", json!({"keys": [key]})).await;
    assert_eq!((again.status, again.message()), (404, "{'error': 'No keys found'}".to_owned()));
    let named = world.key(json!({"key_alias": "b"})).await;
    let answer = world.admin("/key/delete", json!({"key_aliases": ["b"]})).await;
    assert_eq!(answer.json(), json!({"deleted_keys": ["b"]}));
    assert_eq!(world.key_info(&named).await["status"], "deleted");
}

#[tokio::test]
async fn deleting_teams_takes_their_keys_along_and_is_all_or_nothing() {
    let world = world().await;
    let team = world.team(json!({"team_id": "a"})).await;
    let key = world.key(json!({"team_id": team})).await;
    let answer = world.admin("/team/delete", json!({"team_ids": ["a", "nope"]})).await;
    assert_eq!(
        (answer.status, answer.json()),
        (404, json!({"detail": {"error": "Team not found, passed team_id=nope"}}))
    );
    assert!(world.litellm.team("a").is_some());
    let answer = world.admin("/team/delete", json!({"team_ids": ["a"]})).await;
    assert_eq!(answer.json(), json!({"deleted_teams": ["a"]}));
    assert_eq!((world.litellm.team("a"), world.litellm.keys_of("a")), (None, vec![]));
    assert_eq!(world.key_info(&key).await["status"], "deleted");
    world.team(json!({"team_id": "a"})).await;
}

#[tokio::test]
async fn a_blocked_key_is_refused_at_once_until_it_is_unblocked() {
    let world = world().await;
    let key = world.key(json!({})).await;
    assert_eq!(world.key_info(&key).await["blocked"], Value::Null);
    assert_eq!(world.admin("/key/block", json!({"key": sha256(&key)})).await.json()["blocked"], true);
    let refused = world.chat(&key, prompt("gpt-4o", "hi")).await;
    assert_eq!(refused.failure(), (401, "auth_error".to_owned()));
    assert!(refused.message().contains("Key is blocked. Update via `/key/unblock`"));
    world.admin("/key/unblock", json!({"key": key})).await;
    assert_eq!(world.chat(&key, prompt("gpt-4o", "hi")).await.status, 200);
    assert_eq!(world.admin("/key/block", json!({"key": "sk-unknown"})).await.status, 404);
    assert_eq!(world.admin("/key/block", json!({"key": "x"})).await.message(), "Invalid key format.");
}

#[tokio::test]
async fn blocking_a_team_by_update_works_at_once_and_by_block_only_later() {
    let world = world().await;
    let team = world.team(json!({})).await;
    let key = world.key(json!({"team_id": team})).await;
    world.admin("/team/update", json!({"team_id": team, "blocked": true})).await;
    let refused = world.chat(&key, prompt("gpt-4o", "hi")).await;
    assert_eq!(refused.failure(), (401, "auth_error".to_owned()));
    assert!(refused.message().contains(&format!("Team={team} is blocked. Update via `/team/unblock`")));
    world.admin("/team/update", json!({"team_id": team, "blocked": false})).await;
    assert_eq!(world.chat(&key, prompt("gpt-4o", "hi")).await.status, 200);

    assert_eq!(world.admin("/team/block", json!({"team_id": team})).await.json()["blocked"], true);
    assert_eq!(world.chat(&key, prompt("gpt-4o", "hi")).await.status, 200, "LiteLLM's cache, as recorded");
    assert!(world.litellm.team(&team).expect("the team").blocked);
    world.admin("/team/unblock", json!({"team_id": team})).await;
    assert_eq!(world.admin("/team/block", json!({"team_id": "nope"})).await.status, 404);
}

#[tokio::test]
async fn the_list_of_models_is_what_the_caller_may_call() {
    let world = world().await;
    let names = |answer: world::Answer| -> Vec<String> {
        let data = answer.json()["data"].as_array().cloned().unwrap_or_default();
        data.iter().filter_map(|model| model["id"].as_str().map(str::to_owned)).collect()
    };
    let all = names(world.admin_get("/v1/models").await);
    assert!(all.len() == 27 && all.contains(&"midstream-error".to_owned()));
    let team = world.team(json!({"models": ["gpt-4o", "gpt-4"]})).await;
    let of_team = world.key(json!({"team_id": team})).await;
    assert_eq!(names(world.get(&of_team, "/models").await), ["gpt-4o", "gpt-4"]);
    let narrower = world.key(json!({"team_id": team, "models": ["gpt-4"]})).await;
    assert_eq!(names(world.get(&narrower, "/v1/models").await), ["gpt-4"]);
    let free = world.key(json!({})).await;
    assert_eq!(names(world.get(&free, "/v1/models").await), all);
    assert_eq!(world.get(&free, "/v1/models/gpt-4o").await.status, 401);
}
