//! What several topics share: ids, the routes, and a look at everything that is stored.

use api_tests::TestApp;
use reqwest::Method;
use uuid::{Uuid, Version};

/// An id that no other test has.
pub fn unique(what: &str) -> String {
    format!("{what}-{}", Uuid::now_v7().simple())
}

/// Who may call a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The admin.
    Admin,
    /// A team's key; for a call nothing else will do.
    Team,
    /// The admin and a team.
    AdminOrTeam,
}

/// Every route that needs a key. `{team}` and `{job}` stand for ids.
pub const ROUTES: [(Method, &str, Access); 24] = [
    (Method::POST, "/api/organizations/create", Access::Admin),
    (Method::GET, "/api/organizations/any", Access::Admin),
    (Method::POST, "/api/model-groups/create", Access::Admin),
    (Method::GET, "/api/model-groups", Access::AdminOrTeam),
    (Method::GET, "/api/model-groups/any", Access::AdminOrTeam),
    (Method::GET, "/api/model-groups/any/resolve", Access::AdminOrTeam),
    (Method::POST, "/api/model-access-groups/create", Access::Admin),
    (Method::GET, "/api/model-access-groups/any", Access::Admin),
    (Method::POST, "/api/teams/create", Access::Admin),
    (Method::GET, "/api/teams", Access::Admin),
    (Method::GET, "/api/teams/{team}", Access::AdminOrTeam),
    (Method::PUT, "/api/teams/{team}/model-groups", Access::Admin),
    (Method::PUT, "/api/teams/{team}/suspend", Access::Admin),
    (Method::PUT, "/api/teams/{team}/resume", Access::Admin),
    (Method::GET, "/api/teams/{team}/jobs", Access::AdminOrTeam),
    (Method::GET, "/api/credits/teams/{team}/balance", Access::AdminOrTeam),
    (Method::POST, "/api/credits/teams/{team}/add", Access::Admin),
    (Method::POST, "/api/credits/teams/{team}/check", Access::AdminOrTeam),
    (Method::GET, "/api/credits/teams/{team}/transactions", Access::AdminOrTeam),
    (Method::POST, "/api/jobs/create", Access::Team),
    (Method::GET, "/api/jobs/{job}", Access::AdminOrTeam),
    (Method::POST, "/api/jobs/{job}/complete", Access::Team),
    (Method::POST, "/api/jobs/{job}/llm-call", Access::Team),
    (Method::POST, "/api/jobs/{job}/llm-call-stream", Access::Team),
];

/// A route's path with these ids in it.
pub fn path(route: &str, team: &str, job: &str) -> String {
    route.replace("{team}", team).replace("{job}", job)
}

/// Every row of every table, as text.
pub async fn stored(app: &TestApp) -> String {
    let tables = "SELECT quote_ident(relname) FROM pg_stat_user_tables ORDER BY 1";
    let mut all = String::new();
    for table in app.database.client.query(tables, &[]).await.expect("the tables") {
        let table: String = table.get(0);
        let rows =
            format!("SELECT coalesce(string_agg(t::text, E'\\n' ORDER BY t::text), '') FROM {table} AS t");
        let rows: String = app.database.client.query_one(&rows, &[]).await.expect("its rows").get(0);
        all.push_str(&format!("-- {table}\n{rows}\n"));
    }
    assert!(all.contains("-- teams"), "{all}");
    all
}

/// Runs a statement that is not the application's, and says how many rows it changed.
pub async fn sql(app: &TestApp, statement: &str) -> u64 {
    app.database.client.execute(statement, &[]).await.expect("the statement")
}

/// Fails the test unless this is RFC 3339 in UTC, ending in `Z`.
#[track_caller]
pub fn assert_time(value: &serde_json::Value) {
    let text = value.as_str().unwrap_or_else(|| panic!("no time: {value}"));
    let form: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    let (seconds, fraction) = form.split_at_checked(19).unwrap_or((&form, ""));
    let fraction = fraction.strip_suffix('Z').unwrap_or("no Z");
    assert_eq!(seconds, "0000-00-00T00:00:00", "{text}");
    assert!(fraction.is_empty() || fraction.trim_end_matches('0') == ".", "{text}");
}

/// Fails the test unless this is a UUID of version 7.
#[track_caller]
pub fn assert_uuid(value: &serde_json::Value) {
    let id: Uuid =
        value.as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no UUID: {value}"));
    assert_eq!(id.get_version(), Some(Version::SortRand), "{value}");
}
