//! Teams and keys in LiteLLM.
//!
//! What LiteLLM is to know of a team comes whole from the database ([`DesiredTeam`]) and is sent whole, so sending it twice, or again
//! after a failure, does no harm.

use super::{Answer, SendError, Unanswered, master_key, read, send};
use crate::{
    error::{Code, Error, Result},
    values::{CallId, TeamId, Usd, VirtualKey},
};
use axum::http::{Method, StatusCode};
use serde::{Deserialize, Serialize, de::IgnoredAny};
use serde_json::{Value, json};
use std::{collections::BTreeSet, time::Duration};
use uuid::Uuid;

/// What LiteLLM is to know of a team: the answer of `litellm_desired_team` in `migrations/functions/litellm.sql`.
#[derive(Debug, Clone, Deserialize)]
pub struct DesiredTeam {
    /// Counts the changes of everything below.
    pub version: i64,
    /// The team's id, the same in LiteLLM.
    pub team_id: TeamId,
    /// The team's name for people.
    pub team_alias: String,
    /// The models that the team's keys may use.
    pub models: Vec<String>,
    /// What may be spent; `None`: without limit.
    pub max_budget: Option<Usd>,
    /// How often the budget starts anew (`30d`); `None`: never.
    pub budget_duration: Option<String>,
    /// Requests a minute.
    pub rpm_limit: Option<i64>,
    /// Tokens a minute.
    pub tpm_limit: Option<i64>,
    /// Whether the team is suspended.
    pub blocked: bool,
    /// The team's keys.
    pub keys: Vec<DesiredKey>,
    /// Keys that must be gone, as the hex of their SHA-256.
    pub revoked: Vec<String>,
}

/// A key that LiteLLM is to take.
#[derive(Debug, Clone, Deserialize)]
pub struct DesiredKey {
    /// The hex of its SHA-256, which LiteLLM takes wherever it takes a key.
    pub hash: String,
    /// For how long still, of one that was replaced.
    pub seconds_left: Option<i64>,
}

impl DesiredTeam {
    /// The models as LiteLLM is told them: to LiteLLM an empty list means every model, so none is said with a name that no model
    /// has.
    fn models(&self) -> Vec<&str> {
        if self.models.is_empty() {
            vec!["no-default-models"]
        } else {
            self.models.iter().map(String::as_str).collect()
        }
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

/// The member of a LiteLLM team's metadata that says that this deployment made it, with the value that only it knows.
const MARKER: &str = "llm_jobs_marker";

/// How long LiteLLM may take for one administrative request.
const LIMIT: Duration = Duration::from_secs(10);

/// Makes the team. One of that id that is there already is somebody else's: refused.
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

/// Deletes the team with its keys, if it is the one that `marker` was given to. Answers when LiteLLM holds no such team.
pub async fn delete_team(team_id: &TeamId, marker: Uuid) -> Result<()> {
    #[derive(Deserialize)]
    struct Info {
        team_info: Team,
    }
    #[derive(Deserialize)]
    struct Team {
        metadata: Option<Value>,
    }
    let answer = ask(Method::GET, &format!("/team/info?team_id={team_id}"), None::<&()>).await?;
    if answer.status == StatusCode::NOT_FOUND {
        // Also the answer while LiteLLM's database is down. Making the team then fails, too, so nothing is lost by believing it.
        return Ok(());
    }
    let Info { team_info } = understood(accepted(answer, "/team/info")?, "/team/info")?;
    let ours =
        team_info.metadata.and_then(|metadata| metadata.get(MARKER)?.as_str()?.parse().ok()) == Some(marker);
    if ours {
        let answer = ask(Method::POST, "/team/delete", Some(&json!({ "team_ids": [team_id] }))).await?;
        if answer.status != StatusCode::NOT_FOUND {
            accepted(answer, "/team/delete")?;
        }
    }
    Ok(())
}

/// Has LiteLLM make a key for the team, restricted as the team is. `alias` must be new.
pub async fn generate_key(desired: &DesiredTeam, alias: String) -> Result<VirtualKey> {
    #[derive(Deserialize)]
    struct Generated {
        key: String,
    }
    let mut body = desired.limits();
    if let Some(body) = body.as_object_mut() {
        body.insert("key_alias".into(), alias.into());
    }
    let answer = accepted(ask(Method::POST, "/key/generate", Some(&body)).await?, "/key/generate")?;
    let Generated { key } = understood(answer, "/key/generate")?;
    Ok(VirtualKey::new(key))
}

/// Tells LiteLLM what the team and its keys may use from now on, which keys are gone, and whether the team is blocked.
pub async fn update_team(desired: &DesiredTeam) -> Result<()> {
    if !desired.revoked.is_empty() {
        delete_keys(&json!({ "keys": desired.revoked })).await?;
    }
    for key in &desired.keys {
        let mut body = desired.limits();
        if let Some(body) = body.as_object_mut() {
            body.remove("team_id");
            body.insert("key".into(), key.hash.clone().into());
            // As well as to the team: LiteLLM takes an old copy of a team back when one of its calls ends at that moment, of a key never.
            body.insert("blocked".into(), desired.blocked.into());
            if let Some(seconds) = key.seconds_left {
                body.insert("duration".into(), format!("{seconds}s").into());
            }
        }
        let answer = ask(Method::POST, "/key/update", Some(&body)).await?;
        // Gone there: another request has revoked it meanwhile, and tells the rest.
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

/// Deletes the key that has an alias. Answers also when there is none.
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

/// What LiteLLM recorded of one call.
#[derive(Debug, Deserialize)]
pub struct Spend {
    /// Its cost.
    pub spend: Usd,
    /// Tokens of the prompt.
    #[serde(default)]
    pub prompt_tokens: i64,
    /// Tokens of the answer.
    #[serde(default)]
    pub completion_tokens: i64,
    /// Tokens of the prompt and the answer.
    #[serde(default)]
    pub total_tokens: i64,
}

/// What LiteLLM recorded under a call's id: one entry for each model that was tried. Entries appear seconds after the call.
pub async fn spend_of(call_id: CallId) -> Result<Vec<Spend>> {
    let answer = ask(Method::GET, &format!("/spend/logs?request_id={call_id}"), None::<&()>).await?;
    understood(accepted(answer, "/spend/logs")?, "/spend/logs")
}

/// Whether LiteLLM answers at all.
pub async fn is_alive(limit: Duration) -> bool {
    let Ok(key) = master_key().await else { return false };
    let answer = send(Method::GET, "/health/liveliness", &key, &[], vec![], limit).await;
    answer.is_ok_and(|answer| answer.status().is_success())
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

/// A successful answer, or what its failure means to the caller of ours.
fn accepted(answer: Answer, path: &str) -> Result<Answer> {
    let Answer { status, body, .. } = &answer;
    // What is no JSON, or refuses without LiteLLM's envelope, comes from something else at its address.
    if status.is_success() && serde_json::from_slice::<IgnoredAny>(body).is_ok() {
        return Ok(answer);
    }
    let problem = answer.problem();
    let kind = problem.kind.as_deref().unwrap_or_default();
    let comes_again = matches!(*status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
    if status.is_client_error() && !comes_again && !problem.message.is_empty() {
        // The message may quote what was sent; of that only keys are secret here, and they are not in a message.
        return Err(Error::internal(format!(
            "{path}: LiteLLM answered {status} {kind}: {}",
            problem.message
        )));
    }
    Err(Error::unavailable("LiteLLM").caused_by(format!("{path}: LiteLLM answered {status} {kind}")))
}

fn understood<T: for<'de> Deserialize<'de>>(answer: Answer, path: &str) -> Result<T> {
    // The body is not logged: it may hold a new key.
    serde_json::from_slice(&answer.body).map_err(|_| {
        Error::unavailable("LiteLLM").caused_by(format!("{path}: LiteLLM's answer has another form"))
    })
}
