//! Teams: who has credits, keys and model groups.
//!
//! A change of a team holds here at once, and LiteLLM is told then. If it can't be told, the answer is 503, and the same request again
//! tells it; so does the team's next call, before it is made.

mod create;
mod values;

pub use create::{__path_create, create};

use axum::Json;
use serde::{Deserialize, Serialize};
use shared::{
    alerts,
    api::PathSlug,
    auth::{self, Principal},
    change,
    change::{Change, Statement},
    database::{self, text, texts},
    error::{Error, Result},
    input::{Body, Credits, ListBody, Metadata, Name, NoFields, Page, Query, Slug, given},
    litellm::admin,
    money::Usd,
    team::{Changed, Team, tell_litellm, told},
};
use spin_sdk::pg::ParameterValue;
use utoipa::ToSchema;
use uuid::Uuid;
use values::{BillingMode, Budget, BudgetDuration, BudgetMode, Limit, Pricing, Rate, WebhookUrl};

/// A page of the teams, by id.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Teams {
    total: i64,
    teams: Vec<Team>,
}

/// List teams
#[utoipa::path(get, path = "/api/teams", tag = "Teams", params(Page), responses((status = 200, body = Teams)))]
pub async fn list(Query(page): Query<Page>) -> Result<Json<Teams>> {
    database::call("SELECT list_teams($1, $2)::text AS answer", page.parameters()).await.map(Json)
}

/// Read a team
#[utoipa::path(get, path = "/api/teams/{team_id}", tag = "Teams", params(("team_id" = Slug, Path)),
    responses((status = 200, body = Team)))]
pub async fn get(principal: Principal, PathSlug(team_id): PathSlug) -> Result<Json<Team>> {
    principal.may_see(team_id.as_str())?;
    database::call("SELECT get_team($1)::text AS answer", vec![text(team_id)]).await.map(Json)
}

/// What changes. What is left out stays as it is; `null` takes a limit away.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"rpm_limit": 100, "budget_mode": "soft", "credit_limit": 50}))]
pub struct UpdateTeam {
    #[serde(skip_serializing_if = "Option::is_none")]
    team_alias: Option<Name>,
    #[serde(skip_serializing_if = "Option::is_none")]
    budget_mode: Option<BudgetMode>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Credits>)]
    credit_limit: Option<Option<Credits>>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<BudgetDuration>)]
    budget_duration: Option<Option<BudgetDuration>>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Budget>)]
    max_budget: Option<Option<Budget>>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Limit>)]
    rpm_limit: Option<Option<Limit>>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Limit>)]
    tpm_limit: Option<Option<Limit>>,
    /// One of the team's model groups, for calls that name none.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Slug>)]
    default_model_group: Option<Option<Slug>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    billing_mode: Option<BillingMode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credits_per_dollar: Option<Rate>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens_per_credit: Option<Limit>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Pricing>)]
    pricing: Option<Option<Pricing>>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<WebhookUrl>)]
    webhook_url: Option<Option<WebhookUrl>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Metadata>,
}

/// Change a team
///
/// How jobs are billed and priced changes for jobs that are created from then on.
#[utoipa::path(put, path = "/api/teams/{team_id}", tag = "Teams", params(("team_id" = Slug, Path)),
    request_body = UpdateTeam, responses((status = 200, body = Team)))]
pub async fn update(
    change: Change,
    PathSlug(team_id): PathSlug,
    Body(fields): Body<UpdateTeam>,
) -> Result<Json<Team>> {
    let fields = serde_json::to_string(&fields).map_err(Error::internal)?;
    changed(&change, change!("update_team($2, $3::text::json)"), vec![text(team_id), text(fields)]).await
}

/// Replace a team's model groups
///
/// The body is the bare list. The team's keys stay the same, and their models follow at once.
#[utoipa::path(put, path = "/api/teams/{team_id}/model-groups", tag = "Teams", params(("team_id" = Slug, Path)),
    request_body(content = Vec<Slug>, example = json!(["ChatAgent"])), responses((status = 200, body = Team)))]
pub async fn set_model_groups(
    change: Change,
    PathSlug(team_id): PathSlug,
    ListBody(names): ListBody<Slug>,
) -> Result<Json<Team>> {
    changed(&change, change!("set_team_model_groups($2, $3)"), vec![text(team_id), texts(&names)]).await
}

/// Replace a team's access groups
///
/// The body is the bare list. The team's keys stay the same, and their models follow at once.
#[utoipa::path(put, path = "/api/teams/{team_id}/access-groups", tag = "Teams", params(("team_id" = Slug, Path)),
    request_body(content = Vec<Slug>, example = json!(["basic-chat"])), responses((status = 200, body = Team)))]
pub async fn set_access_groups(
    change: Change,
    PathSlug(team_id): PathSlug,
    ListBody(names): ListBody<Slug>,
) -> Result<Json<Team>> {
    changed(&change, change!("set_team_access_groups($2, $3)"), vec![text(team_id), texts(&names)]).await
}

/// Suspend a team
///
/// Its keys are refused at once, here and in LiteLLM.
#[utoipa::path(put, path = "/api/teams/{team_id}/suspend", tag = "Teams", params(("team_id" = Slug, Path)),
    responses((status = 200, body = Team)))]
pub async fn suspend(
    change: Change,
    PathSlug(team_id): PathSlug,
    Body(NoFields {}): Body<NoFields>,
) -> Result<Json<Team>> {
    let team = changed(&change, change!("set_team_status($2, 'suspended')"), vec![text(team_id)]).await;
    alerts::deliver();
    team
}

/// Resume a team
///
/// Its keys work again.
#[utoipa::path(put, path = "/api/teams/{team_id}/resume", tag = "Teams", params(("team_id" = Slug, Path)),
    responses((status = 200, body = Team)))]
pub async fn resume(
    change: Change,
    PathSlug(team_id): PathSlug,
    Body(NoFields {}): Body<NoFields>,
) -> Result<Json<Team>> {
    changed(&change, change!("set_team_status($2, 'active')"), vec![text(team_id)]).await
}

async fn changed(
    change: &Change,
    statement: Statement,
    parameters: Vec<ParameterValue>,
) -> Result<Json<Team>> {
    let Changed { team, litellm } = change.run(statement, parameters).await?;
    tell_litellm(change, litellm).await?;
    Ok(Json(team))
}

/// A team that is gone.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct DeletedTeam {
    team_id: String,
    deleted: bool,
}

/// Delete a team
///
/// Its keys stop at once, here and in LiteLLM, and its open jobs are cancelled. Its ledger and its usage stay, and its id stays taken.
/// If LiteLLM can't be told, the answer is 503, and the same request again goes on from there.
#[utoipa::path(delete, path = "/api/teams/{team_id}", tag = "Teams", params(("team_id" = Slug, Path)),
    responses((status = 200, body = DeletedTeam)))]
pub async fn delete(change: Change, PathSlug(team_id): PathSlug) -> Result<Json<DeletedTeam>> {
    #[derive(Deserialize)]
    struct Gone {
        marker: Uuid,
        key_hashes: Vec<String>,
        version: i64,
    }
    let Gone { marker, key_hashes, version } =
        change.run(change!("delete_team($2)"), vec![text(&team_id)]).await?;
    auth::forget(&key_hashes).await;
    database::call::<i64>("SELECT cancel_open_jobs($1)::text AS answer", vec![text(&team_id)]).await?;
    admin::delete_team(team_id.as_str(), marker).await?;
    told(team_id.as_str(), version, &key_hashes).await?;
    Ok(Json(DeletedTeam { team_id: team_id.to_string(), deleted: true }))
}

/// What a team has in LiteLLM for its credits. One that may go below zero without end has no budget there.
fn budget(rate: Usd, credits: Credits, mode: BudgetMode, limit: Option<Credits>) -> Result<Option<Usd>> {
    let credits = match (mode, limit) {
        (BudgetMode::Hard, _) => credits.0,
        (BudgetMode::Soft, Some(limit)) => credits.0.saturating_add(limit.0),
        (BudgetMode::Soft, None) => return Ok(None),
    };
    let budget =
        rate.0.checked_mul(credits.into()).ok_or_else(|| Error::invalid("credits_allocated", "too many"))?;
    Ok(Some(Usd(budget)))
}
