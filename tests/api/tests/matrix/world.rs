//! What the requests are made in, and how they are made.

use crate::recipes::Recipe;
use api_tests::{Answer, Client, Options, Team, TestApp};
use openapi::{name, verb};
use reqwest::Method;
use serde_json::{Value, json};
use shared::http::{Access, api::Route};
use uuid::Uuid;

/// An application with teams that are not what a route is about.
pub struct Stage {
    /// The application.
    pub app: TestApp,
    /// A team that has nothing to do with the others.
    pub other: Team,
    /// A team that is suspended.
    pub suspended: Team,
}

impl Stage {
    /// Starts an application and sets up what the requests need.
    pub async fn set(mut options: Options) -> Self {
        if options.variables.iter().all(|(name, _)| *name != "webhook_secret") {
            options.variables.push(("webhook_secret", "a webhook's secret".to_owned()));
        }
        let app = TestApp::start_with(options).await;
        let (other, suspended) = (app.team(10).await, app.team(10).await);
        app.admin().put(&format!("/api/teams/{}/suspend", suspended.id), json!({})).await.ok();
        Self { app, other, suspended }
    }

    /// New things for one request to be about.
    pub async fn world(&self) -> World<'_> {
        let app = &self.app;
        let (organization, group) = (app.organization().await, app.model_group(&["gpt-4o-mini"]).await);
        let access_group = unique("access");
        let body = json!({"group_name": access_group, "model_groups": [group]});
        app.admin().post("/api/model-access-groups/create", body).await.ok();
        let team = app
            .team_with(json!({
                "organization_id": organization,
                "credits_allocated": 10,
                "model_groups": [group],
                "access_groups": [access_group],
            }))
            .await;
        let job = team.job().await;
        World { app, organization, group, access_group, team, job }
    }

    /// Who makes a route's request, of those who may.
    pub fn caller(&self, route: &Route, world: &World<'_>) -> Client {
        self.client(callers(route)[0], world)
    }

    /// The client of one of [`callers`].
    pub fn client(&self, caller: &str, world: &World<'_>) -> Client {
        match caller {
            "team" => world.team.client.clone(),
            "admin" => self.app.admin(),
            _ => self.app.nobody(),
        }
    }
}

/// Everybody who may make a route's request.
pub fn callers(route: &Route) -> &'static [&'static str] {
    match route.access {
        Access::Team => &["team"],
        Access::AdminOrTeam => &["team", "admin"],
        Access::Admin => &["admin"],
        Access::Public => &["anybody"],
    }
}

/// Things of their own for a request to be about.
pub struct World<'a> {
    /// The application that they are in.
    pub app: &'a TestApp,
    /// The organization of the team.
    pub organization: String,
    /// The team's model group.
    pub group: String,
    /// The team's access group, with that model group in it.
    pub access_group: String,
    /// A team with credits.
    pub team: Team,
    /// A job of the team that has just been created.
    pub job: String,
}

/// An id that nothing else has.
pub fn unique(what: &str) -> String {
    format!("{what}-{}", Uuid::now_v7().simple())
}

/// Makes a route's request.
pub async fn send(client: &Client, route: &Route, recipe: &Recipe, idempotency_key: Option<&str>) -> Answer {
    let method = Method::from_bytes(verb(&route.method).as_bytes()).expect("a method");
    let mut request = client.request(method, &recipe.path);
    if let Some(body) = &recipe.body {
        request = request.body(body.to_string());
    }
    if let Some(key) = idempotency_key {
        request = request.header("idempotency-key", key);
    }
    Answer::of(request).await
}

/// Fails the test unless the answer is a refusal with this status and code, in the form that the route has for errors.
#[track_caller]
pub fn assert_refused(answer: &Answer, route: &Route, who: &str, (status, code): (u16, &str)) {
    let error = if route.path.starts_with("/v1/") { &answer.body["error"] } else { &answer.body };
    assert_eq!(
        (answer.status.as_u16(), &error["code"]),
        (status, &Value::from(code)),
        "{} by {who}: {}",
        name(route),
        answer.text
    );
}

/// Fails the test unless the answer is a success.
#[track_caller]
pub fn assert_allowed(answer: &Answer, route: &Route, who: &str) {
    assert_eq!(answer.status, 200, "{} by {who}: {}", name(route), answer.text);
}
