//! Virtual keys: several for a team, each with a name, replaced without a gap.
//!
//! A key is first named here, then made by LiteLLM under that name, then recorded with its digest. When LiteLLM fails, nothing has
//! changed; a request that dies in between leaves a key in LiteLLM that nobody has seen, which the team's next new key clears away.
//! What stops a key takes effect here first and in LiteLLM then. If LiteLLM can't be told, revoking answers 503 and the same request
//! again tells it; rotating must show the new key, so it warns, and the team's next call tells LiteLLM.

use axum::Json;
use serde::{Deserialize, Serialize};
use shared::{
    api::{PathKey, PathSlug},
    auth::VirtualKey,
    change,
    change::Change,
    database::{self, optional_text, text, texts, uuid},
    error::{Code, Error, Result},
    input::{Body, Label, Slug, integer},
    litellm::admin::{self, Wanted},
    team::{KeySummary, tell_litellm},
};
use spin_sdk::pg::ParameterValue;
use utoipa::ToSchema;
use uuid::Uuid;

/// The keys of a team, newest first.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Keys {
    team_id: String,
    keys: Vec<KeySummary>,
}

/// List a team's keys
///
/// Those that were revoked, too.
#[utoipa::path(get, path = "/api/teams/{team_id}/keys", tag = "Keys", params(("team_id" = Slug, Path)),
    responses((status = 200, body = Keys)))]
pub async fn list(PathSlug(team_id): PathSlug) -> Result<Json<Keys>> {
    database::call("SELECT list_keys($1)::text AS answer", vec![text(team_id)]).await.map(Json)
}

/// How a further key is called.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"alias": "ci"}))]
pub struct CreateKey {
    alias: Option<Label>,
}

/// How long the replaced key works on.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"grace_seconds": 3600}))]
pub struct RotateKey {
    /// 0 to 2,592,000 (30 days).
    #[serde(default)]
    grace_seconds: Grace,
    /// The key to replace; without it, the newest.
    key_id: Option<Uuid>,
    /// Without one, that of the replaced key.
    alias: Option<Label>,
}

/// 0 to 2,592,000 seconds.
#[derive(Clone, Copy, Default, ToSchema)]
#[schema(value_type = i32, minimum = 0, maximum = 2_592_000)]
struct Grace(i32);

impl<'de> Deserialize<'de> for Grace {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        integer(deserializer, 0, 2_592_000).map(|seconds| Self(i32::try_from(seconds).unwrap_or_default()))
    }
}

/// A new key, shown this once.
#[derive(Serialize, ToSchema)]
pub struct NewKey {
    team_id: String,
    virtual_key: String,
    key: KeySummary,
    /// What did not go as it should, although the key is there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    warnings: Vec<String>,
}

/// Create a further key
///
/// The team's other keys stay as they are.
#[utoipa::path(post, path = "/api/teams/{team_id}/keys/create", tag = "Keys", params(("team_id" = Slug, Path)),
    request_body = CreateKey, responses((status = 200, body = NewKey)))]
pub async fn create(
    change: Change,
    PathSlug(team_id): PathSlug,
    Body(new): Body<CreateKey>,
) -> Result<Json<NewKey>> {
    make(&change, &team_id, new.alias, None).await.map(Json)
}

/// Replace a key
///
/// The new key is shown this once. The one that it replaces works for `grace_seconds` more.
#[utoipa::path(post, path = "/api/teams/{team_id}/keys/rotate", tag = "Keys", params(("team_id" = Slug, Path)),
    request_body = RotateKey, responses((status = 200, body = NewKey)))]
pub async fn rotate(
    change: Change,
    PathSlug(team_id): PathSlug,
    Body(new): Body<RotateKey>,
) -> Result<Json<NewKey>> {
    make(&change, &team_id, new.alias, Some((new.key_id, new.grace_seconds))).await.map(Json)
}

/// How long all that is asked of LiteLLM for a key may take.
const LEASE_SECONDS: i32 = 60;

/// Makes a key; `rotates` says which one it replaces (`None`: the newest), and how long that works on.
async fn make(
    change: &Change,
    team_id: &Slug,
    alias: Option<Label>,
    rotates: Option<(Option<Uuid>, Grace)>,
) -> Result<NewKey> {
    #[derive(Deserialize)]
    struct Claimed {
        kept: Option<Kept>,
        begun: Option<Begun>,
    }
    #[derive(Deserialize)]
    struct Begun {
        replaced: Option<Uuid>,
        litellm_alias: String,
        leftovers: Vec<String>,
        litellm: Wanted,
    }
    let key_id = Uuid::now_v7();
    let statement = concat!(
        "WITH claimed AS MATERIALIZED (SELECT claim($1::text::json, $2) AS kept) ",
        "SELECT json_build_object('kept', kept, 'begun', ",
        "CASE WHEN kept IS NULL THEN begin_key($3, $4, $5, $6, $7) END)::text AS answer FROM claimed"
    );
    let parameters = vec![
        change.parameter(),
        ParameterValue::Int32(LEASE_SECONDS),
        text(team_id),
        uuid(key_id),
        optional_text(alias),
        ParameterValue::Boolean(rotates.is_some()),
        rotates.and_then(|(replaced, _)| replaced).map_or(ParameterValue::DbNull, uuid),
    ];
    let begun = match database::call(statement, parameters).await? {
        Claimed { kept: Some(kept), .. } => {
            change.mark_replayed();
            return kept.into_answer(change).await;
        }
        Claimed { begun: Some(begun), .. } => begun,
        Claimed { .. } => return Err(Error::internal("begin_key answered nothing")),
    };
    clear(&begun.leftovers).await;
    let secret = match admin::generate_key(&begun.litellm, begun.litellm_alias.clone()).await {
        Ok(secret) => secret,
        Err(failure) => {
            clear(&[begun.litellm_alias]).await;
            // If this fails, too, a repeat has to wait until the claim is over.
            let released = "SELECT to_json(release($1::text::json))::text AS answer";
            _ = database::call::<serde_json::Value>(released, vec![change.parameter()]).await;
            return Err(failure);
        }
    };
    let grace = rotates.map_or(Grace(0), |(_, grace)| grace);
    let made = activate(change, key_id, &secret, begun.replaced, grace).await;
    if made.as_ref().is_err_and(|failure| failure.code == Code::NotFound) {
        // The team was deleted meanwhile.
        clear(&[begun.litellm_alias]).await;
    }
    made
}

/// What is kept of the answer: the key itself only sealed.
#[derive(Deserialize)]
struct Kept {
    made: Made,
    sealed: Option<String>,
}

/// The answer of `activate_key`.
#[derive(Deserialize)]
struct Made {
    key: KeySummary,
    litellm: Wanted,
}

impl Kept {
    async fn into_answer(self, change: &Change) -> Result<NewKey> {
        let sealed = self.sealed.ok_or_else(|| Error::internal("a kept key without the key"))?;
        let secret = String::from_utf8(change.open(&sealed).await?).map_err(Error::internal)?;
        Ok(self.made.tell(change, secret).await)
    }
}

impl Made {
    async fn tell(self, change: &Change, secret: String) -> NewKey {
        let team_id = self.litellm.team_id.clone();
        let told = tell_litellm(change, self.litellm).await;
        let warning = "LiteLLM could not be told of the replaced key; the team's next call does it";
        let warnings = told.err().map(|_| warning.to_owned()).into_iter().collect();
        NewKey { team_id, virtual_key: secret, key: self.key, warnings }
    }
}

async fn activate(
    change: &Change,
    key_id: Uuid,
    secret: &VirtualKey,
    replaced: Option<Uuid>,
    grace: Grace,
) -> Result<NewKey> {
    let parameters = vec![
        change.parameter(),
        uuid(key_id),
        ParameterValue::Binary(secret.hash().to_vec()),
        text(secret.hint()),
        replaced.map_or(ParameterValue::DbNull, uuid),
        ParameterValue::Int32(grace.0),
        optional_text(change.seal(secret.expose().as_bytes()).await?),
    ];
    let statement = concat!(
        "SELECT keep($1::text::json, json_build_object('made', activate_key($2, $3, $4, $5, $6), 'sealed', $7::text))",
        "::text AS answer"
    );
    let Kept { made, .. } = database::insist(statement, parameters).await?;
    Ok(made.tell(change, secret.expose().to_owned()).await)
}

/// Deletes keys in LiteLLM that nobody has seen, and what names them here. What can't be deleted now stays for the next time.
async fn clear(aliases: &[String]) {
    let mut gone = vec![];
    for alias in aliases {
        if admin::delete_key_with_alias(alias).await.is_ok() {
            gone.push(alias);
        }
    }
    if !gone.is_empty() {
        _ = database::call::<bool>("SELECT forget_keys($1)::text AS answer", vec![texts(&gone)]).await;
    }
}

/// A key that has stopped working.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct RevokedKey {
    key: KeySummary,
    revoked: bool,
}

/// Revoke a key
///
/// It stops at once, here and in LiteLLM.
#[utoipa::path(delete, path = "/api/teams/{team_id}/keys/{key_id}", tag = "Keys",
    params(("team_id" = Slug, Path), ("key_id" = Uuid, Path)), responses((status = 200, body = RevokedKey)))]
pub async fn revoke(
    change: Change,
    PathSlug(team_id): PathSlug,
    PathKey(key_id): PathKey,
) -> Result<Json<RevokedKey>> {
    #[derive(Deserialize)]
    struct Revoked {
        key: KeySummary,
        litellm: Wanted,
    }
    let Revoked { key, litellm } =
        change.run(change!("revoke_key($2, $3)"), vec![text(team_id), uuid(key_id)]).await?;
    tell_litellm(&change, litellm).await?;
    Ok(Json(RevokedKey { key, revoked: true }))
}
