//! The body of a call, and what of it reaches LiteLLM.
//!
//! * Nothing but OpenAI's parameters, each once; `model`, `stream` and `stream_options` are ours.
//! * What passes through is the text that came, so no number loses a digit.
//! * Messages are objects with a role and a content.
//! * A call in a job of its own is the same call. A refusal names its field.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;
use shared::{
    calls::{CallRequest, Streaming, check_config},
    http::{Fields, parse_body},
};
use std::collections::BTreeMap;

fuzz_target!(|body: &[u8]| {
    for streaming in [Streaming::Always, Streaming::Never, Streaming::AsAsked] {
        match CallRequest::parse(body, streaming) {
            Ok(request) => check(body, &request, streaming),
            Err(refusal) => fuzz::assert_refusal(refusal),
        }
    }
    match CallRequest::parse_with_job(body, Streaming::AsAsked) {
        Ok((_, request)) => check(body, &request, Streaming::AsAsked),
        Err(refusal) => fuzz::assert_refusal(refusal),
    }
    if let Ok(config) = serde_json::from_slice::<BTreeMap<String, Box<RawValue>>>(body) {
        check_as_config(&config);
    }
});

fn check(body: &[u8], request: &CallRequest<'_>, streaming: Streaming) {
    assert!(streaming == Streaming::AsAsked || request.streamed == (streaming == Streaming::Always));
    let Fields(came) = parse_body(body).expect("what was read before");
    let sent = request.body_for("model-1", &BTreeMap::new()).expect("a body");
    let Fields(sent) = parse_body(&sent).expect("each name once");
    for (name, value) in &sent {
        match name.as_str() {
            "model" => assert_eq!(value.get(), "\"model-1\""),
            "stream" => assert_eq!(value.get(), if request.streamed { "true" } else { "false" }),
            "stream_options" => assert!(request.streamed && value.get() == r#"{"include_usage":true}"#),
            _ => {
                assert!(is_openai_s(name), "{name} reaches LiteLLM");
                assert_eq!(value.get(), came[name].get());
            }
        }
    }
    assert!(["model", "stream", "messages"].iter().all(|name| sent.contains_key(*name)));
    let messages: Vec<Fields> = serde_json::from_str(request.messages()).expect("a list of objects");
    assert!(!messages.is_empty());
    for Fields(message) in messages {
        let role: String = serde_json::from_str(message["role"].get()).expect("a role");
        assert!(!role.is_empty() && role.bytes().all(|byte| byte.is_ascii_lowercase()));
    }
}

/// Defaults of a model that are accepted pass, too.
fn check_as_config(config: &BTreeMap<String, Box<RawValue>>) {
    if let Err(refusal) = check_config(config) {
        return fuzz::assert_refusal(refusal);
    }
    let body = br#"{"messages":[{"role":"user","content":"Hi"}]}"#;
    let request = CallRequest::parse(body, Streaming::Never).expect("a valid body");
    let sent = request.body_for("model-1", config).expect("a body");
    let Fields(sent) = parse_body(&sent).expect("each name once");
    assert!(!sent.contains_key("timeout_ms"));
    for (name, value) in config.iter().filter(|(name, _)| *name != "timeout_ms") {
        assert_eq!(sent[name].get(), value.get());
    }
    assert_eq!(sent["model"].get(), "\"model-1\"");
}

/// Whether OpenAI has such a parameter of a chat completion. A list of its own: the product's is what is tested.
fn is_openai_s(name: &str) -> bool {
    const PARAMETERS: &str = "audio frequency_penalty function_call functions logit_bias logprobs \
        max_completion_tokens max_tokens messages modalities n parallel_tool_calls prediction presence_penalty \
        reasoning_effort response_format seed stop temperature tool_choice tools top_logprobs top_p user verbosity \
        web_search_options";
    PARAMETERS.split_whitespace().any(|parameter| parameter == name)
}
