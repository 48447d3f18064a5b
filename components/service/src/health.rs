//! Whether the application can serve requests.

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

/// The maximum time that each check may take.
const LIMIT: Duration = Duration::from_secs(2);

/// The state of the application, its database and LiteLLM.
#[derive(Serialize, ToSchema)]
pub struct Health {
    /// Whether requests can be served.
    #[schema(example = "healthy")]
    status: Status,
    /// The release of the application.
    version: &'static str,
    /// The state of the database.
    database: Database,
    /// The release of the database's schema, which must not be older than the application's; `null`: the schema can't
    /// be read.
    schema_version: Option<String>,
    /// Whether LiteLLM responds.
    litellm: LiteLlm,
}

/// Whether requests can be served.
#[derive(Serialize, ToSchema, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum Status {
    Healthy,
    Unhealthy,
}

/// The state of the database. `up`: it can be used. `down`: it can't be reached. `schema_missing`: it has never been
/// migrated, or the application's role may not use its functions. `schema_outdated`: it was migrated by an older
/// release.
#[derive(Serialize, ToSchema, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum Database {
    Up,
    Down,
    SchemaMissing,
    SchemaOutdated,
}

/// Whether LiteLLM responds.
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

/// A release, such as `0.2.0`, as numbers that can be compared.
fn numbers(release: &str) -> Vec<u64> {
    release.split('.').map(|number| number.parse().unwrap_or_default()).collect()
}

/// Health
///
/// The status is 200 if jobs can be created and read, and 503 if the database or its schema is missing, since then
/// every request fails. Without LiteLLM only calls fail; the body says so, and the status is still 200.
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
