//! Model groups, which teams see in place of models, and access groups, which are sets of model groups.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::too_many_lines
)]

mod access_groups;
mod model_groups;

use shared::http::Api;
use std::sync::LazyLock;

/// The routes of this component.
pub static API: LazyLock<Api> = LazyLock::new(|| {
    shared::api![
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
    ]
});

#[cfg(target_family = "wasm")]
#[spin_sdk::http_service]
async fn handle(request: spin_sdk::http::Request) -> impl spin_sdk::http::IntoResponse {
    API.answer(request).await
}
