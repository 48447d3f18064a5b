//! A request with an `Idempotency-Key` takes effect once, whoever repeats it and when; and what the admin changes is
//! written down if and only if it is changed.

use futures::future::join_all;
use serde_json::{Value, json};
use sql_tests::{Answer, Expect, Session, Team, World};
use std::time::Duration;
use tokio::time::{sleep, timeout};
use tokio_postgres::types::Json;

const MISMATCH: &str = "Idempotency-Key: it was used with another request";
const UNDER_WAY: &str = "Idempotency-Key: the request with this key is still under way";

/// A change by the admin under a key that is 32 times this byte, with a digest that is 32 times the other.
fn request(key: u8, digest: u8) -> Value {
    let hex = |byte: u8| format!("{byte:02x}").repeat(32);
    json!({"caller": "admin", "request_id": "some-request", "action": "POST /api/change", "path": "/api/change?a=b",
           "body": {"change": 1}, "key": hex(key), "digest": hex(digest)})
}

/// The statement as the components send it: claims, changes and keeps.
async fn change(session: &Session, request: &Value, call: &str) -> Answer {
    let statement = format!(
        "WITH claimed AS MATERIALIZED (SELECT claim($1) AS kept)
         SELECT json_build_object('replayed', kept IS NOT NULL, 'answer',
         CASE WHEN kept IS NULL THEN keep($1, {call}) ELSE kept END)::text
         FROM claimed"
    );
    session.call(&statement, &[&Json(request)]).await
}

/// The first half of a change that takes more than one statement.
async fn claim(session: &Session, request: &Value, seconds: i32) -> Answer {
    let statement = "WITH claimed AS MATERIALIZED (SELECT claim($1) AS kept),
            leased AS MATERIALIZED (
                SELECT lease($1, json_build_object('deadline', now() + make_interval(secs => $2::integer)))
                FROM claimed WHERE kept IS NULL)
        SELECT kept::text FROM claimed LEFT JOIN leased ON true";
    session.call(statement, &[&Json(request), &seconds]).await
}

/// Adds one credit to a team.
fn one_more(team: &Team) -> String {
    format!("add_credits('{}', 1, NULL, '{{}}', 0.10)", team.id)
}

async fn count(world: &World, table: &str) -> String {
    world.text(&format!("SELECT count(*) FROM {table}")).await
}

/// Lets so much time pass for every key.
async fn later(world: &World, interval: &str) {
    let statement = format!(
        "UPDATE idempotency_keys SET created_at = created_at - interval '{interval}', \
         claimed_until = claimed_until - interval '{interval}'"
    );
    world.run(&statement).await.done();
}

#[tokio::test]
async fn the_same_request_again_gets_the_first_answer_and_has_no_effect() {
    let world = World::new().await;
    let team = world.team(5).await;
    let first = change(&world, &request(1, 1), &one_more(&team)).await.done();
    assert_eq!(
        (&first["replayed"], &first["answer"]["added"]["credits_remaining"]),
        (&json!(false), &json!(6))
    );
    for _ in 0..2 {
        later(&world, "23 hours 50 minutes").await;
        let again = change(&world, &request(1, 1), &one_more(&team)).await.done();
        assert_eq!((&again["replayed"], &again["answer"]), (&json!(true), &first["answer"]));
        world.run("UPDATE idempotency_keys SET created_at = now()").await.done();
    }
    assert_eq!(world.account(&team).await, (6, 0, 0));
    world.check_invariants().await;
}

#[tokio::test]
async fn another_key_or_another_caller_is_another_request_and_so_is_one_without_a_key() {
    let world = World::new().await;
    let team = world.team(0).await;
    let (mut caller, mut keyless) = (request(1, 1), request(1, 1));
    caller["caller"] = json!("team:other");
    keyless.as_object_mut().unwrap().remove("key");
    for request in [request(1, 1), request(2, 1), caller, keyless.clone(), keyless] {
        assert_eq!(change(&world, &request, &one_more(&team)).await.done()["replayed"], json!(false));
    }
    assert_eq!(world.account(&team).await, (5, 0, 0));
    assert_eq!(count(&world, "idempotency_keys").await, "3");
    world.check_invariants().await;
}

#[tokio::test]
async fn another_request_under_the_same_key_is_refused_for_a_day() {
    let world = World::new().await;
    let team = world.team(0).await;
    change(&world, &request(1, 1), &one_more(&team)).await.done();
    change(&world, &request(1, 2), &one_more(&team)).await.refused("LJ012", MISMATCH);
    claim(&world, &request(2, 1), 60).await.done();
    claim(&world, &request(2, 2), 60).await.refused("LJ012", MISMATCH);
    assert_eq!(world.account(&team).await, (1, 0, 0));

    later(&world, "24 hours 1 second").await;
    for key in [1, 2] {
        let answer = change(&world, &request(key, 2), &one_more(&team)).await.done();
        assert_eq!(answer["replayed"], json!(false));
        change(&world, &request(key, 1), &one_more(&team)).await.refused("LJ012", MISMATCH);
    }
    assert_eq!(world.account(&team).await, (3, 0, 0));
    world.check_invariants().await;
}

#[tokio::test]
async fn while_a_request_of_several_statements_is_under_way_a_twin_is_refused_and_afterwards_gets_its_answer()
{
    let world = World::new().await;
    assert_eq!(claim(&world, &request(1, 1), 60).await.done(), Value::Null);
    claim(&world, &request(1, 1), 60).await.refused("LJ013", UNDER_WAY);
    world.call("SELECT keep($1, '{\"kept\": 1}')::text", &[&Json(request(1, 1))]).await.done();
    assert_eq!(claim(&world, &request(1, 1), 60).await.done(), json!({"kept": 1}));
}

#[tokio::test]
async fn a_request_that_died_half_way_is_taken_over_after_its_lease_by_one_of_its_twins() {
    let world = World::new().await;
    let sessions = join_all((0..10).map(|_| world.session())).await;
    claim(&world, &request(1, 1), 60).await.done();
    later(&world, "61 seconds").await;
    let request = request(1, 1);
    let answers = join_all(sessions.iter().map(|session| claim(session, &request, 60))).await;
    let (took_over, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!((took_over, refused.len()), (vec![Ok(Value::Null)], 9));
    for answer in refused {
        answer.refused("LJ013", UNDER_WAY);
    }
}

#[tokio::test]
async fn a_released_request_begins_anew_and_an_answer_is_never_released() {
    let world = World::new().await;
    let release = async || world.call("SELECT release($1)::text", &[&Json(request(1, 1))]).await.done();
    claim(&world, &request(1, 1), 60).await.done();
    release().await;
    assert_eq!(claim(&world, &request(1, 2), 60).await.done(), Value::Null, "also with another request");
    world.call("SELECT keep($1, '1')::text", &[&Json(request(1, 2))]).await.done();
    release().await;
    assert_eq!(claim(&world, &request(1, 2), 60).await.done(), json!(1));
}

#[tokio::test]
async fn the_outcome_of_a_call_is_kept_with_its_settling_or_its_request_is_released() {
    let world = World::new().await;
    let statement = "SELECT to_json(finish($1, $2, '{\"first\": true}'))::text";
    claim(&world, &request(1, 1), 60).await.done();
    world.call(statement, &[&Json(request(1, 1)), &None::<&str>]).await.done();
    assert_eq!(claim(&world, &request(1, 1), 60).await.done(), Value::Null);
    world.call(statement, &[&Json(request(1, 1)), &"sealed"]).await.done();
    let kept = claim(&world, &request(1, 1), 60).await.done();
    assert_eq!(kept, json!({"answer": {"first": true}, "sealed": "sealed"}));
}

#[tokio::test]
async fn of_two_twins_one_waits_and_gets_the_others_answer_or_goes_on_when_the_other_fails() {
    let world = World::new().await;
    let first = world.session().await;
    for (key, end) in [(1, "COMMIT"), (2, "ROLLBACK")] {
        let team = world.team(0).await;
        first.run("BEGIN").await.done();
        let answer = change(&first, &request(key, 1), &one_more(&team)).await.done();
        let (again, ()) =
            tokio::join!(async { change(&world, &request(key, 1), &one_more(&team)).await }, async {
                sleep(Duration::from_millis(100)).await;
                first.run(end).await.done();
            });
        let again = again.done();
        assert_eq!(again["replayed"], json!(end == "COMMIT"), "{end}");
        assert_eq!(again["answer"] == answer["answer"], end == "COMMIT", "{end}");
        assert_eq!(world.account(&team).await, (1, 0, 0), "{end}: the effect is there once");
    }
    assert_eq!(count(&world, "audit_log").await, "2");
    world.check_invariants().await;
}

#[tokio::test]
async fn of_many_twins_at_once_one_takes_effect_and_all_get_its_answer() {
    let world = World::new().await;
    let team = world.team(0).await;
    let sessions = join_all((0..20).map(|_| world.session())).await;
    for round in 0..10 {
        let (request, call) = (request(round, 1), one_more(&team));
        let answers = join_all(sessions.iter().map(|session| change(session, &request, &call))).await;
        let answers: Vec<Value> = answers.into_iter().map(Expect::done).collect();
        assert_eq!(answers.iter().filter(|answer| answer["replayed"] == json!(false)).count(), 1);
        assert!(answers.iter().all(|answer| answer["answer"] == answers[0]["answer"]), "{answers:?}");
    }
    assert_eq!(world.account(&team).await, (10, 0, 0));
    world.check_invariants().await;
}

#[tokio::test]
async fn of_two_twins_that_wait_for_a_release_one_takes_effect() {
    let world = World::new().await;
    let team = world.team(0).await;
    let (releasing, early, late) = (world.session().await, world.session().await, world.session().await);
    let (request, call) = (request(1, 1), one_more(&team));
    // Whoever looks at the claim before its release waits for the row, who comes after it for the key.
    claim(&world, &request, 60).await.done();
    releasing.run("BEGIN").await.done();
    releasing.run("SELECT FROM idempotency_keys FOR UPDATE").await.done();
    let (first, second, ()) = tokio::join!(
        change(&early, &request, &call),
        async {
            sleep(Duration::from_millis(150)).await;
            change(&late, &request, &call).await
        },
        async {
            sleep(Duration::from_millis(75)).await;
            releasing.call("SELECT release($1)::text", &[&Json(&request)]).await.done();
            sleep(Duration::from_millis(150)).await;
            releasing.run("COMMIT").await.done();
        },
    );
    let (first, second) = (first.done(), second.done());
    assert_eq!(first["answer"], second["answer"]);
    assert_ne!(first["replayed"], second["replayed"]);
    assert_eq!(world.account(&team).await, (1, 0, 0));
    world.check_invariants().await;
}

#[tokio::test]
async fn a_refused_request_keeps_and_writes_nothing_and_may_be_repeated() {
    let world = World::new().await;
    let team = world.team(0).await;
    let take = format!("adjust_credits('{}', -1, 'because', '{{}}', 0.10)", team.id);
    for _ in 0..2 {
        let refused = change(&world, &request(1, 1), &take).await;
        refused.refused("LJ005", "Insufficient credits. Required: 1, Available: 0");
        assert_eq!(
            (count(&world, "idempotency_keys").await.as_str(), count(&world, "audit_log").await.as_str()),
            ("0", "0")
        );
    }
    world.add_credits(&team.id, 1).await.done();
    assert_eq!(change(&world, &request(1, 1), &take).await.done()["replayed"], json!(false));
    assert_eq!(world.account(&team).await, (0, 0, 0));
    world.check_invariants().await;
}

#[tokio::test]
async fn what_the_admin_changes_is_written_down_once_and_what_a_team_changes_is_not() {
    let world = World::new().await;
    let team = world.team(0).await;
    let (mut keyless, mut by_team) = (request(2, 1), request(3, 1));
    keyless.as_object_mut().unwrap().remove("key");
    by_team.as_object_mut().unwrap().remove("action");
    for request in [request(1, 1), request(1, 1), keyless, by_team] {
        change(&world, &request, &one_more(&team)).await.done();
    }
    change(&world, &request(4, 1), "get_balance('nowhere')")
        .await
        .refused("LJ006", "Team 'nowhere' not found");
    // A read that only looks like a change.
    world.get_balance(&team.id).await.done();

    let log = world.call("SELECT list_audit_log(10, NULL)::text", &[]).await.done();
    let entries = log["entries"].as_array().expect("entries");
    assert_eq!((entries.len(), &log["next_cursor"]), (2, &Value::Null), "{log}");
    for entry in entries {
        assert_eq!(
            (&entry["actor"], &entry["action"], &entry["path"], &entry["body"], &entry["request_id"]),
            (
                &json!("admin"),
                &json!("POST /api/change"),
                &json!("/api/change?a=b"),
                &json!({"change": 1}),
                &json!("some-request")
            ),
        );
    }
    let newest = world.call("SELECT list_audit_log(1, NULL)::text", &[]).await.done();
    assert_eq!(newest["entries"], json!([entries[0]]));
    let next = newest["next_cursor"].as_i64().expect("more");
    let older = world.call("SELECT list_audit_log(1, $1)::text", &[&next]).await.done();
    assert_eq!(older["entries"], json!([entries[1]]));
}

#[tokio::test]
async fn keys_of_more_than_a_day_ago_are_cleared_away_by_those_that_follow() {
    let world = World::new().await;
    for key in 0..25 {
        claim(&world, &request(key, 1), 60).await.done();
        world.call("SELECT keep($1, '1')::text", &[&Json(request(key, 1))]).await.done();
    }
    later(&world, "23 hours").await;
    claim(&world, &request(100, 1), 60).await.done();
    assert_eq!(count(&world, "idempotency_keys").await, "26");
    later(&world, "61 minutes").await;
    for (key, left) in [(101, "17"), (102, "8"), (103, "4"), (104, "5")] {
        claim(&world, &request(key, 1), 60).await.done();
        assert_eq!(count(&world, "idempotency_keys").await, left);
    }
}

#[tokio::test]
async fn clearing_away_does_not_wait_for_an_old_key_that_is_in_use() {
    let world = World::new().await;
    claim(&world, &request(1, 1), 60).await.done();
    later(&world, "25 hours").await;
    let using = world.session().await;
    using.run("BEGIN").await.done();
    assert_eq!(claim(&using, &request(1, 2), 60).await.done(), Value::Null);
    let other = request(2, 1);
    timeout(Duration::from_secs(60), claim(&world, &other, 60)).await.expect("it does not wait").done();
    using.run("COMMIT").await.done();
    assert_eq!(count(&world, "idempotency_keys").await, "2");
}

/// A statement that is cut off in the middle, as when a node dies.
#[tokio::test]
async fn a_statement_that_is_cut_off_leaves_neither_its_claim_nor_its_change() {
    let world = World::new().await;
    let team = world.team(0).await;
    let session = world.session().await;
    let pid = session.text("pg_backend_pid()").await;
    let holding = world.session().await;
    holding.run("BEGIN").await.done();
    holding.run("SELECT FROM credit_accounts FOR UPDATE").await.done();
    let (request, call) = (request(1, 1), one_more(&team));
    let cut_off = timeout(Duration::from_millis(100), change(&session, &request, &call)).await;
    assert!(cut_off.is_err(), "it waits for the account: {cut_off:?}");
    world.run(&format!("SELECT pg_terminate_backend({pid}, 5000)")).await.done();
    holding.run("COMMIT").await.done();
    assert_eq!(
        (count(&world, "idempotency_keys").await.as_str(), count(&world, "audit_log").await.as_str()),
        ("0", "0")
    );
    assert_eq!(change(&world, &request, &call).await.done()["replayed"], json!(false));
    assert_eq!(world.account(&team).await, (1, 0, 0));
    world.check_invariants().await;
}
