//! The audit log: every change that the admin made.

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
    /// The number of the entry; later entries have higher numbers.
    entry: i64,
    /// When the change took effect (RFC 3339, UTC).
    created_at: String,
    /// Always `admin`.
    actor: String,
    /// The method and the route of the request.
    #[schema(example = "PUT /api/teams/{team_id}/suspend")]
    action: String,
    /// The path and query of the request.
    path: String,
    /// The body of the request; `null` if it had none or was larger than 64 KiB.
    #[schema(value_type = Option<serde_json::Value>)]
    body: Option<Box<RawValue>>,
    /// The `x-request-id` of the request, which is also in the log.
    request_id: String,
}

/// A page of the audit log, newest first.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct AuditLog {
    /// The entries of this page, newest first.
    entries: Vec<AuditEntry>,
    /// The `cursor` of the next page; `null` on the last page.
    next_cursor: Option<i64>,
}

/// Which part of the audit log is asked for.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Selection {
    /// The maximum number of entries on the page.
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
/// It has an entry for every change that the admin made, written by the same SQL statement as the change. Entries can't
/// be changed or deleted.
#[utoipa::path(get, path = "/api/audit-log", tag = "Reports", operation_id = "audit_log", params(Selection),
    responses((status = 200, body = AuditLog)))]
pub async fn list(Query(selection): Query<Selection>) -> Result<Json<AuditLog>> {
    function!(list_audit_log(p_limit: selection.limit, p_before: selection.cursor)).run().await.map(Json)
}
