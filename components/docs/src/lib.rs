//! The API's documentation: the OpenAPI document, Swagger UI for it at `/docs`, and Redoc at `/redoc`.
//!
//! The component itself contains everything: the pages load nothing from elsewhere, which their Content-Security-Policy
//! enforces.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::too_many_lines
)]

mod file;
mod pages;

use shared::http::Api;
use std::sync::LazyLock;

/// The routes of this component.
pub static API: LazyLock<Api> = LazyLock::new(|| {
    shared::api![
        Public: pages::spec,
        Public: pages::swagger,
        Public: pages::redoc,
        Public: pages::asset,
    ]
});

#[cfg(target_family = "wasm")]
#[spin_sdk::http_service]
async fn handle(request: spin_sdk::http::Request) -> impl spin_sdk::http::IntoResponse {
    API.answer(request).await
}
