//! Topping up and correcting.
//!
//! Credits that are in the ledger are there, so LiteLLM failing to follow with its budget is a warning and not an error, which would
//! invite to add them twice. The team's next call tells LiteLLM, before it is made.

use crate::transactions::Transaction;
use axum::Json;
use serde::{Deserialize, Serialize};
use shared::{
    alerts,
    error::{Error, Result},
    function,
    http::{Body, Mutation, PathTeam},
    litellm::admin::DesiredTeam,
    platform::settings,
    teams::sync,
    values::{Amount, Metadata, Prose, TeamId, Usd, Whole},
};
use utoipa::ToSchema;

/// How many credits, by any of the names that the guides have for it, and why.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"credits_amount": 100, "reason": "Invoice 2025-117"}))]
pub struct AddCredits {
    /// This, or one of its other names.
    credits_amount: Option<Amount>,
    /// Another name of `credits_amount`.
    amount: Option<Amount>,
    /// Another name of `credits_amount`.
    credits: Option<Amount>,
    reason: Option<Prose>,
    #[serde(default)]
    metadata: Metadata,
}

/// What was added.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Added {
    team_id: TeamId,
    credits_added: i64,
    credits_remaining: i64,
    transaction: Transaction,
    /// What did not go as it should, although the credits are there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// Add credits
///
/// LiteLLM's budget is raised by what they are worth.
#[utoipa::path(post, path = "/api/credits/teams/{team_id}/add", tag = "Credits", params(("team_id" = TeamId, Path)),
    request_body = AddCredits, responses((status = 200, body = Added)))]
pub async fn add(
    mutation: Mutation,
    PathTeam(team_id): PathTeam,
    Body(body): Body<AddCredits>,
) -> Result<Json<Added>> {
    #[derive(Deserialize)]
    struct Answer {
        added: Added,
        litellm: DesiredTeam,
    }
    let amount = match (body.credits_amount, body.amount, body.credits) {
        (Some(amount), None, None) | (None, Some(amount), None) | (None, None, Some(amount)) => amount,
        (None, None, None) => return Err(Error::invalid("credits_amount", "required")),
        _ => {
            return Err(Error::invalid(
                "credits_amount",
                "given by more than one of its names credits_amount, amount, credits",
            ));
        }
    };
    let function = function!(add_credits(
        p_team_id: team_id,
        p_amount: amount,
        p_reason: body.reason,
        p_metadata: body.metadata,
        p_usd_per_credit: settings::parsed::<Usd>("usd_per_credit").await?,
    ));
    let Answer { mut added, litellm } = mutation.run(function).await?;
    added.warnings = synced(&mutation, litellm).await;
    Ok(Json(added))
}

/// A correction, and why.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"credits_amount": -5, "reason": "Charged twice by mistake"}))]
pub struct AdjustCredits {
    /// Not 0; negative to take credits away.
    credits_amount: Correction,
    reason: Prose,
    #[serde(default)]
    metadata: Metadata,
}

/// A number of credits to add or to take away.
type Correction = Whole<-1_000_000_000, 1_000_000_000>;

/// What was corrected.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Adjusted {
    team_id: TeamId,
    credits_adjusted: i64,
    credits_remaining: i64,
    transaction: Transaction,
    /// What did not go as it should, although the balance is corrected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// Correct a balance
///
/// It can't take more than is available. LiteLLM's budget follows.
#[utoipa::path(post, path = "/api/credits/teams/{team_id}/adjust", tag = "Credits", params(("team_id" = TeamId, Path)),
    request_body = AdjustCredits,
    responses((status = 200, body = Adjusted), (status = 402, description = "`insufficient_credits`")))]
pub async fn adjust(
    mutation: Mutation,
    PathTeam(team_id): PathTeam,
    Body(body): Body<AdjustCredits>,
) -> Result<Json<Adjusted>> {
    #[derive(Deserialize)]
    struct Answer {
        adjusted: Adjusted,
        litellm: DesiredTeam,
    }
    if body.credits_amount.get() == 0 {
        return Err(Error::invalid("credits_amount", "expected a whole number other than 0"));
    }
    let function = function!(adjust_credits(
        p_team_id: team_id,
        p_change: body.credits_amount,
        p_reason: body.reason,
        p_metadata: body.metadata,
        p_usd_per_credit: settings::parsed::<Usd>("usd_per_credit").await?,
    ));
    let Answer { mut adjusted, litellm } = mutation.run(function).await?;
    adjusted.warnings = synced(&mutation, litellm).await;
    alerts::deliver();
    Ok(Json(adjusted))
}

/// Warnings about what LiteLLM could not be told.
async fn synced(mutation: &Mutation, litellm: DesiredTeam) -> Vec<String> {
    match sync::after(mutation, litellm).await {
        Ok(()) => vec![],
        Err(_) => vec!["LiteLLM could not be told of the new budget; the team's next call does it".into()],
    }
}
