//! A run notices when the product is wrong: each mutant is one mistake in the schema, and a short run without faults
//! must find something that must not be.

use anyhow::Result;
use futures::StreamExt;
use soak::{
    audit::rules::*,
    driver::{Options, Soak, Weather},
    mutants::Mutant,
    world::World,
};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// After this long without the right violation a mutant has survived.
const PATIENCE: Duration = Duration::from_secs(300);

/// How long the clients drive before each audit.
const ROUND: Duration = Duration::from_secs(4);

/// How many clients drive. With more, answers take longer and say less exactly what was true.
const CLIENTS: u64 = 8;

/// How many mutants are run at once: much of a run is waiting.
const AT_ONCE: usize = 5;

// Invariants of the database.
const LEDGER: &str = "every ledger row continues the one before";
const DUE: &str = "what is due of a job is what its terms say of its calls as far as they are known";
const CHARGED: &str = "what a job was charged and refunded is what the ledger has of it, \
    and all but the admin's refunds was due";
const SUMS: &str = "the sums on a job are those of its calls";
const EXPECTED: &str = "a call that is settled is expected to cost nothing more";
const USAGE: &str = "usage over all days equals a recount of jobs, calls and ledger";
const USAGE_OF_DAY: &str = "usage of a day is of what was opened, ended and charged on that day";
const MODELS_OF_DAY: &str = "usage by model and day counts the calls that were settled on that day";

const TABLES: &str = "tables/0001_first.sql";
const MONEY: &str = "tables/0002_money.sql";
const CALLS: &str = "functions/calls.sql";
const COUNTS: &str = "functions/counts.sql";
const CREDITS: &str = "functions/credits.sql";
const FOUNDATIONS: &str = "functions/foundations.sql";
const JOBS: &str = "functions/jobs.sql";
const KEYS: &str = "functions/keys.sql";
const REFILLS: &str = "functions/refills.sql";
const REQUESTS: &str = "functions/requests.sql";
const UPKEEP: &str = "functions/upkeep.sql";

const STATUS_CHECK: &str =
    "ELSIF v_job.status NOT IN ('pending', 'in_progress') OR v_job.expires_at <= now() THEN";

const MUTANTS: [Mutant; 48] = [
    Mutant {
        name: "opening a job does not lock the account",
        breaks: &[POSSIBLE_ANSWER, CREDIT_FOR_JOB],
        changes: &[(
            JOBS,
            "WHERE a.team_id = v_team_id FOR NO KEY UPDATE OF a;",
            "WHERE a.team_id = v_team_id;",
        )],
    },
    Mutant {
        name: "opening a job holds no credit",
        breaks: &[POSSIBLE_ANSWER, ACCOUNT, TRUE_ONCE],
        changes: &[(JOBS, "SET held = held + 1 WHERE", "SET held = held WHERE")],
    },
    Mutant {
        name: "a soft team's limit is ignored",
        breaks: &[CREDIT_FOR_JOB],
        changes: &[
            (
                JOBS,
                "IF v_account.available - 1 < v_account.floor THEN",
                "IF v_account.floor = 0 AND v_account.available < 1 THEN",
            ),
            (
                TABLES,
                "CONSTRAINT credits_not_negative CHECK (allocated - used - held >= floor - overdraft),",
                "",
            ),
        ],
    },
    Mutant {
        name: "a job that failed keeps its credit",
        breaks: &[ACCOUNT],
        changes: &[(
            JOBS,
            "UPDATE credit_accounts SET held = held - 1, overdraft = greatest(0, floor - (allocated - used - held) \
             - 1)\n        WHERE team_id = v_job.team_id RETURNING",
            "UPDATE credit_accounts SET held = held WHERE team_id = v_job.team_id RETURNING",
        )],
    },
    Mutant {
        name: "a job that expired keeps its credit",
        breaks: &[ACCOUNT],
        changes: &[(UPKEEP, "SET held = held - expired,", "SET held = held,")],
    },
    Mutant {
        name: "a job past its deadline takes calls",
        breaks: &[TOO_LATE],
        changes: &[(CALLS, " AND expires_at > now()\n    RETURNING", "\n    RETURNING")],
    },
    Mutant {
        name: "a job that has ended takes calls",
        breaks: &[POSSIBLE_ANSWER, ONE_END, JOB_ENDS_ONCE],
        changes: &[(
            CALLS,
            " AND completed_at IS NULL AND expires_at > now()\n    RETURNING",
            " AND expires_at > now()\n    RETURNING",
        )],
    },
    Mutant {
        name: "a call is opened by what the job was before it was locked",
        breaks: &[POSSIBLE_ANSWER, ONE_END, JOB_ENDS_ONCE, COMPLETION_CALLS],
        changes: &[(
            CALLS,
            "AND completed_at IS NULL AND expires_at > now()\n    RETURNING",
            "AND (SELECT j.status IN ('pending', 'in_progress') AND j.expires_at > now() FROM jobs j
                  WHERE j.job_id = p_job_id)
             RETURNING",
        )],
    },
    Mutant {
        name: "a job that has ended can be ended otherwise",
        breaks: &[POSSIBLE_ANSWER, JOB_ENDS_ONCE],
        changes: &[(JOBS, STATUS_CHECK, "ELSIF v_job.expires_at <= now() THEN")],
    },
    Mutant {
        name: "completing does not lock the job",
        breaks: &[POSSIBLE_ANSWER, JOB_ENDS_ONCE, COMPLETION_CALLS],
        changes: &[(
            JOBS,
            "WHERE job_id = p_job_id AND team_id = coalesce(v_team_id, team_id) FOR NO KEY UPDATE;",
            "WHERE job_id = p_job_id AND team_id = coalesce(v_team_id, team_id);",
        )],
    },
    Mutant {
        name: "a job is charged every time that it is completed",
        breaks: &[ACCOUNT, CHARGED, COMPLETION_CHARGE],
        changes: &[
            (
                JOBS,
                "ELSIF v_job.status = p_status THEN",
                "ELSIF v_job.status = p_status AND v_job.completion IS NULL THEN",
            ),
            (JOBS, STATUS_CHECK, "ELSIF v_job.expires_at <= now() THEN"),
            (
                MONEY,
                "CREATE UNIQUE INDEX one_deduction_per_settlement",
                "CREATE INDEX one_deduction_per_settlement",
            ),
            (TABLES, "    CONSTRAINT held_not_negative CHECK (held >= 0),\n", ""),
        ],
    },
    Mutant {
        name: "a job is charged although a call failed",
        breaks: &[DUE],
        changes: &[(JOBS, "j.status = 'completed' AND j.failed_calls = 0\n", "j.status = 'completed'\n")],
    },
    Mutant {
        name: "consumption is rounded down",
        breaks: &[DUE],
        changes: &[(
            JOBS,
            "ceil(j.total_tokens::numeric / t.tokens_per_credit)",
            "floor(j.total_tokens::numeric / t.tokens_per_credit)",
        )],
    },
    Mutant {
        name: "anybody may complete a job",
        breaks: &[POSSIBLE_ANSWER],
        changes: &[(
            JOBS,
            "WHERE job_id = p_job_id AND team_id = coalesce(v_team_id, team_id) FOR NO KEY UPDATE;",
            "WHERE job_id = p_job_id FOR NO KEY UPDATE;",
        )],
    },
    Mutant {
        name: "a call is settled twice",
        breaks: &[SETTLED_ONCE],
        changes: &[(
            CALLS,
            "AND (c.settled_at IS NULL OR (p_status IS NULL AND c.cost_check_at IS NOT NULL))\n",
            "\n",
        )],
    },
    Mutant {
        name: "a call that its job's end has cancelled succeeds later",
        breaks: &[COMPLETION_CALLS],
        changes: &[(
            CALLS,
            "SET status = CASE WHEN v_ends THEN p_status ELSE status END,",
            "SET status = p_status,",
        )],
    },
    Mutant {
        name: "what a call used is not counted in the usage",
        breaks: &[USAGE],
        changes: &[(
            CALLS,
            "priced_calls = u.priced_calls + excluded.priced_calls, tokens = u.tokens + excluded.tokens,",
            "priced_calls = u.priced_calls + excluded.priced_calls,",
        )],
    },
    Mutant {
        name: "a call that its job's end has cancelled is not counted in the usage",
        breaks: &[USAGE],
        changes: &[(
            JOBS,
            "coalesce(cardinality(v_cancelled_groups), 0), v_job.delivered",
            "0, v_job.delivered",
        )],
    },
    Mutant {
        name: "an abandoned call is not counted in the usage",
        breaks: &[USAGE],
        changes: &[(
            COUNTS,
            "expired = u.expired + excluded.expired, calls = u.calls + excluded.calls,",
            "expired = u.expired + excluded.expired, calls = u.calls,",
        )],
    },
    Mutant {
        name: "an overdue call is never abandoned",
        breaks: &[ABANDONED],
        changes: &[(
            UPKEEP,
            "AND status = 'open' AND deadline <= now() AND job_id >= v_oldest",
            "AND status = 'open' AND false",
        )],
    },
    Mutant {
        name: "the ledger tells a wrong balance",
        breaks: &[LEDGER],
        changes: &[(
            CREDITS,
            "v_account.entries, uuid_v7(), p_type, p_change, v_account.allocated - v_account.used,",
            "v_account.entries, uuid_v7(), p_type, p_change, v_account.allocated,",
        )],
    },
    Mutant {
        name: "a refill has no row in the ledger",
        breaks: &[REFILL],
        changes: &[(
            REFILLS,
            "IF v_change <> 0 THEN",
            "UPDATE credit_accounts SET allocated = allocated + v_change WHERE team_id = p_team_id;
             IF false THEN",
        )],
    },
    Mutant {
        name: "a period is refilled twice",
        breaks: &[REFILL, LEDGER_ROW],
        changes: &[(
            REFILLS,
            "refill_time(refill_start, refill_period, refills + 2)",
            "refill_time(refill_start, refill_period, refills + 1)",
        )],
    },
    Mutant {
        name: "a correction may take more than there is",
        breaks: &[CREDIT_FOR_CORRECTION],
        changes: &[
            (CREDITS, "IF p_change < 0 AND v_available + p_change < v_floor THEN", "IF false THEN"),
            (
                CREDITS,
                "overdraft = CASE WHEN p_type = 'adjustment' AND p_change < 0 THEN overdraft",
                "overdraft = CASE WHEN false THEN overdraft",
            ),
        ],
    },
    Mutant {
        name: "a revoked key goes on",
        breaks: &[KEY_REVOKED],
        changes: &[(
            KEYS,
            "WHERE k.key_id = p_key_id AND coalesce(k.revoked_at > now(), true) AND",
            "WHERE k.key_id = p_key_id AND",
        )],
    },
    Mutant {
        name: "a suspended team goes on",
        breaks: &[SUSPENDED],
        changes: &[(KEYS, "ELSIF v_status = 'suspended' THEN", "ELSIF false THEN")],
    },
    Mutant {
        name: "a repeated request is done again",
        breaks: &[DONE_ONCE, JOB_ONCE, CHANGED_ONCE],
        changes: &[(REQUESTS, "ELSIF v_row.answer IS NOT NULL THEN", "ELSIF false THEN")],
    },
    Mutant {
        name: "another request gets the answer of the one before",
        breaks: &[POSSIBLE_ANSWER],
        changes: &[(REQUESTS, "IF v_row.request_digest <> v_digest THEN", "IF false THEN")],
    },
    Mutant {
        name: "the difference that a late cost makes is not posted",
        breaks: &[DUE, CHARGED],
        changes: &[(
            JOBS,
            "p.credits := greatest(v_due - v_before, -v_left);",
            "p.credits := CASE v_before WHEN 0 THEN v_due ELSE 0 END;",
        )],
    },
    Mutant {
        name: "the difference that a late cost makes has no row in the ledger",
        breaks: &[CHARGED],
        changes: &[(
            JOBS,
            "IF p.credits <> 0 THEN\n        PERFORM post_transaction(",
            "IF false THEN\n        PERFORM post_transaction(",
        )],
    },
    Mutant {
        name: "a late cost releases the job's reservation again",
        breaks: &[POSSIBLE_ANSWER, ACCOUNT, TRUE_ONCE],
        changes: &[(
            JOBS,
            "p_job.job_id, '{}', 0, p_call_id, p_settlement);",
            "p_job.job_id, '{}', 1, p_call_id, p_settlement);",
        )],
    },
    Mutant {
        name: "a late cost is charged after it was said that the charge is final",
        breaks: &[CHARGE_FINAL],
        changes: &[(JOBS, "    RETURN NOT EXISTS (\n", "    RETURN true OR EXISTS (\n")],
    },
    Mutant {
        name: "a cost that LiteLLM did not tell is not asked for again",
        breaks: &[LATE_COST],
        changes: &[(CALLS, "WHERE cost_check_at <= now() AND NOT (", "WHERE false AND NOT (")],
    },
    Mutant {
        name: "what was delivered is not charged",
        breaks: &[DUE],
        changes: &[(JOBS, "OR (t.charge_when = 'delivered' AND j.delivered)", "")],
    },
    Mutant {
        name: "a job whose calls were all refused is charged",
        breaks: &[DUE],
        changes: &[(JOBS, "AND (j.refused_calls = 0 OR j.refused_calls < j.total_calls)", "")],
    },
    Mutant {
        name: "a refused call counts as failed",
        breaks: &[SUMS, COMPLETION_CALLS],
        changes: &[(
            CALLS,
            "failed_calls = failed_calls + (v_ends AND p_status = 'failed')::integer,",
            "failed_calls = failed_calls + (v_ends AND p_status IN ('failed', 'refused'))::integer,",
        )],
    },
    Mutant {
        name: "a refused call has failed",
        breaks: &[CALL_END],
        changes: &[(
            CALLS,
            "    v_ends := v_old.status = 'open';\n",
            "    v_ends := v_old.status = 'open';\n    p_status := replace(p_status, 'refused', 'failed');\n",
        )],
    },
    Mutant {
        name: "the calls of a job are limited by what the job was before it was locked",
        breaks: &[LIMIT_HOLDS],
        changes: &[
            (CALLS, "    v_ended jobs;\n", "    v_ended jobs;\n    v_was jobs;\n"),
            (
                CALLS,
                "    UPDATE jobs\n    SET status = 'in_progress',",
                "    SELECT * INTO v_was FROM jobs WHERE job_id = p_job_id;
                 UPDATE jobs\n    SET status = 'in_progress',",
            ),
            (CALLS, "IF v_job.total_calls > v_most_calls", "IF v_was.total_calls + 1 > v_most_calls"),
            (CALLS, "ELSIF v_job.open_calls > v_most_open", "ELSIF v_was.open_calls + 1 > v_most_open"),
        ],
    },
    Mutant {
        name: "any number of jobs may be open",
        breaks: &[LIMIT_HOLDS],
        changes: &[(JOBS, "ELSIF v_account.held >= v_account.most_jobs THEN", "ELSIF false THEN")],
    },
    Mutant {
        name: "what a call is expected to cost is never given back",
        breaks: &[SUMS, EXPECTED, LIMIT_REACHED],
        changes: &[(
            CALLS,
            "expected_cost_usd = expected_cost_usd - CASE WHEN p_final THEN v_old.expected_cost_usd ELSE 0 END,",
            "expected_cost_usd = expected_cost_usd,",
        )],
    },
    Mutant {
        name: "what is settled is booked on the day on which the job was opened",
        breaks: &[MODELS_OF_DAY, USAGE_OF_DAY],
        changes: &[(
            CALLS,
            "v_today date := today();",
            "v_today date := (SELECT (created_at AT TIME ZONE 'UTC')::date FROM jobs WHERE job_id = p.job_id);",
        )],
    },
    Mutant {
        name: "a job that ended is booked on the day on which it was opened",
        breaks: &[USAGE_OF_DAY],
        changes: &[(
            COUNTS,
            "VALUES (p_team_id, today(), p_job_type, (p_status = 'completed')::integer,",
            "VALUES (p_team_id, (SELECT min(day) FROM usage_days
                                 WHERE team_id = p_team_id AND job_type = p_job_type AND opened_jobs > 0),
                     p_job_type, (p_status = 'completed')::integer,",
        )],
    },
    Mutant {
        name: "usage that is not final is counted",
        breaks: &[USAGE],
        changes: &[(
            CALLS,
            "CASE WHEN p_final THEN v_tokens ELSE 0 END - CASE WHEN v_old.settled",
            "v_tokens - CASE WHEN v_old.settled",
        )],
    },
    Mutant {
        name: "a refund does not lock the job",
        breaks: &[REFUND_BOUND, CHARGED],
        changes: &[(
            JOBS,
            "SELECT * INTO v_job FROM jobs WHERE job_id = p_job_id AND team_id = p_team_id FOR NO KEY UPDATE;",
            "SELECT * INTO v_job FROM jobs WHERE job_id = p_job_id AND team_id = p_team_id;",
        )],
    },
    Mutant {
        name: "more is refunded than was charged",
        breaks: &[REFUND_BOUND],
        changes: &[(
            JOBS,
            "IF v_credits = 0 OR v_credits > v_charged - v_refunded THEN",
            "IF v_credits = 0 THEN",
        )],
    },
    Mutant {
        name: "a refund goes by what the job was charged when it ended",
        breaks: &[REFUND_REFUSED, REFUND_BOUND],
        changes: &[(
            JOBS,
            "v_charged := charged_credits(v_job);\n    v_refunded",
            "v_charged := (v_job.completion #>> '{costs,credits_charged}')::bigint;\n    v_refunded",
        )],
    },
    Mutant {
        name: "a suspended team is refilled",
        breaks: &[REFILL_SUSPENDED],
        changes: &[(
            REFILLS,
            "CASE WHEN v_suspended THEN 0 ELSE refill_change(v_account) END",
            "refill_change(v_account)",
        )],
    },
    Mutant {
        name: "a refill adds more than its cap allows",
        breaks: &[LEDGER_ROW],
        changes: &[(REFILLS, "WHEN a.refill_cap IS NULL THEN", "WHEN a.refill_mode = 'add' THEN")],
    },
];

/// Mistakes that only faults show.
const IN_STORMS: [Mutant; 1] = [Mutant {
    name: "a statement that is sent again is another one",
    breaks: &[JOB_ONCE, CALL_NUMBER],
    changes: &[(FOUNDATIONS, "        RETURN p_id;\n", "        RETURN uuid_v7();\n")],
}];

/// Drives a mutant until somebody has noticed, and says who.
async fn caught(
    mutant: &Mutant,
    world: Result<World>,
    weather: Weather,
) -> Result<(String, Duration), String> {
    let began = Instant::now();
    let failed = |error: anyhow::Error| format!("{}: {error:#}", mutant.name);
    let options = Options { seed: 7, clients: CLIENTS };
    let mut soak = Soak::new(world.map_err(failed)?, options).await.map_err(failed)?;
    let mut broken = BTreeMap::new();
    while began.elapsed() < PATIENCE {
        let judged = soak.round(weather).await.map_err(failed)?;
        broken.extend(judged.violations.into_iter().map(|violation| (violation.rule, violation.seen)));
        if let Some(rule) = mutant.breaks.iter().find(|rule| broken.contains_key(*rule)) {
            let more = broken.len() - 1;
            let more = if more == 0 { String::new() } else { format!(" (and {more} more)") };
            return Ok((format!("{rule}{more}"), began.elapsed()));
        }
    }
    Err(format!("{}: survived, but for {broken:#?}", mutant.name))
}

/// Runs the mutants whose names contain `$MUTANT`, or one of several such words with `|` between them, and prints what
/// noticed them.
async fn all_are_caught(
    mutants: &'static [Mutant],
    run: impl AsyncFn(&'static Mutant) -> Result<(String, Duration), String>,
) {
    let began = Instant::now();
    let only = std::env::var("MUTANT").unwrap_or_default();
    let mutants = mutants.iter().filter(|mutant| only.split('|').any(|only| mutant.name.contains(only)));
    let runs = futures::stream::iter(mutants).map(async |mutant| (mutant, run(mutant).await));
    let outcomes: Vec<_> = runs.buffer_unordered(AT_ONCE).collect().await;
    let mut survived = vec![];
    println!("| mutant | caught by | after |\n| --- | --- | --- |");
    for (mutant, outcome) in outcomes {
        match outcome {
            Ok((rule, after)) => println!("| {} | {rule} | {} s |", mutant.name, after.as_secs()),
            Err(error) => survived.push(error),
        }
    }
    println!("{} s in all", began.elapsed().as_secs());
    assert!(survived.is_empty(), "{survived:#?}");
}

#[test]
fn no_mutant_is_stale() {
    let stale: Vec<String> = MUTANTS
        .iter()
        .chain(&IN_STORMS)
        .filter_map(|mutant| mutant.schema().err().map(|error| format!("{error:#}")))
        .collect();
    assert!(stale.is_empty(), "{stale:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mutant_is_caught() {
    all_are_caught(&MUTANTS, async |mutant| {
        let weather = Weather { calm: ROUND, impatient: true, ..Weather::default() };
        caught(mutant, World::start(Some(mutant)).await, weather).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a storm has to hit the right moment, which takes minutes"]
async fn every_mutant_that_only_faults_show_is_caught() {
    all_are_caught(&IN_STORMS, async |mutant| {
        let weather = Weather { storm: 5 * ROUND, ..Weather::default() };
        caught(mutant, World::start_shaky(Some(mutant)).await, weather).await
    })
    .await;
}
