//! Organizations: the customers that teams belong to.

use axum::Json;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use shared::{
    api::PathSlug,
    change,
    change::Change,
    database::{self, optional_text, text},
    error::{Error, Result},
    input::{Body, Metadata, Name, Page, Query, Slug, given},
    team::Team,
};
use spin_sdk::pg::ParameterValue;
use utoipa::ToSchema;

/// What an organization is made of. Without an id, one is made from the name.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"organization_id": "acme-corp", "name": "Acme Corp"}))]
pub struct CreateOrganization {
    organization_id: Option<Slug>,
    name: Name,
    #[serde(default)]
    metadata: Metadata,
    litellm_organization_id: Option<Slug>,
}

/// An organization.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Organization {
    organization_id: String,
    name: String,
    /// `active`.
    status: String,
    litellm_organization_id: Option<String>,
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
pub async fn create(change: Change, Body(new): Body<CreateOrganization>) -> Result<Json<Organization>> {
    let made_from_name = new.organization_id.is_none();
    let id = new.organization_id.unwrap_or_else(|| Slug::from_name(new.name.as_str()));
    let parameters = vec![
        text(id),
        ParameterValue::Boolean(made_from_name),
        text(new.name),
        text(new.metadata),
        optional_text(new.litellm_organization_id),
    ];
    change.run(change!("create_organization($2, $3, $4, $5::text::json, $6)"), parameters).await.map(Json)
}

/// List organizations
#[utoipa::path(get, path = "/api/organizations", tag = "Organizations", params(Page),
    responses((status = 200, body = Organizations)))]
pub async fn list(Query(page): Query<Page>) -> Result<Json<Organizations>> {
    database::call("SELECT list_organizations($1, $2)::text AS answer", page.parameters()).await.map(Json)
}

/// Read an organization
#[utoipa::path(get, path = "/api/organizations/{organization_id}", tag = "Organizations",
    params(("organization_id" = Slug, Path)), responses((status = 200, body = Organization)))]
pub async fn get(PathSlug(id): PathSlug) -> Result<Json<Organization>> {
    database::call("SELECT get_organization($1)::text AS answer", vec![text(id)]).await.map(Json)
}

/// What changes. What is left out stays as it is.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "Acme Corporation"}))]
pub struct UpdateOrganization {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<Name>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Metadata>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Slug>)]
    litellm_organization_id: Option<Option<Slug>>,
}

/// Change an organization
#[utoipa::path(put, path = "/api/organizations/{organization_id}", tag = "Organizations",
    params(("organization_id" = Slug, Path)), request_body = UpdateOrganization,
    responses((status = 200, body = Organization)))]
pub async fn update(
    change: Change,
    PathSlug(id): PathSlug,
    Body(fields): Body<UpdateOrganization>,
) -> Result<Json<Organization>> {
    let fields = serde_json::to_string(&fields).map_err(Error::internal)?;
    let parameters = vec![text(id), text(fields)];
    change.run(change!("update_organization($2, $3::text::json)"), parameters).await.map(Json)
}

/// An organization that is gone.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct DeletedOrganization {
    organization_id: String,
    deleted: bool,
}

/// Delete an organization
///
/// Only one without teams. Its id stays taken, since what its teams used goes on counting there.
#[utoipa::path(delete, path = "/api/organizations/{organization_id}", tag = "Organizations",
    params(("organization_id" = Slug, Path)),
    responses((status = 200, body = DeletedOrganization), (status = 409, description = "`in_use`")))]
pub async fn delete(change: Change, PathSlug(id): PathSlug) -> Result<Json<DeletedOrganization>> {
    change.run(change!("delete_organization($2)"), vec![text(id)]).await.map(Json)
}

/// The teams of an organization, by id.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct OrganizationTeams {
    organization_id: String,
    team_count: i64,
    teams: Vec<Team>,
}

/// List an organization's teams
#[utoipa::path(get, path = "/api/organizations/{organization_id}/teams", tag = "Organizations",
    params(("organization_id" = Slug, Path)), responses((status = 200, body = OrganizationTeams)))]
pub async fn teams(PathSlug(id): PathSlug) -> Result<Json<OrganizationTeams>> {
    database::call("SELECT organization_teams($1)::text AS answer", vec![text(id)]).await.map(Json)
}
