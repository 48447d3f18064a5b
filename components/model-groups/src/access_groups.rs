//! Access groups: named sets of model groups.

use crate::model_groups::{DeletedGroup, GroupModel, Priority, check, unknown_models};
use axum::Json;
use serde::{Deserialize, Serialize};
use serde_with::{rust::double_option, skip_serializing_none};
use shared::{
    error::{Error, Result},
    function,
    http::{Body, ListBody, Mutation, Object, Page, PathOf, Query},
    litellm::admin::DesiredTeam,
    store::parameters::Json as JsonParameter,
    teams::sync,
    values::{AccessGroupName, GroupName, GroupStatus, Label, Name, Prose},
};
use std::collections::BTreeMap;
use utoipa::ToSchema;
use uuid::Uuid;

/// An access group to create, from model groups, or from models, of which a model group with the same name is created.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"group_name": "basic-chat", "model_groups": ["ChatAgent"]}))]
pub struct CreateAccessGroup {
    /// The name of the access group, which can't be changed later.
    group_name: AccessGroupName,
    /// The name for people; `group_name` unless it is given.
    display_name: Option<Name>,
    /// A description for people.
    description: Option<Prose>,
    /// The model groups, in order. Not together with `models`.
    #[serde(default)]
    model_groups: Vec<GroupName>,
    /// The models of LiteLLM, in the order in which they are tried. Not together with `model_groups`.
    models: Option<Vec<Label>>,
}

/// An access group.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct AccessGroup {
    /// The id of the access group.
    access_group_id: Uuid,
    /// The name of the access group.
    group_name: AccessGroupName,
    /// The name for people.
    display_name: String,
    /// A description for people.
    description: Option<String>,
    /// Always `active`.
    status: GroupStatus,
    /// The model groups, in order.
    model_groups: Vec<GroupName>,
    /// When the access group was created (RFC 3339, UTC).
    created_at: String,
    /// When the access group was last changed (RFC 3339, UTC).
    updated_at: String,
}

/// An access group that was created or changed.
#[derive(Serialize, ToSchema)]
pub struct SavedAccessGroup {
    #[serde(flatten)]
    group: AccessGroup,
    /// Models that LiteLLM does not know, and teams that LiteLLM could not be synchronized with yet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    warnings: Vec<String>,
}

/// A page of the access groups, sorted by name.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct AccessGroups {
    /// The number of access groups on all pages.
    total: i64,
    /// The access groups of this page.
    model_access_groups: Vec<AccessGroup>,
}

/// Create an access group
#[utoipa::path(post, path = "/api/model-access-groups/create", tag = "Access groups", request_body = CreateAccessGroup,
    responses((status = 200, body = SavedAccessGroup), (status = 404, description = "`not_found`"),
        (status = 409, description = "`already_exists`")))]
pub async fn create(
    mutation: Mutation,
    Body(new): Body<CreateAccessGroup>,
) -> Result<Json<SavedAccessGroup>> {
    if new.models.is_some() && !new.model_groups.is_empty() {
        return Err(Error::invalid("models", "given beside model_groups; expected one of them"));
    }
    let models = new.models.map(|names| {
        let models = names.into_iter().zip(Priority::all()).map(|(model_name, priority)| {
            Object(GroupModel { model_name, priority, config: BTreeMap::new() })
        });
        models.collect::<Vec<_>>()
    });
    models.as_deref().map(check).transpose()?;
    let models_json = models.as_ref().map(serde_json::to_string).transpose().map_err(Error::internal)?;
    let function = function!(create_model_access_group(
        p_access_group_name: &new.group_name,
        p_display_name: new.display_name.map_or_else(|| new.group_name.to_string(), |name| name.to_string()),
        p_description: new.description,
        p_model_groups: new.model_groups,
        p_models: models_json.map(JsonParameter),
    ));
    let group = mutation.run(function).await?;
    let warnings = match &models {
        None => vec![],
        Some(models) => unknown_models(models.iter().map(|Object(model)| model.model_name.as_str())).await,
    };
    Ok(Json(SavedAccessGroup { group, warnings }))
}

/// List access groups
#[utoipa::path(get, path = "/api/model-access-groups", tag = "Access groups", params(Page),
    responses((status = 200, body = AccessGroups)))]
pub async fn list(Query(page): Query<Page>) -> Result<Json<AccessGroups>> {
    let function = function!(list_model_access_groups(p_limit: page.limit, p_offset: page.offset));
    function.run().await.map(Json)
}

/// Read an access group
#[utoipa::path(get, path = "/api/model-access-groups/{group_name}", tag = "Access groups",
    params(("group_name" = AccessGroupName, Path)), responses((status = 200, body = AccessGroup)))]
pub async fn get(PathOf(name): PathOf<AccessGroupName>) -> Result<Json<AccessGroup>> {
    function!(get_model_access_group(p_access_group_name: name)).run().await.map(Json)
}

/// The fields to change. Fields that are left out stay as they are.
#[skip_serializing_none]
#[derive(Deserialize, Serialize, Default, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"model_groups": ["ChatAgent"]}))]
pub struct UpdateAccessGroup {
    /// The name for people.
    display_name: Option<Name>,
    /// A description for people; `null` removes it.
    #[serde(default, with = "double_option")]
    #[schema(value_type = Option<Prose>)]
    description: Option<Option<Prose>>,
    /// All model groups, in order: they replace the current ones.
    model_groups: Option<Vec<GroupName>>,
}

/// Change an access group
///
/// A change of the model groups applies at once to the keys of all teams that have the access group.
#[utoipa::path(put, path = "/api/model-access-groups/{group_name}", tag = "Access groups",
    params(("group_name" = AccessGroupName, Path)), request_body = UpdateAccessGroup,
    responses((status = 200, body = SavedAccessGroup)))]
pub async fn update(
    mutation: Mutation,
    PathOf(name): PathOf<AccessGroupName>,
    Body(fields): Body<UpdateAccessGroup>,
) -> Result<Json<SavedAccessGroup>> {
    save(&mutation, name, &fields).await.map(Json)
}

/// Replace an access group's model groups
///
/// The body is a JSON list of the names. The change applies at once to the keys of all teams that have the access
/// group.
#[utoipa::path(put, path = "/api/model-access-groups/{group_name}/model-groups", tag = "Access groups",
    params(("group_name" = AccessGroupName, Path)),
    request_body(content = Vec<GroupName>, example = json!(["ChatAgent"])),
    responses((status = 200, body = SavedAccessGroup)))]
pub async fn set_model_groups(
    mutation: Mutation,
    PathOf(name): PathOf<AccessGroupName>,
    ListBody(names): ListBody<GroupName>,
) -> Result<Json<SavedAccessGroup>> {
    let fields = UpdateAccessGroup { model_groups: Some(names), ..UpdateAccessGroup::default() };
    save(&mutation, name, &fields).await.map(Json)
}

/// Changes an access group. The change takes effect here at once; LiteLLM is synchronized for every affected team, at
/// the latest before the team's next call.
async fn save(
    mutation: &Mutation,
    name: AccessGroupName,
    fields: &UpdateAccessGroup,
) -> Result<SavedAccessGroup> {
    #[derive(Deserialize)]
    struct Changed {
        group: AccessGroup,
        litellm: Vec<DesiredTeam>,
    }
    let fields = serde_json::to_string(fields).map_err(Error::internal)?;
    let function = function!(update_model_access_group(
        p_access_group_name: name,
        p_fields: JsonParameter(fields),
    ));
    let Changed { group, litellm } = mutation.run(function).await?;
    let warnings = sync::all_after(mutation, litellm).await.into_iter().collect();
    Ok(SavedAccessGroup { group, warnings })
}

/// Delete an access group
///
/// Only an access group that no team has can be deleted.
#[utoipa::path(delete, path = "/api/model-access-groups/{group_name}", tag = "Access groups",
    params(("group_name" = AccessGroupName, Path)),
    responses((status = 200, body = DeletedGroup), (status = 409, description = "`in_use`")))]
pub async fn delete(mutation: Mutation, PathOf(name): PathOf<AccessGroupName>) -> Result<Json<DeletedGroup>> {
    mutation.run(function!(delete_model_access_group(p_access_group_name: name))).await.map(Json)
}
