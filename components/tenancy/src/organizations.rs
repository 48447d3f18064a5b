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

/// What an organization is made of. Without an id, one is made from the name.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"organization_id": "acme-corp", "name": "Acme Corp"}))]
pub struct CreateOrganization {
    organization_id: Option<OrganizationId>,
    name: Name,
    #[serde(default)]
    metadata: Metadata,
    litellm_organization_id: Option<LiteLlmOrganizationId>,
}

/// An organization.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Organization {
    organization_id: OrganizationId,
    name: String,
    status: GroupStatus,
    litellm_organization_id: Option<LiteLlmOrganizationId>,
    #[schema(value_type = Object)]
    metadata: Box<RawValue>,
    created_at: String,
    updated_at: String,
}

/// A page of the organizations, by id.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Organizations {
    total: i64,
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

/// What changes. What is left out stays as it is.
#[skip_serializing_none]
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "Acme Corporation"}))]
pub struct UpdateOrganization {
    name: Option<Name>,
    metadata: Option<Metadata>,
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

/// An organization that is gone.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct DeletedOrganization {
    organization_id: OrganizationId,
    deleted: bool,
}

/// Delete an organization
///
/// Only one without teams. Its id stays taken, since what its teams used goes on counting there.
#[utoipa::path(delete, path = "/api/organizations/{organization_id}", tag = "Organizations",
    params(("organization_id" = OrganizationId, Path)),
    responses((status = 200, body = DeletedOrganization), (status = 409, description = "`in_use`")))]
pub async fn delete(
    mutation: Mutation,
    PathOf(id): PathOf<OrganizationId>,
) -> Result<Json<DeletedOrganization>> {
    mutation.run(function!(delete_organization(p_organization_id: id))).await.map(Json)
}

/// The teams of an organization, by id.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct OrganizationTeams {
    organization_id: OrganizationId,
    team_count: i64,
    teams: Vec<Team>,
}

/// List an organization's teams
#[utoipa::path(get, path = "/api/organizations/{organization_id}/teams", tag = "Organizations",
    params(("organization_id" = OrganizationId, Path)), responses((status = 200, body = OrganizationTeams)))]
pub async fn teams(PathOf(id): PathOf<OrganizationId>) -> Result<Json<OrganizationTeams>> {
    function!(organization_teams(p_organization_id: id)).run().await.map(Json)
}
