//! Deleting teams, which takes several statements and LiteLLM.

use super::sync;
use crate::{
    error::{Code, Error, Result},
    function,
    litellm::admin,
    store::key_cache,
    values::TeamId,
};
use serde::Deserialize;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// The maximum time in which another batch of jobs is ended.
const LIMIT: Duration = Duration::from_secs(15);

/// A team that is deleted here, but perhaps not in LiteLLM yet, and may have open jobs.
#[derive(Deserialize)]
pub struct Deletion {
    team_id: TeamId,
    marker: Uuid,
    key_hashes: Vec<String>,
    version: i64,
}

impl Deletion {
    /// Revokes the team's keys in LiteLLM, ends its jobs and records that both is done. Can be repeated.
    pub async fn finish(self) -> Result<()> {
        #[derive(Deserialize)]
        struct Ended {
            more: bool,
        }
        let Self { team_id, marker, key_hashes, version } = self;
        key_cache::forget(&key_hashes).await;
        admin::delete_team(&team_id, marker, &key_hashes).await?;
        let began = Instant::now();
        loop {
            let Ended { more } = function!(end_jobs_of_deleted_team(p_team_id: &team_id)).run().await?;
            if !more {
                break;
            }
            if began.elapsed() >= LIMIT {
                const MORE: &str = "The team has more open jobs than one request ends: the next one goes on";
                return Err(Error::new(Code::Unavailable, MORE));
            }
        }
        sync::record(&team_id, version, key_hashes).await.map(drop)
    }
}

/// Finishes deletions that were begun and not finished, up to 20 of them. Returns how many, and whether one failed.
pub async fn finish_all() -> Result<(i64, bool)> {
    let deletions: Vec<Deletion> = function!(unfinished_deletions()).run().await?;
    let (mut finished, mut failed) = (0_i64, false);
    for deletion in deletions {
        match deletion.finish().await {
            Ok(()) => finished = finished.saturating_add(1),
            Err(error) => {
                error.log("finishing the deletion of a team");
                failed = true;
            }
        }
    }
    Ok((finished, failed))
}
