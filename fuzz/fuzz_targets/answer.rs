//! Whole answers of LiteLLM: completions and refusals. What arrives is a status, headers and a body: one line each, the
//! body last.
//!
//! * Only a success is a completion, and its members came in the body.
//! * A failure is known to have cost nothing only if no model was reached, or the answer says so.
//! * A refusal that says that the caller, the key or the budget is at fault is never tried with another model.
//! * Whatever LiteLLM says, the caller gets one of the documented failures, in a well-formed answer.
#![no_main]

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode},
    response::IntoResponse,
};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use shared::{
    error::Code,
    litellm::{
        Answer,
        chat::{Class, Completion, Failure, completion},
    },
    values::{GroupName, TeamId},
};

/// The headers that make a difference, in the order of the input's lines.
const HEADERS: [&str; 4] = ["x-litellm-call-id", "rate_limit_type", "retry-after", "x-litellm-response-cost"];

fuzz_target!(|input: &[u8]| {
    let Some(answer) = answer(input) else { return };
    match completion(&answer) {
        Ok(found) => check_completion(&answer, found),
        Err(failure) => check_failure(&answer, failure),
    }
});

fn answer(input: &[u8]) -> Option<Answer> {
    let mut parts = input.splitn(HEADERS.len() + 2, |byte| *byte == b'\n');
    let status = StatusCode::from_bytes(parts.next()?).ok()?;
    let mut headers = HeaderMap::new();
    for name in HEADERS {
        let value = parts.next()?;
        if !value.is_empty() {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_bytes(value).ok()?);
        }
    }
    Some(Answer { status, headers, body: Bytes::copy_from_slice(parts.next()?) })
}

fn check_completion(answer: &Answer, found: Completion) {
    assert!(answer.status.is_success());
    assert!(found.usage.cost.is_none() || answer.headers.contains_key("x-litellm-response-cost"));
    let body = String::from_utf8_lossy(&answer.body);
    assert!(found.message.values().all(|member| body.contains(member.get())));
    // It is kept, sealed, for repeats of the request.
    let kept = serde_json::to_string(&found).expect("JSON");
    let again: Completion = serde_json::from_str(&kept).expect("what was written");
    assert_eq!(serde_json::to_string(&again).expect("JSON"), kept);
}

fn check_failure(answer: &Answer, Failure { class, status, cost_known, .. }: Failure) {
    // What looks like a success and can't be read may have cost something, and so may what a model failed at without
    // saying its cost.
    let said = |name| answer.headers.get(name).is_some_and(|value| value.to_str().is_ok());
    let costless = !said("x-litellm-call-id") || said("x-litellm-response-cost");
    assert_eq!(cost_known, !answer.status.is_success() && costless);
    assert_eq!(status.is_some(), !answer.status.is_success());
    let by_status = match answer.status.as_u16() {
        401..=403 => false,
        408 | 500..=599 | 200..=299 => class != Class::BudgetExhausted,
        _ => class.worth_another_model(),
    };
    assert_eq!(class.worth_another_model(), by_status, "{class:?}");
    let team = TeamId::try_from("team".to_owned()).expect("an id");
    let group = GroupName::try_from("Group".to_owned()).expect("a name");
    let error = class.answer(&team, &group);
    let known = matches!(
        error.code,
        Code::InvalidRequest
            | Code::Unauthenticated
            | Code::ModelGroupDenied
            | Code::BudgetExhausted
            | Code::RateLimited
            | Code::LlmFailed
            | Code::LlmTimeout
    );
    assert!(known, "{class:?}");
    assert!(!error.detail.contains(['\n', '\0']), "{:?}", error.detail);
    assert!(!error.detail.starts_with("LLM call failed: litellm."), "{:?}", error.detail);
    let expected = error.code.answer().0;
    let response = error.into_response();
    assert_eq!(response.status(), expected);
    assert!(response.status().is_client_error() || response.status().is_server_error());
}
