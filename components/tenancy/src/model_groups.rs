//! Model groups: what teams see in place of models.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use shared::{
    api::PathSlug,
    auth::Principal,
    call::{MAX_MODELS, check_config},
    database::{self, optional_text, text},
    error::{Error, Result},
    input::{Body, Label, Metadata, Name, Object, Page, Prose, Query, Slug},
};
use spin_sdk::pg::ParameterValue;
use std::collections::{BTreeMap, BTreeSet};

/// What a model group is made of.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateModelGroup {
    group_name: Slug,
    display_name: Option<Name>,
    description: Option<Prose>,
    models: Vec<Object<GroupModel>>,
    #[serde(default)]
    metadata: Metadata,
}

/// A model's place in a group.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupModel {
    /// Its name in LiteLLM.
    pub model_name: Label,
    /// 0 is tried first.
    pub priority: u16,
    /// Default call parameters for it, and `timeout_ms`.
    #[serde(default)]
    pub config: BTreeMap<String, Box<RawValue>>,
}

/// A model group as the admin sees it.
#[derive(Serialize, Deserialize)]
pub struct ModelGroup {
    model_group_id: String,
    group_name: String,
    display_name: String,
    description: Option<String>,
    status: String,
    models: Vec<GroupModel>,
    metadata: Box<RawValue>,
    created_at: String,
    updated_at: String,
}

/// All model groups, by name.
#[derive(Serialize, Deserialize)]
pub struct ModelGroups {
    total: i64,
    model_groups: Vec<ModelGroup>,
}

/// A model group as a team sees it: without models.
#[derive(Serialize, Deserialize)]
pub struct TeamModelGroup {
    group_name: String,
    display_name: String,
    description: Option<String>,
    status: String,
}

/// The model groups that a team may use, best first.
#[derive(Serialize, Deserialize)]
pub struct TeamModelGroups {
    total: i64,
    model_groups: Vec<TeamModelGroup>,
}

/// What a call of a team to a group would use.
#[derive(Serialize, Deserialize)]
pub struct Resolution {
    group_name: String,
    primary_model: Option<String>,
    fallback_models: Vec<String>,
    team_has_access: bool,
}

/// Whose call it would be.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResolveFor {
    team_id: Option<Slug>,
}

/// The models of a group in the form that `create_model_group` takes, once they are valid together.
pub fn checked(models: &[GroupModel]) -> Result<String> {
    if models.is_empty() || models.len() > MAX_MODELS {
        return Err(Error::invalid("models", format!("expected 1 to {MAX_MODELS} models")));
    }
    let priorities: BTreeSet<u16> = models.iter().map(|model| model.priority).collect();
    if priorities.len() != models.len() {
        return Err(Error::invalid("models", "expected a different priority for each model, 0 first"));
    }
    for (index, model) in models.iter().enumerate() {
        check_config(&model.config)
            .map_err(|error| Error { detail: format!("models[{index}].config.{}", error.detail), ..error })?;
    }
    serde_json::to_string(models).map_err(Error::internal)
}

/// `POST /api/model-groups/create`
pub async fn create(Body(new): Body<CreateModelGroup>) -> Result<Json<ModelGroup>> {
    let models: Vec<GroupModel> = new.models.into_iter().map(|Object(model)| model).collect();
    let parameters = vec![
        text(&new.group_name),
        text(new.display_name.as_ref().map_or(new.group_name.as_str(), Name::as_str)),
        optional_text(new.description),
        text(checked(&models)?),
        text(new.metadata),
    ];
    database::call(
        "SELECT create_model_group($1, $2, $3, $4::text::json, $5::text::json)::text AS answer",
        parameters,
    )
    .await
    .map(Json)
}

/// `GET /api/model-groups`: all for the admin, for a team those that it may use.
pub async fn list(principal: Principal, Query(page): Query<Page>) -> Result<Response> {
    let (limit, offset) = (ParameterValue::Int64(page.limit), ParameterValue::Int64(page.offset));
    if let Some(team_id) = principal.team_id() {
        let statement = "SELECT list_team_model_groups($1, $2, $3)::text AS answer";
        let groups: TeamModelGroups = database::call(statement, vec![text(team_id), limit, offset]).await?;
        return Ok(Json(groups).into_response());
    }
    let groups: ModelGroups =
        database::call("SELECT list_model_groups($1, $2)::text AS answer", vec![limit, offset]).await?;
    Ok(Json(groups).into_response())
}

/// `GET /api/model-groups/{group_name}`: a team sees only those that it may use.
pub async fn get(principal: Principal, PathSlug(name): PathSlug) -> Result<Response> {
    if let Some(team_id) = principal.team_id() {
        let statement = "SELECT get_team_model_group($1, $2)::text AS answer";
        let group: TeamModelGroup = database::call(statement, vec![text(team_id), text(name)]).await?;
        return Ok(Json(group).into_response());
    }
    let group: ModelGroup =
        database::call("SELECT get_model_group($1)::text AS answer", vec![text(name)]).await?;
    Ok(Json(group).into_response())
}

/// `GET /api/model-groups/{group_name}/resolve?team_id=…`: a team need not say which it is.
pub async fn resolve(
    principal: Principal,
    PathSlug(name): PathSlug,
    Query(asked): Query<ResolveFor>,
) -> Result<Json<Resolution>> {
    let asked = asked.team_id.as_ref().map(Slug::as_str);
    let team_id = asked.or(principal.team_id()).ok_or_else(|| Error::invalid("team_id", "required"))?;
    principal.may_see(team_id)?;
    database::call("SELECT resolve_model_group($1, $2)::text AS answer", vec![text(name), text(team_id)])
        .await
        .map(Json)
}
