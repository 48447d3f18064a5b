//! `/key/…`: virtual keys, kept by their SHA-256.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Query, State as FromApp};
use axum::http::HeaderMap;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::Utc;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::auth::{self, Caller};
use crate::error::{ApiError, python_error};
use crate::fields::{Change, Fields, key_hash};
use crate::records::{KeyRecord, Zone};
use crate::state::{App, State};
use crate::teams::{admin_fields, needed, reset_at, saved};
use crate::time;

type Answer = Result<Json<Value>, ApiError>;

/// `POST /key/generate`. The team need not exist, and budgets and models may go beyond the team's.
pub(crate) async fn generate(FromApp(app): FromApp<App>, headers: HeaderMap, body: Bytes) -> Answer {
    let fields = admin_fields(&app, &headers, &body, "/key/generate")?;
    if fields.has("tags") {
        return Err(ApiError::management(403, ENTERPRISE_TAGS));
    }
    let key = match fields.text("key")? {
        Change::Set(key) if !key.starts_with("sk-") => {
            let masked = auth::masked(&key);
            let complaint =
                format!("Invalid key format. LiteLLM Virtual Key must start with 'sk-'. Received: {masked}");
            return Err(ApiError::management(400, &complaint));
        }
        Change::Set(key) if key.chars().count() < auth::SHORTEST_KEY => {
            let complaint = "Invalid key format. LiteLLM Virtual Key must be at least 16 characters long.";
            return Err(ApiError::management(400, complaint));
        }
        Change::Set(key) => key,
        Change::Keep | Change::Clear => format!("sk-{}", URL_SAFE_NO_PAD.encode(Uuid::new_v4().as_bytes())),
    };
    let record = new_record(&fields, &key)?;
    let mut state = app.state();
    refuse_taken_alias(&state, &record)?;
    let answer = record.created(&key);
    // The real one answers 200 for a key that is there already, and keeps the old row.
    state.keys.entry(record.token.clone()).or_insert(record);
    saved(state)?;
    Ok(Json(answer))
}

fn new_record(fields: &Fields, key: &str) -> Result<KeyRecord, ApiError> {
    let now = Utc::now();
    let budget_duration = fields.text("budget_duration")?.value();
    let expires = match fields.text("duration")? {
        Change::Set(text) => {
            let invalid = |complaint| ApiError::new(500, "internal_server_error", complaint);
            Some(time::expiry(&text, now).map_err(invalid)?)
        }
        Change::Keep | Change::Clear => None,
    };
    Ok(KeyRecord {
        token: key_hash(key),
        key_name: auth::hint(key),
        key_alias: fields.text("key_alias")?.value(),
        team_id: fields.text("team_id")?.value(),
        user_id: fields.text("user_id")?.value(),
        models: fields.texts("models")?.value().unwrap_or_default(),
        max_budget: fields.budget("max_budget", |complaint| ApiError::management(400, complaint))?.value(),
        spend: fields.float("spend")?.value().unwrap_or(0.0),
        total_spend: 0.0,
        blocked: fields.boolean("blocked")?.value(),
        metadata: fields.object("metadata")?.value().unwrap_or_else(|| json!({})),
        rpm_limit: fields.integer("rpm_limit")?.value(),
        tpm_limit: fields.integer("tpm_limit")?.value(),
        max_parallel_requests: fields.integer("max_parallel_requests")?.value(),
        budget_reset_at: reset_at(budget_duration.as_deref())
            .map_err(|complaint| ApiError::management(400, &complaint))?,
        budget_duration,
        expires,
        created_at: now,
        updated_at: now,
        settings_updated_at: None,
        last_active: None,
        deleted_at: None,
    })
}

/// The query of `GET /key/info`.
#[derive(Deserialize)]
pub(crate) struct InfoQuery {
    key: Option<String>,
}

/// `GET /key/info?key=`, by the key or its hash; without `key` the caller's own. A deleted key is shown as such.
pub(crate) async fn info(
    FromApp(app): FromApp<App>,
    headers: HeaderMap,
    Query(query): Query<InfoQuery>,
) -> Answer {
    let caller = auth::caller(&app, &headers)?;
    let asked = match (query.key, caller) {
        (Some(key), _) => key,
        (None, Caller::Key(hash)) => hash,
        (None, Caller::Master) => return Err(unknown_in_database()),
    };
    let hash = key_hash(&asked);
    let now = Utc::now();
    let mut state = app.state();
    state.reset_due_budgets(&hash, now);
    let record = state.keys.get(&hash).or_else(|| state.deleted_keys.get(&hash));
    let info = record.ok_or_else(unknown_in_database)?.info(now);
    Ok(Json(json!({"key": asked, "info": info})))
}

/// `POST /key/update`, by key or hash, or by alias where no key is given: what is named changes, `null` clears,
/// `metadata` is replaced as a whole.
pub(crate) async fn update(FromApp(app): FromApp<App>, headers: HeaderMap, body: Bytes) -> Answer {
    let fields = admin_fields(&app, &headers, &body, "/key/update")?;
    let key = fields.text("key")?.value();
    let alias = fields.text("key_alias")?.value();
    let mut state = app.state();
    let mut record = match (&key, &alias) {
        (Some(key), _) => state.keys.get(&key_hash(key)).ok_or_else(unknown)?.clone(),
        (None, Some(alias)) => named(&state, alias).next().ok_or_else(|| unknown_alias(alias))?.clone(),
        (None, None) => {
            let message = "Value error, either key or key_alias must be provided";
            return Err(ApiError::validation("value_error", json!(["body"]), message));
        }
    };
    change(&fields, &mut record)?;
    refuse_taken_alias(&state, &record)?;
    let mut row = record.row(Zone::Number);
    row["key"] = json!(key.unwrap_or_else(|| record.token.clone()));
    state.keys.insert(record.token.clone(), record);
    saved(state)?;
    Ok(Json(row))
}

fn change(fields: &Fields, record: &mut KeyRecord) -> Result<(), ApiError> {
    let now = Utc::now();
    fields.text("key_alias")?.apply(&mut record.key_alias);
    fields.text("team_id")?.apply(&mut record.team_id);
    fields.text("user_id")?.apply(&mut record.user_id);
    fields.boolean("blocked")?.apply(&mut record.blocked);
    fields.integer("rpm_limit")?.apply(&mut record.rpm_limit);
    fields.integer("tpm_limit")?.apply(&mut record.tpm_limit);
    fields.integer("max_parallel_requests")?.apply(&mut record.max_parallel_requests);
    let refuse = |complaint: &str| ApiError::auth(400, python_error(complaint));
    fields.budget("max_budget", refuse)?.apply(&mut record.max_budget);
    if let Change::Set(spend) = fields.float("spend")? {
        record.spend = spend;
    }
    match fields.texts("models")? {
        Change::Keep => {}
        Change::Set(models) => record.models = models,
        Change::Clear => {
            return Err(ApiError::auth(400, format!("Authentication Error, {}", needed("models"))));
        }
    }
    match fields.object("metadata")? {
        Change::Keep => {}
        metadata => record.metadata = metadata.value().unwrap_or(Value::Null),
    }
    match fields.text("budget_duration")? {
        Change::Keep => {}
        duration => {
            record.budget_duration = duration.value();
            record.budget_reset_at =
                reset_at(record.budget_duration.as_deref()).map_err(|complaint| refuse(&complaint))?;
        }
    }
    match fields.text("duration")? {
        Change::Keep => {}
        Change::Set(text) if !text.is_empty() && text != "-1" => {
            let invalid = |complaint| ApiError::auth(400, format!("Authentication Error, {complaint}"));
            record.expires = Some(time::expiry(&text, now).map_err(invalid)?);
        }
        Change::Set(_) | Change::Clear => record.expires = None,
    }
    record.updated_at = now;
    record.settings_updated_at = Some(now);
    Ok(())
}

/// `POST /key/delete`, by keys or hashes, or by aliases where no key is given. Unknown ones are listed as deleted
/// beside known ones.
pub(crate) async fn delete(FromApp(app): FromApp<App>, headers: HeaderMap, body: Bytes) -> Answer {
    let fields = admin_fields(&app, &headers, &body, "/key/delete")?;
    let keys = fields.texts("keys")?.value().unwrap_or_default();
    let aliases = fields.texts("key_aliases")?.value().unwrap_or_default();
    if keys.is_empty() && aliases.is_empty() {
        let message = "Value error, At least one of 'keys' or 'key_aliases' must be provided.";
        return Err(ApiError::validation("value_error", json!(["body"]), message));
    }
    let mut state = app.state();
    let hashes: Vec<String> = if keys.is_empty() {
        aliases.iter().flat_map(|alias| named(&state, alias)).map(|key| key.token.clone()).collect()
    } else {
        keys.iter().map(|key| key_hash(key)).collect()
    };
    let now = Utc::now();
    let deleted = hashes.iter().filter(|hash| state.delete_key(hash, now)).count();
    if deleted == 0 {
        return Err(ApiError::management(404, "No keys found"));
    }
    saved(state)?;
    Ok(Json(json!({"deleted_keys": if keys.is_empty() { aliases } else { keys }})))
}

/// `POST /key/block`
pub(crate) async fn block(FromApp(app): FromApp<App>, headers: HeaderMap, body: Bytes) -> Answer {
    set_blocked(&app, &headers, &body, "/key/block", true)
}

/// `POST /key/unblock`
pub(crate) async fn unblock(FromApp(app): FromApp<App>, headers: HeaderMap, body: Bytes) -> Answer {
    set_blocked(&app, &headers, &body, "/key/unblock", false)
}

fn set_blocked(app: &App, headers: &HeaderMap, body: &[u8], route: &str, blocked: bool) -> Answer {
    let asked = admin_fields(app, headers, body, route)?.required_text("key")?;
    let hash = key_hash(&asked);
    if hash.len() != 64 {
        return Err(ApiError::new(400, "bad_request_error", "Invalid key format.").param("key"));
    }
    let mut state = app.state();
    let record = state.keys.get_mut(&hash).ok_or_else(unknown)?;
    record.blocked = Some(blocked);
    record.updated_at = Utc::now();
    record.settings_updated_at = Some(record.updated_at);
    let row = if blocked { record.cached_row() } else { record.row(Zone::Letter) };
    saved(state)?;
    Ok(Json(row))
}

fn refuse_taken_alias(state: &State, record: &KeyRecord) -> Result<(), ApiError> {
    let Some(alias) = &record.key_alias else { return Ok(()) };
    let taken = |other: &KeyRecord| other.key_alias.as_ref() == Some(alias) && other.token != record.token;
    if !state.keys.values().any(taken) {
        return Ok(());
    }
    let message =
        format!("Key with alias '{alias}' already exists. Unique key aliases across all keys are required.");
    Err(ApiError::new(400, "bad_request_error", message).param("key_alias"))
}

fn named<'a>(state: &'a State, alias: &'a str) -> impl Iterator<Item = &'a KeyRecord> {
    state.keys.values().filter(move |key| key.key_alias.as_deref() == Some(alias))
}

fn unknown_alias(alias: &str) -> ApiError {
    let message = format!("Key not found. No key with key_alias='{alias}'.");
    ApiError::new(404, "not_found_error", message).param("key_alias")
}

fn unknown() -> ApiError {
    ApiError::new(404, "not_found_error", "Key not found.").param("key")
}

fn unknown_in_database() -> ApiError {
    ApiError::new(404, "not_found_error", "Key not found in database").param("key")
}

const ENTERPRISE_TAGS: &str = "This feature is only available for LiteLLM Enterprise users: tags. You must be a \
                               LiteLLM Enterprise user to use this feature. If you have a license please set \
                               `LITELLM_LICENSE` in your env.";
