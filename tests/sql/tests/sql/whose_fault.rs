//! Who pays depends on whose fault it is, and on what was delivered.

use serde_json::{Value, json};
use sql_tests::{Expect, Settling, Team, World, id};
use uuid::Uuid;

async fn by_delivery(world: &World) -> Team {
    world.team_with(50, json!({"charge_when": "delivered"})).await
}

/// A job with a call for each of these statuses.
async fn job_with(world: &World, team: &Team, statuses: &[&str]) -> Uuid {
    let job = world.job(team).await;
    for status in statuses {
        let call = world.opened_call(team, job).await;
        world.settle_call(call, status, 1, Some("0"), true).await.done();
    }
    job
}

async fn end(world: &World, team: &Team, job: Uuid, status: &str) {
    if status == "expired" {
        world.job_is_overdue(job).await;
        world.sweep_team(&team.id).await.done();
    } else {
        world.complete_job(team.key, job, status, &json!({})).await.done();
    }
}

async fn free_with_output(world: &World, team: &Team) -> Value {
    let usage = "SELECT team_usage('admin', $1, '2000-01-01', '2100-01-01') #>> '{usage,summary}'";
    let free = world.call(usage, &[&team.id]).await.done()["free_jobs_with_output"].take();
    assert_eq!(world.text("SELECT metrics() #>> '{jobs,free_with_output}'").await, free.to_string());
    free
}

#[tokio::test]
async fn a_job_with_a_failed_call_is_free_and_one_with_only_refused_calls_too() {
    let world = World::new().await;
    let team = world.team(50).await;
    for (statuses, ledger) in [
        (&["succeeded", "refused"][..], "deduction -1"),
        (&["refused", "cancelled"], "deduction -1"),
        (&["refused"], ""),
        (&["refused", "refused", "refused"], ""),
        (&["succeeded", "failed"], ""),
        (&["refused", "failed"], ""),
        (&["cancelled"], "deduction -1"),
    ] {
        let job = job_with(&world, &team, statuses).await;
        let completed = world.complete_job(team.key, job, "completed", &json!({})).await.done();
        let count = |status| statuses.iter().filter(|one| **one == status).count();
        assert_eq!(
            [&completed["costs"]["failed_calls"], &completed["costs"]["refused_calls"]],
            [&json!(count("failed")), &json!(count("refused"))],
            "{statuses:?}"
        );
        assert_eq!(completed["costs"]["charge_is_final"], json!(true));
        assert_eq!(world.ledger(job).await, ledger, "{statuses:?}");
    }
    let counted =
        "SELECT sum(refused) || ' ' || sum(failed) || ' ' || (SELECT sum(refused_calls) FROM usage_days)
                   FROM call_totals";
    assert_eq!(world.text(counted).await, "7 2 7");
    world.check_invariants().await;
}

#[tokio::test]
async fn a_job_of_its_own_ends_as_failed_when_its_call_was_refused() {
    let world = World::new().await;
    let team = world.team(50).await;
    for (call_status, job_status, ledger) in [
        ("succeeded", "completed", "deduction -1"),
        ("cancelled", "completed", "deduction -1"),
        ("failed", "failed", ""),
        ("refused", "failed", ""),
    ] {
        let job = world.job(&team).await;
        let call = world.opened_call(&team, job).await;
        let settling = Settling { status: call_status, ..Settling::default() };
        let completed = world.settle_job(job, call, settling).await.done();
        assert_eq!(completed["completion"]["status"], json!(job_status));
        assert_eq!(world.ledger(job).await, ledger, "{call_status}");
    }
    world.check_invariants().await;
}

#[tokio::test]
async fn who_pays_for_what_is_delivered_pays_however_the_job_ends() {
    let world = World::new().await;
    let by_completion = world.team(50).await;
    let by_delivery = by_delivery(&world).await;
    let mut free = 0;
    for status in ["failed", "cancelled", "expired"] {
        let job = job_with(&world, &by_completion, &["succeeded"]).await;
        end(&world, &by_completion, job, status).await;
        free += 1;
        assert_eq!(world.ledger(job).await, "", "{status}");
        assert_eq!(free_with_output(&world, &by_completion).await, json!(free));

        for (calls, ledger) in [
            (&["succeeded", "failed"][..], "deduction -1"),
            (&["failed"], ""),
            (&["refused", "cancelled"], ""),
            (&[], ""),
        ] {
            let job = job_with(&world, &by_delivery, calls).await;
            end(&world, &by_delivery, job, status).await;
            assert_eq!(world.ledger(job).await, ledger, "{status} {calls:?}");
            let read = world.get_job(job).await.done()["job"].take();
            assert_eq!(read["credit_applied"], json!(!ledger.is_empty()), "{status} {calls:?}");
        }
    }
    // A completed one as ever, and one with a failed call as well.
    for (calls, ledger) in
        [(&["cancelled"][..], "deduction -1"), (&["failed"], ""), (&["failed", "succeeded"], "deduction -1")]
    {
        let job = job_with(&world, &by_delivery, calls).await;
        end(&world, &by_delivery, job, "completed").await;
        assert_eq!(world.ledger(job).await, ledger, "{calls:?}");
    }
    assert_eq!(world.account(&by_delivery).await.2, 0);
    world.check_invariants().await;
}

#[tokio::test]
async fn delivered_is_what_the_settling_says_and_else_what_succeeded() {
    let world = World::new().await;
    let team = by_delivery(&world).await;
    for (status, delivered, ledger) in [
        ("cancelled", Some(true), "deduction -1"),
        ("failed", Some(true), "deduction -1"),
        ("succeeded", Some(false), ""),
        ("succeeded", None, "deduction -1"),
        ("cancelled", None, ""),
    ] {
        let job = world.job(&team).await;
        let call = world.opened_call(&team, job).await;
        world.settle(job, call, Settling { status, delivered, ..Settling::default() }).await.done();
        end(&world, &team, job, "failed").await;
        assert_eq!(world.ledger(job).await, ledger, "{status} {delivered:?}");
    }
    world.check_invariants().await;
}

#[tokio::test]
async fn what_is_delivered_after_the_end_of_a_job_is_charged_then() {
    let world = World::new().await;
    let (by_completion, by_delivery) = (world.team(50).await, by_delivery(&world).await);
    for status in ["failed", "cancelled", "expired"] {
        let mut jobs = vec![];
        for team in [&by_completion, &by_delivery] {
            let job = world.job(team).await;
            let (first, second) = (world.opened_call(team, job).await, world.opened_call(team, job).await);
            end(&world, team, job, status).await;
            assert_eq!(world.ledger(job).await, "");
            for call in [first, second] {
                world.settle_call(call, "succeeded", 5, Some("1"), true).await.done();
            }
            jobs.push(job);
        }
        assert_eq!(world.ledger(jobs[0]).await, "", "{status}");
        assert_eq!(world.ledger(jobs[1]).await, "deduction -1", "{status}");
        let reason = format!("SELECT reason FROM credit_transactions WHERE job_id = '{}'", jobs[1]);
        assert_eq!(world.text(&reason).await, "Job test: delivered output");
    }
    assert_eq!(free_with_output(&world, &by_completion).await, json!(3));
    world.check_invariants().await;
}

#[tokio::test]
async fn jobs_that_expire_together_take_the_places_of_a_tiered_price_one_after_another() {
    let world = World::new().await;
    let tiers =
        json!([{"up_to": 2, "price_per_job_usd": "0.5"}, {"up_to": null, "price_per_job_usd": "0.4"}]);
    let pricing = json!({"mode": "tiered", "tiers": tiers});
    let team = world.team_with(50, json!({"charge_when": "delivered", "pricing": pricing})).await;
    for _ in 0..4 {
        let job = job_with(&world, &team, &["succeeded"]).await;
        world.job_is_overdue(job).await;
    }
    world.sweep_team(&team.id).await.done();
    assert_eq!(
        world.text("SELECT string_agg(trim_scale(revenue_usd)::text, ' ' ORDER BY job_id) FROM jobs").await,
        "0.5 0.5 0.4 0.4"
    );
    world.check_invariants().await;
}

#[tokio::test]
async fn terms_are_those_of_when_the_job_was_opened() {
    let world = World::new().await;
    let team = by_delivery(&world).await;
    let opened = world.create_job(team.key, &team.id, 3600).await.done();
    let job = id(&opened, "job_id");
    world.update_team(&team.id, &json!({"charge_when": "completed"})).await.done();
    let call = world.opened_call(&team, job).await;
    world.settle_call(call, "succeeded", 5, None, true).await.done();
    end(&world, &team, job, "failed").await;
    assert_eq!(world.ledger(job).await, "deduction -1");
    world.check_invariants().await;
}
