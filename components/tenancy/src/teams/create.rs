//! Creating a team, here and in LiteLLM: both, or neither.
//!
//! The team is first written here as `creating`, which nobody sees; then LiteLLM makes the team and its key; then one
//! statement makes it active, with its key's hash, its credits and its first ledger row. When LiteLLM fails, what it made is
//! deleted, and the team here with it. When even that fails, or this request dies half way, the row stays `creating`, and the next
//! request for the same id clears what is left and begins anew: at once if this request could say so, else when its lease is
//! over. What is cleared in LiteLLM carries the row's marker, so a team that somebody else made there is never touched.

use super::{
    budget,
    values::{Budget, BudgetDuration, Pricing, Rate, WebhookUrl},
};
use axum::Json;
use serde::{Deserialize, Serialize};
use serde_json::json;
use shared::{
    error::{Error, Result},
    function,
    http::{Body, Mutation, mutation::Beginning},
    litellm::admin::{self, DesiredTeam},
    platform::settings,
    store::{Function, parameters::Json as JsonParameter},
    teams::Team,
    values::{
        AccessGroupName, BillingMode, BudgetMode, CreditCount, GroupName, Limit, Metadata, Name,
        OrganizationId, TeamId, VirtualKey,
    },
};
use utoipa::ToSchema;
use uuid::Uuid;

/// What a team is made of.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"organization_id": "acme-corp", "team_id": "acme-engineering",
    "model_groups": ["ChatAgent"], "credits_allocated": 1000}))]
pub struct CreateTeam {
    organization_id: OrganizationId,
    /// Without one, one is made.
    team_id: Option<TeamId>,
    team_alias: Option<Name>,
    #[serde(default)]
    model_groups: Vec<GroupName>,
    #[serde(default)]
    access_groups: Vec<AccessGroupName>,
    #[serde(default = "no_credits")]
    credits_allocated: CreditCount,
    /// How far below zero a `soft` team may go; without one, without end.
    credit_limit: Option<CreditCount>,
    #[serde(default = "hard")]
    budget_mode: BudgetMode,
    /// How often LiteLLM's budget starts anew.
    budget_duration: Option<BudgetDuration>,
    /// LiteLLM's budget; without one, what the credits are worth.
    max_budget: Option<Budget>,
    /// Requests a minute.
    rpm_limit: Option<Limit>,
    /// Tokens a minute.
    tpm_limit: Option<Limit>,
    /// For calls that name no group; without one, the first.
    default_model_group: Option<GroupName>,
    #[serde(default = "job_based")]
    billing_mode: BillingMode,
    credits_per_dollar: Option<Rate>,
    tokens_per_credit: Option<Limit>,
    pricing: Option<Pricing>,
    webhook_url: Option<WebhookUrl>,
    #[serde(default)]
    metadata: Metadata,
}

fn no_credits() -> CreditCount {
    const { CreditCount::new(0) }
}

fn hard() -> BudgetMode {
    BudgetMode::Hard
}

fn job_based() -> BillingMode {
    BillingMode::JobBased
}

/// Tokens for one credit in `consumption_tokens`, unless the request says otherwise.
const TOKENS_PER_CREDIT: Limit = Limit::new(10_000);

/// The new team and its key, which is shown this once.
#[derive(Serialize, ToSchema)]
pub struct CreatedTeam {
    team_id: TeamId,
    organization_id: OrganizationId,
    team_alias: String,
    model_groups: Vec<GroupName>,
    access_groups: Vec<AccessGroupName>,
    allowed_models: Vec<String>,
    credits_allocated: i64,
    credits_remaining: i64,
    virtual_key: String,
    message: &'static str,
}

impl CreatedTeam {
    fn new(team: Team, virtual_key: String) -> Self {
        Self {
            team_id: team.team_id,
            organization_id: team.organization_id,
            team_alias: team.team_alias,
            model_groups: team.model_groups,
            access_groups: team.access_groups,
            allowed_models: team.allowed_models,
            credits_allocated: team.credits.credits_allocated,
            credits_remaining: team.credits.credits_remaining,
            virtual_key,
            message: "Team created successfully with LiteLLM integration",
        }
    }
}

/// The answer of `begin_team`.
#[derive(Deserialize)]
struct Begun {
    resumed: bool,
    marker: Uuid,
    litellm: DesiredTeam,
}

/// For how long a request that creates a team may be at it before another may take over: longer than all that it asks of
/// LiteLLM may take.
const LEASE_SECONDS: i32 = 120;

/// Create a team
///
/// It is made here and in LiteLLM, with a budget there that its credits are worth, and a key that may use what the team may.
/// Either all of it holds or none.
#[utoipa::path(post, path = "/api/teams/create", tag = "Teams", request_body = CreateTeam,
    responses((status = 200, body = CreatedTeam), (status = 404, description = "`not_found`"),
        (status = 409, description = "`already_exists`, `in_progress`")))]
pub async fn create(mutation: Mutation, Body(new): Body<CreateTeam>) -> Result<Json<CreatedTeam>> {
    let credits = new.credits_allocated;
    let attempt = Uuid::now_v7();
    let begun: Begun = match mutation.begin(beginning(new, attempt).await?).await? {
        Beginning::Repeat(team, key) => {
            let key = String::from_utf8(key).map_err(Error::internal)?;
            return Ok(Json(CreatedTeam::new(team, key)));
        }
        Beginning::New(begun) => begun,
    };
    let desired = &begun.litellm;
    match in_litellm(&begun, attempt).await {
        Ok(key) => {
            // A failure here says nothing about whether it took effect, so nothing is undone: what did not, the next request for the
            // same id redoes.
            let function = function!(activate_team(
                p_attempt: attempt,
                p_team_id: &desired.team_id,
                p_version: desired.version,
                p_litellm_alias: key_alias(desired, attempt),
                p_key_hash: key.hash().to_vec(),
                p_hint: key.hint(),
                p_credits: credits,
            ));
            let team = mutation.finish(function.repeatable(), key.expose().as_bytes()).await?;
            Ok(Json(CreatedTeam::new(team, key.expose().to_owned())))
        }
        Err(failure) => {
            let clean = admin::delete_team(&desired.team_id, begun.marker).await.is_ok();
            let undo =
                function!(abandon_team(p_attempt: attempt, p_team_id: &desired.team_id, p_clean: clean));
            // If this fails, too, the lease runs out.
            _ = mutation.release(undo).await;
            Err(failure)
        }
    }
}

/// The first half: the team as nobody sees it yet.
async fn beginning(new: CreateTeam, attempt: Uuid) -> Result<Function> {
    let team_id = new.team_id.unwrap_or_else(|| TeamId::generated(attempt));
    let alias = new.team_alias.map_or_else(|| team_id.to_string(), |alias| alias.to_string());
    let max_budget = match new.max_budget {
        Some(Budget(explicit)) => Some(explicit),
        None => {
            let rate = settings::parsed("usd_per_credit").await?;
            budget(rate, new.credits_allocated, new.budget_mode, new.credit_limit)?
        }
    };
    let spec = json!({
        "organization_id": new.organization_id,
        "team_id": team_id,
        "team_alias": alias,
        "model_groups": new.model_groups,
        "access_groups": new.access_groups,
        "default_model_group": new.default_model_group,
        "budget_mode": new.budget_mode,
        "credit_limit": new.credit_limit,
        "max_budget": max_budget.map(|budget| budget.to_string()),
        "budget_duration": new.budget_duration,
        "rpm_limit": new.rpm_limit,
        "tpm_limit": new.tpm_limit,
        "billing_mode": new.billing_mode,
        "credits_per_dollar": new.credits_per_dollar.unwrap_or(Rate::DEFAULT).0.to_string(),
        "tokens_per_credit": new.tokens_per_credit.unwrap_or(TOKENS_PER_CREDIT),
        "pricing": new.pricing,
        "webhook_url": new.webhook_url,
    });
    Ok(function!(begin_team(
        p_attempt: attempt,
        p_lease_seconds: LEASE_SECONDS,
        p_spec: JsonParameter(spec.to_string()),
        p_metadata: new.metadata,
    )))
}

/// Makes the team and its key in LiteLLM.
async fn in_litellm(begun: &Begun, attempt: Uuid) -> Result<VirtualKey> {
    let desired = &begun.litellm;
    if begun.resumed {
        admin::delete_team(&desired.team_id, begun.marker).await?;
    }
    admin::create_team(desired, begun.marker).await?;
    admin::generate_key(desired, key_alias(desired, attempt)).await
}

/// The name of the team's first key in LiteLLM.
fn key_alias(desired: &DesiredTeam, attempt: Uuid) -> String {
    format!("{}-{attempt}", desired.team_id)
}
