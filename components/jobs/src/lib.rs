//! Jobs: creating, reading, listing and completing them.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::too_many_lines
)]

mod complete;
mod create;
mod metadata;
mod read;

use shared::http::Api;
use std::sync::LazyLock;

/// The routes of this component.
pub static API: LazyLock<Api> = LazyLock::new(|| {
    shared::api![
        AdminOrTeam: create::create,
        AdminOrTeam: complete::complete,
        AdminOrTeam: read::get,
        AdminOrTeam: read::costs,
        AdminOrTeam: read::calls,
        AdminOrTeam: metadata::merge,
        AdminOrTeam: read::list,
    ]
});

#[cfg(target_family = "wasm")]
#[spin_sdk::http_service]
async fn handle(request: spin_sdk::http::Request) -> impl spin_sdk::http::IntoResponse {
    API.answer(request).await
}
