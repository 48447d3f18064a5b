//! Creating a team, here and in LiteLLM: both, or neither.
//!
//! The team is first written here as `creating`, which nobody sees; then LiteLLM makes the team and its key; then one
//! statement makes it active, with its key's hash, its credits and its first ledger row. When LiteLLM fails, what it made is
//! deleted, and the team here with it. When even that fails, or this request dies half way, the row stays `creating`, and the next
//! request for the same id clears what is left and begins anew: at once if this request could say so, else when its lease is
//! over. What is cleared in LiteLLM carries the row's marker, so a team that somebody else made there is never touched.

use axum::Json;
use serde::{Deserialize, Serialize};
use serde_json::json;
use shared::{
    auth::VirtualKey,
    database::{self, text, uuid},
    error::{Error, Result},
    input::{Body, Credits, Metadata, Name, Slug, integer},
    litellm::admin::{self, Wanted},
    money::Usd,
    settings,
    team::Team,
};
use spin_sdk::pg::ParameterValue;
use uuid::Uuid;

/// What a team is made of.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateTeam {
    organization_id: Slug,
    team_id: Option<Slug>,
    team_alias: Option<Name>,
    #[serde(default)]
    model_groups: Vec<Slug>,
    #[serde(default)]
    access_groups: Vec<Slug>,
    #[serde(default)]
    credits_allocated: Credits,
    credit_limit: Option<Credits>,
    #[serde(default)]
    budget_mode: BudgetMode,
    budget_duration: Option<BudgetDuration>,
    max_budget: Option<Budget>,
    rpm_limit: Option<Limit>,
    tpm_limit: Option<Limit>,
    default_model_group: Option<Slug>,
    #[serde(default)]
    metadata: Metadata,
}

/// `hard` or `soft`; `hard_limit` and `soft_limit` are accepted.
#[derive(Deserialize, Serialize, Default, Clone, Copy, PartialEq)]
#[serde(try_from = "String", rename_all = "lowercase")]
enum BudgetMode {
    #[default]
    Hard,
    Soft,
}

impl TryFrom<String> for BudgetMode {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.as_str() {
            "hard" | "hard_limit" => Ok(Self::Hard),
            "soft" | "soft_limit" => Ok(Self::Soft),
            _ => Err("expected hard or soft"),
        }
    }
}

/// `1h`, `24h`, `7d`, `30d`, `1mo`: what LiteLLM takes. Of months it takes more than one only when the year has them left.
#[derive(Deserialize, Serialize)]
#[serde(try_from = "String")]
struct BudgetDuration(String);

impl TryFrom<String> for BudgetDuration {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
        let number = text.strip_suffix(unit).and_then(|number| number.parse::<u16>().ok());
        match (number, unit) {
            (Some(1..), "s" | "m" | "h" | "d" | "w") | (Some(1), "mo") => Ok(Self(text)),
            _ => Err("expected a number from 1 to 65535 and s, m, h, d or w, like 30d, or 1mo"),
        }
    }
}

/// US dollars, 0 or more.
#[derive(Serialize)]
struct Budget(Usd);

impl<'de> Deserialize<'de> for Budget {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Usd::deserialize(deserializer)? {
            Usd(amount) if amount.is_sign_negative() => {
                Err(serde::de::Error::custom("expected 0 or more US dollars"))
            }
            amount => Ok(Self(amount)),
        }
    }
}

/// A limit per minute.
#[derive(Serialize)]
struct Limit(i64);

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        integer(deserializer, 1, 1_000_000_000).map(Self)
    }
}

/// The new team and its key, which is shown this once.
#[derive(Serialize)]
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

/// `POST /api/teams/create`
pub async fn create(Body(new): Body<CreateTeam>) -> Result<Json<CreatedTeam>> {
    let credits = new.credits_allocated;
    let attempt = Uuid::now_v7();
    let begun = begin(new, attempt).await?;
    match in_litellm(&begun, attempt).await {
        Ok(key) => activate(&begun.litellm, attempt, &key, credits).await.map(Json),
        Err(failure) => {
            let team_id = &begun.litellm.team_id;
            let clean = admin::delete_team(team_id, begun.marker).await.is_ok();
            let parameters = vec![uuid(attempt), text(team_id), ParameterValue::Boolean(clean)];
            // If this fails, too, the lease runs out.
            _ = database::call::<bool>("SELECT abandon_team($1, $2, $3)::text AS answer", parameters).await;
            Err(failure)
        }
    }
}

async fn begin(new: CreateTeam, attempt: Uuid) -> Result<Begun> {
    let team_id = new.team_id.map_or_else(|| format!("team_{}", attempt.simple()), |id| id.to_string());
    let alias = new.team_alias.map_or_else(|| team_id.clone(), |alias| alias.to_string());
    let max_budget = match new.max_budget {
        Some(Budget(explicit)) => Some(explicit),
        None => budget(new.credits_allocated, new.budget_mode, new.credit_limit).await?,
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
    });
    let parameters =
        vec![uuid(attempt), ParameterValue::Int32(LEASE_SECONDS), text(spec), text(new.metadata)];
    database::call("SELECT begin_team($1, $2, $3::text::json, $4::text::json)::text AS answer", parameters)
        .await
}

/// What the credits are worth in LiteLLM. A team that may go below zero without end has no budget there.
async fn budget(credits: Credits, mode: BudgetMode, limit: Option<Credits>) -> Result<Option<Usd>> {
    let Usd(rate) = Usd::parse(&settings::text("usd_per_credit").await?)
        .ok_or_else(|| Error::internal("variable usd_per_credit is not a number"))?;
    let credits = match (mode, limit) {
        (BudgetMode::Hard, _) => credits.0,
        (BudgetMode::Soft, Some(limit)) => credits.0.saturating_add(limit.0),
        (BudgetMode::Soft, None) => return Ok(None),
    };
    let budget =
        rate.checked_mul(credits.into()).ok_or_else(|| Error::invalid("credits_allocated", "too many"))?;
    Ok(Some(Usd(budget)))
}

/// Makes the team and its key in LiteLLM.
async fn in_litellm(begun: &Begun, attempt: Uuid) -> Result<VirtualKey> {
    let wanted = &begun.litellm;
    if begun.resumed {
        admin::delete_team(&wanted.team_id, begun.marker).await?;
    }
    admin::create_team(wanted, begun.marker).await?;
    admin::generate_key(wanted, format!("{}-{attempt}", wanted.team_id)).await
}

/// Makes the team visible. A failure here says nothing about whether it took effect, so nothing is undone: what did not, the next
/// request for the same id redoes.
async fn activate(wanted: &Wanted, attempt: Uuid, key: &VirtualKey, credits: Credits) -> Result<CreatedTeam> {
    let parameters = vec![
        uuid(attempt),
        text(&wanted.team_id),
        ParameterValue::Binary(key.hash().to_vec()),
        text(key.hint()),
        ParameterValue::Int64(credits.0),
    ];
    let team: Team =
        database::insist("SELECT activate_team($1, $2, $3, $4, $5)::text AS answer", parameters).await?;
    Ok(CreatedTeam {
        team_id: team.team_id,
        organization_id: team.organization_id,
        team_alias: team.team_alias,
        model_groups: team.model_groups,
        access_groups: team.access_groups,
        allowed_models: team.allowed_models,
        credits_allocated: team.credits.credits_allocated,
        credits_remaining: team.credits.credits_remaining,
        virtual_key: key.expose().to_owned(),
        message: "Team created successfully with LiteLLM integration",
    })
}
