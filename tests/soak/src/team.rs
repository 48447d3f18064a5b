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

/// A team.
pub struct Team {
    /// Its id.
    pub id: String,
    /// How far its available credits may fall; `None`: without end.
    pub floor: Option<i64>,
    /// The credits that it was made with.
    pub credits: i64,
    /// Whether it has an automatic refill of [`REFILL`] credits.
    pub refills: bool,
    /// All keys, oldest first.
    pub keys: Mutex<Vec<Key>>,
    /// All suspensions so far.
    pub suspensions: Mutex<Vec<Suspension>>,
    /// The jobs that clients know, oldest first.
    pub jobs: Mutex<Vec<Uuid>>,
    /// Held by whoever changes keys, suspends, or lets a period pass: one at a time.
    pub administration: tokio::sync::Mutex<()>,
}

/// What an automatic refill brings.
pub const REFILL: i64 = 2;

/// What teams are like.
fn kinds() -> Vec<(Value, Option<i64>, Option<&'static str>)> {
    let markup = json!({"mode": "markup", "markup_percent": 30});
    let flat = json!({"mode": "flat", "price_per_job_usd": "0.50"});
    let tiered = json!({"mode": "tiered", "tiers": [{"up_to": 10, "price_per_job_usd": "0.50"},
                                                    {"up_to": null, "price_per_job_usd": "0.40"}]});
    vec![
        (json!({"credits_allocated": 5}), Some(0), Some("daily")),
        (
            json!({"credits_allocated": 30, "billing_mode": "consumption_tokens", "tokens_per_credit": 20,
                "pricing": markup}),
            Some(0),
            None,
        ),
        (
            json!({"budget_mode": "soft", "credit_limit": 4, "billing_mode": "consumption_usd",
                   "credits_per_dollar": 10, "default_model_group": DEAR, "pricing": markup}),
            Some(-4),
            None,
        ),
        (json!({"budget_mode": "soft", "pricing": tiered}), None, None),
        (json!({"credits_allocated": 200, "pricing": flat}), Some(0), None),
        (json!({"budget_mode": "soft", "credit_limit": 3}), Some(-3), Some("weekly")),
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
    let groups: [(&str, &[&str]); 4] = [
        (WORKS, &["gpt-4o-mini"]),
        (FALLS_BACK, &["err503", "gpt-4o-mini"]),
        (BREAKS, &["err500"]),
        (DEAR, &["expensive"]),
    ];
    for (name, models) in groups {
        let models: Vec<Value> =
            (0..).zip(models).map(|(at, model)| json!({"model_name": model, "priority": at})).collect();
        set_up(world, http, "/api/model-groups/create", json!({"group_name": name, "models": models}))
            .await?;
    }
    Ok(())
}

/// Makes a team of each kind.
pub async fn make_teams(world: &World, http: &reqwest::Client, round: usize) -> Result<Vec<Team>> {
    let mut teams = vec![];
    for (number, (mut fields, floor, refill)) in kinds().into_iter().enumerate() {
        let id = format!("team-{round}-{number}");
        let given = json!({"organization_id": "soak", "team_id": id, "max_budget": 1000000,
                           "model_groups": [WORKS, FALLS_BACK, BREAKS, DEAR]});
        if let (Some(fields), Value::Object(given)) = (fields.as_object_mut(), given) {
            fields.extend(given);
        }
        let credits = fields["credits_allocated"].as_i64().unwrap_or_default();
        let made = set_up(world, http, "/api/teams/create", fields).await?;
        let keys = set_up(world, http, &format!("/api/teams/{id}/keys"), Value::Null).await?;
        let key_id = keys["keys"][0]["key_id"].as_str().and_then(|id| id.parse().ok());
        let key = Key {
            secret: made["virtual_key"].as_str().context("no virtual_key")?.to_owned(),
            id: key_id.context("no key_id")?,
            life: KeyLife::default(),
        };
        if let Some(period) = refill {
            let body = json!({"enabled": true, "refill_amount": REFILL, "refill_period": period});
            set_up(world, http, &format!("/api/credits/teams/{id}/configure-auto-refill"), body).await?;
        }
        teams.push(Team {
            id,
            floor,
            credits,
            refills: refill.is_some(),
            keys: Mutex::new(vec![key]),
            suspensions: Mutex::default(),
            jobs: Mutex::default(),
            administration: tokio::sync::Mutex::default(),
        });
    }
    Ok(teams)
}

impl Team {
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
