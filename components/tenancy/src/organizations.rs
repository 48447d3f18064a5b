//! Organizations: the customers that teams belong to.

use axum::Json;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use shared::{
    api::PathSlug,
    database::{self, optional_text, text},
    error::Result,
    input::{Body, Metadata, Name, Slug},
};
use spin_sdk::pg::ParameterValue;

/// What an organization is made of. Without an id, one is made from the name.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateOrganization {
    organization_id: Option<Slug>,
    name: Name,
    #[serde(default)]
    metadata: Metadata,
    litellm_organization_id: Option<Slug>,
}

/// An organization as the API shows it.
#[derive(Serialize, Deserialize)]
pub struct Organization {
    organization_id: String,
    name: String,
    status: String,
    litellm_organization_id: Option<String>,
    metadata: Box<RawValue>,
    created_at: String,
    updated_at: String,
}

/// `POST /api/organizations/create`
pub async fn create(Body(new): Body<CreateOrganization>) -> Result<Json<Organization>> {
    let made_from_name = new.organization_id.is_none();
    let id = new.organization_id.unwrap_or_else(|| Slug::from_name(new.name.as_str()));
    let parameters = vec![
        text(id),
        ParameterValue::Boolean(made_from_name),
        text(new.name),
        text(new.metadata),
        optional_text(new.litellm_organization_id),
    ];
    database::call("SELECT create_organization($1, $2, $3, $4::text::json, $5)::text AS answer", parameters)
        .await
        .map(Json)
}

/// `GET /api/organizations/{organization_id}`
pub async fn get(PathSlug(id): PathSlug) -> Result<Json<Organization>> {
    database::call("SELECT get_organization($1)::text AS answer", vec![text(id)]).await.map(Json)
}
