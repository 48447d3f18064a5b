//! Creating a team, here and in LiteLLM: in both, or in neither.
//!
//! The team is first written here with the status `creating`, in which nobody can see or use it. Then LiteLLM creates
//! the team and its key. Then one statement activates the team, with the digest of its key, its credits and its first
//! ledger entry.
//!
//! If LiteLLM fails, what it has created is deleted, and so is the team here. If that fails too, or the request dies in
//! between, the row stays `creating`, and the next request for the same id deletes the rest and starts again: at once
//! if this request could release its lease, otherwise when the lease has expired. A team is deleted in LiteLLM only if
//! it carries the row's marker, so a team that somebody else created there is never touched.

use super::values::{Budget, BudgetDuration, NewLimits, Pricing, Rate, UnpricedRate, WebhookUrl};
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
        AccessGroupName, BillingMode, BudgetMode, ChargeWhen, CreditCount, GroupName, Limit, Metadata, Name,
        OrganizationId, TeamId, Usd, VirtualKey,
    },
};
use utoipa::ToSchema;
use uuid::Uuid;

/// A team to create.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"organization_id": "acme-corp", "team_id": "acme-engineering",
    "model_groups": ["ChatAgent"], "credits_allocated": 1000}))]
pub struct CreateTeam {
    /// The organization that the team belongs to.
    organization_id: OrganizationId,
    /// The team's id, also in LiteLLM. Without it, an id is generated.
    team_id: Option<TeamId>,
    /// The team's name for people; its id unless it is given.
    team_alias: Option<Name>,
    /// The model groups that the team may use, in order.
    #[serde(default)]
    model_groups: Vec<GroupName>,
    /// The access groups whose model groups the team may use, in order.
    #[serde(default)]
    access_groups: Vec<AccessGroupName>,
    /// The number of credits to begin with; 0 unless it is given.
    #[serde(default = "no_credits")]
    credits_allocated: CreditCount,
    /// How many credits below zero the balance of a `soft` team may go; without it, there is no limit.
    credit_limit: Option<CreditCount>,
    /// Whether jobs can be created without available credits; `hard` unless it is given.
    #[serde(default = "hard")]
    budget_mode: BudgetMode,
    /// How often the spending that counts against LiteLLM's budget is reset; without it, never. Needs `max_budget`.
    budget_duration: Option<BudgetDuration>,
    /// LiteLLM's budget in US dollars; without it, it is always what the team's credits are worth.
    max_budget: Option<Budget>,
    /// Requests per minute; without it, there is no limit.
    rpm_limit: Option<Limit>,
    /// Tokens per minute; without it, there is no limit.
    tpm_limit: Option<Limit>,
    /// The model group of calls that name none, one of those that the team may use; without it, the team's first model
    /// group.
    default_model_group: Option<GroupName>,
    /// How the credits for a job are counted; `job_based` unless it is given.
    #[serde(default = "job_based")]
    billing_mode: BillingMode,
    /// Credits for one US dollar of consumption, if `billing_mode` is `consumption_usd`; 10 unless it is given.
    credits_per_dollar: Option<Rate>,
    /// Tokens of consumption for one credit, if `billing_mode` is `consumption_tokens`; 10,000 unless it is given.
    tokens_per_credit: Option<Limit>,
    /// Credits for 1,000 tokens of calls whose cost is unknown, if `billing_mode` is `consumption_usd`; 1 unless it is
    /// given.
    credits_per_1k_tokens_unpriced: Option<UnpricedRate>,
    /// Which jobs are charged; `completed` unless it is given.
    #[serde(default = "completed")]
    charge_when: ChargeWhen,
    /// The customer's price in US dollars, in addition to the credits; without it, there is none.
    pricing: Option<Pricing>,
    /// The URL that alerts are sent to; without it, they are not sent.
    webhook_url: Option<WebhookUrl>,
    /// The team's own limits, in place of the deployment's.
    limits: Option<NewLimits>,
    /// Whether the team sees what its calls cost in US dollars; without it, as the deployment has it.
    costs_visible_to_teams: Option<bool>,
    /// Whether the team sees the names of models; without it, as the deployment has it.
    models_visible_to_teams: Option<bool>,
    /// The admin's own data about the team.
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

fn completed() -> ChargeWhen {
    ChargeWhen::Completed
}

/// The `tokens_per_credit` of a team whose creator gives none.
const TOKENS_PER_CREDIT: Limit = Limit::new(10_000);

/// A new team and its key. Only this answer shows the key in full.
#[derive(Serialize, ToSchema)]
pub struct CreatedTeam {
    /// The team's id.
    team_id: TeamId,
    /// The organization that the team belongs to.
    organization_id: OrganizationId,
    /// The team's name for people.
    team_alias: String,
    /// The model groups assigned to the team, in order.
    model_groups: Vec<GroupName>,
    /// The access groups assigned to the team, in order.
    access_groups: Vec<AccessGroupName>,
    /// All models of all those groups, which the team's key may use with LiteLLM directly.
    allowed_models: Vec<String>,
    /// The number of credits that the team has been given.
    credits_allocated: i64,
    /// The credits that are left.
    credits_remaining: i64,
    /// The key itself, for `Authorization: Bearer`. It is not shown again.
    virtual_key: String,
    /// A sentence for people.
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
            allowed_models: team.allowed_models.unwrap_or_default(),
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

/// The lease of a request that creates a team, in seconds. All its requests to LiteLLM together take less.
const LEASE_SECONDS: i32 = 120;

/// Create a team
///
/// The team is created here and in LiteLLM, with a budget there that is worth its credits, and a key for the models
/// that the team may use. If anything fails, neither has the team.
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
            // After a failure here it is not known whether the statement took effect, so nothing is undone; if it did
            // not, the next request for the same id starts again.
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
            let clean = admin::delete_team(&desired.team_id, begun.marker, &[]).await.is_ok();
            let undo =
                function!(abandon_team(p_attempt: attempt, p_team_id: &desired.team_id, p_clean: clean));
            // If this fails too, the lease expires.
            _ = mutation.release(undo).await;
            Err(failure)
        }
    }
}

/// The first statement, which writes the team with the status `creating`.
async fn beginning(new: CreateTeam, attempt: Uuid) -> Result<Function> {
    let team_id = new.team_id.unwrap_or_else(|| TeamId::generated(attempt));
    let alias = new.team_alias.map_or_else(|| team_id.to_string(), |alias| alias.to_string());
    let spec = json!({
        "organization_id": new.organization_id,
        "team_id": team_id,
        "team_alias": alias,
        "model_groups": new.model_groups,
        "access_groups": new.access_groups,
        "default_model_group": new.default_model_group,
        "budget_mode": new.budget_mode,
        "credit_limit": new.credit_limit,
        "credits_allocated": new.credits_allocated,
        "usd_per_credit": settings::parsed::<Usd>("usd_per_credit").await?.to_string(),
        "max_budget": new.max_budget.map(|budget| budget.0.to_string()),
        "budget_duration": new.budget_duration,
        "rpm_limit": new.rpm_limit,
        "tpm_limit": new.tpm_limit,
        "billing_mode": new.billing_mode,
        "credits_per_dollar": new.credits_per_dollar.unwrap_or(Rate::DEFAULT).0.to_string(),
        "tokens_per_credit": new.tokens_per_credit.unwrap_or(TOKENS_PER_CREDIT),
        "credits_per_1k_tokens_unpriced": new.credits_per_1k_tokens_unpriced.map(|rate| rate.0.to_string()),
        "charge_when": new.charge_when,
        "limits": new.limits,
        "costs_visible_to_teams": new.costs_visible_to_teams,
        "models_visible_to_teams": new.models_visible_to_teams,
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

/// Creates the team and its key in LiteLLM.
async fn in_litellm(begun: &Begun, attempt: Uuid) -> Result<VirtualKey> {
    let desired = &begun.litellm;
    if begun.resumed {
        admin::delete_team(&desired.team_id, begun.marker, &[]).await?;
    }
    admin::create_team(desired, begun.marker).await?;
    admin::generate_key(desired, key_alias(desired, attempt)).await
}

/// The name of the team's first key in LiteLLM.
fn key_alias(desired: &DesiredTeam, attempt: Uuid) -> String {
    format!("{}-{attempt}", desired.team_id)
}
