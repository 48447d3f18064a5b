//! The ledger.

use axum::Json;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use shared::{
    api::PathSlug,
    auth::Principal,
    database::{self, text},
    error::Result,
    input::{Page, Query},
};
use spin_sdk::pg::ParameterValue;

/// One change of a balance.
#[derive(Serialize, Deserialize)]
pub struct Transaction {
    transaction_id: String,
    team_id: String,
    transaction_type: String,
    credits_amount: i64,
    balance_before: i64,
    balance_after: i64,
    reason: Option<String>,
    job_id: Option<String>,
    metadata: Box<RawValue>,
    created_at: String,
}

/// A page of a team's ledger, newest first.
#[derive(Serialize, Deserialize)]
pub struct Transactions {
    team_id: String,
    total: i64,
    total_transactions: i64,
    transactions: Vec<Transaction>,
}

/// `GET /api/credits/teams/{team_id}/transactions`
pub async fn list(
    principal: Principal,
    PathSlug(team_id): PathSlug,
    Query(page): Query<Page>,
) -> Result<Json<Transactions>> {
    principal.may_see(team_id.as_str())?;
    let parameters =
        vec![text(team_id), ParameterValue::Int64(page.limit), ParameterValue::Int64(page.offset)];
    database::call("SELECT list_transactions($1, $2, $3)::text AS answer", parameters).await.map(Json)
}
