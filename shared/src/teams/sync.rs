//! Synchronizing LiteLLM with the teams in the database.
//!
//! The database holds the version of a team's desired state in LiteLLM ([`DesiredTeam`]), and the version that LiteLLM
//! has. After a failure the two differ until the next synchronization, with which the team's next call begins.

use crate::{
    error::{Error, Result},
    function,
    http::Mutation,
    litellm::admin::{self, DesiredTeam},
    platform::time::within,
    store::key_cache,
    values::TeamId,
};
use futures::{StreamExt, stream};
use std::time::Duration;

/// Synchronizes LiteLLM after a change in SQL. For a replayed answer, it sends only what LiteLLM still lacks.
pub async fn after(mutation: &Mutation, desired: DesiredTeam) -> Result<()> {
    if !mutation.is_replayed() {
        return team(desired).await;
    }
    match function!(litellm_pending_sync(p_team_id: &desired.team_id)).run().await? {
        Some(pending) => team(pending).await,
        None => Ok(()),
    }
}

/// [`after`] for a change of several teams. Teams that could not be synchronized in time are synchronized with their
/// next call; the result is then a warning for the caller.
pub async fn all_after(mutation: &Mutation, teams: Vec<DesiredTeam>) -> Option<String> {
    const AT_ONCE: usize = 8;
    const LIMIT: Duration = Duration::from_secs(15);
    let mut waiting = teams.len();
    let mut syncs = stream::iter(teams).map(|desired| after(mutation, desired)).buffer_unordered(AT_ONCE);
    let all = async {
        while let Some(synced) = syncs.next().await {
            waiting = waiting.saturating_sub(synced.is_ok().into());
        }
    };
    within(LIMIT, all).await;
    (waiting > 0).then(|| {
        format!("LiteLLM could not be told of the change for {waiting} teams; their next call does it")
    })
}

/// Sends a team's desired state to LiteLLM until LiteLLM has the newest version. Drops the cache entries of the team's
/// keys.
///
/// Two concurrent changes may reach LiteLLM in either order. Each checks afterwards whether the version that it has
/// sent is still the newest, and sends again if not, so LiteLLM ends with the newest.
pub async fn team(mut desired: DesiredTeam) -> Result<()> {
    let hashes: Vec<String> =
        desired.keys.iter().map(|key| &key.hash).chain(&desired.revoked).cloned().collect();
    key_cache::forget(&hashes).await;
    for _ in 0..5 {
        admin::update_team(&desired).await?;
        let newest = record(&desired.team_id, desired.version, desired.revoked).await?;
        if newest == desired.version {
            return Ok(());
        }
        desired = function!(litellm_desired_team(p_team_id: &desired.team_id)).run().await?;
    }
    // Those who change the team so often synchronize it too.
    Err(Error::unavailable("LiteLLM"))
}

/// Records that LiteLLM has this version, and that these keys are deleted there. Returns the newest version.
pub async fn record(team_id: &TeamId, version: i64, revoked: Vec<String>) -> Result<i64> {
    function!(litellm_synced(p_team_id: team_id, p_version: version, p_revoked: revoked)).run().await
}
