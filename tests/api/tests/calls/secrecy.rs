//! A team never learns which models answer it, nor what they cost its seller.

use crate::fixtures::{prompt, stream};
use api_tests::{Answer, TestApp};
use reqwest::header::HeaderMap;

/// No word in an answer that would tell.
fn tells_nothing(what: &str, headers: &HeaderMap, body: &str) {
    let mut said = format!("{body}\n").to_lowercase();
    for (name, value) in headers {
        said.push_str(&format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())).to_lowercase());
    }
    for word in [
        "gpt",
        "err4",
        "err5",
        "openai",
        "fp_fake",
        "x-litellm",
        "llm_provider",
        "x-ratelimit",
        "cost_usd",
        "response-cost",
        "sk-",
    ] {
        assert!(!said.contains(word), "{what}: {word} in {said}");
    }
}

fn check(what: &str, answer: &Answer) {
    tells_nothing(what, &answer.headers, &answer.text);
}

/// Chains that succeed at once or later, and that fail in every way that has words of its own.
const CHAINS: [&[&str]; 9] = [
    &["gpt-4o-mini"],
    &["err500", "gpt-4o-mini"],
    &["err400", "gpt-4o-mini"],
    &["err400-context"],
    &["err401"],
    &["err404"],
    &["err429"],
    &["err503", "err500"],
    &["gpt-nonexistent"],
];

#[tokio::test]
async fn no_buffered_answer_names_a_model_a_provider_or_a_price() {
    let app = TestApp::start().await;
    for chain in CHAINS {
        let team = app.team_using(chain, 1).await;
        let job = team.job().await;
        check(&format!("{chain:?}"), &team.call(&job, "hello").await);
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn no_stream_names_a_model_a_provider_or_a_price() {
    let app = TestApp::start().await;
    for chain in CHAINS.into_iter().chain([&["midstream-error"][..], &["cut"], &["stall"], &["early-end"]]) {
        let team = app.team_using(chain, 1).await;
        let job = team.job().await;
        let answer = stream(&team, &job, prompt("hello")).await;
        let headers = answer.headers.clone();
        tells_nothing(&format!("{chain:?}"), &headers, &answer.rest().await.join("\n"));
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn what_a_provider_says_about_a_bad_request_is_passed_on_without_the_models_name() {
    let app = TestApp::start().await;
    let team = app.team_using(&["gpt-4o"], 1).await;
    let job = team.job().await;
    for marks in
        ["[[status=400]]", "[[status=400]] [[code=content_policy_violation]]", "[[status=422]]", "[[nope=1]]"]
    {
        let answer = team.call(&job, marks).await;
        assert_eq!(
            (answer.status.as_u16(), answer.body["code"].as_str()),
            (400, Some("invalid_request")),
            "{marks}"
        );
        assert!(answer.body["detail"].as_str().is_some_and(|detail| detail.starts_with("LLM call failed: ")));
        check(marks, &answer);
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn a_model_that_its_provider_names_in_a_complaint_is_called_by_its_groups_name() {
    let app = TestApp::start().await;
    let group = app.model_group(&["expensive"]).await;
    let team = app.team_with(serde_json::json!({"credits_allocated": 1, "model_groups": [group]})).await;
    let job = team.job().await;
    // The fake provider complains that there is no mark of that name.
    let answer = team.call(&job, "[[expensive=1]]").await;
    let detail = answer.body["detail"].as_str().expect("a detail");
    assert!(detail.contains(&format!("there is no mark {group}")), "{detail}");
    assert!(!answer.text.contains("expensive"), "{}", answer.text);
    let kept = team.read(&job).await;
    assert!(!kept.to_string().contains("expensive"), "{kept}");
    app.check_invariants().await;
}

#[tokio::test]
async fn what_a_team_reads_about_its_jobs_names_no_model() {
    let app = TestApp::start().await;
    let team = app.team_using(&["err500", "gpt-4o-mini", "err503"], 2).await;
    let job = team.job().await;
    team.call(&job, "hello").await.ok();
    stream(&team, &job, prompt("hello")).await.rest().await;
    let paths = [format!("/api/jobs/{job}"), format!("/api/teams/{}/jobs", team.id)];
    let mut answers = vec![team.complete(&job, "completed").await];
    for path in paths {
        answers.push(team.client.get(&path).await);
    }
    for answer in answers {
        // What a call cost is in these answers, by the contract; what made it is not.
        for word in ["gpt", "err500", "err503", "attempts"] {
            assert!(!answer.text.contains(word), "{word} in {}", answer.text);
        }
    }
    app.check_invariants().await;
}
