//! The clients that the integration guides describe work: for each guide a Python script beside this file makes its requests, in
//! its order and with its fields, through the `requests` package as the guides do.
//!
//! The scripts run in a virtual environment under `target/`, made on first use: that needs `python3` with its `venv`, and a
//! package index that `pip` reaches.

use api_tests::TestApp;
use std::{path::Path, process::Output, time::Duration};
use tokio::{process::Command, sync::OnceCell, time::timeout};
use uuid::Uuid;

const PACKAGES: [&str; 1] = ["requests"];
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/seeds");
const ENVIRONMENT: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/seeds-python");

/// The interpreter with the packages, made once.
async fn python() -> &'static str {
    static PYTHON: OnceCell<String> = OnceCell::const_new();
    PYTHON
        .get_or_init(async || {
            let python = format!("{ENVIRONMENT}/bin/python");
            let import = format!("import {}", PACKAGES.join(", "));
            let is_there = Path::new(&python).exists()
                && Command::new(&python).args(["-c", &import]).output().await.is_ok_and(|done| done.status.success());
            if !is_there {
                must(
                    Command::new("python3").args(["-m", "venv", "--clear", ENVIRONMENT]),
                    "these tests need Python 3 with its venv module (on Debian: apt-get install python3-venv)",
                )
                .await;
                must(
                    Command::new(&python).args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(PACKAGES),
                    "these tests need the Python package `requests`, and pip could not get it",
                )
                .await;
            }
            python
        })
        .await
}

async fn must(command: &mut Command, need: &str) {
    let done = command.output().await.unwrap_or_else(|error| panic!("{need}: {error}"));
    assert!(done.status.success(), "{need}: {}", text(&done));
}

fn text(done: &Output) -> String {
    format!(
        "{}\n{}{}",
        done.status,
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    )
}

/// Runs a script against an application of its own.
async fn follow(script: &str) {
    let python = python().await;
    let app = TestApp::start().await;
    let litellm = match std::env::var("LITELLM_URL") {
        Ok(url) => url,
        Err(_) => app.stand_in().expect("without LITELLM_URL there is the stand-in").url(),
    };
    let mut command = Command::new(python);
    command
        .arg(format!("{SCRIPTS}/{script}"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("BASE_URL", app.url())
        .env("ADMIN_KEY", "test-admin-key")
        .env("LITELLM_URL", litellm)
        // Ids in a LiteLLM that several tests share.
        .env("SUFFIX", Uuid::now_v7().simple().to_string())
        .kill_on_drop(true);
    let done =
        timeout(Duration::from_secs(120), command.output()).await.expect("in time").expect("python runs");
    assert!(done.status.success(), "{script}: {}\nthe log of the application:\n{}", text(&done), app.logs());
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
