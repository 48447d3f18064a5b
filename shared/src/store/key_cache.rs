//! The cache of virtual keys in the key-value store.
//!
//! Only valid keys are cached, under their whole SHA-256, so that no two keys share an entry. [`forget`] drops a team's
//! entries when the team changes. The store may fail, hang or return anything: if there is a problem with an entry, the
//! database is asked instead.

use crate::{
    platform::time::within,
    values::{KeyId, TeamId},
};
use serde::{Deserialize, Serialize};
use spin_sdk::key_value::Store;
use std::time::{Duration, SystemTime};

/// The SHA-256 of a virtual key.
pub type KeyHash = [u8; 32];

/// A cache entry. The store has no expiry of its own.
#[derive(Clone, Serialize, Deserialize)]
pub struct Entry {
    /// The key's id.
    pub key_id: KeyId,
    /// Its team.
    pub team_id: TeamId,
    /// Whether the team sees costs; `None`: as the deployment has it.
    #[serde(default)]
    pub costs_visible: Option<bool>,
    /// Whether the team sees models; `None`: as the deployment has it.
    #[serde(default)]
    pub models_visible: Option<bool>,
    /// When the database was asked, in seconds since 1970 (UTC).
    pub since: u64,
    /// When the entry expires, in seconds since 1970 (UTC).
    pub until: u64,
}

impl Entry {
    /// Whether the entry has not expired.
    pub fn is_valid(&self) -> bool {
        now() < self.until
    }
}

/// The current time in seconds since 1970 (UTC).
pub fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The maximum time for one use of the store. After that the request continues as if the store were empty.
const STORE_LIMIT: Duration = Duration::from_secs(1);

/// An upper bound for a look-up in the database, in seconds: `spin.toml` limits connecting and the statement.
const LONGEST_LOOK_UP: u64 = 60;

fn entry_key(hash: &str) -> String {
    format!("virtual-key:{hash}")
}

fn mark_key(hash: &str) -> String {
    format!("forgotten-key:{hash}")
}

/// The valid cache entry of a key, if there is one.
pub async fn get(hash: &KeyHash) -> Option<Entry> {
    within(STORE_LIMIT, read(hex::encode(hash))).await.flatten()
}

async fn read(hash: String) -> Option<Entry> {
    let store = Store::open_default().await.ok()?;
    let entry: Entry = serde_json::from_slice(&store.get(entry_key(&hash)).await.ok()??).ok()?;
    // A request that wrote the entry a moment ago may not have seen yet that the key was forgotten in the meantime.
    let fresh = now() <= entry.since.saturating_add(STORE_LIMIT.as_secs());
    let counts = entry.is_valid() && !(fresh && is_forgotten(&store, &hash).await);
    counts.then_some(entry)
}

/// Caches an entry. If that fails, the next request asks the database again, which is slower but correct.
pub async fn put(hash: &KeyHash, entry: &Entry) {
    within(STORE_LIMIT, write(hex::encode(hash), entry)).await;
}

async fn write(hash: String, entry: &Entry) {
    if let (Ok(store), Ok(entry)) = (Store::open_default().await, serde_json::to_vec(entry)) {
        _ = store.set(entry_key(&hash), entry).await;
        // The team may have changed between the look-up and this, when `forget` had nothing to drop yet.
        if is_forgotten(&store, &hash).await {
            _ = store.delete(entry_key(&hash)).await;
        }
    }
}

/// Drops the entries of these keys, given as the hex of their SHA-256, and keeps look-ups in progress from restoring
/// them. An entry that can't be dropped expires.
pub async fn forget(hashes: &[String]) {
    within(STORE_LIMIT, drop_entries(hashes)).await;
}

async fn drop_entries(hashes: &[String]) {
    let Ok(store) = Store::open_default().await else { return };
    for hash in hashes {
        // First the mark, then the entry: a look-up either finds the mark after it has written its entry, or has
        // written the entry early enough for it to be dropped here.
        _ = store.set(mark_key(hash), now().saturating_add(LONGEST_LOOK_UP).to_string()).await;
        _ = store.delete(entry_key(hash)).await;
    }
}

async fn is_forgotten(store: &Store, hash: &str) -> bool {
    let mark = store.get(mark_key(hash)).await.ok().flatten().and_then(|mark| String::from_utf8(mark).ok());
    mark.and_then(|until| until.parse::<u64>().ok()).is_some_and(|until| now() < until)
}
