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

/// The maximum time in which another batch of jobs is ended, or another deletion finished.
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

/// What [`finish_all`] has done.
pub struct Finished {
    /// The number of deletions that it has finished.
    pub done: i64,
    /// Whether there may be others that it did not come to.
    pub more: bool,
    /// Whether one failed.
    pub failed: bool,
}

/// Finishes deletions that were begun and not finished, up to 20 of them.
pub async fn finish_all() -> Result<Finished> {
    let deletions: Vec<Deletion> = function!(unfinished_deletions()).run().await?;
    let began = Instant::now();
    let mut finished = Finished { done: 0, more: deletions.len() == 20, failed: false };
    for deletion in deletions {
        if began.elapsed() >= LIMIT {
            finished.more = true;
            break;
        }
        match deletion.finish().await {
            Ok(()) => finished.done = finished.done.saturating_add(1),
            Err(error) => {
                error.log("finishing the deletion of a team");
                finished.failed = true;
            }
        }
    }
    Ok(finished)
}
