//! What LiteLLM refuses before a model is asked: keys, models, budgets, rate limits, banned fields.

mod world;

use serde_json::json;
use world::{prompt, world};

#[tokio::test]
async fn a_call_needs_a_known_key() {
    let world = world().await;
    let url = world.url("/chat/completions");
    let without = world.send(|client| client.post(&url).json(&prompt("gpt-4o", "hi"))).await;
    assert_eq!(without.failure(), (401, "auth_error".to_owned()));
    assert_eq!(without.message(), "Authentication Error, No api key passed in.");
    assert_eq!((without.error("param"), without.error("code")), ("None".to_owned(), "401".to_owned()));
    assert!(without.headers.keys().all(|name| !name.as_str().starts_with("x-litellm")));

    let malformed =
        world.send(|client| client.post(&url).header("authorization", "sk-x").json(&json!({}))).await;
    assert!(malformed.message().contains("Malformed API Key passed in. Ensure Key has `Bearer ` prefix."));
    let odd = world.chat("not-a-key", prompt("gpt-4o", "hi")).await;
    assert_eq!(
        odd.message(),
        "LiteLLM Virtual Key expected. Received=not-****-key, expected to start with 'sk-'."
    );
    let unknown = world.chat("sk-does-not-exist-123456", prompt("gpt-4o", "hi")).await;
    assert_eq!(unknown.failure(), (401, "token_not_found_in_db".to_owned()));
    let hash = "2aad590523767cd638b162d433fc0f4d2882df15ca5adcc86025ef4ce5931e37";
    assert!(unknown.message().contains(&format!("sk-...3456, Key Hash (Token) ={hash}.")));
}

#[tokio::test]
async fn a_key_may_come_as_x_api_key() {
    let world = world().await;
    let url = world.url("/v1/models");
    let answer = world.send(|client| client.get(&url).header("x-api-key", world.litellm.master_key())).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn admin_routes_refuse_virtual_keys() {
    let world = world().await;
    let key = world.key(json!({})).await;
    for path in ["/team/new", "/team/update", "/team/delete", "/team/block", "/team/unblock", "/key/generate"]
    {
        let answer = world.post(&key, path, json!({"team_id": "x"})).await;
        assert_eq!(answer.failure(), (401, "auth_error".to_owned()), "{path}");
        assert!(answer.message().contains(&format!(
            "Only proxy admin can be used to generate, delete, update info \
             for new keys/users/teams. Route={path}."
        )));
    }
    assert_eq!(world.get(&key, "/spend/logs").await.status, 401);
    assert_eq!(world.send(|client| client.post(world.url("/team/new")).json(&json!({}))).await.status, 401);
}

#[tokio::test]
async fn an_expired_key_is_refused() {
    let world = world().await;
    let key = world.key(json!({"duration": "0s"})).await;
    let answer = world.chat(&key, prompt("gpt-4o", "hi")).await;
    assert_eq!(answer.failure(), (401, "expired_key".to_owned()));
    assert!(answer.message().starts_with("Authentication Error - Expired Key. Key Expiry time "));
    assert_eq!(world.key_info(&key).await["status"], "expired");
    world.admin("/key/update", json!({"key": key, "duration": null})).await;
    assert_eq!(world.chat(&key, prompt("gpt-4o", "hi")).await.status, 200);
}

#[tokio::test]
async fn a_key_without_its_team_is_made_and_refused_later() {
    let world = world().await;
    let key = world.key(json!({"team_id": "nope"})).await;
    let answer = world.chat(&key, prompt("gpt-4o", "hi")).await;
    assert_eq!(answer.failure(), (404, "auth_error".to_owned()));
    let message = r#"{'error': "Team doesn't exist in db. Team=nope. Create team via `/team/new` call."}"#;
    assert_eq!(answer.message(), message);
}

#[tokio::test]
async fn key_and_team_both_restrict_the_models() {
    let world = world().await;
    let team = world.team(json!({"models": ["gpt-4o", "gpt-4"]})).await;
    let key = world.key(json!({"team_id": team, "models": ["gpt-4o", "expensive"]})).await;
    assert_eq!(world.chat(&key, prompt("gpt-4o", "hi")).await.status, 200);
    let of_key = world.chat(&key, prompt("gpt-4", "hi")).await;
    assert_eq!(of_key.failure(), (403, "key_model_access_denied".to_owned()));
    assert_eq!(of_key.error("param"), "model");
    let of_team = world.chat(&key, prompt("expensive", "hi")).await;
    assert_eq!(of_team.failure(), (403, "team_model_access_denied".to_owned()));
    let unknown = world.chat(&key, prompt("nope", "hi")).await;
    assert_eq!(
        unknown.failure(),
        (403, "key_model_access_denied".to_owned()),
        "unknown is the same as denied"
    );
    world.admin("/key/update", json!({"key": key, "models": []})).await;
    assert_eq!(world.chat(&key, prompt("gpt-4", "hi")).await.status, 200, "at once");
    world.admin("/team/update", json!({"team_id": team, "models": ["expensive"]})).await;
    assert_eq!(world.chat(&key, prompt("gpt-4", "hi")).await.status, 403, "at once");
}

#[tokio::test]
async fn a_keys_budget_refuses_when_it_is_reached() {
    let world = world().await;
    let key = world.key(json!({"max_budget": 0.01})).await;
    let ten_tokens = "[[prompt_tokens=5]] [[completion_tokens=5]]";
    assert_eq!(world.chat(&key, prompt("expensive", ten_tokens)).await.status, 200);
    for body in [prompt("expensive", "hi"), prompt("unpriced", "hi"), world::stream("gpt-4o", "hi")] {
        let answer = world.chat(&key, body).await;
        assert_eq!(answer.failure(), (422, "budget_exceeded".to_owned()));
        assert!(answer.message().ends_with(" Current cost: 0.01, Max budget: 0.01"), "{}", answer.message());
        assert!(!answer.headers.contains_key("x-litellm-call-id"));
        assert!(!answer.headers.contains_key("retry-after"));
    }
    world.admin("/key/update", json!({"key": key, "max_budget": 1})).await;
    assert_eq!(world.chat(&key, prompt("gpt-4o", "hi")).await.status, 200, "raised at once");
    let nothing = world.key(json!({"max_budget": 0})).await;
    assert_eq!(world.chat(&nothing, prompt("gpt-4o", "hi")).await.status, 422);
}

#[tokio::test]
async fn a_teams_budget_refuses_when_it_is_passed() {
    let world = world().await;
    let team = world.team(json!({"max_budget": 0})).await;
    let key = world.key(json!({"team_id": team})).await;
    let other = world.key(json!({"team_id": team})).await;
    assert_eq!(world.chat(&key, prompt("expensive", "[[prompt_tokens=3]] [[chunks=3]]")).await.status, 200);
    assert_eq!(world.litellm.team(&team).expect("the team").spend, 0.006);
    let answer = world.chat(&other, prompt("gpt-4o", "hi")).await;
    assert_eq!(answer.failure(), (422, "budget_exceeded".to_owned()));
    let message = format!("Budget has been exceeded! Team={team} Current cost: 0.006, Max budget: 0.0");
    assert_eq!(answer.message(), message);
    world.admin("/team/update", json!({"team_id": team, "max_budget": 1})).await;
    assert_eq!(world.chat(&other, prompt("gpt-4o", "hi")).await.status, 200);
}

#[tokio::test]
async fn failed_calls_cost_nothing() {
    let world = world().await;
    let key = world.key(json!({"max_budget": 0.05})).await;
    for _ in 0..3 {
        assert_eq!(world.chat(&key, prompt("err500", "hi")).await.header("x-litellm-response-cost"), "0");
    }
    assert_eq!(world.key_info(&key).await["spend"].as_f64(), Some(0.0));
}

#[tokio::test]
async fn a_keys_requests_a_minute_are_limited_and_failures_count() {
    let world = world().await;
    let key = world.key(json!({"rpm_limit": 3})).await;
    let first = world.chat(&key, prompt("gpt-4o", "hi")).await;
    assert_eq!(first.header("x-ratelimit-api_key-remaining-requests"), "2");
    assert_eq!(first.header("x-ratelimit-api_key-limit-requests"), "3");
    assert_eq!(first.header("x-litellm-key-rpm-limit"), "3");
    assert_eq!(world.chat(&key, prompt("err500", "hi")).await.status, 500);
    assert_eq!(world.chat(&key, prompt("nope", "hi")).await.status, 400);
    let answer = world.chat(&key, prompt("gpt-4o", "hi")).await;
    assert_eq!(answer.failure(), (429, "throttling_error".to_owned()));
    assert_eq!(answer.header("retry-after"), "60");
    assert_eq!(answer.header("rate_limit_type"), "requests");
    assert!(answer.header("reset_at").ends_with(" UTC"));
    assert!(answer.message().starts_with("Rate limit exceeded for api_key: "));
    assert!(answer.message().contains("Limit type: requests. Current limit: 3, Remaining: 0."));
    world.admin("/key/update", json!({"key": key, "rpm_limit": null})).await;
    assert_eq!(world.chat(&key, prompt("gpt-4o", "hi")).await.status, 200, "lifted at once");
}

#[tokio::test]
async fn a_teams_requests_are_limited_over_all_its_keys() {
    let world = world().await;
    let team = world.team(json!({"rpm_limit": 1})).await;
    let key = world.key(json!({"team_id": team})).await;
    let other = world.key(json!({"team_id": team})).await;
    let first = world.chat(&key, prompt("gpt-4o", "hi")).await;
    assert_eq!(first.header("x-ratelimit-team-remaining-requests"), "0");
    let answer = world.chat(&other, prompt("gpt-4o", "hi")).await;
    assert_eq!(answer.status, 429);
    assert!(
        answer.message().starts_with(&format!("Rate limit exceeded for team: {team}. Limit type: requests."))
    );
}

#[tokio::test]
async fn tokens_are_reserved_before_a_call_and_settled_after_it() {
    let world = world().await;
    let key = world.key(json!({"tpm_limit": 100})).await;
    let mut body = prompt("gpt-4o", "hi there");
    body["max_tokens"] = json!(10);
    let answer = world.chat(&key, body.clone()).await;
    assert_eq!(answer.header("x-ratelimit-api_key-remaining-tokens"), "88", "2 of the prompt and 10");
    let answer = world.chat(&key, body).await;
    assert_eq!(answer.header("x-ratelimit-api_key-remaining-tokens"), "82", "only 6 of the first were used");
    let mut greedy = prompt("gpt-4o", "hi");
    greedy["max_tokens"] = json!(200);
    let answer = world.chat(&key, greedy).await;
    assert_eq!((answer.status, answer.header("rate_limit_type")), (429, "tokens"));
    assert!(answer.message().contains("Limit type: tokens. Current limit: 100, Remaining: 88."));
    let quarter = world.key(json!({"tpm_limit": 3000})).await;
    let answer = world.chat(&quarter, prompt("gpt-4o", "hi")).await;
    assert_eq!(
        answer.header("x-ratelimit-api_key-remaining-tokens"),
        "2249",
        "a quarter of the limit is reserved"
    );
}

#[tokio::test]
async fn calls_at_the_same_time_are_limited() {
    let world = world().await;
    let key = world.key(json!({"max_parallel_requests": 1})).await;
    let slow = world.chat(&key, prompt("gpt-4o", "[[first_ms=600]] hi"));
    let second = async {
        tokio::time::sleep(std::time::Duration::from_millis(250)).await;
        world.chat(&key, prompt("gpt-4o", "hi")).await
    };
    let (slow, second) = futures::join!(slow, second);
    assert_eq!((slow.status, second.status), (200, 429));
    assert_eq!(second.header("rate_limit_type"), "max_parallel_requests");
    assert_eq!(world.chat(&key, prompt("gpt-4o", "hi")).await.status, 200);
}

#[tokio::test]
async fn banned_names_are_refused_everywhere() {
    let world = world().await;
    let key = world.key(json!({})).await;
    let refused = [
        ("/team/new", json!({"metadata": {"workspace_id": "w"}}), "workspace_id"),
        ("/team/update", json!({"team_id": "x", "metadata": {"langfuse_host": "w"}}), "langfuse_host"),
        ("/key/generate", json!({"metadata": {"workspace_id": "w"}}), "workspace_id"),
        ("/key/update", json!({"key": "x", "base_url": "w"}), "base_url"),
    ];
    for (path, body, name) in refused {
        let answer = world.admin(path, body).await;
        assert_eq!(answer.failure(), (401, "auth_error".to_owned()), "{path}");
        assert!(answer.message().contains(&format!("{name} is not allowed in request body")), "{path}");
    }
    let fields = [
        json!({"api_base": "http://x"}),
        json!({"metadata": {"output_cost_per_token": 0}}),
        json!({"litellm_metadata": {"rust": 1}}),
        json!({"extra_body": {"model_list": []}}),
        json!({"metadata": "{\"use_ssl\": 1}"}),
    ];
    for field in fields {
        let mut body = prompt("gpt-4o", "hi");
        body.as_object_mut().expect("an object").extend(field.as_object().expect("an object").clone());
        assert_eq!(world.chat(&key, body).await.failure(), (401, "auth_error".to_owned()), "{field}");
    }
    let mut body = prompt("gpt-4o", "hi");
    body["metadata"] = json!({"deeper": {"api_base": "x"}, "workspace": 1});
    assert_eq!(world.chat(&key, body).await.status, 200);
}

#[tokio::test]
async fn health_needs_no_key_and_unknown_routes_are_404() {
    let world = world().await;
    let get = async |path: &str| world.send(|client| client.get(world.url(path))).await;
    assert_eq!(get("/health/liveliness").await.json(), json!("I'm alive!"));
    assert_eq!(get("/health/readiness").await.json(), json!({"status": "healthy", "db": "connected"}));
    let about = get("/").await;
    assert!(about.text.contains("it is not LiteLLM"));
    let unknown = get("/nope").await;
    assert_eq!((unknown.status, unknown.json()), (404, json!({"detail": "Not Found"})));
    let wrong = get("/team/new").await;
    assert_eq!((wrong.status, wrong.json()), (405, json!({"detail": "Method Not Allowed"})));
}
