//! What a request with an `Idempotency-Key` does when it is repeated.

use crate::{
    recipes::{Recipe, recipe, spoilt},
    world::{Stage, assert_allowed, assert_refused, send, unique},
};
use api_tests::{Answer, Options};
use openapi::{name, routes, verb};
use shared::http::Access;

/// A POST that changes nothing: it is simply done again.
const READS: [&str; 1] = ["POST /api/credits/teams/{team_id}/check"];

#[tokio::test]
async fn a_repeated_request_gets_the_first_answer_and_another_one_with_its_key_is_refused() {
    let stage = Stage::set(Options::default()).await;
    for (_, route) in routes() {
        let name = name(&route);
        if route.access == Access::Public || verb(&route.method) == "GET" || READS.contains(&name.as_str()) {
            continue;
        }
        let world = stage.world().await;
        let request = recipe(&name, &world).await;
        let client = stage.caller(&route, &world);
        let key = unique("key");

        let before = stage.app.database.everything().await;
        let wrong = spoilt(&request, verb(&route.method) == "DELETE");
        let answer = send(&client, &route, &wrong, Some(&key)).await;
        assert!(answer.status.is_client_error(), "{name}: {}", answer.text);
        assert_eq!(
            stage.app.database.everything().await,
            before,
            "{name}: a refused request stored something"
        );

        let first = send(&client, &route, &request, Some(&key)).await;
        assert_allowed(&first, &route, "its caller");
        assert_eq!(first.header("idempotent-replayed"), None, "{name}");

        let again = send(&client, &route, &request, Some(&key)).await;
        assert_allowed(&again, &route, "its caller, again");
        assert_eq!(again.header("idempotent-replayed"), Some("true"), "{name}");
        assert_eq!(essence(&again), essence(&first), "{name}");

        let other = Recipe { path: format!("{}?other=request", request.path), ..request };
        let answer = send(&client, &route, &other, Some(&key)).await;
        assert_refused(&answer, &route, "its caller", (422, "idempotency_mismatch"));
    }
    stage.app.check_invariants().await;
}

/// What must be the same in the answer to a repeated request. A stream may be cut into events differently.
fn essence(answer: &Answer) -> (Option<&str>, String) {
    let call_id = answer.header("x-call-id");
    if !answer.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream")) {
        return (call_id, answer.text.clone());
    }
    let data = answer.text.lines().filter_map(|line| line.strip_prefix("data: "));
    let events = data.filter_map(|data| serde_json::from_str::<serde_json::Value>(data).ok());
    (call_id, events.filter_map(|event| event["content"].as_str().map(str::to_owned)).collect())
}
