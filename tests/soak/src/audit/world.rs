//! What is not about one round alone: the invariants of the database, LiteLLM's bill, and secrets.

use super::{Violation, rules};
use crate::{
    direct::Direct,
    driver::{CANARY, IDEMPOTENCY_KEY},
    history::Record,
    team::{Team, lock},
    world::{ADMIN_KEY, World},
};
use anyhow::{Context, Result};
use litellm_stand_in::StandIn;
use serde_json::Value;
use std::collections::BTreeMap;

/// Checks it, with nothing under way.
pub async fn of_world(world: &World, teams: &[Team], history: &[Record]) -> Result<Vec<Violation>> {
    let client = Direct::new(world.database().clone()).client().await?;
    let mut violations: Vec<Violation> = api_tests::violations(&client)
        .await
        .into_iter()
        .map(|(rule, row)| Violation::new(rule, row))
        .collect();
    violations.extend(bill(world, &client).await?);
    violations.extend(secrets(world, &client, teams, history).await?);
    Ok(violations)
}

/// What LiteLLM has billed for a call.
#[derive(Clone, Copy, Default)]
pub struct Bill {
    tokens: i64,
    cost: f64,
}

/// What LiteLLM has billed for each call, by the call's id.
pub async fn bills(litellm: &StandIn) -> Result<BTreeMap<String, Bill>> {
    let log = reqwest::Client::new().get(format!("{}/spend/logs", litellm.url()));
    let rows: Vec<Value> =
        log.bearer_auth(litellm.master_key()).send().await?.json().await.context("LiteLLM's spend log")?;
    let mut billed: BTreeMap<String, Bill> = BTreeMap::new();
    for row in &rows {
        let call = row["litellm_call_id"].as_str().unwrap_or_default().to_owned();
        let bill = billed.entry(call).or_default();
        bill.tokens += row["total_tokens"].as_i64().unwrap_or_default();
        bill.cost += row["spend"].as_f64().unwrap_or_default();
    }
    Ok(billed)
}

/// What LiteLLM has billed for each call is what is kept of it.
async fn bill(world: &World, client: &tokio_postgres::Client) -> Result<Vec<Violation>> {
    let mut billed = bills(world.litellm()).await?;
    let calls = "SELECT call_id::text, status, total_tokens, cost_usd::float8, attempts::text, \
                        settled_at IS NOT NULL, cost_check_at IS NOT NULL FROM calls";
    let mut violations = vec![];
    for row in client.query(calls, &[]).await? {
        let (call, status): (String, String) = (row.get(0), row.get(1));
        let (tokens, cost): (i64, Option<f64>) = (row.get(2), row.get(3));
        let (settled, to_be_asked): (bool, bool) = (row.get(5), row.get(6));
        let bill = billed.remove(&call);
        if let Some(Bill { tokens, .. }) = bill.filter(|_| !settled || to_be_asked) {
            let seen =
                format!("{status} call {call}: LiteLLM has billed {tokens} tokens, settled: {settled}");
            violations.push(Violation::new(rules::LATE_COST, seen));
        }
        if !settled {
            continue;
        }
        let Bill { tokens: billed_tokens, cost: billed_cost } = bill.unwrap_or_default();
        // Of what never reached LiteLLM nobody knows the cost. In the end all models have a price.
        let differs = |cost: f64| (cost - billed_cost).abs() > 1e-9;
        if tokens != billed_tokens || cost.map_or(bill.is_some(), differs) {
            let attempts: String = row.get(4);
            let seen = format!(
                "{status} call {call}: {tokens} tokens for {cost:?}, billed {billed_tokens} for {billed_cost}: \
                 {attempts}"
            );
            violations.push(Violation::new(rules::BILLED, seen));
        }
    }
    for (call, _) in billed {
        let known = "SELECT count(*) FROM calls WHERE call_id::text = $1";
        if client.query_one(known, &[&call]).await?.get::<_, i64>(0) == 0 {
            violations.push(Violation::new(rules::BILLED_ONLY, call));
        }
    }
    Ok(violations)
}

/// No key and no prompt is in any table or log.
async fn secrets(
    world: &World,
    client: &tokio_postgres::Client,
    teams: &[Team],
    history: &[Record],
) -> Result<Vec<Violation>> {
    let keys: Vec<String> = teams
        .iter()
        .flat_map(|team| lock(&team.keys).iter().map(|key| key.secret.clone()).collect::<Vec<_>>())
        .collect();
    let mut secrets: Vec<&str> = keys.iter().map(String::as_str).collect();
    secrets.extend([ADMIN_KEY, world.litellm().master_key(), CANARY]);
    if history.iter().any(|record| record.repeatable) {
        secrets.push(IDEMPOTENCY_KEY);
    }
    let mut violations = vec![];
    let logs = world.logs();
    for secret in &secrets {
        if let Some((before, after)) = logs.split_once(secret) {
            let before: String =
                before.chars().rev().take(80).collect::<Vec<_>>().into_iter().rev().collect();
            let after: String = after.chars().take(40).collect();
            violations.push(Violation::new(rules::SECRETS, format!("in the logs: …{before}(here){after}…")));
        }
    }
    let tables = "SELECT relname::text, format('SELECT t::text FROM %I AS t
                      WHERE EXISTS (SELECT FROM unnest($1::text[]) AS secret WHERE strpos(t::text, secret) > 0)
                      LIMIT 1', relname)
                  FROM pg_stat_user_tables";
    for row in client.query(tables, &[]).await? {
        let (table, search): (String, String) = (row.get(0), row.get(1));
        for found in client.query(&search, &[&secrets]).await? {
            let seen = format!("in a row of {table}: {}", found.get::<_, String>(0));
            violations.push(Violation::new(rules::SECRETS, seen));
        }
    }
    Ok(violations)
}
