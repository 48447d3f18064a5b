//! What clients do.

use crate::{
    driver::{CANARY, Intent, Round, forgetful, window},
    history::{By, Heard, Kind, Micros, NEVER, Record, StreamEnd, now},
    model::{Interval, KeyLife, Suspension},
    team::{BREAKS, DEAR, FALLS_BACK, Key, WORKS, lock},
};
use fastrand::Rng;
use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use std::{sync::atomic::Ordering, time::Duration};
use uuid::Uuid;

/// What the tag of a call begins with that nobody settles.
pub const LOST: &str = "lost-";

impl Round {
    /// One thing, chosen at random.
    pub(crate) async fn step(&self, random: &mut Rng) {
        let team = random.usize(..self.teams.len());
        let by = self.key(team, random);
        let job = self.recent_job(team, random);
        match (random.u32(..1000), job) {
            (0..140, _) => self.create_job(team, by, random).await,
            (140..160, _) => self.rush(team, by, random).await,
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
        self.intent(Kind::Expire, 0, By::Admin, "/api/jobs/expire".into(), json!({}))
    }

    fn knows_job(&self, team: usize, heard: &Heard) {
        if let (Some(job), true) = (heard.job, heard.is_ok()) {
            let mut jobs = lock(&self.teams[team].jobs);
            if !jobs.contains(&job) {
                jobs.push(job);
            }
        }
    }

    /// Asks once, twice at once, or twice in a row, with or without an `Idempotency-Key`. Without one only once: twins are two intents.
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
            _ => other.body["temperature"] = 0.5.into(),
        }
        self.attempt(&other, random.usize(..self.hosts.len())).await;
    }

    fn opening(&self, team: usize, by: By) -> Intent {
        let mut intent = self.intent(Kind::CreateJob, team, by, "/api/jobs/create".into(), json!({}));
        intent.body =
            json!({"team_id": self.teams[team].id, "job_type": "one", "metadata": {"tag": intent.tag}});
        intent
    }

    async fn create_job(&self, team: usize, by: By, random: &mut Rng) {
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

    /// The body of a call, and how it behaves.
    fn call_body(&self, tag: &str, streamed: bool, random: &mut Rng) -> Value {
        let mut marks = String::new();
        let mut group = None;
        match random.u32(..100) {
            0..7 => group = Some(FALLS_BACK),
            7..15 => group = Some(BREAKS),
            15..18 => marks = "[[status=400]]".into(),
            18..22 if streamed => marks = format!("[[error_after={}]]", random.u8(1..4)),
            22..24 if streamed => marks = format!("[[end_after={}]]", random.u8(1..4)),
            24..26 if streamed => marks = format!("[[cut_after={}]]", random.u8(1..4)),
            26..36 => marks = format!("[[first_ms={}]]", random.u16(50..600)),
            36..40 => group = Some(DEAR),
            40..45 => group = Some(WORKS),
            _ => {}
        }
        if streamed {
            marks += &format!("[[chunks={}]][[delay_ms={}]]", random.u8(3..12), random.u8(..40));
        }
        let mut body = json!({"purpose": tag, "messages": [{"role": "user", "content": format!("{CANARY} {tag} {marks}")}]});
        if let Some(group) = group {
            body["model_group"] = group.into();
        }
        body
    }

    fn may_leave(streamed: bool, random: &mut Rng) -> Option<usize> {
        (streamed && random.u8(..4) == 0).then(|| random.usize(1..8))
    }

    fn calling(&self, team: usize, by: By, job: Uuid, streamed: bool, random: &mut Rng) -> Intent {
        let (kind, route) =
            if streamed { (Kind::Stream, "llm-call-stream") } else { (Kind::Call, "llm-call") };
        let mut intent = self.intent(kind, team, by, format!("/api/jobs/{job}/{route}"), Value::Null);
        intent.body = self.call_body(&intent.tag, streamed, random);
        intent.job = Some(job);
        intent
    }

    async fn call(&self, team: usize, by: By, job: Uuid, streamed: bool, random: &mut Rng) {
        let mut intent = self.calling(team, by, job, streamed, random);
        intent.leave_after = Self::may_leave(streamed, random);
        self.ask_somehow(intent, random).await;
    }

    async fn own_job(&self, team: usize, by: By, streamed: bool, random: &mut Rng) {
        let (kind, path) = if streamed {
            (Kind::OwnStream, "/api/jobs/create-and-call-stream")
        } else {
            (Kind::OwnJob, "/api/jobs/create-and-call")
        };
        let mut intent = self.intent(kind, team, by, path.into(), Value::Null);
        intent.body = self.call_body(&intent.tag, streamed, random);
        intent.body["job_type"] = "own".into();
        intent.leave_after = Self::may_leave(streamed, random);
        let heard = self.ask_somehow(intent, random).await;
        if random.u8(..3) == 0 {
            self.knows_job(team, &heard);
        }
    }

    async fn chat(&self, team: usize, by: By, job: Option<Uuid>, random: &mut Rng) {
        let streamed = random.bool();
        let mut intent = self.intent(Kind::Chat, team, by, "/v1/chat/completions".into(), Value::Null);
        intent.body = self.call_body(&intent.tag, streamed, random);
        intent.body["stream"] = streamed.into();
        intent.job = job.filter(|_| random.bool());
        intent.job_header = true;
        intent.leave_after = Self::may_leave(streamed, random);
        self.ask_somehow(intent, random).await;
    }

    fn completion(&self, team: usize, by: By, job: Uuid, random: &mut Rng) -> Intent {
        let status = ["completed", "completed", "completed", "failed", "cancelled"][random.usize(..5)];
        let mut intent =
            self.intent(Kind::Complete, team, by, format!("/api/jobs/{job}/complete"), Value::Null);
        intent.body = json!({"status": status, "metadata": {"by": intent.tag}});
        intent.job = Some(job);
        intent
    }

    async fn complete(&self, team: usize, by: By, job: Uuid, random: &mut Rng) {
        let intent = self.completion(team, by, job, random);
        self.ask_somehow(intent, random).await;
    }

    /// Several end a job at once, while others call in it.
    async fn end_at_once(&self, team: usize, by: By, job: Uuid, random: &mut Rng) {
        let mut intents: Vec<Intent> =
            (0..random.usize(2..6)).map(|_| self.completion(team, by, job, random)).collect();
        intents.extend((0..random.usize(..5)).map(|_| self.calling(team, by, job, false, random)));
        random.shuffle(&mut intents);
        self.all_at_once(&intents).await;
    }

    /// A team gets some credits, and more jobs are opened at once than there are credits for.
    async fn rush(&self, team: usize, by: By, random: &mut Rng) {
        let credits = random.usize(1..4);
        let mut addition = self.change_of_credits(team, Kind::Add);
        addition.body["credits_amount"] = credits.into();
        self.ask(&addition, random).await;
        let intents: Vec<Intent> = (0..credits + 3).map(|_| self.opening(team, by)).collect();
        self.all_at_once(&intents).await;
    }

    async fn all_at_once(&self, intents: &[Intent]) {
        let hosts = self.hosts.len();
        let attempts = intents.iter().enumerate().map(async |(at, intent)| {
            let heard = self.attempt(intent, at % hosts).await;
            self.knows_job(intent.team, &heard);
        });
        join_all(attempts).await;
    }

    /// A job's deadline passes, and at that moment others call in it and end it.
    async fn come_too_late(&self, random: &mut Rng) {
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

    /// A period of the automatic refill passes, and somebody looks at the balance, which makes the refill.
    async fn period_passes(&self, random: &mut Rng) {
        let refilled: Vec<usize> = (0..self.teams.len()).filter(|team| self.teams[*team].refills).collect();
        let Some(&number) = random.choice(&refilled) else { return };
        let team = &self.teams[number];
        let _one_at_a_time = team.administration.lock().await;
        // As if everything had been configured a period earlier.
        let began =
            "SELECT refill_start::text FROM credit_accounts WHERE team_id = $1 AND refill_due IS NOT NULL";
        let passes = "UPDATE credit_accounts SET refill_start = refill_time(refill_start, refill_period, -1),
                          refill_due = refill_time(refill_time(refill_start, refill_period, -1), refill_period, refills + 1)
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

    /// What is no request.
    fn noted(&self, kind: Kind, team: usize, start: Micros, heard: Heard) -> Record {
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
    async fn call_deadline_passes(&self, number: usize) {
        let start = now();
        let one = "SELECT call_id FROM calls WHERE team_id = $1 AND status = 'open' LIMIT 1";
        let passes =
            "UPDATE calls SET deadline = now() - interval '1 second' WHERE call_id = $1 AND status = 'open'";
        let Ok(rows) = self.database.query(one, &[&self.teams[number].id]).await else { return };
        for row in rows {
            let call: Uuid = row.get(0);
            let passed = self.database.query(passes, &[&call]).await;
            let status = if passed.is_ok() { 200 } else { 0 };
            let heard = Heard { status, call: Some(call), ..Heard::default() };
            self.write_down(self.noted(Kind::CallDeadlinePasses, number, start, heard));
        }
    }

    /// A host opens a call and dies: nobody ever settles it.
    async fn lose_call(&self, number: usize, job: Uuid) {
        let start = now();
        let key = self.newest_key(number).1.id;
        let tag = format!("{LOST}{}", self.tag());
        let call = Uuid::now_v7();
        let open = "SELECT open_call($1, $2, NULL, $3, false, '{}', 1, 0, $4)";
        let was_opened = "SELECT FROM calls WHERE call_id = $1";
        if self.database.query(open, &[&key, &job, &tag, &call]).await.is_err() {
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
    async fn settle_again(&self, number: usize) {
        let start = now();
        let again = "SELECT call_id, settle_call(job_id, call_id, 'failed', 1, 1, 2, 1.0, 1, '[{\"model\": \"again\"}]', 'again', true)
                     FROM (SELECT job_id, call_id FROM calls WHERE team_id = $1 AND settled_at IS NOT NULL
                           ORDER BY call_id DESC LIMIT 1) AS settled";
        let Ok(rows) = self.database.query(again, &[&self.teams[number].id]).await else { return };
        for row in rows {
            let body = Value::Bool(row.get(1));
            let heard = Heard { status: 200, body, call: Some(row.get(0)), ..Heard::default() };
            self.write_down(self.noted(Kind::SettleAgain, number, start, heard));
        }
    }

    fn administer(&self, kind: Kind, team: usize, method: Method, what: &str, body: Value) -> Intent {
        let path = format!("/api/teams/{}/{what}", self.teams[team].id);
        Intent { method, repeatable: true, ..self.intent(kind, team, By::Admin, path, body) }
    }

    async fn suspend_and_resume(&self, team: usize, random: &mut Rng) {
        let _one_at_a_time = self.teams[team].administration.lock().await;
        self.look_everywhere(team, By::Key(self.newest_key(team).0)).await;
        let start = now();
        let suspend = self.administer(Kind::Suspend, team, Method::PUT, "suspend", json!({}));
        let heard = self.ask(&suspend, random).await;
        let (began, known_at) = (window(start, &heard), forgetful(start, &heard));
        self.try_everywhere(team, By::Key(self.newest_key(team).0)).await;
        tokio::time::sleep(Duration::from_millis(random.u64(20..300))).await;
        let start = now();
        let resume = self.administer(Kind::Resume, team, Method::PUT, "resume", json!({}));
        let ended = window(start, &self.ask(&resume, random).await);
        self.suspended(team, Suspension { began, ended, known_at });
    }

    async fn rotate(&self, team: usize, random: &mut Rng) {
        let _one_at_a_time = self.teams[team].administration.lock().await;
        let (number, old) = self.newest_key(team);
        let grace = random.i64(-2..3).max(0);
        self.look_everywhere(team, By::Key(number)).await;
        let start = now();
        self.teams[team].revoking(number, start, grace * 1_000_000);
        let body = json!({"grace_seconds": grace, "key_id": old.id});
        let rotate = self.administer(Kind::Rotate, team, Method::POST, "keys/rotate", body);
        let heard = self.ask(&rotate, random).await;
        if self.take_key(team, &heard) {
            let revoked = Some((Interval::new(start, now()), grace * 1_000_000));
            self.teams[team].revoked(number, KeyLife { revoked, known_at: forgetful(start, &heard) });
            self.try_everywhere(team, By::Key(number)).await;
        }
    }

    async fn revoke(&self, team: usize, random: &mut Rng) {
        let _one_at_a_time = self.teams[team].administration.lock().await;
        let (number, old) = self.newest_key(team);
        let create = self.administer(Kind::Rotate, team, Method::POST, "keys/create", json!({}));
        let heard = self.ask(&create, random).await;
        if !self.take_key(team, &heard) {
            return;
        }
        self.look_everywhere(team, By::Key(number)).await;
        let start = now();
        self.teams[team].revoking(number, start, 0);
        let revoke =
            self.administer(Kind::Revoke, team, Method::DELETE, &format!("keys/{}", old.id), Value::Null);
        let heard = self.ask(&revoke, random).await;
        if heard.is_ok() {
            let revoked = Some((Interval::new(start, now()), 0));
            self.teams[team].revoked(number, KeyLife { revoked, known_at: forgetful(start, &heard) });
            self.try_everywhere(team, By::Key(number)).await;
        }
    }

    fn newest_key(&self, team: usize) -> (usize, Key) {
        let keys = lock(&self.teams[team].keys);
        (keys.len() - 1, keys[keys.len() - 1].clone())
    }

    /// Whether the answer has a new key, which everybody then knows.
    fn take_key(&self, team: usize, heard: &Heard) -> bool {
        let secret = heard.body["virtual_key"].as_str();
        let id = heard.body["key"]["key_id"].as_str().and_then(|id| id.parse().ok());
        let (Some(secret), Some(id), true) = (secret, id, heard.is_ok()) else {
            // Whoever goes on without a key is refused; that is no news.
            if heard.is_ok() {
                self.alarmed.store(true, Ordering::Relaxed);
            }
            return false;
        };
        lock(&self.teams[team].keys).push(Key { secret: secret.to_owned(), id, life: KeyLife::default() });
        true
    }
}
