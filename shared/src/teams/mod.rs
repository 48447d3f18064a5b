//! The answers of SQL about teams, and the synchronization of LiteLLM with them.
//!
//! Uses `store`, `litellm` and `http`. The components and `calls` use it.

pub mod deletion;
pub mod limits;
pub mod sync;

use crate::{
    litellm::admin::DesiredTeam,
    values::{
        AccessGroupName, BillingMode, BudgetMode, ChargeWhen, GroupName, KeyId, OrganizationId, TeamId,
        TeamStatus, Usd,
    },
};
use limits::Limits;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// A team as the API shows it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Team {
    /// The team's id.
    pub team_id: TeamId,
    /// The organization that the team belongs to.
    pub organization_id: OrganizationId,
    /// The team's name for people.
    pub team_alias: String,
    /// Whether the team's keys work.
    pub status: TeamStatus,
    /// The team's balance.
    pub credits: TeamCredits,
    /// The model groups assigned to the team, in order.
    pub model_groups: Vec<GroupName>,
    /// The access groups assigned to the team, in order.
    pub access_groups: Vec<AccessGroupName>,
    /// All models of all those groups, which the team's keys may use with LiteLLM directly; `null`: the team may not
    /// see them.
    pub allowed_models: Option<Vec<String>>,
    /// The model group of calls that name none; `null`: the team's first model group.
    pub default_model_group: Option<GroupName>,
    /// Whether jobs can be created without available credits.
    pub budget_mode: BudgetMode,
    /// How many credits below zero the balance of a `soft` team may go; `null`: without limit.
    pub credit_limit: Option<i64>,
    /// How the credits for a job are counted.
    pub billing_mode: BillingMode,
    /// Credits for one US dollar of consumption, if `billing_mode` is `consumption_usd`.
    pub credits_per_dollar: Usd,
    /// Tokens of consumption for one credit, if `billing_mode` is `consumption_tokens`.
    pub tokens_per_credit: i64,
    /// Credits for 1,000 tokens of calls whose cost is unknown, if `billing_mode` is `consumption_usd`.
    pub credits_per_1k_tokens_unpriced: Usd,
    /// Which jobs are charged.
    pub charge_when: ChargeWhen,
    /// The customer's price in US dollars, in addition to the credits; `null`: none.
    #[schema(value_type = Option<Object>)]
    pub pricing: Option<Box<RawValue>>,
    /// The URL that alerts are sent to; `null`: they are not sent.
    pub webhook_url: Option<String>,
    /// The team's own limits.
    pub limits: Limits,
    /// Whether the team sees what its calls cost in US dollars; `null`: as the deployment has it.
    pub costs_visible_to_teams: Option<bool>,
    /// Whether the team sees the names of models; `null`: as the deployment has it.
    pub models_visible_to_teams: Option<bool>,
    /// LiteLLM's budget in US dollars: what was set, or else what the credits are worth; `null`: without limit.
    pub max_budget: Option<Usd>,
    /// How often the spending that counts against LiteLLM's budget is reset; `null`: never.
    pub budget_duration: Option<String>,
    /// Requests per minute; `null`: without limit.
    pub rpm_limit: Option<i64>,
    /// Tokens per minute; `null`: without limit.
    pub tpm_limit: Option<i64>,
    /// The team's newest key.
    pub key: Option<KeySummary>,
    /// The admin's own data about the team.
    #[schema(value_type = Object)]
    pub metadata: Box<RawValue>,
    /// When the team was created (RFC 3339, UTC).
    pub created_at: String,
    /// When the team was last changed (RFC 3339, UTC).
    pub updated_at: String,
}

/// A team's balance in credits. `credits_remaining` is `credits_allocated` less `credits_used`; `credits_available` is
/// `credits_remaining` less `credits_reserved`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct TeamCredits {
    /// All credits that the team has been given, corrections included.
    pub credits_allocated: i64,
    /// All credits that the team has been charged.
    pub credits_used: i64,
    /// The credits that are left; negative if a `soft` team has overdrawn its balance.
    pub credits_remaining: i64,
    /// The credits that open jobs hold: one for each.
    pub credits_reserved: i64,
    /// The credits that are neither used nor reserved. Negative if a `soft` team has overdrawn its balance.
    pub credits_available: i64,
}

/// A key, without the key itself.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct KeySummary {
    /// The key's id.
    pub key_id: KeyId,
    /// The key's name for people.
    pub alias: String,
    /// The last four characters of the key.
    pub hint: String,
    /// When the key was created (RFC 3339, UTC).
    pub created_at: String,
    /// When a request last used the key for more than reading (RFC 3339, UTC), to the minute; `null`: never.
    pub last_used_at: Option<String>,
    /// When the key stopped working, or will stop (RFC 3339, UTC); `null`: it works.
    pub revoked_at: Option<String>,
}

/// A team after a change, and its desired state in LiteLLM.
#[derive(Debug, Deserialize)]
pub struct Changed {
    /// The team.
    pub team: Team,
    /// The desired state in LiteLLM.
    pub litellm: DesiredTeam,
}
