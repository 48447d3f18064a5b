//! Caches between a caller and the application: no answer is theirs to keep or to take for something else.

use crate::{
    recipes::recipe,
    world::{Stage, send},
};
use api_tests::{Answer, Options};
use openapi::{name, routes};
use reqwest::Method;
use shared::http::Access;

#[track_caller]
fn is_nobody_elses(answer: &Answer, what: &str) {
    let caching = answer.header("cache-control");
    assert!(matches!(caching, Some("no-store" | "no-cache")), "{what}: {caching:?}");
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{what}");
}

#[tokio::test]
async fn every_answer_and_every_refusal_says_that_no_cache_may_give_it_to_others() {
    let stage = Stage::set(Options::default()).await;
    for (_, route) in routes() {
        let world = stage.world().await;
        let request = recipe(&name(&route), &world).await;
        if route.access != Access::Public {
            let refused = send(&stage.app.nobody(), &route, &request, None).await;
            assert_eq!(refused.status, 401);
            is_nobody_elses(&refused, &format!("{} by nobody", name(&route)));
        }
        let answer = send(&stage.caller(&route, &world), &route, &request, None).await;
        assert_eq!(answer.status, 200, "{}: {}", name(&route), answer.text);
        is_nobody_elses(&answer, &name(&route));
    }
    // By such names caches know files that are the same for everybody.
    for path in ["/nope.css", "/api/teams/x.css", "/api/jobs/x.js", "/v1/models/x.png", "/docs/x.js", "/"] {
        let answer = stage.app.admin().get(path).await;
        assert!(answer.status.is_client_error(), "{path}: {}", answer.status);
        is_nobody_elses(&answer, path);
    }
    let answer = Answer::of(stage.app.nobody().request(Method::DELETE, "/health")).await;
    is_nobody_elses(&answer, "a method that is not allowed");
}
