//! What a job costs by consumption is charged when it is known: at its completion as far as it is known then, and the
//! difference, up or down, with each settling that changes it later.

use serde_json::{Value, json};
use sql_tests::{Answer, Expect, Settling, Team, World};
use uuid::Uuid;

async fn by_cost(world: &World, credits: i64) -> Team {
    world.team_with(credits, json!({"billing_mode": "consumption_usd"})).await
}

/// A job that was completed while this call was open.
async fn completed_with_open_call(world: &World, team: &Team) -> (Uuid, Uuid) {
    let job = world.job(team).await;
    let call = world.opened_call(team, job).await;
    world.complete_job(team.key, job, "completed", &json!({})).await.done();
    (job, call)
}

/// A job that was completed after a call of so many tokens whose cost nobody knew.
async fn completed_with_unpriced_call(world: &World, team: &Team, tokens: i64) -> (Uuid, Uuid) {
    let job = world.job(team).await;
    let call = world.opened_call(team, job).await;
    let settling = Settling { tokens, model: Some("new"), ..Settling::default() };
    world.settle(job, call, settling).await.done();
    world.complete_job(team.key, job, "completed", &json!({})).await.done();
    (job, call)
}

/// `(charged, refunded, final)`, as the job and a repeated completion show it.
async fn shown(world: &World, team: &Team, job: Uuid) -> (Value, Value, Value) {
    let read = world.get_job(job).await.done()["job"].take();
    let again = world.complete_job(team.key, job, "completed", &json!({})).await.done()["costs"].take();
    let members = ["credits_charged", "credits_refunded", "charge_is_final"];
    let [read, again] = [read, again].map(|answer| members.map(|member| answer[member].clone()));
    assert_eq!(read, again);
    let [charged, refunded, is_final] = read;
    (charged, refunded, is_final)
}

fn effective(answers: &[Answer]) -> usize {
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    answers.iter().filter(|answer| **answer == Ok(json!(true))).count()
}

#[tokio::test]
async fn what_comes_after_completion_is_charged_with_each_settling_that_changes_it_also_in_overdraft() {
    let world = World::new().await;
    let team = by_cost(&world, 3).await;
    let job = world.job(&team).await;
    let (early, late) = (world.opened_call(&team, job).await, world.opened_call(&team, job).await);
    world.settle_call(early, "succeeded", 10, Some("0.05"), true).await.done();
    let completed = world.complete_job(team.key, job, "completed", &json!({})).await.done();
    assert_eq!(
        (&completed["costs"]["credits_charged"], &completed["costs"]["charge_is_final"]),
        (&json!(1), &json!(false))
    );
    assert_eq!(world.account(&team).await, (3, 1, 0));

    world.settle_call(late, "cancelled", 10, Some("0.30"), false).await.done();
    assert_eq!(world.account(&team).await, (3, 4, 0), "below zero");
    assert_eq!(shown(&world, &team, job).await, (json!(4), json!(0), json!(false)));
    world.settle_call(late, "cancelled", 10, Some("0.32"), false).await.done();
    assert_eq!(world.ledger(job).await, "deduction -1, deduction -3", "0.37 is 4 credits as well");
    world.settle_call(late, "cancelled", 10, Some("0.55"), true).await.done();
    for status in ["succeeded", "failed"] {
        assert_eq!(world.settle_call(late, status, 99, Some("9"), true).await.done(), json!(false));
    }
    assert_eq!(world.ledger(job).await, "deduction -1, deduction -3, deduction -2");
    assert_eq!(shown(&world, &team, job).await, (json!(6), json!(0), json!(true)));
    world
        .create_job(team.key, &team.id, 60)
        .await
        .refused("LJ005", "Insufficient credits. Required: 1, Available: -3");
    let reasons = world
        .text("SELECT string_agg(reason, ', ' ORDER BY entry) FROM credit_transactions WHERE job_id IS NOT NULL")
        .await;
    let late_cost = "Job test: late cost";
    assert_eq!(reasons, format!("Job test completed successfully, {late_cost}, {late_cost}"));
    world.check_invariants().await;
}

#[tokio::test]
async fn what_became_less_is_refunded() {
    let world = World::new().await;
    let team = by_cost(&world, 20).await;
    let (job, call) = completed_with_open_call(&world, &team).await;
    world.settle_call(call, "succeeded", 10, Some("1.00"), false).await.done();
    world.settle_call(call, "succeeded", 10, Some("0.31"), true).await.done();
    assert_eq!(world.ledger(job).await, "deduction -1, deduction -9, refund 6");
    assert_eq!(world.account(&team).await, (20, 4, 0));
    assert_eq!(shown(&world, &team, job).await, (json!(10), json!(6), json!(true)));
    world.check_invariants().await;
}

#[tokio::test]
async fn late_tokens_are_charged_by_tokens_and_nothing_late_by_the_job() {
    let world = World::new().await;
    for (mode, ledger) in
        [("consumption_tokens", "deduction -1, deduction -4"), ("job_based", "deduction -1")]
    {
        let fields = json!({"billing_mode": mode, "tokens_per_credit": 100});
        let team = world.team_with(20, fields).await;
        let (job, call) = completed_with_open_call(&world, &team).await;
        let is_final = shown(&world, &team, job).await.2;
        assert_eq!(is_final, json!(mode == "job_based"));
        world.settle_call(call, "succeeded", 401, Some("7"), true).await.done();
        assert_eq!(world.ledger(job).await, ledger, "{mode}");
        assert_eq!(shown(&world, &team, job).await.2, json!(true));
    }
    world.check_invariants().await;
}

#[tokio::test]
async fn late_markup_is_revenue_and_what_was_not_charged_is_not_charged_late() {
    let world = World::new().await;
    let pricing = json!({"mode": "markup", "markup_percent": 50});
    let team = world.team_with(20, json!({"billing_mode": "consumption_usd", "pricing": pricing})).await;
    let (job, call) = completed_with_open_call(&world, &team).await;
    world.settle_call(call, "succeeded", 10, Some("0.02"), true).await.done();
    assert_eq!(world.text("SELECT trim_scale(revenue_usd) FROM jobs").await, "0.03");
    assert_eq!(world.ledger(job).await, "deduction -1", "the least that a job costs");

    let failed = world.job(&team).await;
    let (_, late) = (world.opened_call(&team, failed).await, world.opened_call(&team, failed).await);
    world.complete_job(team.key, failed, "failed", &json!({})).await.done();
    world.settle_call(late, "succeeded", 10, Some("5"), true).await.done();
    assert_eq!(world.ledger(failed).await, "");
    world.check_invariants().await;
}

#[tokio::test]
async fn of_many_late_settlings_of_one_call_at_once_one_is_charged() {
    let world = World::new().await;
    let team = by_cost(&world, 50).await;
    let crowd = world.crowd().await;
    for _ in 0..10 {
        let (job, call) = completed_with_open_call(&world, &team).await;
        let answers = crowd
            .at_once(32, async |session, _| {
                session.settle_call(call, "succeeded", 10, Some("0.42"), true).await
            })
            .await;
        assert_eq!(effective(&answers), 1);
        assert_eq!(world.ledger(job).await, "deduction -1, deduction -4");
    }
    world.check_invariants().await;
}

#[tokio::test]
async fn of_many_prices_for_one_call_at_once_one_is_charged() {
    let world = World::new().await;
    let team = by_cost(&world, 50).await;
    let crowd = world.crowd().await;
    for _ in 0..10 {
        let (job, call) = completed_with_unpriced_call(&world, &team, 1000).await;
        let answers = crowd
            .at_once(32, async |session, _| session.price_call(job, call, Some(1000), Some("0.42")).await)
            .await;
        assert_eq!(effective(&answers), 1);
        assert_eq!(world.ledger(job).await, "deduction -1, deduction -4");
    }
    world.check_invariants().await;
}

#[tokio::test]
async fn late_costs_of_many_calls_of_a_job_at_once_add_up() {
    let world = World::new().await;
    let team = by_cost(&world, 50).await;
    let job = world.job(&team).await;
    let mut calls = vec![];
    for _ in 0..60 {
        calls.push(world.opened_call(&team, job).await);
    }
    world.complete_job(team.key, job, "completed", &json!({})).await.done();
    let crowd = world.crowd().await;
    let answers = crowd
        .at_once(60, async |session, number| {
            session.settle_call(calls[number], "succeeded", 1, Some("0.07"), true).await
        })
        .await;
    assert_eq!(effective(&answers), 60);
    assert_eq!(world.account(&team).await, (50, 42, 0), "60 × 0.07 USD, at 10 credits each");
    world.check_invariants().await;
}

#[tokio::test]
async fn tokens_without_a_price_are_charged_at_once_and_corrected_when_the_price_comes() {
    let world = World::new().await;
    let fields = json!({"billing_mode": "consumption_usd", "credits_per_1k_tokens_unpriced": "2"});
    let team = world.team_with(50, fields).await;
    for (price, ledger) in [
        (Some("0.75"), "deduction -3, deduction -5"),
        (Some("0.11"), "deduction -3, refund 1"),
        (Some("0.3"), "deduction -3"),
        (None, "deduction -3"),
    ] {
        let (job, call) = completed_with_unpriced_call(&world, &team, 1100).await;
        assert_eq!(world.ledger(job).await, "deduction -3", "2.2 credits");
        assert_eq!(shown(&world, &team, job).await.2, json!(false));
        let effect = world.price_call(job, call, Some(1100), price).await.done();
        assert_eq!(effect, json!(price.is_some()), "{price:?}");
        assert_eq!(world.ledger(job).await, ledger, "{price:?}");
        assert_eq!(shown(&world, &team, job).await.2, json!(true), "{price:?}: nobody is asked again");
        let again = world.price_call(job, call, Some(1100), Some("9")).await.done();
        assert_eq!((again, world.ledger(job).await.as_str()), (json!(false), ledger), "{price:?}");
    }
    world.check_invariants().await;
}

#[tokio::test]
async fn provisional_tokens_are_not_charged_as_unpriced_ones() {
    let world = World::new().await;
    let team = by_cost(&world, 50).await;
    let (job, call) = completed_with_open_call(&world, &team).await;
    world.settle_call(call, "cancelled", 9000, None, false).await.done();
    assert_eq!(world.ledger(job).await, "deduction -1");
    world.settle_call(call, "cancelled", 8001, None, true).await.done();
    assert_eq!(world.ledger(job).await, "deduction -1, deduction -8");
    world.check_invariants().await;
}

#[tokio::test]
async fn the_seller_is_told_once_a_day_of_each_model_that_has_no_price_and_is_charged_by_its_cost() {
    let world = World::new().await;
    let alerts = "SELECT string_agg(details ->> 'model', ' ' ORDER BY entry) FROM alerts WHERE kind = 'unpriced_model'";
    let by_job = world.team(50).await;
    completed_with_unpriced_call(&world, &by_job, 10).await;
    assert_eq!(world.text(alerts).await, "");
    let team = by_cost(&world, 50).await;
    for _ in 0..3 {
        completed_with_unpriced_call(&world, &team, 10).await;
    }
    assert_eq!(world.text(alerts).await, "new");
    world.days_pass(1).await;
    completed_with_unpriced_call(&world, &team, 10).await;
    assert_eq!(world.text(alerts).await, "new new");
    world.check_invariants().await;
}

#[tokio::test]
async fn a_call_without_a_cost_is_asked_about_at_growing_intervals_for_seven_days() {
    let world = World::new().await;
    let team = by_cost(&world, 50).await;
    let (job, call) = completed_with_unpriced_call(&world, &team, 10).await;
    let aged = async |age: &str| {
        let aged = format!("UPDATE calls SET created_at = now() - interval '{age}', cost_check_at = now()");
        world.run(&aged).await.done();
    };
    for (age, wait) in [
        ("0 s", "1 minute"),
        ("30 s", "1 minute"),
        ("3 hours", "3 hours"),
        ("23 hours", "23 hours"),
        ("5 days", "1 day"),
        ("167 hours", "1 day"),
    ] {
        aged(age).await;
        assert_eq!(world.take_unpriced_calls(9).await, [(job, call, false)], "{age}");
        assert_eq!(world.take_unpriced_calls(9).await, [], "{age}: it is taken");
        let next = format!(
            "SELECT cost_check_at BETWEEN now() + interval '{wait}' - interval '1 minute'
                                      AND now() + interval '{wait}' + interval '1 minute'
             FROM calls"
        );
        assert_eq!(world.text(&next).await, "true", "{age}");
    }
    aged("169 hours").await;
    assert_eq!(shown(&world, &team, job).await.2, json!(false));
    assert_eq!(world.take_unpriced_calls(9).await, [], "a settled call has waited long enough");
    assert_eq!(shown(&world, &team, job).await.2, json!(true));
    // One that nobody has settled is asked about once more.
    world.run("UPDATE calls SET settled_at = NULL").await.done();
    aged("169 hours").await;
    assert_eq!(world.take_unpriced_calls(9).await, [(job, call, true)]);
    world.price_call(job, call, None, None).await.done();
    world.days_pass(30).await;
    assert_eq!(world.take_unpriced_calls(9).await, []);
    assert_eq!(world.ledger(job).await, "deduction -1");
}

#[tokio::test]
async fn each_call_is_taken_by_one_of_those_who_ask_at_once() {
    let world = World::new().await;
    let team = by_cost(&world, 100).await;
    for _ in 0..30 {
        completed_with_unpriced_call(&world, &team, 10).await;
    }
    world.run("UPDATE calls SET cost_check_at = now()").await.done();
    assert_eq!(world.take_unpriced_calls(4).await.len(), 4);
    let crowd = world.crowd().await;
    let taken = crowd
        .at_once(16, async |session, _| session.call("SELECT take_unpriced_calls(5)::text", &[]).await)
        .await;
    let mut calls: Vec<String> = taken
        .into_iter()
        .flat_map(|taken| taken.done().as_array().expect("a list").clone())
        .map(|call| call["call_id"].to_string())
        .collect();
    calls.sort();
    calls.dedup();
    assert_eq!(calls.len(), 26);
}

/// The process that made the call has died, or its job ended under it.
#[tokio::test]
async fn a_call_that_ended_unsettled_is_asked_about_and_settled_by_what_litellm_says_or_else_by_nothing() {
    let world = World::new().await;
    for lost in ["abandoned", "cancelled"] {
        for (told, tokens, cost, ledger) in [
            (true, Some(500), Some("0.91"), "deduction -1, deduction -9"),
            (true, Some(4500), None, "deduction -1, deduction -4"),
            (false, None, None, "deduction -1"),
        ] {
            let team = by_cost(&world, 50).await;
            let job = world.job(&team).await;
            let call = world.opened_call(&team, job).await;
            assert_eq!(
                world.price_call(job, call, Some(5), Some("1")).await.done(),
                json!(false),
                "of an open call nobody asks"
            );
            if lost == "abandoned" {
                world.call_is_overdue(call).await;
                world.sweep_team(&team.id).await.done();
            }
            world.complete_job(team.key, job, "completed", &json!({})).await.done();
            world.run("UPDATE calls SET cost_check_at = now() WHERE cost_check_at IS NOT NULL").await.done();
            assert_eq!(world.take_unpriced_calls(9).await, [(job, call, false)], "{lost}");
            assert_eq!(world.price_call(job, call, tokens, cost).await.done(), json!(true));
            assert_eq!(world.call_status(call).await, lost, "how it ended stays");
            assert_eq!(world.ledger(job).await, ledger, "{lost}, told: {told}");
            assert_eq!(shown(&world, &team, job).await.2, json!(true));
            let late = world.settle_call(call, "succeeded", 1, Some("1"), true).await.done();
            assert_eq!(late, json!(false), "the process was not dead, but too late");
        }
    }
    world.check_invariants().await;
}
