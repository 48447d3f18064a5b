//! LiteLLM's own limits for a team's key: they end a call, and no other model is tried.

use crate::fixtures::{call, events, models_asked, prompt, stream, stream_refusal};
use api_tests::{TestApp, behind_our_back, eventually};
use serde_json::json;

#[tokio::test]
async fn a_used_up_budget_is_402_and_no_other_model_is_tried() {
    let app = TestApp::start().await;
    let group = app.model_group(&["expensive", "gpt-4o-mini"]).await;
    let team =
        app.team_with(json!({"credits_allocated": 2, "max_budget": 0.5, "model_groups": [group]})).await;
    let job = team.job().await;
    // One dollar; a budget is passed before LiteLLM knows.
    call(&team, &job, prompt("[[prompt_tokens=1000]] [[completion_tokens=0]]")).await.ok();

    // The real LiteLLM counts a moment later.
    let refusal = eventually("the budget to be used up", async || {
        let answer = team.call(&job, "hello").await;
        (answer.status != 200).then_some(answer)
    })
    .await;

    refusal.refused(402, "budget_exhausted", "LLM call failed: Budget exceeded");
    stream_refusal(&team, &job, prompt("hello")).await.refused(
        402,
        "budget_exhausted",
        "LLM call failed: Budget exceeded",
    );
    if let Some(stand_in) = app.stand_in() {
        assert_eq!(models_asked(stand_in), ["expensive"; 3]);
    }
    let read = team.read(&job).await;
    assert_eq!((&read["refused_calls"], &read["failed_calls"]), (&json!(2), &json!(0)));
    app.check_invariants().await;
}

#[tokio::test]
async fn adding_credits_lifts_a_used_up_budget() {
    let app = TestApp::start().await;
    let group = app.model_group(&["expensive"]).await;
    // Two credits are a budget of $0.20.
    let team = app.team_with(json!({"credits_allocated": 2, "model_groups": [group]})).await;
    let job = team.job().await;
    call(&team, &job, prompt("[[prompt_tokens=300]] [[completion_tokens=0]]")).await.ok();
    eventually("the budget to be used up", async || {
        (team.call(&job, "[[prompt_tokens=1]]").await.status == 402).then_some(())
    })
    .await;
    let path = format!("/api/credits/teams/{}/add", team.id);
    app.admin().post(&path, json!({"credits_amount": 10})).await.ok();
    call(&team, &job, prompt("hello")).await.ok();
    app.check_invariants().await;
}

#[tokio::test]
async fn litellms_budget_follows_a_team_from_hard_to_soft_and_back() {
    let app = TestApp::start().await;
    let group = app.model_group(&["expensive"]).await;
    let team = app.team_with(json!({"credits_allocated": 9, "model_groups": [group]})).await;
    let dollar = "[[prompt_tokens=1000]] [[completion_tokens=0]]";
    let change = async |fields| {
        app.admin().put(&format!("/api/teams/{}", team.id), fields).await.ok();
    };
    let answered = async || {
        call(&team, &team.job().await, prompt(dollar)).await.ok();
    };
    let refused = async || {
        let job = team.job().await;
        eventually("the budget to be used up", async || {
            (team.call(&job, "[[prompt_tokens=1]] [[completion_tokens=0]]").await.status == 402).then_some(())
        })
        .await;
    };
    answered().await;
    refused().await;

    change(json!({"budget_mode": "soft"})).await;
    for _ in 0..3 {
        answered().await;
    }
    // Ten credits are a dollar.
    change(json!({"credit_limit": 11})).await;
    refused().await;
    change(json!({"credit_limit": 91})).await;
    answered().await;
    change(json!({"budget_mode": "hard"})).await;
    refused().await;
    app.check_invariants().await;
}

#[tokio::test]
async fn litellms_own_rate_limit_is_429_with_its_retry_after_and_no_other_model_is_tried() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let group = app.model_group(&["gpt-4o-mini", "gpt-4o"]).await;
    let team = app.team_with(json!({"credits_allocated": 2, "model_groups": [group]})).await;
    let (job, other) = (team.job().await, team.job().await);
    let key = stand_in.keys_of(&team.id).remove(0).token;
    behind_our_back(stand_in, "/key/update", json!({"key": key, "rpm_limit": 1})).await;
    team.call(&job, "hello").await.ok();

    for refusal in [team.call(&other, "hello").await, stream_refusal(&team, &other, prompt("hello")).await] {
        let seconds = refusal.header("retry-after").expect("retry-after").parse::<u32>();
        assert!(seconds.is_ok_and(|seconds| (1..=60).contains(&seconds)));
        assert!(!refusal.text.contains(&team.id), "{}", refusal.text);
        refusal.refused(429, "rate_limited", "LLM call failed: Rate limit exceeded");
    }
    assert_eq!(models_asked(stand_in), ["gpt-4o-mini"; 3]);
    // All calls of the one job were refused, so it costs nothing; the other one is unharmed.
    let costs = team.complete(&other, "completed").await.ok()["costs"].clone();
    assert_eq!(
        [&costs["refused_calls"], &costs["failed_calls"], &costs["credit_applied"]],
        [&json!(2), &json!(0), &json!(false)]
    );
    assert_eq!(team.complete(&job, "completed").await.ok()["costs"]["credit_applied"], json!(true));
    app.check_invariants().await;
}

#[tokio::test]
async fn a_key_that_litellm_refuses_although_it_is_good_is_put_right_and_the_call_succeeds() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let team = app.team_using(&["gpt-4o-mini", "gpt-4o"], 1).await;
    let job = team.job().await;
    let key = stand_in.keys_of(&team.id).remove(0).token;
    for streamed in [false, true] {
        // As after a suspension of which LiteLLM has not heard the end.
        behind_our_back(stand_in, "/key/block", json!({"key": key})).await;
        if streamed {
            let (_, done) = events(stream(&team, &job, prompt("hello")).await).await;
            assert!(done);
        } else {
            team.call(&job, "hello").await.ok();
        }
        assert_eq!(stand_in.keys_of(&team.id).remove(0).blocked, Some(false));
    }
    assert_eq!(models_asked(stand_in), ["gpt-4o-mini"; 4], "the same model is asked once more");
    let read = team.read(&job).await;
    assert_eq!((&read["successful_calls"], &read["failed_calls"]), (&json!(2), &json!(0)));
    app.check_invariants().await;
}

#[tokio::test]
async fn a_key_that_litellm_has_lost_is_refused_as_ours_would_be() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let team = app.team_using(&["gpt-4o-mini", "gpt-4o"], 1).await;
    let job = team.job().await;
    stand_in.lose_key(&stand_in.keys_of(&team.id).remove(0).token);

    team.call(&job, "hello").await.refused(401, "unauthenticated", "Invalid API key");
    stream_refusal(&team, &job, prompt("hello")).await.refused(401, "unauthenticated", "Invalid API key");
    // It is put right once in each call, and no other model is tried.
    assert_eq!(models_asked(stand_in), ["gpt-4o-mini"; 4]);
    app.check_invariants().await;
}
