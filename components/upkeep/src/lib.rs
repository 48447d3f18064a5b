//! Upkeep: what a timer should ask for every minute, and putting LiteLLM right for a team.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::too_many_lines
)]

mod costs;
mod resync;
mod upkeep;

use shared::http::Api;
use std::sync::LazyLock;

/// The routes of this component.
pub static API: LazyLock<Api> =
    LazyLock::new(|| shared::api![Admin: upkeep::upkeep, Admin: upkeep::expire, Admin: resync::resync]);

#[cfg(target_family = "wasm")]
#[spin_sdk::http_service]
async fn handle(request: spin_sdk::http::Request) -> impl spin_sdk::http::IntoResponse {
    API.answer(request).await
}
