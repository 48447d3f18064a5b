//! The usage of teams and organizations.

use crate::period::{Asked, Period};
use axum::{
    Json,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use shared::{
    error::Result,
    function,
    http::{Caller, Format, PathOf, Query, VisibleTeam, csv},
    store::parameters::Day,
    values::{OrganizationId, TeamId, Usd},
};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// The sums over a period.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Summary {
    /// The number of jobs that were created.
    total_jobs: i64,
    /// The number of jobs that completed.
    successful_jobs: i64,
    /// The number of jobs that failed.
    failed_jobs: i64,
    /// The number of jobs that were cancelled.
    cancelled_jobs: i64,
    /// The number of jobs that expired.
    expired_jobs: i64,
    /// The number of jobs that were charged.
    charged_jobs: i64,
    /// The number of jobs that ended without a charge though a call of theirs delivered output.
    free_jobs_with_output: i64,
    /// The number of calls that ended.
    total_calls: i64,
    /// The number of calls that were refused because of what the caller sent or had used up.
    refused_calls: i64,
    /// The number of calls that ended less those whose cost became known.
    unpriced_calls: i64,
    /// The tokens of all prompts and answers.
    #[schema(value_type = i64)]
    total_tokens: Box<RawValue>,
    /// The known cost of the calls in US dollars; `null`: the team may not see it.
    total_cost_usd: Option<Usd>,
    /// The number of credits that were deducted for jobs, less those that were refunded.
    credits_used: i64,
    /// The cost of the calls by the number of jobs that were created, in US dollars, rounded to ten decimals; `null`:
    /// the team may not see it.
    avg_cost_per_job: Option<Usd>,
}

/// The sums over the jobs of one type.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct JobType {
    /// The number of jobs.
    count: i64,
    /// The known cost of their calls in US dollars; `null`: the team may not see it.
    cost_usd: Option<Usd>,
}

/// The sums over the calls that a model answered, or that failed with it as the last model tried.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct ModelUse {
    /// The number of calls.
    requests: i64,
    /// Their known cost in US dollars.
    cost: Usd,
}

/// The usage in a period. Everything counts on the day (UTC) on which it happened: jobs where they were created, ended
/// and charged, calls where they ended, tokens and cost where they became known. Only the admin sees `total_spend` and
/// the fields that follow it.
#[serde_with::skip_serializing_none]
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(as = PeriodUsage)]
pub struct Usage {
    /// The sums over all jobs.
    summary: Summary,
    /// The sums for each job type.
    job_types: BTreeMap<String, JobType>,
    /// The known cost of the calls in US dollars. Only for the admin.
    #[schema(nullable = false)]
    total_spend: Option<Usd>,
    /// The number of calls. Only for the admin.
    #[schema(nullable = false)]
    request_count: Option<i64>,
    /// The price of the jobs for the customer in US dollars, by the teams' pricing. Only for the admin.
    #[schema(nullable = false)]
    revenue_usd: Option<Usd>,
    /// The revenue less the cost of the calls, in US dollars. Only for the admin.
    #[schema(nullable = false)]
    margin_usd: Option<Usd>,
    /// The sums for each model. Only for the admin.
    #[schema(nullable = false)]
    models_used: Option<BTreeMap<String, ModelUse>>,
}

/// The usage of a team.
#[derive(Serialize, ToSchema)]
pub struct TeamUsage {
    /// The team.
    team_id: TeamId,
    /// The period: `2025-10`, `2025-10-13`, or `2025-10-01/2025-10-31`.
    period: String,
    #[serde(flatten)]
    usage: Usage,
    /// The rest of the team's budget in LiteLLM in US dollars, after the cost of all calls ever made; `null`: the team
    /// has no budget, or one that LiteLLM resets. Only for the admin.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Usd>, required = false)]
    remaining_budget: Option<Option<Usd>>,
}

/// The usage of an organization, in total and for each team.
#[derive(Serialize, ToSchema)]
pub struct OrganizationUsage {
    /// The organization.
    organization_id: OrganizationId,
    /// The period: `2025-10`, `2025-10-13`, or `2025-10-01/2025-10-31`.
    period: String,
    #[serde(flatten)]
    usage: Usage,
    /// The usage of each team, by its id.
    teams: BTreeMap<String, Usage>,
}

/// Read a team's usage
///
/// What happened in the period. Only the admin sees what the team's usage cost and
/// earned.
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
    let sees_costs = caller.sees_costs().await?;
    let period = asked.period()?;
    if asked.format == Format::Csv {
        return table(None, Some(team_id), period, seller, sees_costs).await;
    }
    let function = function!(team_usage(
        p_actor: caller.reader(),
        p_team_id: &team_id,
        p_from: period.from(),
        p_to: period.to(),
    ));
    let Answer { mut usage, remaining_budget } = function.run().await?;
    if !sees_costs {
        usage.hide_costs();
    }
    let remaining_budget = seller.then_some(remaining_budget);
    Ok(Json(TeamUsage { team_id, period: period.name, usage, remaining_budget }).into_response())
}

/// Read an organization's usage
///
/// What happened in the organization's teams in the period, including teams that have been deleted.
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
        return table(Some(id), None, period, true, true).await;
    }
    let function =
        function!(organization_usage(p_organization_id: &id, p_from: period.from(), p_to: period.to()));
    let Answer { usage, teams } = function.run().await?;
    Ok(Json(OrganizationUsage { organization_id: id, period: period.name, usage, teams }).into_response())
}

impl Usage {
    fn hide_costs(&mut self) {
        self.summary.total_cost_usd = None;
        self.summary.avg_cost_per_job = None;
        self.job_types.values_mut().for_each(|job_type| job_type.cost_usd = None);
    }
}

/// The columns of the table.
const COLUMNS: [&str; 14] = [
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
    "charged_jobs",
    "free_jobs_with_output",
    "refused_calls",
];

/// A row of the table.
#[derive(Deserialize)]
struct Row {
    day: String,
    team_id: TeamId,
    job_type: String,
    jobs: i64,
    successful_jobs: i64,
    failed_jobs: i64,
    charged_jobs: i64,
    free_jobs_with_output: i64,
    credits_used: i64,
    calls: i64,
    refused_calls: i64,
    tokens: Box<RawValue>,
    cost_usd: Usd,
    revenue_usd: Usd,
}

/// How many rows of the table are read at once.
const TABLE_PAGE: usize = 1000;

/// The usage as a table with a line for each team, day and job type. Only the admin (`seller`) sees the revenue.
async fn table(
    organization_id: Option<OrganizationId>,
    team_id: Option<TeamId>,
    period: Period,
    seller: bool,
    sees_costs: bool,
) -> Result<Response> {
    let read = move |after: Option<Row>| {
        let function = function!(usage_rows(
            p_organization_id: organization_id.as_ref(),
            p_team_id: team_id.as_ref(),
            p_from: period.from(),
            p_to: period.to(),
            p_limit: TABLE_PAGE as i64,
            p_after_team: after.as_ref().map(|row| &row.team_id),
            p_after_day: after.as_ref().map(|row| Day(row.day.clone())),
            p_after_job_type: after.as_ref().map(|row| &row.job_type),
        ));
        async move {
            let mut rows: Vec<Row> = function.repeatable().run().await?;
            let cells = rows.iter().map(|row| row.cells(seller, sees_costs)).collect();
            let next = if rows.len() == TABLE_PAGE { rows.pop() } else { None };
            Ok(csv::Page { rows: cells, next })
        }
    };
    csv::answer(COLUMNS, read).await
}

impl Row {
    fn cells(&self, seller: bool, sees_costs: bool) -> [String; COLUMNS.len()] {
        let shown = |amount: Usd, visible: bool| if visible { amount.to_string() } else { String::new() };
        [
            self.day.clone(),
            csv::text(self.team_id.as_str()),
            csv::text(&self.job_type),
            self.jobs.to_string(),
            self.successful_jobs.to_string(),
            self.failed_jobs.to_string(),
            self.credits_used.to_string(),
            self.calls.to_string(),
            self.tokens.to_string(),
            shown(self.cost_usd, sees_costs),
            shown(self.revenue_usd, seller),
            self.charged_jobs.to_string(),
            self.free_jobs_with_output.to_string(),
            self.refused_calls.to_string(),
        ]
    }
}
