//! All functions at once, on a few teams and many connections: nobody ever waits in a circle, no statement fails but on
//! purpose, and afterwards everything that must hold holds.

use crate::sequences::seed;
use futures::future::join_all;
use serde_json::{Value, json};
use sql_tests::{Answer, Expect, Session, Settling, Team, World, actor, id};
use std::{
    collections::BTreeMap,
    sync::Mutex,
    time::{Duration, Instant},
};
use tokio_postgres::types::Json;
use uuid::Uuid;

const CONNECTIONS: u64 = 24;
const DURATION: Duration = Duration::from_secs(8);

#[derive(Default)]
struct Heard {
    jobs: Vec<(usize, Uuid)>,
    calls: Vec<(Uuid, Uuid)>,
    /// How often what was answered how: `ok`, or the SQLSTATE.
    answers: BTreeMap<&'static str, BTreeMap<String, u32>>,
    /// What failed that should not, with where.
    failures: BTreeMap<String, u32>,
}

struct Crowd {
    teams: Mutex<Vec<Team>>,
    heard: Mutex<Heard>,
}

fn some<T: Clone>(random: &mut fastrand::Rng, all: &[T]) -> Option<T> {
    all.len().checked_sub(1 + random.usize(..all.len().clamp(1, 12))).map(|index| all[index].clone())
}

impl Crowd {
    fn hear(&self, what: &'static str, answer: Answer) -> Option<Value> {
        let mut heard = self.heard.lock().unwrap();
        let how = answer.as_ref().err().map_or("ok", |refusal| &refusal.sqlstate);
        *heard.answers.entry(what).or_default().entry(how.into()).or_default() += 1;
        if let Err(refusal) = answer.as_ref().map_err(Clone::clone)
            && !refusal.sqlstate.starts_with("LJ")
            && (what, refusal.sqlstate.as_str()) != ("make_months", "55P03")
        {
            let context = refusal.context.unwrap_or_default();
            let failure = format!("{what}: {} {}\n{context}", refusal.sqlstate, refusal.message);
            *heard.failures.entry(failure).or_default() += 1;
        }
        answer.ok()
    }

    async fn step(&self, world: &World, session: &Session, random: &mut fastrand::Rng) {
        let number = random.usize(..3);
        let team = self.teams.lock().unwrap()[number].clone();
        match random.u32(..100) {
            0..30 => self.work(session, random, number, &team).await,
            30..60 => self.settle(session, random).await,
            60..72 => self.credits(world, session, random, &team).await,
            72..84 => self.administer(session, random, &team).await,
            84..88 => self.keys(session, random, &team).await,
            88..98 => self.look(session, random, &team).await,
            98 => self.groups(session, random).await,
            _ => self.replace(world, session, random, number, &team).await,
        }
    }

    async fn work(&self, session: &Session, random: &mut fastrand::Rng, number: usize, team: &Team) {
        let job = some(random, &self.heard.lock().unwrap().jobs);
        match (random.u32(..100), job) {
            (0..35, _) | (_, None) => {
                let lifetime = if random.u8(..4) == 0 { 1 } else { 3600 };
                let answer = session.create_job(team.key, &team.id, lifetime).await;
                if let Some(job) = self.hear("create_job", answer) {
                    self.heard.lock().unwrap().jobs.push((number, id(&job, "job_id")));
                }
            }
            (35..50, _) => {
                let statement = "SELECT begin_job_with_call($1, NULL, NULL, 'test', '{}', 60, NULL, NULL, true, \
                                 '{}', 1, p_limits => '{\"open_jobs\": 20, \"open_calls\": 12}')::text";
                let answer = session.call(statement, &[&actor(team.key)]).await;
                if let Some(call) = self.hear("begin_job_with_call", answer) {
                    self.heard.lock().unwrap().calls.push((id(&call, "job_id"), id(&call, "call_id")));
                }
            }
            (50.., Some((owner, job))) => {
                let key = self.teams.lock().unwrap()[owner].key;
                let group = ["Chat", "Code", "Vision"][random.usize(..3)];
                let limits = json!({"calls_per_job": 9, "open_calls_per_job": 4, "open_calls": 12, "open_jobs": 20,
                    "cost_usd_per_job": "0.5"});
                let statement = "SELECT begin_call($1, $2, $3, NULL, false, '{}', $4, p_limits => $5)::text";
                let limits = (random.u8(..4) > 0).then_some(Json(&limits));
                let deadline = 1 + random.i32(0..4) * 900;
                let answer = session.call(statement, &[&actor(key), &job, &group, &deadline, &limits]).await;
                if let Some(call) = self.hear("begin_call", answer) {
                    self.heard.lock().unwrap().calls.push((job, id(&call, "call_id")));
                }
            }
        }
    }

    async fn settle(&self, session: &Session, random: &mut fastrand::Rng) {
        let (job, call) = {
            let heard = self.heard.lock().unwrap();
            (some(random, &heard.jobs), some(random, &heard.calls))
        };
        let settling = Settling {
            status: ["succeeded", "succeeded", "failed", "refused", "cancelled"][random.usize(..5)],
            tokens: random.i64(0..900),
            cost: [Some("0.0625"), Some("0.5"), None][random.usize(..3)],
            latency_ms: 5 << random.u32(..10),
            model: Some(["first", "second", "third"][random.usize(..3)]),
            delivered: [None, Some(true)][random.usize(..2)],
            ..Settling::default()
        };
        match (random.u32(..100), job, call) {
            (0..45, _, Some((job, call))) => {
                self.hear("settle_call", session.settle(job, call, settling).await);
            }
            (45..60, _, Some((job, call))) => {
                self.hear("settle_job_with_call", session.settle_job(job, call, settling).await);
            }
            (60..68, _, Some((job, call))) => {
                self.hear("price_call", session.price_call(job, call, Some(800), settling.cost).await);
            }
            (68..95, Some((owner, job)), _) => {
                let key = self.teams.lock().unwrap()[owner].key;
                let status = ["completed", "completed", "failed", "cancelled"][random.usize(..4)];
                self.hear("complete_job", session.complete_job(key, job, status, &json!({})).await);
            }
            (_, Some((_, job)), _) => {
                let statement = "SELECT merge_job_metadata('admin', $1, '{\"a\": 1}')::text";
                self.hear("merge_job_metadata", session.call(statement, &[&job]).await);
            }
            _ => {}
        }
    }

    async fn credits(&self, world: &World, session: &Session, random: &mut fastrand::Rng, team: &Team) {
        match random.u32(..8) {
            5 => {
                let job = some(random, &self.heard.lock().unwrap().jobs);
                if let Some((owner, job)) = job {
                    let owner = self.teams.lock().unwrap()[owner].id.clone();
                    self.hear("refund_credits", session.refund_credits(&owner, job, Some(1)).await);
                }
            }
            6 => {
                world.run("UPDATE calls SET cost_check_at = now() WHERE cost_check_at > now()").await.done();
                let answer = session.call("SELECT take_unpriced_calls(20)::text", &[]).await;
                for call in
                    self.hear("take_unpriced_calls", answer).iter().flat_map(|all| all.as_array()).flatten()
                {
                    let (job, call) = (id(call, "job_id"), id(call, "call_id"));
                    let cost = [Some("0.125"), None][random.usize(..2)];
                    self.hear("price_call", session.price_call(job, call, Some(700), cost).await);
                }
            }
            0 => drop(self.hear("add_credits", session.add_credits(&team.id, 3).await)),
            1 => drop(self.hear("adjust_credits", session.adjust_credits(&team.id, random.i64(-2..3)).await)),
            2 => {
                let period = ["daily", "monthly"][random.usize(..2)];
                let (mode, enabled) = (["add", "reset_to"][random.usize(..2)], random.u8(..4) > 0);
                let amount = if mode == "add" { 2 } else { 20 };
                let answer =
                    session.configure_refill(&team.id, enabled, amount, period, mode, Some(40)).await;
                self.hear("configure_auto_refill", answer);
            }
            3 => drop(world.periods_pass(team, 1).await.done()),
            _ => drop(self.hear("sweep_team", session.sweep_team(&team.id).await)),
        }
    }

    async fn administer(&self, session: &Session, random: &mut fastrand::Rng, team: &Team) {
        let groups = [&["Chat"][..], &["Code", "Chat"], &["Chat", "Vision", "Code"]][random.usize(..3)];
        match random.u32(..7) {
            0 => {
                let fields = [
                    json!({"budget_mode": "soft", "credit_limit": 5}),
                    json!({"budget_mode": "hard", "pricing": {"mode": "markup", "markup_percent": 10}}),
                    json!({"billing_mode": "consumption_tokens", "tokens_per_credit": random.u32(100..110)}),
                    json!({"billing_mode": "consumption_usd", "charge_when": "delivered"}),
                    json!({"rpm_limit": random.u32(3..100), "tpm_limit": 1_000_000}),
                    json!({"rpm_limit": null, "tpm_limit": null}),
                    json!({"limits": {"open_calls": random.u32(..30), "calls_per_job": null}}),
                    json!({"pricing": {"mode": "tiered", "tiers": [{"up_to": 5, "price_per_job_usd": "0.5"},
                                                                   {"up_to": null, "price_per_job_usd": "0.4"}]}}),
                ];
                self.hear(
                    "update_team",
                    session.update_team(&team.id, &fields[random.usize(..fields.len())]).await,
                );
            }
            1 => drop(
                self.hear("set_team_model_groups", session.set_team_model_groups(&team.id, groups).await),
            ),
            2 => {
                let access = [&["all"][..], &[]][random.usize(..2)];
                let statement = "SELECT set_team_access_groups($1, $2)::text";
                self.hear("set_team_access_groups", session.call(statement, &[&team.id, &access]).await);
            }
            3 => {
                self.hear("set_team_status", session.set_team_status(&team.id, "suspended").await);
                self.hear("set_team_status", session.set_team_status(&team.id, "active").await);
            }
            4 => {
                let statement =
                    "SELECT litellm_synced($1, 3, ARRAY(SELECT encode(key_hash, 'hex') FROM virtual_keys
                                     WHERE team_id = $1 AND revoked_at <= now()))::text";
                self.hear("litellm_synced", session.call(statement, &[&team.id]).await);
            }
            5 => {
                // A change with an `Idempotency-Key`, and often a twin of it.
                let key = format!("{:02x}", random.u8(..8)).repeat(32);
                let request = json!({"caller": "admin", "request_id": "1", "action": "POST", "path": "/", "body": {},
                    "key": key, "digest": key});
                let statement = "WITH claimed AS MATERIALIZED (SELECT claim($1) AS kept)
                                 SELECT (CASE WHEN kept IS NULL
                                 THEN keep($1, add_credits($2, 1, NULL, '{}', 0.1)) END)::text FROM claimed";
                self.hear("claim", session.call(statement, &[&Json(request), &team.id]).await);
            }
            _ => drop(self.hear("take_alerts", session.call("SELECT take_alerts()::text", &[]).await)),
        }
    }

    async fn keys(&self, session: &Session, random: &mut fastrand::Rng, team: &Team) {
        // The keys that work are those that the team began with; these come and go beside them.
        let key = Uuid::now_v7();
        let begun =
            session.call("SELECT begin_key($1, $2, 'other', false, NULL, 60)::text", &[&team.id, &key]).await;
        if self.hear("begin_key", begun).is_some() {
            let hash = [key.as_bytes().as_slice(); 2].concat();
            let statement = "SELECT activate_key($1, $2, 'hint', NULL, 0)::text";
            self.hear("activate_key", session.call(statement, &[&key, &hash]).await);
            if random.bool() {
                self.hear("rotate_key", session.rotate_key(&team.id, key, 0).await);
            } else {
                self.hear("revoke_key", session.revoke_key(&team.id, key).await);
            }
        }
    }

    async fn look(&self, session: &Session, random: &mut fastrand::Rng, team: &Team) {
        let job = some(random, &self.heard.lock().unwrap().jobs);
        let looks = [
            ("list_teams", "list_teams(100, 0)".into()),
            ("organization_teams", "organization_teams('org')".into()),
            ("expire_jobs", "expire_jobs()".into()),
            ("expire_jobs", "expire_jobs()".into()),
            ("get_balance", format!("get_balance('{}')", team.id)),
            ("list_jobs", format!("list_jobs('{}', NULL, NULL, NULL, 20, 0, NULL)", team.id)),
            ("get_job", format!("get_job('{}', 'admin')", job.map(|job| job.1).unwrap_or_default())),
            ("organization_usage", "organization_usage('org', '2000-01-01', '2100-01-01')".into()),
            ("metrics", "metrics()".into()),
            ("make_months", format!("make_months({})", random.i32(3..40))),
        ];
        let (what, call) = &looks[random.usize(..looks.len())];
        self.hear(what, session.call(&format!("SELECT {call}::text"), &[]).await);
    }

    async fn groups(&self, session: &Session, random: &mut fastrand::Rng) {
        let models = json!({"models": [{"model_name": "first", "priority": random.u8(..), "config": {}}]});
        match random.u32(..3) {
            0 => {
                let statement = "SELECT update_model_group($1, $2)::text";
                let name = ["Chat", "Code"][random.usize(..2)];
                self.hear("update_model_group", session.call(statement, &[&name, &Json(models)]).await);
            }
            1 => {
                let statement = "SELECT update_model_access_group('all', $1)::text";
                let group = ["Chat", "Vision"][random.usize(..2)];
                let groups = json!({"model_groups": [group]});
                self.hear("update_model_access_group", session.call(statement, &[&Json(groups)]).await);
            }
            _ => {
                let statement = "SELECT update_organization('org', '{\"name\": \"Other\"}')::text";
                self.hear("update_organization", session.call(statement, &[]).await);
            }
        }
    }

    /// Deletes a team, while others are at work in it, and makes another in its place.
    async fn replace(
        &self,
        world: &World,
        session: &Session,
        random: &mut fastrand::Rng,
        number: usize,
        team: &Team,
    ) {
        if random.u8(..4) > 0 || self.hear("delete_team", session.delete_team(&team.id).await).is_none() {
            return;
        }
        let new = world.team_with(30, json!({"model_groups": ["Chat", "Code", "Vision"]})).await;
        self.teams.lock().unwrap()[number] = new;
    }
}

#[tokio::test]
async fn all_functions_at_once_never_wait_in_a_circle() {
    let seed = seed();
    let world = World::new().await;
    world
        .call("SELECT create_model_access_group('all', 'All', NULL, ARRAY['Chat', 'Code'], NULL)::text", &[])
        .await
        .done();
    let mut teams = vec![];
    for _ in 0..3 {
        teams.push(
            world
                .team_with(
                    30,
                    json!({"model_groups": ["Chat", "Code", "Vision"], "webhook_url": "https://hook"}),
                )
                .await,
        );
    }
    let crowd = Crowd { teams: Mutex::new(teams), heard: Mutex::default() };
    let sessions = join_all((0..CONNECTIONS).map(async |_| {
        let session = world.session().await;
        // Sooner than usual, but not before those give up who make months.
        session.run("SET deadlock_timeout = '500ms'").await.done();
        session
    }))
    .await;
    let started = Instant::now();
    join_all(sessions.iter().zip(1..).map(async |(session, number)| {
        let mut random = fastrand::Rng::with_seed(seed.wrapping_add(number));
        while started.elapsed() < DURATION {
            crowd.step(&world, session, &mut random).await;
        }
    }))
    .await;
    let Heard { answers, failures, .. } = crowd.heard.into_inner().unwrap();
    for (what, answers) in answers {
        println!("{what}: {answers:?}");
    }
    for (failure, times) in &failures {
        println!("{times} times {failure}");
    }
    // The last deadlines that are near pass.
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.call("SELECT expire_jobs()::text", &[]).await.done();
    world.check_invariants().await;
    assert!(failures.is_empty(), "{} kinds of failures", failures.len());
}
