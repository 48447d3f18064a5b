//! Organizations, model groups, access groups, teams; health; and the answer to paths that nobody has.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod access_groups;
mod health;
mod model_groups;
mod organizations;
mod teams;

use shared::{api::Api, auth::Access};
use spin_sdk::{
    http::{IntoResponse, Request},
    http_service,
};
use std::sync::LazyLock;

static API: LazyLock<Api> = LazyLock::new(|| {
    Api::new()
        .post("/api/organizations/create", Access::Admin, organizations::create)
        .get("/api/organizations/{organization_id}", Access::Admin, organizations::get)
        .post("/api/model-groups/create", Access::Admin, model_groups::create)
        .get("/api/model-groups", Access::AdminOrTeam, model_groups::list)
        .get("/api/model-groups/{group_name}", Access::AdminOrTeam, model_groups::get)
        .get("/api/model-groups/{group_name}/resolve", Access::AdminOrTeam, model_groups::resolve)
        .post("/api/model-access-groups/create", Access::Admin, access_groups::create)
        .get("/api/model-access-groups/{group_name}", Access::Admin, access_groups::get)
        .post("/api/teams/create", Access::Admin, teams::create)
        .get("/api/teams", Access::Admin, teams::list)
        .get("/api/teams/{team_id}", Access::AdminOrTeam, teams::get)
        .put("/api/teams/{team_id}/model-groups", Access::Admin, teams::set_model_groups)
        .put("/api/teams/{team_id}/suspend", Access::Admin, teams::suspend)
        .put("/api/teams/{team_id}/resume", Access::Admin, teams::resume)
        .get("/health", Access::Public, health::get)
});

#[http_service]
async fn handle(request: Request) -> impl IntoResponse {
    API.answer(request).await
}
