//! The ledger: every change of a team's balance.

use axum::{
    Json,
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
    /// The maximum number of entries on the page. Without it, a page has 50 entries as JSON, and as CSV all that
    /// follow.
    #[serde(default, deserialize_with = "PageLimit::optional_from_text")]
    #[param(value_type = Option<i64>, minimum = 1, maximum = 1000)]
    limit: Option<PageLimit>,
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
/// Entries are sorted newest first. As CSV, the answer has a line for each entry, of all pages unless `limit` is given.
#[utoipa::path(get, path = "/api/credits/teams/{team_id}/transactions", tag = "Credits",
    params(("team_id" = TeamId, Path), Selection),
    responses((status = 200, content((Transactions = "application/json"), (String = "text/csv")))))]
pub async fn list(VisibleTeam(team_id): VisibleTeam, Query(selection): Query<Selection>) -> Result<Response> {
    if selection.cursor.is_some() && selection.offset.is_some() {
        return Err(Error::invalid("cursor", "given beside offset; expected one of them"));
    }
    if selection.format == Format::Csv {
        return table(team_id, selection).await;
    }
    let function = function!(list_transactions(
        p_team_id: team_id,
        p_limit: selection.limit.unwrap_or(default_limit()),
        p_offset: selection.offset.map_or(0, PageOffset::get),
        p_before: selection.cursor,
    ));
    let page: Transactions = function.run().await?;
    Ok(Json(page).into_response())
}

/// How many entries of a table are read at once. Each may have a reason and metadata of some ten thousand bytes.
const TABLE_PAGE: PageLimit = PageLimit::new(200);

async fn table(team_id: TeamId, selection: Selection) -> Result<Response> {
    let Selection { limit, offset, cursor, .. } = selection;
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
    let read = move |next: Option<i64>| {
        let function = function!(list_transactions(
            p_team_id: &team_id,
            p_limit: limit.unwrap_or(TABLE_PAGE),
            p_offset: offset.filter(|_| next.is_none()).map_or(0, PageOffset::get),
            p_before: next.or(cursor.map(PageCursor::get)),
        ));
        async move {
            let page: Transactions = function.repeatable().run().await?;
            let next = page.next_cursor.filter(|_| limit.is_none());
            Ok(csv::Page { rows: page.transactions.iter().map(cells).collect(), next })
        }
    };
    csv::answer(columns, read).await
}

fn cells(entry: &Transaction) -> [String; 10] {
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
}
