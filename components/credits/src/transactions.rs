//! The ledger: every change of a team's balance.

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

/// An entry of the ledger: one change of a team's balance.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Transaction {
    /// The entry's id.
    transaction_id: Uuid,
    /// The team whose balance changed.
    team_id: TeamId,
    /// Why the balance changed.
    transaction_type: TransactionType,
    /// The number of credits. It has a sign only if `transaction_type` is `adjustment`; for the other types the type
    /// says the direction.
    credits_amount: i64,
    /// The balance before the change, in credits.
    balance_before: i64,
    /// The balance after the change, in credits.
    balance_after: i64,
    /// The reason that was given for the change.
    reason: Option<String>,
    /// The job that was charged; `null` if the change is about no job.
    job_id: Option<JobId>,
    /// The caller's own data about the change.
    #[schema(value_type = Object)]
    metadata: Box<RawValue>,
    /// When the balance changed (RFC 3339, UTC).
    created_at: String,
}

/// A page of a team's ledger, newest first.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Transactions {
    /// The team.
    team_id: TeamId,
    /// The number of entries on all pages.
    total: i64,
    /// The same as `total`.
    total_transactions: i64,
    /// The entries of this page, newest first.
    transactions: Vec<Transaction>,
    /// The `cursor` of the next page; `null` on the last page.
    next_cursor: Option<i64>,
}

/// Which part of the ledger is asked for, and in which format.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Selection {
    /// The maximum number of entries on the page.
    #[serde(default = "default_limit", deserialize_with = "PageLimit::from_text")]
    #[param(value_type = i64, minimum = 1, maximum = 1000, default = 50, required = false)]
    limit: PageLimit,
    /// The number of entries to skip. Not together with `cursor`.
    #[serde(default, deserialize_with = "PageOffset::optional_from_text")]
    #[param(value_type = Option<i64>, minimum = 0, maximum = 1_000_000_000_000_i64)]
    offset: Option<PageOffset>,
    /// The `next_cursor` of the page before. Not together with `offset`.
    #[serde(default, deserialize_with = "PageCursor::optional_from_text")]
    #[param(value_type = Option<i64>, minimum = 1, maximum = 1_000_000_000_000_i64)]
    cursor: Option<PageCursor>,
    /// The format of the answer.
    #[serde(default)]
    #[param(inline)]
    format: Format,
}

/// Read the ledger
///
/// Entries are sorted newest first. As CSV, the answer has a line for each entry of the page.
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
