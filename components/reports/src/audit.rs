//! What the admin changed.

use axum::Json;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use shared::{
    error::Result,
    function,
    http::{PageCursor, PageLimit, Query, default_limit},
};
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
    next_cursor: Option<i64>,
}

/// Which part of the log is asked for.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Selection {
    /// At most this many entries.
    #[serde(default = "default_limit", deserialize_with = "PageLimit::from_text")]
    #[param(value_type = i64, minimum = 1, maximum = 1000, default = 50, required = false)]
    limit: PageLimit,
    /// The `next_cursor` of the page before.
    #[serde(default, deserialize_with = "PageCursor::optional_from_text")]
    #[param(value_type = Option<i64>, minimum = 1, maximum = 1_000_000_000_000_i64)]
    cursor: Option<PageCursor>,
}

/// Read the audit log
///
/// Every change that the admin made, written in the same statement as the change. Nothing in it can be changed.
#[utoipa::path(get, path = "/api/audit-log", tag = "Reports", operation_id = "audit_log", params(Selection),
    responses((status = 200, body = AuditLog)))]
pub async fn list(Query(selection): Query<Selection>) -> Result<Json<AuditLog>> {
    function!(list_audit_log(p_limit: selection.limit, p_before: selection.cursor)).run().await.map(Json)
}
