//! Jobs, opened and ended, also by many at once and too late.

use crate::{
    driver::{Intent, Round},
    history::{By, Kind},
};
use fastrand::Rng;
use futures::future::join_all;
use serde_json::{Value, json};
use std::time::Duration;
use uuid::Uuid;

impl Round {
    pub(super) fn opening(&self, team: usize, by: By) -> Intent {
        let mut intent = self.intent(Kind::CreateJob, team, by, "/api/jobs/create".into(), json!({}));
        intent.body =
            json!({"team_id": self.teams[team].id, "job_type": "one", "metadata": {"tag": intent.tag}});
        intent
    }

    pub(super) async fn create_job(&self, team: usize, by: By, random: &mut Rng) {
        let mut intent = self.opening(team, by);
        if random.bool() {
            intent.body["job_type"] = "two".into();
        }
        if random.u8(..4) == 0 {
            intent.body["expires_in_seconds"] = random.u8(1..=3).into();
        }
        let heard = self.ask_somehow(intent, random).await;
        self.knows_job(team, &heard);
    }

    pub(super) fn completion(&self, team: usize, by: By, job: Uuid, random: &mut Rng) -> Intent {
        let status = ["completed", "completed", "completed", "failed", "cancelled"][random.usize(..5)];
        let mut intent =
            self.intent(Kind::Complete, team, by, format!("/api/jobs/{job}/complete"), Value::Null);
        intent.body = json!({"status": status, "metadata": {"by": intent.tag}});
        intent.job = Some(job);
        intent
    }

    pub(super) async fn complete(&self, team: usize, by: By, job: Uuid, random: &mut Rng) {
        let intent = self.completion(team, by, job, random);
        self.ask_somehow(intent, random).await;
    }

    /// Several end a job at once, while others call in it.
    pub(super) async fn end_at_once(&self, team: usize, by: By, job: Uuid, random: &mut Rng) {
        let mut intents: Vec<Intent> =
            (0..random.usize(1..5)).map(|_| self.completion(team, by, job, random)).collect();
        intents.extend((0..random.usize(..8)).map(|_| self.calling(team, by, job, false, random)));
        random.shuffle(&mut intents);
        self.all_at_once(&intents).await;
    }

    /// A team that can't go on without end gets some credits, and more jobs are opened at once than there are credits
    /// for.
    pub(super) async fn rush(&self, team: usize, by: By, random: &mut Rng) {
        let limited: Vec<usize> =
            (0..self.teams.len()).filter(|at| self.teams[*at].floor.is_some()).collect();
        let other = random.choice(&limited).copied().unwrap_or(team);
        let (team, by) = if limited.contains(&team) { (team, by) } else { (other, self.key(other, random)) };
        let credits = random.usize(1..4);
        let mut addition = self.change_of_credits(team, Kind::Add);
        addition.body["credits_amount"] = credits.into();
        self.ask(&addition, random).await;
        let intents: Vec<Intent> = (0..credits + 10).map(|_| self.opening(team, by)).collect();
        self.all_at_once(&intents).await;
    }

    pub(super) async fn all_at_once(&self, intents: &[Intent]) {
        let hosts = self.hosts.len();
        let attempts = intents.iter().enumerate().map(async |(at, intent)| {
            let heard = self.attempt(intent, at % hosts).await;
            self.knows_job(intent.team, &heard);
        });
        join_all(attempts).await;
    }

    /// A job's deadline passes, and at that moment others call in it and end it.
    pub(super) async fn come_too_late(&self, random: &mut Rng) {
        // In a team that always has a credit for it.
        let Some(team) = self.teams.iter().position(|team| team.floor.is_none()) else { return };
        let by = self.key(team, random);
        let mut opening = self.opening(team, by);
        opening.body["expires_in_seconds"] = 1.into();
        let heard = self.ask(&opening, random).await;
        let Some(job) = heard.job.filter(|_| heard.is_ok()) else { return };
        tokio::time::sleep(Duration::from_secs(1)).await;
        let late = [
            self.calling(team, by, job, false, random),
            self.calling(team, by, job, true, random),
            self.completion(team, by, job, random),
        ];
        self.all_at_once(&late).await;
    }
}
