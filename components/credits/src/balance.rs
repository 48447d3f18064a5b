//! Reading and checking a team's balance.

use axum::Json;
use serde::{Deserialize, Serialize};
use shared::{
    error::{Error, Result},
    function,
    http::{Body, Caller, Query, VisibleTeam},
    values::{BudgetMode, CreditCount, RefillMode, RefillPeriod, TeamId},
};
use utoipa::{IntoParams, ToSchema};

/// A team's balance in credits. `credits_remaining` is `credits_allocated` less `credits_used`; `credits_available` is
/// `credits_remaining` less `credits_reserved`.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Balance {
    /// The team.
    team_id: TeamId,
    /// All credits that the team has been given, corrections included.
    credits_allocated: i64,
    /// All credits that the team has been charged.
    credits_used: i64,
    /// The credits that are left; negative if a `soft` team has overdrawn its balance.
    credits_remaining: i64,
    /// The credits that open jobs hold: one for each.
    credits_reserved: i64,
    /// The credits that are neither used nor reserved. Negative if a `soft` team has overdrawn its balance.
    credits_available: i64,
    /// Whether jobs can be created without available credits.
    budget_mode: BudgetMode,
    /// How many credits below zero the balance of a `soft` team may go; `null`: without limit.
    credit_limit: Option<i64>,
    /// Whether automatic refills are enabled.
    auto_refill: bool,
    /// The number of credits that each refill adds; `null`: never configured.
    refill_amount: Option<i64>,
    /// How often credits are refilled.
    refill_period: Option<RefillPeriod>,
    /// What a refill does.
    refill_mode: RefillMode,
    /// The remaining credits up to which a refill adds; `null`: without a cap.
    refill_cap: Option<i64>,
    /// When the next refill is due (RFC 3339, UTC); `null`: automatic refills are disabled.
    next_refill_at: Option<String>,
}

/// Read a balance
#[utoipa::path(get, path = "/api/credits/teams/{team_id}/balance", tag = "Credits", params(("team_id" = TeamId, Path)),
    responses((status = 200, body = Balance)))]
pub async fn get(VisibleTeam(team_id): VisibleTeam) -> Result<Json<Balance>> {
    function!(get_balance(p_team_id: team_id)).run().await.map(Json)
}

/// The number of credits that are asked for, in the body.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"credits_required": 5}))]
pub struct Check {
    /// The number of credits that are asked for; 1 unless the body or the query says otherwise.
    credits_required: Option<CreditCount>,
}

/// The number of credits that are asked for, in the query.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct CheckQuery {
    /// The number of credits that are asked for, in place of `credits_required` in the body; not beside it.
    #[serde(default, deserialize_with = "CreditCount::optional_from_text")]
    credits_needed: Option<CreditCount>,
}

/// Whether the credits that were asked for could be reserved now.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Checked {
    /// The team.
    team_id: TeamId,
    /// Whether that many credits could be reserved now, by the rule for new jobs.
    available: bool,
    /// The same as `available`.
    has_credits: bool,
    /// The number of credits that was asked for.
    credits_required: i64,
    /// The credits that are left; negative if a `soft` team has overdrawn its balance.
    credits_remaining: i64,
    /// The credits that are neither used nor reserved. Negative if a `soft` team has overdrawn its balance.
    credits_available: i64,
}

/// Check credits
///
/// Answers whether the team could reserve that many credits now, by the rule for new jobs: one credit, or the number in
/// the body or in the query. It reserves nothing.
#[utoipa::path(post, path = "/api/credits/teams/{team_id}/check", tag = "Credits",
    params(("team_id" = TeamId, Path), CheckQuery), request_body(content = Check),
    responses((status = 200, body = Checked)))]
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
