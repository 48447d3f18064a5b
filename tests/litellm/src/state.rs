//! Everything that the stand-in remembers, behind one lock.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::cost::Cost;
use crate::journal::Journal;
use crate::limits::Window;
use crate::records::{KeyRecord, TeamRecord};
use crate::spend::SpendRow;
use crate::time;

/// Rows of the spend log that are kept; older ones are forgotten.
const SPEND_ROWS: usize = 20_000;

/// How long the real LiteLLM goes on with its cached copy of a team.
const TEAM_CACHE: TimeDelta = TimeDelta::seconds(60);

/// What every handler gets.
pub(crate) type App = Arc<Shared>;

/// The running server's memory and settings.
pub(crate) struct Shared {
    state: Mutex<State>,
    pub master_key: String,
    /// Requests and planned faults, under a lock of their own.
    pub journal: Mutex<Journal>,
    /// While true every connection is closed without an answer.
    pub down: watch::Sender<bool>,
}

impl Shared {
    pub fn new(master_key: String, state: State, journal: Journal) -> App {
        let down = watch::Sender::new(false);
        Arc::new(Shared { state: Mutex::new(state), master_key, journal: Mutex::new(journal), down })
    }

    /// The state. A panic elsewhere leaves it usable: no change of it can panic half way.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The journal of requests.
    pub fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is saved to a file, and read from it at the start.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Saved {
    teams: Vec<TeamRecord>,
    keys: Vec<KeyRecord>,
    deleted_keys: Vec<KeyRecord>,
}

/// Teams, keys, counters and the spend log.
#[derive(Default)]
pub(crate) struct State {
    pub teams: BTreeMap<String, TeamRecord>,
    /// By hash.
    pub keys: BTreeMap<String, KeyRecord>,
    /// By hash; of several with one hash the last.
    pub deleted_keys: BTreeMap<String, KeyRecord>,
    pub spend_log: VecDeque<SpendRow>,
    /// Whether nothing of the spend log is written yet.
    pub spend_log_is_late: bool,
    /// Rate limit windows, by scope such as `api_key:<hash>`.
    pub windows: HashMap<String, Window>,
    /// By team: what calls still see of `blocked` after `/team/block` and `/team/unblock`, and until when.
    blocks_seen: HashMap<String, (bool, DateTime<Utc>)>,
    /// Calls under way, by the key's hash.
    pub in_flight: HashMap<String, i64>,
    file: Option<PathBuf>,
    /// Whether spend has changed since the last saving.
    unsaved: bool,
}

impl State {
    /// A state that is saved to a file, and begins with what is in it.
    ///
    /// # Errors
    /// When the file is there and can't be read as a saved state.
    pub fn load(file: &Path) -> Result<State> {
        let mut state = State { file: Some(file.to_owned()), ..State::default() };
        if !file.exists() {
            return Ok(state);
        }
        let text =
            fs::read(file).with_context(|| format!("cannot read the state file {}", file.display()))?;
        let saved: Saved = serde_json::from_slice(&text).with_context(|| {
            format!("{} is not a state file of the stand-in; delete it to start empty", file.display())
        })?;
        state.teams = saved.teams.into_iter().map(|team| (team.team_id.clone(), team)).collect();
        state.keys = by_hash(saved.keys);
        state.deleted_keys = by_hash(saved.deleted_keys);
        Ok(state)
    }

    /// Writes teams and keys to the state file, if there is one. It replaces the file in one step.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn save(&mut self) -> Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let saved = Saved {
            teams: self.teams.values().cloned().collect(),
            keys: self.keys.values().cloned().collect(),
            deleted_keys: self.deleted_keys.values().cloned().collect(),
        };
        let next = file.with_extension("next");
        fs::write(&next, serde_json::to_vec_pretty(&saved)?)
            .and_then(|()| fs::rename(&next, file))
            .with_context(|| format!("cannot write the state file {}", file.display()))?;
        self.unsaved = false;
        Ok(())
    }

    /// Writes the state file if spend has changed since it was written.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn save_spend(&mut self) -> Result<()> {
        if self.unsaved { self.save() } else { Ok(()) }
    }

    /// Starts budgets anew whose time has come, for this key and its team.
    pub fn reset_due_budgets(&mut self, hash: &str, now: DateTime<Utc>) {
        let Some(key) = self.keys.get_mut(hash) else { return };
        if key.budget_reset_at.is_some_and(|at| at <= now) {
            key.spend = 0.0;
            key.budget_reset_at = key.budget_duration.as_deref().and_then(|text| time::next_reset(text, now));
        }
        let team = key.team_id.clone().and_then(|id| self.teams.get_mut(&id));
        if let Some(team) = team.filter(|team| team.budget_reset_at.is_some_and(|at| at <= now)) {
            team.spend = 0.0;
            team.budget_reset_at =
                team.budget_duration.as_deref().and_then(|text| time::next_reset(text, now));
        }
    }

    /// Adds what a call cost to the key and its team, as far as they still exist.
    pub fn charge(&mut self, hash: &str, usd: f64, now: DateTime<Utc>) {
        let Some(key) = self.keys.get_mut(hash) else { return };
        key.spend += usd;
        key.total_spend += usd;
        key.last_active = Some(now);
        if let Some(team) = key.team_id.clone().and_then(|id| self.teams.get_mut(&id)) {
            team.spend += usd;
        }
        self.unsaved = true;
    }

    /// Blocks or unblocks a team as `/team/block` and `/team/unblock` do: calls notice it only when LiteLLM's cached
    /// copy of the team has aged. Says whether the team exists.
    pub fn block_later(&mut self, team_id: &str, blocked: bool, now: DateTime<Utc>) -> bool {
        let Some(team) = self.teams.get_mut(team_id) else { return false };
        let seen = (team.blocked, now + TEAM_CACHE);
        let cached = self.blocks_seen.entry(team_id.to_owned()).or_insert(seen);
        if cached.1 <= now {
            *cached = seen;
        }
        team.blocked = blocked;
        team.updated_at = now;
        true
    }

    /// Puts a team into the place of the last one with its id; calls see it at once.
    pub fn put_team(&mut self, team: TeamRecord) {
        self.blocks_seen.remove(&team.team_id);
        self.teams.insert(team.team_id.clone(), team);
    }

    /// Whether calls of the team's keys are refused because it is blocked.
    pub fn sees_blocked(&self, team: &TeamRecord, now: DateTime<Utc>) -> bool {
        match self.blocks_seen.get(&team.team_id) {
            Some((seen, until)) if *until > now => *seen,
            _ => team.blocked,
        }
    }

    /// Adds a row to the spend log.
    pub fn log_spend(&mut self, row: SpendRow) {
        if self.spend_log.len() == SPEND_ROWS {
            self.spend_log.pop_front();
        }
        self.spend_log.push_back(row);
    }

    /// Gives the rows of a model that have no cost one of so much for each token.
    pub fn price_log(&mut self, model: &str, usd_per_token: f64) {
        for row in self.spend_log.iter_mut().filter(|row| row.model == model && row.cost.total() == 0.0) {
            row.cost = Cost {
                input: row.usage.prompt as f64 * usd_per_token,
                output: row.usage.completion as f64 * usd_per_token,
            };
        }
    }

    /// Deletes a key, and says whether it was there. It stays visible in `/key/info`.
    pub fn delete_key(&mut self, hash: &str, now: DateTime<Utc>) -> bool {
        let Some(mut key) = self.keys.remove(hash) else { return false };
        key.deleted_at = Some(now);
        self.deleted_keys.insert(hash.to_owned(), key);
        true
    }

    /// The hashes of a team's keys, in the order in which they were made.
    pub fn keys_of(&self, team_id: &str) -> Vec<&KeyRecord> {
        let mut keys: Vec<&KeyRecord> =
            self.keys.values().filter(|key| key.team_id.as_deref() == Some(team_id)).collect();
        keys.sort_by_key(|key| key.created_at);
        keys
    }
}

fn by_hash(keys: Vec<KeyRecord>) -> BTreeMap<String, KeyRecord> {
    keys.into_iter().map(|key| (key.token.clone(), key)).collect()
}
