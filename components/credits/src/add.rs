//! Top-ups and corrections of a team's balance.
//!
//! Credits that are in the ledger stay there. If LiteLLM can't be synchronized with the new budget, the answer is
//! therefore a success with a warning: an error would invite the caller to add the credits twice. The team's next call
//! synchronizes LiteLLM before it is made.

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

/// The credits to add, under exactly one of the three names `credits_amount`, `amount` and `credits`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"credits_amount": 100, "reason": "Invoice 2025-117"}))]
pub struct AddCredits {
    /// The number of credits to add. Required, under this name or one of its other names.
    credits_amount: Option<Amount>,
    /// Another name of `credits_amount`.
    amount: Option<Amount>,
    /// Another name of `credits_amount`.
    credits: Option<Amount>,
    /// The reason that the ledger shows.
    reason: Option<Prose>,
    /// The caller's own data, which is stored with the ledger entry.
    #[serde(default)]
    metadata: Metadata,
}

/// The result of a top-up.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Added {
    /// The team that got the credits.
    team_id: TeamId,
    /// The number of credits that were added.
    credits_added: i64,
    /// The team's balance afterwards, in credits; negative if a `soft` team has overdrawn it.
    credits_remaining: i64,
    /// The ledger entry of the top-up.
    transaction: Transaction,
    /// Problems that did not prevent the top-up, such as LiteLLM being out of reach.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// Add credits
///
/// The credits are available at once. LiteLLM's budget of the team is raised by their value in US dollars; if LiteLLM
/// can't be reached, the answer has a warning, and the team's next call raises it.
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

/// A correction of a balance, and its reason.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"credits_amount": -5, "reason": "Charged twice by mistake"}))]
pub struct AdjustCredits {
    /// The number of credits to add, or, if negative, to take away; not 0.
    credits_amount: Correction,
    /// The reason that the ledger shows.
    reason: Prose,
    /// The caller's own data, which is stored with the ledger entry.
    #[serde(default)]
    metadata: Metadata,
}

/// A number of credits to add or to take away: -1,000,000,000 to 1,000,000,000.
type Correction = Whole<-1_000_000_000, 1_000_000_000>;

/// The result of a correction.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Adjusted {
    /// The team whose balance was corrected.
    team_id: TeamId,
    /// The change in credits; negative if credits were taken away.
    credits_adjusted: i64,
    /// The team's balance afterwards, in credits; negative if a `soft` team has overdrawn it.
    credits_remaining: i64,
    /// The ledger entry of the correction.
    transaction: Transaction,
    /// Problems that did not prevent the correction, such as LiteLLM being out of reach.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// Correct a balance
///
/// A correction can take away at most the credits that are available. LiteLLM's budget of the team changes by the same
/// value.
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

/// Synchronizes LiteLLM with the new budget. Returns a warning if that failed.
async fn synced(mutation: &Mutation, litellm: DesiredTeam) -> Vec<String> {
    match sync::after(mutation, litellm).await {
        Ok(()) => vec![],
        Err(_) => vec!["LiteLLM could not be told of the new budget; the team's next call does it".into()],
    }
}
