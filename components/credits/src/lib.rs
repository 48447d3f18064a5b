//! Balances, the ledger, top-ups, corrections, refunds, automatic refills and checks.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::too_many_lines
)]

mod add;
mod balance;
mod refill;
mod refund;
mod transactions;

use shared::http::Api;
use std::sync::LazyLock;

/// The routes of this component.
pub static API: LazyLock<Api> = LazyLock::new(|| {
    shared::api![
        AdminOrTeam: balance::get,
        Admin: add::add,
        Admin: add::adjust,
        AdminOrTeam: balance::check,
        Admin: refund::refund,
        Admin: refill::configure,
        AdminOrTeam: transactions::list,
    ]
});

#[cfg(target_family = "wasm")]
#[spin_sdk::http_service]
async fn handle(request: spin_sdk::http::Request) -> impl spin_sdk::http::IntoResponse {
    API.answer(request).await
}
