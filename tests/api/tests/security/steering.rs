//! LiteLLM obeys many fields and headers beside OpenAI's. None of a caller's gets there.

use crate::{
    hostile::method,
    recipes::recipe,
    recorder::{Recorder, Seen},
    world::{World, send},
};
use api_tests::{Answer, Options, TestApp};
use openapi::{name, routes};
use reqwest::Method;
use serde_json::{Value, json};
use shared::http::api::Route;

/// Fields that LiteLLM takes from a body to decide where a request goes, whose it is, and what it costs.
const CONTROL_FIELDS: [&str; 66] = [
    "api_base",
    "base_url",
    "api_key",
    "api_version",
    "api_type",
    "metadata",
    "litellm_metadata",
    "litellm_params",
    "fallbacks",
    "context_window_fallbacks",
    "content_policy_fallbacks",
    "default_fallbacks",
    "user_config",
    "model_list",
    "models",
    "mock_response",
    "mock_tool_calls",
    "mock_timeout",
    "mock_testing_fallbacks",
    "tags",
    "guardrails",
    "guardrail_config",
    "policies",
    "extra_headers",
    "extra_body",
    "extra_query",
    "headers",
    "custom_llm_provider",
    "num_retries",
    "max_retries",
    "retry_policy",
    "cache",
    "caching",
    "no-log",
    "proxy_server_request",
    "timeout",
    "request_timeout",
    "stream_timeout",
    "input_cost_per_token",
    "output_cost_per_token",
    "litellm_call_id",
    "litellm_session_id",
    "litellm_trace_id",
    "litellm_logging_obj",
    "router_settings_override",
    "api_base_override",
    "vector_store_ids",
    "prompt_id",
    "prompt_variables",
    "organization",
    "aws_access_key_id",
    "aws_region_name",
    "vertex_project",
    "aws_bedrock_runtime_endpoint",
    "azure_ad_token",
    "azure_endpoint",
    "allowed_openai_params",
    "drop_params",
    "callbacks",
    "success_callback",
    "secret_fields",
    "provider_specific_header",
    "model_info",
    "mcp_servers",
    "langfuse_public_key",
    "workspace_id",
];

/// What LiteLLM may see in a call that a team made of a prompt alone.
const FIELDS: [&str; 4] = ["messages", "model", "stream", "stream_options"];
const HEADERS: [&str; 7] = [
    "authorization",
    "content-type",
    "content-length",
    "host",
    "x-litellm-call-id",
    "transfer-encoding",
    "accept",
];

/// Fails the test if LiteLLM got more than a prompt.
fn only_a_prompt(seen: &[Seen]) {
    for seen in seen {
        for name in seen.body.as_object().expect("an object").keys() {
            assert!(FIELDS.contains(&name.as_str()), "{name} reached LiteLLM: {}", seen.body);
        }
        for name in seen.headers.keys() {
            assert!(HEADERS.contains(&name.as_str()), "{name} reached LiteLLM: {:?}", seen.headers);
        }
        assert!(matches!(seen.body["model"].as_str(), Some("gpt-4o-mini")), "{}", seen.body);
    }
}

/// The routes that make calls.
pub fn call_routes() -> Vec<Route> {
    let calls: Vec<Route> = routes()
        .into_iter()
        .map(|(_, route)| route)
        .filter(|route| route.path.contains("-call") || route.path.contains("completions"))
        .collect();
    assert_eq!(calls.len(), 5);
    calls
}

/// Makes a call with this text spliced into the body, behind its opening brace.
async fn call_with(world: &World<'_>, route: &Route, text: &str) -> Answer {
    let recipe = recipe(&name(route), world).await;
    let body = recipe.body.expect("a body").to_string();
    let body = format!("{{{text},{}", &body[1..]);
    Answer::of(world.team.client.request(method(route), &recipe.path).body(body)).await
}

#[tokio::test]
async fn every_control_field_is_refused_on_every_route_that_makes_calls_however_its_name_is_written() {
    let Some((stage, recorder)) = Recorder::on_stage(Options::default()).await else { return };
    let world = stage.world().await;
    for route in call_routes() {
        for field in CONTROL_FIELDS {
            let escaped: String = field.chars().map(|c| format!("\\u{:04x}", u32::from(c))).collect();
            let spellings = [
                field.to_owned(),
                escaped,
                field.to_uppercase(),
                format!(" {field}"),
                format!("{field}\\u0000"),
                format!("\\u200b{field}"),
            ];
            for spelling in spellings {
                let answer =
                    call_with(&world, &route, &format!("\"{spelling}\":\"http://127.0.0.1:1/\"")).await;
                assert_eq!(answer.status, 400, "{spelling} on {}: {}", name(&route), answer.text);
            }
        }
    }
    assert!(recorder.completions().is_empty(), "LiteLLM was asked");
}

#[tokio::test]
async fn a_field_given_twice_is_refused_whichever_of_both_would_count() {
    let Some((stage, recorder)) = Recorder::on_stage(Options::default()).await else { return };
    let world = stage.world().await;
    let messages = r#"[{"role":"user","content":"other"}]"#;
    for route in call_routes() {
        for text in [
            format!(r#""messages":{messages}"#),
            format!(r#""mess\u0061ges":{messages}"#),
            r#""model":"gpt-4o","model":"gpt-4o-mini""#.into(),
            format!(r#""model_group":"{0}","model":"{0}""#, world.group),
            r#""stream_options":{},"stream_options":{"include_usage":true}"#.into(),
            r#""temperature":0,"t\u0065mperature":1"#.into(),
        ] {
            let answer = call_with(&world, &route, &text).await;
            assert_eq!(answer.status, 400, "{text} on {}: {}", name(&route), answer.text);
        }
    }
    assert!(recorder.completions().is_empty(), "LiteLLM was asked");
}

#[tokio::test]
async fn what_is_nested_or_in_a_header_stays_here_or_stays_data() {
    let Some((stage, recorder)) = Recorder::on_stage(Options::default()).await else { return };
    let world = stage.world().await;
    let control: Value = CONTROL_FIELDS
        .iter()
        .map(|field| ((*field).to_owned(), json!("http://127.0.0.1:1/")))
        .collect::<serde_json::Map<_, _>>()
        .into();
    for route in call_routes() {
        let mut request = recipe(&name(&route), &world).await;
        let body = request.body.as_mut().expect("a body");
        body["call_metadata"] = control.clone();
        body["stream_options"] = json!({"include_usage": true});
        body["stream_options"]
            .as_object_mut()
            .expect("an object")
            .extend(control.as_object().expect("an object").clone());
        if body["job_type"].is_string() {
            body["job_metadata"] = control.clone();
        }
        let body = body.to_string();
        let mut sent = world.team.client.request(method(&route), &request.path).body(body);
        for header in [
            "x-litellm-tags",
            "x-litellm-timeout",
            "x-litellm-num-retries",
            "x-litellm-api-key",
            "x-litellm-spend-logs-metadata",
            "x-litellm-enable-message-redaction",
            "x-litellm-call-id",
            "x-litellm-model-id",
            "x-litellm-disable-callbacks",
            "api-key",
            "x-api-key",
            "openai-organization",
            "anthropic-beta",
            "langfuse_trace_id",
            "traceparent",
            "cookie",
            "x-forwarded-for",
            "forwarded",
            "user-agent",
            "x-real-ip",
            "referer",
        ] {
            sent = sent.header(header, "smuggled");
        }
        let answer = Answer::of(sent).await;
        assert_eq!(answer.status, 200, "{}: {}", name(&route), answer.text);
    }
    let seen = recorder.completions();
    assert_eq!(seen.len(), call_routes().len());
    only_a_prompt(&seen);
    for seen in seen {
        assert_ne!(seen.headers["x-litellm-call-id"], "smuggled");
        assert_eq!(seen.headers["authorization"], format!("Bearer {}", world.team.key).as_str());
        assert!(!seen.body.to_string().contains("127.0.0.1"), "{}", seen.body);
    }
}

#[tokio::test]
async fn a_model_by_its_own_name_is_refused_like_any_group_that_is_not_the_teams() {
    let Some((stage, recorder)) = Recorder::on_stage(Options::default()).await else { return };
    let world = stage.world().await;
    for route in call_routes() {
        for (model, status) in [
            ("gpt-4o-mini", 403),
            ("gpt-4o", 403),
            (world.group.to_lowercase().as_str(), 403),
            ("openai/gpt-4o", 400),
            ("*", 400),
            ("http://127.0.0.1:1/v1", 400),
            ("", 400),
        ] {
            for field in ["model", "model_group"] {
                let mut request = recipe(&name(&route), &world).await;
                let body = request.body.as_mut().expect("a body");
                body.as_object_mut().expect("an object").remove("model");
                body[field] = model.into();
                let answer = send(&world.team.client, &route, &request, None).await;
                assert_eq!(answer.status, status, "{field} {model} on {}: {}", name(&route), answer.text);
            }
        }
    }
    assert!(recorder.completions().is_empty(), "LiteLLM was asked");
}

#[tokio::test]
async fn tools_that_litellm_would_run_itself_are_refused() {
    let Some((app, recorder)) = Recorder::start(Options::default()).await else { return };
    let team = app.team(9).await;
    for tool in [
        json!({"type": "file_search", "vector_store_ids": ["another team's"]}),
        json!({"type": "mcp", "server_label": "litellm", "server_url": "litellm_proxy", "require_approval": "never"}),
        json!({"type": "mcp", "server_label": "x", "server_url": "http://127.0.0.1:1/mcp",
            "headers": {"authorization": "x"}}),
        json!({"type": "web_search"}),
        json!({"type": "code_interpreter", "container": {"type": "auto"}}),
    ] {
        let body =
            json!({"job_type": "test", "messages": [{"role": "user", "content": "hello"}], "tools": [tool]});
        let answer = team.client.post("/api/jobs/create-and-call", body).await;
        assert_eq!(answer.status, 400, "{tool}: {}", answer.text);
    }
    assert!(recorder.completions().is_empty(), "LiteLLM was asked");
}

#[tokio::test]
async fn not_even_the_admin_gives_a_model_group_control_fields() {
    let app = TestApp::start().await;
    let group = app.model_group(&["gpt-4o-mini"]).await;
    let before = app.database.everything().await;
    for field in CONTROL_FIELDS {
        // How long a model may take is the one thing that is ours.
        for spelling in
            [field.to_owned(), format!("{}\\u00{:02x}{}", &field[..1], field.as_bytes()[1], &field[2..])]
        {
            let models = format!(
                r#"[{{"model_name": "gpt-4o-mini", "priority": 0, "config": {{"{spelling}": "x"}}}}]"#
            );
            let create = format!(r#"{{"group_name": "Steering", "models": {models}}}"#);
            let admin = app.admin();
            let path = format!("/api/model-groups/{group}/models");
            for request in [
                admin.request(Method::POST, "/api/model-groups/create").body(create),
                admin.request(Method::PUT, &path).body(models),
            ] {
                let answer = Answer::of(request).await;
                assert_eq!(
                    (answer.status.as_u16(), &answer.body["code"]),
                    (400, &json!("invalid_request")),
                    "{spelling}"
                );
            }
        }
    }
    assert_eq!(app.database.everything().await, before);
}
