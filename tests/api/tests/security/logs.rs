//! The log has a line for each failure, whatever was in the request, and answers give nothing back that could be more
//! than data.

use crate::{
    hostile::method,
    recipes::recipe,
    recorder::Recorder,
    wire::{exchange, head},
    world::{Stage, World},
};
use api_tests::{Answer, Options, TestApp};
use openapi::{name, routes};
use reqwest::Method;
use serde_json::{Value, json};
use shared::http::{Access, api::Route};

const FORGED: &str = "forged line 200 OK";

/// The entries of the components among the lines of the log.
fn entries(logs: &str) -> impl Iterator<Item = Value> {
    logs.lines().filter(|line| line.starts_with('{')).map(|line| serde_json::from_str(line).expect("JSON"))
}

/// Fails the test unless the log has one line for each of these request ids, and no other.
#[track_caller]
fn one_line_each(app: &TestApp, ids: &[String]) {
    let logs = app.logs();
    assert!(!logs.contains('\r') && !logs.contains('\u{1b}'), "{logs:?}");
    for id in ids {
        let of_this: Vec<Value> = entries(&logs).filter(|entry| entry["request_id"] == json!(id)).collect();
        let [entry] = &of_this[..] else { panic!("{id}: {} entries: {logs}", of_this.len()) };
        assert!(entry["route"].as_str().is_some_and(|route| route.starts_with('/')), "{entry}");
        assert!(entry["status"].as_u64() >= Some(500) && entry["duration_ms"].is_u64(), "{entry}");
        assert!(entry["method"].is_string() && entry["time_ms"].is_u64(), "{entry}");
    }
    for line in logs.lines() {
        let whole = serde_json::from_str::<Value>(line).is_ok() || line.contains(": ");
        assert!(whole, "a split line: {line:?} in {logs}");
        assert!(!line.starts_with(FORGED), "{logs}");
    }
}

/// Puts ends of lines wherever text may stand in this request.
async fn with_ends_of_lines(world: &World<'_>, route: &Route) -> (String, Option<String>) {
    let recipe = recipe(&name(route), world).await;
    let text = format!("a\r\n{FORGED}\n\u{1b}[31m{FORGED}");
    let body = recipe.body.map(|mut body| {
        for member in ["metadata", "call_metadata", "job_metadata"] {
            if body.get(member).is_some() || (member == "metadata" && route.path == "/api/jobs/create") {
                body[member] = json!({&text: &text});
            }
        }
        for member in ["reason", "error_message", "description"] {
            if body.get(member).is_some() {
                body[member] = text.clone().into();
            }
        }
        if body.get("messages").is_some() {
            body["messages"] = json!([{"role": "user", "content": text}]);
        }
        body.to_string()
    });
    (recipe.path, body)
}

#[tokio::test]
async fn a_failure_is_one_line_in_the_log_whatever_the_request_holds() {
    let stage = Stage::set(Options::default()).await;
    let world = stage.world().await;
    let mut requests = vec![];
    for (_, route) in routes() {
        let (path, body) = with_ends_of_lines(&world, &route).await;
        requests.push((route, path, body));
    }
    // In place of each a function that fails with what it was given, as PostgreSQL's own messages do.
    let functions =
        "SELECT proname::text, pg_get_function_identity_arguments(oid), pg_get_function_result(oid),
                pronargs::int
        FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND prosecdef
        AND proname NOT IN ('lookup_key', 'claim', 'keep')";
    for row in stage.app.database.client.query(functions, &[]).await.expect("the functions") {
        let (function, arguments, result): (String, String, String) = (row.get(0), row.get(1), row.get(2));
        let given: String = (1..=row.get::<_, i32>(3)).map(|number| format!(", ${number}::text")).collect();
        let broken = format!(
            "DROP FUNCTION {function}({arguments}) CASCADE;
             CREATE FUNCTION {function}({arguments}) RETURNS {result}
             LANGUAGE plpgsql SECURITY DEFINER AS $broken$ BEGIN
                 RAISE EXCEPTION E'lost\\r\\n%\\n{FORGED} \\x1b[31m', concat_ws(E'\\n{FORGED}\\n', ''{given});
             END $broken$"
        );
        stage.app.database.client.batch_execute(&broken).await.expect("a broken function");
    }
    let mut failed = vec![];
    for (number, (route, path, body)) in requests.into_iter().enumerate() {
        let client = stage.caller(&route, &world);
        let id = format!("failing-{number}");
        let request = client.request(method(&route), &path).header("x-request-id", &id);
        let answer = Answer::of(request.body(body.unwrap_or_default())).await;
        assert_eq!(answer.header("x-request-id"), Some(id.as_str()));
        if answer.status.is_server_error() {
            assert!(!answer.text.contains(FORGED) && !answer.text.contains("lost"), "{}", answer.text);
            failed.push(id);
        }
    }
    assert!(failed.len() > 40, "only {} failed", failed.len());
    one_line_each(&stage.app, &failed);
}

#[tokio::test]
async fn what_litellm_says_is_one_line_in_the_log_and_brings_no_secret_there() {
    let Some((stage, recorder)) = Recorder::on_stage(Options::default()).await else { return };
    let master_key = stage.app.stand_in().expect("the stand-in").master_key().to_owned();
    let mut failed = vec![];
    let mut secrets = vec![master_key, "test-admin-key".to_owned()];
    for status in [400, 401, 403, 404, 409, 422, 429, 500, 502, 503] {
        recorder.quote(None);
        let world = stage.world().await;
        secrets.push(world.team.key.clone());
        for (number, (_, route)) in routes().into_iter().enumerate() {
            if route.access != Access::Admin || method(&route) == Method::GET {
                continue;
            }
            recorder.quote(None);
            // What deletes takes the world away with it.
            if route.path == "/api/teams/{team_id}" && method(&route) == Method::DELETE {
                continue;
            }
            let request = recipe(&name(&route), &world).await;
            recorder.quote(Some(status));
            let id = format!("quoted-{status}-{number}");
            let sent = stage.app.admin().request(method(&route), &request.path).header("x-request-id", &id);
            let body = request.body.map(|body| body.to_string()).unwrap_or_default();
            let answer = Answer::of(sent.body(body)).await;
            assert!(!answer.text.contains("no luck with"), "{}: {}", name(&route), answer.text);
            if answer.status.is_server_error() {
                failed.push(id);
            }
        }
    }
    assert!(!failed.is_empty());
    for secret in secrets {
        assert!(!stage.app.logs().contains(&secret), "a secret in the log: {}", stage.app.logs());
    }
    one_line_each(&stage.app, &failed);
}

#[tokio::test]
async fn ends_of_lines_in_headers_make_neither_headers_nor_lines() {
    let app = TestApp::start().await;
    let team = app.team(2).await;
    let key = format!("authorization: Bearer {}", team.key);
    let before = app.database.everything().await;
    for header in [
        "x-request-id: a\nx-evil: 1",
        "x-request-id: a\rx-evil: 1",
        "x-request-id: a\r\n x-evil: 1",
        "x-request-id: a\u{0}b",
        "x-request-id: \u{85}x-evil: 1\u{2028}",
        "x-request-id: a%0d%0ax-evil:%201",
        "idempotency-key: a\rb",
        "idempotency-key: a\u{b}b",
        "idempotency-key: \u{2028}",
        "x-job-id: a\rb",
    ] {
        for line in ["GET /api/teams/none", "POST /api/organizations/create", "GET /nope"] {
            let request = head(line, &[&key, header, "content-length: 0"]);
            let reply = exchange(&app, request.as_bytes()).await;
            let head = reply.text.split("\r\n\r\n").next().unwrap_or_default().to_lowercase();
            assert!(!head.lines().any(|line| line.starts_with("x-evil")), "{header:?}: {head}");
            assert!(reply.status == 0 || (400..500).contains(&reply.status), "{header:?}: {}", reply.text);
        }
    }
    assert_eq!(app.database.everything().await, before);
    assert!(!app.logs().contains("evil"), "{}", app.logs());
}

#[tokio::test]
async fn what_an_answer_gives_back_of_a_request_is_json_and_nothing_that_a_browser_runs() {
    let app = TestApp::start().await;
    let team = app.team(2).await;
    let evil = "%3Cscript%3Ealert(1)%3C%2Fscript%3E";
    for path in [
        format!("/{evil}"),
        format!("/api/teams/{evil}"),
        format!("/api/jobs/{evil}"),
        format!("/docs/{evil}"),
        format!("/v1/models/{evil}"),
        format!("/api/teams/{}/jobs?{evil}={evil}", team.id),
        format!("/api/teams/{}/jobs?status={evil}", team.id),
    ] {
        let answer = team.client.get(&path).await;
        assert!(answer.status.is_client_error(), "{path}: {}", answer.status);
        assert_eq!(answer.header("content-type"), Some("application/json"), "{path}");
    }
    let body = json!({"<script>alert(1)</script>": 1});
    let answer = team.client.post("/api/jobs/create", body).await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (400, Some("application/json")));
    // Nobody is let in by another site's page: no answer allows one to read it.
    for origin in ["https://evil.example", "null", &app.url()] {
        for method in [Method::GET, Method::OPTIONS] {
            let request = app.admin().request(method, "/api/teams").header("origin", origin);
            let answer = Answer::of(request.header("access-control-request-method", "GET")).await;
            assert_eq!(answer.header("access-control-allow-origin"), None, "{origin}");
        }
    }
}
