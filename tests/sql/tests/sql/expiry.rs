//! Jobs past their deadline expire and give their credit back, also while somebody completes them.

use futures::future::join_all;
use serde_json::json;
use sql_tests::{Expect, World};
use std::time::Duration;
use tokio::time::{sleep, timeout};

#[tokio::test]
async fn sweeping_ends_what_is_overdue_and_nothing_else_and_sweeping_again_changes_nothing() {
    let world = World::new().await;
    let (team, other) = (world.team(5).await, world.team(5).await);
    let (due, started, fresh) = (world.job(&team).await, world.job(&team).await, world.job(&team).await);
    let (late, early) = (world.opened_call(&team, started).await, world.opened_call(&team, fresh).await);
    let elsewhere = world.job(&other).await;
    for job in [due, started, elsewhere] {
        world.job_is_overdue(job).await;
    }
    world.call_is_overdue(late).await;

    let rows =
        "SELECT json_agg(j ORDER BY job_id)::text || (SELECT json_agg(c ORDER BY call_id) FROM calls c)::text
                || (SELECT json_agg(a ORDER BY team_id) FROM credit_accounts a)::text FROM jobs j";
    world.sweep_team(&team.id).await.done();
    let swept = world.text(rows).await;
    for _ in 0..3 {
        world.sweep_team(&team.id).await.done();
        assert_eq!(world.text(rows).await, swept);
    }
    for (job, status) in
        [(due, "expired"), (started, "expired"), (fresh, "in_progress"), (elsewhere, "pending")]
    {
        assert_eq!(world.job_status(job).await, status);
    }
    for (call, status) in [(late, "abandoned"), (early, "open")] {
        assert_eq!(world.call_status(call).await, status);
    }
    assert_eq!((world.account(&team).await, world.account(&other).await), ((5, 0, 1), (5, 0, 1)));
    let ended_at_its_deadline = format!("SELECT completed_at = expires_at FROM jobs WHERE job_id = '{due}'");
    assert_eq!(world.text(&ended_at_its_deadline).await, "true");
    world.check_invariants().await;
}

#[tokio::test]
async fn whatever_shows_or_uses_a_teams_credits_sweeps_first() {
    for statement in [
        "SELECT get_balance($1)::text",
        "SELECT check_credits('admin', $1, 1)::text",
        "SELECT get_team($1)::text",
        "SELECT list_jobs($1, NULL, NULL, NULL, 10, 0, NULL)::text",
        "SELECT create_job('key:' || key_id, $1, NULL, 'test', '{}', 60)::text FROM virtual_keys",
        "SELECT get_job(job_id, 'team:' || $1)::text FROM jobs",
        "SELECT get_job(job_id, 'admin')::text FROM jobs WHERE team_id = $1",
    ] {
        let world = World::new().await;
        let team = world.team(1).await;
        let job = world.job(&team).await;
        world.job_is_overdue(job).await;
        world.call(statement, &[&team.id]).await.done();
        assert_eq!(world.job_status(job).await, "expired", "{statement}");
        world.check_invariants().await;
    }
}

#[tokio::test]
async fn an_expired_jobs_credit_is_free_for_the_next_job() {
    let world = World::new().await;
    let team = world.team(1).await;
    for _ in 0..3 {
        let job = world.job(&team).await;
        assert_eq!(world.create_job(team.key, &team.id, 60).await.expect_err("held").sqlstate, "LJ005");
        world.job_is_overdue(job).await;
    }
    world.job(&team).await;
    assert_eq!(world.account(&team).await, (1, 0, 1));
}

#[tokio::test]
async fn a_sweep_waits_for_a_job_that_is_being_completed_and_does_not_expire_it() {
    let world = World::new().await;
    let team = world.team(1).await;
    let job = world.job(&team).await;
    let completing = world.session().await;
    completing.run("BEGIN").await.done();
    // In that transaction's time the deadline is still to come, in the sweep's it has passed.
    world.run(&format!("UPDATE jobs SET expires_at = clock_timestamp() WHERE job_id = '{job}'")).await.done();
    let completed = completing.complete_job(team.key, job, "completed", &json!({})).await.done();

    let (swept, ()) = tokio::join!(world.sweep_team(&team.id), async {
        sleep(Duration::from_millis(100)).await;
        completing.run("COMMIT").await.done();
    });
    swept.done();
    assert_eq!(completed["costs"]["credit_applied"], json!(true));
    assert_eq!((world.job_status(job).await.as_str(), world.account(&team).await), ("completed", (1, 1, 0)));
    world.check_invariants().await;
}

#[tokio::test]
async fn a_sweep_does_not_wait_for_a_call_that_is_being_settled_nor_abandons_it() {
    let world = World::new().await;
    let team = world.team(2).await;
    // In two jobs, since the second open call of a job changes the account, for which a sweep does wait.
    let (job, other) = (world.job(&team).await, world.job(&team).await);
    let (settled, lost) = (world.opened_call(&team, job).await, world.opened_call(&team, other).await);
    world.call_is_overdue(settled).await;
    let settling = world.session().await;
    settling.run("BEGIN").await.done();
    settling.settle_call(settled, "succeeded", 5, None, true).await.done();

    timeout(Duration::from_secs(60), world.sweep_team(&team.id)).await.expect("it does not wait").done();
    settling.run("COMMIT").await.done();
    world.call_is_overdue(lost).await;
    world.sweep_team(&team.id).await.done();
    assert_eq!(world.call_status(settled).await, "succeeded");
    assert_eq!(world.call_status(lost).await, "abandoned");
    world.check_invariants().await;
}

#[tokio::test]
async fn completing_a_job_that_is_just_being_expired_waits_and_is_told_that_it_is_over() {
    let world = World::new().await;
    let team = world.team(1).await;
    let job = world.job(&team).await;
    world.job_is_overdue(job).await;
    let sweeping = world.session().await;
    sweeping.run("BEGIN").await.done();
    sweeping.sweep_team(&team.id).await.done();

    let metadata = json!({});
    let complete = world.complete_job(team.key, job, "completed", &metadata);
    let commit = async {
        sleep(Duration::from_millis(100)).await;
        sweeping.run("COMMIT").await.done();
    };
    let (answer, ()) = tokio::join!(complete, commit);
    answer.refused("LJ008", &format!("Job '{job}' is already expired"));
    assert_eq!(world.account(&team).await, (1, 0, 0));
    world.check_invariants().await;
}

#[tokio::test]
async fn the_same_completion_while_the_first_is_not_yet_through_gets_its_answer() {
    let world = World::new().await;
    let team = world.team(1).await;
    let job = world.job(&team).await;
    let first = world.session().await;
    first.run("BEGIN").await.done();
    let completed = first.complete_job(team.key, job, "completed", &json!({})).await.done();
    let metadata = json!({});
    let again = world.complete_job(team.key, job, "completed", &metadata);
    let (again, ()) = tokio::join!(again, async {
        sleep(Duration::from_millis(100)).await;
        first.run("COMMIT").await.done();
    });
    assert_eq!(again.done(), completed);
    assert_eq!(world.account(&team).await, (1, 1, 0));
    world.check_invariants().await;
}

#[tokio::test]
async fn a_job_completed_at_its_deadline_is_either_charged_or_expired() {
    let world = World::new().await;
    let team = world.team(40).await;
    let sessions = join_all((0..8).map(|_| world.session())).await;
    let (mut charged, mut expired) = (0, 0);
    for round in 0..40 {
        let job = world.job(&team).await;
        let soon = format!(
            "UPDATE jobs SET expires_at = clock_timestamp() + interval '{} ms' WHERE job_id = '{job}'",
            round % 10
        );
        world.run(&soon).await.done();
        let answers = join_all(sessions.iter().enumerate().map(async |(index, session)| {
            let mut completions = vec![];
            for _ in 0..4 {
                if index % 2 == 0 {
                    completions.push(session.complete_job(team.key, job, "completed", &json!({})).await);
                } else {
                    session.sweep_team(&team.id).await.done();
                }
            }
            completions
        }))
        .await;

        world.job_is_overdue(job).await;
        world.sweep_team(&team.id).await.done();
        let completions: Vec<_> = answers.into_iter().flatten().collect();
        let first = completions.iter().find_map(|answer| answer.clone().ok());
        match (first, world.job_status(job).await.as_str()) {
            (Some(first), "completed") => {
                assert!(completions.iter().all(|answer| *answer == Ok(first.clone())), "{completions:?}");
                charged += 1;
            }
            (None, "expired") => {
                for answer in completions {
                    answer.refused("LJ008", &format!("Job '{job}' is already expired"));
                }
                expired += 1;
            }
            (first, status) => panic!("{status}, and somebody was told {first:?}"),
        }
        assert_eq!(world.account(&team).await, (40, charged, 0));
    }
    assert_eq!(charged + expired, 40);
    world.check_invariants().await;
}
