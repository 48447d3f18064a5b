//! Refunds, limits, costs that come late, and what the seller hides and puts right.

use super::WRONG;
use crate::{
    audit::SAME_INSTANT,
    driver::{Intent, Round},
    history::{By, Heard, Kind, Record, now},
    team::{DEAR, Limits, TIMES_OUT, Team, UNPRICED, lock},
};
use fastrand::Rng;
use reqwest::Method;
use serde_json::{Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use uuid::{NoContext, Timestamp, Uuid};

/// How many jobs, and how many calls in each, a crowd begins at once: too many for a job, or for the team.
const CROWDS: [(usize, usize); 2] = [(3, 3), (6, 1)];

/// How many jobs are ended before a crowd opens its own.
const KNOWN: usize = 12;

/// How long the calls of a crowd take, in milliseconds.
const CROWDED: u64 = 250;

/// What LiteLLM is told to have as the budget of a team, which is wrong.
const WRONG_BUDGET: f64 = 2_000_000.0;

impl Round {
    fn refunding(&self, team: usize, job: Uuid, random: &mut Rng) -> Intent {
        let path = format!("/api/credits/teams/{}/refund", self.teams[team].id);
        let mut intent = self.intent(Kind::Refund, team, By::Admin, path, Value::Null);
        intent.body = json!({"job_id": job, "reason": intent.tag});
        if random.bool() {
            intent.body["credits"] = random.u8(1..4).into();
        }
        intent.job = Some(job);
        intent
    }

    /// A job's credits are refunded, at times by several at once, and at times right after it was completed.
    pub(super) async fn refund(&self, team: usize, by: By, job: Uuid, random: &mut Rng) {
        if random.bool() {
            self.complete(team, by, job, random).await;
        }
        if random.bool() {
            let intent = self.refunding(team, job, random);
            self.ask_somehow(intent, random).await;
        } else {
            let intents: Vec<Intent> =
                (0..random.usize(2..5)).map(|_| self.refunding(team, job, random)).collect();
            self.all_at_once(&intents).await;
        }
    }

    /// LiteLLM is to be asked again for the costs of a team's calls, as if some minutes had passed, and upkeep does it.
    /// Often, such a call is made and its job completed before, and all that it was charged is refunded; mostly in a
    /// team that is charged for it.
    pub(super) async fn costs_are_due(&self, team: usize, random: &mut Rng) {
        let charged = self.teams.iter().position(|team| team.default_group == TIMES_OUT);
        let team = charged.filter(|_| random.bool()).unwrap_or(team);
        let by = By::Key(self.newest_key(team).0);
        if random.u8(..4) > 0 {
            let group = if random.bool() { UNPRICED } else { TIMES_OUT };
            let mut intent =
                self.intent(Kind::OwnJob, team, by, "/api/jobs/create-and-call".into(), Value::Null);
            intent.body = self.call_body(&intent.tag, false, random);
            intent.body["job_type"] = "own".into();
            intent.body["model_group"] = group.into();
            let heard = self.ask(&intent, random).await;
            self.knows_job(team, &heard);
            if let (Some(job), 0..2) = (heard.job, random.u8(..4)) {
                let mut refund = self.refunding(team, job, random);
                refund.body["credits"] = Value::Null;
                self.ask(&refund, random).await;
            }
        }
        let start = now();
        let due = "UPDATE calls SET cost_check_at = now()
                   WHERE team_id = $1 AND settled_at IS NOT NULL AND cost_check_at IS NOT NULL";
        if self.database.query(due, &[&self.teams[team].id]).await.is_ok() {
            let heard = Heard { status: 200, ..Heard::default() };
            self.write_down(self.noted(Kind::CostsAreDue, team, start, heard));
        }
        self.ask(&self.expiry(), random).await;
    }

    /// A job is opened, and it is as if that had been a day ago, but for its deadline.
    pub(super) async fn old_job(&self, number: usize, random: &mut Rng) {
        let start = now();
        let (team, tag) = (&self.teams[number].id, self.tag());
        let key = self.newest_key(number).1.id;
        let (opened, job) = (Uuid::now_v7(), a_day_old(random));
        let limits = Limits::of_the_deployment();
        // As one, and with no effect if it is done again.
        let open = format!(
            "DO $$ DECLARE v_job jobs; BEGIN
                 IF NOT EXISTS (SELECT FROM jobs WHERE job_id = '{job}') THEN
                     PERFORM create_job('key:{key}', '{team}', NULL, 'old', '{{\"tag\": \"{tag}\"}}', 3600,
                                        '{opened}', '{limits}');
                     UPDATE jobs SET job_id = '{job}', created_at = created_at - interval '1 day'
                     WHERE job_id = '{opened}' RETURNING * INTO STRICT v_job;
                     UPDATE usage_days SET opened_jobs = opened_jobs - 1
                     WHERE team_id = v_job.team_id AND job_type = 'old'
                       AND day = (v_job.created_at AT TIME ZONE 'UTC')::date + 1;
                     INSERT INTO usage_days AS u (team_id, day, job_type, opened_jobs)
                     VALUES (v_job.team_id, (v_job.created_at AT TIME ZONE 'UTC')::date, 'old', 1)
                     ON CONFLICT (team_id, day, job_type) DO UPDATE SET opened_jobs = u.opened_jobs + 1;
                 END IF;
             END $$"
        );
        if self.database.query(&open, &[]).await.is_err() {
            // Refused, but perhaps only when it was asked again.
            match self.database.query("SELECT FROM jobs WHERE job_id = $1", &[&job]).await {
                Ok(rows) if rows.is_empty() => return,
                _ => {}
            }
        }
        let heard = Heard { status: 200, job: Some(job), ..Heard::default() };
        self.write_down(Record { tag, ..self.noted(Kind::OldJob, number, start, heard.clone()) });
        self.knows_job(number, &heard);
    }

    /// A job is completed all of whose calls were refused.
    pub(super) async fn nothing_but_refusals(&self, team: usize, by: By, random: &mut Rng) {
        let opening = self.opening(team, by);
        let heard = self.ask(&opening, random).await;
        let Some(job) = heard.job.filter(|_| heard.is_ok()) else { return };
        for _ in 0..random.usize(1..3) {
            let streamed = random.bool();
            let mut intent = self.calling(team, by, job, streamed, random);
            intent.body = self.call_body_with(&intent.tag, "[[status=400]]");
            self.ask_somehow(intent, random).await;
        }
        let mut completion = self.completion(team, by, job, random);
        completion.body["status"] = "completed".into();
        self.ask_somehow(completion, random).await;
    }

    /// Dear calls are made in a job, one after another, until it has cost what it may. In a team with a limit of that.
    pub(super) async fn spend(&self, random: &mut Rng) {
        let limited = |team: &Team| team.limits.cost_usd_per_job < Limits::DEPLOYMENT.cost_usd_per_job;
        let Some(team) = self.teams.iter().position(limited) else { return };
        let by = self.key(team, random);
        let opening = self.opening(team, by);
        let heard = self.ask(&opening, random).await;
        let Some(job) = heard.job.filter(|_| heard.is_ok()) else { return };
        for _ in 0..5 {
            let mut intent = self.calling(team, by, job, false, random);
            intent.body = self.call_body_with(&intent.tag, "[[prompt_tokens=25]]");
            intent.body["model_group"] = DEAR.into();
            if self.ask(&intent, random).await.limit() == Some("cost_usd_per_job") {
                break;
            }
        }
        self.complete(team, by, job, random).await;
    }

    /// More calls are made at once than may be open, in several new jobs, while what is open is counted. In a team with
    /// limits.
    pub(super) async fn crowd(&self, random: &mut Rng) {
        let (jobs, calls) = CROWDS[random.usize(..CROWDS.len())];
        let limited = |team: &Team| team.limits.open_calls < Limits::DEPLOYMENT.open_calls;
        let Some(team) = self.teams.iter().position(limited) else { return };
        let by = self.key(team, random);
        // Otherwise as many jobs are open as may be.
        let known: Vec<Uuid> = lock(&self.teams[team].jobs).iter().rev().take(KNOWN).copied().collect();
        let completions: Vec<Intent> =
            known.iter().map(|job| self.completion(team, by, *job, random)).collect();
        self.all_at_once(&completions).await;
        let openings: Vec<Intent> = (0..jobs).map(|_| self.opening(team, by)).collect();
        let mut opened = vec![];
        for opening in &openings {
            let heard = self.attempt(opening, random.usize(..self.hosts.len())).await;
            opened.extend(heard.job.filter(|_| heard.is_ok()));
        }
        // Where jobs are opened in the same instant, the team's open calls may be some more than they may be.
        tokio::time::sleep(2 * SAME_INSTANT).await;
        let mut intents: Vec<Intent> = vec![];
        for &job in &opened {
            for _ in 0..calls {
                let mut intent = self.calling(team, by, job, false, random);
                let prompt = intent.body["messages"][0]["content"].as_str().unwrap_or_default();
                intent.body["messages"][0]["content"] = format!("{prompt} [[first_ms={CROWDED}]]").into();
                intents.push(intent);
            }
        }
        random.shuffle(&mut intents);
        futures::join!(self.all_at_once(&intents), async {
            for _ in 0..4 {
                tokio::time::sleep(Duration::from_millis(CROWDED / 4)).await;
                self.count_open(team).await;
            }
        });
        let completions: Vec<Intent> =
            opened.iter().map(|job| self.completion(team, by, *job, random)).collect();
        self.all_at_once(&completions).await;
    }

    /// Counts what is open in a team at one instant.
    async fn count_open(&self, number: usize) {
        let start = now();
        let count = "SELECT json_build_object(
            'open_jobs', (SELECT count(*) FROM jobs
                          WHERE team_id = $1 AND status IN ('pending', 'in_progress')),
            'open_calls', (SELECT count(*) FROM calls
                           WHERE team_id = $1 AND status = 'open' AND deadline > now()),
            'open_calls_per_job', (SELECT coalesce(max(calls), 0) FROM (
                SELECT count(*) AS calls FROM calls WHERE team_id = $1 AND status = 'open' GROUP BY job_id) AS jobs)
            )::text";
        let Ok(rows) = self.database.query(count, &[&self.teams[number].id]).await else { return };
        for row in rows {
            let body = serde_json::from_str(row.get(0)).unwrap_or_default();
            let heard = Heard { status: 200, body, ..Heard::default() };
            self.write_down(self.noted(Kind::CountOpen, number, start, heard));
        }
    }

    /// Somebody asks which models a group has.
    pub(super) async fn resolve(&self, team: usize, by: By, random: &mut Rng) {
        let path = format!("/api/model-groups/{TIMES_OUT}/resolve?team_id={}", self.teams[team].id);
        let by = if random.u8(..4) == 0 { By::Admin } else { by };
        let mut intent = self.intent(Kind::Resolve, team, by, path, Value::Null);
        intent.method = Method::GET;
        self.ask(&intent, random).await;
    }

    /// LiteLLM is put right, at times after it was made wrong.
    pub(super) async fn resync(&self, team: usize, random: &mut Rng) {
        let _one_at_a_time = self.teams[team].administration.lock().await;
        let mut resync = self.administer(Kind::Resync, team, Method::POST, "resync", json!({}));
        if random.bool() {
            let (url, key) = &self.litellm;
            let body = json!({"team_id": self.teams[team].id, "max_budget": WRONG_BUDGET});
            let wrong = reqwest::Client::new()
                .post(format!("{url}/team/update"))
                .bearer_auth(key)
                .body(body.to_string())
                .send()
                .await;
            // Told to the audit, and not to the application.
            if wrong.is_ok_and(|answer| answer.status().is_success()) {
                resync.tag = format!("{WRONG}{}", resync.tag);
            }
        }
        self.ask(&resync, random).await;
    }
}

/// An id of a job that was opened a day ago.
fn a_day_old(random: &mut Rng) -> Uuid {
    let yesterday = SystemTime::now() - Duration::from_secs(24 * 60 * 60);
    let seconds = yesterday.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, random.u32(..1_000_000_000)))
}
