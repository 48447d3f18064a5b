//! What teams and organizations have used.

use crate::period::{Asked, Period};
use axum::{
    Json,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use shared::{
    error::Result,
    function,
    http::{Caller, Format, PathOf, Query, VisibleTeam, csv},
    values::{OrganizationId, TeamId, Usd},
};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// The sums of a period.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Summary {
    total_jobs: i64,
    successful_jobs: i64,
    failed_jobs: i64,
    cancelled_jobs: i64,
    expired_jobs: i64,
    /// Calls that have ended.
    total_calls: i64,
    /// Those whose cost is not known, or not yet.
    unpriced_calls: i64,
    total_tokens: i64,
    /// The sum of what is known.
    total_cost_usd: Usd,
    credits_used: i64,
    /// To ten decimals.
    avg_cost_per_job: Usd,
}

/// The sums over jobs of one type.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct JobType {
    count: i64,
    cost_usd: Usd,
}

/// The sums over calls that one model answered, or was tried last for.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct ModelUse {
    requests: i64,
    cost: Usd,
}

/// What was used. Its last members are the seller's: a team does not see them.
#[serde_with::skip_serializing_none]
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(as = PeriodUsage)]
pub struct Usage {
    summary: Summary,
    job_types: BTreeMap<String, JobType>,
    /// What the models cost in US dollars.
    #[schema(nullable = false)]
    total_spend: Option<Usd>,
    #[schema(nullable = false)]
    request_count: Option<i64>,
    /// What customers were charged in US dollars, by their pricing.
    #[schema(nullable = false)]
    revenue_usd: Option<Usd>,
    /// Revenue without what the models cost, in US dollars.
    #[schema(nullable = false)]
    margin_usd: Option<Usd>,
    #[schema(nullable = false)]
    models_used: Option<BTreeMap<String, ModelUse>>,
}

/// The usage of a team.
#[derive(Serialize, ToSchema)]
pub struct TeamUsage {
    team_id: TeamId,
    period: String,
    #[serde(flatten)]
    usage: Usage,
    /// For the seller: what is left of LiteLLM's budget in US dollars, by all that was ever spent; `null`: it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Usd>, required = false)]
    remaining_budget: Option<Option<Usd>>,
}

/// The usage of an organization: together, and team by team.
#[derive(Serialize, ToSchema)]
pub struct OrganizationUsage {
    organization_id: OrganizationId,
    period: String,
    #[serde(flatten)]
    usage: Usage,
    teams: BTreeMap<String, Usage>,
}

/// Read a team's usage
#[utoipa::path(get, path = "/api/teams/{team_id}/usage", tag = "Reports", params(("team_id" = TeamId, Path), Asked),
    responses((status = 200, content((TeamUsage = "application/json"), (String = "text/csv")))))]
pub async fn team(
    caller: Caller,
    VisibleTeam(team_id): VisibleTeam,
    Query(asked): Query<Asked>,
) -> Result<Response> {
    #[derive(Deserialize)]
    struct Answer {
        usage: Usage,
        remaining_budget: Option<Usd>,
    }
    let seller = matches!(caller, Caller::Admin);
    let period = asked.period()?;
    if asked.format == Format::Csv {
        return table(None, Some(&team_id), &period, seller).await;
    }
    let function = function!(team_usage(
        p_actor: caller.reader(),
        p_team_id: &team_id,
        p_from: period.from(),
        p_to: period.to(),
    ));
    let Answer { usage, remaining_budget } = function.run().await?;
    let remaining_budget = seller.then_some(remaining_budget);
    Ok(Json(TeamUsage { team_id, period: period.name, usage, remaining_budget }).into_response())
}

/// Read an organization's usage
#[utoipa::path(get, path = "/api/organizations/{organization_id}/usage", tag = "Reports",
    params(("organization_id" = OrganizationId, Path), Asked),
    responses((status = 200, content((OrganizationUsage = "application/json"), (String = "text/csv")))))]
pub async fn organization(
    PathOf(id): PathOf<OrganizationId>,
    Query(asked): Query<Asked>,
) -> Result<Response> {
    #[derive(Deserialize)]
    struct Answer {
        usage: Usage,
        teams: BTreeMap<String, Usage>,
    }
    let period = asked.period()?;
    if asked.format == Format::Csv {
        return table(Some(&id), None, &period, true).await;
    }
    let function =
        function!(organization_usage(p_organization_id: &id, p_from: period.from(), p_to: period.to()));
    let Answer { usage, teams } = function.run().await?;
    Ok(Json(OrganizationUsage { organization_id: id, period: period.name, usage, teams }).into_response())
}

/// A line for each day, team and job type. The seller also sees the revenue.
async fn table(
    organization_id: Option<&OrganizationId>,
    team_id: Option<&TeamId>,
    period: &Period,
    seller: bool,
) -> Result<Response> {
    #[derive(Deserialize)]
    struct Row {
        day: String,
        team_id: String,
        job_type: String,
        jobs: i64,
        successful_jobs: i64,
        failed_jobs: i64,
        credits_used: i64,
        calls: i64,
        tokens: i64,
        cost_usd: Usd,
        revenue_usd: Usd,
    }
    let function = function!(usage_rows(
        p_organization_id: organization_id,
        p_team_id: team_id,
        p_from: period.from(),
        p_to: period.to(),
    ));
    let rows: Vec<Row> = function.run().await?;
    let columns = [
        "day",
        "team_id",
        "job_type",
        "jobs",
        "successful_jobs",
        "failed_jobs",
        "credits_used",
        "calls",
        "tokens",
        "cost_usd",
        "revenue_usd",
    ];
    let rows = rows.into_iter().map(|row| {
        [
            row.day,
            csv::text(&row.team_id),
            csv::text(&row.job_type),
            row.jobs.to_string(),
            row.successful_jobs.to_string(),
            row.failed_jobs.to_string(),
            row.credits_used.to_string(),
            row.calls.to_string(),
            row.tokens.to_string(),
            row.cost_usd.to_string(),
            if seller { row.revenue_usd.to_string() } else { String::new() },
        ]
    });
    Ok(([(CONTENT_TYPE, csv::CONTENT_TYPE)], csv::table(columns, rows)?).into_response())
}
