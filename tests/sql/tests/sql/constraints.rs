//! The last line of defence: what the functions never do, the tables refuse.

use sql_tests::{Expect, World};
use std::collections::BTreeSet;

/// Statements that each violate one constraint, on a world with one team that has a completed and charged job and an
/// open one, in which a call is open.
const VIOLATIONS: [(&str, &str); 42] = [
    ("schema_functions_only_row_check", "INSERT INTO schema_functions VALUES (false, '1.0.0', 'x')"),
    ("organization_id_valid", "INSERT INTO organizations VALUES ('a b', 'name')"),
    ("organization_id_valid", "INSERT INTO organizations VALUES ('', 'name')"),
    ("organization_id_valid", "INSERT INTO organizations VALUES (repeat('a', 129), 'name')"),
    ("organization_status_valid", "UPDATE organizations SET status = 'gone'"),
    ("model_group_name_unique", "UPDATE model_groups SET group_name = 'Chat' WHERE group_name = 'Code'"),
    ("model_group_name_valid", "UPDATE model_groups SET group_name = 'a/b' WHERE group_name = 'Code'"),
    ("model_group_status_valid", "UPDATE model_groups SET status = 'gone'"),
    ("model_group_priority_unique", "UPDATE model_group_models SET priority = 7"),
    ("model_group_priority_valid", "UPDATE model_group_models SET priority = -1 WHERE model_name = 'first'"),
    ("model_access_group_name_unique", "INSERT INTO model_access_groups VALUES (uuid_v7(), 'all', 'All')"),
    ("model_access_group_name_valid", "UPDATE model_access_groups SET group_name = 'a\nb'"),
    ("model_access_group_status_valid", "UPDATE model_access_groups SET status = 'gone'"),
    ("billing_mode_valid", "UPDATE terms SET billing_mode = 'free'"),
    ("conversion_positive", "UPDATE terms SET credits_per_dollar = 0"),
    ("conversion_positive", "UPDATE terms SET tokens_per_credit = -1"),
    (
        "terms_unique",
        "INSERT INTO terms (billing_mode, credits_per_dollar, tokens_per_credit, pricing)
             SELECT billing_mode, credits_per_dollar, tokens_per_credit, NULL FROM terms",
    ),
    ("unpriced_not_negative", "UPDATE terms SET credits_per_1k_tokens_unpriced = -0.1"),
    ("charge_when_valid", "UPDATE terms SET charge_when = 'never'"),
    ("team_id_valid", "UPDATE teams SET team_id = 'é'"),
    ("team_status_valid", "UPDATE teams SET status = 'gone'"),
    ("team_max_budget_not_negative", "UPDATE teams SET max_budget = -0.01"),
    (
        "key_hash_unique",
        "INSERT INTO virtual_keys SELECT uuid_v7(), team_id, alias, 'other', key_hash \
         FROM virtual_keys",
    ),
    ("key_hash_is_sha256", "UPDATE virtual_keys SET key_hash = 'sk-the-key-itself'"),
    ("credits_not_negative", "UPDATE credit_accounts SET used = allocated"),
    ("overdraft_not_negative", "UPDATE credit_accounts SET allocated = 9, overdraft = -1"),
    ("credits_not_negative", "UPDATE credit_accounts SET overdraft = 1, used = allocated + 1"),
    ("refill_period_valid", "UPDATE credit_accounts SET refill_period = 'yearly'"),
    ("refill_mode_valid", "UPDATE credit_accounts SET refill_mode = 'set'"),
    (
        "salts_of_32_bytes",
        "INSERT INTO webhook_secrets (team_id, salt) SELECT team_id, 'short' FROM teams LIMIT 1",
    ),
    ("held_not_negative", "UPDATE credit_accounts SET held = -1"),
    ("used_not_negative", "UPDATE credit_accounts SET used = -1"),
    ("credit_limit_not_negative", "UPDATE credit_accounts SET credit_limit = -1"),
    ("budget_mode_valid", "UPDATE credit_accounts SET budget_mode = 'none'"),
    ("job_status_valid", "UPDATE jobs SET status = 'gone' WHERE completed_at IS NOT NULL"),
    ("job_end_is_dated", "UPDATE jobs SET completed_at = NULL WHERE status = 'completed'"),
    (
        "one_deduction_per_settlement",
        "INSERT INTO credit_transactions SELECT team_id, entry + 1, uuid_v7(), transaction_type, change,
         balance_after - 1,
             reason, job_id FROM credit_transactions WHERE transaction_type = 'deduction'",
    ),
    (
        "transaction_type_valid",
        "INSERT INTO credit_transactions SELECT team_id, 99, uuid_v7(), 'gift', 1, 1 \
         FROM credit_accounts",
    ),
    (
        "transaction_id_unique",
        "INSERT INTO credit_transactions SELECT team_id, 99, transaction_id, 'allocation', 1, 1
             FROM credit_transactions LIMIT 1",
    ),
    ("alert_kind_valid", "SELECT raise_alert(team_id, 'gift', '', '{}') FROM teams"),
    ("call_status_valid", "UPDATE calls SET status = 'gone', ended_at = now()"),
    ("call_end_is_dated", "UPDATE calls SET status = 'failed'"),
];

/// Constraints of which each column has a statement, in the test.
const OF_SEVERAL_COLUMNS: [&str; 2] = ["call_usage_plausible", "limits_not_negative"];

async fn world() -> World {
    let world = World::new().await;
    let team = world.team(2).await;
    let job = world.job(&team).await;
    world.complete_job(team.key, job, "completed", &serde_json::json!({})).await.done();
    let job = world.job(&team).await;
    world.opened_call(&team, job).await;
    world.call("SELECT create_model_access_group('all', 'All', NULL, '{}', NULL)::text", &[]).await.done();
    world
}

#[tokio::test]
async fn each_named_constraint_refuses_direct_sql_that_violates_it() {
    let world = world().await;
    for (constraint, statement) in VIOLATIONS {
        let refusal = world.run(statement).await.expect_err(statement);
        assert_eq!(refusal.constraint.as_deref(), Some(constraint), "{statement}: {refusal:?}");
    }
    let refused = async |constraint: &str, statement: &str| {
        let refusal = world.run(statement).await.expect_err(statement);
        assert_eq!(refusal.constraint.as_deref(), Some(constraint), "{statement}: {refusal:?}");
    };
    for column in ["prompt_tokens", "completion_tokens", "total_tokens", "cost_usd", "latency_ms"] {
        refused("call_usage_plausible", &format!("UPDATE calls SET {column} = -1")).await;
    }
    for column in ["prompt_tokens", "completion_tokens", "total_tokens"] {
        refused("call_usage_plausible", &format!("UPDATE calls SET {column} = 1000000001")).await;
    }
    refused("call_usage_plausible", "UPDATE calls SET cost_usd = 1000000.01").await;
    for limit in ["calls_per_job", "open_calls_per_job", "open_calls", "open_jobs", "cost_usd_per_job"] {
        refused("limits_not_negative", &format!("UPDATE teams SET limit_{limit} = -1")).await;
    }
    world.check_invariants().await;
}

/// So that a new constraint comes with a statement that it refuses.
#[tokio::test]
async fn no_constraint_is_without_a_statement_here() {
    let world = World::new().await;
    let named = world
        .client
        .query(
            "SELECT conname FROM pg_constraint WHERE connamespace = 'public'::regnamespace
             AND contype IN ('c', 'u', 'x')
             UNION SELECT indexrelid::regclass::text FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
             WHERE indisunique AND NOT indisprimary AND relnamespace = 'public'::regnamespace",
            &[],
        )
        .await
        .expect("constraints");
    let named: BTreeSet<&str> = named.iter().map(|row| row.get(0)).collect();
    let tested: BTreeSet<&str> = VIOLATIONS.iter().map(|(name, _)| *name).chain(OF_SEVERAL_COLUMNS).collect();
    let untested: Vec<_> = named.difference(&tested).collect();
    assert!(untested.is_empty(), "{untested:?}");
}

#[tokio::test]
async fn the_ledger_and_the_audit_log_can_only_be_added_to() {
    let world = world().await;
    world
        .run("INSERT INTO audit_log (actor, action, path, request_id) VALUES ('admin', 'PUT', '/', '1')")
        .await
        .done();
    for table in ["credit_transactions", "audit_log"] {
        let rows = format!("SELECT json_agg(x ORDER BY entry) FROM {table} x");
        let before = world.text(&rows).await;
        for statement in [
            format!("UPDATE {table} SET created_at = now()"),
            format!("UPDATE {table} SET created_at = now() WHERE false"),
            format!("DELETE FROM {table}"),
            format!("TRUNCATE {table}"),
        ] {
            world.run(&statement).await.refused("LJ000", &format!("{table} is append-only"));
        }
        assert_eq!(world.text(&rows).await, before);
    }
    for statement in [
        "TRUNCATE organizations CASCADE",
        "INSERT INTO credit_transactions SELECT * FROM credit_transactions
             ON CONFLICT (transaction_id) DO UPDATE SET reason = 'other'",
    ] {
        world.run(statement).await.refused("LJ000", "credit_transactions is append-only");
    }
}

#[tokio::test]
async fn a_team_with_a_ledger_can_not_be_removed() {
    let world = world().await;
    let refusal =
        world.run("DELETE FROM teams").await.expect_err("it has jobs, and its account has a ledger");
    assert_eq!(refusal.sqlstate, "23503", "{refusal:?}");
    world.check_invariants().await;
}
