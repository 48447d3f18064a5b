//! Creating a team in two halves, with LiteLLM's part in between, and telling LiteLLM what it is to know.

use futures::future::join_all;
use serde_json::{Value, json};
use sql_tests::{Expect, World};
use uuid::Uuid;

const BUSY: &str = "Team 'new' is being created by another request";

async fn begin(world: &World, lease_seconds: i32) -> (Uuid, Value) {
    let attempt = Uuid::now_v7();
    (attempt, world.begin_team(attempt, lease_seconds, &World::spec("new", json!({}))).await.done())
}

#[tokio::test]
async fn a_team_is_invisible_until_it_is_activated() {
    let world = World::new().await;
    let (attempt, begun) = begin(&world, 60).await;
    assert_eq!(
        (
            &begun["resumed"],
            &begun["litellm"]["models"],
            &begun["litellm"]["max_budget"],
            &begun["litellm"]["version"]
        ),
        (&json!(false), &json!(["first", "second"]), &json!(100), &json!(1)),
    );
    for function in ["get_team", "get_balance"] {
        let answer = world.call(&format!("SELECT {function}('new')::text"), &[]).await;
        answer.refused("LJ006", "Team 'new' not found");
    }
    assert_eq!(
        world.call("SELECT list_teams(10, 0)::text", &[]).await.done(),
        json!({"total": 0, "teams": []})
    );

    let team = world.activate_team(attempt, "new", 1, 7).await.done();
    assert_eq!((&team["status"], &team["credits"]["credits_remaining"]), (&json!("active"), &json!(7)));
    assert_eq!(world.call("SELECT get_team('new')::text", &[]).await.done()["credits"], team["credits"]);
    let ledger = world.call("SELECT list_transactions('new', 10, 0, NULL)::text", &[]).await.done();
    let first = &ledger["transactions"][0];
    assert_eq!(
        (&ledger["total"], &first["transaction_type"], &first["balance_before"], &first["balance_after"]),
        (&json!(1), &json!("allocation"), &json!(0), &json!(7)),
    );
    world.check_invariants().await;
}

#[tokio::test]
async fn the_same_attempt_activates_twice_with_one_effect_and_the_same_answer() {
    let world = World::new().await;
    let (attempt, _) = begin(&world, 60).await;
    let first = world.activate_team(attempt, "new", 1, 7).await.done();
    let second = world.activate_team(attempt, "new", 1, 7).await.done();
    assert_eq!(first, second);
    assert_eq!(world.text("SELECT count(*) FROM virtual_keys").await, "1");
    assert_eq!(world.text("SELECT count(*) FROM credit_transactions").await, "1");
    world.check_invariants().await;
}

#[tokio::test]
async fn a_team_without_credits_begins_with_an_empty_ledger() {
    let world = World::new().await;
    let (attempt, _) = begin(&world, 60).await;
    world.activate_team(attempt, "new", 1, 0).await.done();
    assert_eq!(world.text("SELECT count(*) FROM credit_transactions").await, "0");
    world.check_invariants().await;
}

#[tokio::test]
async fn while_an_attempt_holds_its_lease_no_other_takes_over() {
    let world = World::new().await;
    let (attempt, begun) = begin(&world, 60).await;
    let spec = World::spec("new", json!({}));
    world.begin_team(Uuid::now_v7(), 60, &spec).await.refused("LJ009", BUSY);
    world.activate_team(Uuid::now_v7(), "new", 1, 7).await.refused("LJ009", BUSY);
    assert_eq!(world.abandon_team(Uuid::now_v7(), "new", true).await.done(), json!(false));
    assert_eq!(
        world.text("SELECT litellm_marker FROM teams").await,
        begun["marker"].as_str().expect("a marker")
    );
    world.activate_team(attempt, "new", 1, 7).await.done();
}

#[tokio::test]
async fn after_the_lease_another_attempt_takes_over_with_the_same_marker_and_its_own_specification() {
    let world = World::new().await;
    let (first, begun) = begin(&world, 0).await;
    let spec = World::spec("new", json!({"model_groups": ["Vision"], "budget_mode": "soft"}));
    let second = Uuid::now_v7();
    let resumed = world.begin_team(second, 60, &spec).await.done();
    assert_eq!((&resumed["resumed"], &resumed["marker"]), (&json!(true), &begun["marker"]));
    assert_eq!(resumed["litellm"]["models"], json!(["fourth"]));

    world.activate_team(first, "new", 1, 7).await.refused("LJ009", BUSY);
    assert_eq!(world.abandon_team(first, "new", true).await.done(), json!(false), "the first lost it");
    let team = world.activate_team(second, "new", 2, 9).await.done();
    assert_eq!((&team["model_groups"], &team["budget_mode"]), (&json!(["Vision"]), &json!("soft")));
    world.activate_team(first, "new", 1, 7).await.refused("LJ009", BUSY);
    assert_eq!(
        world.abandon_team(second, "new", true).await.done(),
        json!(false),
        "an active team is not abandoned"
    );
    assert_eq!(team["credits"]["credits_allocated"], json!(9));
    world.check_invariants().await;
}

#[tokio::test]
async fn an_abandoned_attempt_never_was_or_may_be_taken_over_at_once() {
    let world = World::new().await;
    let (clean, begun) = begin(&world, 60).await;
    assert_eq!(world.abandon_team(clean, "new", true).await.done(), json!(true));
    assert_eq!(world.text("SELECT count(*) FROM teams").await, "0");
    assert_eq!(world.text("SELECT count(*) FROM credit_accounts").await, "0");
    assert_eq!(world.abandon_team(clean, "new", true).await.done(), json!(false));

    let (unclean, again) = begin(&world, 60).await;
    assert_eq!(again["resumed"], json!(false));
    assert_ne!(again["marker"], begun["marker"]);
    assert_eq!(world.abandon_team(unclean, "new", false).await.done(), json!(true));
    let (last, resumed) = begin(&world, 60).await;
    assert_eq!((&resumed["resumed"], &resumed["marker"]), (&json!(true), &again["marker"]));
    world.activate_team(last, "new", 1, 1).await.done();
    world.check_invariants().await;
}

#[tokio::test]
async fn of_many_attempts_at_once_one_creates_the_team() {
    let world = World::new().await;
    for lease in [60, 0] {
        // With a lease of 0 there is a stuck attempt that each of them wants to take over.
        if lease == 0 {
            begin(&world, 0).await;
        }
        let sessions = join_all((0..12).map(|_| world.session())).await;
        let spec = World::spec("new", json!({}));
        let begun =
            join_all(sessions.iter().map(|session| session.begin_team(Uuid::now_v7(), 60, &spec))).await;
        let (won, lost): (Vec<_>, Vec<_>) = begun.into_iter().partition(Result::is_ok);
        assert_eq!((won.len(), lost.len()), (1, 11));
        for answer in lost {
            answer.refused("LJ009", BUSY);
        }
        world.run("DELETE FROM teams").await.done();
    }
    world.check_invariants().await;
}

#[tokio::test]
async fn each_change_that_litellm_is_to_know_of_is_a_new_version() {
    let world = World::new().await;
    let team = world.team_with(10, json!({"max_budget": null})).await;
    let versions = "SELECT litellm_version || ' ' || litellm_synced_version FROM teams";
    assert_eq!(world.text(versions).await, "2 2", "activating is telling, with what the credits are worth");

    let added = world.add_credits(&team.id, 5).await.done();
    assert_eq!((&added["litellm"]["version"], &added["litellm"]["max_budget"]), (&json!(3), &json!(1.5)));
    let groups = world.set_team_model_groups(&team.id, &["Code"]).await.done();
    assert_eq!(
        (&groups["litellm"]["version"], &groups["litellm"]["models"]),
        (&json!(4), &json!(["second", "third"]))
    );
    let suspended = world.set_team_status(&team.id, "suspended").await.done();
    assert_eq!(
        (&suspended["litellm"]["version"], &suspended["litellm"]["blocked"]),
        (&json!(5), &json!(true))
    );
    assert_eq!(world.text(versions).await, "5 2");
    world.check_invariants().await;
}

#[tokio::test]
async fn whoever_tells_litellm_learns_whether_there_is_something_newer_in_whatever_order() {
    let world = World::new().await;
    let team = world.team_with(10, json!({"max_budget": null})).await;
    world.add_credits(&team.id, 1).await.done();
    world.add_credits(&team.id, 1).await.done();
    for (told, synced) in [(3, "3"), (4, "4"), (3, "4"), (4, "4")] {
        assert_eq!(world.litellm_synced(&team.id, told).await.done(), json!(4), "the newest version");
        assert_eq!(
            world.text("SELECT litellm_synced_version FROM teams").await,
            synced,
            "it never goes back"
        );
    }
}
