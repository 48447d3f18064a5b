//! What the database holds at the end.

use crate::{history::Micros, team::Team};
use anyhow::Result;
use serde_json::Value;
use std::collections::BTreeMap;
use tokio_postgres::Client;
use uuid::Uuid;

/// A job as it is stored.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its id.
    pub id: Uuid,
    /// Its team, by its number.
    pub team: usize,
    /// Its status.
    pub status: String,
    /// The tag of the request that opened it; none where its call has it.
    pub tag: Option<String>,
    /// The tag of the request that ended it, if it was one for that alone.
    pub ended_by: Option<String>,
    /// Its deadline.
    pub expires: Micros,
    /// What completing answered.
    pub completion: Value,
    /// What it was charged, also later.
    pub charged: i64,
    /// What it was charged when it ended.
    pub charged_at_its_end: i64,
}

/// A call as it is stored.
#[derive(Clone, Debug)]
pub struct Call {
    /// Its id.
    pub id: Uuid,
    /// Its job.
    pub job: Uuid,
    /// Its team, by its number.
    pub team: usize,
    /// The tag of the request that made it.
    pub tag: String,
    /// Its status.
    pub status: String,
    /// What it used.
    pub tokens: i64,
    /// What it cost, if that is known.
    pub cost: Option<f64>,
    /// When that was all that there is to know.
    pub settled: Option<Micros>,
    /// Its model group.
    pub group: String,
    /// When it was opened.
    pub opened: Micros,
    /// When it ended.
    pub ended: Option<Micros>,
}

/// A row of the ledger.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its type.
    pub kind: String,
    /// The change of the balance.
    pub change: i64,
    /// The balance after the change.
    pub balance_after: i64,
    /// The tag of the request that made it, of an allocation or adjustment.
    pub reason: String,
    /// The job of a deduction or a refund.
    pub job: Option<Uuid>,
    /// The call whose cost came late.
    pub call: Option<Uuid>,
    /// When it was written.
    pub written: Micros,
    /// Its id.
    pub id: String,
}

/// An account.
#[derive(Clone, Copy, Debug, Default)]
pub struct Account {
    /// What the team was given.
    pub allocated: i64,
    /// What it was charged.
    pub used: i64,
    /// What its open jobs hold.
    pub held: i64,
    /// How many refills have been due.
    pub refills: i64,
}

/// What the database holds about the teams of a round.
pub struct State {
    /// By id.
    pub jobs: BTreeMap<Uuid, Job>,
    /// By id.
    pub calls: BTreeMap<Uuid, Call>,
    /// Each team's ledger, oldest entry first.
    pub ledgers: Vec<Vec<Entry>>,
    /// Each team's account.
    pub accounts: Vec<Account>,
    /// What the dearest call of each model group has cost so far.
    pub dearest: BTreeMap<String, f64>,
}

impl State {
    /// Reads it.
    pub async fn read(database: &Client, teams: &[Team]) -> Result<Self> {
        let ids: Vec<&str> = teams.iter().map(|team| team.id.as_str()).collect();
        let number = |id: &str| ids.iter().position(|team| *team == id).unwrap_or_default();
        let jobs = database
            .query(
                "SELECT job_id, team_id, status, metadata ->> 'tag', metadata ->> 'by',
                        (extract(epoch FROM expires_at) * 1000000)::bigint, completion,
                        (SELECT coalesce(-sum(change), 0)::bigint FROM credit_transactions x
                         WHERE x.job_id = j.job_id AND transaction_type = 'deduction'),
                        (SELECT coalesce(-sum(change), 0)::bigint FROM credit_transactions x
                         WHERE x.job_id = j.job_id AND transaction_type = 'deduction' AND call_id IS NULL)
                 FROM jobs j WHERE team_id = ANY ($1)",
                &[&ids],
            )
            .await?;
        let jobs = jobs.iter().map(|row| {
            let job = Job {
                id: row.get(0),
                team: number(row.get(1)),
                status: row.get(2),
                tag: row.get(3),
                ended_by: row.get(4),
                expires: row.get(5),
                completion: row.get::<_, Option<Value>>(6).unwrap_or_default(),
                charged: row.get(7),
                charged_at_its_end: row.get(8),
            };
            (job.id, job)
        });
        let calls = database
            .query(
                "SELECT call_id, job_id, team_id, coalesce(purpose, ''), status, total_tokens, cost_usd::float8,
                 (extract(epoch FROM settled_at) * 1000000)::bigint, model_group,
                 (extract(epoch FROM created_at) * 1000000)::bigint,
                 (extract(epoch FROM ended_at) * 1000000)::bigint
                 FROM calls WHERE team_id = ANY ($1)",
                &[&ids],
            )
            .await?;
        let calls = calls.iter().map(|row| {
            let call = Call {
                id: row.get(0),
                job: row.get(1),
                team: number(row.get(2)),
                tag: row.get(3),
                status: row.get(4),
                tokens: row.get(5),
                cost: row.get(6),
                settled: row.get(7),
                group: row.get(8),
                opened: row.get(9),
                ended: row.get(10),
            };
            (call.id, call)
        });
        let mut ledgers: Vec<Vec<Entry>> = teams.iter().map(|_| vec![]).collect();
        let entries = database
            .query(
                "SELECT team_id, transaction_type, change, balance_after, coalesce(reason, ''), job_id,
                 transaction_id::text, call_id, (extract(epoch FROM created_at) * 1000000)::bigint
                 FROM credit_transactions WHERE team_id = ANY ($1) ORDER BY team_id, entry",
                &[&ids],
            )
            .await?;
        for row in &entries {
            ledgers[number(row.get(0))].push(Entry {
                kind: row.get(1),
                change: row.get(2),
                balance_after: row.get(3),
                reason: row.get(4),
                job: row.get(5),
                id: row.get(6),
                call: row.get(7),
                written: row.get(8),
            });
        }
        let mut accounts = vec![Account::default(); teams.len()];
        let rows =
            "SELECT team_id, allocated, used, held, refills FROM credit_accounts WHERE team_id = ANY ($1)";
        for row in database.query(rows, &[&ids]).await? {
            let (allocated, used, held, refills) = (row.get(1), row.get(2), row.get(3), row.get(4));
            accounts[number(row.get(0))] = Account { allocated, used, held, refills };
        }
        let dearest =
            "SELECT model_group, coalesce(max(cost_usd), 0)::float8 FROM calls GROUP BY model_group";
        let dearest = database.query(dearest, &[]).await?;
        let dearest = dearest.iter().map(|row| (row.get(0), row.get(1))).collect();
        Ok(Self { jobs: jobs.collect(), calls: calls.collect(), ledgers, accounts, dearest })
    }
}
