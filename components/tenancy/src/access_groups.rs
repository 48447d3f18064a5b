//! Access groups: named sets of model groups.

use crate::model_groups::{DeletedGroup, GroupModel, check, unknown_models};
use axum::Json;
use serde::{Deserialize, Serialize};
use shared::{
    api::PathSlug,
    change,
    change::Change,
    database::{self, optional_text, text, texts},
    error::{Error, Result},
    input::{Body, Label, ListBody, Name, Object, Page, Prose, Query, Slug, given},
    litellm::admin::Wanted,
    team::tell_litellm_of_all,
};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// What an access group is made of: model groups, or models of which a model group of the same name is made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"group_name": "basic-chat", "model_groups": ["ChatAgent"]}))]
pub struct CreateAccessGroup {
    group_name: Slug,
    display_name: Option<Name>,
    description: Option<Prose>,
    #[serde(default)]
    model_groups: Vec<Slug>,
    /// In order, best first; not beside `model_groups`.
    models: Option<Vec<Label>>,
}

/// An access group.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct AccessGroup {
    access_group_id: String,
    group_name: String,
    display_name: String,
    description: Option<String>,
    status: String,
    model_groups: Vec<String>,
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
pub async fn create(change: Change, Body(new): Body<CreateAccessGroup>) -> Result<Json<SavedAccessGroup>> {
    if new.models.is_some() && !new.model_groups.is_empty() {
        return Err(Error::invalid("models", "given beside model_groups; expected one of them"));
    }
    let models = new.models.map(|names| {
        let models = names.into_iter().zip(0..).map(|(model_name, priority)| {
            Object(GroupModel { model_name, priority, config: BTreeMap::new() })
        });
        models.collect::<Vec<_>>()
    });
    models.as_deref().map(check).transpose()?;
    let parameters = vec![
        text(&new.group_name),
        text(new.display_name.as_ref().map_or(new.group_name.as_str(), Name::as_str)),
        optional_text(new.description),
        texts(&new.model_groups),
        optional_text(models.as_ref().map(serde_json::to_string).transpose().map_err(Error::internal)?),
    ];
    let group =
        change.run(change!("create_model_access_group($2, $3, $4, $5, $6::text::json)"), parameters).await?;
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
    database::call("SELECT list_model_access_groups($1, $2)::text AS answer", page.parameters())
        .await
        .map(Json)
}

/// Read an access group
#[utoipa::path(get, path = "/api/model-access-groups/{group_name}", tag = "Access groups",
    params(("group_name" = Slug, Path)), responses((status = 200, body = AccessGroup)))]
pub async fn get(PathSlug(name): PathSlug) -> Result<Json<AccessGroup>> {
    database::call("SELECT get_model_access_group($1)::text AS answer", vec![text(name)]).await.map(Json)
}

/// What changes. What is left out stays as it is.
#[derive(Deserialize, Serialize, Default, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"model_groups": ["ChatAgent"]}))]
pub struct UpdateAccessGroup {
    #[serde(skip_serializing_if = "Option::is_none")]
    display_name: Option<Name>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Prose>)]
    description: Option<Option<Prose>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model_groups: Option<Vec<Slug>>,
}

/// Change an access group
///
/// Other model groups reach the keys of all teams that have the access group at once.
#[utoipa::path(put, path = "/api/model-access-groups/{group_name}", tag = "Access groups",
    params(("group_name" = Slug, Path)), request_body = UpdateAccessGroup,
    responses((status = 200, body = SavedAccessGroup)))]
pub async fn update(
    change: Change,
    PathSlug(name): PathSlug,
    Body(fields): Body<UpdateAccessGroup>,
) -> Result<Json<SavedAccessGroup>> {
    save(&change, name, &fields).await.map(Json)
}

/// Replace an access group's model groups
///
/// The body is the bare list. It reaches the keys of all teams that have the access group at once.
#[utoipa::path(put, path = "/api/model-access-groups/{group_name}/model-groups", tag = "Access groups",
    params(("group_name" = Slug, Path)), request_body(content = Vec<Slug>, example = json!(["ChatAgent"])),
    responses((status = 200, body = SavedAccessGroup)))]
pub async fn set_model_groups(
    change: Change,
    PathSlug(name): PathSlug,
    ListBody(names): ListBody<Slug>,
) -> Result<Json<SavedAccessGroup>> {
    let fields = UpdateAccessGroup { model_groups: Some(names), ..UpdateAccessGroup::default() };
    save(&change, name, &fields).await.map(Json)
}

/// Changes a group. Here that holds at once; LiteLLM is told of every team that it concerns, at the latest with the team's next call.
async fn save(change: &Change, name: Slug, fields: &UpdateAccessGroup) -> Result<SavedAccessGroup> {
    #[derive(Deserialize)]
    struct Changed {
        group: AccessGroup,
        litellm: Vec<Wanted>,
    }
    let fields = serde_json::to_string(fields).map_err(Error::internal)?;
    let Changed { group, litellm } = change
        .run(change!("update_model_access_group($2, $3::text::json)"), vec![text(name), text(fields)])
        .await?;
    let warnings = tell_litellm_of_all(change, litellm).await.into_iter().collect();
    Ok(SavedAccessGroup { group, warnings })
}

/// Delete an access group
///
/// Only one that no team has.
#[utoipa::path(delete, path = "/api/model-access-groups/{group_name}", tag = "Access groups",
    params(("group_name" = Slug, Path)),
    responses((status = 200, body = DeletedGroup), (status = 409, description = "`in_use`")))]
pub async fn delete(change: Change, PathSlug(name): PathSlug) -> Result<Json<DeletedGroup>> {
    change.run(change!("delete_model_access_group($2)"), vec![text(name)]).await.map(Json)
}
