//! Access groups: named sets of model groups.

use crate::model_groups::{GroupModel, checked};
use axum::Json;
use serde::{Deserialize, Serialize};
use shared::{
    api::PathSlug,
    database::{self, optional_text, text, texts},
    error::{Error, Result},
    input::{Body, Label, Name, Prose, Slug},
};
use std::collections::BTreeMap;

/// What an access group is made of: model groups, or models of which a model group of the same name is made.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateAccessGroup {
    group_name: Slug,
    display_name: Option<Name>,
    description: Option<Prose>,
    #[serde(default)]
    model_groups: Vec<Slug>,
    models: Option<Vec<Label>>,
}

/// An access group as the API shows it.
#[derive(Serialize, Deserialize)]
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

/// `POST /api/model-access-groups/create`
pub async fn create(Body(new): Body<CreateAccessGroup>) -> Result<Json<AccessGroup>> {
    if new.models.is_some() && !new.model_groups.is_empty() {
        return Err(Error::invalid("models", "given beside model_groups; expected one of them"));
    }
    let models = new.models.map(|names| {
        let models: Vec<GroupModel> = names
            .into_iter()
            .zip(0..)
            .map(|(model_name, priority)| GroupModel { model_name, priority, config: BTreeMap::new() })
            .collect();
        checked(&models)
    });
    let parameters = vec![
        text(&new.group_name),
        text(new.display_name.as_ref().map_or(new.group_name.as_str(), Name::as_str)),
        optional_text(new.description),
        texts(&new.model_groups),
        optional_text(models.transpose()?),
    ];
    database::call(
        "SELECT create_model_access_group($1, $2, $3, $4, $5::text::json)::text AS answer",
        parameters,
    )
    .await
    .map(Json)
}

/// `GET /api/model-access-groups/{group_name}`
pub async fn get(PathSlug(name): PathSlug) -> Result<Json<AccessGroup>> {
    database::call("SELECT get_model_access_group($1)::text AS answer", vec![text(name)]).await.map(Json)
}
