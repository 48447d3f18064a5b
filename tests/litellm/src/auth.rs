//! Who is calling, and what LiteLLM refuses before a request is routed anywhere.

use axum::http::HeaderMap;
use chrono::{DateTime, Utc};

use crate::cost::python_float;
use crate::error::ApiError;
use crate::fields::key_hash;
use crate::records::{KeyRecord, TeamRecord};
use crate::state::{App, State};

/// A caller whose key is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Caller {
    /// The master key.
    Master,
    /// A virtual key, by its hash.
    Key(String),
}

impl Caller {
    /// The name under which the spend log has the caller.
    pub fn log_name(&self) -> &str {
        match self {
            Caller::Master => "litellm_proxy_master_key",
            Caller::Key(hash) => hash,
        }
    }
}

/// The key that a request carries, as `Authorization: Bearer …` or `x-api-key`.
///
/// # Errors
/// 401 `auth_error` when there is none, or one without `Bearer`.
pub(crate) fn presented_key(headers: &HeaderMap) -> Result<&str, ApiError> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    match (header("authorization"), header("x-api-key")) {
        (Some(text), _) => match text.split_at_checked(7) {
            Some((scheme, key)) if scheme.eq_ignore_ascii_case("bearer ") => Ok(key),
            _ => Err(ApiError::auth(401, MALFORMED)),
        },
        (None, Some(key)) => Ok(key),
        (None, None) => Err(ApiError::auth(401, "Authentication Error, No api key passed in.")),
    }
}

const MALFORMED: &str = "Authentication Error, Malformed API Key passed in. Ensure Key has `Bearer ` prefix.";

/// The caller behind a request's key; says nothing yet about what it may do.
///
/// # Errors
/// 401 for a missing, malformed, unknown, blocked or expired key.
pub(crate) fn caller(app: &App, headers: &HeaderMap) -> Result<Caller, ApiError> {
    identify(app, presented_key(headers)?, None)
}

/// The caller, who must be the admin.
///
/// # Errors
/// As [`caller`], and 401 for a virtual key.
pub(crate) fn admin(app: &App, headers: &HeaderMap, route: &str) -> Result<(), ApiError> {
    match caller(app, headers)? {
        Caller::Master => Ok(()),
        Caller::Key(_) => Err(ApiError::auth(
            401,
            format!(
                "Authentication Error, Only proxy admin can be used to generate, delete, update info for new \
                 keys/users/teams. Route={route}. Your role=unknown. Your user_id=*******"
            ),
        )),
    }
}

/// The caller, who may call models: of the model named, if one is; within the budgets of key and team.
///
/// # Errors
/// As [`caller`], 403 for a model that key or team may not call, 404 for a team that does not exist, 401 for a blocked
/// one, 422 for a budget that is used up.
pub(crate) fn model_caller(app: &App, headers: &HeaderMap, model: Option<&str>) -> Result<Caller, ApiError> {
    let caller = identify(app, presented_key(headers)?, model)?;
    if let Caller::Key(hash) = &caller {
        let mut state = app.state();
        state.reset_due_budgets(hash, Utc::now());
        within_budgets(&state, hash, model)?;
    }
    Ok(caller)
}

fn identify(app: &App, key: &str, model: Option<&str>) -> Result<Caller, ApiError> {
    if key == app.master_key {
        return Ok(Caller::Master);
    }
    if !key.starts_with("sk-") {
        let message =
            format!("LiteLLM Virtual Key expected. Received={}, expected to start with 'sk-'.", masked(key));
        return Err(ApiError::auth(401, message));
    }
    let hash = key_hash(key);
    let state = app.state();
    let record = state.keys.get(&hash).ok_or_else(|| {
        let message = format!(
            "Authentication Error, Invalid proxy server token passed. Received API Key = {}, Key Hash (Token) ={hash}. \
             Unable to find token in cache or `LiteLLM_VerificationTokenTable`",
            hint(key)
        );
        ApiError::new(401, "token_not_found_in_db", message).param("key")
    })?;
    standing(record, model, Utc::now())?;
    Ok(Caller::Key(hash))
}

/// The checks that concern the key alone, in LiteLLM's order.
fn standing(key: &KeyRecord, model: Option<&str>, now: DateTime<Utc>) -> Result<(), ApiError> {
    if key.blocked == Some(true) {
        let message = "Authentication Error, Key is blocked. Update via `/key/unblock` if you're an admin.";
        return Err(ApiError::auth(401, message));
    }
    let defers_to_team = key.models.iter().any(|name| name == "all-team-models");
    if let Some(model) = model.filter(|model| !defers_to_team && !allows(&key.models, model)) {
        return Err(model_denied(model, "key_model_access_denied"));
    }
    match key.expires {
        Some(expires) if expires <= now => {
            let form = "%Y-%m-%d %H:%M:%S%.6f+00:00";
            let message = format!(
                "Authentication Error - Expired Key. Key Expiry time {} and current time {}",
                expires.format(form),
                now.format(form)
            );
            Err(ApiError::new(401, "expired_key", message).param(&hint(&format!("sk-{}", key.token))))
        }
        _ => Ok(()),
    }
}

fn within_budgets(state: &State, hash: &str, model: Option<&str>) -> Result<(), ApiError> {
    let Some(key) = state.keys.get(hash) else { return Ok(()) };
    if let Some(budget) = key.max_budget.filter(|budget| key.spend >= *budget) {
        return Err(over_budget(&format!("Key=key ({})", key.key_name), key.spend, budget));
    }
    let Some(team_id) = &key.team_id else { return Ok(()) };
    let team = state.teams.get(team_id).ok_or_else(|| {
        let message = format!("Team doesn't exist in db. Team={team_id}. Create team via `/team/new` call.");
        ApiError::auth(404, crate::error::python_error(&message))
    })?;
    team_allows(team, state.sees_blocked(team, Utc::now()), model)
}

fn team_allows(team: &TeamRecord, blocked: bool, model: Option<&str>) -> Result<(), ApiError> {
    let id = &team.team_id;
    if blocked {
        let message = format!(
            "Authentication Error, Team={id} is blocked. Update via `/team/unblock` if you're an admin."
        );
        return Err(ApiError::auth(401, message));
    }
    if let Some(model) = model.filter(|model| !allows(&team.models, model)) {
        return Err(model_denied(model, "team_model_access_denied"));
    }
    match team.max_budget.filter(|budget| team.spend > *budget) {
        Some(budget) => Err(over_budget(&format!("Team={id}"), team.spend, budget)),
        None => Ok(()),
    }
}

/// The models that a caller sees in the list of models.
pub(crate) fn visible_models(state: &State, caller: &Caller) -> Vec<String> {
    let all = || crate::models::Model::names().map(str::to_owned).collect();
    let Caller::Key(hash) = caller else { return all() };
    let key = state.keys.get(hash);
    let own = key.map(|key| key.models.clone()).unwrap_or_default();
    let team = key.and_then(|key| key.team_id.as_ref()).and_then(|id| state.teams.get(id));
    let listed = if own.is_empty() || own.iter().any(|name| name == "all-team-models") {
        team.map(|team| team.models.clone()).unwrap_or_default()
    } else {
        own
    };
    if listed.is_empty() || listed.iter().any(|name| name == "all-proxy-models") {
        return all();
    }
    // Names that stand for no model, or for wildcard models, which this configuration has none of.
    listed.into_iter().filter(|name| name != "no-default-models" && name != "*").collect()
}

fn is_open(models: &[String]) -> bool {
    models.is_empty() || models.iter().any(|name| name == "all-proxy-models" || name == "*")
}

fn allows(models: &[String], model: &str) -> bool {
    is_open(models) || models.iter().any(|name| name == model)
}

fn model_denied(model: &str, kind: &str) -> ApiError {
    let message = format!(
        "The requested model '{model}' is not available for this API key, or the model name is invalid. Check the \
         models available to you and try again."
    );
    ApiError::new(403, kind, message).param("model")
}

fn over_budget(whose: &str, spend: f64, budget: f64) -> ApiError {
    let message = format!(
        "Budget has been exceeded! {whose} Current cost: {}, Max budget: {}",
        python_float(spend),
        python_float(budget)
    );
    ApiError::new(422, "budget_exceeded", message)
}

/// Letters that a virtual key has at least.
pub(crate) const SHORTEST_KEY: usize = 16;

/// A key as LiteLLM shows it in messages and as its name: the last four letters, or none of a short key.
pub(crate) fn hint(key: &str) -> String {
    let letters: Vec<char> = key.chars().collect();
    let tail: String = if letters.len() >= SHORTEST_KEY {
        letters[letters.len() - 4..].iter().collect()
    } else {
        String::new()
    };
    format!("sk-...{tail}")
}

/// What is no virtual key, as LiteLLM shows it: the middle is hidden.
pub(crate) fn masked(key: &str) -> String {
    let letters: Vec<char> = key.chars().collect();
    if letters.len() <= 8 {
        return "****".to_owned();
    }
    let head: String = letters[..4].iter().collect();
    let tail: String = letters[letters.len() - 4..].iter().collect();
    format!("{head}****{tail}")
}
