//! Putting LiteLLM right for a team.

use axum::Json;
use serde::{Deserialize, Serialize};
use shared::{
    error::Result,
    function,
    http::{Body, Mutation, NoFields, PathTeam},
    litellm::admin::{self, DesiredTeam},
    teams::sync,
    values::{KeyId, TeamId},
};
use utoipa::ToSchema;
use uuid::Uuid;

/// What was put right.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Resynced {
    /// The team.
    team_id: TeamId,
    /// What was not in LiteLLM as it should be, and is now: `team` where LiteLLM had no such team, `team.FIELD`, and
    /// `keys.KEY_ID.FIELD`.
    changed: Vec<String>,
    /// The keys that LiteLLM has lost. They can't be made again, since only their digests are known: rotate them.
    keys_to_rotate: Vec<KeyId>,
}

/// The answer of `begin_resync`.
#[derive(Deserialize)]
struct Begun {
    marker: Uuid,
    keys: Vec<Key>,
    litellm: DesiredTeam,
}

#[derive(Deserialize)]
struct Key {
    key_id: KeyId,
    hash: String,
}

/// Resynchronize a team with LiteLLM
///
/// Makes the team, its keys, their models, limits and budget in LiteLLM what they should be, also where LiteLLM has
/// lost the team, and says what was not so.
#[utoipa::path(post, path = "/api/teams/{team_id}/resync", tag = "Teams", params(("team_id" = TeamId, Path)),
    responses((status = 200, body = Resynced)))]
pub async fn resync(
    mutation: Mutation,
    PathTeam(team_id): PathTeam,
    Body(NoFields {}): Body<NoFields>,
) -> Result<Json<Resynced>> {
    // Reads only.
    let end = || function!(litellm_pending_sync(p_team_id: &team_id));
    let begin = function!(begin_resync(p_team_id: &team_id));
    mutation.work(begin, end, |begun: Begun| put_right(&team_id, begun)).await.map(Json)
}

async fn put_right(team_id: &TeamId, begun: Begun) -> Result<Resynced> {
    let Begun { marker, keys, litellm } = begun;
    let mut changed = vec![];
    let mut keys_to_rotate = vec![];
    match admin::team_differences(&litellm).await? {
        None => {
            admin::create_team(&litellm, marker).await?;
            changed.push("team".to_owned());
        }
        Some(fields) => changed.extend(fields.iter().map(|field| format!("team.{field}"))),
    }
    for Key { key_id, hash } in keys {
        match admin::key_differences(&litellm, &hash).await? {
            None => keys_to_rotate.push(key_id),
            Some(fields) => changed.extend(fields.iter().map(|field| format!("keys.{key_id}.{field}"))),
        }
    }
    sync::team(litellm).await?;
    Ok(Resynced { team_id: team_id.clone(), changed, keys_to_rotate })
}
