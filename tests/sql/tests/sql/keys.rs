//! Keys are made in two halves, with LiteLLM's part in between; they are replaced with or without a grace, and revoked
//! at once.

use serde_json::{Value, json};
use sql_tests::{Answer, Expect, Team, World, id};
use uuid::Uuid;

async fn begin(world: &World, team: &str, key: Uuid, replaced: Option<Uuid>) -> Answer {
    let statement = "SELECT begin_key($1, $2, NULL, $3, $4, 60)::text";
    world.call(statement, &[&team, &key, &replaced.is_some(), &replaced]).await
}

async fn activate(world: &World, key: Uuid, grace_seconds: i32, replaced: Option<Uuid>) -> Answer {
    let hash = [key.as_bytes().as_slice(); 2].concat();
    world
        .call("SELECT activate_key($1, $2, 'hint', $3, $4)::text", &[&key, &hash, &replaced, &grace_seconds])
        .await
}

/// What whoever shows a key is taken for.
async fn found(world: &World, key: Uuid) -> Value {
    world
        .call(
            "SELECT coalesce(lookup_key(key_hash), 'null')::text FROM virtual_keys WHERE key_id = $1",
            &[&key],
        )
        .await
        .done()
}

async fn open_and_cancel_a_job(world: &World, team: &Team, key: Uuid) -> Answer {
    let job = id(&world.create_job(key, &team.id, 60).await?, "job_id");
    world.complete_job(key, job, "cancelled", &json!({})).await
}

#[tokio::test]
async fn a_replaced_key_works_until_its_grace_has_passed_and_the_new_one_from_then_on_alone() {
    let world = World::new().await;
    let team = world.team(1).await;
    for (grace, works) in [(0, false), (100, true)] {
        let newest = world.text(&format!("SELECT newest_key('{}')", team.id)).await.parse().expect("a key");
        let new = Uuid::now_v7();
        let begun = begin(&world, &team.id, new, Some(newest)).await.done();
        assert_eq!(begun["replaced"], json!(newest));
        assert!(open_and_cancel_a_job(&world, &team, newest).await.is_ok(), "nothing is replaced yet");

        let told = activate(&world, new, grace, Some(newest)).await.done()["litellm"].take();
        let count = |of: &str| told[of].as_array().map_or(0, Vec::len);
        assert_eq!((count("keys"), count("revoked")), (if works { 2 } else { 1 }, 1), "{told}");
        assert!(open_and_cancel_a_job(&world, &team, new).await.is_ok());
        assert_eq!(open_and_cancel_a_job(&world, &team, newest).await.is_ok(), works);
        let seconds = found(&world, newest).await["seconds_left"].as_i64();
        assert!(
            if works { (90..=100).contains(&seconds.unwrap()) } else { seconds.is_none() },
            "{seconds:?}"
        );
        assert_eq!(found(&world, new).await["seconds_left"], Value::Null);

        world.run("UPDATE virtual_keys SET revoked_at = now() WHERE revoked_at > now()").await.done();
        open_and_cancel_a_job(&world, &team, newest).await.refused("LJ001", "Invalid API key");
        assert_eq!(found(&world, newest).await, Value::Null);
    }
    world.check_invariants().await;
}

#[tokio::test]
async fn a_key_takes_only_the_place_of_one_of_its_team_that_is_not_replaced() {
    let world = World::new().await;
    let (team, other) = (world.team(1).await, world.team(1).await);
    let replaced = team.key;
    world.rotate_key(&team.id, replaced, 100).await.done();
    for key in [replaced, other.key, Uuid::now_v7()] {
        begin(&world, &team.id, Uuid::now_v7(), Some(key))
            .await
            .refused("LJ006", &format!("Key '{key}' not found"));
    }
    begin(&world, "nowhere", Uuid::now_v7(), None).await.refused("LJ006", "Team 'nowhere' not found");
}

#[tokio::test]
async fn a_revoked_key_stops_at_once_and_revoking_it_again_only_has_litellm_told_again() {
    let world = World::new().await;
    let (team, other) = (world.team(1).await, world.team(1).await);
    let key = world.rotate_key(&team.id, team.key, 100).await.done();
    let key: Uuid = key.as_str().expect("an id").parse().expect("a UUID");
    let expected = format!("Key '{key}' not found");
    world.revoke_key(&other.id, key).await.refused("LJ006", &expected);

    let mut before = None;
    for version in [3, 4] {
        let revoked = world.revoke_key(&team.id, key).await.done();
        assert_eq!(
            (&revoked["litellm"]["version"], &revoked["key"]["hint"]),
            (&json!(version), &json!("hint"))
        );
        assert_eq!(revoked["litellm"]["revoked"].as_array().map(Vec::len), Some(1), "{revoked}");
        let first = before.get_or_insert_with(|| revoked["key"]["revoked_at"].clone());
        assert_eq!(*first, revoked["key"]["revoked_at"]);
        open_and_cancel_a_job(&world, &team, key).await.refused("LJ001", "Invalid API key");
    }
    assert!(open_and_cancel_a_job(&world, &team, team.key).await.is_ok(), "the one before has its grace");

    // Once LiteLLM is known to have deleted it, it is not told again.
    let told = "SELECT litellm_synced($1, 4, ARRAY(SELECT encode(key_hash, 'hex') FROM virtual_keys \
                WHERE key_id = $2))::text";
    world.call(told, &[&team.id, &key]).await.done();
    let wanted = world.call("SELECT litellm_desired_team($1)::text", &[&team.id]).await.done();
    assert_eq!((&wanted["revoked"], wanted["keys"].as_array().map(Vec::len)), (&json!([]), Some(1)));
}

#[tokio::test]
async fn a_key_that_was_never_finished_is_a_leftover_after_two_minutes_and_then_forgotten() {
    let world = World::new().await;
    let team = world.team(1).await;
    let stuck = Uuid::now_v7();
    begin(&world, &team.id, stuck, None).await.done();
    assert_eq!(begin(&world, &team.id, Uuid::now_v7(), None).await.done()["leftovers"], json!([]));
    world
        .run(&format!(
            "UPDATE virtual_keys SET created_at = now() - interval '121 seconds' WHERE key_id = '{stuck}'"
        ))
        .await
        .done();

    let begun = begin(&world, &team.id, Uuid::now_v7(), None).await.done();
    let alias = format!("{}-{stuck}", team.id);
    assert_eq!(begun["leftovers"], json!([alias]));
    world.call("SELECT forget_keys($1)::text", &[&vec![alias.as_str()]]).await.done();
    activate(&world, stuck, 0, None)
        .await
        .refused("LJ009", "The key is being cleared away by another request");
    let listed = world.call("SELECT list_keys($1)::text", &[&team.id]).await.done();
    assert_eq!(listed["keys"].as_array().map(Vec::len), Some(1), "only what is finished is shown: {listed}");

    // A key that works is not forgotten, whatever its name there.
    world.call("SELECT forget_keys(ARRAY(SELECT litellm_alias FROM virtual_keys))::text", &[]).await.done();
    assert!(open_and_cancel_a_job(&world, &team, team.key).await.is_ok());
}

#[tokio::test]
async fn a_key_that_was_begun_before_its_team_was_deleted_is_not_activated() {
    let world = World::new().await;
    let team = world.team(1).await;
    let key = Uuid::now_v7();
    begin(&world, &team.id, key, None).await.done();
    let deleted = world.delete_team(&team.id).await.done();
    assert_eq!(deleted["key_hashes"].as_array().map(Vec::len), Some(1));
    activate(&world, key, 0, None).await.refused("LJ006", &format!("Team '{}' not found", team.id));
    begin(&world, &team.id, Uuid::now_v7(), None)
        .await
        .refused("LJ006", &format!("Team '{}' not found", team.id));
    world.check_invariants().await;
}

#[tokio::test]
async fn deleting_a_team_cancels_what_is_open_and_may_be_repeated_until_litellm_is_told() {
    let world = World::new().await;
    let team = world.team(5).await;
    world.configure_auto_refill(&team.id, true, 9, "daily").await.done();
    let (open, started, overdue) = (world.job(&team).await, world.job(&team).await, world.job(&team).await);
    let call = world.opened_call(&team, started).await;
    world.job_is_overdue(overdue).await;

    let first = world.delete_team(&team.id).await.done();
    assert_eq!(world.delete_team(&team.id).await.done(), first);
    for (job, status) in [(open, "cancelled"), (started, "cancelled"), (overdue, "expired")] {
        assert_eq!(world.job_status(job).await, status);
    }
    assert_eq!(
        (world.call_status(call).await.as_str(), world.account(&team).await),
        ("cancelled", (5, 0, 0))
    );
    // What was under way is still settled; no refill comes any more.
    assert_eq!(world.settle_call(call, "succeeded", 9, Some("0.5"), true).await.done(), json!(true));
    world.periods_pass(&team, 3).await.done();
    world.call("SELECT expire_jobs()::text", &[]).await.done();
    assert_eq!(world.account(&team).await, (5, 0, 0));

    let version = first["version"].as_i64().expect("a version");
    assert_eq!(world.litellm_synced(&team.id, version).await.done(), json!(version));
    world.delete_team(&team.id).await.refused("LJ006", &format!("Team '{}' not found", team.id));
    // It can be read.
    assert_eq!(world.get_balance(&team.id).await.done()["credits_remaining"], json!(5));
    for answer in [
        world.add_credits(&team.id, 1).await,
        world.update_team(&team.id, &json!({})).await,
        world.create_job(team.key, &team.id, 60).await,
    ] {
        assert!(["LJ001", "LJ006"].contains(&answer.expect_err("it is gone").sqlstate.as_str()));
    }
    let again = world.begin_team(Uuid::now_v7(), 60, &World::spec(&team.id, json!({}))).await;
    again.refused("LJ007", &format!("Team '{}' already exists", team.id));
    world.check_invariants().await;
}
