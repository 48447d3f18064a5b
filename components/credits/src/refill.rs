//! Automatic refills.

use axum::Json;
use serde::{Deserialize, Serialize};
use shared::{
    api::PathSlug,
    change,
    change::Change,
    database::{optional_text, text},
    error::{Error, Result},
    input::{Amount, Body, Slug},
    settings,
};
use spin_sdk::pg::ParameterValue;
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
    refill_period: Option<Period>,
}

/// How often. Months are counted from the start: what began on a 31st comes on the last day of shorter months.
#[derive(Deserialize, Serialize, Clone, Copy, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Period {
    Daily,
    Weekly,
    Monthly,
}

/// What is set now.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct AutoRefill {
    team_id: String,
    auto_refill_enabled: bool,
    refill_amount: Option<i64>,
    refill_period: Option<String>,
    next_refill_at: Option<String>,
    message: String,
}

/// Configure automatic refills
///
/// The first is due one period after it is enabled. Refills that are due are made when the account is next touched, one for each
/// period. The same period again keeps its schedule.
#[utoipa::path(post, path = "/api/credits/teams/{team_id}/configure-auto-refill", tag = "Credits",
    params(("team_id" = Slug, Path)), request_body = ConfigureAutoRefill, responses((status = 200, body = AutoRefill)))]
pub async fn configure(
    change: Change,
    PathSlug(team_id): PathSlug,
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
    let period = body.refill_period.map(|period| match period {
        Period::Daily => "daily",
        Period::Weekly => "weekly",
        Period::Monthly => "monthly",
    });
    let parameters = vec![
        text(team_id),
        ParameterValue::Boolean(body.enabled),
        body.refill_amount.map_or(ParameterValue::DbNull, |Amount(amount)| ParameterValue::Int64(amount)),
        optional_text(period),
        text(settings::text("usd_per_credit").await?),
    ];
    change
        .run(change!("configure_auto_refill($2, $3, $4, $5, $6::text::numeric)"), parameters)
        .await
        .map(Json)
}
