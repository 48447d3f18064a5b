//! Schemathesis: does the application do what its OpenAPI document says?
//!
//! For each caller it makes requests from every operation that the caller may make: the document's examples,
//! combinations of what the schemas allow and of what they forbid, and random ones. Nothing may be answered with a
//! server error, with a status, header, content type or body that isn't documented, and what the schemas forbid must be
//! refused. The seed is fixed.
//!
//! Off is `positive_data_acceptance`, since there is valid input that no schema can tell from invalid input: two names
//! for the same field, an offset beside a cursor, a price that goes with another mode, an `Idempotency-Key` that was
//! used before.

use crate::{beside, python};
use api_tests::{PATIENCE, TestApp, python::run};
use serde_json::json;

const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
    response_schema_conformance,negative_data_rejection,missing_required_header,unsupported_method,ignored_auth";

/// An application with what the document's examples are about, and the key of their team. `None` against a real
/// LiteLLM, in which the examples' ids may be taken.
async fn app() -> Option<(TestApp, String)> {
    let app = TestApp::start().await;
    app.stand_in()?;
    let admin = app.admin();
    let organization = json!({"organization_id": "acme-corp", "name": "Acme Corp"});
    admin.post("/api/organizations/create", organization).await.ok();
    let models = json!([{"model_name": "gpt-4o-mini", "priority": 0}]);
    admin.post("/api/model-groups/create", json!({"group_name": "ChatAgent", "models": models})).await.ok();
    let access_group = json!({"group_name": "basic-chat", "model_groups": ["ChatAgent"]});
    admin.post("/api/model-access-groups/create", access_group).await.ok();
    let team = json!({"organization_id": "acme-corp", "team_id": "acme-engineering", "model_groups": ["ChatAgent"],
        "credits_allocated": 100_000});
    let team = admin.post("/api/teams/create", team).await.ok();
    let key = team["virtual_key"].as_str().expect("a key").to_owned();
    Some((app, key))
}

/// Has the operations tested that `excluded` doesn't fit, by a caller with this header.
async fn test(app: &TestApp, header: Option<String>, excluded: &str, options: &[&str]) {
    let python = python().await;
    let mut command = python.program("schemathesis");
    command
        .args(["--no-color", "run", &format!("{}/openapi.json", app.url())])
        .args(["--checks", CHECKS, "--exclude-by", excluded, "--seed", "1", "--generation-database", "none"])
        .args(["--continue-on-failure", "--no-shrink", "--warnings", "off"])
        .args(options)
        .args(header.iter().flat_map(|header| ["--header", header]))
        .env("PYTHONPATH", beside(""))
        .env("SCHEMATHESIS_HOOKS", "schemathesis_hooks")
        .current_dir(env!("CARGO_TARGET_TMPDIR"));
    if let Err(failure) = run(&mut command, PATIENCE * 5).await {
        panic!("{failure}\nthe log of the application:\n{}", app.logs());
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn what_the_admin_is_answered_is_what_the_document_says() {
    let Some((app, _)) = app().await else { return };
    let header = "X-Admin-Key: test-admin-key".to_owned();
    let options = ["--phases", "examples,coverage,fuzzing", "--max-examples", "5"];
    test(&app, Some(header), "/x-access == \"team\"", &options).await;
}

#[tokio::test]
async fn what_a_team_is_answered_is_what_the_document_says() {
    let Some((app, key)) = app().await else { return };
    let header = format!("Authorization: Bearer {key}");
    let options = ["--phases", "examples,coverage,fuzzing", "--max-examples", "10"];
    test(&app, Some(header), "/x-access == \"admin\"", &options).await;
}

#[tokio::test]
async fn what_nobody_is_answered_is_what_the_document_says() {
    let Some((app, _)) = app().await else { return };
    let options = ["--phases", "examples,fuzzing", "--mode", "positive", "--max-examples", "2"];
    test(&app, None, "/x-access == \"none\"", &options).await;
}
