//! Buffered LLM calls, in an existing job or with a job of their own.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::too_many_lines
)]

mod call;

use shared::http::Api;
use std::sync::LazyLock;

/// The routes of this component.
pub static API: LazyLock<Api> = LazyLock::new(|| {
    shared::api![
        Team: call::llm_call,
        Team: call::create_and_call,
    ]
});

#[cfg(target_family = "wasm")]
#[spin_sdk::http_service]
async fn handle(request: spin_sdk::http::Request) -> impl spin_sdk::http::IntoResponse {
    API.answer(request).await
}
