//! Which component answers a path. The crate `routefinder` decides, fed as Spin feeds it.

use anyhow::{Result, anyhow};

use crate::manifest::{HttpTrigger, Manifest, Route};

/// The routes of an application. An exact route beats a parameter, which beats a trailing wildcard, segment by segment.
#[derive(Debug)]
pub struct Router {
    routes: routefinder::Router<Target>,
}

#[derive(Debug)]
struct Target {
    component: String,
    /// As written in the manifest.
    route: String,
}

/// How a path was matched.
#[derive(Debug)]
pub(crate) struct RouteMatch<'a> {
    target: &'a Target,
    /// What the trailing wildcard stands for: empty, or starting with `/`.
    pub(crate) path_info: String,
    /// The parameters' names and raw values.
    pub(crate) parameters: Vec<(String, String)>,
}

impl Router {
    /// The routes of a manifest, given as text. Its components need not be built.
    pub fn from_toml(manifest: &str) -> Result<Self> {
        Self::new(&Manifest::parse(manifest)?.trigger.http)
    }

    /// The component that answers a raw path, and the route by which it does, as the manifest has it.
    pub fn answers(&self, path: &str) -> Option<(&str, &str)> {
        let found = self.routes.best_match(path)?.handler();
        Some((found.component.as_str(), found.route.as_str()))
    }

    /// Builds the router from the manifest's triggers; private ones have no route.
    pub(crate) fn new(triggers: &[HttpTrigger]) -> Result<Self> {
        let mut routes = routefinder::Router::new();
        for trigger in triggers {
            let Route::Pattern(route) = &trigger.route else { continue };
            let target = Target { component: trigger.component.clone(), route: route.clone() };
            routes.add(pattern(route), target).map_err(|error| anyhow!("route = {route:?}: {error}"))?;
        }
        Ok(Self { routes })
    }

    /// The best match for a request's raw path.
    pub(crate) fn route(&self, path: &str) -> Option<RouteMatch<'_>> {
        let best = self.routes.best_match(path)?;
        let captures = best.captures();
        // The router strips the path's last slash; Spin puts it back.
        let path_info = match captures.wildcard() {
            None => String::new(),
            Some("") => if path.ends_with('/') { "/" } else { "" }.to_owned(),
            Some(rest) => format!("/{rest}{}", if path.ends_with('/') { "/" } else { "" }),
        };
        let parameters = captures.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Some(RouteMatch { target: best.handler(), path_info, parameters })
    }

    /// Every route as the manifest has it, with its component.
    pub fn routes(&self) -> impl Iterator<Item = (&str, &str)> {
        self.routes.iter().map(|(_, target)| (target.route.as_str(), target.component.as_str()))
    }
}

impl RouteMatch<'_> {
    /// The id of the component that answers.
    pub(crate) fn component(&self) -> &str {
        &self.target.component
    }

    /// The route as the manifest has it.
    pub(crate) fn raw_route(&self) -> &str {
        &self.target.route
    }

    /// The route without its last slash.
    pub(crate) fn matched_route(&self) -> &str {
        without_last_slash(&self.target.route)
    }

    /// The route without its trailing wildcard.
    pub(crate) fn route_prefix(&self) -> &str {
        self.target.route.strip_suffix("/...").unwrap_or(&self.target.route)
    }
}

/// A manifest's route in the router's language.
fn pattern(route: &str) -> String {
    let route = without_last_slash(route);
    match route.strip_suffix("/...") {
        Some(prefix) => format!("{prefix}/*"),
        None => route.to_owned(),
    }
}

fn without_last_slash(route: &str) -> &str {
    route.strip_suffix('/').unwrap_or(route)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router(routes: &[&str]) -> Router {
        let triggers: Vec<HttpTrigger> = routes
            .iter()
            .map(|route| toml::from_str(&format!("route = {route:?}\ncomponent = {route:?}")).unwrap())
            .collect();
        Router::new(&triggers).unwrap()
    }

    /// The routes of the application, in an order that must not matter.
    fn application() -> Router {
        router(&[
            "/...",
            "/api/jobs/...",
            "/api/teams/...",
            "/health",
            "/api/teams/:team_id/jobs",
            "/api/jobs/:job_id/llm-call",
            "/api/jobs/:job_id/llm-call-stream",
        ])
    }

    #[test]
    fn exact_beats_parameter_beats_wildcard() {
        let router = application();
        for (path, expected) in [
            ("/health", "/health"),
            ("/health/", "/health"),
            ("//health", "/health"),
            ("/health/x", "/..."),
            ("/Health", "/..."),
            ("/", "/..."),
            ("", "/..."),
            ("/api", "/..."),
            ("/api/jobs", "/api/jobs/..."),
            ("/api/jobs/", "/api/jobs/..."),
            ("/api/jobs/create", "/api/jobs/..."),
            ("/api/jobs/1/llm-call", "/api/jobs/:job_id/llm-call"),
            ("/api/jobs/1/llm-call/", "/api/jobs/:job_id/llm-call"),
            ("//api/jobs/1/llm-call", "/api/jobs/:job_id/llm-call"),
            ("/api//jobs/1/llm-call", "/..."),
            ("/api/jobs/1/llm-call-stream", "/api/jobs/:job_id/llm-call-stream"),
            ("/api/jobs/1/llm-call/x", "/api/jobs/..."),
            ("/api/jobs/1/llm%2dcall", "/api/jobs/..."),
            ("/api/jobs/1%2f2/llm-call", "/api/jobs/:job_id/llm-call"),
            ("/api/jobs/1.2/llm-call", "/api/jobs/:job_id/llm-call"),
            ("/api/jobs/../llm-call", "/api/jobs/:job_id/llm-call"),
            ("/api/jobs/a/b/llm-call", "/api/jobs/..."),
            ("/api/teams/acme/jobs", "/api/teams/:team_id/jobs"),
            ("/api/teams/acme.v2/jobs", "/api/teams/:team_id/jobs"),
            ("/api/teams/acme/usage", "/api/teams/..."),
        ] {
            let found = router.route(path).map(|found| found.component().to_owned());
            assert_eq!(found.as_deref(), Some(expected), "{path}");
        }
    }

    #[test]
    fn a_path_without_a_route_has_no_match() {
        let router = router(&["/a", "/b/:c", "/d/..."]);
        for path in ["/", "/a/b", "/b", "/b/c/d", "/dd", "/A"] {
            assert!(router.route(path).is_none(), "{path}");
        }
    }

    #[test]
    fn parameters_and_the_rest_are_given_raw() {
        let router = router(&["/jobs/:job_id/...", "/"]);
        for (path, id, rest) in [
            ("/jobs/7", "7", ""),
            ("/jobs/7/", "7", "/"),
            ("/jobs/7/a", "7", "/a"),
            ("/jobs/7/a/b/", "7", "/a/b/"),
            ("/jobs/a%2Fb/c%20d", "a%2Fb", "/c%20d"),
            ("/jobs/1.2.3/x", "1.2.3", "/x"),
        ] {
            let found = router.route(path).expect(path);
            assert_eq!(found.parameters, [("job_id".to_owned(), id.to_owned())], "{path}");
            assert_eq!(found.path_info, rest, "{path}");
        }
    }

    #[test]
    fn the_names_of_a_route_lose_what_spin_takes_off() {
        let router = router(&["/a/...", "/b/"]);
        let found = router.route("/a/x").unwrap();
        assert_eq!(
            (found.raw_route(), found.matched_route(), found.route_prefix()),
            ("/a/...", "/a/...", "/a")
        );
        let found = router.route("/b").unwrap();
        assert_eq!((found.raw_route(), found.matched_route(), found.route_prefix()), ("/b/", "/b", "/b/"));
    }
}
