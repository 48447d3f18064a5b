//! A database with an organization and a few model groups, and teams in it.

use crate::{Answer, Database, Expect, Session};
use serde_json::{Value, json};
use std::{
    ops::Deref,
    sync::atomic::{AtomicU8, Ordering},
};
use uuid::Uuid;

/// A test's own database with the organization `org` and the model groups `Chat` (models `first`, `second`), `Code`
/// (`second`, `third`) and `Vision` (`fourth`). It is a [`Session`] as well, for tests that need only one.
pub struct World {
    /// The database.
    pub database: Database,
    session: Session,
    keys: AtomicU8,
}

/// A team that is active.
#[derive(Clone, Debug)]
pub struct Team {
    /// Its id.
    pub id: String,
    /// The id of its virtual key.
    pub key: Uuid,
    /// The attempt that made it.
    pub attempt: Uuid,
}

impl Deref for World {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}

impl World {
    /// Creates a database with the test world in it.
    pub async fn new() -> Self {
        let database = Database::create().await.expect("a database");
        let session = Session { client: database.connect().await };
        session
            .run(
                r#"SELECT create_organization('org', false, 'Organization', '{}', NULL);
                   SELECT create_model_group(name, name, NULL, models, '{}') FROM (VALUES
                       ('Chat', json '[{"model_name": "first", "priority": 0, "config": {"temperature": 0.50}},
                                       {"model_name": "second", "priority": 1, "config": {}}]'),
                       ('Code', '[{"model_name": "third", "priority": 5, "config": {}},
                                  {"model_name": "second", "priority": 2, "config": {}}]'),
                       ('Vision', '[{"model_name": "fourth", "priority": 0, "config": {}}]'))
                   AS groups (name, models)"#,
            )
            .await
            .done();
        Self { database, session, keys: AtomicU8::new(0) }
    }

    /// Another connection.
    pub async fn session(&self) -> Session {
        Session { client: self.database.connect().await }
    }

    /// A team in hard mode with these credits and the group `Chat`.
    pub async fn team(&self, credits: i64) -> Team {
        self.team_with(credits, json!({})).await
    }

    /// The same with other fields in its specification.
    pub async fn team_with(&self, credits: i64, fields: Value) -> Team {
        let number = self.keys.fetch_add(1, Ordering::Relaxed);
        let (id, attempt) = (format!("team-{number}"), Uuid::now_v7());
        let mut spec = Self::spec(&id, fields);
        spec["credits_allocated"] = json!(credits);
        self.begin_team(attempt, 60, &spec).await.done();
        self.activate_team(attempt, &id, number, credits).await.done();
        let key = self.text(&format!("SELECT key_id FROM virtual_keys WHERE team_id = '{id}'")).await;
        Team { id, key: key.parse().expect("a UUID"), attempt }
    }

    /// What `begin_team` wants to know of a team, with these fields in place of the usual ones.
    pub fn spec(id: &str, fields: Value) -> Value {
        let mut spec = json!({
            "organization_id": "org", "team_id": id, "team_alias": id, "model_groups": ["Chat"], "access_groups": [],
            "default_model_group": null, "budget_mode": "hard", "credit_limit": null, "max_budget": "100",
            "budget_duration": null, "rpm_limit": null, "tpm_limit": null, "billing_mode": "job_based",
            "credits_per_dollar": "10", "tokens_per_credit": 10000, "pricing": null, "webhook_url": null,
        });
        for (name, value) in fields.as_object().expect("an object") {
            spec[name] = value.clone();
        }
        spec
    }

    /// Opens a job that lasts an hour.
    pub async fn job(&self, team: &Team) -> Uuid {
        id(&self.create_job(team.key, &team.id, 3600).await.done(), "job_id")
    }

    /// Opens a call in the team's default group that may take an hour.
    pub async fn opened_call(&self, team: &Team, job: Uuid) -> Uuid {
        id(&self.begin_call(team.key, job, None, 3600).await.done(), "call_id")
    }

    /// Lets a job's deadline pass.
    pub async fn job_is_overdue(&self, job: Uuid) {
        self.run(&format!("UPDATE jobs SET expires_at = now() - interval '1 second' WHERE job_id = '{job}'"))
            .await
            .done();
    }

    /// Lets a call's deadline pass.
    pub async fn call_is_overdue(&self, call: Uuid) {
        self.run(&format!(
            "UPDATE calls SET deadline = now() - interval '1 second' WHERE call_id = '{call}'"
        ))
        .await
        .done();
    }

    /// Lets so many periods of a team's automatic refill pass, if it has one.
    pub async fn periods_pass(&self, team: &Team, number: i64) -> Answer {
        self.run(&format!(
            "UPDATE credit_accounts SET refill_start = refill_time(refill_start, refill_period, -{number}),
                 refill_due = refill_time(refill_time(refill_start, refill_period, -{number}), refill_period,
                 refills + 1)
             WHERE team_id = '{}' AND refill_due IS NOT NULL",
            team.id
        ))
        .await
    }

    /// As [`Database::days_pass`].
    pub async fn days_pass(&self, days: i32) {
        self.database.days_pass(days).await;
    }

    /// From here on, ids are of the day that their connection says ([`Session::make_ids_of`]).
    pub async fn allow_ids_of_other_days(&self) {
        self.run(
            "CREATE OR REPLACE FUNCTION uuid_v7() RETURNS uuid LANGUAGE sql VOLATILE AS $$
                 SELECT overlay(gen_random_uuid()::text PLACING left(uuid_v7_floor(clock_timestamp()
                     + make_interval(days => coalesce(current_setting('test.days', true), '0')::integer))::text, 15)
                     FROM 1 FOR 15)::uuid
             $$",
        )
        .await
        .done();
    }

    /// What the ledger has of a job, in order: `deduction -1, refund 1`.
    pub async fn ledger(&self, job: Uuid) -> String {
        self.text(&format!(
            "SELECT string_agg(transaction_type || ' ' || change, ', ' ORDER BY entry) FROM credit_transactions
             WHERE job_id = '{job}'"
        ))
        .await
    }

    /// The status of a job as it is stored.
    pub async fn job_status(&self, job: Uuid) -> String {
        self.text(&format!("SELECT status FROM jobs WHERE job_id = '{job}'")).await
    }

    /// The status of a call as it is stored.
    pub async fn call_status(&self, call: Uuid) -> String {
        self.text(&format!("SELECT status FROM calls WHERE call_id = '{call}'")).await
    }

    /// `(allocated, used, held)` of a team's account as it is stored.
    pub async fn account(&self, team: &Team) -> (i64, i64, i64) {
        let row = self
            .session
            .client
            .query_one("SELECT allocated, used, held FROM credit_accounts WHERE team_id = $1", &[&team.id])
            .await
            .expect("an account");
        (row.get(0), row.get(1), row.get(2))
    }
}

/// The id in an answer.
#[track_caller]
pub fn id(answer: &Value, field: &str) -> Uuid {
    answer[field]
        .as_str()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| panic!("no {field} in {answer}"))
}
