//! Somebody else holds PostgreSQL's locks, or a statement takes too long there.

use crate::asking::{ask, assert_unavailable, call, complete, create_job};
use api_tests::eventually;
use faults::Application;
use futures::future::join_all;
use reqwest::Method;
use std::sync::atomic::{AtomicUsize, Ordering};

#[tokio::test]
async fn what_is_locked_for_long_is_a_503_and_other_teams_notice_nothing() {
    let app = Application::start().await;
    let (team, other) = (app.team(100).await, app.team(100).await);
    let (job, others_job) = (team.job().await, other.job().await);
    other.balance().await;
    let somebody = app.database.connect().await;
    let lock = format!("BEGIN; SELECT FROM credit_accounts WHERE team_id = '{}' FOR UPDATE", team.id);
    somebody.batch_execute(&lock).await.expect("locked");

    let requests = (0..20).flat_map(|_| [create_job(&team, None), complete(&team, &job, None)]);
    let waiting = AtomicUsize::new(0);
    let waiters = join_all(requests.map(async |request| {
        waiting.fetch_add(1, Ordering::SeqCst);
        let answer = ask(request).await;
        waiting.fetch_sub(1, Ordering::SeqCst);
        answer
    }));
    let working = async {
        let stuck = "SELECT count(*) FROM pg_stat_activity
                     WHERE datname = current_database() AND wait_event_type = 'Lock'";
        eventually("requests that wait for the lock", async || (app.number(stuck).await > 0).then_some(()))
            .await;
        let all = waiting.load(Ordering::SeqCst);
        other.job().await;
        ask(call(&other, &others_job, "hello", None)).await.expect("an answer").ok();
        other.complete(&others_job, "completed").await.ok();
        assert_eq!((all, waiting.load(Ordering::SeqCst)), (40, 40), "the other team was answered after them");
    };
    let (refused, ()) = tokio::join!(waiters, working);
    for answer in refused {
        assert_unavailable(&answer.expect("an answer"), "locked");
    }

    somebody.batch_execute("ROLLBACK").await.expect("unlocked");
    assert_eq!(team.complete(&job, "completed").await.ok()["costs"]["credits_remaining"], 99);
    assert_eq!(team.balance().await["credits_reserved"], 0);
    app.recovers().await;
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_ended_and_a_503() {
    let app = Application::start().await;
    let team = app.team(5).await;
    let database = app.database.connect().await;
    let slow = "ALTER FUNCTION get_balance(text) RENAME TO kept;
                CREATE FUNCTION get_balance(p_team_id text) RETURNS json LANGUAGE sql
                AS $$ SELECT kept(p_team_id) FROM pg_sleep(60) $$";
    database.batch_execute(slow).await.expect("made slow");
    let path = format!("/api/credits/teams/{}/balance", team.id);
    assert_unavailable(&ask(team.client.request(Method::GET, &path)).await.expect("an answer"), "too slow");
    let running =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
    assert_eq!(app.number(running).await, 0, "it goes on in the server");
    let fast = "DROP FUNCTION get_balance(text); ALTER FUNCTION kept(text) RENAME TO get_balance";
    database.batch_execute(fast).await.expect("made fast");
    team.client.get(&path).await.ok();
    app.recovers().await;
}
