//! Whether the application can do its work.

use axum::{Json, http::StatusCode};
use serde::Serialize;
use shared::{database, error::Result, litellm::admin, time::within};
use std::time::Duration;
use utoipa::ToSchema;

/// How long each check may take.
const LIMIT: Duration = Duration::from_secs(2);

/// The state of the application and of what it stands on.
#[derive(Serialize, ToSchema)]
pub struct Health {
    status: &'static str,
    version: &'static str,
    database: &'static str,
    litellm: &'static str,
}

/// Health
///
/// 200 while jobs can be created and read. Without LiteLLM calls fail, which the body says; without the database everything does,
/// so that is 503.
#[utoipa::path(get, path = "/health", tag = "Service", operation_id = "health",
    responses((status = 200, body = Health), (status = 503, body = Health)))]
pub async fn get() -> Result<(StatusCode, Json<Health>)> {
    let word = |up| if up { "up" } else { "down" };
    let (database, litellm) = (within(LIMIT, database::ping()).await, admin::is_alive(LIMIT).await);
    let database_up = matches!(database, Some(Ok(())));
    let (code, status) = match database_up {
        true => (StatusCode::OK, "healthy"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "unhealthy"),
    };
    let health = Health {
        status,
        version: env!("CARGO_PKG_VERSION"),
        database: word(database_up),
        litellm: word(litellm.unwrap_or(false)),
    };
    Ok((code, Json(health)))
}
