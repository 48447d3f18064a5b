//! Model groups: what teams see in place of models.

use axum::Json;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use shared::{
    api::PathSlug,
    auth::Principal,
    call::{MAX_MODELS, check_config},
    change,
    change::Change,
    database::{self, optional_text, text},
    error::{Error, Result},
    input::{Body, Label, ListBody, Metadata, Name, Object, Page, Prose, Query, Slug, given, integer},
    litellm::admin::{self, Wanted},
    team::tell_litellm_of_all,
};
use std::collections::{BTreeMap, BTreeSet};
use utoipa::{IntoParams, ToSchema};

/// What a model group is made of.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"group_name": "ChatAgent", "models": [
    {"model_name": "gpt-4o-mini", "priority": 0}, {"model_name": "gpt-4o", "priority": 1}]}))]
pub struct CreateModelGroup {
    group_name: Slug,
    display_name: Option<Name>,
    description: Option<Prose>,
    /// 1 to 16, each with another priority.
    #[schema(value_type = Vec<GroupModel>, min_items = 1, max_items = 16)]
    models: Vec<Object<GroupModel>>,
    #[serde(default)]
    metadata: Metadata,
}

/// A model's place in a group.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupModel {
    /// Its name in LiteLLM.
    #[schema(example = "gpt-4o")]
    pub model_name: Label,
    /// 0 is tried first.
    #[serde(deserialize_with = "priority")]
    #[schema(maximum = 65535)]
    pub priority: u16,
    /// Default call parameters for it, and `timeout_ms`.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, Object>, example = json!({"temperature": 0.2, "timeout_ms": 30000}))]
    pub config: BTreeMap<String, Box<RawValue>>,
}

fn priority<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    integer(deserializer, 0, u16::MAX.into()).map(|priority| u16::try_from(priority).unwrap_or_default())
}

/// A model group as the admin sees it.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct ModelGroup {
    model_group_id: String,
    group_name: String,
    display_name: String,
    description: Option<String>,
    status: String,
    models: Vec<GroupModel>,
    #[schema(value_type = Object)]
    metadata: Box<RawValue>,
    created_at: String,
    updated_at: String,
}

/// A model group that was just made or changed.
#[derive(Serialize, ToSchema)]
pub struct SavedModelGroup {
    #[serde(flatten)]
    group: ModelGroup,
    /// Models that LiteLLM does not know, and teams that it could not be told of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    warnings: Vec<String>,
}

/// A page of the model groups, by name.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct ModelGroups {
    total: i64,
    model_groups: Vec<ModelGroup>,
}

/// A model group as a team sees it: without models.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct TeamModelGroup {
    group_name: String,
    display_name: String,
    description: Option<String>,
    status: String,
}

/// The model groups that a team may use, best first.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct TeamModelGroups {
    total: i64,
    model_groups: Vec<TeamModelGroup>,
}

/// All groups for the admin; for a team those that it may use.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub enum VisibleModelGroups {
    /// What the admin sees.
    Admin(ModelGroups),
    /// What a team sees.
    Team(TeamModelGroups),
}

/// A group as the admin or a team sees it.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub enum VisibleModelGroup {
    /// What the admin sees.
    Admin(ModelGroup),
    /// What a team sees.
    Team(TeamModelGroup),
}

/// What a call of a team to a group would use.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Resolution {
    group_name: String,
    primary_model: Option<String>,
    fallback_models: Vec<String>,
    team_has_access: bool,
}

/// Whose call it would be.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ResolveFor {
    /// A team need not say which it is.
    team_id: Option<Slug>,
}

/// Refuses models that are not valid together.
pub fn check(models: &[Object<GroupModel>]) -> Result<()> {
    if models.is_empty() || models.len() > MAX_MODELS {
        return Err(Error::invalid("models", format!("expected 1 to {MAX_MODELS} models")));
    }
    let priorities: BTreeSet<u16> = models.iter().map(|Object(model)| model.priority).collect();
    if priorities.len() != models.len() {
        return Err(Error::invalid("models", "expected a different priority for each model, 0 first"));
    }
    for (index, Object(model)) in models.iter().enumerate() {
        check_config(&model.config).map_err(|mut error| {
            error.detail = format!("models[{index}].config.{}", error.detail);
            error
        })?;
    }
    Ok(())
}

/// Warnings about models that LiteLLM does not know: calls would fall back from them.
pub async fn unknown_models(models: impl IntoIterator<Item = &str>) -> Vec<String> {
    match admin::known_models().await {
        Err(_) => vec!["LiteLLM could not be asked whether it knows the models".into()],
        Ok(known) => models
            .into_iter()
            .filter(|model| !known.contains(*model))
            .map(|model| format!("LiteLLM does not know the model '{model}'"))
            .collect(),
    }
}

/// Create a model group
#[utoipa::path(post, path = "/api/model-groups/create", tag = "Model groups", request_body = CreateModelGroup,
    responses((status = 200, body = SavedModelGroup), (status = 409, description = "`already_exists`")))]
pub async fn create(change: Change, Body(new): Body<CreateModelGroup>) -> Result<Json<SavedModelGroup>> {
    check(&new.models)?;
    let parameters = vec![
        text(&new.group_name),
        text(new.display_name.as_ref().map_or(new.group_name.as_str(), Name::as_str)),
        optional_text(new.description),
        text(serde_json::to_string(&new.models).map_err(Error::internal)?),
        text(new.metadata),
    ];
    let group: ModelGroup = change
        .run(change!("create_model_group($2, $3, $4, $5::text::json, $6::text::json)"), parameters)
        .await?;
    let warnings = unknown_models(group.models.iter().map(|model| model.model_name.as_str())).await;
    Ok(Json(SavedModelGroup { group, warnings }))
}

/// List model groups
///
/// All for the admin; for a team those that it may use, without their models.
#[utoipa::path(get, path = "/api/model-groups", tag = "Model groups", params(Page),
    responses((status = 200, body = VisibleModelGroups)))]
pub async fn list(principal: Principal, Query(page): Query<Page>) -> Result<Json<VisibleModelGroups>> {
    let mut parameters = page.parameters();
    let groups = match principal.team_id() {
        None => VisibleModelGroups::Admin(
            database::call("SELECT list_model_groups($1, $2)::text AS answer", parameters).await?,
        ),
        Some(team_id) => {
            parameters.insert(0, text(team_id));
            let statement = "SELECT list_team_model_groups($1, $2, $3)::text AS answer";
            VisibleModelGroups::Team(database::call(statement, parameters).await?)
        }
    };
    Ok(Json(groups))
}

/// Read a model group
///
/// A team sees only those that it may use, without their models.
#[utoipa::path(get, path = "/api/model-groups/{group_name}", tag = "Model groups", params(("group_name" = Slug, Path)),
    responses((status = 200, body = VisibleModelGroup)))]
pub async fn get(principal: Principal, PathSlug(name): PathSlug) -> Result<Json<VisibleModelGroup>> {
    let group = match principal.team_id() {
        None => VisibleModelGroup::Admin(read(&name).await?),
        Some(team_id) => {
            let statement = "SELECT get_team_model_group($1, $2)::text AS answer";
            VisibleModelGroup::Team(database::call(statement, vec![text(team_id), text(name)]).await?)
        }
    };
    Ok(Json(group))
}

async fn read(name: &Slug) -> Result<ModelGroup> {
    database::call("SELECT get_model_group($1)::text AS answer", vec![text(name)]).await
}

/// What changes. What is left out stays as it is.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"display_name": "Chat agent"}))]
pub struct UpdateModelGroup {
    #[serde(skip_serializing_if = "Option::is_none")]
    display_name: Option<Name>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Prose>)]
    description: Option<Option<Prose>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Metadata>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<GroupModel>>, min_items = 1, max_items = 16)]
    models: Option<Vec<Object<GroupModel>>>,
}

/// What SQL answers to a change.
#[derive(Deserialize)]
struct Changed {
    group: ModelGroup,
    litellm: Vec<Wanted>,
}

/// Change a model group
///
/// Other models reach the keys of all teams that may use the group at once.
#[utoipa::path(put, path = "/api/model-groups/{group_name}", tag = "Model groups", params(("group_name" = Slug, Path)),
    request_body = UpdateModelGroup, responses((status = 200, body = SavedModelGroup)))]
pub async fn update(
    change: Change,
    PathSlug(name): PathSlug,
    Body(fields): Body<UpdateModelGroup>,
) -> Result<Json<SavedModelGroup>> {
    save(&change, name, fields).await.map(Json)
}

/// The models of a group, best first.
#[derive(Serialize, ToSchema)]
pub struct Models {
    group_name: String,
    models: Vec<GroupModel>,
}

/// Read a model group's models
#[utoipa::path(get, path = "/api/model-groups/{group_name}/models", tag = "Model groups",
    params(("group_name" = Slug, Path)), responses((status = 200, body = Models)))]
pub async fn models(PathSlug(name): PathSlug) -> Result<Json<Models>> {
    let group = read(&name).await?;
    Ok(Json(Models { group_name: group.group_name, models: group.models }))
}

/// Replace a model group's models
///
/// The body is the bare list: 1 to 16, each with another priority. They reach the keys of all teams that may use the group at once.
#[utoipa::path(put, path = "/api/model-groups/{group_name}/models", tag = "Model groups",
    params(("group_name" = Slug, Path)),
    request_body(content = Vec<GroupModel>, example = json!([{"model_name": "gpt-4o", "priority": 0}])), responses((status = 200, body = SavedModelGroup)))]
pub async fn set_models(
    change: Change,
    PathSlug(name): PathSlug,
    ListBody(models): ListBody<Object<GroupModel>>,
) -> Result<Json<SavedModelGroup>> {
    let fields =
        UpdateModelGroup { display_name: None, description: None, metadata: None, models: Some(models) };
    save(&change, name, fields).await.map(Json)
}

/// Changes a group. Here that holds at once; LiteLLM is told of every team that it concerns, at the latest with the team's next call.
async fn save(change: &Change, name: Slug, fields: UpdateModelGroup) -> Result<SavedModelGroup> {
    fields.models.as_deref().map(check).transpose()?;
    let fields = serde_json::to_string(&fields).map_err(Error::internal)?;
    let Changed { group, litellm } =
        change.run(change!("update_model_group($2, $3::text::json)"), vec![text(name), text(fields)]).await?;
    let mut warnings = unknown_models(group.models.iter().map(|model| model.model_name.as_str())).await;
    warnings.extend(tell_litellm_of_all(change, litellm).await);
    Ok(SavedModelGroup { group, warnings })
}

/// A group that is gone.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct DeletedGroup {
    group_name: String,
    deleted: bool,
}

/// Delete a model group
///
/// Only one that is assigned to no team and in no access group.
#[utoipa::path(delete, path = "/api/model-groups/{group_name}", tag = "Model groups",
    params(("group_name" = Slug, Path)),
    responses((status = 200, body = DeletedGroup), (status = 409, description = "`in_use`")))]
pub async fn delete(change: Change, PathSlug(name): PathSlug) -> Result<Json<DeletedGroup>> {
    change.run(change!("delete_model_group($2)"), vec![text(name)]).await.map(Json)
}

/// Resolve a model group
///
/// What a team's call to the group would use. To a team without access no model is shown.
#[utoipa::path(get, path = "/api/model-groups/{group_name}/resolve", tag = "Model groups",
    params(("group_name" = Slug, Path), ResolveFor), responses((status = 200, body = Resolution)))]
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
