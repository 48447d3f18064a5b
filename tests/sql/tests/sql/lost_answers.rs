//! Statements that are sent again because their answer got lost: the same request under the same ids changes nothing
//! the second time.

use serde_json::{Value, json};
use sql_tests::{Answer, Expect, Session, Team, World, actor};
use uuid::Uuid;

async fn create(session: &Session, team: &Team, job: Uuid) -> Answer {
    let statement = "SELECT create_job($1, $2, NULL, 'test', '{}', 3600, $3)::text";
    session.call(statement, &[&actor(team.key), &team.id, &job]).await
}

async fn open(session: &Session, team: &Team, job: Uuid, call: Uuid) -> Answer {
    let statement = "SELECT begin_call($1, $2, NULL, NULL, false, '{}', 60, 5, $3)::text";
    session.call(statement, &[&actor(team.key), &job, &call]).await
}

async fn open_with_job(session: &Session, team: &Team, job: Uuid, call: Uuid) -> Answer {
    let statement = "SELECT begin_job_with_call($1, NULL, NULL, 'test', '{}', 3600, NULL, NULL, true, '{}', 60, 5, $2, \
                     $3)::text";
    session.call(statement, &[&actor(team.key), &job, &call]).await
}

fn now() -> Uuid {
    Uuid::now_v7()
}

#[tokio::test]
async fn a_job_created_again_under_its_id_is_the_same_job_with_one_hold() {
    let world = World::new().await;
    let team = world.team(1).await;
    let job = now();
    let first = create(&world, &team, job).await.done();
    assert_eq!(first["job_id"], json!(job));
    assert_eq!(create(&world, &team, job).await.done(), first, "although no credit is left for another");
    assert_eq!(world.account(&team).await, (1, 0, 1));
    create(&world, &team, now()).await.refused("LJ005", "Insufficient credits. Required: 1, Available: 0");
    world.check_invariants().await;
}

#[tokio::test]
async fn a_call_opened_again_under_its_id_is_the_same_call() {
    let world = World::new().await;
    let team = world.team(1).await;
    let (job, call) = (world.job(&team).await, now());
    let first = open(&world, &team, job, call).await.done();
    assert_eq!(first["call_id"], json!(call));
    let again = open(&world, &team, job, call).await.done();
    assert_eq!((&again["call_id"], &again["models"]), (&first["call_id"], &first["models"]));
    assert_eq!(world.text("SELECT count(*) FROM calls").await, "1");
    assert_eq!(world.text("SELECT total_calls FROM jobs").await, "1");
    world.check_invariants().await;
}

#[tokio::test]
async fn of_two_that_open_a_job_with_a_call_under_the_same_ids_at_once_one_does() {
    let world = World::new().await;
    let team = world.team(5).await;
    let (one, other) = (world.session().await, world.session().await);
    for _ in 0..20 {
        let (job, call) = (now(), now());
        let (first, second) =
            tokio::join!(open_with_job(&one, &team, job, call), open_with_job(&other, &team, job, call));
        for opened in [first.done(), second.done()] {
            assert_eq!((&opened["job_id"], &opened["call_id"]), (&json!(job), &json!(call)));
        }
        assert_eq!(world.account(&team).await.2, 1);
        world.settle_call(call, "failed", 0, None, true).await.done();
        world.complete_job(team.key, job, "failed", &json!({})).await.done();
    }
    assert_eq!(world.text("SELECT count(*) FROM calls").await, "20");
    world.check_invariants().await;
}

#[tokio::test]
async fn an_id_by_a_clock_that_is_far_off_is_not_taken() {
    let world = World::new().await;
    let team = world.team(2).await;
    for offset in ["-1 day", "6 minutes"] {
        let id = format!("uuid_v7_floor(now() + interval '{offset}')");
        let job: Value = world
            .call(
                &format!("SELECT create_job($1, $2, NULL, 'test', '{{}}', 3600, {id})::text"),
                &[&actor(team.key), &team.id],
            )
            .await
            .done();
        let made_now = format!(
            "SELECT '{}' BETWEEN uuid_v7_floor(now() - interval '1 minute') AND uuid_v7_floor(now() + interval '1 s')",
            job["job_id"].as_str().expect("an id")
        );
        assert_eq!(world.text(&made_now).await, "true");
        assert_ne!(job["job_id"], json!(world.text(&format!("SELECT {id}")).await));
    }
    world.check_invariants().await;
}

#[tokio::test]
async fn a_claim_is_its_attempts_to_go_on_with_and_to_end() {
    let world = World::new().await;
    let request = |attempt: u128| {
        json!({"caller": "team:a", "request_id": "r", "key": "ab", "digest": "cd",
            "attempt": Uuid::from_u128(attempt)})
        .to_string()
    };
    let claim = async |attempt| {
        let statement = "WITH claimed AS MATERIALIZED (SELECT claim($1::text::json) AS kept),
                leased AS MATERIALIZED (
                    SELECT lease($1::text::json, json_build_object('deadline', now() + interval '1 hour'))
                    FROM claimed WHERE kept IS NULL)
            SELECT kept::text FROM claimed LEFT JOIN leased ON true";
        world.call(statement, &[&request(attempt)]).await
    };
    let under_way = "Idempotency-Key: the request with this key is still under way";
    claim(1).await.done();
    claim(2).await.refused("LJ013", under_way);
    assert_eq!(claim(1).await.done(), Value::Null, "the same request sends its statement again");

    world.run("UPDATE idempotency_keys SET claimed_until = now()").await.done();
    assert_eq!(claim(2).await.done(), Value::Null, "the first has taken too long");
    for end in ["keep($1::text::json, '1')", "json_build_array(release($1::text::json))"] {
        world.call(&format!("SELECT {end}::text"), &[&request(1)]).await.done();
        claim(3).await.refused("LJ013", under_way);
    }
    world.call("SELECT keep($1::text::json, '2')::text", &[&request(2)]).await.done();
    assert_eq!(claim(3).await.done(), json!(2));
}
