//! Alerts: what the seller of a team's credits should know about the team.

use axum::Json;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::value::RawValue;
use shared::{
    alerts::{self, Secret},
    error::Result,
    function,
    http::{
        Body, Caller, Mutation, NoFields, PageLimit, PageOffset, PathOf, Query, VisibleTeam, default_limit,
    },
    values::{AlertId, AlertKind, AlertStatus, TeamId},
};
use utoipa::{IntoParams, ToSchema};

/// An alert.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Alert {
    /// The alert's id, which its deliveries carry too.
    alert_id: AlertId,
    /// The team that the alert is about.
    team_id: TeamId,
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
    /// Where its delivery stands.
    status: AlertStatus,
    /// How often a delivery was attempted: at most 20 times. Sending it again begins anew.
    delivery_attempts: i64,
    /// When the receiver accepted the alert (RFC 3339, UTC); `null`: it has not.
    delivered_at: Option<String>,
}

/// A page of a team's alerts, newest first.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Alerts {
    /// The team.
    team_id: TeamId,
    /// The number of alerts that match the filter, on all pages.
    total: i64,
    /// The alerts of this page, newest first.
    alerts: Vec<Alert>,
}

/// Which alerts are asked for.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AlertFilter {
    /// The maximum number of alerts on the page.
    #[serde(default = "default_limit", deserialize_with = "PageLimit::from_text")]
    #[param(value_type = i64, minimum = 1, maximum = 1000, default = 50, required = false)]
    limit: PageLimit,
    /// The number of alerts to skip.
    #[serde(default, deserialize_with = "PageOffset::optional_from_text")]
    #[param(value_type = Option<i64>, minimum = 0, maximum = 1_000_000_000_000_i64, default = 0)]
    offset: Option<PageOffset>,
    /// Only alerts whose delivery stands like this, in upper or lower case.
    #[serde(default, deserialize_with = "status")]
    #[param(value_type = Option<String>, pattern = "^(none|due|delivered|undelivered)$")]
    status: Option<AlertStatus>,
}

fn status<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<AlertStatus>, D::Error> {
    let word = String::deserialize(deserializer)?.to_ascii_lowercase();
    AlertStatus::try_from(word).map(Some).map_err(D::Error::custom)
}

/// List a team's alerts
///
/// Alerts are raised when 80 % and 100 % of the team's credits are used, when the team is suspended, and, only for the
/// admin to see, when LiteLLM has no price for a model whose cost the team is charged by. If the team has a
/// `webhook_url`, each alert is also sent there at least once, as `{"alert_id", "team_id", "kind", "message",
/// "details", "created_at"}`, in the form of Standard Webhooks: the header `webhook-id` is the alert's id,
/// `webhook-timestamp` the time in seconds, and `webhook-signature` has for each valid secret `v1,` and the base64 of
/// the HMAC-SHA256 of id, timestamp and body, with dots between.
#[utoipa::path(get, path = "/api/teams/{team_id}/alerts", tag = "Reports", operation_id = "alerts",
    params(("team_id" = TeamId, Path), AlertFilter),
    responses((status = 200, body = Alerts)))]
pub async fn list(
    caller: Caller,
    VisibleTeam(team_id): VisibleTeam,
    Query(filter): Query<AlertFilter>,
) -> Result<Json<Alerts>> {
    let function = function!(list_alerts(
        p_actor: caller.reader(),
        p_team_id: team_id,
        p_status: filter.status,
        p_limit: filter.limit,
        p_offset: filter.offset.map_or(0, PageOffset::get),
    ));
    function.run().await.map(Json)
}

/// Send an alert again
///
/// Delivered or not, the alert is due at once, with 20 attempts before it, for its team's present `webhook_url`. A team
/// without one, and a deployment without a `webhook_secret`, is a 400.
#[utoipa::path(post, path = "/api/alerts/{alert_id}/send-again", tag = "Reports", operation_id = "send_alert_again",
    params(("alert_id" = AlertId, Path)),
    responses((status = 200, body = Alert)))]
pub async fn send_again(
    mutation: Mutation,
    PathOf(alert_id): PathOf<AlertId>,
    Body(NoFields {}): Body<NoFields>,
) -> Result<Json<Alert>> {
    Secret::of_configured_deployment().await?;
    let alert = mutation.run(function!(send_alert_again(p_alert_id: alert_id))).await?;
    alerts::deliver();
    Ok(Json(alert))
}
