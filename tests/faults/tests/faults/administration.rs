//! The admin's changes are made in two places, PostgreSQL and LiteLLM: a change takes effect in both or in neither,
//! whatever happens to the connection to either, and nonsense from LiteLLM does not count as a defect of the
//! application.

use crate::asking::{
    ask, assert_repeats, assert_unavailable, create_job, forget_connections, is_charged, let_deadlines_pass,
    places, post,
};
use api_tests::Team;
use faults::{After, Application, Direction, Proxy, RawServer, Script};
use futures::future::join_all;
use serde_json::{Value, json};
use uuid::Uuid;

/// At how many bytes each connection is cut each way.
const PLACES: u64 = 10;

/// Sends a request with a connection of `proxy` that breaks off at some byte, and then its repeat under the same
/// `Idempotency-Key`, once the time of whatever the first one had begun is over. Gives what the repeat was answered, at
/// every place.
async fn cut_and_repeated(
    app: &Application,
    proxy: &Proxy,
    path: &str,
    body: impl Fn() -> Value,
    check: impl AsyncFn(Value, &str),
) {
    let admin = app.admin();
    for direction in [Direction::ToServer, Direction::ToClient] {
        let before = proxy.passed(direction);
        let uncut = ask(post(&admin, path, &body(), None)).await.expect("an answer").ok();
        let length = proxy.passed(direction) - before;
        check(uncut, "uncut").await;
        let mut refused = 0;
        for at in places(length, PLACES) {
            let context = format!("{path}, {direction:?}, cut after {at} of {length} bytes");
            let (body, key) = (body(), Uuid::new_v4().to_string());
            proxy.cut_once_after(direction, at);
            let first = ask(post(&admin, path, &body, Some(&key))).await.expect("an answer");
            proxy.cut_no_more();
            if first.status != 200 {
                assert_unavailable(&first, &context);
                let_deadlines_pass(app).await;
                refused += 1;
            }
            let second = ask(post(&admin, path, &body, Some(&key))).await.expect("an answer");
            assert_repeats(&second, &first, &context);
            check(second.body, &context).await;
        }
        assert!(refused > 0, "{path}, {direction:?}: no cut was noticed");
    }
}

/// The team of this answer, which shows its key.
fn team_of(app: &Application, answer: &Value) -> Team {
    let text = |name: &str| answer[name].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
    let key = text("virtual_key");
    Team { id: text("team_id"), client: app.nobody(0).as_team(&key), key }
}

async fn works(team: &Team, context: &str) {
    let job = team.job().await;
    team.call(&job, "hello").await.ok();
    is_charged(team, &job, context).await;
}

#[tokio::test]
async fn a_team_is_made_once_here_and_in_litellm_wherever_a_connection_breaks() {
    let app = Application::start().await;
    let (organization, group) =
        (app.admin().new_organization().await, app.admin().new_model_group(&["gpt-4o-mini"]).await);
    let body = || {
        let id = format!("team-{}", Uuid::new_v4().simple());
        json!({"organization_id": organization, "team_id": id, "model_groups": [group], "credits_allocated": 1})
    };
    for proxy in [&app.to_database, &app.to_litellm] {
        cut_and_repeated(&app, proxy, "/api/teams/create", body, async |made, context| {
            let team = team_of(&app, &made);
            works(&team, context).await;
            assert_eq!(team.balance().await["credits_allocated"], 1, "{context}");
            assert!(app.litellm.team(&team.id).is_some(), "{context}");
            assert_eq!(app.litellm.keys_of(&team.id).len(), 1, "{context}");
        })
        .await;
    }
    app.recovers().await;
}

#[tokio::test]
async fn a_key_is_rotated_once_and_only_the_newest_works_wherever_a_connection_breaks() {
    let app = Application::start().await;
    let team = app.team(1000).await;
    let path = format!("/api/teams/{}/keys/rotate", team.id);
    for proxy in [&app.to_database, &app.to_litellm] {
        cut_and_repeated(
            &app,
            proxy,
            &path,
            || json!({}),
            async |rotated, context| {
                works(&team_of(&app, &rotated), context).await;
                assert_eq!(ask(create_job(&team, None)).await.expect("an answer").status, 401, "{context}");
                let good =
                    "SELECT count(*) FROM virtual_keys WHERE key_hash IS NOT NULL AND revoked_at IS NULL";
                assert_eq!(app.number(good).await, 1, "{context}");
            },
        )
        .await;
    }
    app.recovers().await;
}

/// Answers in LiteLLM's place that none of its clients can use.
fn nonsense() -> Vec<(&'static str, Script)> {
    let json = "content-type: application/json\r\n";
    let too_many = r#"{"error": {"message": "too many", "type": "None", "param": "None", "code": "429"}}"#;
    let of = |body: &str| Script::http("200 OK", json, body);
    vec![
        ("no HTTP", Script::of("220 mail.example ESMTP\r\n\r\n")),
        ("a reset", Script::of("").then(After::Reset)),
        ("half an answer", Script::of("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{")),
        ("no JSON", of("<html>proxy error</html>")),
        ("half of JSON", of(r#"{"key": "sk-"#)),
        ("an empty body", of("")),
        ("null", of("null")),
        ("another type", of(r#"{"key": 7, "team_id": [], "data": {}}"#)),
        ("too many requests", Script::http("429 Too Many Requests", json, too_many)),
        ("it took too long", Script::http("408 Request Timeout", json, "{}")),
        ("elsewhere", Script::http("302 Found", "location: http://127.0.0.1:1/\r\n", "")),
        ("a server error", Script::http("500 Internal Server Error", json, "secret")),
        ("a gateway's error", Script::http("502 Bad Gateway", "content-type: text/html\r\n", "secret")),
    ]
}

/// Puts each of these in LiteLLM's place: every change by the admin that needs LiteLLM is refused in time, and
/// afterwards none has happened by half.
async fn no_change_is_half_done(cases: Vec<(&str, Script)>) {
    let app = Application::start().await;
    let team = app.team(1000).await;
    let admin = app.admin();
    let organization = admin.new_organization().await;
    let fields = json!({"organization_id": organization, "team_id": "new", "credits_allocated": 5});
    let keys = format!("/api/teams/{}/keys", team.id);
    for (name, script) in cases {
        let server = RawServer::start(script).await.expect("a server");
        app.to_litellm.set_target(server.address());
        forget_connections(&app).await;
        let changes = [
            post(&admin, "/api/teams/create", &fields, None),
            post(&admin, &format!("{keys}/rotate"), &json!({}), None),
            post(&admin, &format!("{keys}/create"), &json!({"alias": "ci"}), None),
        ];
        for answer in join_all(changes.map(ask)).await {
            assert_unavailable(&answer.expect("an answer"), name);
        }
        let_deadlines_pass(&app).await;
    }
    app.to_litellm.set_target(app.litellm_address());
    forget_connections(&app).await;
    works(&team, "its key is the old one").await;
    let made = admin.post("/api/teams/create", fields).await.ok();
    assert_eq!((app.litellm.keys_of("new").len(), &made["credits_allocated"]), (1, &json!(5)));
    app.recovers().await;
}

#[tokio::test]
async fn while_litellm_talks_nonsense_the_admins_changes_are_a_503_and_none_is_half_done() {
    no_change_is_half_done(nonsense()).await;
}

#[tokio::test]
async fn while_litellm_says_nothing_the_admins_changes_are_a_503_and_none_is_half_done() {
    no_change_is_half_done(vec![("silence", Script::of("").then(After::Hold))]).await;
}
