//! The caller of a request.
//!
//! * The admin sends `X-Admin-Key`, which is compared in constant time. If no admin key is configured, nobody is the
//!   admin.
//! * A team sends `Authorization: Bearer sk-…`, a virtual key that LiteLLM generated. Only its SHA-256 is known here.
//!
//! The look-up of a key is cached for `auth_cache_seconds`, in the key-value store and in the instance. A cache entry
//! authorizes reads and allows early refusals. Every function of `migrations/` that changes something for a key checks
//! the key again, so a stale entry changes nothing. Entries in other instances can't be invalidated, so an instance's
//! own entry is used only where SQL checks the key again.

use super::access::{self, Access, Authenticated};
use crate::{
    error::{Code, Error, Result},
    function,
    platform::settings,
    store::{
        key_cache::{self, Entry, KeyHash},
        parameters::Actor,
    },
    values::{KeyId, TeamId, TeamStatus, VirtualKey},
};
use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderName, header::AUTHORIZATION, request::Parts},
};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};
use subtle::ConstantTimeEq;

/// The authenticated caller of a request. A public route has none.
#[derive(Debug, Clone)]
pub enum Caller {
    /// The admin.
    Admin,
    /// A team.
    Team(TeamKey),
}

/// A valid virtual key, and its team.
#[derive(Debug, Clone)]
pub struct TeamKey {
    /// The key's id.
    pub key_id: KeyId,
    /// The team that the key belongs to.
    pub team_id: TeamId,
    /// The key itself, to be sent to LiteLLM.
    pub secret: VirtualKey,
    /// Whether the team sees costs; `None`: as the deployment has it.
    costs_visible: Option<bool>,
    /// Whether the team sees models; `None`: as the deployment has it.
    models_visible: Option<bool>,
}

impl Caller {
    /// Refuses a team that asks for another team. It runs before any look-up of the other team, so that nothing can be
    /// learnt about it.
    pub fn may_see(&self, team_id: &TeamId) -> Result<()> {
        match self {
            Caller::Team(key) if key.team_id != *team_id => {
                Err(Error::new(Code::WrongTeam, format!("API key does not belong to team '{team_id}'")))
            }
            _ => Ok(()),
        }
    }

    /// Whether the caller may see what calls cost in US dollars. A change of that reaches an answer within
    /// `auth_cache_seconds`.
    pub async fn sees_costs(&self) -> Result<bool> {
        match self {
            Caller::Admin => Ok(true),
            Caller::Team(key) => key.sees_costs().await,
        }
    }

    /// Whether the caller may see the names of models.
    pub async fn sees_models(&self) -> Result<bool> {
        match self {
            Caller::Admin => Ok(true),
            Caller::Team(TeamKey { models_visible: Some(visible), .. }) => Ok(*visible),
            Caller::Team(_) => settings::parsed("models_visible_to_teams").await,
        }
    }

    /// The actor for functions that change something.
    pub fn actor(&self) -> Actor {
        match self {
            Caller::Admin => Actor::Admin,
            Caller::Team(key) => key.actor(),
        }
    }

    /// The actor for functions that only read.
    pub fn reader(&self) -> Actor {
        match self {
            Caller::Admin => Actor::Admin,
            Caller::Team(key) => Actor::Team(key.team_id.clone()),
        }
    }
}

impl TeamKey {
    /// [`Caller::sees_costs`] of the team.
    pub async fn sees_costs(&self) -> Result<bool> {
        match self.costs_visible {
            Some(visible) => Ok(visible),
            None => settings::parsed("costs_visible_to_teams").await,
        }
    }

    /// The actor for functions that change something.
    pub fn actor(&self) -> Actor {
        Actor::Key(self.key_id)
    }
}

const ADMIN_KEY: HeaderName = HeaderName::from_static("x-admin-key");

/// Authenticates the caller of a request, or refuses it. A public route has no caller. `checked_again`: everything that
/// the request does for a team is done by SQL statements that check the key themselves.
pub async fn authenticate(
    access: Access,
    headers: &HeaderMap,
    checked_again: bool,
) -> Result<Option<Caller>> {
    match access {
        Access::Public => Ok(None),
        Access::Admin => admin(headers).await.map(Some),
        Access::AdminOrTeam if headers.contains_key(ADMIN_KEY) => admin(headers).await.map(Some),
        Access::Team | Access::AdminOrTeam => {
            team(headers, checked_again).await.map(|key| Some(Caller::Team(key)))
        }
    }
}

async fn admin(headers: &HeaderMap) -> Result<Caller> {
    let refused = |detail| Err(Error::new(Code::Unauthenticated, detail));
    let Some(shown) = headers.get(ADMIN_KEY) else {
        return refused("Missing X-Admin-Key header. Admin authentication required.");
    };
    let configured = settings::text("admin_key").await?;
    // Digests have the same length whatever was sent, so the comparison takes the same time.
    let equal = Sha256::digest(shown.as_bytes()).ct_eq(&Sha256::digest(&configured));
    let single = headers.get_all(ADMIN_KEY).iter().count() == 1;
    if bool::from(equal) && single && !configured.is_empty() {
        Ok(Caller::Admin)
    } else {
        refused("Invalid admin API key")
    }
}

async fn team(headers: &HeaderMap, checked_again: bool) -> Result<TeamKey> {
    let secret = bearer(headers)?;
    let hash = secret.hash();
    let remembered = if checked_again { remembered(&hash) } else { None };
    let Entry { key_id, team_id, costs_visible, models_visible, .. } = match remembered {
        Some(entry) => entry,
        None => ask(&hash).await?,
    };
    Ok(TeamKey { key_id, team_id, secret, costs_visible, models_visible })
}

/// Refuses a team whose key may have been revoked since this instance cached it: for a request that has reached no SQL
/// statement.
pub(crate) async fn confirm(caller: &Caller) -> Result<()> {
    match caller {
        Caller::Team(key) => ask(&key.secret.hash()).await.map(drop),
        Caller::Admin => Ok(()),
    }
}

/// The entry of a key from the key-value store, or else from the database.
async fn ask(hash: &KeyHash) -> Result<Entry> {
    let entry = match key_cache::get(hash).await {
        Some(entry) => entry,
        None => look_up(hash).await?,
    };
    remember(hash, &entry);
    Ok(entry)
}

/// This instance's own cache of keys.
static SEEN: Mutex<BTreeMap<KeyHash, Entry>> = Mutex::new(BTreeMap::new());

/// The maximum number of keys that an instance caches.
const MOST_SEEN: usize = 1000;

fn seen() -> MutexGuard<'static, BTreeMap<KeyHash, Entry>> {
    SEEN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn remembered(hash: &KeyHash) -> Option<Entry> {
    seen().get(hash).filter(|entry| entry.is_valid()).cloned()
}

fn remember(hash: &KeyHash, entry: &Entry) {
    let mut seen = seen();
    if seen.len() >= MOST_SEEN {
        seen.clear();
    }
    seen.insert(*hash, entry.clone());
}

/// The virtual key of a request's only `Authorization` header. Whether it is valid is not known yet.
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
        Some((_, key)) => Ok(VirtualKey::new(key.to_owned())),
    }
}

/// Looks up a key in the database, and caches the result.
async fn look_up(hash: &KeyHash) -> Result<Entry> {
    #[derive(Deserialize)]
    struct Found {
        key_id: KeyId,
        team_id: TeamId,
        status: TeamStatus,
        costs_visible: Option<bool>,
        models_visible: Option<bool>,
        /// For a replaced key in its grace period: the seconds that are left of it.
        seconds_left: Option<u64>,
    }
    let since = key_cache::now();
    let found: Option<Found> = function!(lookup_key(p_key_hash: hash.to_vec())).run().await?;
    let Found { key_id, team_id, status, costs_visible, models_visible, seconds_left } =
        found.ok_or_else(|| Error::new(Code::Unauthenticated, "Invalid API key"))?;
    if status == TeamStatus::Suspended {
        return Err(Error::new(Code::TeamSuspended, format!("Team '{team_id}' is suspended")));
    }
    let lifetime: u64 = settings::parsed("auth_cache_seconds").await.unwrap_or(0);
    let lifetime = seconds_left.map_or(lifetime, |left| left.min(lifetime));
    let until = key_cache::now().saturating_add(lifetime);
    let entry = Entry { key_id, team_id, costs_visible, models_visible, since, until };
    if lifetime > 0 {
        key_cache::put(hash, &entry).await;
    }
    Ok(entry)
}

fn established(parts: &Parts) -> Result<Caller> {
    parts.extensions.get().cloned().ok_or_else(|| Error::internal("a route without a caller"))
}

/// The caller of a route that is not public.
impl<K: Authenticated> FromRequestParts<K> for Caller {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &K) -> Result<Self> {
        established(parts)
    }
}

/// The key of the team that calls a route for teams.
impl FromRequestParts<access::Team> for TeamKey {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &access::Team) -> Result<Self> {
        match established(parts)? {
            Caller::Team(key) => Ok(key),
            Caller::Admin => Err(Error::internal("a team's handler on a route for others")),
        }
    }
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
}
