//! Look-ups of virtual keys, kept in the key-value store for a while.
//!
//! Only keys that work are kept, under the whole SHA-256, so that no two keys share an entry. [`forget`] drops them when their team
//! changes. The store may fail, hang or lie: whatever is wrong with an entry, the database is asked instead.

use crate::{
    platform::time::within,
    values::{KeyId, TeamId},
};
use serde::{Deserialize, Serialize};
use spin_sdk::key_value::Store;
use std::time::{Duration, SystemTime};

/// The SHA-256 of a virtual key.
pub type KeyHash = [u8; 32];

/// What is kept of a look-up. The store has no expiry of its own.
#[derive(Clone, Serialize, Deserialize)]
pub struct Entry {
    /// The key's id.
    pub key_id: KeyId,
    /// Its team.
    pub team_id: TeamId,
    /// When the database was asked, in seconds since 1970.
    pub since: u64,
    /// The second after which the entry counts for nothing.
    pub until: u64,
}

impl Entry {
    /// Whether it still counts.
    pub fn is_valid(&self) -> bool {
        now() < self.until
    }
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// How long the store may take for what is asked of it. Without an answer it goes on as if there were none.
const STORE_LIMIT: Duration = Duration::from_secs(1);

/// A look-up takes less than this many seconds: `spin.toml` bounds connecting and the statement.
const LONGEST_LOOK_UP: u64 = 60;

fn entry_key(hash: &str) -> String {
    format!("virtual-key:{hash}")
}

fn mark_key(hash: &str) -> String {
    format!("forgotten-key:{hash}")
}

/// The entry of a key, if there is one that counts.
pub async fn get(hash: &KeyHash) -> Option<Entry> {
    within(STORE_LIMIT, read(hex::encode(hash))).await.flatten()
}

async fn read(hash: String) -> Option<Entry> {
    let store = Store::open_default().await.ok()?;
    let entry: Entry = serde_json::from_slice(&store.get(entry_key(&hash)).await.ok()??).ok()?;
    // Who put it there a moment ago may not have got to see yet that the key was forgotten meanwhile.
    let fresh = now() <= entry.since.saturating_add(STORE_LIMIT.as_secs());
    let counts = entry.is_valid() && !(fresh && is_forgotten(&store, &hash).await);
    counts.then_some(entry)
}

/// Keeps an entry. Where that fails, the next request asks the database again: slower, not wrong.
pub async fn put(hash: &KeyHash, entry: &Entry) {
    within(STORE_LIMIT, write(hex::encode(hash), entry)).await;
}

async fn write(hash: String, entry: &Entry) {
    if let (Ok(store), Ok(entry)) = (Store::open_default().await, serde_json::to_vec(entry)) {
        _ = store.set(entry_key(&hash), entry).await;
        // Between the look-up and this the team may have changed, and `forget` found nothing yet to drop.
        if is_forgotten(&store, &hash).await {
            _ = store.delete(entry_key(&hash)).await;
        }
    }
}

/// Drops the entries of these keys, given as the hex of their SHA-256, and what look-ups that are under way would put there. An entry
/// that can't be dropped dies by its own expiry.
pub async fn forget(hashes: &[String]) {
    within(STORE_LIMIT, drop_entries(hashes)).await;
}

async fn drop_entries(hashes: &[String]) {
    let Ok(store) = Store::open_default().await else { return };
    for hash in hashes {
        // First the mark, then the entry: a look-up either finds the mark after it has put its entry, or put it in time to be
        // dropped here.
        _ = store.set(mark_key(hash), now().saturating_add(LONGEST_LOOK_UP).to_string()).await;
        _ = store.delete(entry_key(hash)).await;
    }
}

async fn is_forgotten(store: &Store, hash: &str) -> bool {
    let mark = store.get(mark_key(hash)).await.ok().flatten().and_then(|mark| String::from_utf8(mark).ok());
    mark.and_then(|until| until.parse::<u64>().ok()).is_some_and(|until| now() < until)
}
