//! Model groups: named lists of models, which teams use in place of models.

use axum::Json;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_with::{rust::double_option, skip_serializing_none};
use shared::{
    calls::{MAX_MODELS, check_config},
    error::{Error, Result},
    function,
    http::{Body, Caller, ListBody, Mutation, Object, Page, PathOf, Query},
    litellm::admin::{self, DesiredTeam},
    store::parameters::Json as JsonParameter,
    teams::sync,
    values::{GroupName, GroupStatus, Label, Metadata, Name, Prose, TeamId, Whole},
};
use std::collections::{BTreeMap, BTreeSet};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// A model group to create.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"group_name": "ChatAgent", "models": [
    {"model_name": "gpt-4o-mini", "priority": 0}, {"model_name": "gpt-4o", "priority": 1}]}))]
pub struct CreateModelGroup {
    /// The name of the model group, which calls use and which can't be changed later.
    group_name: GroupName,
    /// The name for people; `group_name` unless it is given.
    display_name: Option<Name>,
    /// A description for people.
    description: Option<Prose>,
    /// The models: 1 to 16, each with a different priority.
    #[schema(value_type = Vec<GroupModel>, min_items = 1, max_items = 16)]
    models: Vec<Object<GroupModel>>,
    /// The admin's own data about the model group.
    #[serde(default)]
    metadata: Metadata,
}

/// A model's place in a group.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupModel {
    /// The model's name in LiteLLM.
    #[schema(example = "gpt-4o")]
    pub model_name: Label,
    /// The model's place: 0 to 65,535. Models are tried in ascending order.
    pub priority: Priority,
    /// Default call parameters for the model, and `timeout_ms`: the maximum time that it may take to answer, in
    /// milliseconds.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, Object>, example = json!({"temperature": 0.2, "timeout_ms": 30000}))]
    pub config: BTreeMap<String, Box<RawValue>>,
}

/// A model's place among the models of its group: 0 to 65,535.
pub type Priority = Whole<0, 65_535>;

/// A model group as the admin sees it.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct ModelGroup {
    /// The id of the model group.
    model_group_id: Uuid,
    /// The name of the model group.
    group_name: GroupName,
    /// The name for people.
    display_name: String,
    /// A description for people.
    description: Option<String>,
    /// Always `active`.
    status: GroupStatus,
    /// The models, in the order in which they are tried.
    models: Vec<GroupModel>,
    /// The admin's own data about the model group.
    #[schema(value_type = Object)]
    metadata: Box<RawValue>,
    /// When the model group was created (RFC 3339, UTC).
    created_at: String,
    /// When the model group was last changed (RFC 3339, UTC).
    updated_at: String,
}

/// A model group that was created or changed.
#[derive(Serialize, ToSchema)]
pub struct SavedModelGroup {
    #[serde(flatten)]
    group: ModelGroup,
    /// Models that LiteLLM does not know, and teams that LiteLLM could not be synchronized with yet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    warnings: Vec<String>,
}

/// A page of the model groups, sorted by name.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct ModelGroups {
    /// The number of model groups on all pages.
    total: i64,
    /// The model groups of this page.
    model_groups: Vec<ModelGroup>,
}

/// A model group as a team sees it: without its models.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct TeamModelGroup {
    /// The name of the model group, which calls use.
    group_name: GroupName,
    /// The name for people.
    display_name: String,
    /// A description for people.
    description: Option<String>,
    /// Always `active`.
    status: GroupStatus,
}

/// A page of the model groups that a team may use, in the team's order.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct TeamModelGroups {
    /// The number of model groups on all pages.
    total: i64,
    /// The model groups of this page.
    model_groups: Vec<TeamModelGroup>,
}

/// All model groups for the admin; for a team, those that it may use.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub enum VisibleModelGroups {
    /// The admin's view.
    Admin(ModelGroups),
    /// A team's view.
    Team(TeamModelGroups),
}

/// A model group as the admin or a team sees it.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub enum VisibleModelGroup {
    /// The admin's view.
    Admin(ModelGroup),
    /// A team's view.
    Team(TeamModelGroup),
}

/// The models that a team's call to a model group would use.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Resolution {
    /// The model group.
    group_name: GroupName,
    /// The model that is tried first; `null`: the team may not use the model group, or may not see models.
    primary_model: Option<String>,
    /// The models that are tried after it, in order.
    fallback_models: Vec<String>,
    /// Whether the team may use the model group.
    team_has_access: bool,
}

/// The team whose call it would be.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ResolveFor {
    /// The team. Required for the admin; a team can only ask about itself.
    team_id: Option<TeamId>,
}

/// Refuses lists of models that are empty or too long, repeat a priority, or have invalid parameters.
pub fn check(models: &[Object<GroupModel>]) -> Result<()> {
    if models.is_empty() || models.len() > MAX_MODELS {
        return Err(Error::invalid("models", format!("expected 1 to {MAX_MODELS} models")));
    }
    let priorities: BTreeSet<Priority> = models.iter().map(|Object(model)| model.priority).collect();
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

/// Warnings about models that LiteLLM does not know, for which calls would use the next model.
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
pub async fn create(mutation: Mutation, Body(new): Body<CreateModelGroup>) -> Result<Json<SavedModelGroup>> {
    check(&new.models)?;
    let models = serde_json::to_string(&new.models).map_err(Error::internal)?;
    let function = function!(create_model_group(
        p_group_name: &new.group_name,
        p_display_name: new.display_name.map_or_else(|| new.group_name.to_string(), |name| name.to_string()),
        p_description: new.description,
        p_models: JsonParameter(models),
        p_metadata: new.metadata,
    ));
    let group: ModelGroup = mutation.run(function).await?;
    let warnings = unknown_models(group.models.iter().map(|model| model.model_name.as_str())).await;
    Ok(Json(SavedModelGroup { group, warnings }))
}

/// List model groups
///
/// The admin gets all model groups; a team gets those that it may use, without their models.
#[utoipa::path(get, path = "/api/model-groups", tag = "Model groups", params(Page),
    responses((status = 200, body = VisibleModelGroups)))]
pub async fn list(caller: Caller, Query(page): Query<Page>) -> Result<Json<VisibleModelGroups>> {
    let Page { limit, offset } = page;
    let groups = match caller {
        Caller::Admin => VisibleModelGroups::Admin(
            function!(list_model_groups(p_limit: limit, p_offset: offset)).run().await?,
        ),
        Caller::Team(key) => {
            let function =
                function!(list_team_model_groups(p_team_id: key.team_id, p_limit: limit, p_offset: offset));
            VisibleModelGroups::Team(function.run().await?)
        }
    };
    Ok(Json(groups))
}

/// Read a model group
///
/// A team can read only the model groups that it may use, without their models.
#[utoipa::path(get, path = "/api/model-groups/{group_name}", tag = "Model groups",
    params(("group_name" = GroupName, Path)),
    responses((status = 200, body = VisibleModelGroup)))]
pub async fn get(caller: Caller, PathOf(name): PathOf<GroupName>) -> Result<Json<VisibleModelGroup>> {
    let group = match caller {
        Caller::Admin => VisibleModelGroup::Admin(read(&name).await?),
        Caller::Team(key) => {
            let function = function!(get_team_model_group(p_team_id: key.team_id, p_group_name: name));
            VisibleModelGroup::Team(function.run().await?)
        }
    };
    Ok(Json(group))
}

async fn read(name: &GroupName) -> Result<ModelGroup> {
    function!(get_model_group(p_group_name: name)).run().await
}

/// The fields to change. Fields that are left out stay as they are.
#[skip_serializing_none]
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"display_name": "Chat agent"}))]
pub struct UpdateModelGroup {
    /// The name for people.
    display_name: Option<Name>,
    /// A description for people; `null` removes it.
    #[serde(default, with = "double_option")]
    #[schema(value_type = Option<Prose>)]
    description: Option<Option<Prose>>,
    /// The admin's own data, which replaces the current metadata.
    metadata: Option<Metadata>,
    /// All models: 1 to 16, each with a different priority. They replace the current ones.
    #[schema(value_type = Option<Vec<GroupModel>>, min_items = 1, max_items = 16)]
    models: Option<Vec<Object<GroupModel>>>,
}

/// The answer of `update_model_group`.
#[derive(Deserialize)]
struct Changed {
    group: ModelGroup,
    litellm: Vec<DesiredTeam>,
}

/// Change a model group
///
/// A change of the models applies at once to the keys of all teams that may use the model group.
#[utoipa::path(put, path = "/api/model-groups/{group_name}", tag = "Model groups",
    params(("group_name" = GroupName, Path)),
    request_body = UpdateModelGroup, responses((status = 200, body = SavedModelGroup)))]
pub async fn update(
    mutation: Mutation,
    PathOf(name): PathOf<GroupName>,
    Body(fields): Body<UpdateModelGroup>,
) -> Result<Json<SavedModelGroup>> {
    save(&mutation, name, fields).await.map(Json)
}

/// The models of a model group, in the order in which they are tried.
#[derive(Serialize, ToSchema)]
pub struct Models {
    /// The model group.
    group_name: GroupName,
    /// The models, in the order in which they are tried.
    models: Vec<GroupModel>,
}

/// Read a model group's models
#[utoipa::path(get, path = "/api/model-groups/{group_name}/models", tag = "Model groups",
    params(("group_name" = GroupName, Path)), responses((status = 200, body = Models)))]
pub async fn models(PathOf(name): PathOf<GroupName>) -> Result<Json<Models>> {
    let group = read(&name).await?;
    Ok(Json(Models { group_name: group.group_name, models: group.models }))
}

/// Replace a model group's models
///
/// The body is a JSON list of 1 to 16 models, each with a different priority. The change applies at once to the keys of
/// all teams that may use the model group.
#[utoipa::path(put, path = "/api/model-groups/{group_name}/models", tag = "Model groups",
    params(("group_name" = GroupName, Path)),
    request_body(content = Vec<GroupModel>, example = json!([{"model_name": "gpt-4o", "priority": 0}])),
    responses((status = 200, body = SavedModelGroup)))]
pub async fn set_models(
    mutation: Mutation,
    PathOf(name): PathOf<GroupName>,
    ListBody(models): ListBody<Object<GroupModel>>,
) -> Result<Json<SavedModelGroup>> {
    let fields =
        UpdateModelGroup { display_name: None, description: None, metadata: None, models: Some(models) };
    save(&mutation, name, fields).await.map(Json)
}

/// Changes a model group. The change takes effect here at once; LiteLLM is synchronized for every affected team, at the
/// latest before the team's next call.
async fn save(mutation: &Mutation, name: GroupName, fields: UpdateModelGroup) -> Result<SavedModelGroup> {
    fields.models.as_deref().map(check).transpose()?;
    let fields = serde_json::to_string(&fields).map_err(Error::internal)?;
    let function = function!(update_model_group(p_group_name: name, p_fields: JsonParameter(fields)));
    let Changed { group, litellm } = mutation.run(function).await?;
    let mut warnings = unknown_models(group.models.iter().map(|model| model.model_name.as_str())).await;
    warnings.extend(sync::all_after(mutation, litellm).await);
    Ok(SavedModelGroup { group, warnings })
}

/// A group that was deleted.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct DeletedGroup {
    /// The name of the deleted group.
    group_name: String,
    /// Always true.
    deleted: bool,
}

/// Delete a model group
///
/// Only a model group that is assigned to no team and in no access group can be deleted.
#[utoipa::path(delete, path = "/api/model-groups/{group_name}", tag = "Model groups",
    params(("group_name" = GroupName, Path)),
    responses((status = 200, body = DeletedGroup), (status = 409, description = "`in_use`")))]
pub async fn delete(mutation: Mutation, PathOf(name): PathOf<GroupName>) -> Result<Json<DeletedGroup>> {
    mutation.run(function!(delete_model_group(p_group_name: name))).await.map(Json)
}

/// Resolve a model group
///
/// Answers which models a team's call to the model group would use. If the team may not use the model group, no model
/// is shown.
#[utoipa::path(get, path = "/api/model-groups/{group_name}/resolve", tag = "Model groups",
    params(("group_name" = GroupName, Path), ResolveFor), responses((status = 200, body = Resolution)))]
pub async fn resolve(
    caller: Caller,
    PathOf(name): PathOf<GroupName>,
    Query(asked): Query<ResolveFor>,
) -> Result<Json<Resolution>> {
    let team_id = match (&caller, asked.team_id) {
        (_, Some(team_id)) => team_id,
        (Caller::Team(key), None) => key.team_id.clone(),
        (Caller::Admin, None) => return Err(Error::invalid("team_id", "required")),
    };
    caller.may_see(&team_id)?;
    let mut resolution: Resolution =
        function!(resolve_model_group(p_group_name: name, p_team_id: team_id)).run().await?;
    if !caller.sees_models().await? {
        resolution.primary_model = None;
        resolution.fallback_models.clear();
    }
    Ok(Json(resolution))
}
