//! Numbers that no model can mean are unknown, and do no harm.

use serde_json::{Value, json};
use sql_tests::{Expect, Settling, Team, World};
use uuid::Uuid;

const IMPLAUSIBLE: i64 = 5_000_000_000_000_000_000;

async fn settled(world: &World, team: &Team, settling: Settling<'_>) -> (Uuid, Uuid) {
    let job = world.job(team).await;
    let call = world.opened_call(team, job).await;
    assert_eq!(world.settle(job, call, settling).await.done(), json!(true));
    (job, call)
}

/// Tokens, cost, whether they were implausible, and whether anybody asks again.
async fn stored(world: &World, call: Uuid) -> String {
    world
        .text(&format!(
            "SELECT concat_ws(' ', prompt_tokens, completion_tokens, total_tokens, coalesce(cost_usd::text, 'unknown'),
                              implausible_usage, cost_check_at IS NOT NULL)
             FROM calls WHERE call_id = '{call}'"
        ))
        .await
}

async fn summary(world: &World, team: &Team) -> Value {
    let usage = "SELECT team_usage('admin', $1, '2000-01-01', '2100-01-01') #>> '{usage,summary}'";
    world.call(usage, &[&team.id]).await.done()
}

#[tokio::test]
async fn calls_with_more_tokens_than_can_be_are_of_unknown_usage_and_all_goes_on() {
    let world = World::new().await;
    let (team, other) = (world.team(9).await, world.team(9).await);
    for team in [&team, &other] {
        for _ in 0..2 {
            let implausible = Settling { tokens: IMPLAUSIBLE, cost: Some("1"), ..Settling::default() };
            let (job, call) = settled(&world, team, implausible).await;
            assert_eq!(stored(&world, call).await, "0 0 0 unknown t f");
            let read = world.get_job(job).await.done();
            assert_eq!(read["calls"][0]["implausible_usage"], json!(true));
            world.complete_job(team.key, job, "completed", &json!({})).await.done();
        }
        settled(&world, team, Settling { tokens: 7, cost: Some("0.5"), ..Settling::default() }).await;
        let summary = summary(&world, team).await;
        assert_eq!(
            [&summary["total_tokens"], &summary["total_cost_usd"], &summary["unpriced_calls"]],
            [&json!(7), &json!(0.5), &json!(2)]
        );
    }
    assert_eq!(world.text("SELECT metrics() #>> '{calls,0,tokens}'").await, "14");
    world.check_invariants().await;
}

#[tokio::test]
async fn the_bounds_are_plausible_and_what_is_beyond_them_is_unknown_as_a_whole() {
    let world = World::new().await;
    let team = world.team_with(90, json!({"billing_mode": "consumption_usd", "budget_mode": "soft"})).await;
    let million = Some("1000000");
    for (tokens, cost, implausible, expected) in [
        (1_000_000_000, million, false, "500000000 500000000 1000000000 1000000 f f"),
        (1_000_000_001, Some("1"), false, "0 0 0 unknown t f"),
        (5, Some("1000000.000001"), false, "0 0 0 unknown t f"),
        (5, Some("-0.000001"), false, "0 0 0 unknown t f"),
        (5, Some("NaN"), false, "0 0 0 unknown t f"),
        (-2, Some("1"), false, "0 0 0 unknown t f"),
        (6, Some("1"), true, "0 0 0 unknown t f"),
        (6, None, true, "0 0 0 unknown t f"),
        (6, None, false, "3 3 6 unknown f t"),
        (6, Some("0.1234567890125"), false, "3 3 6 0.123456789013 f f"),
        (6, Some("0.5000000000000001"), false, "3 3 6 0.5 f f"),
    ] {
        let settling = Settling { tokens, cost, implausible, ..Settling::default() };
        let (job, call) = settled(&world, &team, settling).await;
        assert_eq!(stored(&world, call).await, expected, "{tokens} {cost:?}");
        world.complete_job(team.key, job, "completed", &json!({})).await.done();
    }
    world.check_invariants().await;
}

#[tokio::test]
async fn many_calls_at_the_bounds_overflow_nothing() {
    let world = World::new().await;
    let fields = json!({"billing_mode": "consumption_usd", "credits_per_dollar": "1000000", "budget_mode": "soft",
                        "pricing": {"mode": "markup", "markup_percent": 1000}});
    let team = world.team_with(1, fields).await;
    let job = world.job(&team).await;
    for _ in 0..40 {
        let call = world.opened_call(&team, job).await;
        let most = Settling {
            tokens: 1_000_000_000,
            cost: Some("1000000"),
            latency_ms: i64::from(i32::MAX),
            ..Settling::default()
        };
        world.settle(job, call, most).await.done();
    }
    world.complete_job(team.key, job, "completed", &json!({})).await.done();
    assert_eq!(world.account(&team).await, (1, 40_000_000_000_000, 0));
    assert_eq!(summary(&world, &team).await["total_tokens"], json!(40_000_000_000_i64));
    world.text("metrics()").await;
    world.check_invariants().await;
}

#[tokio::test]
async fn an_implausible_price_that_comes_late_makes_the_usage_unknown() {
    let world = World::new().await;
    let team = world.team_with(90, json!({"billing_mode": "consumption_usd"})).await;
    let (job, call) = settled(&world, &team, Settling { tokens: 3000, ..Settling::default() }).await;
    world.complete_job(team.key, job, "completed", &json!({})).await.done();
    assert_eq!(world.ledger(job).await, "deduction -3");
    assert_eq!(world.price_call(job, call, Some(IMPLAUSIBLE), Some("1")).await.done(), json!(true));
    assert_eq!(stored(&world, call).await, "0 0 0 unknown t f");
    assert_eq!(world.ledger(job).await, "deduction -3, refund 2", "a job costs 1 at least");
    world.check_invariants().await;
}
