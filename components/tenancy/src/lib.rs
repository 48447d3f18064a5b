//! Organizations, teams and their keys.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::too_many_lines
)]

mod erase;
mod keys;
mod organizations;
mod teams;
mod webhook_secret;

use shared::http::Api;
use std::sync::LazyLock;

/// The routes of this component.
pub static API: LazyLock<Api> = LazyLock::new(|| {
    shared::api![
        Admin: organizations::create,
        Admin: organizations::list,
        Admin: organizations::get,
        Admin: organizations::update,
        Admin: organizations::delete,
        Admin: organizations::teams,
        Admin: teams::create,
        Admin: teams::list,
        AdminOrTeam: teams::get,
        Admin: teams::update,
        Admin: teams::delete,
        Admin: teams::set_model_groups,
        Admin: teams::set_access_groups,
        Admin: teams::suspend,
        Admin: teams::resume,
        Admin: erase::erase_user,
        Admin: keys::list,
        Admin: keys::create,
        Admin: keys::rotate,
        Admin: keys::revoke,
        Admin: webhook_secret::rotate,
    ]
});

#[cfg(target_family = "wasm")]
#[spin_sdk::http_service]
async fn handle(request: spin_sdk::http::Request) -> impl spin_sdk::http::IntoResponse {
    API.answer(request).await
}
