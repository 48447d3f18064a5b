//! What a team has.

use axum::Json;
use serde::{Deserialize, Serialize};
use shared::{
    api::PathSlug,
    auth::Principal,
    database::{self, text},
    error::{Error, Result},
    input::{Body, Credits, Query, query_integer},
};
use spin_sdk::pg::ParameterValue;

/// A team's credits: `remaining = allocated - used`, `available = remaining - reserved`.
#[derive(Serialize, Deserialize)]
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
}

/// `GET /api/credits/teams/{team_id}/balance`
pub async fn get(principal: Principal, PathSlug(team_id): PathSlug) -> Result<Json<Balance>> {
    principal.may_see(team_id.as_str())?;
    database::call("SELECT get_balance($1)::text AS answer", vec![text(team_id)]).await.map(Json)
}

/// How many credits are asked for, in the body.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    credits_required: Option<Credits>,
}

/// How many credits are asked for, in the query.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckQuery {
    #[serde(default, deserialize_with = "CheckQuery::number")]
    credits_needed: Option<Credits>,
}

impl CheckQuery {
    fn number<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Credits>, D::Error> {
        query_integer(deserializer, 0, 1_000_000_000).map(|number| Some(Credits(number)))
    }
}

/// Whether that many can be held now.
#[derive(Serialize, Deserialize)]
pub struct Checked {
    team_id: String,
    available: bool,
    has_credits: bool,
    credits_required: i64,
    credits_remaining: i64,
    credits_available: i64,
}

/// `POST /api/credits/teams/{team_id}/check`: of one credit, unless the body or the query says how many.
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
    let parameters = vec![text(team_id), ParameterValue::Int64(required.0)];
    database::call("SELECT check_credits($1, $2)::text AS answer", parameters).await.map(Json)
}
