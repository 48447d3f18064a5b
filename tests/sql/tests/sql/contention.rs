//! Many connections at once on one team. Whatever they do to each other, the answers they got are consistent with one
//! another and with the state at the end, and nobody ever waits in a circle.

use crate::sequences::seed;
use futures::future::join_all;
use serde_json::{Value, json};
use sql_tests::{Answer, Expect, Session, Team, World, id};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
    time::{Duration, Instant},
};
use uuid::Uuid;

const CONNECTIONS: usize = 16;
const DURATION: Duration = Duration::from_secs(6);
const REFILL: i64 = 2;

/// What everybody heard: all that the state at the end is predicted from.
#[derive(Default)]
struct Heard {
    /// Of each open job, whether its deadline is near.
    jobs: Vec<(Uuid, bool)>,
    calls: Vec<(Uuid, Uuid)>,
    /// Without what jobs are charged, which is as of now.
    completions: BTreeMap<Uuid, Value>,
    /// What refusals said a job already is.
    ends: BTreeMap<Uuid, String>,
    /// Calls whose final settling counted.
    settled: BTreeSet<Uuid>,
    /// The balance after each transaction, by its id.
    added: BTreeMap<String, i64>,
    added_amount: i64,
    refilled_amount: i64,
    counts: BTreeMap<&'static str, u64>,
}

struct Contention {
    team: Team,
    heard: Mutex<Heard>,
}

impl Contention {
    /// One of the latest jobs or calls, so that connections meet at them.
    fn recent<T: Copy>(random: &mut fastrand::Rng, all: &[T]) -> Option<T> {
        all.len().checked_sub(1 + random.usize(..all.len().clamp(1, 6))).map(|index| all[index])
    }

    async fn step(&self, world: &World, session: &Session, random: &mut fastrand::Rng) {
        let team = &self.team;
        let (job, call) = {
            let heard = self.heard.lock().unwrap();
            (
                Self::recent(random, &heard.jobs).map(|job| job.0),
                Self::recent(random, &heard.calls).map(|call| call.0),
            )
        };
        match (random.u32(..100), job, call) {
            (0..16, ..) => {
                let soon = random.u8(..4) == 0;
                let answer = session.create_job(team.key, &team.id, if soon { 1 } else { 3600 }).await;
                self.hear("create", &answer, &["LJ005"]);
                if let Ok(answer) = answer {
                    self.heard.lock().unwrap().jobs.push((id(&answer, "job_id"), soon));
                }
            }
            (16..40, Some(job), _) => {
                let answer = session.begin_call(team.key, job, None, 1 + random.i32(0..5) * 900).await;
                self.hear("open", &answer, &["LJ008"]);
                self.hear_end(job, &answer);
                if let Ok(answer) = answer {
                    self.heard.lock().unwrap().calls.push((id(&answer, "call_id"), job));
                }
            }
            (40..62, _, Some(call)) => {
                let status = ["succeeded", "succeeded", "succeeded", "failed", "refused", "cancelled"]
                    [random.usize(..6)];
                let last = random.u8(..4) > 0;
                let answer = session.settle_call(call, status, 10, Some("0.001"), last).await;
                self.hear("settle", &answer, &[]);
                if last && answer == Ok(json!(true)) {
                    assert!(self.heard.lock().unwrap().settled.insert(call), "{call} was settled twice");
                }
            }
            (62..80, Some(job), _) => {
                let status =
                    ["completed", "completed", "completed", "failed", "cancelled"][random.usize(..5)];
                let answer =
                    session.complete_job(team.key, job, status, &json!({"by": random.u32(..)})).await;
                self.hear("complete", &answer, &["LJ008"]);
                self.hear_end(job, &answer);
                if let Ok(mut answer) = answer {
                    for present in ["credits_charged", "credits_refunded", "charge_is_final"] {
                        answer["costs"].as_object_mut().expect("an object").remove(present).expect(present);
                    }
                    let mut heard = self.heard.lock().unwrap();
                    let first = heard.completions.entry(job).or_insert_with(|| answer.clone());
                    assert_eq!(*first, answer, "two answers to the same completion");
                }
            }
            (80..83, ..) => {
                let amount = random.i64(1..4);
                let answer = session.add_credits(&team.id, amount).await;
                self.hear("add", &answer, &[]);
                self.hear_added(amount, &answer.done()["added"]);
            }
            (83..85, ..) => {
                let change = random.i64(-3..3);
                let answer = session.adjust_credits(&team.id, change).await;
                self.hear("adjust", &answer, &["LJ005"]);
                if let Ok(answer) = answer {
                    self.hear_added(change, &answer["adjusted"]);
                }
            }
            (85, ..) => {
                self.hear("period", &world.periods_pass(team, 1).await, &[]);
                self.heard.lock().unwrap().refilled_amount += REFILL;
            }
            (86, ..) => {
                let fields = [
                    json!({"budget_mode": "hard"}),
                    json!({"budget_mode": "soft", "credit_limit": 4}),
                    json!({"billing_mode": "consumption_tokens", "tokens_per_credit": 7}),
                    json!({"billing_mode": "job_based"}),
                ];
                let answer = session.update_team(&team.id, &fields[random.usize(..4)]).await;
                self.hear("update", &answer, &[]);
            }
            (87..90, ..) => self.hear("sweep", &session.sweep_team(&team.id).await, &[]),
            (90..93, ..) => self.hear("balance", &session.get_balance(&team.id).await, &[]),
            (93..95, Some(job), _) => self.hear("read", &session.get_job(job).await, &[]),
            (95..97, ..) => {
                let statement = "SELECT list_jobs($1, NULL, NULL, NULL, 20, 0, NULL)::text";
                self.hear("list", &session.call(statement, &[&team.id]).await, &[]);
            }
            (97..99, ..) => {
                let groups = [&["Chat"][..], &["Code", "Chat"], &["Chat", "Vision"]][random.usize(..3)];
                self.hear("assign", &session.set_team_model_groups(&team.id, groups).await, &[]);
            }
            (99.., ..) => {
                self.hear("team", &session.call("SELECT get_team($1)::text", &[&team.id]).await, &[])
            }
            _ => {}
        }
    }

    fn hear_added(&self, amount: i64, added: &Value) {
        let mut heard = self.heard.lock().unwrap();
        heard.added_amount += amount;
        let id = added["transaction"]["transaction_id"].as_str().expect("an id").to_owned();
        heard.added.insert(id, added["credits_remaining"].as_i64().expect("a number"));
    }

    /// Fails the test for every refusal but these: above all for a deadlock (40P01).
    fn hear(&self, what: &'static str, answer: &Answer, refusals: &[&str]) {
        if let Err(refusal) = answer {
            assert!(refusals.contains(&refusal.sqlstate.as_str()), "{what}: {refusal:?}");
        }
        *self.heard.lock().unwrap().counts.entry(what).or_default() += 1;
    }

    fn hear_end(&self, job: Uuid, answer: &Answer) {
        let Err(refusal) = answer else { return };
        let end = refusal.message.rsplit(' ').next().expect("a word").to_owned();
        let mut heard = self.heard.lock().unwrap();
        let first = heard.ends.entry(job).or_insert_with(|| end.clone());
        assert_eq!(*first, end, "job {job} ended twice");
    }
}

/// Compares the answers with the state.
async fn compare(world: &World, team: &Team, credits: i64, heard: &Heard) {
    let mut held = 0;
    let (mut used, mut charged) = (0, BTreeMap::new());
    for (job, soon) in &heard.jobs {
        let completion = heard.completions.get(job);
        let expected = match completion {
            Some(completion) => completion["status"].as_str().expect("a status"),
            None if *soon => "expired",
            None if heard.calls.iter().any(|call| call.1 == *job) => "in_progress",
            None => "pending",
        };
        assert_eq!(world.job_status(*job).await, expected, "{job}");
        assert!(
            heard.ends.get(job).is_none_or(|end| end == expected),
            "{job} is {expected}: {:?}",
            heard.ends.get(job)
        );
        held += i64::from(completion.is_none() && !soon);
        if let Some(completion) = completion {
            let applied = completion["costs"]["credit_applied"] == json!(true);
            let (costs, none) = (&completion["costs"], json!(0));
            let all_refused =
                costs["refused_calls"] != none && costs["refused_calls"] == costs["total_calls"];
            assert_eq!(applied, expected == "completed" && costs["failed_calls"] == none && !all_refused);
            let again = world.complete_job(team.key, *job, expected, &json!({})).await.done();
            let credits = |name: &str| again["costs"][name].as_i64().expect("a number");
            used += credits("credits_charged") - credits("credits_refunded");
            if applied {
                charged.insert(
                    job.to_string(),
                    completion["costs"]["credits_remaining"].as_i64().expect("a number"),
                );
            }
        }
    }
    let calls = world.text("SELECT count(*) FROM calls").await;
    assert_eq!(calls, heard.calls.len().to_string());
    for (call, _) in &heard.calls {
        let settled =
            world.text(&format!("SELECT settled_at IS NOT NULL FROM calls WHERE call_id = '{call}'")).await;
        assert_eq!(settled, heard.settled.contains(call).to_string(), "{call}");
    }
    let allocated = credits + heard.added_amount + heard.refilled_amount;
    assert_eq!(world.account(team).await, (allocated, used, held));

    // Every balance that somebody was told is the one in the ledger. Nobody is told of late costs.
    let ledger = world
        .client
        .query(
            "SELECT coalesce(job_id, transaction_id)::text, balance_after FROM credit_transactions
                WHERE entry > 1 AND transaction_type <> 'refill' AND call_id IS NULL",
            &[],
        )
        .await
        .expect("the ledger");
    let ledger: BTreeMap<String, i64> = ledger.iter().map(|row| (row.get(0), row.get(1))).collect();
    let mut told = heard.added.clone();
    told.extend(charged);
    assert_eq!(ledger, told);
}

async fn contend(credits: i64, fields: Value) {
    let seed = seed();
    let world = World::new().await;
    let team = world.team_with(credits, fields).await;
    world.configure_auto_refill(&team.id, true, REFILL, "daily").await.done();
    let contention = Contention { team, heard: Mutex::default() };
    let sessions = join_all((0..CONNECTIONS).map(|_| world.session())).await;
    let started = Instant::now();
    join_all(sessions.iter().zip(0..).map(async |(session, number)| {
        let mut random = fastrand::Rng::with_seed(seed.wrapping_add(number));
        while started.elapsed() < DURATION {
            contention.step(&world, session, &mut random).await;
        }
    }))
    .await;

    let Contention { team, heard } = contention;
    let heard = heard.into_inner().unwrap();
    println!("{:?}, {} jobs", heard.counts, heard.jobs.len());
    // The last deadlines that are near pass within two seconds.
    tokio::time::sleep(Duration::from_secs(2)).await;
    world.sweep_team(&team.id).await.done();
    compare(&world, &team, credits, &heard).await;
    world.check_invariants().await;
}

#[tokio::test]
async fn many_connections_at_once_with_few_credits_are_as_if_one_after_another() {
    contend(8, json!({})).await;
}

#[tokio::test]
async fn many_connections_at_once_on_a_soft_team_are_as_if_one_after_another() {
    contend(1, json!({"budget_mode": "soft"})).await;
}

#[tokio::test]
async fn a_function_outside_of_a_transaction_leaves_none_open_whether_it_answers_or_refuses() {
    let world = World::new().await;
    let team = world.team(1).await;
    let session = world.session().await;
    let pid = session.text("pg_backend_pid()").await;
    let job = id(&session.create_job(team.key, &team.id, 60).await.done(), "job_id");
    for (refuses, answer) in [
        (true, session.create_job(team.key, &team.id, 60).await),
        (false, session.begin_call(team.key, job, None, 60).await),
        (true, session.begin_call(team.key, job, Some("Code"), 60).await),
        (false, session.complete_job(team.key, job, "completed", &json!({})).await),
        (true, session.complete_job(team.key, job, "failed", &json!({})).await),
        (false, session.get_balance(&team.id).await),
    ] {
        assert_eq!(answer.is_err(), refuses, "{answer:?}");
        let state =
            format!("SELECT state || ' ' || (xact_start IS NULL) FROM pg_stat_activity WHERE pid = {pid}");
        // The server says so a moment after it has answered.
        let idle = async {
            while world.text(&state).await != "idle true" {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), idle).await.expect("no transaction is left open");
        let locks = format!("SELECT count(*) FROM pg_locks WHERE pid = {pid}");
        assert_eq!(world.text(&locks).await, "0");
    }
    world.check_invariants().await;
}
