//! What is no request: time that passes, and hosts that die or repeat themselves.

use super::LOST;
use crate::{
    driver::Round,
    history::{By, Heard, Kind, Micros, NEVER, Record, now},
    team::{FALLS_BACK, Limits, TIMES_OUT},
};
use fastrand::Rng;
use reqwest::Method;
use serde_json::Value;
use uuid::Uuid;

impl Round {
    /// A period of the automatic refill of some team passes.
    pub(super) async fn period_passes(&self, random: &mut Rng) {
        let refilled: Vec<usize> =
            (0..self.teams.len()).filter(|team| self.teams[*team].refill.is_some()).collect();
        let Some(&number) = random.choice(&refilled) else { return };
        let _one_at_a_time = self.teams[number].administration.lock().await;
        self.let_period_pass(number).await;
    }

    /// A period of the team's automatic refill passes, and somebody looks at the balance, which makes the refill. For
    /// whoever holds the team's administration.
    pub(super) async fn let_period_pass(&self, number: usize) {
        let team = &self.teams[number];
        // As if everything had been configured a period earlier.
        let began =
            "SELECT refill_start::text FROM credit_accounts WHERE team_id = $1 AND refill_due IS NOT NULL";
        let passes = "UPDATE credit_accounts SET refill_start = refill_time(refill_start, refill_period, -1),
                          refill_due = refill_time(refill_time(refill_start, refill_period, -1), refill_period,
                          refills + 1)
                      WHERE team_id = $1 AND refill_start = $2::text::timestamptz";
        let Ok(before) = self.database.query(began, &[&team.id]).await else { return };
        let Some(before) = before.first().map(|row| row.get::<_, String>(0)) else { return };
        let start = now();
        let passed = self.database.query(passes, &[&team.id, &before]).await;
        let path = format!("/api/credits/teams/{}/balance", team.id);
        let mut look = self.intent(Kind::ReadBalance, number, By::Admin, path, Value::Null);
        look.method = Method::GET;
        let seen = self.attempt(&look, 0).await.is_ok();
        let heard = match passed {
            Ok(_) => Heard { status: 200, ..Heard::default() },
            Err(_) => Heard::default(),
        };
        let end = if seen { now() } else { NEVER };
        self.write_down(Record { end, ..self.noted(Kind::PeriodPasses, number, start, heard) });
    }

    /// The record of an operation that is not a request.
    pub(super) fn noted(&self, kind: Kind, team: usize, start: Micros, heard: Heard) -> Record {
        Record {
            kind,
            team,
            by: By::Admin,
            host: 0,
            job: None,
            tag: self.tag(),
            repeatable: false,
            asked: Value::Null,
            start,
            end: now(),
            heard,
        }
    }

    /// The deadline of one of the team's open calls passes.
    pub(super) async fn call_deadline_passes(&self, number: usize) {
        let start = now();
        // Of a call that tries several models LiteLLM's log would tell a part too soon: really, none is tried any more
        // when the deadline has passed.
        let one = "SELECT call_id FROM calls WHERE team_id = $1 AND status = 'open'
                   AND model_group <> ALL ($2) LIMIT 1";
        let passes =
            "UPDATE calls SET deadline = now() - interval '1 second' WHERE call_id = $1 AND status = 'open'";
        let Ok(rows) =
            self.database.query(one, &[&self.teams[number].id, &vec![FALLS_BACK, TIMES_OUT]]).await
        else {
            return;
        };
        for row in rows {
            let call: Uuid = row.get(0);
            let passed = self.database.query(passes, &[&call]).await;
            let status = if passed.is_ok() { 200 } else { 0 };
            let heard = Heard { status, call: Some(call), ..Heard::default() };
            self.write_down(self.noted(Kind::CallDeadlinePasses, number, start, heard));
        }
    }

    /// A host opens a call and dies: nobody ever settles it.
    pub(super) async fn lose_call(&self, number: usize, job: Uuid) {
        let start = now();
        let key = self.newest_key(number).1.id;
        let tag = format!("{LOST}{}", self.tag());
        let call = Uuid::now_v7();
        let limits = Limits::of_the_deployment().to_string();
        let open = "SELECT begin_call($1, $2, NULL, $3, false, '{}', 1, 0, $4, $5::text::jsonb)";
        let was_opened = "SELECT FROM calls WHERE call_id = $1";
        if self.database.query(open, &[&format!("key:{key}"), &job, &tag, &call, &limits]).await.is_err() {
            // Refused, but perhaps only when it was asked again.
            match self.database.query(was_opened, &[&call]).await {
                Ok(rows) if rows.is_empty() => return,
                _ => {}
            }
        }
        let heard = Heard { status: 200, call: Some(call), ..Heard::default() };
        self.write_down(Record { job: Some(job), tag, ..self.noted(Kind::LoseCall, number, start, heard) });
    }

    /// A host settles a call that it has settled.
    pub(super) async fn settle_again(&self, number: usize) {
        let start = now();
        let again = "SELECT call_id, (settle_call(job_id, call_id, 'failed', 1, 1, 2, 1.0, 1,
                     '[{\"model\": \"again\"}]', 'again', true) ->> 'settled')::boolean
                     FROM (SELECT job_id, call_id FROM calls WHERE team_id = $1 AND settled_at IS NOT NULL
                           ORDER BY call_id DESC LIMIT 1) AS settled";
        let Ok(rows) = self.database.query(again, &[&self.teams[number].id]).await else { return };
        for row in rows {
            let body = Value::Bool(row.get(1));
            let heard = Heard { status: 200, body, call: Some(row.get(0)), ..Heard::default() };
            self.write_down(self.noted(Kind::SettleAgain, number, start, heard));
        }
    }
}
