//! `/v1/models`: the model groups that the team may use.

use axum::Json;
use serde::{Deserialize, Serialize};
use shared::{
    error::Result,
    function,
    http::{PathOf, TeamKey, openai::ErrorBody},
    values::GroupName,
};
use utoipa::ToSchema;

/// The models in OpenAI's form.
#[derive(Serialize, ToSchema)]
pub struct ModelList {
    /// Always `list`.
    object: &'static str,
    /// The model groups that the team may use, in the team's order.
    data: Vec<Model>,
}

/// A model group in OpenAI's form.
#[derive(Serialize, ToSchema)]
pub struct Model {
    /// The name of the model group.
    id: GroupName,
    /// Always `model`.
    object: &'static str,
    /// When the model group was created, in seconds since 1970 (UTC).
    created: i64,
    /// Always `organization-owner`.
    owned_by: &'static str,
}

/// A model group as SQL returns it.
#[derive(Deserialize)]
struct Group {
    group_name: GroupName,
    created: i64,
}

impl From<Group> for Model {
    fn from(group: Group) -> Self {
        Self { id: group.group_name, object: "model", created: group.created, owned_by: "organization-owner" }
    }
}

/// List models
///
/// Lists the model groups that the team may use, in the team's order: assigned groups first, then those of its access
/// groups.
#[utoipa::path(get, path = "/v1/models", tag = "OpenAI",
    responses((status = 200, body = ModelList), (status = 401, body = ErrorBody<'static>)))]
pub async fn list(key: TeamKey) -> Result<Json<ModelList>> {
    let groups: Vec<Group> = function!(list_openai_models(p_team_id: key.team_id)).run().await?;
    Ok(Json(ModelList { object: "list", data: groups.into_iter().map(Model::from).collect() }))
}

/// Read a model
#[utoipa::path(get, path = "/v1/models/{group_name}", tag = "OpenAI", params(("group_name" = GroupName, Path)),
    responses((status = 200, body = Model), (status = 401, body = ErrorBody<'static>),
        (status = 404, body = ErrorBody<'static>)))]
pub async fn get(key: TeamKey, PathOf(name): PathOf<GroupName>) -> Result<Json<Model>> {
    let group: Group = function!(get_openai_model(p_team_id: key.team_id, p_group_name: name)).run().await?;
    Ok(Json(group.into()))
}
