//! Virtual keys: several for a team, each with a name, replaced without a gap.
//!
//! A key is first named here, then made by LiteLLM under that name, then recorded with its digest. When LiteLLM fails, nothing has
//! changed; a request that dies in between leaves a key in LiteLLM that nobody has seen, which the team's next new key clears away.
//! What stops a key takes effect here first and in LiteLLM then. If LiteLLM can't be told, revoking answers 503 and the same request
//! again tells it; rotating must show the new key, so it warns, and the team's next call tells LiteLLM.

use axum::Json;
use serde::{Deserialize, Serialize};
use shared::{
    error::{Code, Error, Result},
    function,
    http::{Body, Mutation, PathOf, PathTeam, mutation::Beginning},
    litellm::admin::{self, DesiredTeam},
    teams::{KeySummary, sync},
    values::{KeyId, Label, TeamId, Whole},
};
use utoipa::ToSchema;

/// The keys of a team, newest first.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Keys {
    team_id: TeamId,
    keys: Vec<KeySummary>,
}

/// List a team's keys
///
/// Those that were revoked, too.
#[utoipa::path(get, path = "/api/teams/{team_id}/keys", tag = "Keys", params(("team_id" = TeamId, Path)),
    responses((status = 200, body = Keys)))]
pub async fn list(PathTeam(team_id): PathTeam) -> Result<Json<Keys>> {
    function!(list_keys(p_team_id: team_id)).run().await.map(Json)
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
    /// Seconds for which the replaced key works on: 0 to 2,592,000 (30 days).
    #[serde(default = "no_grace")]
    grace_seconds: Grace,
    /// The key to replace; without it, the newest.
    key_id: Option<KeyId>,
    /// Without one, that of the replaced key.
    alias: Option<Label>,
}

/// 0 to 2,592,000 seconds.
type Grace = Whole<0, 2_592_000>;

fn no_grace() -> Grace {
    const { Grace::new(0) }
}

/// A new key, shown this once.
#[derive(Serialize, ToSchema)]
pub struct NewKey {
    team_id: TeamId,
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
#[utoipa::path(post, path = "/api/teams/{team_id}/keys/create", tag = "Keys", params(("team_id" = TeamId, Path)),
    request_body = CreateKey, responses((status = 200, body = NewKey)))]
pub async fn create(
    mutation: Mutation,
    PathTeam(team_id): PathTeam,
    Body(new): Body<CreateKey>,
) -> Result<Json<NewKey>> {
    make(&mutation, &team_id, new.alias, None).await.map(Json)
}

/// Replace a key
///
/// The new key is shown this once. The one that it replaces works for `grace_seconds` more.
#[utoipa::path(post, path = "/api/teams/{team_id}/keys/rotate", tag = "Keys", params(("team_id" = TeamId, Path)),
    request_body = RotateKey, responses((status = 200, body = NewKey)))]
pub async fn rotate(
    mutation: Mutation,
    PathTeam(team_id): PathTeam,
    Body(new): Body<RotateKey>,
) -> Result<Json<NewKey>> {
    let rotation = Rotation { replaced: new.key_id, grace: new.grace_seconds };
    make(&mutation, &team_id, new.alias, Some(rotation)).await.map(Json)
}

/// How long all that is asked of LiteLLM for a key may take.
const LEASE_SECONDS: i32 = 60;

/// Which key a new one replaces (`None`: the newest), and how long that works on.
struct Rotation {
    replaced: Option<KeyId>,
    grace: Grace,
}

async fn make(
    mutation: &Mutation,
    team_id: &TeamId,
    alias: Option<Label>,
    rotation: Option<Rotation>,
) -> Result<NewKey> {
    #[derive(Deserialize)]
    struct Begun {
        replaced: Option<KeyId>,
        litellm_alias: String,
        leftovers: Vec<String>,
        litellm: DesiredTeam,
    }
    let key_id = KeyId::new_v7();
    let function = function!(begin_key(
        p_team_id: team_id,
        p_key_id: key_id,
        p_alias: alias,
        p_rotate: rotation.is_some(),
        p_replaced: rotation.as_ref().and_then(|rotation| rotation.replaced),
        p_lease_seconds: LEASE_SECONDS,
    ));
    let begun: Begun = match mutation.begin(function).await? {
        Beginning::Repeat(made, secret) => return answer(mutation, made, secret).await,
        Beginning::New(begun) => begun,
    };
    clear(begun.leftovers).await;
    let secret = match admin::generate_key(&begun.litellm, begun.litellm_alias.clone()).await {
        Ok(secret) => secret,
        Err(failure) => {
            let gone = delete_in_litellm(vec![begun.litellm_alias]).await;
            // If this fails, too, a repeat has to wait until the lease is over.
            _ = mutation.release(function!(forget_keys(p_litellm_aliases: gone))).await;
            return Err(failure);
        }
    };
    let grace = rotation.map_or(no_grace(), |rotation| rotation.grace);
    let function = function!(activate_key(
        p_key_id: key_id,
        p_key_hash: secret.hash().to_vec(),
        p_hint: secret.hint(),
        p_replaced: begun.replaced,
        p_grace_seconds: grace.as_i32(),
    ));
    match mutation.finish(function.repeatable(), secret.expose().as_bytes()).await {
        Ok(made) => answer(mutation, made, secret.expose().into()).await,
        Err(failure) => {
            if failure.code == Code::NotFound {
                // The team was deleted meanwhile.
                clear(vec![begun.litellm_alias]).await;
            }
            Err(failure)
        }
    }
}

/// The answer of `activate_key`.
#[derive(Deserialize)]
struct Made {
    key: KeySummary,
    litellm: DesiredTeam,
}

async fn answer(mutation: &Mutation, made: Made, secret: Vec<u8>) -> Result<NewKey> {
    let virtual_key = String::from_utf8(secret).map_err(Error::internal)?;
    let team_id = made.litellm.team_id.clone();
    let synced = sync::after(mutation, made.litellm).await;
    let warning = "LiteLLM could not be told of the replaced key; the team's next call does it";
    let warnings = synced.err().map(|_| warning.to_owned()).into_iter().collect();
    Ok(NewKey { team_id, virtual_key, key: made.key, warnings })
}

/// Deletes keys in LiteLLM that nobody has seen, and what names them here. What can't be deleted now stays for the next time.
async fn clear(aliases: Vec<String>) {
    let gone = delete_in_litellm(aliases).await;
    if !gone.is_empty() {
        _ = function!(forget_keys(p_litellm_aliases: gone)).run::<bool>().await;
    }
}

/// Deletes keys in LiteLLM; answers those that are gone.
async fn delete_in_litellm(aliases: Vec<String>) -> Vec<String> {
    let mut gone = vec![];
    for alias in aliases {
        if admin::delete_key_with_alias(&alias).await.is_ok() {
            gone.push(alias);
        }
    }
    gone
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
    params(("team_id" = TeamId, Path), ("key_id" = KeyId, Path)), responses((status = 200, body = RevokedKey)))]
pub async fn revoke(
    mutation: Mutation,
    PathTeam(team_id): PathTeam,
    PathOf(key_id): PathOf<KeyId>,
) -> Result<Json<RevokedKey>> {
    #[derive(Deserialize)]
    struct Revoked {
        key: KeySummary,
        litellm: DesiredTeam,
    }
    let function = function!(revoke_key(p_team_id: team_id, p_key_id: key_id));
    let Revoked { key, litellm } = mutation.run(function).await?;
    sync::after(&mutation, litellm).await?;
    Ok(Json(RevokedKey { key, revoked: true }))
}
