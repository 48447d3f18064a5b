//! What is counted as it happens is what a recount would find, to the last decimal: after random traffic of several
//! teams on several connections at once, over several months and under changing terms, the sums on each job, usage by
//! day and model, and the totals of the metrics equal what jobs, calls and the ledger say, and so do the reports that
//! are made from them.

use crate::sequences::seed;
use futures::future::join_all;
use serde_json::{Value, json};
use sql_tests::{Answer, Expect, Session, Settling, Team, World, actor, id};
use std::{
    sync::Mutex,
    time::{Duration, Instant},
};
use uuid::Uuid;

const CONNECTIONS: u64 = 8;
/// Days on which there is traffic, each in a month of its own.
const DAYS: usize = 6;
const DURATION: Duration = Duration::from_secs(1);

/// Longer than all these days together, so that only those deadlines pass that the traffic lets pass.
const LONG: i32 = 300 * 24 * 3600;

/// Reports that differ from what jobs, calls and the ledger say of a range of days.
const DIFFERENT_REPORTS: &str = "
    WITH ranges AS (
        SELECT a::date AS first, a::date + length AS past
        FROM generate_series(now() - interval '250 days', now() + interval '20 days', interval '17 days') AS a,
             unnest(ARRAY[1, 18, 31, 100, 1000]) AS length
    ), happened (team_id, moment, jobs, completed, failed, cancelled, expired, charged, calls, refused, priced, tokens,
                 cost, credits) AS (
        SELECT team_id, created_at, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0::bigint, 0::numeric, 0::bigint FROM jobs
        UNION ALL
        SELECT team_id, completed_at, 0, (status = 'completed')::integer, (status = 'failed')::integer,
               (status = 'cancelled')::integer, (status = 'expired')::integer, 0, 0, 0, 0, 0, 0, 0
        FROM jobs WHERE completed_at IS NOT NULL
        UNION ALL
        SELECT team_id, ended_at, 0, 0, 0, 0, 0, 0, 1, (status = 'refused')::integer, 0, 0, 0, 0
        FROM calls WHERE ended_at IS NOT NULL
        UNION ALL
        SELECT team_id, settled_at, 0, 0, 0, 0, 0, 0, 0, 0, (cost_usd IS NOT NULL)::integer, total_tokens,
               coalesce(cost_usd, 0), 0
        FROM calls WHERE settled_at IS NOT NULL
        UNION ALL
        SELECT team_id, created_at, 0, 0, 0, 0, 0, (transaction_type = 'deduction' AND 1 = row_number() OVER (
                   PARTITION BY job_id, transaction_type ORDER BY entry))::integer, 0, 0, 0, 0, 0, -change
        FROM credit_transactions WHERE job_id IS NOT NULL
    ), by_day AS (
        SELECT team_id, (moment AT TIME ZONE 'UTC')::date AS day, sum(jobs) AS jobs, sum(completed) AS completed,
               sum(failed) AS failed, sum(cancelled) AS cancelled, sum(expired) AS expired, sum(charged) AS charged,
               sum(calls) AS calls, sum(refused) AS refused, sum(priced) AS priced, sum(tokens) AS tokens,
               sum(cost) AS cost, sum(credits) AS credits
        FROM happened GROUP BY 1, 2
    ), expected AS (
        SELECT first, past, t.team_id, json_build_object(
            'total_jobs', coalesce(sum(jobs), 0), 'successful_jobs', coalesce(sum(completed), 0),
            'failed_jobs', coalesce(sum(failed), 0), 'cancelled_jobs', coalesce(sum(cancelled), 0),
            'expired_jobs', coalesce(sum(expired), 0), 'charged_jobs', coalesce(sum(charged), 0),
            'total_calls', coalesce(sum(calls), 0), 'refused_calls', coalesce(sum(refused), 0),
            'unpriced_calls', greatest(0, coalesce(sum(calls) - sum(priced), 0)),
            'total_tokens', coalesce(sum(tokens), 0), 'total_cost_usd', coalesce(sum(cost), 0),
            'credits_used', coalesce(sum(credits), 0),
            'avg_cost_per_job', coalesce(round(sum(cost) / nullif(sum(jobs), 0), 10), 0)) AS expected
        FROM ranges CROSS JOIN (SELECT team_id FROM teams UNION ALL SELECT NULL) AS t
        LEFT JOIN by_day d ON day >= first AND day < past AND (d.team_id = t.team_id OR t.team_id IS NULL)
        GROUP BY first, past, t.team_id
    ), reported AS (
        SELECT *, CASE WHEN team_id IS NULL THEN organization_usage('org', first, past) -> 'usage'
                       ELSE team_usage('admin', team_id, first, past) -> 'usage' END -> 'summary' AS summary
        FROM expected
    )
    SELECT first::text || ' ' || past || ' ' || coalesce(team_id, 'all') || ' ' || e.key || ': ' || e.value || ' <> '
           || coalesce(summary ->> e.key, 'nothing')
    FROM reported, json_each_text(expected) AS e
    WHERE e.value::numeric IS DISTINCT FROM (summary ->> e.key)::numeric";

/// The same of what has no day of its own in jobs and calls, over all days.
const DIFFERENT_SUMS: &str = "
    SELECT team_id, usage, j.* FROM (
        SELECT team_id, team_usage('admin', team_id, '2000-01-01', '2100-01-01') -> 'usage' AS usage FROM teams) AS t,
        LATERAL (SELECT coalesce(sum(revenue_usd), 0) AS revenue,
                        count(*) FILTER (WHERE delivered AND NOT credit_applied AND completed_at IS NOT NULL) AS free
                 FROM jobs j WHERE j.team_id = t.team_id) AS j,
        LATERAL (SELECT coalesce(sum(cost_usd), 0) AS cost FROM calls c
                 WHERE c.team_id = t.team_id AND settled_at IS NOT NULL) AS c
    WHERE (revenue, revenue - cost, free) IS DISTINCT FROM
          ((usage ->> 'revenue_usd')::numeric, (usage ->> 'margin_usd')::numeric,
           (usage #>> '{summary,free_jobs_with_output}')::bigint)";

/// The same of the parts: by job type, and by model.
const DIFFERENT_PARTS: &str = "
    WITH usage AS (SELECT organization_usage('org', '2000-01-01', '2100-01-01') -> 'usage' AS usage)
    (SELECT 'job type ' || job_type, count(DISTINCT job_id), coalesce(sum(cost_usd), 0)
     FROM jobs LEFT JOIN (SELECT * FROM calls WHERE settled_at IS NOT NULL) AS c USING (job_id) GROUP BY job_type
     UNION ALL
     SELECT 'model ' || (attempts -> -1 ->> 'model'), count(*), coalesce(sum(cost_usd), 0) FROM calls
     WHERE settled_at IS NOT NULL GROUP BY 1)
    EXCEPT
    (SELECT 'job type ' || key, (value ->> 'count')::bigint, (value ->> 'cost_usd')::numeric
     FROM usage, json_each(usage -> 'job_types')
     UNION ALL
     SELECT 'model ' || key, (value ->> 'requests')::bigint, (value ->> 'cost')::numeric
     FROM usage, json_each(usage #> '{models_used}'))";

/// The same for the metrics.
const DIFFERENT_METRICS: &str = "
    WITH m AS (SELECT metrics() AS m), groups AS (SELECT json_array_elements(m -> 'calls') AS g FROM m)
    (SELECT 'jobs', count(*), count(*) FILTER (WHERE status = 'completed'), count(*) FILTER (WHERE status = 'failed'),
            count(*) FILTER (WHERE status = 'cancelled'), count(*) FILTER (WHERE status = 'expired'),
            count(*) FILTER (WHERE delivered AND NOT credit_applied AND completed_at IS NOT NULL) FROM jobs
     UNION ALL
     SELECT 'credits', sum(allocated), sum(used), sum(held), 0, 0, 0 FROM credit_accounts
     UNION ALL
     SELECT 'calls ' || model_group, count(*) FILTER (WHERE status = 'succeeded'),
            count(*) FILTER (WHERE status = 'failed'),
            count(*) FILTER (WHERE status = 'cancelled'), count(*) FILTER (WHERE status = 'abandoned'),
            count(*) FILTER (WHERE status = 'refused'), 0
     FROM calls WHERE status <> 'open' GROUP BY model_group
     UNION ALL
     SELECT 'usage ' || model_group, coalesce(sum(total_tokens) FILTER (WHERE settled_at IS NOT NULL), 0),
            coalesce(sum(cost_usd) FILTER (WHERE settled_at IS NOT NULL), 0), coalesce(sum(latency_ms), 0),
            count(latency_ms), 0, 0
     FROM calls WHERE status <> 'open' GROUP BY model_group)
    EXCEPT
    (SELECT 'jobs', (m #>> '{jobs,created}')::numeric, (m #>> '{jobs,completed}')::numeric,
             (m #>> '{jobs,failed}')::numeric,
            (m #>> '{jobs,cancelled}')::numeric, (m #>> '{jobs,expired}')::numeric,
            (m #>> '{jobs,free_with_output}')::numeric FROM m
     UNION ALL
     SELECT 'credits', (m #>> '{credits,allocated}')::numeric, (m #>> '{credits,used}')::numeric,
            (m #>> '{credits,reserved}')::numeric, 0, 0, 0 FROM m
     UNION ALL
     SELECT 'calls ' || (g ->> 'model_group'), (g ->> 'succeeded')::numeric, (g ->> 'failed')::numeric,
            (g ->> 'cancelled')::numeric, (g ->> 'abandoned')::numeric,
            (g ->> 'refused')::numeric, 0 FROM groups
     UNION ALL
     SELECT 'usage ' || (g ->> 'model_group'), (g ->> 'tokens')::numeric, (g ->> 'cost_usd')::numeric,
            (g ->> 'latency_ms')::numeric,
            (SELECT sum(n::bigint) FROM json_array_elements_text(g -> 'latency_counts') AS n), 0, 0 FROM groups)";

/// A call with what its settlings say, which is the same each time but for what it used.
#[derive(Clone)]
struct Call {
    job: Uuid,
    call: Uuid,
    /// Whether it is the one call of its job.
    alone: bool,
    latency_ms: i64,
    model: &'static str,
}

struct Traffic {
    teams: Vec<Team>,
    jobs: Mutex<Vec<(usize, Uuid)>>,
    calls: Mutex<Vec<Call>>,
}

fn some<T: Clone>(random: &mut fastrand::Rng, all: &[T]) -> T {
    all[random.usize(..all.len())].clone()
}

/// One of the latest.
fn recent<T: Clone>(random: &mut fastrand::Rng, all: &Mutex<Vec<T>>) -> Option<T> {
    let all = all.lock().unwrap();
    all.len().checked_sub(1 + random.usize(..all.len().clamp(1, 30))).map(|index| all[index].clone())
}

/// A price with up to 18 decimals, as LiteLLM's floats have them.
fn cost(random: &mut fastrand::Rng) -> Option<String> {
    let digits = random.usize(1..19);
    (random.u8(..5) > 0).then(|| {
        let whole = if random.u8(..3) == 0 { random.u32(..30) } else { 0 };
        format!("{whole}.{:0digits$}", random.u64(..10_u64.pow(digits as u32)))
    })
}

fn terms(random: &mut fastrand::Rng) -> Value {
    let tiers = json!([{"up_to": random.u8(1..5), "price_per_job_usd": "0.5"},
        {"up_to": random.u8(5..12), "price_per_job_usd": "0.45"},
                       {"up_to": null, "price_per_job_usd": "0.4000001"}]);
    let pricing = [
        Value::Null,
        json!({"mode": "flat", "price_per_job_usd": "0.123456789"}),
        json!({"mode": "markup", "markup_percent": some(random, &[0.0, 30.0, 12.5, 0.01])}),
        json!({"mode": "tiered", "tiers": tiers}),
    ];
    json!({
        "billing_mode": some(random, &["job_based", "consumption_usd", "consumption_tokens"]),
        "credits_per_dollar": some(random, &["10", "0.3", "7.77"]), "tokens_per_credit": some(random, &[1, 100, 999]),
        "credits_per_1k_tokens_unpriced": some(random, &["1", "0", "2.5"]),
        "charge_when": some(random, &["completed", "delivered"]), "pricing": some(random, &pricing),
    })
}

impl Traffic {
    async fn step(&self, session: &Session, random: &mut fastrand::Rng) {
        let (number, team) = {
            let number = random.usize(..self.teams.len());
            (number, &self.teams[number])
        };
        match random.u32(..100) {
            0..20 => {
                let job_type = some(random, &["summary", "analysis", "a type, with \"quotes\""]);
                let statement = "SELECT create_job($1, $2, NULL, $3, '{}', $4)::text";
                let answer = session.call(statement, &[&actor(team.key), &team.id, &job_type, &LONG]).await;
                if let Some(job) = done(answer) {
                    self.jobs.lock().unwrap().push((number, id(&job, "job_id")));
                }
            }
            20..26 => {
                let statement = "SELECT begin_job_with_call($1, NULL, NULL, 'single', '{}', $2, NULL, NULL, true, \
                                 '{}', $2)::text";
                let answer = session.call(statement, &[&actor(team.key), &LONG]).await;
                self.opened(random, answer, true);
            }
            26..50 => {
                let Some((number, job)) = recent(random, &self.jobs) else { return };
                let group = some(random, &["Chat", "Code", "Vision"]);
                let answer = session.begin_call(self.teams[number].key, job, Some(group), LONG).await;
                self.opened(random, answer, false);
            }
            50..72 => {
                let Some(Call { job, call, alone, latency_ms, model }) = recent(random, &self.calls) else {
                    return;
                };
                let cost = cost(random);
                let settling = Settling {
                    status: some(
                        random,
                        &["succeeded", "succeeded", "succeeded", "failed", "refused", "cancelled"],
                    ),
                    tokens: random.i64(0..500),
                    cost: cost.as_deref(),
                    latency_ms,
                    model: Some(model),
                    last: random.u8(..3) > 0,
                    delivered: some(random, &[None, None, Some(true), Some(false)]),
                    ..Settling::default()
                };
                if alone {
                    done(session.settle_job(job, call, settling).await);
                } else {
                    done(session.settle(job, call, settling).await);
                }
            }
            72..86 => {
                let Some((number, job)) = recent(random, &self.jobs) else { return };
                let status = some(random, &["completed", "completed", "completed", "failed", "cancelled"]);
                done(session.complete_job(self.teams[number].key, job, status, &json!({})).await);
            }
            86..88 => {
                if let Some((_, job)) = recent(random, &self.jobs) {
                    let overdue = "UPDATE jobs SET expires_at = now() WHERE job_id = $1 RETURNING 'null'";
                    session.call(overdue, &[&job]).await.done();
                }
            }
            88..91 => {
                if let Some(Call { job, call, .. }) = recent(random, &self.calls) {
                    let overdue = "UPDATE calls SET deadline = now() WHERE job_id = $1 AND call_id = $2 \
                                   RETURNING 'null'";
                    session.call(overdue, &[&job, &call]).await.done();
                }
            }
            91..93 => drop(done(session.sweep_team(&team.id).await)),
            93..95 => {
                if let Some((number, job)) = recent(random, &self.jobs) {
                    let credits = some(random, &[None, Some(1)]);
                    done(session.refund_credits(&self.teams[number].id, job, credits).await);
                }
            }
            95..98 => drop(done(session.update_team(&team.id, &terms(random)).await)),
            98 => drop(done(session.add_credits(&team.id, 50).await)),
            _ => drop(done(session.call("SELECT expire_jobs()::text", &[]).await)),
        }
    }

    fn opened(&self, random: &mut fastrand::Rng, answer: Answer, alone: bool) {
        let Some(answer) = done(answer) else { return };
        let (latency_ms, model) = (1 << random.u32(..19), some(random, &["first", "second", "third"]));
        let call =
            Call { job: id(&answer, "job_id"), call: id(&answer, "call_id"), alone, latency_ms, model };
        self.calls.lock().unwrap().push(call);
    }
}

/// The answer, if it is none of the refusals on purpose. One that was chosen to break a deadlock had no effect; that
/// there is none of those is another file's.
#[track_caller]
fn done(answer: Answer) -> Option<Value> {
    match answer {
        Err(refusal) if refusal.sqlstate.starts_with("LJ") || refusal.sqlstate == "40P01" => None,
        answer => Some(answer.done()),
    }
}

async fn differences(world: &World, statement: &str) -> Vec<String> {
    let rows =
        world.client.query(&format!("SELECT d::text FROM ({statement}) AS d"), &[]).await.expect("rows");
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn what_is_counted_as_it_happens_equals_a_recount_after_random_traffic() {
    let seed = seed();
    let world = World::new().await;
    let mut random = fastrand::Rng::with_seed(seed);
    let mut teams = vec![];
    for mode in ["hard", "soft", "hard", "hard"] {
        let mut fields = terms(&mut random);
        fields["model_groups"] = json!(["Chat", "Code", "Vision"]);
        fields["budget_mode"] = json!(mode);
        teams.push(world.team_with(200, fields).await);
    }
    let traffic = Traffic { teams, jobs: Mutex::default(), calls: Mutex::default() };
    let sessions = join_all((0..CONNECTIONS).map(|_| world.session())).await;
    for day in 0..DAYS {
        let started = Instant::now();
        join_all(sessions.iter().zip(1..).map(async |(session, number)| {
            let mut random = fastrand::Rng::with_seed(seed.wrapping_add(number + 100 * day as u64));
            while started.elapsed() < DURATION {
                traffic.step(session, &mut random).await;
            }
        }))
        .await;
        // What is overdue counts on the day on which it became so.
        for team in &traffic.teams {
            world.sweep_team(&team.id).await.done();
        }
        if day + 1 < DAYS {
            world.days_pass(random.i32(31..41)).await;
        }
    }
    println!(
        "{}",
        world
            .text("SELECT count(*) || ' jobs, ' || (SELECT count(*) FROM calls) || ' calls' FROM jobs")
            .await
    );

    for statement in [DIFFERENT_REPORTS, DIFFERENT_SUMS, DIFFERENT_PARTS, DIFFERENT_METRICS] {
        let differences = differences(&world, statement).await;
        assert!(differences.is_empty(), "{differences:#?}");
    }
    world.check_invariants().await;
}
