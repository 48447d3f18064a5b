//! What a team has.

use axum::Json;
use serde::{Deserialize, Serialize};
use shared::{
    api::PathSlug,
    auth::Principal,
    database::{self, text},
    error::{Error, Result},
    input::{Body, Credits, Query, Slug, query_integer},
};
use spin_sdk::pg::ParameterValue;
use utoipa::{IntoParams, ToSchema};

/// A team's credits: `remaining = allocated - used`, `available = remaining - reserved`.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Balance {
    team_id: String,
    credits_allocated: i64,
    credits_used: i64,
    credits_remaining: i64,
    credits_reserved: i64,
    credits_available: i64,
    budget_mode: String,
    credit_limit: Option<i64>,
    auto_refill: bool,
    refill_amount: Option<i64>,
    refill_period: Option<String>,
    next_refill_at: Option<String>,
}

/// Read a balance
#[utoipa::path(get, path = "/api/credits/teams/{team_id}/balance", tag = "Credits", params(("team_id" = Slug, Path)),
    responses((status = 200, body = Balance)))]
pub async fn get(principal: Principal, PathSlug(team_id): PathSlug) -> Result<Json<Balance>> {
    principal.may_see(team_id.as_str())?;
    database::call("SELECT get_balance($1)::text AS answer", vec![text(team_id)]).await.map(Json)
}

/// How many credits are asked for, in the body.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"credits_required": 5}))]
pub struct Check {
    credits_required: Option<Credits>,
}

/// How many credits are asked for, in the query.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct CheckQuery {
    /// Instead of `credits_required` in the body.
    #[serde(default, deserialize_with = "CheckQuery::number")]
    credits_needed: Option<Credits>,
}

impl CheckQuery {
    fn number<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Credits>, D::Error> {
        query_integer(deserializer, 0, 1_000_000_000).map(|number| Some(Credits(number)))
    }
}

/// Whether that many can be held now.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Checked {
    team_id: String,
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
    params(("team_id" = Slug, Path), CheckQuery), request_body(content = Check), responses((status = 200, body = Checked)))]
pub async fn check(
    principal: Principal,
    PathSlug(team_id): PathSlug,
    Query(query): Query<CheckQuery>,
    Body(body): Body<Check>,
) -> Result<Json<Checked>> {
    principal.may_see(team_id.as_str())?;
    let required = match (body.credits_required, query.credits_needed) {
        (Some(_), Some(_)) => {
            return Err(Error::invalid(
                "credits_needed",
                "given beside credits_required, for which it stands",
            ));
        }
        (Some(required), None) | (None, Some(required)) => required,
        (None, None) => Credits(1),
    };
    let parameters = vec![text(team_id), ParameterValue::Int64(required.0), principal.key_id()];
    database::call("SELECT check_credits($1, $2, $3)::text AS answer", parameters).await.map(Json)
}
