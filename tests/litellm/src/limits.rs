//! LiteLLM's rate limits: requests and tokens a minute for keys and teams, and calls at the same time for keys.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;

use crate::error::ApiError;
use crate::reply::{max_tokens, text_tokens};
use crate::state::State;

/// How long a window lasts from its first request, in seconds; what `retry-after` says, however much of it is left.
const WINDOW_SECONDS: i64 = 60;

/// Without a limit of its own, a call reserves so many tokens for its answer, or a quarter of the smallest limit if
/// that is less, but as many as for its prompt at the least.
const ASSUMED_ANSWER: i64 = 1024;

/// What was used in the current minute.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    started: DateTime<Utc>,
    requests: i64,
    tokens: i64,
}

/// A key or a team with its limits.
#[derive(Debug, Clone)]
struct Scope {
    /// `api_key` or `team`.
    kind: &'static str,
    id: String,
    rpm: Option<i64>,
    tpm: Option<i64>,
}

impl Scope {
    fn name(&self) -> String {
        format!("{}:{}", self.kind, self.id)
    }
}

/// What a call under way holds; it must be given back with [`Reservation::release`].
#[derive(Debug)]
pub(crate) struct Reservation {
    hash: String,
    tokens: i64,
    /// The windows that count the call's tokens, by name and start.
    windows: Vec<(String, DateTime<Utc>)>,
    /// `x-ratelimit-…` headers with what is left.
    pub headers: HeaderMap,
}

impl Reservation {
    /// Counts a call of this key, and reserves its tokens.
    ///
    /// # Errors
    /// 429 when a limit is reached. A refused call counts as a request all the same.
    pub fn take(
        state: &mut State,
        hash: &str,
        body: &Value,
        now: DateTime<Utc>,
    ) -> Result<Reservation, ApiError> {
        let scopes = scopes(state, hash);
        let wanted = wanted_tokens(&scopes, body);
        for scope in scopes.iter().filter(|scope| scope.rpm.is_some()) {
            window(state, scope, now).requests += 1;
        }
        for scope in &scopes {
            let used = window(state, scope, now).clone();
            if let Some(limit) = scope.rpm.filter(|limit| used.requests > *limit) {
                return Err(refusal(scope, "requests", limit, 0, now));
            }
            if let Some(limit) = scope.tpm.filter(|limit| used.tokens + wanted > *limit) {
                return Err(refusal(scope, "tokens", limit, (limit - used.tokens).max(0), now));
            }
        }
        let parallel = state.keys.get(hash).and_then(|key| key.max_parallel_requests);
        let in_flight = state.in_flight.entry(hash.to_owned()).or_insert(0);
        if let Some(limit) = parallel.filter(|limit| *in_flight >= *limit) {
            let scope = Scope { kind: "api_key", id: hash.to_owned(), rpm: None, tpm: None };
            return Err(refusal(&scope, "max_parallel_requests", limit, 0, now));
        }
        *in_flight += 1;
        let in_flight = *in_flight;
        let mut reservation = Reservation {
            hash: hash.to_owned(),
            tokens: wanted,
            windows: Vec::new(),
            headers: HeaderMap::new(),
        };
        reservation.tell("api_key", "max_parallel_requests", parallel, in_flight);
        for scope in &scopes {
            let window = window(state, scope, now);
            window.tokens += wanted;
            reservation.windows.push((scope.name(), window.started));
            reservation.tell(scope.kind, "requests", scope.rpm, window.requests);
            reservation.tell(scope.kind, "tokens", scope.tpm, window.tokens);
        }
        Ok(reservation)
    }

    fn tell(&mut self, kind: &str, what: &str, limit: Option<i64>, used: i64) {
        let Some(limit) = limit else { return };
        for (word, value) in [("remaining", (limit - used).max(0)), ("limit", limit)] {
            let name = format!("x-ratelimit-{kind}-{word}-{what}");
            if let Ok(name) = HeaderName::try_from(name) {
                self.headers.insert(name, HeaderValue::from(value));
            }
        }
    }

    /// Ends the call: what it reserved is replaced by the tokens that it used.
    pub fn release(self, state: &mut State, used: i128) {
        if let Some(in_flight) = state.in_flight.get_mut(&self.hash) {
            *in_flight -= 1;
        }
        let used = i64::try_from(used).unwrap_or(i64::MAX);
        for (name, started) in &self.windows {
            if let Some(window) = state.windows.get_mut(name).filter(|window| window.started == *started) {
                window.tokens = window.tokens.saturating_sub(self.tokens).saturating_add(used);
            }
        }
    }
}

/// The limited scopes of a key: itself, then its team.
fn scopes(state: &State, hash: &str) -> Vec<Scope> {
    let Some(key) = state.keys.get(hash) else { return Vec::new() };
    let own = Scope { kind: "api_key", id: hash.to_owned(), rpm: key.rpm_limit, tpm: key.tpm_limit };
    let team = key.team_id.as_ref().and_then(|id| state.teams.get(id));
    let team = team.map(|team| Scope {
        kind: "team",
        id: team.team_id.clone(),
        rpm: team.rpm_limit,
        tpm: team.tpm_limit,
    });
    let limited = |scope: &Scope| scope.rpm.is_some() || scope.tpm.is_some();
    [Some(own), team].into_iter().flatten().filter(limited).collect()
}

fn wanted_tokens(scopes: &[Scope], body: &Value) -> i64 {
    let Some(smallest) = scopes.iter().filter_map(|scope| scope.tpm).min() else { return 0 };
    let prompt = i64::try_from(text_tokens(body)).unwrap_or(0);
    let answer = match max_tokens(body) {
        Some(limit) => i64::try_from(limit).unwrap_or(i64::MAX / 2),
        None => ASSUMED_ANSWER.min(smallest / 4).max(prompt),
    };
    // At least 1, so that a limit of 0 refuses everything.
    answer.saturating_add(prompt).max(1)
}

/// The scope's window, a new one if the last has ended.
fn window<'a>(state: &'a mut State, scope: &Scope, now: DateTime<Utc>) -> &'a mut Window {
    let fresh = Window { started: now, requests: 0, tokens: 0 };
    let window = state.windows.entry(scope.name()).or_insert_with(|| fresh.clone());
    if now - window.started >= TimeDelta::seconds(WINDOW_SECONDS) {
        *window = fresh;
    }
    window
}

fn refusal(scope: &Scope, what: &str, limit: i64, remaining: i64, now: DateTime<Utc>) -> ApiError {
    let resets = (now + TimeDelta::seconds(WINDOW_SECONDS)).format("%Y-%m-%d %H:%M:%S UTC").to_string();
    let message = format!(
        "Rate limit exceeded for {}: {}. Limit type: {what}. Current limit: {limit}, Remaining: {remaining}. \
         Limit resets at: {resets}",
        scope.kind, scope.id
    );
    ApiError::new(429, "throttling_error", message)
        .header("retry-after", &WINDOW_SECONDS.to_string())
        .header("rate_limit_type", what)
        .header("reset_at", &resets)
}
