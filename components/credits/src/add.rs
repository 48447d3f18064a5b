//! Topping up.

use crate::transactions::Transaction;
use axum::Json;
use serde::{Deserialize, Serialize};
use shared::{
    api::PathSlug,
    database::{self, text},
    error::{Error, Result},
    input::{Amount, Body, Metadata, Prose},
    litellm::admin::Wanted,
    settings,
    team::tell_litellm,
};
use spin_sdk::pg::ParameterValue;

/// How many credits, by any of the names that the guides have for it, and why.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddCredits {
    credits_amount: Option<Amount>,
    amount: Option<Amount>,
    credits: Option<Amount>,
    reason: Option<Prose>,
    #[serde(default)]
    metadata: Metadata,
}

/// What was added.
#[derive(Serialize, Deserialize)]
pub struct Added {
    team_id: String,
    credits_added: i64,
    credits_remaining: i64,
    transaction: Transaction,
    /// What did not go as it should, although the credits are there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

#[derive(Deserialize)]
struct Answer {
    added: Added,
    litellm: Wanted,
}

/// `POST /api/credits/teams/{team_id}/add`
///
/// Credits that are in the ledger are there, so LiteLLM failing to raise its budget is a warning and not an error, which would
/// invite to add them twice. The next change of the team that reaches LiteLLM raises the budget to what it must be.
pub async fn add(PathSlug(team_id): PathSlug, Body(body): Body<AddCredits>) -> Result<Json<Added>> {
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
        database::optional_text(body.reason),
        text(body.metadata),
        text(settings::text("usd_per_credit").await?),
    ];
    let statement = "SELECT add_credits($1, $2, $3, $4::text::json, $5::text::numeric)::text AS answer";
    let Answer { mut added, litellm } = database::call(statement, parameters).await?;
    if tell_litellm(litellm).await.is_err() {
        added
            .warnings
            .push("LiteLLM could not be told of the new budget; the next change of the team will".into());
    }
    Ok(Json(added))
}
