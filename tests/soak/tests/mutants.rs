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
const ONE_DEDUCTION: &str = "a job has one deduction if it was charged, and none otherwise";
const CHARGED_RIGHTLY: &str = "a job is charged if and only if it was completed and no call of it had failed";
const CONSUMPTION: &str =
    "a job has cost the credits that its terms say of what was known when it was completed";
const USAGE: &str = "usage by the day equals a recount of jobs, calls and ledger";

const TABLES: &str = "tables/0001_first.sql";
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

const MUTANTS: [Mutant; 28] = [
    Mutant {
        name: "opening a job does not lock the account",
        breaks: &[POSSIBLE_ANSWER, CREDIT_FOR_JOB],
        changes: &[(
            JOBS,
            "FROM credit_accounts WHERE team_id = v_team_id FOR NO KEY UPDATE;",
            "FROM credit_accounts WHERE team_id = v_team_id;",
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
            (JOBS, "IF v_available - 1 < v_floor THEN", "IF v_floor = 0 AND v_available - 1 < v_floor THEN"),
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
        changes: &[(UPKEEP, "SET held = held - cardinality(v_expired_jobs),", "SET held = held,")],
    },
    Mutant {
        name: "a job past its deadline takes calls",
        breaks: &[TOO_LATE],
        changes: &[(CALLS, " AND expires_at > now();", ";")],
    },
    Mutant {
        name: "a job that has ended takes calls",
        breaks: &[POSSIBLE_ANSWER, ONE_END, JOB_ENDS_ONCE],
        changes: &[(
            CALLS,
            " AND status IN ('pending', 'in_progress') AND expires_at > now();\n",
            " AND expires_at > now();\n",
        )],
    },
    Mutant {
        name: "a call is opened by what the job was before it was locked",
        breaks: &[POSSIBLE_ANSWER, ONE_END, JOB_ENDS_ONCE, COMPLETION_CALLS],
        changes: &[(
            CALLS,
            "WHERE job_id = p_job_id AND team_id = v_team_id AND status IN ('pending', 'in_progress') AND \
             expires_at > now();\n",
            "WHERE job_id = p_job_id AND team_id = v_team_id\n      AND (SELECT j.status IN ('pending', \
             'in_progress') AND j.expires_at > now() FROM jobs j WHERE j.job_id = p_job_id);\n",
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
        breaks: &[ACCOUNT, ONE_DEDUCTION],
        changes: &[
            (
                JOBS,
                "ELSIF v_job.status = p_status THEN",
                "ELSIF v_job.status = p_status AND v_job.completion IS NULL THEN",
            ),
            (JOBS, STATUS_CHECK, "ELSIF v_job.expires_at <= now() THEN"),
            (TABLES, "CREATE UNIQUE INDEX one_deduction_per_job", "CREATE INDEX one_deduction_per_job"),
            (TABLES, "    CONSTRAINT held_not_negative CHECK (held >= 0),\n", ""),
        ],
    },
    Mutant {
        name: "a job is charged although a call failed",
        breaks: &[CHARGED_RIGHTLY],
        changes: &[(
            JOBS,
            "IF p_status = 'completed' AND v_job.failed_calls = 0 THEN",
            "IF p_status = 'completed' THEN",
        )],
    },
    Mutant {
        name: "consumption is rounded down",
        breaks: &[CONSUMPTION],
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
            " AND c.call_id = p_call_id AND c.settled_at IS NULL\n",
            " AND c.call_id = p_call_id\n",
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
            "priced_calls = priced_calls + p.priced, tokens = tokens + p.tokens,",
            "priced_calls = priced_calls + p.priced,",
        )],
    },
    Mutant {
        name: "a call that its job's end has cancelled is not counted in the usage",
        breaks: &[USAGE],
        changes: &[(JOBS, "coalesce(cardinality(v_cancelled_groups), 0));", "0);")],
    },
    Mutant {
        name: "an abandoned call is not counted in the usage",
        breaks: &[USAGE],
        changes: &[(COUNTS, ", calls = u.calls + ended.calls\n", "\n")],
    },
    Mutant {
        name: "an overdue call is never abandoned",
        breaks: &[ABANDONED],
        changes: &[(
            UPKEEP,
            "WHERE team_id = p_team_id AND status = 'open' AND deadline <= now() AND job_id >= \
             v_oldest\n        FOR UPDATE",
            "WHERE team_id = p_team_id AND status = 'open' AND false AND job_id >= v_oldest\n        FOR UPDATE",
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
            "PERFORM post_transaction(p_team_id, 'refill', \
             v_account.refill_amount,\n                                 format('Automatic %s refill', \
              v_account.refill_period),\n                                 NULL, json_build_object('due', \
               rfc3339(v_account.refill_due)));",
            "UPDATE credit_accounts SET allocated = allocated + v_account.refill_amount WHERE team_id = p_team_id;",
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
                "overdraft = CASE WHEN p_type = 'adjustment' AND p_change < 0 THEN overdraft ELSE greatest",
                "overdraft = CASE WHEN false THEN overdraft ELSE greatest",
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

/// Runs the mutants whose names contain `$MUTANT`, and prints what noticed them.
async fn all_are_caught(
    mutants: &'static [Mutant],
    run: impl AsyncFn(&'static Mutant) -> Result<(String, Duration), String>,
) {
    let began = Instant::now();
    let only = std::env::var("MUTANT").unwrap_or_default();
    let mutants = mutants.iter().filter(|mutant| mutant.name.contains(&only));
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
