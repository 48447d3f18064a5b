//! The names that LiteLLM refuses in request bodies, because they would steer it or fake what a call costs.

use serde_json::{Map, Value};

use crate::error::ApiError;

/// The objects in a body whose members are looked at too. LiteLLM also looks into them when they are JSON in a string.
const NESTED: [&str; 3] = ["metadata", "litellm_metadata", "extra_body"];

/// Refuses a body that has a banned name, by itself or in one of its nested objects.
///
/// # Errors
/// 401 `auth_error`, naming the first one.
pub(crate) fn refuse(body: &Map<String, Value>) -> Result<(), ApiError> {
    let mut found = BANNED.iter().find(|name| body.contains_key(**name));
    for nested in NESTED.iter().filter_map(|name| body.get(*name)) {
        let inner = match nested {
            Value::String(text) => serde_json::from_str(text).unwrap_or(Value::Null),
            other => other.clone(),
        };
        found = found.or_else(|| BANNED.iter().find(|name| inner.get(**name).is_some()));
    }
    match found {
        None => Ok(()),
        Some(name) => Err(ApiError::auth(
            401,
            format!(
                "Authentication Error, Rejected Request: {name} is not allowed in request body. Clientside passthrough \
                 requires explicit admin opt-in via either `general_settings.allow_client_side_credentials = true` \
                 (proxy-wide) or `configurable_clientside_auth_params` on the deployment in your proxy config.yaml. \
                 Relevant Issue: https://huntr.com/bounties/4001e1a2-7b7a-4776-a3ae-e6692ec3d997"
            ),
        )),
    }
}

#[rustfmt::skip]
const BANNED: &[&str] = &[
    "agentcore_runtime_session_id", "annotation_cost_per_page", "annotation_cost_per_page_batches",
    "anthropic-workspace-id", "anthropic_workspace_id", "api_base", "arize_api_key",
    "arize_error_sampling_rate", "arize_space_id", "arize_space_key", "arize_success_sampling_rate",
    "aws_bedrock_project_id", "aws_bedrock_runtime_endpoint", "aws_external_id", "aws_profile_name",
    "aws_role_name", "aws_session_name", "aws_session_tags", "aws_sts_endpoint", "aws_web_identity_token",
    "aws_workspace_id", "azure_ad_token", "base_url", "bedrock_tags", "braintrust_api_key",
    "braintrust_host", "braintrust_project", "cache_creation_input_audio_token_cost",
    "cache_creation_input_token_cost", "cache_creation_input_token_cost_above_100k_tokens",
    "cache_creation_input_token_cost_above_100k_tokens_batches",
    "cache_creation_input_token_cost_above_1hr",
    "cache_creation_input_token_cost_above_1hr_above_100k_tokens",
    "cache_creation_input_token_cost_above_200k_tokens",
    "cache_creation_input_token_cost_above_200k_tokens_batches",
    "cache_creation_input_token_cost_above_272k_tokens",
    "cache_creation_input_token_cost_above_272k_tokens_batches",
    "cache_creation_input_token_cost_above_272k_tokens_flex",
    "cache_creation_input_token_cost_above_272k_tokens_priority",
    "cache_creation_input_token_cost_above_272k_tokens_ultrafast",
    "cache_creation_input_token_cost_batches", "cache_creation_input_token_cost_flex",
    "cache_creation_input_token_cost_priority", "cache_creation_input_token_cost_ultrafast",
    "cache_read_input_audio_token_cost", "cache_read_input_image_token_cost", "cache_read_input_token_cost",
    "cache_read_input_token_cost_above_100k_tokens",
    "cache_read_input_token_cost_above_100k_tokens_batches",
    "cache_read_input_token_cost_above_200k_tokens",
    "cache_read_input_token_cost_above_200k_tokens_batches",
    "cache_read_input_token_cost_above_200k_tokens_priority",
    "cache_read_input_token_cost_above_272k_tokens",
    "cache_read_input_token_cost_above_272k_tokens_batches",
    "cache_read_input_token_cost_above_272k_tokens_flex",
    "cache_read_input_token_cost_above_272k_tokens_priority",
    "cache_read_input_token_cost_above_272k_tokens_ultrafast",
    "cache_read_input_token_cost_above_512k_tokens", "cache_read_input_token_cost_balanced",
    "cache_read_input_token_cost_batches", "cache_read_input_token_cost_flex",
    "cache_read_input_token_cost_priority", "cache_read_input_token_cost_ultrafast",
    "citation_cost_per_token", "cost_per_second", "dd_agent_host", "dd_agent_port", "dd_api_key", "dd_site",
    "deployment_url", "fireworks_forward_user_id", "gcs_bucket_name", "gcs_path_service_account",
    "google_maps_grounding_cost_per_query", "humanloop_api_key", "input_cost_per_audio_per_second",
    "input_cost_per_audio_per_second_above_128k_tokens", "input_cost_per_audio_token",
    "input_cost_per_audio_token_batches", "input_cost_per_character",
    "input_cost_per_character_above_128k_tokens", "input_cost_per_image",
    "input_cost_per_image_above_128k_tokens", "input_cost_per_image_token",
    "input_cost_per_image_token_batches", "input_cost_per_pixel", "input_cost_per_query",
    "input_cost_per_second", "input_cost_per_token", "input_cost_per_token_above_100k_tokens",
    "input_cost_per_token_above_100k_tokens_batches", "input_cost_per_token_above_128k_tokens",
    "input_cost_per_token_above_200k_tokens", "input_cost_per_token_above_200k_tokens_batches",
    "input_cost_per_token_above_200k_tokens_priority", "input_cost_per_token_above_272k_tokens",
    "input_cost_per_token_above_272k_tokens_batches", "input_cost_per_token_above_272k_tokens_flex",
    "input_cost_per_token_above_272k_tokens_priority", "input_cost_per_token_above_272k_tokens_ultrafast",
    "input_cost_per_token_above_512k_tokens", "input_cost_per_token_balanced",
    "input_cost_per_token_batches", "input_cost_per_token_cache_hit", "input_cost_per_token_flex",
    "input_cost_per_token_priority", "input_cost_per_token_ultrafast", "input_cost_per_video_per_second",
    "input_cost_per_video_per_second_above_128k_tokens",
    "input_cost_per_video_per_second_above_15s_interval",
    "input_cost_per_video_per_second_above_8s_interval", "input_cost_per_video_token",
    "input_cost_per_video_token_batches", "langfuse_environment", "langfuse_host", "langfuse_public_key",
    "langfuse_secret", "langfuse_secret_key", "langsmith_api_key", "langsmith_base_url",
    "langsmith_project", "langsmith_tenant_id", "lunary_public_key", "model_list", "newrelic_api_key",
    "newrelic_region", "nvcf_function_id", "ocr_cost_per_credit", "ocr_cost_per_page",
    "ocr_cost_per_page_batches", "output_cost_per_audio_per_second", "output_cost_per_audio_token",
    "output_cost_per_character", "output_cost_per_character_above_128k_tokens", "output_cost_per_image",
    "output_cost_per_image_1024", "output_cost_per_image_1536", "output_cost_per_image_512",
    "output_cost_per_image_token", "output_cost_per_image_token_batches", "output_cost_per_pixel",
    "output_cost_per_reasoning_token", "output_cost_per_reasoning_token_flex",
    "output_cost_per_reasoning_token_priority", "output_cost_per_second", "output_cost_per_second_1080p",
    "output_cost_per_second_2k", "output_cost_per_second_480p", "output_cost_per_second_4k",
    "output_cost_per_second_720p", "output_cost_per_second_768p", "output_cost_per_token",
    "output_cost_per_token_above_100k_tokens", "output_cost_per_token_above_100k_tokens_batches",
    "output_cost_per_token_above_128k_tokens", "output_cost_per_token_above_200k_tokens",
    "output_cost_per_token_above_200k_tokens_batches", "output_cost_per_token_above_200k_tokens_priority",
    "output_cost_per_token_above_272k_tokens", "output_cost_per_token_above_272k_tokens_batches",
    "output_cost_per_token_above_272k_tokens_flex", "output_cost_per_token_above_272k_tokens_priority",
    "output_cost_per_token_above_272k_tokens_ultrafast", "output_cost_per_token_above_512k_tokens",
    "output_cost_per_token_balanced", "output_cost_per_token_batches", "output_cost_per_token_flex",
    "output_cost_per_token_priority", "output_cost_per_token_ultrafast", "output_cost_per_video_per_second",
    "output_cost_per_video_token", "output_vector_size", "posthog_api_key", "posthog_api_url",
    "posthog_host", "regional_endpoint_uplift_multiplier", "regional_processing_uplift_multiplier_eu",
    "regional_processing_uplift_multiplier_us", "rust", "s3_endpoint_url", "sagemaker_base_url",
    "search_context_cost_per_query", "signoz_ingestion_endpoint", "signoz_ingestion_key",
    "slack_webhook_url", "tiered_pricing", "turn_off_message_logging", "use_ssl",
    "user_api_key_auth_metadata", "user_config", "vertex_ai_credentials", "vertex_credentials",
    "wandb_api_key", "weave_project_id", "workspace_id",
];
