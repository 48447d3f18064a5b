//! What a team's seller should know.

use axum::Json;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use shared::{
    error::Result,
    function,
    http::{Page, Query, VisibleTeam},
    values::{AlertKind, TeamId},
};
use utoipa::ToSchema;
use uuid::Uuid;

/// An alert.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Alert {
    alert_id: Uuid,
    kind: AlertKind,
    message: String,
    #[schema(value_type = Object)]
    details: Box<RawValue>,
    created_at: String,
    /// Where it is sent; `null`: nowhere.
    webhook_url: Option<String>,
    delivery_attempts: i64,
    delivered_at: Option<String>,
}

/// A page of a team's alerts, newest first.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Alerts {
    team_id: TeamId,
    total: i64,
    alerts: Vec<Alert>,
}

/// List a team's alerts
///
/// Raised when 80 % and 100 % of the credits are used, and when the team is suspended. With a `webhook_url` they are also sent there, at
/// least once, as `{"alert_id", "team_id", "kind", "message", "details", "created_at"}` with `x-webhook-signature: sha256=<hex>`: the
/// HMAC-SHA256 of `x-webhook-timestamp`, a dot, and the body.
#[utoipa::path(get, path = "/api/teams/{team_id}/alerts", tag = "Reports", operation_id = "alerts", params(("team_id" = TeamId, Path), Page),
    responses((status = 200, body = Alerts)))]
pub async fn list(VisibleTeam(team_id): VisibleTeam, Query(page): Query<Page>) -> Result<Json<Alerts>> {
    let function = function!(list_alerts(p_team_id: team_id, p_limit: page.limit, p_offset: page.offset));
    function.run().await.map(Json)
}
