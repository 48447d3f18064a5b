//! What SQL answers about teams, and telling LiteLLM about their changes.

use crate::{
    auth,
    database::{self, text},
    error::{Error, Result},
    litellm::admin::{self, Wanted},
    money::Usd,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use spin_sdk::pg::ParameterValue;

/// A team as the API shows it.
#[derive(Debug, Serialize, Deserialize)]
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
    pub metadata: Box<RawValue>,
    /// When it was created.
    pub created_at: String,
    /// When it was last changed.
    pub updated_at: String,
}

/// The balance of a team: `remaining = allocated - used`, `available = remaining - reserved`.
#[derive(Debug, Serialize, Deserialize)]
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
#[derive(Debug, Serialize, Deserialize)]
pub struct KeySummary {
    /// Its last four characters.
    pub hint: String,
    /// When it was made.
    pub created_at: String,
    /// When it last did something, to the minute.
    pub last_used_at: Option<String>,
}

/// A team after a change, and what LiteLLM is to know of it now.
#[derive(Debug, Deserialize)]
pub struct Changed {
    /// The team.
    pub team: Team,
    /// What LiteLLM is to know.
    pub litellm: Wanted,
}

/// Tells LiteLLM what it is to know, until it knows the newest version. Forgets what is cached about the team's keys.
///
/// Two changes at once may reach LiteLLM in either order; each looks afterwards whether what it told is still the newest, and
/// tells again if not, so the last word is the right one. A failure leaves the team marked as not told (`litellm_synced_version`):
/// the next telling, by whatever request, mends it.
pub async fn tell_litellm(mut wanted: Wanted) -> Result<()> {
    auth::forget(&wanted.key_hashes).await;
    for _ in 0..5 {
        admin::update_team(&wanted).await?;
        let newest: i64 = database::call(
            "SELECT litellm_told($1, $2)::text AS answer",
            vec![text(&wanted.team_id), ParameterValue::Int64(wanted.version)],
        )
        .await?;
        if newest == wanted.version {
            return Ok(());
        }
        wanted = self::wanted(&wanted.team_id).await?;
    }
    // Whoever changes the team that often tells LiteLLM, too.
    Err(Error::unavailable("LiteLLM"))
}

/// What LiteLLM is to know of a team at this moment.
pub async fn wanted(team_id: &str) -> Result<Wanted> {
    database::call("SELECT litellm_wanted($1)::text AS answer", vec![text(team_id)]).await
}
