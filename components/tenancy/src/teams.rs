//! Teams: the holders of credits, keys and model groups.
//!
//! A change of a team takes effect here at once, and LiteLLM is synchronized afterwards. If LiteLLM can't be reached,
//! the answer is 503, and sending the request again synchronizes it; so does the team's next call, before it is made.

mod create;
mod values;

pub use create::{__path_create, create};

use axum::Json;
use serde::{Deserialize, Serialize};
use serde_with::{rust::double_option, skip_serializing_none};
use shared::{
    alerts,
    error::{Error, Result},
    function,
    http::{Body, Caller, ListBody, Mutation, NoFields, Page, PathTeam, Query, VisibleTeam},
    platform::settings,
    store::{Function, parameters::Json as JsonParameter},
    teams::{Changed, Team, deletion::Deletion, sync},
    values::{
        AccessGroupName, BillingMode, BudgetMode, ChargeWhen, CreditCount, GroupName, Limit, Metadata, Name,
        TeamId, TeamStatus, Usd,
    },
};
use utoipa::ToSchema;
use values::{Budget, BudgetDuration, NewLimits, Pricing, Rate, UnpricedRate, WebhookUrl};

/// A page of the teams, sorted by id.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Teams {
    /// The number of teams on all pages.
    total: i64,
    /// The teams of this page.
    teams: Vec<Team>,
}

/// List teams
#[utoipa::path(get, path = "/api/teams", tag = "Teams", params(Page), responses((status = 200, body = Teams)))]
pub async fn list(Query(page): Query<Page>) -> Result<Json<Teams>> {
    function!(list_teams(p_limit: page.limit, p_offset: page.offset)).run().await.map(Json)
}

/// Read a team
#[utoipa::path(get, path = "/api/teams/{team_id}", tag = "Teams", params(("team_id" = TeamId, Path)),
    responses((status = 200, body = Team)))]
pub async fn get(caller: Caller, VisibleTeam(team_id): VisibleTeam) -> Result<Json<Team>> {
    let mut team: Team = function!(get_team(p_team_id: team_id)).run().await?;
    if !caller.sees_models().await? {
        team.allowed_models = None;
    }
    Ok(Json(team))
}

/// The fields to change. Fields that are left out stay as they are; `null` removes a limit.
#[skip_serializing_none]
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"rpm_limit": 100, "budget_mode": "soft", "credit_limit": 50}))]
pub struct UpdateTeam {
    /// The team's name for people.
    team_alias: Option<Name>,
    /// Whether jobs can be created without available credits.
    budget_mode: Option<BudgetMode>,
    /// How many credits below zero the balance of a `soft` team may go; `null`: without limit.
    #[serde(default, with = "double_option")]
    #[schema(value_type = Option<CreditCount>)]
    credit_limit: Option<Option<CreditCount>>,
    /// How often the spending that counts against LiteLLM's budget is reset; `null`: never. Needs `max_budget`.
    #[serde(default, with = "double_option")]
    #[schema(value_type = Option<BudgetDuration>)]
    budget_duration: Option<Option<BudgetDuration>>,
    /// LiteLLM's budget in US dollars; `null`: what the team's credits are worth.
    #[serde(default, with = "double_option")]
    #[schema(value_type = Option<Budget>)]
    max_budget: Option<Option<Budget>>,
    /// Requests per minute; `null`: without limit.
    #[serde(default, with = "double_option")]
    #[schema(value_type = Option<Limit>)]
    rpm_limit: Option<Option<Limit>>,
    /// Tokens per minute; `null`: without limit.
    #[serde(default, with = "double_option")]
    #[schema(value_type = Option<Limit>)]
    tpm_limit: Option<Option<Limit>>,
    /// The model group of calls that name none, one of those that the team may use; `null`: the team's first model
    /// group.
    #[serde(default, with = "double_option")]
    #[schema(value_type = Option<GroupName>)]
    default_model_group: Option<Option<GroupName>>,
    /// How the credits for a job are counted.
    billing_mode: Option<BillingMode>,
    /// Credits for one US dollar of consumption, if `billing_mode` is `consumption_usd`.
    credits_per_dollar: Option<Rate>,
    /// Tokens of consumption for one credit, if `billing_mode` is `consumption_tokens`.
    tokens_per_credit: Option<Limit>,
    /// Credits for 1,000 tokens of calls whose cost is unknown, if `billing_mode` is `consumption_usd`.
    credits_per_1k_tokens_unpriced: Option<UnpricedRate>,
    /// Which jobs are charged.
    charge_when: Option<ChargeWhen>,
    /// The team's own limits, member by member.
    limits: Option<NewLimits>,
    /// Whether the team sees what its calls cost in US dollars; `null`: as the deployment has it.
    #[serde(default, with = "double_option")]
    #[schema(value_type = Option<bool>)]
    costs_visible_to_teams: Option<Option<bool>>,
    /// Whether the team sees the names of models; `null`: as the deployment has it.
    #[serde(default, with = "double_option")]
    #[schema(value_type = Option<bool>)]
    models_visible_to_teams: Option<Option<bool>>,
    /// The customer's price in US dollars, in addition to the credits; `null`: none.
    #[serde(default, with = "double_option")]
    #[schema(value_type = Option<Pricing>)]
    pricing: Option<Option<Pricing>>,
    /// The URL that alerts are sent to; `null`: they are not sent.
    #[serde(default, with = "double_option")]
    #[schema(value_type = Option<WebhookUrl>)]
    webhook_url: Option<Option<WebhookUrl>>,
    /// The admin's own data, which replaces the current metadata.
    metadata: Option<Metadata>,
}

/// Change a team
///
/// A change of billing or pricing applies to jobs that are created afterwards.
#[utoipa::path(put, path = "/api/teams/{team_id}", tag = "Teams", params(("team_id" = TeamId, Path)),
    request_body = UpdateTeam, responses((status = 200, body = Team)))]
pub async fn update(
    mutation: Mutation,
    PathTeam(team_id): PathTeam,
    Body(fields): Body<UpdateTeam>,
) -> Result<Json<Team>> {
    let fields = serde_json::to_string(&fields).map_err(Error::internal)?;
    let function = function!(update_team(
        p_team_id: team_id,
        p_fields: JsonParameter(fields),
        p_usd_per_credit: settings::parsed::<Usd>("usd_per_credit").await?,
    ));
    changed(&mutation, function).await
}

/// Replace a team's model groups
///
/// The body is a JSON list of the names. The team's keys stay the same, and the models that they may use change at
/// once.
#[utoipa::path(put, path = "/api/teams/{team_id}/model-groups", tag = "Teams", params(("team_id" = TeamId, Path)),
    request_body(content = Vec<GroupName>, example = json!(["ChatAgent"])), responses((status = 200, body = Team)))]
pub async fn set_model_groups(
    mutation: Mutation,
    PathTeam(team_id): PathTeam,
    ListBody(names): ListBody<GroupName>,
) -> Result<Json<Team>> {
    changed(&mutation, function!(set_team_model_groups(p_team_id: team_id, p_model_groups: names))).await
}

/// Replace a team's access groups
///
/// The body is a JSON list of the names. The team's keys stay the same, and the models that they may use change at
/// once.
#[utoipa::path(put, path = "/api/teams/{team_id}/access-groups", tag = "Teams", params(("team_id" = TeamId, Path)),
    request_body(content = Vec<AccessGroupName>, example = json!(["basic-chat"])),
    responses((status = 200, body = Team)))]
pub async fn set_access_groups(
    mutation: Mutation,
    PathTeam(team_id): PathTeam,
    ListBody(names): ListBody<AccessGroupName>,
) -> Result<Json<Team>> {
    changed(&mutation, function!(set_team_access_groups(p_team_id: team_id, p_access_groups: names))).await
}

/// Suspend a team
///
/// Its keys are refused at once, here and in LiteLLM. Open jobs stay open.
#[utoipa::path(put, path = "/api/teams/{team_id}/suspend", tag = "Teams", params(("team_id" = TeamId, Path)),
    responses((status = 200, body = Team)))]
pub async fn suspend(
    mutation: Mutation,
    PathTeam(team_id): PathTeam,
    Body(NoFields {}): Body<NoFields>,
) -> Result<Json<Team>> {
    let function = function!(set_team_status(p_team_id: team_id, p_status: TeamStatus::Suspended));
    let team = changed(&mutation, function).await;
    alerts::deliver();
    team
}

/// Resume a team
///
/// Its keys work again.
#[utoipa::path(put, path = "/api/teams/{team_id}/resume", tag = "Teams", params(("team_id" = TeamId, Path)),
    responses((status = 200, body = Team)))]
pub async fn resume(
    mutation: Mutation,
    PathTeam(team_id): PathTeam,
    Body(NoFields {}): Body<NoFields>,
) -> Result<Json<Team>> {
    changed(&mutation, function!(set_team_status(p_team_id: team_id, p_status: TeamStatus::Active))).await
}

async fn changed(mutation: &Mutation, function: Function) -> Result<Json<Team>> {
    let Changed { team, litellm } = mutation.run(function).await?;
    sync::after(mutation, litellm).await?;
    Ok(Json(team))
}

/// A team that was deleted.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct DeletedTeam {
    /// The id of the deleted team.
    team_id: TeamId,
    /// Always true.
    deleted: bool,
}

/// Delete a team
///
/// Its keys stop working, in LiteLLM first, and its open jobs are cancelled. Until all of that is done its status is
/// `deleting`. The admin can still read the team, its ledger, its usage and its jobs, and its id can't be used again.
/// If LiteLLM can't be reached, the answer is 503; sending the request again, or the next upkeep, continues the
/// deletion.
#[utoipa::path(delete, path = "/api/teams/{team_id}", tag = "Teams", params(("team_id" = TeamId, Path)),
    responses((status = 200, body = DeletedTeam)))]
pub async fn delete(mutation: Mutation, PathTeam(team_id): PathTeam) -> Result<Json<DeletedTeam>> {
    let deletion: Deletion = mutation.run(function!(delete_team(p_team_id: &team_id))).await?;
    deletion.finish().await?;
    Ok(Json(DeletedTeam { team_id, deleted: true }))
}
