//! Whether the application can do its work.

use axum::{Json, http::StatusCode};
use serde::Serialize;
use shared::{
    error::{Code, Result},
    litellm::admin,
    platform::time::within,
    store,
};
use std::time::Duration;
use utoipa::ToSchema;

/// How long each check may take.
const LIMIT: Duration = Duration::from_secs(2);

/// The state of the application and of what it stands on.
#[derive(Serialize, ToSchema)]
pub struct Health {
    /// Whether requests can be served.
    #[schema(example = "healthy")]
    status: Status,
    /// The application's release.
    version: &'static str,
    /// The state of the database.
    database: Database,
    /// The release of the database's schema, which must not be older than the application's; `null` where there is none.
    schema_version: Option<String>,
    /// Whether LiteLLM answers.
    litellm: LiteLlm,
}

/// Whether requests can be served.
#[derive(Serialize, ToSchema, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum Status {
    Healthy,
    Unhealthy,
}

/// `down`: the database can't be reached. `schema_missing`: it was never migrated, or the application's role may not use its functions.
/// `schema_outdated`: it was migrated by an older release than this one.
#[derive(Serialize, ToSchema, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum Database {
    Up,
    Down,
    SchemaMissing,
    SchemaOutdated,
}

/// Whether LiteLLM answers.
#[derive(Serialize, ToSchema, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum LiteLlm {
    Up,
    Down,
}

/// The state of the database, and the release of its schema.
async fn database() -> (Database, Option<String>) {
    match within(LIMIT, store::schema_version()).await {
        Some(Ok(release)) if numbers(&release) < numbers(env!("CARGO_PKG_VERSION")) => {
            (Database::SchemaOutdated, Some(release))
        }
        Some(Ok(release)) => (Database::Up, Some(release)),
        Some(Err(error)) if error.code == Code::Internal => (Database::SchemaMissing, None),
        Some(Err(_)) | None => (Database::Down, None),
    }
}

/// A release as numbers that can be compared.
fn numbers(release: &str) -> Vec<u64> {
    release.split('.').map(|number| number.parse().unwrap_or_default()).collect()
}

/// Health
///
/// 200 while jobs can be created and read. Without LiteLLM calls fail, which the body says; without the database and its schema
/// everything does, so that is 503.
#[utoipa::path(get, path = "/health", tag = "Service", operation_id = "health",
    responses((status = 200, body = Health), (status = 503, body = Health)))]
pub async fn get() -> Result<(StatusCode, Json<Health>)> {
    let ((database, schema_version), litellm) = (database().await, admin::is_alive(LIMIT).await);
    let (code, status) = match database {
        Database::Up => (StatusCode::OK, Status::Healthy),
        _ => (StatusCode::SERVICE_UNAVAILABLE, Status::Unhealthy),
    };
    let health = Health {
        status,
        version: env!("CARGO_PKG_VERSION"),
        database,
        schema_version,
        litellm: if litellm { LiteLlm::Up } else { LiteLlm::Down },
    };
    Ok((code, Json(health)))
}
