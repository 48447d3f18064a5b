//! `/v1/models`: the model groups that the team may use.

use axum::Json;
use serde::{Deserialize, Serialize};
use shared::{
    api::PathSlug,
    auth::TeamKey,
    database::{self, text},
    error::Result,
    input::Slug,
    openai::ErrorBody,
};
use utoipa::ToSchema;

/// The models in OpenAI's form.
#[derive(Serialize, ToSchema)]
pub struct ModelList {
    object: &'static str,
    data: Vec<Model>,
}

/// A model group in OpenAI's form.
#[derive(Serialize, ToSchema)]
pub struct Model {
    id: String,
    object: &'static str,
    created: i64,
    owned_by: &'static str,
}

/// What SQL tells of a group.
#[derive(Deserialize)]
struct Group {
    group_name: String,
    created: i64,
}

impl From<Group> for Model {
    fn from(group: Group) -> Self {
        Self { id: group.group_name, object: "model", created: group.created, owned_by: "organization-owner" }
    }
}

/// List models
///
/// The model groups that the team may use, best first.
#[utoipa::path(get, path = "/v1/models", tag = "OpenAI",
    responses((status = 200, body = ModelList), (status = 401, body = ErrorBody<'static>)))]
pub async fn list(key: TeamKey) -> Result<Json<ModelList>> {
    let groups: Vec<Group> =
        database::call("SELECT list_openai_models($1)::text AS answer", vec![text(key.team_id)]).await?;
    Ok(Json(ModelList { object: "list", data: groups.into_iter().map(Model::from).collect() }))
}

/// Read a model
#[utoipa::path(get, path = "/v1/models/{group_name}", tag = "OpenAI", params(("group_name" = Slug, Path)),
    responses((status = 200, body = Model), (status = 401, body = ErrorBody<'static>),
        (status = 404, body = ErrorBody<'static>)))]
pub async fn get(key: TeamKey, PathSlug(name): PathSlug) -> Result<Json<Model>> {
    let parameters = vec![text(key.team_id), text(name)];
    let group: Group = database::call("SELECT get_openai_model($1, $2)::text AS answer", parameters).await?;
    Ok(Json(group.into()))
}
