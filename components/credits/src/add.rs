//! Topping up and correcting.
//!
//! Credits that are in the ledger are there, so LiteLLM failing to follow with its budget is a warning and not an error, which would
//! invite to add them twice. The team's next call tells LiteLLM, before it is made.

use crate::transactions::Transaction;
use axum::Json;
use serde::{Deserialize, Serialize};
use shared::{
    alerts,
    api::PathSlug,
    change,
    change::Change,
    database::{optional_text, text},
    error::{Error, Result},
    input::{Amount, Body, Metadata, Prose, Slug, integer},
    litellm::admin::Wanted,
    settings,
    team::tell_litellm,
};
use spin_sdk::pg::ParameterValue;
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
    team_id: String,
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
#[utoipa::path(post, path = "/api/credits/teams/{team_id}/add", tag = "Credits", params(("team_id" = Slug, Path)),
    request_body = AddCredits, responses((status = 200, body = Added)))]
pub async fn add(
    change: Change,
    PathSlug(team_id): PathSlug,
    Body(body): Body<AddCredits>,
) -> Result<Json<Added>> {
    #[derive(Deserialize)]
    struct Answer {
        added: Added,
        litellm: Wanted,
    }
    let Amount(amount) = match (body.credits_amount, body.amount, body.credits) {
        (Some(amount), None, None) | (None, Some(amount), None) | (None, None, Some(amount)) => amount,
        (None, None, None) => return Err(Error::invalid("credits_amount", "required")),
        _ => {
            return Err(Error::invalid(
                "credits_amount",
                "given by more than one of its names credits_amount, amount, credits",
            ));
        }
    };
    let parameters = vec![
        text(team_id),
        ParameterValue::Int64(amount),
        optional_text(body.reason),
        text(body.metadata),
        text(settings::text("usd_per_credit").await?),
    ];
    let statement = change!("add_credits($2, $3, $4, $5::text::json, $6::text::numeric)");
    let Answer { mut added, litellm } = change.run(statement, parameters).await?;
    added.warnings = told(&change, litellm).await;
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

/// -1,000,000,000 to 1,000,000,000, but not 0.
#[derive(ToSchema)]
#[schema(value_type = i64, minimum = -1_000_000_000, maximum = 1_000_000_000)]
struct Correction(i64);

impl<'de> Deserialize<'de> for Correction {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match integer(deserializer, -1_000_000_000, 1_000_000_000)? {
            0 => Err(serde::de::Error::custom("expected a whole number other than 0")),
            change => Ok(Self(change)),
        }
    }
}

/// What was corrected.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Adjusted {
    team_id: String,
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
#[utoipa::path(post, path = "/api/credits/teams/{team_id}/adjust", tag = "Credits", params(("team_id" = Slug, Path)),
    request_body = AdjustCredits,
    responses((status = 200, body = Adjusted), (status = 402, description = "`insufficient_credits`")))]
pub async fn adjust(
    change: Change,
    PathSlug(team_id): PathSlug,
    Body(body): Body<AdjustCredits>,
) -> Result<Json<Adjusted>> {
    #[derive(Deserialize)]
    struct Answer {
        adjusted: Adjusted,
        litellm: Wanted,
    }
    let parameters = vec![
        text(team_id),
        ParameterValue::Int64(body.credits_amount.0),
        text(body.reason),
        text(body.metadata),
        text(settings::text("usd_per_credit").await?),
    ];
    let statement = change!("adjust_credits($2, $3, $4, $5::text::json, $6::text::numeric)");
    let Answer { mut adjusted, litellm } = change.run(statement, parameters).await?;
    adjusted.warnings = told(&change, litellm).await;
    alerts::deliver();
    Ok(Json(adjusted))
}

/// Warnings about what LiteLLM could not be told.
async fn told(change: &Change, litellm: Wanted) -> Vec<String> {
    match tell_litellm(change, litellm).await {
        Ok(()) => vec![],
        Err(_) => vec!["LiteLLM could not be told of the new budget; the team's next call does it".into()],
    }
}
