//! What holds for every route: JSON, statuses for what is no request at all, request ids, times, ids.

use crate::fixtures::{ROUTES, assert_time, assert_uuid, path};
use api_tests::{Answer, Client, TestApp};
use reqwest::Method;
use serde_json::{Value, json};
use shared::values::{
    AlertKind, BillingMode, BudgetMode, CallStatus, GroupStatus, JobStatus, RefillPeriod, TeamStatus,
    TransactionType, Word,
};

/// Fails the test unless this is an error in the form that all errors have.
#[track_caller]
pub fn assert_error(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status, status, "{}", answer.text);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.body["code"], code, "{}", answer.text);
    assert!(answer.body["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{}", answer.text);
    assert!(answer.header("x-request-id").is_some());
}

#[tokio::test]
async fn a_path_that_nobody_has_is_a_404_in_json() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    let job = team.job().await;
    for path in [
        "/",
        "/nope",
        "/api",
        "/api/teams/",
        "//api/teams",
        "/api//teams",
        "/api%2Fteams",
        "/API/teams",
        "/api/teams/a/b",
        "/api/teams/a/b/c/d",
        "/api/jobs",
        "/api/jobs/",
        &format!("/api/jobs/{job}/"),
        &format!("/api/jobs/{job}/nope"),
        &format!("/api/jobs/{job}/llm-call/"),
        &format!("//api/jobs/{job}/llm-call"),
        &format!("/api/jobs/{job}/llm-call-stream/x"),
        "/api/credits",
        "/api/credits/teams/a/balance/",
        "/health/",
    ] {
        for method in [Method::GET, Method::POST, Method::PUT, Method::DELETE] {
            for client in [app.admin(), team.client.clone(), app.nobody()] {
                let answer = Answer::of(client.request(method.clone(), path)).await;
                assert_error(&answer, 404, "not_found");
            }
        }
    }
}

#[tokio::test]
async fn another_method_is_a_405_in_json_that_lists_those_that_are_allowed() {
    let app = TestApp::start().await;
    for (allowed, route, _) in ROUTES {
        // No route has these.
        for method in [Method::OPTIONS, Method::TRACE] {
            let answer = Answer::of(app.admin().request(method.clone(), &path(route, "a", "b"))).await;
            assert_error(&answer, 405, "method_not_allowed");
            let list = answer.header("allow").unwrap_or_else(|| panic!("{method} {route}: no Allow"));
            assert!(list.split(',').any(|word| word.trim() == allowed.as_str()), "{method} {route}: {list}");
            assert!(!list.split(',').any(|word| word.trim() == method.as_str()), "{method} {route}: {list}");
        }
    }
}

async fn answer_to_id(client: &Client, id: &[u8]) -> Answer {
    let id = reqwest::header::HeaderValue::from_bytes(id).expect("a header");
    Answer::of(client.request(Method::GET, "/health").header("x-request-id", id)).await
}

#[tokio::test]
async fn a_sane_request_id_comes_back_and_another_is_replaced() {
    let app = TestApp::start().await;
    for sane in ["a", "A-1_2.z", "4bf92f3577b34da6a3ce929d0e0e4736", &"x".repeat(128)] {
        assert_eq!(answer_to_id(&app.nobody(), sane.as_bytes()).await.header("x-request-id"), Some(sane));
    }
    for insane in [&b""[..], "é".as_bytes(), &[b'x'; 129], b"a\tb", b"<script>"] {
        let answer = answer_to_id(&app.nobody(), insane).await;
        assert_uuid(&json!(answer.header("x-request-id")));
    }
    for byte in (b' '..=b'~').filter(|byte| !byte.is_ascii_alphanumeric() && !b"_.-".contains(byte)) {
        let answer = answer_to_id(&app.nobody(), &[b'a', byte, b'b']).await;
        assert_uuid(&json!(answer.header("x-request-id")));
    }
}

#[tokio::test]
async fn every_answer_has_a_request_id_of_its_own() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    let mut seen = std::collections::HashSet::new();
    for answer in [
        app.nobody().get("/health").await,
        app.nobody().get("/nope").await,
        app.nobody().get("/api/teams").await,
        app.admin().get("/api/teams").await,
        team.client.get(&format!("/api/teams/{}", team.id)).await,
        team.client.get("/api/jobs/nope").await,
        team.call("nope", "hello").await,
        team.client.post("/api/jobs/nope/llm-call-stream", json!({})).await,
    ] {
        let id = json!(answer.header("x-request-id"));
        assert_uuid(&id);
        assert!(seen.insert(id), "given twice");
    }
}

/// Checks every member that is a time or an id of ours by its name, at any depth, and counts them.
fn check_members(value: &Value) -> usize {
    match value {
        Value::Array(values) => values.iter().map(check_members).sum(),
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| match name.as_str() {
                _ if value.is_null() => 0,
                _ if name.ends_with("_at") => {
                    assert_time(value);
                    1
                }
                "job_id" | "call_id" | "transaction_id" | "model_group_id" | "access_group_id" => {
                    assert_uuid(value);
                    1
                }
                _ => check_members(value),
            })
            .sum(),
        _ => 0,
    }
}

#[tokio::test]
async fn times_are_utc_and_ids_are_uuids_of_version_7() {
    let app = TestApp::start().await;
    let team = app.team(5).await;
    let job = team.job().await;
    team.call(&job, "hello").await.ok();
    let completed = team.complete(&job, "completed").await.ok();
    assert!(check_members(&completed) >= 3, "{completed}");
    app.admin().post("/api/model-access-groups/create", json!({"group_name": "Access"})).await.ok();
    let organization = app.organization().await;
    for (path, least) in [
        (format!("/api/organizations/{organization}"), 2),
        ("/api/model-groups".into(), 3),
        ("/api/model-access-groups/Access".into(), 3),
        (format!("/api/teams/{}", team.id), 4),
        (format!("/api/credits/teams/{}/transactions", team.id), 5),
        (format!("/api/jobs/{job}"), 7),
        (format!("/api/teams/{}/jobs", team.id), 5),
    ] {
        let answer = app.admin().get(&path).await.ok();
        assert!(check_members(&answer) >= least, "{path}: {answer}");
    }
    app.check_invariants().await;
}

/// `GET /health`
#[tokio::test]
async fn health_says_what_works() {
    let app = TestApp::start().await;
    let health = app.nobody().get("/health").await.ok();
    assert_eq!(health["status"], "healthy", "{health}");
    for member in ["version", "database", "litellm"] {
        assert!(health[member].is_string(), "{health}");
    }
    let Some(stand_in) = app.stand_in() else { return };
    stand_in.set_down(true);
    let without = app.nobody().get("/health").await.ok();
    assert_eq!((&without["status"], &without["database"]), (&health["status"], &health["database"]));
    assert_ne!(without["litellm"], health["litellm"]);
}

fn words<W: Word>(all: &[W]) -> Vec<&'static str> {
    all.iter().map(|word| word.word()).collect()
}

/// An answer with a word that the API does not know would be a 500.
#[tokio::test]
async fn the_words_that_the_database_allows_are_those_of_the_api() {
    let app = TestApp::start().await;
    // What nobody is shown: a team in the making, and what is deleted, but for teams, which are also shown while they
    // are being deleted.
    let hidden = ["creating", "deleted"];
    let of_teams = |word: &TeamStatus| !matches!(word, TeamStatus::Deleting | TeamStatus::Deleted);
    let of_teams: Vec<TeamStatus> = TeamStatus::ALL.iter().copied().filter(of_teams).collect();
    for (table, column, mut known) in [
        ("organizations", "status", words(GroupStatus::ALL)),
        ("model_groups", "status", words(GroupStatus::ALL)),
        ("model_access_groups", "status", words(GroupStatus::ALL)),
        ("teams", "status", words(&of_teams)),
        ("jobs", "status", words(JobStatus::ALL)),
        ("calls", "status", words(CallStatus::ALL)),
        ("alerts", "kind", words(AlertKind::ALL)),
        ("credit_transactions", "transaction_type", words(TransactionType::ALL)),
        ("credit_accounts", "budget_mode", words(BudgetMode::ALL)),
        ("credit_accounts", "refill_period", words(RefillPeriod::ALL)),
        ("terms", "billing_mode", words(BillingMode::ALL)),
    ] {
        let constraints = "SELECT coalesce(string_agg(pg_get_constraintdef(oid), ' '), '') FROM pg_constraint
            WHERE conrelid = $1::text::regclass AND contype = 'c' AND cardinality(conkey) = 1
              AND conkey[1] = (SELECT attnum FROM pg_attribute WHERE attrelid = conrelid AND attname = $2)";
        let row = app.database.client.query_one(constraints, &[&table, &column]).await.expect("constraints");
        let text: String = row.get(0);
        let mut allowed: Vec<&str> = text.split('\'').skip(1).step_by(2).collect();
        allowed.retain(|word| !hidden.contains(word));
        allowed.sort_unstable();
        known.sort_unstable();
        assert_eq!(allowed, known, "{table}.{column}: {text}");
    }
}
