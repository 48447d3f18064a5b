//! Jobs: create, complete, read, list.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod complete;
mod create;
mod read;

use shared::{api::Api, auth::Access};
use spin_sdk::{
    http::{IntoResponse, Request},
    http_service,
};
use std::sync::LazyLock;

static API: LazyLock<Api> = LazyLock::new(|| {
    Api::new()
        .post("/api/jobs/create", Access::AdminOrTeam, create::create)
        .post("/api/jobs/{job_id}/complete", Access::AdminOrTeam, complete::complete)
        .get("/api/jobs/{job_id}", Access::AdminOrTeam, read::get)
        .get("/api/teams/{team_id}/jobs", Access::AdminOrTeam, read::list)
});

#[http_service]
async fn handle(request: Request) -> impl IntoResponse {
    API.answer(request).await
}
