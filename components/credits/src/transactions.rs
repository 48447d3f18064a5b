//! The ledger.

use axum::{
    Json,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use shared::{
    api::PathSlug,
    auth::Principal,
    csv,
    database::{self, text},
    error::{Error, Result},
    input::{Format, Page, Query, Slug, query_integer},
};
use spin_sdk::pg::ParameterValue;
use utoipa::{IntoParams, ToSchema};

/// One change of a balance.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Transaction {
    transaction_id: String,
    team_id: String,
    /// `allocation`, `deduction`, `refund`, `adjustment`, `refill` or `expiry`.
    transaction_type: String,
    /// The type gives the direction; an adjustment goes both ways and has a sign.
    credits_amount: i64,
    balance_before: i64,
    balance_after: i64,
    reason: Option<String>,
    job_id: Option<String>,
    #[schema(value_type = Object)]
    metadata: Box<RawValue>,
    created_at: String,
}

/// A page of a team's ledger, newest first.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Transactions {
    team_id: String,
    total: i64,
    total_transactions: i64,
    transactions: Vec<Transaction>,
    /// The `cursor` for the next page; `null` on the last.
    #[serde(rename(serialize = "next_cursor", deserialize = "next"))]
    next_cursor: Option<i64>,
}

/// Which part of the ledger is asked for, and as what.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Selection {
    /// At most this many entries.
    #[serde(default = "Page::default_limit", deserialize_with = "Page::limit")]
    #[param(minimum = 1, maximum = 1000, default = 50, required = false)]
    limit: i64,
    /// Starting after this many. Not beside `cursor`.
    #[serde(default, deserialize_with = "Page::optional_offset")]
    #[param(value_type = Option<i64>, minimum = 0, maximum = 1_000_000_000_000_i64)]
    offset: Option<i64>,
    /// The `next_cursor` of the page before.
    #[serde(default, deserialize_with = "cursor")]
    #[param(value_type = Option<i64>, minimum = 1, maximum = 1_000_000_000_000_i64)]
    cursor: Option<i64>,
    #[serde(default)]
    #[param(inline)]
    format: Format,
}

fn cursor<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    query_integer(deserializer, 1, 1_000_000_000_000).map(Some)
}

/// Read the ledger
#[utoipa::path(get, path = "/api/credits/teams/{team_id}/transactions", tag = "Credits",
    params(("team_id" = Slug, Path), Selection),
    responses((status = 200, content((Transactions = "application/json"), (String = "text/csv")))))]
pub async fn list(
    principal: Principal,
    PathSlug(team_id): PathSlug,
    Query(selection): Query<Selection>,
) -> Result<Response> {
    principal.may_see(team_id.as_str())?;
    if selection.cursor.is_some() && selection.offset.is_some() {
        return Err(Error::invalid("cursor", "given beside offset; expected one of them"));
    }
    let parameters = vec![
        text(team_id),
        ParameterValue::Int64(selection.limit),
        ParameterValue::Int64(selection.offset.unwrap_or_default()),
        selection.cursor.map_or(ParameterValue::DbNull, ParameterValue::Int64),
    ];
    let page: Transactions =
        database::call("SELECT list_transactions($1, $2, $3, $4)::text AS answer", parameters).await?;
    Ok(match selection.format {
        Format::Json => Json(page).into_response(),
        Format::Csv => ([(CONTENT_TYPE, csv::CONTENT_TYPE)], table(&page.transactions)?).into_response(),
    })
}

fn table(transactions: &[Transaction]) -> Result<String> {
    let columns = [
        "created_at",
        "transaction_id",
        "team_id",
        "transaction_type",
        "credits_amount",
        "balance_before",
        "balance_after",
        "reason",
        "job_id",
        "metadata",
    ];
    let rows = transactions.iter().map(|entry| {
        [
            entry.created_at.clone(),
            entry.transaction_id.clone(),
            csv::text(&entry.team_id),
            entry.transaction_type.clone(),
            entry.credits_amount.to_string(),
            entry.balance_before.to_string(),
            entry.balance_after.to_string(),
            csv::text(entry.reason.as_deref().unwrap_or_default()),
            entry.job_id.clone().unwrap_or_default(),
            csv::text(entry.metadata.get()),
        ]
    });
    csv::table(columns, rows)
}
