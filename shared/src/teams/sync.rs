//! Keeping LiteLLM in step with what SQL says of teams.
//!
//! The database holds a version of what LiteLLM is to know of a team ([`DesiredTeam`]), and the version that LiteLLM has. A failure leaves
//! the two apart: the next synchronization mends it, and the team's next call begins with one.

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

/// Sends LiteLLM a change that SQL has just made; of a repeat, only what LiteLLM still lacks.
pub async fn after(mutation: &Mutation, desired: DesiredTeam) -> Result<()> {
    if !mutation.is_replayed() {
        return team(desired).await;
    }
    match function!(litellm_pending_sync(p_team_id: &desired.team_id)).run().await? {
        Some(pending) => team(pending).await,
        None => Ok(()),
    }
}

/// [`after`] for a change of several teams. Those that LiteLLM could not be told of in time follow with their next call; the answer is a
/// warning for the caller then.
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

/// Sends LiteLLM what it is to know of a team, until that is the newest version. Forgets what is cached about the team's keys.
///
/// Two changes at once may reach LiteLLM in either order; each looks afterwards whether what it sent is still the newest, and
/// sends again if not, so the last word is the right one.
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
    // Whoever changes the team that often sends it to LiteLLM, too.
    Err(Error::unavailable("LiteLLM"))
}

/// Writes down that LiteLLM has this version, and that these keys are gone there; answers the newest version.
pub async fn record(team_id: &TeamId, version: i64, revoked: Vec<String>) -> Result<i64> {
    function!(litellm_synced(p_team_id: team_id, p_version: version, p_revoked: revoked)).run().await
}
