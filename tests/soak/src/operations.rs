//! What clients do.

mod administration;
mod beside;
mod calls;
mod jobs;
mod money;

use crate::{
    driver::{CANARY, Intent, Round},
    history::{By, Heard, Kind, Record, StreamEnd},
    team::lock,
};
use fastrand::Rng;
use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

/// What the tag of a call begins with that nobody settles.
pub const LOST: &str = "lost-";

/// What the tag of a request begins with that puts LiteLLM right after somebody has made it wrong.
pub const WRONG: &str = "wrong-";

impl Round {
    /// One thing, chosen at random.
    pub(crate) async fn step(&self, random: &mut Rng) {
        let team = random.usize(..self.teams.len());
        let by = self.key(team, random);
        let job = self.recent_job(team, random);
        match (random.u32(..1114), job) {
            (0..135, _) => self.create_job(team, by, random).await,
            (135..160, _) => self.rush(team, by, random).await,
            (160..340, Some(job)) => self.call(team, by, job, false, random).await,
            (340..460, Some(job)) => self.call(team, by, job, true, random).await,
            (460..560, Some(job)) => self.complete(team, by, job, random).await,
            (560..590, Some(job)) => self.end_at_once(team, by, job, random).await,
            (590..640, _) => self.own_job(team, by, false, random).await,
            (640..670, _) => self.own_job(team, by, true, random).await,
            (670..720, job) => self.chat(team, by, job, random).await,
            (720..732, _) => drop(self.ask(&self.expiry(), random).await),
            (732..760, _) => self.change_credits(team, Kind::Add, random).await,
            (760..790, _) => self.change_credits(team, Kind::Adjust, random).await,
            (790..802, _) => self.period_passes(random).await,
            (802..812, _) => self.suspend_and_resume(team, random).await,
            (812..822, _) => self.rotate(team, random).await,
            (822..828, _) => self.revoke(team, random).await,
            (828..838, _) => self.call_deadline_passes(team).await,
            (838..850, Some(job)) => self.lose_call(team, job).await,
            (850..860, _) => self.settle_again(team).await,
            (860..884, _) => self.read(team, by, Kind::ReadBalance, None, random).await,
            (884..906, Some(job)) => self.read(team, by, Kind::ReadJob, Some(job), random).await,
            (906..918, _) => self.read(team, by, Kind::ListJobs, None, random).await,
            (918..932, _) => self.read(team, by, Kind::ReadLedger, None, random).await,
            (932..946, _) => self.read(team, by, Kind::ReadUsage, None, random).await,
            (946..956, _) => self.come_too_late(random).await,
            (956..1000, job) => self.intrude(team, by, job, random).await,
            (1000..1035, Some(job)) => self.refund(team, by, job, random).await,
            (1035..1050, _) => self.costs_are_due(team, random).await,
            (1050..1060, _) => self.old_job(team, random).await,
            (1060..1076, _) => self.crowd(random).await,
            (1096..1106, _) => self.nothing_but_refusals(team, by, random).await,
            (1106..1114, _) => self.spend(random).await,
            (1076..1088, _) => self.resolve(team, by, random).await,
            (1088..1096, _) => self.resync(team, random).await,
            // Nothing can be done in a job before there is one.
            _ => self.create_job(team, by, random).await,
        }
    }

    /// One of the team's keys: mostly the newest, at times the one before, and rarely any.
    fn key(&self, team: usize, random: &mut Rng) -> By {
        let newest = lock(&self.teams[team].keys).len() - 1;
        By::Key(match random.u8(..32) {
            0 => random.usize(..=newest),
            1..3 => newest.saturating_sub(1),
            _ => newest,
        })
    }

    /// One of the latest jobs, so that clients meet at them.
    fn recent_job(&self, team: usize, random: &mut Rng) -> Option<Uuid> {
        let jobs = lock(&self.teams[team].jobs);
        let back = random.usize(1..=jobs.len().clamp(1, 6));
        jobs.len().checked_sub(back).and_then(|index| jobs.get(index)).copied()
    }

    /// Clients lose interest in most jobs once they are over.
    pub(crate) fn loses_interest(&self, record: &Record) {
        let ended = record.kind == Kind::Complete && record.heard.is_ok();
        let stays = |job: &Uuid| job.as_bytes()[15].is_multiple_of(3);
        if let Some(job) =
            record.job.filter(|job| (ended || record.heard.job_is_over().is_some()) && !stays(job))
        {
            lock(&self.teams[record.team].jobs).retain(|known| *known != job);
        }
    }

    fn intent(&self, kind: Kind, team: usize, by: By, path: String, body: Value) -> Intent {
        Intent {
            kind,
            team,
            by,
            job: None,
            tag: self.tag(),
            repeatable: false,
            method: Method::POST,
            path,
            body,
            job_header: false,
            leave_after: None,
        }
    }

    /// Ending what is overdue everywhere.
    pub(crate) fn expiry(&self) -> Intent {
        self.intent(Kind::Expire, 0, By::Admin, "/api/upkeep".into(), json!({}))
    }

    fn knows_job(&self, team: usize, heard: &Heard) {
        if let (Some(job), true) = (heard.job, heard.is_ok()) {
            let mut jobs = lock(&self.teams[team].jobs);
            if !jobs.contains(&job) {
                jobs.push(job);
            }
        }
    }

    /// Asks once, twice at once, or twice in a row, with or without an `Idempotency-Key`. Without one only once: twins
    /// are two intents.
    async fn ask_somehow(&self, mut intent: Intent, random: &mut Rng) -> Heard {
        intent.repeatable = random.bool();
        if !intent.repeatable || random.u8(..4) > 0 {
            return self.ask(&intent, random).await;
        }
        if random.bool() {
            let mut other = random.fork();
            let (heard, again) = futures::join!(self.ask(&intent, random), self.ask(&intent, &mut other));
            return if heard.is_ok() { heard } else { again };
        }
        let heard = self.ask(&intent, random).await;
        let again = self.ask(&intent, random).await;
        let complete = matches!(again.stream, None | Some(StreamEnd::Done(_)));
        if again.is_ok() && complete && random.bool() {
            self.mismatch(&intent, random).await;
        }
        if heard.is_ok() { heard } else { again }
    }

    /// Something else under a key whose request was done.
    async fn mismatch(&self, intent: &Intent, random: &mut Rng) {
        let mut other = Intent { kind: Kind::Mismatch, leave_after: None, ..intent.clone() };
        match intent.kind {
            Kind::CreateJob => other.body["user_id"] = "somebody else".into(),
            Kind::Complete => other.body["error_message"] = "something else".into(),
            Kind::Add | Kind::Adjust => other.body["metadata"] = json!({"something": "else"}),
            Kind::Refund => other.body["credits"] = 1_000_000.into(),
            _ => other.body["temperature"] = 0.5.into(),
        }
        self.attempt(&other, random.usize(..self.hosts.len())).await;
    }

    /// Somebody looks at the balance at every host, which then knows the key.
    async fn look_everywhere(&self, team: usize, by: By) {
        let path = format!("/api/credits/teams/{}/balance", self.teams[team].id);
        let mut look = self.intent(Kind::ReadBalance, team, by, path, Value::Null);
        look.method = Method::GET;
        join_all((0..self.hosts.len()).map(|host| self.attempt(&look, host))).await;
    }

    /// Somebody opens a job at every host at once, and looks at the balance.
    async fn try_everywhere(&self, team: usize, by: By) {
        let intents: Vec<Intent> = self.hosts.iter().map(|_| self.opening(team, by)).collect();
        self.all_at_once(&intents).await;
        self.look_everywhere(team, by).await;
    }

    fn change_of_credits(&self, team: usize, kind: Kind) -> Intent {
        let route = if kind == Kind::Add { "add" } else { "adjust" };
        let path = format!("/api/credits/teams/{}/{route}", self.teams[team].id);
        let mut intent = self.intent(kind, team, By::Admin, path, Value::Null);
        intent.body = json!({"credits_amount": 1, "reason": intent.tag});
        intent
    }

    async fn change_credits(&self, team: usize, kind: Kind, random: &mut Rng) {
        let mut intent = self.change_of_credits(team, kind);
        let takes = kind == Kind::Adjust && random.u8(..3) > 0;
        intent.body["credits_amount"] = if takes { -random.i64(1..8) } else { random.i64(1..5) }.into();
        self.ask_somehow(intent, random).await;
    }

    async fn read(&self, team: usize, by: By, kind: Kind, job: Option<Uuid>, random: &mut Rng) {
        let id = &self.teams[team].id;
        let path = match (kind, job) {
            (Kind::ReadJob, Some(job)) => format!("/api/jobs/{job}"),
            (Kind::ListJobs, _) => format!("/api/teams/{id}/jobs?limit=20"),
            (Kind::ReadLedger, _) => format!("/api/credits/teams/{id}/transactions?limit=1000"),
            (Kind::ReadUsage, _) => format!("/api/teams/{id}/usage?from=2020-01-01&to=2099-12-31"),
            _ => format!("/api/credits/teams/{id}/balance"),
        };
        let by = if random.bool() { By::Admin } else { by };
        let mut intent = self.intent(kind, team, by, path, Value::Null);
        intent.method = Method::GET;
        intent.job = job;
        self.ask(&intent, random).await;
    }

    /// Whatever somebody tries with a key of another team is refused, and changes nothing.
    async fn intrude(&self, team: usize, by: By, job: Option<Uuid>, random: &mut Rng) {
        let intruder = (team + random.usize(1..self.teams.len())) % self.teams.len();
        let By::Key(_) = by else { return };
        let by = self.key(intruder, random);
        let victim = &self.teams[team].id;
        let job = job.unwrap_or_default();
        let tag = self.tag();
        let prompt = json!({"purpose": tag, "messages": [{"role": "user", "content": CANARY}]});
        let (method, path, body) = match random.u8(..10) {
            0 => (Method::GET, format!("/api/jobs/{job}"), Value::Null),
            1..5 => (
                Method::POST,
                format!("/api/jobs/{job}/complete"),
                json!({"status": "failed", "metadata": {"by": tag}}),
            ),
            5 => (Method::POST, format!("/api/jobs/{job}/llm-call"), prompt),
            6 => (Method::POST, format!("/api/jobs/{job}/llm-call-stream"), prompt),
            7 => (Method::GET, format!("/api/credits/teams/{victim}/balance"), Value::Null),
            8 => (
                Method::POST,
                "/api/jobs/create".into(),
                json!({"team_id": victim, "job_type": "x", "metadata": {"tag": tag}}),
            ),
            _ => (Method::GET, format!("/api/teams/{victim}/jobs"), Value::Null),
        };
        let intent = Intent { method, tag, ..self.intent(Kind::Intrude, intruder, by, path, body) };
        self.ask(&intent, random).await;
    }
}
