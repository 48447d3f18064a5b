//! Teams and keys in LiteLLM.
//!
//! The desired state of a team in LiteLLM comes from the database as a whole ([`DesiredTeam`]) and is sent as a whole,
//! so sending it twice, or again after a failure, does no harm.

use super::{Answer, SendError, Unanswered, chat::Usage, master_key, read, send};
use crate::{
    error::{Code, Error, Result},
    platform::settings,
    values::{CallId, TeamId, Usd, VirtualKey},
};
use axum::http::{Method, StatusCode};
use rust_decimal::prelude::ToPrimitive;
use serde::{Deserialize, Serialize, de::IgnoredAny};
use serde_json::{Map, Value, json};
use std::{collections::BTreeSet, fmt::Display, time::Duration};
use uuid::Uuid;

/// The desired state of a team in LiteLLM: the answer of `litellm_desired_team` in `migrations/functions/litellm.sql`.
#[derive(Debug, Clone, Deserialize)]
pub struct DesiredTeam {
    /// The version of the desired state, which every change of it increases.
    pub version: i64,
    /// The team's id, the same in LiteLLM.
    pub team_id: TeamId,
    /// The team's name for people.
    pub team_alias: String,
    /// The models that the team's keys may use.
    pub models: Vec<String>,
    /// The budget in US dollars; `None`: without limit.
    pub max_budget: Option<Usd>,
    /// How often the spending is reset (`30d`); `None`: never.
    pub budget_duration: Option<String>,
    /// Requests per minute; `None`: without limit.
    pub rpm_limit: Option<i64>,
    /// Tokens per minute; `None`: without limit.
    pub tpm_limit: Option<i64>,
    /// The team's own limit of open calls; `None`: the deployment's, 0: none.
    pub max_parallel_requests: Option<i64>,
    /// Whether the team is suspended.
    pub blocked: bool,
    /// The team's keys.
    pub keys: Vec<DesiredKey>,
    /// Keys to delete, as the hex of their SHA-256.
    pub revoked: Vec<String>,
}

/// A key that works in LiteLLM.
#[derive(Debug, Clone, Deserialize)]
pub struct DesiredKey {
    /// The hex of the key's SHA-256, which LiteLLM accepts in place of a key.
    pub hash: String,
    /// For a replaced key in its grace period: the seconds that are left of it.
    pub seconds_left: Option<i64>,
}

impl DesiredTeam {
    /// The models in LiteLLM's form. To LiteLLM an empty list means every model, so a name that no model has stands for
    /// none.
    fn models(&self) -> Vec<&str> {
        if self.models.is_empty() {
            vec!["no-default-models"]
        } else {
            self.models.iter().map(String::as_str).collect()
        }
    }

    /// The number of requests that LiteLLM lets a key make at once; `None`: without limit.
    async fn parallel_requests(&self) -> Result<Option<i64>> {
        let limit = match self.max_parallel_requests {
            Some(own) => own,
            None => settings::parsed("limit_open_calls").await?,
        };
        Ok(Some(limit).filter(|limit| *limit > 0))
    }

    /// The fields that LiteLLM's team or key has otherwise.
    fn differences(&self, has: &Map<String, Value>) -> Vec<&'static str> {
        let number = |name| has.get(name).and_then(Value::as_i64);
        // LiteLLM keeps amounts as floats.
        let same_budget = match (has.get("max_budget").and_then(Value::as_f64), self.max_budget) {
            (None, None) => true,
            (Some(has), Some(Usd(desired))) => {
                desired.to_f64().is_some_and(|desired| (has - desired).abs() <= 1e-6 * desired.max(1.0))
            }
            _ => false,
        };
        let models = has.get("models").and_then(Value::as_array).into_iter().flatten();
        let models: BTreeSet<&str> = models.filter_map(Value::as_str).collect();
        let same = [
            ("models", models == self.models().into_iter().collect()),
            ("max_budget", same_budget),
            (
                "budget_duration",
                has.get("budget_duration").and_then(Value::as_str) == self.budget_duration.as_deref(),
            ),
            ("rpm_limit", number("rpm_limit") == self.rpm_limit),
            ("tpm_limit", number("tpm_limit") == self.tpm_limit),
            ("blocked", has.get("blocked").and_then(Value::as_bool).unwrap_or_default() == self.blocked),
        ];
        same.into_iter().filter(|(_, same)| !same).map(|(name, _)| name).collect()
    }

    fn limits(&self) -> Value {
        json!({
            "team_id": self.team_id,
            "models": self.models(),
            "max_budget": self.max_budget,
            "budget_duration": self.budget_duration,
            "rpm_limit": self.rpm_limit,
            "tpm_limit": self.tpm_limit,
        })
    }
}

/// The member of a LiteLLM team's metadata that shows that this deployment created it. Only this deployment knows its
/// value.
const MARKER: &str = "llm_jobs_marker";

/// The maximum time for one administrative request to LiteLLM.
const LIMIT: Duration = Duration::from_secs(10);

/// Creates the team. If LiteLLM already has a team with this id, it is not ours, and the request is refused.
pub async fn create_team(desired: &DesiredTeam, marker: Uuid) -> Result<()> {
    let mut body = desired.limits();
    if let Some(body) = body.as_object_mut() {
        body.insert("team_alias".into(), desired.team_alias.clone().into());
        body.insert("metadata".into(), json!({ MARKER: marker }));
    }
    let answer = ask(Method::POST, "/team/new", Some(&body)).await?;
    if answer.status == StatusCode::BAD_REQUEST && answer.problem().message.contains("already exists") {
        let detail = format!("Team '{}' already exists in LiteLLM", desired.team_id);
        return Err(Error::new(Code::AlreadyExists, detail));
    }
    accepted(answer, "/team/new").map(drop)
}

/// What LiteLLM has of a team; `None`: it has no such team. LiteLLM also says so while its database is down; creating
/// the team then fails too, so nothing is lost.
async fn team_info(team_id: &TeamId) -> Result<Option<Map<String, Value>>> {
    #[derive(Deserialize)]
    struct Info {
        team_info: Map<String, Value>,
    }
    let found: Option<Info> = found("/team/info", "team_id", team_id).await?;
    Ok(found.map(|info| info.team_info))
}

/// The fields of the team that LiteLLM has otherwise than desired; `None`: LiteLLM has no such team.
pub async fn team_differences(desired: &DesiredTeam) -> Result<Option<Vec<&'static str>>> {
    let Some(team_info) = team_info(&desired.team_id).await? else { return Ok(None) };
    let mut differences = desired.differences(&team_info);
    if team_info.get("team_alias").and_then(Value::as_str) != Some(&desired.team_alias) {
        differences.push("team_alias");
    }
    Ok(Some(differences))
}

/// The fields of a key that LiteLLM has otherwise than desired; `None`: LiteLLM has no such key. `hash` is the hex of
/// its SHA-256.
pub async fn key_differences(desired: &DesiredTeam, hash: &str) -> Result<Option<Vec<&'static str>>> {
    #[derive(Deserialize)]
    struct Info {
        info: Map<String, Value>,
    }
    let Some(Info { info }) = found("/key/info", "key", hash).await? else { return Ok(None) };
    // LiteLLM remembers the keys that it has deleted.
    if info.get("status").and_then(Value::as_str) == Some("deleted") {
        return Ok(None);
    }
    let mut differences = desired.differences(&info);
    let parallel = info.get("max_parallel_requests").and_then(Value::as_i64);
    if parallel != desired.parallel_requests().await? {
        differences.push("max_parallel_requests");
    }
    Ok(Some(differences))
}

/// Deletes the team with its keys if its marker is `marker`. Succeeds also if LiteLLM has no such team.
pub async fn delete_team(team_id: &TeamId, marker: Uuid, key_hashes: &[String]) -> Result<()> {
    // Also those of a team that LiteLLM has lost.
    if !key_hashes.is_empty() {
        delete_keys(&json!({ "keys": key_hashes })).await?;
    }
    let Some(team) = team_info(team_id).await? else { return Ok(()) };
    let ours = team.get("metadata").and_then(|metadata| metadata.get(MARKER)?.as_str()?.parse().ok())
        == Some(marker);
    if ours {
        let answer = ask(Method::POST, "/team/delete", Some(&json!({ "team_ids": [team_id] }))).await?;
        if answer.status != StatusCode::NOT_FOUND {
            accepted(answer, "/team/delete")?;
        }
    }
    Ok(())
}

/// Has LiteLLM generate a key for the team, with the team's models and limits. `alias` must be new.
pub async fn generate_key(desired: &DesiredTeam, alias: String) -> Result<VirtualKey> {
    #[derive(Deserialize)]
    struct Generated {
        key: String,
    }
    let mut body = desired.limits();
    if let Some(body) = body.as_object_mut() {
        body.insert("key_alias".into(), alias.into());
        body.insert("max_parallel_requests".into(), desired.parallel_requests().await?.into());
    }
    let answer = accepted(ask(Method::POST, "/key/generate", Some(&body)).await?, "/key/generate")?;
    let Generated { key } = understood(answer, "/key/generate")?;
    Ok(VirtualKey::new(key))
}

/// Sends the desired state to LiteLLM: deletes the revoked keys, and updates the team's other keys and the team.
pub async fn update_team(desired: &DesiredTeam) -> Result<()> {
    if !desired.revoked.is_empty() {
        delete_keys(&json!({ "keys": desired.revoked })).await?;
    }
    let parallel_requests = desired.parallel_requests().await?;
    for key in &desired.keys {
        let mut body = desired.limits();
        if let Some(body) = body.as_object_mut() {
            body.remove("team_id");
            body.insert("key".into(), key.hash.clone().into());
            // The key is blocked as well as the team: if one of the team's calls ends at this moment, LiteLLM may
            // restore an old copy of the team, but never of a key.
            body.insert("blocked".into(), desired.blocked.into());
            body.insert("max_parallel_requests".into(), parallel_requests.into());
            if let Some(seconds) = key.seconds_left {
                body.insert("duration".into(), format!("{seconds}s").into());
            }
        }
        let answer = ask(Method::POST, "/key/update", Some(&body)).await?;
        // The key does not exist there: another request has revoked it in the meantime, and synchronizes the rest.
        if answer.status != StatusCode::NOT_FOUND {
            accepted(answer, "/key/update")?;
        }
    }
    let mut body = desired.limits();
    if let Some(body) = body.as_object_mut() {
        body.insert("team_alias".into(), desired.team_alias.clone().into());
        body.insert("blocked".into(), desired.blocked.into());
    }
    accepted(ask(Method::POST, "/team/update", Some(&body)).await?, "/team/update").map(drop)
}

/// Deletes the key with an alias. Succeeds also if there is none.
pub async fn delete_key_with_alias(alias: &str) -> Result<()> {
    delete_keys(&json!({ "key_aliases": [alias] })).await
}

async fn delete_keys(body: &Value) -> Result<()> {
    let answer = ask(Method::POST, "/key/delete", Some(body)).await?;
    if answer.status == StatusCode::NOT_FOUND { Ok(()) } else { accepted(answer, "/key/delete").map(drop) }
}

/// The names of the models that LiteLLM knows.
pub async fn known_models() -> Result<BTreeSet<String>> {
    #[derive(Deserialize)]
    struct Models {
        data: Vec<Model>,
    }
    #[derive(Deserialize)]
    struct Model {
        id: String,
    }
    let answer = accepted(ask(Method::GET, "/v1/models", None::<&()>).await?, "/v1/models")?;
    let Models { data } = understood(answer, "/v1/models")?;
    Ok(data.into_iter().map(|model| model.id).collect())
}

/// LiteLLM's records of a call: one for each model that was tried. They appear some seconds after the call.
pub async fn spend_of(call_id: CallId) -> Result<Vec<Usage>> {
    let answer = ask(Method::GET, &format!("/spend/logs?request_id={call_id}"), None::<&()>).await?;
    understood(accepted(answer, "/spend/logs")?, "/spend/logs")
}

/// The usage of all attempts of a call together. LiteLLM records a cost of 0 where it has no price for a model, so a
/// cost of 0 for tokens is an unknown one.
pub fn sum(attempts: &[Usage]) -> Usage {
    let sum = attempts.iter().fold(Usage::NONE, |sum, attempt| sum.plus(*attempt));
    if sum.cost == Some(Usd::ZERO) && sum.total_tokens > 0 { Usage { cost: None, ..sum } } else { sum }
}

/// Whether LiteLLM answers at all.
pub async fn is_alive(limit: Duration) -> bool {
    let Ok(key) = master_key().await else { return false };
    let answer = send(Method::GET, "/health/liveliness", &key, &[], vec![], limit).await;
    answer.is_ok_and(|answer| answer.status().is_success())
}

/// What LiteLLM answers about one of its things; `None`: it has no such thing.
async fn found<T: for<'de> Deserialize<'de>>(
    path: &str,
    parameter: &str,
    id: impl Display,
) -> Result<Option<T>> {
    let answer = ask(Method::GET, &format!("{path}?{parameter}={id}"), None::<&()>).await?;
    if answer.status == StatusCode::NOT_FOUND {
        return Ok(None);
    }
    understood(accepted(answer, path)?, path).map(Some)
}

async fn ask<T: Serialize>(method: Method, path: &str, body: Option<&T>) -> Result<Answer> {
    let key = master_key().await?;
    let body = body.map(serde_json::to_vec).transpose().map_err(Error::internal)?.unwrap_or_default();
    let unavailable =
        |unanswered: Unanswered| Error::unavailable("LiteLLM").caused_by(format!("{path}: {unanswered}"));
    match send(method, path, &key, &[], body, LIMIT).await {
        Ok(response) => read(response, LIMIT).await.map_err(unavailable),
        Err(SendError::Unanswered(unanswered)) => Err(unavailable(unanswered)),
        Err(SendError::Ours(error)) => Err(error),
    }
}

/// The answer if it is a success; otherwise the error that its failure means for our caller.
fn accepted(answer: Answer, path: &str) -> Result<Answer> {
    let Answer { status, body, .. } = &answer;
    // An answer without JSON, or a refusal without LiteLLM's envelope, comes from another server at its address.
    if status.is_success() && serde_json::from_slice::<IgnoredAny>(body).is_ok() {
        return Ok(answer);
    }
    let problem = answer.problem();
    let kind = problem.kind.as_deref().unwrap_or_default();
    let comes_again = matches!(*status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
    if status.is_client_error() && !comes_again && !problem.message.is_empty() {
        // The message may quote the request. Only keys are secret in it, and those are masked in messages.
        return Err(Error::internal(format!(
            "{path}: LiteLLM answered {status} {kind}: {}",
            problem.message
        )));
    }
    Err(Error::unavailable("LiteLLM").caused_by(format!("{path}: LiteLLM answered {status} {kind}")))
}

fn understood<T: for<'de> Deserialize<'de>>(answer: Answer, path: &str) -> Result<T> {
    // The body is not logged, since it may contain a new key.
    serde_json::from_slice(&answer.body).map_err(|_| {
        Error::unavailable("LiteLLM").caused_by(format!("{path}: LiteLLM's answer has another form"))
    })
}
