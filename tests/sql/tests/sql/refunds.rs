//! A refund gives back what a job was charged, and never more.

use serde_json::json;
use sql_tests::{Answer, Expect, Team, World};
use uuid::Uuid;

/// A job that was charged so many credits.
async fn charged_job(world: &World, team: &Team, credits: i64) -> Uuid {
    let job = world.job(team).await;
    let call = world.opened_call(team, job).await;
    world.settle_call(call, "succeeded", credits * 100, None, true).await.done();
    world.complete_job(team.key, job, "completed", &json!({})).await.done();
    job
}

async fn by_tokens(world: &World, credits: i64) -> Team {
    world.team_with(credits, json!({"billing_mode": "consumption_tokens", "tokens_per_credit": 100})).await
}

#[tokio::test]
async fn a_refund_lowers_what_is_used_and_is_a_row_of_the_job() {
    let world = World::new().await;
    let team = by_tokens(&world, 20).await;
    let job = charged_job(&world, &team, 10).await;
    let refund = world.refund_credits(&team.id, job, Some(4)).await.done();
    assert_eq!(
        (
            &refund["credits_refunded"],
            &refund["credits_remaining"],
            &refund["transaction"]["transaction_type"]
        ),
        (&json!(4), &json!(14), &json!("refund"))
    );
    assert_eq!(world.account(&team).await, (20, 6, 0));
    let rest = world.refund_credits(&team.id, job, None).await.done();
    assert_eq!(rest["credits_refunded"], json!(6));
    assert_eq!(world.account(&team).await, (20, 0, 0));
    assert_eq!(world.ledger(job).await, "deduction -10, refund 4, refund 6");
    let read = world.get_job(job).await.done()["job"].take();
    assert_eq!(
        (&read["credit_applied"], &read["credits_charged"], &read["credits_refunded"]),
        (&json!(true), &json!(10), &json!(10))
    );
    world.check_invariants().await;
}

#[tokio::test]
async fn refunds_at_once_are_together_no_more_than_the_charge() {
    let world = World::new().await;
    let team = by_tokens(&world, 50).await;
    let crowd = world.crowd().await;
    for (credits, each, passes) in [(10, Some(1), 10), (10, Some(3), 3), (7, None, 1)] {
        let job = charged_job(&world, &team, credits).await;
        let answers =
            crowd.at_once(60, async |session, _| session.refund_credits(&team.id, job, each).await).await;
        let (done, refused): (Vec<Answer>, Vec<Answer>) = answers.into_iter().partition(Result::is_ok);
        assert_eq!(done.len(), passes);
        let refunded = passes as i64 * each.unwrap_or(credits);
        for answer in refused {
            answer.refused(
                "LJ017",
                &format!("credits: the job was charged {credits} credits, {refunded} of which are refunded"),
            );
        }
    }
    assert_eq!(world.account(&team).await, (50, 1, 0));
    world.check_invariants().await;
}

#[tokio::test]
async fn refunds_and_late_costs_at_once_are_all_booked() {
    let world = World::new().await;
    let team = by_tokens(&world, 90).await;
    let job = world.job(&team).await;
    let mut calls = vec![];
    for _ in 0..30 {
        calls.push(world.opened_call(&team, job).await);
    }
    world.complete_job(team.key, job, "completed", &json!({})).await.done();
    let crowd = world.crowd().await;
    let answers = crowd
        .at_once(60, async |session, number| {
            if number % 2 == 0 {
                session.settle_call(calls[number / 2], "succeeded", 200, None, true).await
            } else {
                session.refund_credits(&team.id, job, Some(1)).await
            }
        })
        .await;
    let refunds = answers.iter().flatten().filter(|answer| answer["credits_refunded"] == json!(1)).count();
    assert!(refunds > 0);
    assert_eq!(world.account(&team).await, (90, 60 - refunds as i64, 0));
    world.check_invariants().await;
}

#[tokio::test]
async fn what_was_not_charged_or_is_of_another_team_is_not_refunded() {
    let world = World::new().await;
    let (team, other) = (by_tokens(&world, 20).await, by_tokens(&world, 20).await);
    let free = world.job(&team).await;
    let nothing = "credits: the job was charged 0 credits, 0 of which are refunded";
    for credits in [None, Some(1)] {
        world.refund_credits(&team.id, free, credits).await.refused("LJ017", nothing);
    }
    world.complete_job(team.key, free, "failed", &json!({})).await.done();
    world.refund_credits(&team.id, free, None).await.refused("LJ017", nothing);
    let job = charged_job(&world, &team, 2).await;
    world
        .refund_credits(&team.id, job, Some(3))
        .await
        .refused("LJ017", "credits: the job was charged 2 credits, 0 of which are refunded");
    for (team, job) in [(&other.id, job), (&team.id, Uuid::now_v7())] {
        world.refund_credits(team, job, None).await.refused("LJ006", "Job not found");
    }
    world.refund_credits("x", job, None).await.refused("LJ006", "Team 'x' not found");
    assert_eq!(world.account(&team).await, (20, 2, 0));
    world.check_invariants().await;
}

#[tokio::test]
async fn a_late_cost_after_a_refund_is_charged_all_the_same() {
    let world = World::new().await;
    let team = by_tokens(&world, 20).await;
    let job = world.job(&team).await;
    let (early, late) = (world.opened_call(&team, job).await, world.opened_call(&team, job).await);
    world.settle_call(early, "succeeded", 300, None, true).await.done();
    world.complete_job(team.key, job, "completed", &json!({})).await.done();
    world.refund_credits(&team.id, job, None).await.done();
    world.settle_call(late, "succeeded", 200, None, true).await.done();
    assert_eq!(world.ledger(job).await, "deduction -3, refund 3, deduction -2");
    world.refund_credits(&team.id, job, None).await.done();
    world
        .refund_credits(&team.id, job, Some(1))
        .await
        .refused("LJ017", "credits: the job was charged 5 credits, 5 of which are refunded");
    world.check_invariants().await;
}

#[tokio::test]
async fn a_refund_frees_credits_for_new_jobs_and_ends_an_overdraft() {
    let world = World::new().await;
    let team = by_tokens(&world, 2).await;
    let job = charged_job(&world, &team, 5).await;
    assert_eq!(world.create_job(team.key, &team.id, 60).await.expect_err("overdrawn").sqlstate, "LJ005");
    world.refund_credits(&team.id, job, Some(4)).await.done();
    world.job(&team).await;
    assert_eq!(world.account(&team).await, (2, 1, 1));
    world.check_invariants().await;
}

#[tokio::test]
async fn late_costs_and_refunds_of_a_deleted_team_are_still_booked() {
    let world = World::new().await;
    let team = by_tokens(&world, 20).await;
    let job = world.job(&team).await;
    let call = world.opened_call(&team, job).await;
    world.complete_job(team.key, job, "completed", &json!({})).await.done();
    world.delete_team(&team.id).await.done();
    world.settle_call(call, "succeeded", 400, None, true).await.done();
    world.refund_credits(&team.id, job, Some(2)).await.done();
    assert_eq!(world.ledger(job).await, "deduction -1, deduction -3, refund 2");
    world.check_invariants().await;
}
