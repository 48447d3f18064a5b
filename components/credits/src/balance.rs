//! What a team has.

use axum::Json;
use serde::{Deserialize, Serialize};
use shared::{
    error::{Error, Result},
    function,
    http::{Body, Caller, Query, VisibleTeam},
    values::{BudgetMode, CreditCount, RefillPeriod, TeamId},
};
use utoipa::{IntoParams, ToSchema};

/// A team's credits: `remaining = allocated - used`, `available = remaining - reserved`.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Balance {
    team_id: TeamId,
    credits_allocated: i64,
    credits_used: i64,
    credits_remaining: i64,
    credits_reserved: i64,
    credits_available: i64,
    budget_mode: BudgetMode,
    credit_limit: Option<i64>,
    auto_refill: bool,
    refill_amount: Option<i64>,
    refill_period: Option<RefillPeriod>,
    next_refill_at: Option<String>,
}

/// Read a balance
#[utoipa::path(get, path = "/api/credits/teams/{team_id}/balance", tag = "Credits", params(("team_id" = TeamId, Path)),
    responses((status = 200, body = Balance)))]
pub async fn get(VisibleTeam(team_id): VisibleTeam) -> Result<Json<Balance>> {
    function!(get_balance(p_team_id: team_id)).run().await.map(Json)
}

/// How many credits are asked for, in the body.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"credits_required": 5}))]
pub struct Check {
    credits_required: Option<CreditCount>,
}

/// How many credits are asked for, in the query.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct CheckQuery {
    /// Instead of `credits_required` in the body.
    #[serde(default, deserialize_with = "CreditCount::optional_from_text")]
    credits_needed: Option<CreditCount>,
}

/// Whether that many can be held now.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Checked {
    team_id: TeamId,
    available: bool,
    has_credits: bool,
    credits_required: i64,
    credits_remaining: i64,
    credits_available: i64,
}

/// Check credits
///
/// Whether a job could be created now, or as many as the body or the query says. It changes nothing.
#[utoipa::path(post, path = "/api/credits/teams/{team_id}/check", tag = "Credits",
    params(("team_id" = TeamId, Path), CheckQuery), request_body(content = Check), responses((status = 200, body = Checked)))]
pub async fn check(
    caller: Caller,
    VisibleTeam(team_id): VisibleTeam,
    Query(query): Query<CheckQuery>,
    Body(body): Body<Check>,
) -> Result<Json<Checked>> {
    let required = match (body.credits_required, query.credits_needed) {
        (Some(_), Some(_)) => {
            return Err(Error::invalid(
                "credits_needed",
                "given beside credits_required, for which it stands",
            ));
        }
        (Some(required), None) | (None, Some(required)) => required,
        (None, None) => const { CreditCount::new(1) },
    };
    let function =
        function!(check_credits(p_actor: caller.actor(), p_team_id: team_id, p_required: required));
    function.run().await.map(Json)
}
