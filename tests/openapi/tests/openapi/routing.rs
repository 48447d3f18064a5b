//! The routes of `spin.toml`, and the components behind them.

use host::Router;
use openapi::{name, repository, routes};
use shared::http::Access;
use std::{collections::BTreeSet, fs};

/// What the paths of the API begin with, each with a slash or nothing behind it.
const AREAS: [&str; 15] = [
    "/api/organizations",
    "/api/model-groups",
    "/api/model-access-groups",
    "/api/teams",
    "/api/credits/teams",
    "/api/jobs",
    "/api/audit-log",
    "/api/upkeep",
    "/api/alerts",
    "/v1",
    "/health",
    "/metrics",
    "/openapi.json",
    "/docs",
    "/redoc",
];

/// Behind this route is no API: it answers to the paths that nobody has.
const CATCH_ALL: &str = "/...";

fn router() -> Router {
    let manifest = fs::read_to_string(repository().join("spin.toml")).expect("spin.toml");
    Router::from_toml(&manifest).expect("a manifest")
}

/// A path with an id in place of each parameter.
fn example(path: &str) -> String {
    let segment = |segment: &str| if segment.starts_with('{') { "x".to_owned() } else { segment.to_owned() };
    path.split('/').map(segment).collect::<Vec<_>>().join("/")
}

#[test]
fn every_documented_path_is_routed_to_the_component_that_has_it() {
    let router = router();
    for (component, route) in routes() {
        let routed = router.answers(&example(&route.path)).map(|(component, _)| component);
        assert_eq!(routed, Some(component), "{}", route.path);
    }
}

#[test]
fn every_route_of_the_manifest_leads_to_a_documented_path() {
    let router = router();
    let used: BTreeSet<(&str, &str)> =
        routes().iter().filter_map(|(_, route)| router.answers(&example(&route.path))).collect();
    for (route, component) in router.routes() {
        assert!(
            used.contains(&(component, route)) || route == CATCH_ALL,
            "{route}: nothing documented is behind it"
        );
    }
}

#[test]
fn every_path_is_in_an_area_of_the_api() {
    for (_, route) in routes() {
        let is_in = |area: &str| {
            route.path.strip_prefix(area).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        assert!(AREAS.iter().any(|area| is_in(area)), "{}", route.path);
    }
}

/// A route that reads what belongs to somebody and is listed as public by mistake is not among these.
#[test]
fn without_a_key_there_is_the_documentation_and_the_health_and_nothing_else() {
    let public: BTreeSet<String> = routes()
        .iter()
        .filter(|(_, route)| route.access == Access::Public)
        .map(|(_, route)| name(route))
        .collect();
    let expected = ["GET /docs", "GET /docs/{name}", "GET /health", "GET /openapi.json", "GET /redoc"];
    assert_eq!(public.iter().map(String::as_str).collect::<Vec<_>>(), expected);
}
