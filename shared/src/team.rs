//! What SQL answers about teams, and telling LiteLLM about their changes.

use crate::{
    auth,
    change::Change,
    database::{self, text, texts},
    error::{Error, Result},
    litellm::admin::{self, Wanted},
    money::Usd,
    time::within,
};
use futures::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use spin_sdk::pg::ParameterValue;
use std::time::Duration;
use utoipa::ToSchema;

/// A team as the API shows it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Team {
    /// Its id.
    pub team_id: String,
    /// The organization that it belongs to.
    pub organization_id: String,
    /// Its name for people.
    pub team_alias: String,
    /// `active` or `suspended`.
    pub status: String,
    /// Its balance.
    pub credits: TeamCredits,
    /// The model groups assigned to it, in order.
    pub model_groups: Vec<String>,
    /// The access groups assigned to it, in order.
    pub access_groups: Vec<String>,
    /// All models of all those groups, which are those that its key may use with LiteLLM directly.
    pub allowed_models: Vec<String>,
    /// The group of a call that names none; `null`: the first.
    pub default_model_group: Option<String>,
    /// `hard`: no credit, no job. `soft`: work goes on below zero.
    pub budget_mode: String,
    /// How far below zero, in soft mode; `null`: without end.
    pub credit_limit: Option<i64>,
    /// `job_based`: 1 credit a job. `consumption_usd`, `consumption_tokens`: by what its calls used.
    pub billing_mode: String,
    /// Credits for one US dollar of consumption.
    pub credits_per_dollar: Usd,
    /// Tokens of consumption for one credit.
    pub tokens_per_credit: i64,
    /// What the customer is charged beside the credits; `null`: nothing.
    #[schema(value_type = Option<Object>)]
    pub pricing: Option<Box<RawValue>>,
    /// Where alerts are sent.
    pub webhook_url: Option<String>,
    /// LiteLLM's budget in US dollars; `null`: none.
    pub max_budget: Option<Usd>,
    /// How often that budget starts anew.
    pub budget_duration: Option<String>,
    /// Requests a minute.
    pub rpm_limit: Option<i64>,
    /// Tokens a minute.
    pub tpm_limit: Option<i64>,
    /// What is shown of its newest key.
    pub key: Option<KeySummary>,
    /// The admin's own data about it.
    #[schema(value_type = Object)]
    pub metadata: Box<RawValue>,
    /// When it was created.
    pub created_at: String,
    /// When it was last changed.
    pub updated_at: String,
}

/// The balance of a team: `remaining = allocated - used`, `available = remaining - reserved`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct TeamCredits {
    /// All that was ever given.
    pub credits_allocated: i64,
    /// All that was ever charged.
    pub credits_used: i64,
    /// What is left.
    pub credits_remaining: i64,
    /// What open jobs hold of it.
    pub credits_reserved: i64,
    /// What a new job may take.
    pub credits_available: i64,
}

/// What may be shown of a key after its creation.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct KeySummary {
    /// Its id.
    pub key_id: String,
    /// Its name for people.
    pub alias: String,
    /// Its last four characters.
    pub hint: String,
    /// When it was made.
    pub created_at: String,
    /// When it last did something, to the minute.
    pub last_used_at: Option<String>,
    /// When it stopped working, or will.
    pub revoked_at: Option<String>,
}

/// A team after a change, and what LiteLLM is to know of it now.
#[derive(Debug, Deserialize)]
pub struct Changed {
    /// The team.
    pub team: Team,
    /// What LiteLLM is to know.
    pub litellm: Wanted,
}

/// Tells LiteLLM of a change that SQL has just made; of one that it made before, only what is still untold.
pub async fn tell_litellm(change: &Change, wanted: Wanted) -> Result<()> {
    if !change.is_replayed() {
        return tell(wanted).await;
    }
    let statement = "SELECT litellm_untold($1)::text AS answer";
    match database::call(statement, vec![text(&wanted.team_id)]).await? {
        Some(untold) => tell(untold).await,
        None => Ok(()),
    }
}

/// Tells LiteLLM of a change of several teams. Those that it could not be told of in time are told with their next call; the answer
/// is a warning for the caller then.
pub async fn tell_litellm_of_all(change: &Change, teams: Vec<Wanted>) -> Option<String> {
    const AT_ONCE: usize = 8;
    const LIMIT: Duration = Duration::from_secs(15);
    let mut waiting = teams.len();
    let mut telling = stream::iter(teams).map(|team| tell_litellm(change, team)).buffer_unordered(AT_ONCE);
    let all = async {
        while let Some(told) = telling.next().await {
            waiting = waiting.saturating_sub(told.is_ok().into());
        }
    };
    within(LIMIT, all).await;
    (waiting > 0).then(|| {
        format!("LiteLLM could not be told of the change for {waiting} teams; their next call does it")
    })
}

/// Tells LiteLLM what it is to know, until it knows the newest version. Forgets what is cached about the team's keys.
///
/// Two changes at once may reach LiteLLM in either order; each looks afterwards whether what it told is still the newest, and
/// tells again if not, so the last word is the right one. A failure leaves the team marked as not told (`litellm_synced_version`):
/// the next telling mends it, and the team's next call is one.
pub async fn tell(mut wanted: Wanted) -> Result<()> {
    let hashes: Vec<String> =
        wanted.keys.iter().map(|key| &key.hash).chain(&wanted.revoked).cloned().collect();
    auth::forget(&hashes).await;
    for _ in 0..5 {
        admin::update_team(&wanted).await?;
        let newest = told(&wanted.team_id, wanted.version, &wanted.revoked).await?;
        if newest == wanted.version {
            return Ok(());
        }
        wanted =
            database::call("SELECT litellm_wanted($1)::text AS answer", vec![text(&wanted.team_id)]).await?;
    }
    // Whoever changes the team that often tells LiteLLM, too.
    Err(Error::unavailable("LiteLLM"))
}

/// Writes down that LiteLLM knows this version, and that these keys are gone there; answers the newest version.
pub async fn told(team_id: &str, version: i64, revoked: &[String]) -> Result<i64> {
    let parameters = vec![text(team_id), ParameterValue::Int64(version), texts(revoked)];
    database::call("SELECT litellm_told($1, $2, $3)::text AS answer", parameters).await
}
