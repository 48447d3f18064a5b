//! Creating a team, here and in LiteLLM: both, or neither.
//!
//! The team is first written here as `creating`, which nobody sees; then LiteLLM makes the team and its key; then one
//! statement makes it active, with its key's hash, its credits and its first ledger row. When LiteLLM fails, what it made is
//! deleted, and the team here with it. When even that fails, or this request dies half way, the row stays `creating`, and the next
//! request for the same id clears what is left and begins anew: at once if this request could say so, else when its lease is
//! over. What is cleared in LiteLLM carries the row's marker, so a team that somebody else made there is never touched.

use super::{
    budget,
    values::{BillingMode, Budget, BudgetDuration, BudgetMode, Limit, Pricing, Rate, WebhookUrl},
};
use axum::Json;
use serde::{Deserialize, Serialize};
use serde_json::json;
use shared::{
    auth::VirtualKey,
    change::Change,
    database::{self, optional_text, text, uuid},
    error::{Error, Result},
    input::{Body, Credits, Metadata, Name, Slug},
    litellm::admin::{self, Wanted},
    money::Usd,
    settings,
    team::Team,
};
use spin_sdk::pg::ParameterValue;
use utoipa::ToSchema;
use uuid::Uuid;

/// What a team is made of.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"organization_id": "acme-corp", "team_id": "acme-engineering",
    "model_groups": ["ChatAgent"], "credits_allocated": 1000}))]
pub struct CreateTeam {
    organization_id: Slug,
    /// Without one, one is made.
    team_id: Option<Slug>,
    team_alias: Option<Name>,
    #[serde(default)]
    model_groups: Vec<Slug>,
    #[serde(default)]
    access_groups: Vec<Slug>,
    #[serde(default)]
    credits_allocated: Credits,
    /// How far below zero a `soft` team may go; without one, without end.
    credit_limit: Option<Credits>,
    #[serde(default)]
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
    default_model_group: Option<Slug>,
    #[serde(default)]
    billing_mode: BillingMode,
    credits_per_dollar: Option<Rate>,
    tokens_per_credit: Option<Limit>,
    pricing: Option<Pricing>,
    webhook_url: Option<WebhookUrl>,
    #[serde(default)]
    metadata: Metadata,
}

/// What a team has that says nothing: tokens for one credit in `consumption_tokens`.
const TOKENS_PER_CREDIT: Limit = Limit(10_000);

/// The new team and its key, which is shown this once.
#[derive(Serialize, ToSchema)]
pub struct CreatedTeam {
    team_id: String,
    organization_id: String,
    team_alias: String,
    model_groups: Vec<String>,
    access_groups: Vec<String>,
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

/// What is kept of the answer: the key itself only sealed.
#[derive(Deserialize)]
struct Kept {
    team: Team,
    sealed: Option<String>,
}

/// The answer of `begin_team`.
#[derive(Deserialize)]
struct Begun {
    resumed: bool,
    marker: Uuid,
    litellm: Wanted,
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
pub async fn create(change: Change, Body(new): Body<CreateTeam>) -> Result<Json<CreatedTeam>> {
    let credits = new.credits_allocated;
    let attempt = Uuid::now_v7();
    let begun = match begin(&change, new, attempt).await? {
        Claimed { kept: Some(Kept { team, sealed }), .. } => {
            change.mark_replayed();
            let sealed = sealed.ok_or_else(|| Error::internal("a kept team without its key"))?;
            let key = String::from_utf8(change.open(&sealed).await?).map_err(Error::internal)?;
            return Ok(Json(CreatedTeam::new(team, key)));
        }
        Claimed { begun: Some(begun), .. } => begun,
        Claimed { .. } => return Err(Error::internal("begin_team answered nothing")),
    };
    match in_litellm(&begun, attempt).await {
        Ok(key) => activate(&change, &begun.litellm, attempt, &key, credits).await.map(Json),
        Err(failure) => {
            let team_id = &begun.litellm.team_id;
            let clean = admin::delete_team(team_id, begun.marker).await.is_ok();
            let parameters =
                vec![uuid(attempt), text(team_id), ParameterValue::Boolean(clean), change.parameter()];
            let statement =
                "SELECT json_build_array(abandon_team($1, $2, $3), release($4::text::json))::text AS answer";
            // If this fails, too, the lease runs out.
            _ = database::call::<serde_json::Value>(statement, parameters).await;
            Err(failure)
        }
    }
}

#[derive(Deserialize)]
struct Claimed {
    kept: Option<Kept>,
    begun: Option<Begun>,
}

async fn begin(change: &Change, new: CreateTeam, attempt: Uuid) -> Result<Claimed> {
    let team_id = new.team_id.map_or_else(|| format!("team_{}", attempt.simple()), |id| id.to_string());
    let alias = new.team_alias.map_or_else(|| team_id.clone(), |alias| alias.to_string());
    let max_budget = match new.max_budget {
        Some(Budget(explicit)) => Some(explicit),
        None => {
            let rate = Usd::parse(&settings::text("usd_per_credit").await?)
                .ok_or_else(|| Error::internal("variable usd_per_credit is not a number"))?;
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
    let parameters = vec![
        change.parameter(),
        ParameterValue::Int32(LEASE_SECONDS),
        uuid(attempt),
        text(spec),
        text(new.metadata),
    ];
    let statement = concat!(
        "WITH claimed AS MATERIALIZED (SELECT claim($1::text::json, $2) AS kept) ",
        "SELECT json_build_object('kept', kept, 'begun', ",
        "CASE WHEN kept IS NULL THEN begin_team($3, $2, $4::text::json, $5::text::json) END)::text AS answer FROM claimed"
    );
    database::call(statement, parameters).await
}

/// Makes the team and its key in LiteLLM.
async fn in_litellm(begun: &Begun, attempt: Uuid) -> Result<VirtualKey> {
    let wanted = &begun.litellm;
    if begun.resumed {
        admin::delete_team(&wanted.team_id, begun.marker).await?;
    }
    admin::create_team(wanted, begun.marker).await?;
    admin::generate_key(wanted, key_alias(wanted, attempt)).await
}

/// The name of the team's first key in LiteLLM.
fn key_alias(wanted: &Wanted, attempt: Uuid) -> String {
    format!("{}-{attempt}", wanted.team_id)
}

/// Makes the team visible. A failure here says nothing about whether it took effect, so nothing is undone: what did not, the next
/// request for the same id redoes.
async fn activate(
    change: &Change,
    wanted: &Wanted,
    attempt: Uuid,
    key: &VirtualKey,
    credits: Credits,
) -> Result<CreatedTeam> {
    let parameters = vec![
        change.parameter(),
        uuid(attempt),
        text(&wanted.team_id),
        ParameterValue::Int64(wanted.version),
        text(key_alias(wanted, attempt)),
        ParameterValue::Binary(key.hash().to_vec()),
        text(key.hint()),
        ParameterValue::Int64(credits.0),
        optional_text(change.seal(key.expose().as_bytes()).await?),
    ];
    let statement = concat!(
        "SELECT keep($1::text::json, json_build_object('team', activate_team($2, $3, $4, $5, $6, $7, $8), 'sealed', $9::text))",
        "::text AS answer"
    );
    let Kept { team, .. } = database::insist(statement, parameters).await?;
    Ok(CreatedTeam::new(team, key.expose().to_owned()))
}
