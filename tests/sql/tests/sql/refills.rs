//! Automatic refills: once for each period, up to a cap or to an amount, and not while a team is suspended.

use serde_json::json;
use sql_tests::{Expect, Team, World};

/// Uses up so many credits.
async fn use_up(world: &World, team: &Team, credits: usize) {
    for _ in 0..credits {
        let job = world.job(team).await;
        world.complete_job(team.key, job, "completed", &json!({})).await.done();
    }
}

async fn periods_pass(world: &World, team: &Team, number: i64) {
    world.periods_pass(team, number).await.done();
    world.sweep_team(&team.id).await.done();
}

/// The refills in the ledger, in order: `refill 3, expiry -2`.
async fn refills(world: &World, team: &Team) -> String {
    world
        .text(&format!(
            "SELECT string_agg(transaction_type || ' ' || change, ', ' ORDER BY entry) FROM credit_transactions
             WHERE team_id = '{}' AND transaction_type IN ('refill', 'expiry')",
            team.id
        ))
        .await
}

async fn remaining(world: &World, team: &Team) -> i64 {
    let (allocated, used, _) = world.account(team).await;
    allocated - used
}

#[tokio::test]
async fn a_refill_adds_its_amount_once_for_each_period() {
    let world = World::new().await;
    let team = world.team(1).await;
    world.configure_refill(&team.id, true, 3, "daily", "add", None).await.done();
    for (periods, balance) in [(0, 1), (1, 4), (0, 4), (3, 13)] {
        periods_pass(&world, &team, periods).await;
        assert_eq!(remaining(&world, &team).await, balance);
    }
    assert_eq!(refills(&world, &team).await, "refill 3, refill 3, refill 3, refill 3");
    world.check_invariants().await;
}

#[tokio::test]
async fn a_refill_adds_no_more_than_up_to_the_cap() {
    let world = World::new().await;
    let team = world.team(2).await;
    world.configure_refill(&team.id, true, 5, "weekly", "add", Some(9)).await.done();
    periods_pass(&world, &team, 5).await;
    assert_eq!(
        refills(&world, &team).await,
        "refill 5, refill 2",
        "there is no row of a refill that adds nothing"
    );
    use_up(&world, &team, 1).await;
    periods_pass(&world, &team, 1).await;
    assert_eq!(remaining(&world, &team).await, 9);
    world.add_credits(&team.id, 10).await.done();
    periods_pass(&world, &team, 2).await;
    assert_eq!(remaining(&world, &team).await, 19, "what is above the cap stays");
    assert_eq!(refills(&world, &team).await, "refill 5, refill 2, refill 1");
    world.check_invariants().await;
}

#[tokio::test]
async fn a_reset_makes_its_amount_the_remaining_from_below_and_from_above() {
    let world = World::new().await;
    let team = world.team(12).await;
    world.configure_refill(&team.id, true, 5, "monthly", "reset_to", None).await.done();
    periods_pass(&world, &team, 1).await;
    assert_eq!((remaining(&world, &team).await, refills(&world, &team).await.as_str()), (5, "expiry -7"));
    periods_pass(&world, &team, 3).await;
    assert_eq!(refills(&world, &team).await, "expiry -7", "it is what it is to be");
    use_up(&world, &team, 4).await;
    periods_pass(&world, &team, 1).await;
    assert_eq!(
        (remaining(&world, &team).await, refills(&world, &team).await.as_str()),
        (5, "expiry -7, refill 4")
    );
    assert_eq!(world.account(&team).await, (9, 4, 0), "what is used stays used");
    world.check_invariants().await;
}

#[tokio::test]
async fn a_reset_covers_an_overdraft_and_takes_also_what_open_jobs_hold() {
    let world = World::new().await;
    let team =
        world.team_with(1, json!({"billing_mode": "consumption_tokens", "tokens_per_credit": 10})).await;
    let job = world.job(&team).await;
    let call = world.opened_call(&team, job).await;
    world.settle_call(call, "succeeded", 80, None, true).await.done();
    world.complete_job(team.key, job, "completed", &json!({})).await.done();
    assert_eq!(remaining(&world, &team).await, -7);
    world.configure_refill(&team.id, true, 4, "daily", "reset_to", None).await.done();
    periods_pass(&world, &team, 1).await;
    assert_eq!(refills(&world, &team).await, "refill 11");

    for _ in 0..4 {
        world.job(&team).await;
    }
    world.configure_refill(&team.id, true, 1, "daily", "reset_to", None).await.done();
    periods_pass(&world, &team, 1).await;
    assert_eq!((remaining(&world, &team).await, world.account(&team).await.2), (1, 4));
    let refused = world.create_job(team.key, &team.id, 60).await;
    refused.refused("LJ005", "Insufficient credits. Required: 1, Available: -3");
    world.check_invariants().await;
}

#[tokio::test]
async fn refills_that_fall_due_while_a_team_is_suspended_are_skipped() {
    let world = World::new().await;
    for (mode, before, after) in [("add", 2, 2), ("reset_to", 2, -3)] {
        let team = world.team(5).await;
        world.configure_refill(&team.id, true, 2, "daily", mode, None).await.done();
        world.periods_pass(&team, 1).await.done();
        world.set_team_status(&team.id, "suspended").await.done();
        let expected = if mode == "add" { 5 + before } else { 2 };
        assert_eq!(remaining(&world, &team).await, expected, "{mode}: what was due before");
        periods_pass(&world, &team, 3).await;
        world.add_credits(&team.id, 3).await.done();
        world.periods_pass(&team, 1).await.done();
        assert_eq!(remaining(&world, &team).await, expected + 3, "{mode}");
        world.set_team_status(&team.id, "active").await.done();
        world.sweep_team(&team.id).await.done();
        assert_eq!(remaining(&world, &team).await, expected + 3, "{mode}: they are not made up for");
        periods_pass(&world, &team, 1).await;
        assert_eq!(remaining(&world, &team).await, expected + 3 + after, "{mode}");
    }
    world.check_invariants().await;
}

#[tokio::test]
async fn of_many_that_notice_a_due_refill_at_once_one_makes_it() {
    let world = World::new().await;
    let crowd = world.crowd().await;
    for (mode, balance) in [("add", 5 + 3 * 7), ("reset_to", 7)] {
        let team = world.team(5).await;
        world.configure_refill(&team.id, true, 7, "daily", mode, None).await.done();
        world.periods_pass(&team, 3).await.done();
        let answers = crowd.at_once(48, async |session, _| session.get_balance(&team.id).await).await;
        for answer in answers {
            assert_eq!(answer.done()["credits_remaining"], json!(balance), "{mode}");
        }
    }
    world.check_invariants().await;
}

#[tokio::test]
async fn configuring_answers_and_the_balance_shows_how_a_team_is_refilled() {
    let world = World::new().await;
    let team = world.team(5).await;
    let members = ["refill_amount", "refill_period", "refill_mode", "refill_cap"];
    for (mode, cap) in [("add", Some(9)), ("reset_to", None), ("add", None)] {
        let configured = world.configure_refill(&team.id, true, 3, "weekly", mode, cap).await.done();
        let balance = world.get_balance(&team.id).await.done();
        for answer in [configured, balance] {
            let shown = members.map(|member| answer[member].clone());
            assert_eq!(shown, [json!(3), json!("weekly"), json!(mode), json!(cap)], "{answer}");
        }
    }
    world.check_invariants().await;
}
