//! The teams that are driven, each with another way to be billed and limited, and what clients know of them.

use crate::{
    history::{Micros, NEVER},
    model::{Interval, KeyLife, Suspension},
    request::Request,
    world::{ADMIN_KEY, World},
};
use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use std::sync::Mutex;
use uuid::Uuid;

/// The group whose one model answers.
pub const WORKS: &str = "Works";
/// The group whose first model fails, and whose second answers.
pub const FALLS_BACK: &str = "FallsBack";
/// The group whose one model fails.
pub const BREAKS: &str = "Breaks";
/// The group with a model of a dollar for a thousand tokens.
pub const DEAR: &str = "Dear";
/// The group whose first model, which is dear, is given up after [`SHORT_PATIENCE`], and whose second answers: what the
/// first one cost is known only later.
pub const TIMES_OUT: &str = "TimesOut";
/// The group whose one model has no price at first.
pub const UNPRICED: &str = "Unpriced";
/// The model of that group.
pub const UNPRICED_MODEL: &str = "unpriced";

/// How long the first model of [`TIMES_OUT`] has, in milliseconds.
pub const SHORT_PATIENCE: u64 = 300;

/// What a credit is worth in LiteLLM's budget, in US dollars.
pub const USD_PER_CREDIT: f64 = 0.1;

/// A key as clients know it.
#[derive(Clone)]
pub struct Key {
    /// The key itself.
    pub secret: String,
    /// Its id.
    pub id: Uuid,
    /// Until when it may and must work.
    pub life: KeyLife,
}

/// What a team may have open, and what a job of it may make and cost. `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// Calls of a job.
    pub calls_per_job: Option<i64>,
    /// Open calls of a job.
    pub open_calls_per_job: Option<i64>,
    /// Open calls of the team.
    pub open_calls: Option<i64>,
    /// Open jobs of the team.
    pub open_jobs: Option<i64>,
    /// What a job may cost, in US dollars.
    pub cost_usd_per_job: Option<f64>,
    /// Calls in a minute of the clock.
    pub calls_a_minute: Option<i64>,
    /// Tokens in a minute of the clock after which no more calls begin.
    pub tokens_a_minute: Option<i64>,
}

impl Limits {
    /// Those of the deployment, for teams that have none of their own.
    pub const DEPLOYMENT: Limits = Limits {
        calls_per_job: Some(1000),
        open_calls_per_job: Some(16),
        open_calls: Some(256),
        open_jobs: Some(10_000),
        cost_usd_per_job: Some(5.0),
        calls_a_minute: None,
        tokens_a_minute: None,
    };

    /// Those that the deployment has, as the database is told of them.
    pub fn of_the_deployment() -> Value {
        let Limits { calls_per_job, open_calls_per_job, open_calls, open_jobs, cost_usd_per_job, .. } =
            Self::DEPLOYMENT;
        json!({"calls_per_job": calls_per_job, "open_calls_per_job": open_calls_per_job, "open_calls": open_calls,
               "open_jobs": open_jobs, "cost_usd_per_job": cost_usd_per_job})
    }

    /// Those of a team that is made with these fields.
    fn of(fields: &Value) -> Self {
        let own = &fields["limits"];
        let number = |name: &str, other: Option<i64>| own[name].as_i64().or(other);
        let Limits { calls_per_job, open_calls_per_job, open_calls, open_jobs, cost_usd_per_job, .. } =
            Self::DEPLOYMENT;
        Self {
            calls_per_job: number("calls_per_job", calls_per_job),
            open_calls_per_job: number("open_calls_per_job", open_calls_per_job),
            open_calls: number("open_calls", open_calls),
            open_jobs: number("open_jobs", open_jobs),
            cost_usd_per_job: own["cost_usd_per_job"].as_f64().or(cost_usd_per_job),
            calls_a_minute: fields["rpm_limit"].as_i64(),
            tokens_a_minute: fields["tpm_limit"].as_i64(),
        }
    }
}

/// What an automatic refill does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refill {
    /// It adds [`REFILL`] credits, up to a remaining of so many, if that is given.
    Add(Option<i64>),
    /// It makes [`REFILL`] the remaining.
    ResetTo,
}

impl Refill {
    /// What it changes where so many credits remain.
    pub fn change(self, remaining: i64) -> i64 {
        match self {
            Refill::Add(None) => REFILL,
            Refill::Add(Some(cap)) => REFILL.min((cap - remaining).max(0)),
            Refill::ResetTo => REFILL - remaining,
        }
    }

    fn fields(self, period: &str) -> Value {
        let (mode, cap) = match self {
            Refill::Add(cap) => ("add", cap),
            Refill::ResetTo => ("reset_to", None),
        };
        json!({"enabled": true, "refill_amount": REFILL, "refill_period": period, "mode": mode, "cap": cap})
    }
}

/// A team.
pub struct Team {
    /// Its id.
    pub id: String,
    /// How far its available credits may fall; `None`: without end.
    pub floor: Option<i64>,
    /// The credits that it was made with.
    pub credits: i64,
    /// Its automatic refill.
    pub refill: Option<Refill>,
    /// Its limits.
    pub limits: Limits,
    /// The group of calls that name none.
    pub default_group: &'static str,
    /// Whether a job in which output was delivered is charged however it ends.
    pub charged_when_delivered: bool,
    /// Whether LiteLLM's budget follows from the credits.
    pub derives_budget: bool,
    /// Whether it may see what its calls cost.
    pub costs_visible: bool,
    /// Whether it may see models.
    pub models_visible: bool,
    /// All keys, oldest first.
    pub keys: Mutex<Vec<Key>>,
    /// All suspensions so far.
    pub suspensions: Mutex<Vec<Suspension>>,
    /// The jobs that clients know, oldest first.
    pub jobs: Mutex<Vec<Uuid>>,
    /// Held by whoever changes keys, suspends, or lets a period pass: one at a time.
    pub administration: tokio::sync::Mutex<()>,
}

/// What an automatic refill brings, or leaves.
pub const REFILL: i64 = 2;

/// A kind of team: what it is made with, its floor, and its refill.
type TeamKind = (Value, Option<i64>, Option<(&'static str, Refill)>);

/// What teams are like.
fn kinds() -> Vec<TeamKind> {
    let markup = json!({"mode": "markup", "markup_percent": 30});
    let flat = json!({"mode": "flat", "price_per_job_usd": "0.50"});
    let tiered = json!({"mode": "tiered", "tiers": [{"up_to": 10, "price_per_job_usd": "0.50"},
                                                    {"up_to": null, "price_per_job_usd": "0.40"}]});
    let limits = json!({"calls_per_job": 5, "open_calls_per_job": 2, "open_calls": 4, "open_jobs": 8});
    vec![
        (
            json!({"credits_allocated": 5, "costs_visible_to_teams": false}),
            Some(0),
            Some(("daily", Refill::Add(None))),
        ),
        (
            json!({"credits_allocated": 30, "billing_mode": "consumption_tokens", "tokens_per_credit": 20,
                   "charge_when": "delivered", "pricing": markup}),
            Some(0),
            None,
        ),
        (
            json!({"budget_mode": "soft", "credit_limit": 4, "billing_mode": "consumption_usd",
                   "credits_per_dollar": 10, "default_model_group": DEAR, "pricing": markup}),
            Some(-4),
            None,
        ),
        (json!({"budget_mode": "soft", "pricing": tiered, "limits": {"cost_usd_per_job": 0.08}}), None, None),
        (json!({"credits_allocated": 200, "pricing": flat}), Some(0), None),
        (json!({"budget_mode": "soft", "credit_limit": 3}), Some(-3), Some(("weekly", Refill::ResetTo))),
        // Costs that come late change what a job is charged by several credits.
        (
            json!({"budget_mode": "soft", "billing_mode": "consumption_usd", "credits_per_dollar": 200,
                   "credits_per_1k_tokens_unpriced": 500, "default_model_group": TIMES_OUT, "pricing": markup,
                   "models_visible_to_teams": false}),
            None,
            None,
        ),
        // LiteLLM's budget is used up now and then.
        (
            json!({"credits_allocated": 10, "max_budget": null, "rpm_limit": 60, "tpm_limit": 1600,
                   "charge_when": "delivered", "default_model_group": DEAR}),
            Some(0),
            Some(("daily", Refill::Add(Some(12)))),
        ),
        (json!({"credits_allocated": 100, "limits": limits, "default_model_group": DEAR}), Some(0), None),
    ]
}

/// Asks as the admin, before anything goes wrong.
async fn set_up(world: &World, http: &reqwest::Client, path: &str, body: Value) -> Result<Value> {
    let method = if body.is_null() { Method::GET } else { Method::POST };
    let identity = ("x-admin-key", ADMIN_KEY.to_owned());
    let request =
        Request { method, path: path.into(), body, identity, key: None, job: None, leave_after: None };
    let host = world.hosts.first().context("no host")?;
    let heard = request.send(http, host).await;
    ensure!(heard.is_ok(), "{path}: {} {}", heard.status, heard.body);
    Ok(heard.body)
}

/// Makes an organization and the model groups.
pub async fn make_groups(world: &World, http: &reqwest::Client) -> Result<()> {
    set_up(world, http, "/api/organizations/create", json!({"organization_id": "soak", "name": "Soak"}))
        .await?;
    let groups: [(&str, &[&str]); 6] = [
        (WORKS, &["gpt-4o-mini"]),
        (FALLS_BACK, &["err503", "gpt-4o-mini"]),
        (BREAKS, &["err500"]),
        (DEAR, &["expensive"]),
        (TIMES_OUT, &["expensive", "gpt-4o-mini"]),
        (UNPRICED, &[UNPRICED_MODEL]),
    ];
    for (name, models) in groups {
        let mut models: Vec<Value> =
            (0..).zip(models).map(|(at, model)| json!({"model_name": model, "priority": at})).collect();
        if name == TIMES_OUT {
            models[0]["config"] = json!({"timeout_ms": SHORT_PATIENCE});
        }
        set_up(world, http, "/api/model-groups/create", json!({"group_name": name, "models": models}))
            .await?;
    }
    Ok(())
}

/// Makes a team of each kind.
pub async fn make_teams(world: &World, http: &reqwest::Client, round: usize) -> Result<Vec<Team>> {
    let mut teams = vec![];
    for (number, (fields, floor, refill)) in kinds().into_iter().enumerate() {
        let id = format!("team-{round}-{number}");
        let mut given = json!({"organization_id": "soak", "team_id": id, "max_budget": 1_000_000,
                               "model_groups": [WORKS, FALLS_BACK, BREAKS, DEAR, TIMES_OUT, UNPRICED]});
        if let (Some(given), Value::Object(fields)) = (given.as_object_mut(), fields) {
            given.extend(fields);
        }
        let made = set_up(world, http, "/api/teams/create", given.clone()).await?;
        let keys = set_up(world, http, &format!("/api/teams/{id}/keys"), Value::Null).await?;
        let key_id = keys["keys"][0]["key_id"].as_str().and_then(|id| id.parse().ok());
        let key = Key {
            secret: made["virtual_key"].as_str().context("no virtual_key")?.to_owned(),
            id: key_id.context("no key_id")?,
            life: KeyLife::default(),
        };
        if let Some((period, refill)) = refill {
            let path = format!("/api/credits/teams/{id}/configure-auto-refill");
            set_up(world, http, &path, refill.fields(period)).await?;
        }
        let default_group =
            [DEAR, TIMES_OUT].into_iter().find(|group| given["default_model_group"] == *group);
        teams.push(Team {
            floor,
            credits: given["credits_allocated"].as_i64().unwrap_or_default(),
            refill: refill.map(|(_, refill)| refill),
            limits: Limits::of(&given),
            default_group: default_group.unwrap_or(WORKS),
            charged_when_delivered: given["charge_when"] == "delivered",
            derives_budget: given["max_budget"].is_null(),
            costs_visible: given["costs_visible_to_teams"] != false,
            models_visible: given["models_visible_to_teams"] != false,
            keys: Mutex::new(vec![key]),
            ..Team::named(&id)
        });
    }
    Ok(teams)
}

impl Team {
    /// A team that nobody has made, without keys, credits and limits.
    pub fn named(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            floor: None,
            credits: 0,
            refill: None,
            limits: Limits::default(),
            default_group: WORKS,
            charged_when_delivered: false,
            derives_budget: false,
            costs_visible: true,
            models_visible: true,
            keys: Mutex::default(),
            suspensions: Mutex::default(),
            jobs: Mutex::default(),
            administration: tokio::sync::Mutex::default(),
        }
    }

    /// From here on a key may be refused; how long it may work on after the request's instant.
    pub fn revoking(&self, key: usize, from: Micros, grace: Micros) {
        self.revoked(key, KeyLife { revoked: Some((Interval::new(from, NEVER), grace)), known_at: None });
    }

    /// The request that revoked a key was answered: from here on it must be refused.
    pub fn revoked(&self, key: usize, life: KeyLife) {
        if let Some(key) = lock(&self.keys).get_mut(key) {
            key.life = life;
        }
    }
}

/// What a panic left behind is still good enough to be looked at.
pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
