//! Automatic refills.

use axum::Json;
use serde::{Deserialize, Serialize};
use shared::{
    error::{Error, Result},
    function,
    http::{Body, Mutation, PathTeam},
    platform::settings,
    values::{Amount, RefillMode, RefillPeriod, TeamId, Usd},
};
use utoipa::ToSchema;

/// Whether credits are refilled automatically, how many, and how often.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"enabled": true, "refill_amount": 1000, "refill_period": "monthly"}))]
pub struct ConfigureAutoRefill {
    /// Whether automatic refills are enabled.
    enabled: bool,
    /// The number of credits that each refill adds. Required if `enabled` is true.
    refill_amount: Option<Amount>,
    /// How often credits are refilled. Required if `enabled` is true.
    refill_period: Option<RefillPeriod>,
    /// What a refill does; `add` unless it is given.
    #[serde(default = "add")]
    mode: RefillMode,
    /// For `add`: the remaining credits above which a refill adds nothing; without it, there is no cap.
    cap: Option<Amount>,
}

fn add() -> RefillMode {
    RefillMode::Add
}

/// A team's automatic refills as they are configured now.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct AutoRefill {
    /// The team.
    team_id: TeamId,
    /// Whether automatic refills are enabled.
    auto_refill_enabled: bool,
    /// The number of credits that each refill adds; `null`: never configured.
    refill_amount: Option<i64>,
    /// How often credits are refilled; `null`: never configured.
    refill_period: Option<RefillPeriod>,
    /// What a refill does.
    refill_mode: RefillMode,
    /// The remaining credits up to which a refill adds; `null`: without a cap.
    refill_cap: Option<i64>,
    /// When the next refill is due (RFC 3339, UTC); `null`: automatic refills are disabled.
    next_refill_at: Option<String>,
    /// A sentence for people.
    message: String,
}

/// Configure automatic refills
///
/// The first refill is due one period after refills are enabled. Due refills are made when the team's account is next
/// used, one for each period that has passed; while the team is suspended, none is due. Configuring the same period
/// again keeps its schedule.
#[utoipa::path(post, path = "/api/credits/teams/{team_id}/configure-auto-refill", tag = "Credits",
    params(("team_id" = TeamId, Path)), request_body = ConfigureAutoRefill,
    responses((status = 200, body = AutoRefill)))]
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
    if body.mode == RefillMode::ResetTo && body.cap.is_some() {
        return Err(Error::invalid(
            "cap",
            "expected only with mode add; reset_to makes refill_amount the remaining",
        ));
    }
    let function = function!(configure_auto_refill(
        p_team_id: team_id,
        p_enabled: body.enabled,
        p_amount: body.refill_amount,
        p_period: body.refill_period,
        p_mode: body.mode,
        p_cap: body.cap,
        p_usd_per_credit: settings::parsed::<Usd>("usd_per_credit").await?,
    ));
    mutation.run(function).await.map(Json)
}
