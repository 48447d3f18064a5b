//! Automatic refills.

use axum::Json;
use serde::{Deserialize, Serialize};
use shared::{
    error::{Error, Result},
    function,
    http::{Body, Mutation, PathTeam},
    platform::settings,
    values::{Amount, RefillPeriod, TeamId, Usd},
};
use utoipa::ToSchema;

/// Whether, how much and how often.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"enabled": true, "refill_amount": 1000, "refill_period": "monthly"}))]
pub struct ConfigureAutoRefill {
    enabled: bool,
    /// Required when enabled.
    refill_amount: Option<Amount>,
    /// Required when enabled.
    refill_period: Option<RefillPeriod>,
}

/// What is set now.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct AutoRefill {
    team_id: TeamId,
    auto_refill_enabled: bool,
    refill_amount: Option<i64>,
    refill_period: Option<RefillPeriod>,
    next_refill_at: Option<String>,
    message: String,
}

/// Configure automatic refills
///
/// The first is due one period after it is enabled. Refills that are due are made when the account is next touched, one for each
/// period. The same period again keeps its schedule.
#[utoipa::path(post, path = "/api/credits/teams/{team_id}/configure-auto-refill", tag = "Credits",
    params(("team_id" = TeamId, Path)), request_body = ConfigureAutoRefill, responses((status = 200, body = AutoRefill)))]
pub async fn configure(
    mutation: Mutation,
    PathTeam(team_id): PathTeam,
    Body(body): Body<ConfigureAutoRefill>,
) -> Result<Json<AutoRefill>> {
    if body.enabled && body.refill_amount.is_none() {
        return Err(Error::invalid("refill_amount", "required when enabled is true"));
    }
    if body.enabled && body.refill_period.is_none() {
        return Err(Error::invalid(
            "refill_period",
            "required when enabled is true; expected daily, weekly or monthly",
        ));
    }
    let function = function!(configure_auto_refill(
        p_team_id: team_id,
        p_enabled: body.enabled,
        p_amount: body.refill_amount,
        p_period: body.refill_period,
        p_usd_per_credit: settings::parsed::<Usd>("usd_per_credit").await?,
    ));
    mutation.run(function).await.map(Json)
}
