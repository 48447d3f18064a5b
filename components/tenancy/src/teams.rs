//! Teams: who has credits, keys and model groups.

mod create;

pub use create::create;

use axum::Json;
use serde::{Deserialize, Serialize};
use shared::{
    api::PathSlug,
    auth::Principal,
    database::{self, text, texts},
    error::Result,
    input::{Body, ListBody, NoFields, Page, Query, Slug},
    team::{Changed, Team, tell_litellm},
};
use spin_sdk::pg::ParameterValue;

/// All teams, by id.
#[derive(Serialize, Deserialize)]
pub struct Teams {
    total: i64,
    teams: Vec<Team>,
}

/// `GET /api/teams`
pub async fn list(Query(page): Query<Page>) -> Result<Json<Teams>> {
    let parameters = vec![ParameterValue::Int64(page.limit), ParameterValue::Int64(page.offset)];
    database::call("SELECT list_teams($1, $2)::text AS answer", parameters).await.map(Json)
}

/// `GET /api/teams/{team_id}`
pub async fn get(principal: Principal, PathSlug(team_id): PathSlug) -> Result<Json<Team>> {
    principal.may_see(team_id.as_str())?;
    database::call("SELECT get_team($1)::text AS answer", vec![text(team_id)]).await.map(Json)
}

/// `PUT /api/teams/{team_id}/model-groups`: the body is the bare list, which takes the place of the one before.
///
/// Here the change holds at once. If LiteLLM can't be told, the answer is 503 and the same request again tells it.
pub async fn set_model_groups(
    PathSlug(team_id): PathSlug,
    ListBody(names): ListBody<Slug>,
) -> Result<Json<Team>> {
    let parameters = vec![text(team_id), texts(&names)];
    changed("SELECT set_team_model_groups($1, $2)::text AS answer", parameters).await
}

/// `PUT /api/teams/{team_id}/suspend`: its keys are refused here and in LiteLLM. Repeating it tells LiteLLM again.
pub async fn suspend(PathSlug(team_id): PathSlug, Body(NoFields {}): Body<NoFields>) -> Result<Json<Team>> {
    changed("SELECT set_team_status($1, 'suspended')::text AS answer", vec![text(team_id)]).await
}

/// `PUT /api/teams/{team_id}/resume`: its keys work again. Repeating it tells LiteLLM again.
pub async fn resume(PathSlug(team_id): PathSlug, Body(NoFields {}): Body<NoFields>) -> Result<Json<Team>> {
    changed("SELECT set_team_status($1, 'active')::text AS answer", vec![text(team_id)]).await
}

async fn changed(statement: &'static str, parameters: Vec<ParameterValue>) -> Result<Json<Team>> {
    let Changed { team, litellm } = database::call(statement, parameters).await?;
    tell_litellm(litellm).await?;
    Ok(Json(team))
}
