//! Alerts: what the seller of a team's credits should know about the team.

use axum::Json;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use shared::{
    error::Result,
    function,
    http::{Caller, Page, Query, VisibleTeam},
    values::{AlertKind, TeamId},
};
use utoipa::ToSchema;
use uuid::Uuid;

/// An alert.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Alert {
    /// The alert's id, which its deliveries carry too.
    alert_id: Uuid,
    /// What the alert is about.
    kind: AlertKind,
    /// A sentence for people.
    message: String,
    /// The numbers behind the message.
    #[schema(value_type = Object)]
    details: Box<RawValue>,
    /// When the alert was raised (RFC 3339, UTC).
    created_at: String,
    /// The URL that the alert is sent to; `null`: it is not sent.
    webhook_url: Option<String>,
    /// How often a delivery was attempted: at most 20 times.
    delivery_attempts: i64,
    /// When the receiver accepted the alert (RFC 3339, UTC); `null`: it has not.
    delivered_at: Option<String>,
}

/// A page of a team's alerts, newest first.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Alerts {
    /// The team.
    team_id: TeamId,
    /// The number of alerts on all pages.
    total: i64,
    /// The alerts of this page, newest first.
    alerts: Vec<Alert>,
}

/// List a team's alerts
///
/// Alerts are raised when 80 % and 100 % of the team's credits are used, when the team is suspended, and, only for the
/// admin to see, when LiteLLM has no price for a model whose cost the team is charged by. If the team has a
/// `webhook_url`, each alert is also sent there at least once, as `{"alert_id", "team_id", "kind", "message",
/// "details", "created_at"}`. The header `x-webhook-signature: sha256=<hex>` is the HMAC-SHA256 of the header
/// `x-webhook-timestamp`, a dot, and the body.
#[utoipa::path(get, path = "/api/teams/{team_id}/alerts", tag = "Reports", operation_id = "alerts",
    params(("team_id" = TeamId, Path), Page),
    responses((status = 200, body = Alerts)))]
pub async fn list(
    caller: Caller,
    VisibleTeam(team_id): VisibleTeam,
    Query(page): Query<Page>,
) -> Result<Json<Alerts>> {
    let function = function!(list_alerts(
        p_actor: caller.reader(),
        p_team_id: team_id,
        p_limit: page.limit,
        p_offset: page.offset,
    ));
    function.run().await.map(Json)
}
