//! What teams and organizations have used.

use crate::period::{Asked, Period};
use axum::{
    Json,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use shared::{
    api::PathSlug,
    auth::Principal,
    csv,
    database::{self, optional_text, text},
    error::Result,
    input::{Format, Query, Slug},
    money::Usd,
};
use spin_sdk::pg::ParameterValue;
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

/// What only the seller sees: its members are missing for a team.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Seller {
    #[schema(required = false)]
    total_spend: Usd,
    #[schema(required = false)]
    request_count: i64,
    /// What customers were charged, by their pricing.
    #[schema(required = false)]
    revenue_usd: Usd,
    /// Revenue without what the models cost.
    #[schema(required = false)]
    margin_usd: Usd,
    #[schema(required = false)]
    models_used: BTreeMap<String, ModelUse>,
}

/// The sums over calls that one model answered, or was tried last for.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct ModelUse {
    requests: i64,
    cost: Usd,
}

/// Usage as SQL tells it.
#[derive(Deserialize)]
struct Usage {
    summary: Summary,
    job_types: BTreeMap<String, JobType>,
    seller: Option<Seller>,
}

/// The usage of a team.
#[derive(Serialize, ToSchema)]
pub struct TeamUsage {
    team_id: String,
    period: String,
    summary: Summary,
    job_types: BTreeMap<String, JobType>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    seller: Option<SellerOfTeam>,
}

/// What only the seller sees of a team.
#[derive(Serialize, ToSchema)]
pub struct SellerOfTeam {
    #[serde(flatten)]
    seller: Seller,
    /// Of LiteLLM's budget, by what was spent since ever; `null`: it has none.
    #[schema(required = false)]
    remaining_budget: Option<Usd>,
}

/// The usage of an organization: together, and team by team.
#[derive(Serialize, ToSchema)]
pub struct OrganizationUsage {
    organization_id: String,
    period: String,
    summary: Summary,
    job_types: BTreeMap<String, JobType>,
    #[serde(flatten)]
    seller: Option<Seller>,
    teams: BTreeMap<String, UsageOfTeam>,
}

/// A team's part of its organization's usage.
#[derive(Serialize, ToSchema)]
pub struct UsageOfTeam {
    summary: Summary,
    job_types: BTreeMap<String, JobType>,
    #[serde(flatten)]
    seller: Option<Seller>,
}

/// Read a team's usage
#[utoipa::path(get, path = "/api/teams/{team_id}/usage", tag = "Reports", params(("team_id" = Slug, Path), Asked),
    responses((status = 200, content((TeamUsage = "application/json"), (String = "text/csv")))))]
pub async fn team(
    principal: Principal,
    PathSlug(team_id): PathSlug,
    Query(asked): Query<Asked>,
) -> Result<Response> {
    #[derive(Deserialize)]
    struct Answer {
        usage: Usage,
        remaining_budget: Option<Usd>,
    }
    principal.may_see(team_id.as_str())?;
    let period = asked.period()?;
    if asked.format == Format::Csv {
        return table(None, Some(&team_id), &period, principal.team_id().is_none()).await;
    }
    let [from, until] = period.parameters();
    let parameters =
        vec![text(&team_id), from, until, ParameterValue::Boolean(principal.team_id().is_none())];
    let statement = "SELECT team_usage($1, $2::text::date, $3::text::date, $4)::text AS answer";
    let Answer { usage, remaining_budget } = database::call(statement, parameters).await?;
    let usage = TeamUsage {
        team_id: team_id.to_string(),
        period: period.name,
        summary: usage.summary,
        job_types: usage.job_types,
        seller: usage.seller.map(|seller| SellerOfTeam { seller, remaining_budget }),
    };
    Ok(Json(usage).into_response())
}

/// Read an organization's usage
#[utoipa::path(get, path = "/api/organizations/{organization_id}/usage", tag = "Reports",
    params(("organization_id" = Slug, Path), Asked),
    responses((status = 200, content((OrganizationUsage = "application/json"), (String = "text/csv")))))]
pub async fn organization(PathSlug(id): PathSlug, Query(asked): Query<Asked>) -> Result<Response> {
    #[derive(Deserialize)]
    struct Answer {
        usage: Usage,
        teams: BTreeMap<String, Usage>,
    }
    let period = asked.period()?;
    if asked.format == Format::Csv {
        return table(Some(&id), None, &period, true).await;
    }
    let [from, until] = period.parameters();
    let parameters = vec![text(&id), from, until];
    let statement = "SELECT organization_usage($1, $2::text::date, $3::text::date)::text AS answer";
    let Answer { usage, teams } = database::call(statement, parameters).await?;
    let teams = teams.into_iter().map(|(team_id, usage)| {
        let Usage { summary, job_types, seller } = usage;
        (team_id, UsageOfTeam { summary, job_types, seller })
    });
    let usage = OrganizationUsage {
        organization_id: id.to_string(),
        period: period.name,
        summary: usage.summary,
        job_types: usage.job_types,
        seller: usage.seller,
        teams: teams.collect(),
    };
    Ok(Json(usage).into_response())
}

/// A line for each day, team and job type. The seller also sees the revenue.
async fn table(
    organization_id: Option<&Slug>,
    team_id: Option<&Slug>,
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
    let [from, until] = period.parameters();
    let parameters = vec![optional_text(organization_id), optional_text(team_id), from, until];
    let statement = "SELECT usage_rows($1, $2, $3::text::date, $4::text::date)::text AS answer";
    let rows: Vec<Row> = database::call(statement, parameters).await?;
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
