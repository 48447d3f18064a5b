//! Reports: usage, metrics, alerts and the audit log. They read sums that are kept up to date by every change, so they
//! don't get slower as the number of jobs grows.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::too_many_lines
)]

mod alerts;
mod audit;
mod metrics;
mod period;
mod usage;

use shared::http::Api;
use std::sync::LazyLock;

/// The routes of this component.
pub static API: LazyLock<Api> = LazyLock::new(|| {
    shared::api![
        AdminOrTeam: usage::team,
        Admin: usage::organization,
        AdminOrTeam: alerts::list,
        Admin: alerts::send_again,
        Admin: audit::list,
        Admin: metrics::get,
    ]
});

#[cfg(target_family = "wasm")]
#[spin_sdk::http_service]
async fn handle(request: spin_sdk::http::Request) -> impl spin_sdk::http::IntoResponse {
    API.answer(request).await
}
