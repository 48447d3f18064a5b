//! Organizations, model groups, access groups, teams and their keys.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::too_many_lines
)]

mod access_groups;
mod keys;
mod model_groups;
mod organizations;
mod teams;

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
        Admin: model_groups::create,
        AdminOrTeam: model_groups::list,
        AdminOrTeam: model_groups::get,
        Admin: model_groups::update,
        Admin: model_groups::delete,
        Admin: model_groups::models,
        Admin: model_groups::set_models,
        AdminOrTeam: model_groups::resolve,
        Admin: access_groups::create,
        Admin: access_groups::list,
        Admin: access_groups::get,
        Admin: access_groups::update,
        Admin: access_groups::set_model_groups,
        Admin: access_groups::delete,
        Admin: teams::create,
        Admin: teams::list,
        AdminOrTeam: teams::get,
        Admin: teams::update,
        Admin: teams::delete,
        Admin: teams::set_model_groups,
        Admin: teams::set_access_groups,
        Admin: teams::suspend,
        Admin: teams::resume,
        Admin: keys::list,
        Admin: keys::create,
        Admin: keys::rotate,
        Admin: keys::revoke,
    ]
});

#[cfg(target_family = "wasm")]
#[spin_sdk::http_service]
async fn handle(request: spin_sdk::http::Request) -> impl spin_sdk::http::IntoResponse {
    API.answer(request).await
}
