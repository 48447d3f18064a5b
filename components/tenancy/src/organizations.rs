//! Organizations: the customers that teams belong to.

use axum::Json;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_with::{rust::double_option, skip_serializing_none};
use shared::{
    error::{Error, Result},
    function,
    http::{Body, Mutation, Page, PathOf, Query},
    store::parameters::Json as JsonParameter,
    teams::Team,
    values::{GroupStatus, LiteLlmOrganizationId, Metadata, Name, OrganizationId},
};
use utoipa::ToSchema;

/// An organization to create.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"organization_id": "acme-corp", "name": "Acme Corp"}))]
pub struct CreateOrganization {
    /// The organization's id. Without it, an id is made from the name.
    organization_id: Option<OrganizationId>,
    /// The organization's name for people.
    name: Name,
    /// The admin's own data about the organization.
    #[serde(default)]
    metadata: Metadata,
    /// The organization's id in LiteLLM, if it has one.
    litellm_organization_id: Option<LiteLlmOrganizationId>,
}

/// An organization.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Organization {
    /// The organization's id.
    organization_id: OrganizationId,
    /// The organization's name for people.
    name: String,
    /// Always `active`.
    status: GroupStatus,
    /// The organization's id in LiteLLM; `null`: it has none.
    litellm_organization_id: Option<LiteLlmOrganizationId>,
    /// The admin's own data about the organization.
    #[schema(value_type = Object)]
    metadata: Box<RawValue>,
    /// When the organization was created (RFC 3339, UTC).
    created_at: String,
    /// When the organization was last changed (RFC 3339, UTC).
    updated_at: String,
}

/// A page of the organizations, sorted by id.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Organizations {
    /// The number of organizations on all pages.
    total: i64,
    /// The organizations of this page.
    organizations: Vec<Organization>,
}

/// Create an organization
#[utoipa::path(post, path = "/api/organizations/create", tag = "Organizations", request_body = CreateOrganization,
    responses((status = 200, body = Organization), (status = 409, description = "`already_exists`")))]
pub async fn create(mutation: Mutation, Body(new): Body<CreateOrganization>) -> Result<Json<Organization>> {
    let made_from_name = new.organization_id.is_none();
    let id = new.organization_id.unwrap_or_else(|| OrganizationId::from_name(new.name.as_str()));
    let function = function!(create_organization(
        p_organization_id: id,
        p_made_from_name: made_from_name,
        p_name: new.name,
        p_metadata: new.metadata,
        p_litellm_organization_id: new.litellm_organization_id,
    ));
    mutation.run(function).await.map(Json)
}

/// List organizations
#[utoipa::path(get, path = "/api/organizations", tag = "Organizations", params(Page),
    responses((status = 200, body = Organizations)))]
pub async fn list(Query(page): Query<Page>) -> Result<Json<Organizations>> {
    function!(list_organizations(p_limit: page.limit, p_offset: page.offset)).run().await.map(Json)
}

/// Read an organization
#[utoipa::path(get, path = "/api/organizations/{organization_id}", tag = "Organizations",
    params(("organization_id" = OrganizationId, Path)), responses((status = 200, body = Organization)))]
pub async fn get(PathOf(id): PathOf<OrganizationId>) -> Result<Json<Organization>> {
    function!(get_organization(p_organization_id: id)).run().await.map(Json)
}

/// The fields to change. Fields that are left out stay as they are.
#[skip_serializing_none]
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "Acme Corporation"}))]
pub struct UpdateOrganization {
    /// The organization's name for people.
    name: Option<Name>,
    /// The admin's own data, which replaces the current metadata.
    metadata: Option<Metadata>,
    /// The organization's id in LiteLLM; `null` removes it.
    #[serde(default, with = "double_option")]
    #[schema(value_type = Option<LiteLlmOrganizationId>)]
    litellm_organization_id: Option<Option<LiteLlmOrganizationId>>,
}

/// Change an organization
#[utoipa::path(put, path = "/api/organizations/{organization_id}", tag = "Organizations",
    params(("organization_id" = OrganizationId, Path)), request_body = UpdateOrganization,
    responses((status = 200, body = Organization)))]
pub async fn update(
    mutation: Mutation,
    PathOf(id): PathOf<OrganizationId>,
    Body(fields): Body<UpdateOrganization>,
) -> Result<Json<Organization>> {
    let fields = serde_json::to_string(&fields).map_err(Error::internal)?;
    let function = function!(update_organization(p_organization_id: id, p_fields: JsonParameter(fields)));
    mutation.run(function).await.map(Json)
}

/// An organization that was deleted.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct DeletedOrganization {
    /// The id of the deleted organization.
    organization_id: OrganizationId,
    /// Always true.
    deleted: bool,
}

/// Delete an organization
///
/// Only an organization without teams can be deleted. Its id can't be used again, since the usage of its deleted teams
/// is still reported under it.
#[utoipa::path(delete, path = "/api/organizations/{organization_id}", tag = "Organizations",
    params(("organization_id" = OrganizationId, Path)),
    responses((status = 200, body = DeletedOrganization), (status = 409, description = "`in_use`")))]
pub async fn delete(
    mutation: Mutation,
    PathOf(id): PathOf<OrganizationId>,
) -> Result<Json<DeletedOrganization>> {
    mutation.run(function!(delete_organization(p_organization_id: id))).await.map(Json)
}

/// The teams of an organization, sorted by id.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct OrganizationTeams {
    /// The organization.
    organization_id: OrganizationId,
    /// The number of its teams.
    team_count: i64,
    /// All its teams.
    teams: Vec<Team>,
}

/// List an organization's teams
#[utoipa::path(get, path = "/api/organizations/{organization_id}/teams", tag = "Organizations",
    params(("organization_id" = OrganizationId, Path)), responses((status = 200, body = OrganizationTeams)))]
pub async fn teams(PathOf(id): PathOf<OrganizationId>) -> Result<Json<OrganizationTeams>> {
    function!(organization_teams(p_organization_id: id)).run().await.map(Json)
}
