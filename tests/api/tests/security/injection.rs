//! SQL and other hostile text in every field of every route: nothing fails, and what is refused changes nothing.

use crate::{
    hostile::{NO_TEXTS, TEXTS, body_with, encoded, long, method, paths_with, places, query_parameters},
    recipes::{Recipe, recipe},
    world::Stage,
};
use api_tests::{Answer, Options};
use futures::future::join_all;
use openapi::{name, routes};
use reqwest::RequestBuilder;
use shared::http::Access;

/// Sends these requests, of which none may fail; where all are refused, they change nothing.
async fn nothing_breaks(stage: &Stage, what: &str, requests: Vec<RequestBuilder>) {
    let before = stage.app.database.everything().await;
    let mut all_refused = true;
    for request in requests {
        let answer = Answer::of(request).await;
        let logs = stage.app.logs();
        assert!(answer.status.as_u16() < 500, "{what}: {} {:.300}\n{logs}", answer.status, answer.text);
        // A model's refusal is that of a call, which leaves its traces.
        all_refused &= answer.status.is_client_error() && answer.header("x-call-id").is_none();
    }
    if all_refused {
        assert_eq!(
            stage.app.database.everything().await,
            before,
            "{what}: refused, and yet something changed"
        );
    }
}

/// The hostile texts as bytes, with and without what PostgreSQL can't hold.
fn texts() -> Vec<Vec<u8>> {
    let others = [&b"a\0b"[..], b"\xff\xfe", b"\xc0\xa7 OR 1=1", b"\r\nx-admin-key: test-admin-key"];
    TEXTS.iter().map(|text| text.as_bytes()).chain(others).map(<[u8]>::to_vec).collect()
}

fn with_body(request: RequestBuilder, recipe: &Recipe) -> RequestBuilder {
    match &recipe.body {
        Some(body) => request.body(body.to_string()),
        None => request,
    }
}

async fn nothing_was_broken(stage: Stage) {
    assert!(!stage.app.logs().contains("request_id"), "{}", stage.app.logs());
    stage.app.check_invariants().await;
}

#[tokio::test]
async fn hostile_text_in_a_path_or_query_breaks_nothing_on_any_route() {
    let stage = Stage::set(Options::default()).await;
    let texts = texts();
    for (_, route) in routes() {
        let world = stage.world().await;
        let client = stage.caller(&route, &world);
        let recipe = recipe(&name(&route), &world).await;
        let send = |path: &str| with_body(client.request(method(&route), path), &recipe);

        let paths = texts.iter().flat_map(|text| paths_with(&route, &recipe, text));
        let requests = paths.map(|path| send(&path)).collect();
        nothing_breaks(&stage, &format!("{}, in the path", name(&route)), requests).await;

        let path = recipe.path.split('?').next().expect("a path");
        for parameter in query_parameters(&route).into_iter().chain(["no_such_parameter"]) {
            let asked = |text: &Vec<u8>| send(&format!("{path}?{parameter}={}", encoded(text)));
            let requests = texts.iter().map(asked).collect();
            nothing_breaks(&stage, &format!("{}, in {parameter}", name(&route)), requests).await;
        }
        let named = |text: &Vec<u8>| send(&format!("{path}?{}=1", encoded(text)));
        let requests = texts.iter().map(named).collect();
        nothing_breaks(&stage, &format!("{}, as a parameter", name(&route)), requests).await;
    }
    nothing_was_broken(stage).await;
}

#[tokio::test]
async fn hostile_text_in_any_field_of_a_body_breaks_nothing_on_any_route() {
    let stage = Stage::set(Options::default()).await;
    let texts: Vec<Vec<u8>> = TEXTS
        .iter()
        .map(|text| serde_json::to_vec(text).expect("JSON"))
        .chain(NO_TEXTS.iter().map(|raw| raw.to_vec()))
        .collect();
    let mut seen = 0;
    for (_, route) in routes() {
        for place in places(&route) {
            seen += 1;
            let world = stage.world().await;
            let client = stage.caller(&route, &world);
            let requests = texts.iter().map(async |text| {
                let recipe = recipe(&name(&route), &world).await;
                let body = body_with(&recipe.body.unwrap_or_default(), &place, text);
                client.request(method(&route), &recipe.path).body(body)
            });
            let requests = join_all(requests).await;
            nothing_breaks(&stage, &format!("{}, in {place:?}", name(&route)), requests).await;
        }
    }
    assert!(seen > 150, "only {seen} places were found");
    nothing_was_broken(stage).await;
}

#[tokio::test]
async fn hostile_text_in_a_header_breaks_nothing_on_any_route() {
    // An Idempotency-Key is refused where it is none, so it comes alone; the others come all at once.
    const HEADERS: [&[&str]; 2] = [
        &["idempotency-key"],
        &[
            "x-request-id",
            "user-agent",
            "accept",
            "accept-encoding",
            "content-type",
            "cookie",
            "if-none-match",
            "range",
            "traceparent",
            "origin",
            "x-forwarded-for",
            "x-forwarded-host",
            "spin-path-match-team-id",
            "x-litellm-call-id",
            "x-job-id",
        ],
    ];
    let stage = Stage::set(Options::default()).await;
    for (_, route) in routes() {
        let world = stage.world().await;
        let client = stage.caller(&route, &world);
        for headers in HEADERS {
            let requests = TEXTS.map(async |text| {
                let recipe = recipe(&name(&route), &world).await;
                let request = with_body(client.request(method(&route), &recipe.path), &recipe);
                headers.iter().fold(request, |request, header| request.header(*header, text.as_bytes()))
            });
            let requests = join_all(requests).await;
            nothing_breaks(&stage, &format!("{}, in {headers:?}", name(&route)), requests).await;
        }
    }
    nothing_was_broken(stage).await;
}

#[tokio::test]
async fn hostile_text_in_place_of_a_key_is_a_401_on_every_route_that_needs_one() {
    let stage = Stage::set(Options::default()).await;
    let world = stage.world().await;
    for (_, route) in routes().into_iter().filter(|(_, route)| route.access != Access::Public) {
        let path = recipe(&name(&route), &world).await.path;
        let before = stage.app.database.everything().await;
        let header = if route.access == Access::Admin { "x-admin-key" } else { "authorization" };
        let requests = TEXTS.iter().map(|text| {
            let value = if header == "authorization" { format!("Bearer {text}") } else { (*text).to_owned() };
            stage.app.nobody().request(method(&route), &path).header(header, value.as_bytes())
        });
        for answer in join_all(requests.map(Answer::of)).await {
            assert_eq!(answer.status, 401, "{}: {}", name(&route), answer.text);
        }
        assert_eq!(stage.app.database.everything().await, before, "{}", name(&route));
    }
}

#[tokio::test]
async fn text_longer_than_anything_breaks_nothing_in_any_field() {
    let stage = Stage::set(Options::default()).await;
    let long = serde_json::to_vec(&long()).expect("JSON");
    for (_, route) in routes() {
        let world = stage.world().await;
        let client = stage.caller(&route, &world);
        for place in places(&route) {
            let recipe = recipe(&name(&route), &world).await;
            let body = body_with(&recipe.body.clone().unwrap_or_default(), &place, &long);
            let request = client.request(method(&route), &recipe.path).body(body);
            nothing_breaks(&stage, &format!("{}, in {place:?}", name(&route)), vec![request]).await;
        }
    }
    nothing_was_broken(stage).await;
}
