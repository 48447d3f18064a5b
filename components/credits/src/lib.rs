//! Balances, the ledger, top-ups and checks.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod add;
mod balance;
mod transactions;

use shared::{api::Api, auth::Access};
use spin_sdk::{
    http::{IntoResponse, Request},
    http_service,
};
use std::sync::LazyLock;

static API: LazyLock<Api> = LazyLock::new(|| {
    Api::new()
        .get("/api/credits/teams/{team_id}/balance", Access::AdminOrTeam, balance::get)
        .post("/api/credits/teams/{team_id}/add", Access::Admin, add::add)
        .post("/api/credits/teams/{team_id}/check", Access::AdminOrTeam, balance::check)
        .get("/api/credits/teams/{team_id}/transactions", Access::AdminOrTeam, transactions::list)
});

#[http_service]
async fn handle(request: Request) -> impl IntoResponse {
    API.answer(request).await
}
