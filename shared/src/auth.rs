//! Who calls.
//!
//! * The admin shows `X-Admin-Key`, compared in constant time. No configured admin key: nobody is the admin.
//! * A team shows `Authorization: Bearer sk-…`, a virtual key that LiteLLM generated. Here only its SHA-256 is known.
//!
//! A look-up of a key is cached for `auth_cache_seconds`, in the key-value store and in the instance. That authorises reads and refuses
//! early; every function of `migrations/` that changes something for a key checks the key again, so a stale entry changes nothing.
//! Only keys that may be used are cached, and [`forget`] drops them from the store when their team changes. What other instances
//! remember it can't reach, so that counts only where SQL checks the key again.

use crate::{
    database,
    error::{Code, Error, Result},
    settings,
    time::within,
};
use axum::http::{HeaderMap, HeaderName, header::AUTHORIZATION};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use spin_sdk::{key_value::Store, pg::ParameterValue};
use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};
use subtle::ConstantTimeEq;
use uuid::Uuid;

/// Who may call a route. Declared beside every route, see [`crate::api::Api`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anybody, without a key.
    Public,
    /// The admin.
    Admin,
    /// A team, with its virtual key.
    Team,
    /// The admin or a team. A request with an `X-Admin-Key` is the admin's.
    AdminOrTeam,
}

/// Who a request comes from, once it is established.
#[derive(Debug, Clone)]
pub enum Principal {
    /// A route for [`Access::Public`].
    Nobody,
    /// The admin.
    Admin,
    /// A team.
    Team(TeamKey),
}

/// A virtual key that may be used, and its team.
#[derive(Debug, Clone)]
pub struct TeamKey {
    /// The key's id, which the functions of `migrations/` take.
    pub key_id: Uuid,
    /// The team that the key belongs to.
    pub team_id: String,
    /// The key itself, for LiteLLM.
    pub secret: VirtualKey,
}

/// A virtual key in plain text, as the caller sent it or LiteLLM made it. Not printed by `Debug`.
#[derive(Clone)]
pub struct VirtualKey(String);

impl VirtualKey {
    /// Takes a key as it is.
    pub fn new(key: String) -> Self {
        Self(key)
    }

    /// The key itself: for LiteLLM, and for the one answer that shows it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Its SHA-256, which is what is stored.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(&self.0).into()
    }

    /// Its last four characters, by which people tell keys apart.
    pub fn hint(&self) -> String {
        let skipped = self.0.chars().count().saturating_sub(4);
        self.0.chars().skip(skipped).collect()
    }
}

impl fmt::Debug for VirtualKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VirtualKey(…)")
    }
}

impl Principal {
    /// Refuses a team that asks for another one. Comes before any look at the team asked for, so nothing is learnt about it.
    pub fn may_see(&self, team_id: &str) -> Result<()> {
        match self {
            Principal::Team(key) if key.team_id != team_id => {
                Err(Error::new(Code::WrongTeam, format!("API key does not belong to team '{team_id}'")))
            }
            _ => Ok(()),
        }
    }

    /// The id of the team's key as a parameter of a statement; NULL for the admin.
    pub fn key_id(&self) -> ParameterValue {
        match self {
            Principal::Team(key) => database::uuid(key.key_id),
            Principal::Admin | Principal::Nobody => ParameterValue::DbNull,
        }
    }

    /// The team whose things are asked for; `None` for the admin, who may see all.
    pub fn team_id(&self) -> Option<&str> {
        match self {
            Principal::Team(key) => Some(&key.team_id),
            Principal::Admin | Principal::Nobody => None,
        }
    }
}

const ADMIN_KEY: HeaderName = HeaderName::from_static("x-admin-key");

/// Establishes who the request comes from, or refuses it. `checked_again`: the request does nothing for a team but what SQL, in the same
/// statement, checks the key for.
pub async fn authenticate(access: Access, headers: &HeaderMap, checked_again: bool) -> Result<Principal> {
    match access {
        Access::Public => Ok(Principal::Nobody),
        Access::Admin => admin(headers).await,
        Access::AdminOrTeam if headers.contains_key(ADMIN_KEY) => admin(headers).await,
        Access::Team | Access::AdminOrTeam => team(headers, checked_again).await.map(Principal::Team),
    }
}

async fn admin(headers: &HeaderMap) -> Result<Principal> {
    let refused = |detail| Err(Error::new(Code::Unauthenticated, detail));
    let Some(shown) = headers.get(ADMIN_KEY) else {
        return refused("Missing X-Admin-Key header. Admin authentication required.");
    };
    let configured = settings::text("admin_key").await?;
    // Digests have the same length whatever was sent, so the comparison takes the same time.
    let equal = Sha256::digest(shown.as_bytes()).ct_eq(&Sha256::digest(&configured));
    let single = headers.get_all(ADMIN_KEY).iter().count() == 1;
    if bool::from(equal) && single && !configured.is_empty() {
        Ok(Principal::Admin)
    } else {
        refused("Invalid admin API key")
    }
}

async fn team(headers: &HeaderMap, checked_again: bool) -> Result<TeamKey> {
    let secret = bearer(headers)?;
    let hash = secret.hash();
    let remembered = if checked_again { remembered(&hash) } else { None };
    let Entry { key_id, team_id, .. } = match remembered {
        Some(entry) => entry,
        None => ask(&hash).await?,
    };
    Ok(TeamKey { key_id, team_id, secret })
}

/// Refuses a team whose key ended after this instance had last asked about it: for a request that SQL has not got to see.
pub(crate) async fn confirm(principal: &Principal) -> Result<()> {
    match principal {
        Principal::Team(key) => ask(&key.secret.hash()).await.map(drop),
        Principal::Admin | Principal::Nobody => Ok(()),
    }
}

/// What the store or the database knows of a key.
async fn ask(hash: &[u8; 32]) -> Result<Entry> {
    let entry = match cached(hash).await {
        Some(entry) => entry,
        None => look_up_and_cache(hash).await?,
    };
    remember(hash, &entry);
    Ok(entry)
}

/// The keys that this instance has seen.
static SEEN: Mutex<BTreeMap<[u8; 32], Entry>> = Mutex::new(BTreeMap::new());

/// The most keys that an instance remembers.
const MOST_SEEN: usize = 1000;

fn seen() -> MutexGuard<'static, BTreeMap<[u8; 32], Entry>> {
    SEEN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn remembered(hash: &[u8; 32]) -> Option<Entry> {
    seen().get(hash).filter(|entry| now() < entry.until).cloned()
}

fn remember(hash: &[u8; 32], entry: &Entry) {
    let mut seen = seen();
    if seen.len() >= MOST_SEEN {
        seen.clear();
    }
    seen.insert(*hash, entry.clone());
}

/// The virtual key of a request's one `Authorization` header, which is not yet known to be valid.
pub fn bearer(headers: &HeaderMap) -> Result<VirtualKey> {
    let refused = |detail| Err(Error::new(Code::Unauthenticated, detail));
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return refused("Missing Authorization header. Expected: 'Authorization: Bearer sk-xxx...'");
    };
    let key = value
        .to_str()
        .ok()
        .filter(|_| values.next().is_none())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, key)| {
            scheme.eq_ignore_ascii_case("bearer") && !key.is_empty() && !key.contains(' ')
        });
    match key {
        None => refused("Invalid Authorization header format. Expected: 'Authorization: Bearer sk-xxx...'"),
        Some((_, key)) => Ok(VirtualKey(key.to_owned())),
    }
}

#[derive(Deserialize)]
struct Found {
    key_id: Uuid,
    team_id: String,
    status: String,
    /// For a key that was replaced and works on for a while: how long.
    seconds_left: Option<u64>,
}

async fn look_up(hash: &[u8; 32]) -> Result<Found> {
    let found: Option<Found> =
        database::call("SELECT lookup_key($1)::text AS answer", vec![ParameterValue::Binary(hash.to_vec())])
            .await?;
    match found {
        None => Err(Error::new(Code::Unauthenticated, "Invalid API key")),
        Some(found) if found.status == "suspended" => {
            Err(Error::new(Code::TeamSuspended, format!("Team '{}' is suspended", found.team_id)))
        }
        Some(found) => Ok(found),
    }
}

/// What the key-value store holds under [`cache_key`], and an instance remembers. The store has no expiry of its own.
#[derive(Clone, Serialize, Deserialize)]
struct Entry {
    key_id: Uuid,
    team_id: String,
    /// When the database was asked, in seconds since 1970.
    since: u64,
    /// The second after which the entry counts for nothing.
    until: u64,
}

/// The whole digest: two keys never share an entry.
fn cache_key(hash: &str) -> String {
    format!("virtual-key:{hash}")
}

fn hex(hash: &[u8; 32]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

/// How long the store may take for what is asked of it. Without an answer it goes on as if there were none.
const STORE_LIMIT: Duration = Duration::from_secs(1);

/// A cache may fail, hang or lie; whatever is wrong with an entry, the database is asked instead.
async fn cached(hash: &[u8; 32]) -> Option<Entry> {
    within(STORE_LIMIT, read_entry(hash)).await.flatten()
}

async fn read_entry(hash: &[u8; 32]) -> Option<Entry> {
    let store = Store::open_default().await.ok()?;
    let hash = hex(hash);
    let entry: Entry = serde_json::from_slice(&store.get(cache_key(&hash)).await.ok()??).ok()?;
    // Who put it there a moment ago may not have got to see yet that the key was forgotten meanwhile.
    let fresh = now() <= entry.since.saturating_add(STORE_LIMIT.as_secs());
    let counts = now() < entry.until && !(fresh && recently_forgotten(&store, &hash).await);
    counts.then_some(entry)
}

/// Asks the database about a key, and puts what it says into the store. Without the entry the next request asks the database again:
/// slower, not wrong.
async fn look_up_and_cache(hash: &[u8; 32]) -> Result<Entry> {
    let since = now();
    let Found { key_id, team_id, seconds_left, .. } = look_up(hash).await?;
    let lifetime: u64 = settings::parsed("auth_cache_seconds").await.unwrap_or(0);
    let lifetime = seconds_left.map_or(lifetime, |left| left.min(lifetime));
    let entry = Entry { key_id, team_id, since, until: now().saturating_add(lifetime) };
    if lifetime > 0 {
        within(STORE_LIMIT, write_entry(hash, &entry)).await;
    }
    Ok(entry)
}

async fn write_entry(hash: &[u8; 32], entry: &Entry) {
    let hash = hex(hash);
    if let (Ok(store), Ok(entry)) = (Store::open_default().await, serde_json::to_vec(entry)) {
        _ = store.set(cache_key(&hash), entry).await;
        // Between the look-up and this the team may have changed, and `forget` found nothing yet to drop.
        if recently_forgotten(&store, &hash).await {
            _ = store.delete(cache_key(&hash)).await;
        }
    }
}

/// Drops what is cached about these keys, given as the hex of their SHA-256, and what look-ups that are under way would put there.
/// An entry that can't be dropped dies by its own expiry.
pub async fn forget(key_hashes: &[String]) {
    within(STORE_LIMIT, drop_entries(key_hashes)).await;
}

async fn drop_entries(key_hashes: &[String]) {
    let Ok(store) = Store::open_default().await else { return };
    for hash in key_hashes {
        // First the mark, then the entry: a look-up either finds the mark after it has put its entry, or put it in time to be
        // dropped here.
        _ = store.set(forgotten_key(hash), now().saturating_add(LONGEST_LOOK_UP).to_string()).await;
        _ = store.delete(cache_key(hash)).await;
    }
}

/// A look-up takes less than this many seconds: `spin.toml` bounds connecting and the statement.
const LONGEST_LOOK_UP: u64 = 60;

fn forgotten_key(hash: &str) -> String {
    format!("forgotten-key:{hash}")
}

async fn recently_forgotten(store: &Store, hash: &str) -> bool {
    let mark =
        store.get(forgotten_key(hash)).await.ok().flatten().and_then(|mark| String::from_utf8(mark).ok());
    mark.and_then(|until| until.parse::<u64>().ok()).is_some_and(|until| now() < until)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer_of(values: &[&str]) -> Result<String, String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, value.parse().unwrap());
        }
        bearer(&headers).map(|key| key.expose().to_owned()).map_err(|error| error.detail.clone())
    }

    #[test]
    fn only_one_well_formed_authorization_header_is_taken() {
        assert_eq!(bearer_of(&["Bearer sk-1"]).unwrap(), "sk-1");
        assert_eq!(bearer_of(&["bearer sk-1"]).unwrap(), "sk-1");
        assert!(bearer_of(&[]).unwrap_err().starts_with("Missing Authorization header."));
        for values in [
            &["sk-1"][..],
            &["Basic x"],
            &["Bearer "],
            &["Bearer sk 1"],
            &["Bearer  sk-1"],
            &["Bearer a", "Bearer b"],
        ] {
            assert!(
                bearer_of(values).unwrap_err().starts_with("Invalid Authorization header format."),
                "{values:?}"
            );
        }
    }

    #[test]
    fn a_key_is_never_printed() {
        let key = VirtualKey::new("sk-secret-1234".into());
        assert!(!format!("{key:?}").contains("secret"));
        assert_eq!(key.hint(), "1234");
    }
}
