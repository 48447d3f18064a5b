//! The clients that the integration guides describe work: for each guide a Python script beside this file makes its
//! requests, in its order and with its fields, through the `requests` package as the guides do.
//!
//! The scripts run in a virtual environment under `target/`, see [`Python`].

use api_tests::{
    PATIENCE, TestApp,
    python::{Python, run},
};
use uuid::Uuid;

/// Runs a script against an application of its own.
async fn follow(script: &str) {
    let python = Python::with(env!("CARGO_TARGET_TMPDIR"), &["requests"]).await;
    let app = TestApp::start().await;
    let litellm = match std::env::var("LITELLM_URL") {
        Ok(url) => url,
        Err(_) => app.stand_in().expect("without LITELLM_URL there is the stand-in").url(),
    };
    let mut command = python.program("python");
    command
        .arg(format!("{}/tests/seeds/{script}", env!("CARGO_MANIFEST_DIR")))
        .env("BASE_URL", app.url())
        .env("ADMIN_KEY", "test-admin-key")
        .env("LITELLM_URL", litellm)
        // Ids in a LiteLLM that several tests share.
        .env("SUFFIX", Uuid::now_v7().simple().to_string());
    if let Err(failure) = run(&mut command, PATIENCE).await {
        panic!("{script}: {failure}\nthe log of the application:\n{}", app.logs());
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn the_first_guides_quick_start_and_its_python_client_work() {
    follow("first_guide.py").await;
}

#[tokio::test]
async fn the_second_guides_resume_analysis_is_three_calls_and_one_credit() {
    follow("resume_analysis.py").await;
}

#[tokio::test]
async fn the_second_guides_model_resolution_and_its_direct_calls_to_litellm_work() {
    follow("model_resolution.py").await;
}

#[tokio::test]
async fn the_overviews_quick_start_and_its_stream_work_once_the_access_group_has_models() {
    follow("overview.py").await;
}

#[tokio::test]
async fn the_overviews_asynchronous_client_works() {
    follow("asynchronous_client.py").await;
}

#[tokio::test]
async fn the_readmes_document_analysis_is_five_calls_and_one_credit() {
    follow("document_analysis.py").await;
}

#[tokio::test]
async fn the_complete_integration_flow_works_from_an_organizations_name_to_a_refilled_budget() {
    follow("integration_flow.py").await;
}
