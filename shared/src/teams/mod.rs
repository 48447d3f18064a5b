//! What SQL answers about teams, and keeping LiteLLM in step with it.
//!
//! Uses `store`, `litellm` and `http`. The components use it, and so does `calls`.

pub mod sync;

use crate::{
    litellm::admin::DesiredTeam,
    values::{
        AccessGroupName, BillingMode, BudgetMode, GroupName, KeyId, OrganizationId, TeamId, TeamStatus, Usd,
    },
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// A team as the API shows it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Team {
    /// Its id.
    pub team_id: TeamId,
    /// The organization that it belongs to.
    pub organization_id: OrganizationId,
    /// Its name for people.
    pub team_alias: String,
    /// Whether its keys work.
    pub status: TeamStatus,
    /// Its balance.
    pub credits: TeamCredits,
    /// The model groups assigned to it, in order.
    pub model_groups: Vec<GroupName>,
    /// The access groups assigned to it, in order.
    pub access_groups: Vec<AccessGroupName>,
    /// All models of all those groups, which are those that its key may use with LiteLLM directly.
    pub allowed_models: Vec<String>,
    /// The group of a call that names none; `null`: the first.
    pub default_model_group: Option<GroupName>,
    /// Whether work goes on without credits.
    pub budget_mode: BudgetMode,
    /// How many credits below zero the balance may go in soft mode; `null`: any number.
    pub credit_limit: Option<i64>,
    /// What a job costs.
    pub billing_mode: BillingMode,
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
    pub key_id: KeyId,
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
    pub litellm: DesiredTeam,
}
