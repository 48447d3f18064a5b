//! Everything counts on the day on which it happens, so a month that is over never changes, and the credits of a month
//! in usage are those of that month in the ledger.

use serde_json::{Value, json};
use sql_tests::{Expect, Settling, Team, World};

/// Usage of the month that is so many months from this one, in full.
async fn usage(world: &World, team: &Team, months: i32) -> Value {
    let statement = "
        SELECT json_build_array(team_usage('admin', $1, first, past) -> 'usage',
                                usage_rows(NULL, $1, first, past))::text
        FROM (SELECT (date_trunc('month', today()) + make_interval(months => $2))::date AS first,
                     (date_trunc('month', today()) + make_interval(months => $2 + 1))::date AS past) AS month";
    world.call(statement, &[&team.id, &months]).await.done()
}

/// One number of its summary.
async fn summary(world: &World, team: &Team, months: i32, member: &str) -> f64 {
    usage(world, team, months).await[0]["summary"][member].as_f64().expect(member)
}

/// Deductions less refunds of that month.
async fn ledger(world: &World, team: &Team, months: i32) -> f64 {
    let statement = format!(
        "SELECT coalesce(-sum(change), 0) FROM credit_transactions
         WHERE team_id = '{}' AND transaction_type IN ('deduction', 'refund')
           AND date_trunc('month', created_at AT TIME ZONE 'UTC')
               = date_trunc('month', today()) + make_interval(months => {months})",
        team.id
    );
    world.text(&statement).await.parse().expect("a number")
}

/// Makes today the first day of a month, or rather what was today the last one of the month before.
async fn the_month_ends(world: &World) {
    let days = world.text("SELECT extract(day FROM today())::integer").await;
    world.days_pass(days.parse().expect("a number")).await;
}

async fn equals_the_ledger(world: &World, team: &Team) {
    for months in [-1, 0] {
        let credits = summary(world, team, months, "credits_used").await;
        assert_eq!(credits, ledger(world, team, months).await, "{months}");
    }
}

#[tokio::test]
async fn a_job_that_is_opened_on_31_january_and_completed_on_1_february_is_charged_in_february() {
    let world = World::new().await;
    let team = world.team(20).await;
    let within = world.job(&team).await;
    world.complete_job(team.key, within, "completed", &json!({})).await.done();
    let job = world.create_job(team.key, &team.id, 40 * 24 * 3600).await.done();
    let job = sql_tests::id(&job, "job_id");
    let call = world.begin_call(team.key, job, None, 40 * 24 * 3600).await.done();
    let call = sql_tests::id(&call, "call_id");
    the_month_ends(&world).await;
    let january = usage(&world, &team, -1).await;
    assert_eq!(summary(&world, &team, -1, "total_jobs").await, 2.0);
    assert_eq!(summary(&world, &team, -1, "credits_used").await, 1.0);

    world.settle_call(call, "succeeded", 10, Some("0.5"), true).await.done();
    world.complete_job(team.key, job, "completed", &json!({})).await.done();
    assert_eq!(usage(&world, &team, -1).await, january, "January is over");
    for (member, expected) in [
        ("total_jobs", 0.0),
        ("successful_jobs", 1.0),
        ("charged_jobs", 1.0),
        ("credits_used", 1.0),
        ("total_calls", 1.0),
        ("total_tokens", 10.0),
        ("total_cost_usd", 0.5),
        ("avg_cost_per_job", 0.0),
    ] {
        assert_eq!(summary(&world, &team, 0, member).await, expected, "{member}");
    }
    equals_the_ledger(&world, &team).await;
    world.check_invariants().await;
}

#[tokio::test]
async fn late_costs_prices_and_refunds_count_when_they_come() {
    let world = World::new().await;
    let pricing = json!({"mode": "markup", "markup_percent": 100});
    let team = world.team_with(90, json!({"billing_mode": "consumption_usd", "pricing": pricing})).await;
    let mut jobs = vec![];
    for _ in 0..3 {
        let job = world.job(&team).await;
        let unpriced = world.opened_call(&team, job).await;
        let settling = Settling { tokens: 3000, model: Some("new"), ..Settling::default() };
        world.settle(job, unpriced, settling).await.done();
        let open = world.opened_call(&team, job).await;
        world.complete_job(team.key, job, "completed", &json!({})).await.done();
        jobs.push((job, unpriced, open));
    }
    the_month_ends(&world).await;
    let january = usage(&world, &team, -1).await;
    assert_eq!(summary(&world, &team, -1, "credits_used").await, 9.0);
    assert_eq!(summary(&world, &team, -1, "unpriced_calls").await, 6.0);

    // Late settling: 1 USD is 10 credits more, and 2 USD of revenue.
    world.settle_call(jobs[0].2, "succeeded", 50, Some("1"), true).await.done();
    // A late price: 0.1 USD instead of 3 credits, for fewer tokens.
    world.price_call(jobs[1].0, jobs[1].1, Some(2900), Some("0.1")).await.done();
    // A refund.
    world.refund_credits(&team.id, jobs[2].0, None).await.done();
    assert_eq!(usage(&world, &team, -1).await, january, "January is over");
    for (member, expected) in [
        ("total_jobs", 0.0),
        ("charged_jobs", 0.0),
        ("credits_used", 10.0 - 2.0 - 3.0),
        ("total_calls", 0.0),
        ("unpriced_calls", 0.0),
        ("total_tokens", -50.0),
        ("total_cost_usd", 1.1),
    ] {
        assert_eq!(summary(&world, &team, 0, member).await, expected, "{member}");
    }
    assert_eq!(usage(&world, &team, 0).await[0]["revenue_usd"], json!(2.2));
    equals_the_ledger(&world, &team).await;
    world.check_invariants().await;
}

#[tokio::test]
async fn jobs_expire_and_calls_are_abandoned_on_the_day_on_which_it_is_noticed() {
    let world = World::new().await;
    let team = world.team_with(20, json!({"charge_when": "delivered"})).await;
    let job = world.job(&team).await;
    let (delivered, lost) = (world.opened_call(&team, job).await, world.opened_call(&team, job).await);
    world.settle_call(delivered, "succeeded", 10, Some("0.5"), true).await.done();
    the_month_ends(&world).await;
    let january = usage(&world, &team, -1).await;
    world.sweep_team(&team.id).await.done();
    assert_eq!(
        (world.job_status(job).await, world.call_status(lost).await),
        ("expired".into(), "abandoned".into())
    );
    assert_eq!(usage(&world, &team, -1).await, january, "January is over");
    for (member, expected) in
        [("expired_jobs", 1.0), ("charged_jobs", 1.0), ("credits_used", 1.0), ("total_calls", 1.0)]
    {
        assert_eq!(summary(&world, &team, 0, member).await, expected, "{member}");
    }
    equals_the_ledger(&world, &team).await;
    world.check_invariants().await;
}

#[tokio::test]
async fn each_month_begins_with_the_first_tier() {
    let world = World::new().await;
    let tiers =
        json!([{"up_to": 1, "price_per_job_usd": "0.5"}, {"up_to": null, "price_per_job_usd": "0.4"}]);
    let team = world.team_with(20, json!({"pricing": {"mode": "tiered", "tiers": tiers}})).await;
    let complete = async || {
        let job = world.job(&team).await;
        world.complete_job(team.key, job, "completed", &json!({})).await.done();
        let revenue = format!("SELECT trim_scale(revenue_usd) FROM jobs WHERE job_id = '{job}'");
        world.text(&revenue).await
    };
    assert_eq!([complete().await, complete().await], ["0.5", "0.4"]);
    the_month_ends(&world).await;
    assert_eq!([complete().await, complete().await], ["0.5", "0.4"]);
    world.check_invariants().await;
}

#[tokio::test]
async fn a_job_list_counts_each_job_once_whenever_it_ended() {
    let world = World::new().await;
    let team = world.team(20).await;
    let (completed, open) = (world.job(&team).await, world.job(&team).await);
    the_month_ends(&world).await;
    world.sweep_team(&team.id).await.done();
    let later = world.job(&team).await;
    world.complete_job(team.key, later, "completed", &json!({})).await.done();
    for (status, total) in [(None, 3), (Some("completed"), 1), (Some("expired"), 2), (Some("pending"), 0)] {
        let statement = "SELECT list_jobs($1, $2, NULL, NULL, 10, 0, NULL)::text";
        let list = world.call(statement, &[&team.id, &status]).await.done();
        assert_eq!(list["total"], json!(total), "{status:?} {completed} {open}");
    }
    world.check_invariants().await;
}
