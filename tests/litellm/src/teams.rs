//! `/team/…`: teams with their models, budgets and limits.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Query, State as FromApp};
use axum::http::HeaderMap;
use chrono::Utc;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::auth::{self, Caller};
use crate::error::{ApiError, python_error};
use crate::fields::{Change, Fields};
use crate::records::{TeamRecord, Zone};
use crate::state::{App, State};
use crate::time;

type Answer = Result<Json<Value>, ApiError>;

/// `POST /team/new`
pub(crate) async fn create(FromApp(app): FromApp<App>, headers: HeaderMap, body: Bytes) -> Answer {
    let fields = admin_fields(&app, &headers, &body, "/team/new")?;
    let now = Utc::now();
    let models = match fields.texts("models")? {
        Change::Clear => {
            return Err(ApiError::validation(
                "list_type",
                json!(["body", "models"]),
                "Input should be a valid list",
            ));
        }
        change => change.value().unwrap_or_default(),
    };
    let blocked = match fields.boolean("blocked")? {
        Change::Keep => false,
        Change::Set(blocked) => blocked,
        Change::Clear => {
            let message = "Input should be a valid boolean";
            return Err(ApiError::validation("bool_type", json!(["body", "blocked"]), message));
        }
    };
    let mut team = TeamRecord {
        team_id: fields.text("team_id")?.value().unwrap_or_else(|| Uuid::new_v4().to_string()),
        team_alias: fields.text("team_alias")?.value(),
        organization_id: fields.text("organization_id")?.value(),
        models,
        max_budget: fields.budget("max_budget", |complaint| ApiError::management(400, complaint))?.value(),
        spend: 0.0,
        blocked,
        metadata: fields.object("metadata")?.value().unwrap_or_else(|| json!({})),
        rpm_limit: fields.integer("rpm_limit")?.value(),
        tpm_limit: fields.integer("tpm_limit")?.value(),
        budget_duration: fields.text("budget_duration")?.value(),
        budget_reset_at: None,
        created_at: now,
        updated_at: now,
    };
    team.budget_reset_at = reset_at(team.budget_duration.as_deref())
        .map_err(|complaint| ApiError::management(400, &complaint))?;
    let mut state = app.state();
    if state.teams.contains_key(&team.team_id) {
        let complaint = format!("Team id = {} already exists. Please use a different team id.", team.team_id);
        return Err(ApiError::management(400, &complaint));
    }
    let answer = team.created();
    state.put_team(team);
    saved(state)?;
    Ok(Json(answer))
}

/// The query of `GET /team/info`.
#[derive(Deserialize)]
pub(crate) struct InfoQuery {
    team_id: Option<String>,
}

/// `GET /team/info?team_id=`, for the admin and for the team's own keys.
pub(crate) async fn info(
    FromApp(app): FromApp<App>,
    headers: HeaderMap,
    Query(query): Query<InfoQuery>,
) -> Answer {
    let caller = auth::caller(&app, &headers)?;
    let team_id = query
        .team_id
        .ok_or_else(|| ApiError::auth(422, "{'message': 'Malformed request. No team id passed in.'}"))?;
    let mut state = app.state();
    let now = Utc::now();
    let hashes: Vec<String> = state.keys_of(&team_id).iter().map(|key| key.token.clone()).collect();
    for hash in &hashes {
        state.reset_due_budgets(hash, now);
    }
    if let Caller::Key(hash) = &caller {
        let own = state.keys.get(hash).and_then(|key| key.team_id.clone());
        if own.as_ref() != Some(&team_id) {
            let own = own.unwrap_or_else(|| "None".to_owned());
            let message = format!("Team key for team={own} not authorized to access this team={team_id}");
            return Err(ApiError::auth(403, python_error(&message)));
        }
    }
    let team = state.teams.get(&team_id).ok_or_else(|| {
        ApiError::auth(404, format!("{{'message': 'Team not found, passed team id: {team_id}.'}}"))
    })?;
    let keys: Vec<Value> = state.keys_of(&team_id).iter().map(|key| key.row(Zone::Letter)).collect();
    let membership = json!({
        "user_id": "default_user_id", "team_id": team_id, "budget_id": null, "spend": 0.0, "total_spend": 0.0,
        "litellm_budget_table": null, "budget_source": "none",
    });
    let info = team.info(caller == Caller::Master);
    Ok(Json(json!({"team_id": team_id, "team_info": info, "keys": keys, "team_memberships": [membership]})))
}

/// `POST /team/update`: what is named changes, `null` clears all but `models` and `blocked`, `metadata` is replaced as
/// a whole.
pub(crate) async fn update(FromApp(app): FromApp<App>, headers: HeaderMap, body: Bytes) -> Answer {
    let fields = admin_fields(&app, &headers, &body, "/team/update")?;
    let team_id = fields.required_text("team_id")?;
    let mut state = app.state();
    let team = state
        .teams
        .get(&team_id)
        .ok_or_else(|| ApiError::management(404, &format!("Team not found, passed team_id={team_id}")))?;
    let mut team = team.clone();
    fields.text("team_alias")?.apply(&mut team.team_alias);
    fields.text("organization_id")?.apply(&mut team.organization_id);
    fields.integer("rpm_limit")?.apply(&mut team.rpm_limit);
    fields.integer("tpm_limit")?.apply(&mut team.tpm_limit);
    fields
        .budget("max_budget", |complaint| ApiError::management(400, complaint))?
        .apply(&mut team.max_budget);
    match fields.texts("models")? {
        Change::Keep => {}
        Change::Set(models) => team.models = models,
        Change::Clear => return Err(ApiError::new(500, "internal_server_error", needed("models"))),
    }
    match fields.boolean("blocked")? {
        Change::Keep => {}
        Change::Set(blocked) => team.blocked = blocked,
        Change::Clear => return Err(ApiError::new(500, "internal_server_error", needed("blocked"))),
    }
    match fields.object("metadata")? {
        Change::Keep => {}
        change => team.metadata = change.value().unwrap_or_else(|| json!({})),
    }
    match fields.text("budget_duration")? {
        Change::Keep => {}
        change => {
            team.budget_duration = change.value();
            team.budget_reset_at = reset_at(team.budget_duration.as_deref())
                .map_err(|complaint| ApiError::management(400, &complaint))?;
        }
    }
    team.updated_at = Utc::now();
    let row = team.row();
    state.put_team(team);
    saved(state)?;
    Ok(Json(json!({"team_id": team_id, "data": row})))
}

/// `POST /team/delete`: all the teams and their keys, or nothing when one of them is unknown.
pub(crate) async fn delete(FromApp(app): FromApp<App>, headers: HeaderMap, body: Bytes) -> Answer {
    let fields = admin_fields(&app, &headers, &body, "/team/delete")?;
    let refuse = |kind, message| Err(ApiError::validation(kind, json!(["body", "team_ids"]), message));
    let team_ids = match fields.texts("team_ids")? {
        Change::Set(team_ids) => team_ids,
        Change::Keep => return refuse("missing", "Field required"),
        Change::Clear => return refuse("list_type", "Input should be a valid list"),
    };
    let mut state = app.state();
    if let Some(unknown) = team_ids.iter().find(|id| !state.teams.contains_key(*id)) {
        return Err(not_found(unknown));
    }
    let now = Utc::now();
    for team_id in &team_ids {
        let hashes: Vec<String> = state.keys_of(team_id).iter().map(|key| key.token.clone()).collect();
        for hash in hashes {
            state.delete_key(&hash, now);
        }
        state.teams.remove(team_id);
    }
    saved(state)?;
    Ok(Json(json!({"deleted_teams": team_ids})))
}

/// `POST /team/block`, which calls notice after up to a minute; `/team/update` with `blocked` works at once.
pub(crate) async fn block(FromApp(app): FromApp<App>, headers: HeaderMap, body: Bytes) -> Answer {
    set_blocked(&app, &headers, &body, "/team/block", true)
}

/// `POST /team/unblock`, with the same delay.
pub(crate) async fn unblock(FromApp(app): FromApp<App>, headers: HeaderMap, body: Bytes) -> Answer {
    set_blocked(&app, &headers, &body, "/team/unblock", false)
}

fn set_blocked(app: &App, headers: &HeaderMap, body: &[u8], route: &str, blocked: bool) -> Answer {
    let team_id = admin_fields(app, headers, body, route)?.required_text("team_id")?;
    let mut state = app.state();
    if !state.block_later(&team_id, blocked, Utc::now()) {
        return Err(not_found(&team_id));
    }
    let row = state.teams.get(&team_id).map(TeamRecord::row).unwrap_or_default();
    saved(state)?;
    Ok(Json(row))
}

fn not_found(team_id: &str) -> ApiError {
    ApiError::detail(404, json!({"error": format!("Team not found, passed team_id={team_id}")}))
}

/// What the database says to `null` for a field that can't be cleared: `models`, and a team's `blocked`.
pub(crate) fn needed(field: &str) -> String {
    format!(
        "Unable to match input value to any allowed input type for the field. Parse errors: [`data.{field}`: A value \
         is required but not set]"
    )
}

/// The fields of an admin request, read after the caller was checked.
pub(crate) fn admin_fields(
    app: &App,
    headers: &HeaderMap,
    body: &[u8],
    route: &str,
) -> Result<Fields, ApiError> {
    auth::presented_key(headers)?;
    let fields = Fields::parse(body);
    if let Ok(fields) = &fields {
        fields.refuse_banned()?;
    }
    auth::admin(app, headers, route)?;
    fields
}

/// When the budget of that duration starts anew, or the complaint about the duration.
pub(crate) fn reset_at(duration: Option<&str>) -> Result<Option<chrono::DateTime<Utc>>, String> {
    let Some(text) = duration else { return Ok(None) };
    let at = time::next_reset(text, Utc::now());
    at.map(Some).ok_or_else(|| {
        format!("Invalid budget_duration '{text}'. Use a format like '1h', '24h', '7d', or '30d'.")
    })
}

/// Saves a change of teams or keys before it is answered.
pub(crate) fn saved(mut state: std::sync::MutexGuard<'_, State>) -> Result<(), ApiError> {
    state.save().map_err(|error| ApiError::new(500, "internal_server_error", format!("stand-in: {error:#}")))
}
