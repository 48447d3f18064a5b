//! The ledger.

use axum::{
    Json,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use shared::{
    error::{Error, Result},
    function,
    http::{Format, PageCursor, PageLimit, PageOffset, Query, VisibleTeam, csv, default_limit},
    values::{JobId, TeamId, TransactionType},
};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// One change of a balance.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Transaction {
    transaction_id: Uuid,
    team_id: TeamId,
    transaction_type: TransactionType,
    /// The type gives the direction; an adjustment goes both ways and has a sign.
    credits_amount: i64,
    balance_before: i64,
    balance_after: i64,
    reason: Option<String>,
    job_id: Option<JobId>,
    #[schema(value_type = Object)]
    metadata: Box<RawValue>,
    created_at: String,
}

/// A page of a team's ledger, newest first.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Transactions {
    team_id: TeamId,
    total: i64,
    total_transactions: i64,
    transactions: Vec<Transaction>,
    /// The `cursor` for the next page; `null` on the last.
    next_cursor: Option<i64>,
}

/// Which part of the ledger is asked for, and as what.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Selection {
    /// At most this many entries.
    #[serde(default = "default_limit", deserialize_with = "PageLimit::from_text")]
    #[param(value_type = i64, minimum = 1, maximum = 1000, default = 50, required = false)]
    limit: PageLimit,
    /// Starting after this many. Not beside `cursor`.
    #[serde(default, deserialize_with = "PageOffset::optional_from_text")]
    #[param(value_type = Option<i64>, minimum = 0, maximum = 1_000_000_000_000_i64)]
    offset: Option<PageOffset>,
    /// The `next_cursor` of the page before.
    #[serde(default, deserialize_with = "PageCursor::optional_from_text")]
    #[param(value_type = Option<i64>, minimum = 1, maximum = 1_000_000_000_000_i64)]
    cursor: Option<PageCursor>,
    #[serde(default)]
    #[param(inline)]
    format: Format,
}

/// Read the ledger
#[utoipa::path(get, path = "/api/credits/teams/{team_id}/transactions", tag = "Credits",
    params(("team_id" = TeamId, Path), Selection),
    responses((status = 200, content((Transactions = "application/json"), (String = "text/csv")))))]
pub async fn list(VisibleTeam(team_id): VisibleTeam, Query(selection): Query<Selection>) -> Result<Response> {
    if selection.cursor.is_some() && selection.offset.is_some() {
        return Err(Error::invalid("cursor", "given beside offset; expected one of them"));
    }
    let function = function!(list_transactions(
        p_team_id: team_id,
        p_limit: selection.limit,
        p_offset: selection.offset.map_or(0, PageOffset::get),
        p_before: selection.cursor,
    ));
    let page: Transactions = function.run().await?;
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
            entry.transaction_id.to_string(),
            csv::text(entry.team_id.as_str()),
            entry.transaction_type.to_string(),
            entry.credits_amount.to_string(),
            entry.balance_before.to_string(),
            entry.balance_after.to_string(),
            csv::text(entry.reason.as_deref().unwrap_or_default()),
            entry.job_id.map(|id| id.to_string()).unwrap_or_default(),
            csv::text(entry.metadata.get()),
        ]
    });
    csv::table(columns, rows)
}
