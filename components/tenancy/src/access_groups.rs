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

/// What an access group is made of: model groups, or models of which a model group of the same name is made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"group_name": "basic-chat", "model_groups": ["ChatAgent"]}))]
pub struct CreateAccessGroup {
    group_name: AccessGroupName,
    display_name: Option<Name>,
    description: Option<Prose>,
    #[serde(default)]
    model_groups: Vec<GroupName>,
    /// In order, best first; not beside `model_groups`.
    models: Option<Vec<Label>>,
}

/// An access group.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct AccessGroup {
    access_group_id: Uuid,
    group_name: AccessGroupName,
    display_name: String,
    description: Option<String>,
    status: GroupStatus,
    model_groups: Vec<GroupName>,
    created_at: String,
    updated_at: String,
}

/// An access group that was just made or changed.
#[derive(Serialize, ToSchema)]
pub struct SavedAccessGroup {
    #[serde(flatten)]
    group: AccessGroup,
    /// Models that LiteLLM does not know, and teams that it could not be told of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    warnings: Vec<String>,
}

/// A page of the access groups, by name.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct AccessGroups {
    total: i64,
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

/// What changes. What is left out stays as it is.
#[skip_serializing_none]
#[derive(Deserialize, Serialize, Default, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"model_groups": ["ChatAgent"]}))]
pub struct UpdateAccessGroup {
    display_name: Option<Name>,
    #[serde(default, with = "double_option")]
    #[schema(value_type = Option<Prose>)]
    description: Option<Option<Prose>>,
    model_groups: Option<Vec<GroupName>>,
}

/// Change an access group
///
/// Other model groups reach the keys of all teams that have the access group at once.
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
/// The body is the bare list. It reaches the keys of all teams that have the access group at once.
#[utoipa::path(put, path = "/api/model-access-groups/{group_name}/model-groups", tag = "Access groups",
    params(("group_name" = AccessGroupName, Path)), request_body(content = Vec<GroupName>, example = json!(["ChatAgent"])),
    responses((status = 200, body = SavedAccessGroup)))]
pub async fn set_model_groups(
    mutation: Mutation,
    PathOf(name): PathOf<AccessGroupName>,
    ListBody(names): ListBody<GroupName>,
) -> Result<Json<SavedAccessGroup>> {
    let fields = UpdateAccessGroup { model_groups: Some(names), ..UpdateAccessGroup::default() };
    save(&mutation, name, &fields).await.map(Json)
}

/// Changes a group. Here that holds at once; LiteLLM is told of every team that it concerns, at the latest with the team's next call.
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
/// Only one that no team has.
#[utoipa::path(delete, path = "/api/model-access-groups/{group_name}", tag = "Access groups",
    params(("group_name" = AccessGroupName, Path)),
    responses((status = 200, body = DeletedGroup), (status = 409, description = "`in_use`")))]
pub async fn delete(mutation: Mutation, PathOf(name): PathOf<AccessGroupName>) -> Result<Json<DeletedGroup>> {
    mutation.run(function!(delete_model_access_group(p_access_group_name: name))).await.map(Json)
}
