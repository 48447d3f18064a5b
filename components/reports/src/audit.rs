//! What the admin changed.

use axum::Json;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use shared::{
    database,
    error::Result,
    input::{Page, Query, query_integer},
};
use spin_sdk::pg::ParameterValue;
use utoipa::{IntoParams, ToSchema};

/// A change that took effect.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    entry: i64,
    created_at: String,
    /// `admin`.
    actor: String,
    /// Method and route.
    #[schema(example = "PUT /api/teams/{team_id}/suspend")]
    action: String,
    /// The path that was asked for.
    path: String,
    /// The body, unless it was very large.
    #[schema(value_type = Option<serde_json::Value>)]
    body: Option<Box<RawValue>>,
    request_id: String,
}

/// A page of the audit log, newest first.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct AuditLog {
    entries: Vec<AuditEntry>,
    /// The `cursor` for the next page; `null` on the last.
    #[serde(rename(serialize = "next_cursor", deserialize = "next"))]
    next_cursor: Option<i64>,
}

/// Which part of the log is asked for.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Selection {
    /// At most this many entries.
    #[serde(default = "Page::default_limit", deserialize_with = "Page::limit")]
    #[param(minimum = 1, maximum = 1000, default = 50, required = false)]
    limit: i64,
    /// The `next_cursor` of the page before.
    #[serde(default, deserialize_with = "cursor")]
    #[param(value_type = Option<i64>, minimum = 1, maximum = 1_000_000_000_000_i64)]
    cursor: Option<i64>,
}

fn cursor<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    query_integer(deserializer, 1, 1_000_000_000_000).map(Some)
}

/// Read the audit log
///
/// Every change that the admin made, written in the same statement as the change. Nothing in it can be changed.
#[utoipa::path(get, path = "/api/audit-log", tag = "Reports", operation_id = "audit_log", params(Selection),
    responses((status = 200, body = AuditLog)))]
pub async fn list(Query(selection): Query<Selection>) -> Result<Json<AuditLog>> {
    let parameters = vec![
        ParameterValue::Int64(selection.limit),
        selection.cursor.map_or(ParameterValue::DbNull, ParameterValue::Int64),
    ];
    database::call("SELECT list_audit_log($1, $2)::text AS answer", parameters).await.map(Json)
}
