//! A call is opened by one statement and settled once by another, whatever happens in between.

use futures::future::join_all;
use serde_json::{Value, json};
use sql_tests::{Expect, World};
use uuid::Uuid;

/// Status, tokens, cost and whether it is settled, as stored.
async fn stored(world: &World, call: Uuid) -> String {
    world
        .text(&format!(
            "SELECT concat_ws(' ', status, total_tokens, coalesce(cost_usd::text, 'unknown'), settled_at IS NOT NULL,
                              ended_at IS NOT NULL, error) FROM calls WHERE call_id = '{call}'"
        ))
        .await
}

#[tokio::test]
async fn opening_answers_the_models_in_order_with_their_parameters_and_starts_the_job() {
    let world = World::new().await;
    let team = world.team_with(2, json!({"model_groups": ["Chat", "Code"]})).await;
    let job = world.job(&team).await;
    let opened = world.begin_call(team.key, job, Some("Code"), 60).await.done();
    assert_eq!(
        (&opened["model_group"], &opened["models"]),
        (
            &json!("Code"),
            &json!([{"model_name": "second", "config": {}}, {"model_name": "third", "config": {}}])
        ),
    );
    assert_eq!(world.job_status(job).await, "in_progress");
    assert_eq!(
        world.text(&format!("SELECT started_at IS NOT NULL FROM jobs WHERE job_id = '{job}'")).await,
        "true"
    );
    let config = world.text(
        "SELECT begin_call('key:' || key_id, job_id, NULL, NULL, true, '{}', 60) #>> '{models,0,config,temperature}'
                             FROM virtual_keys, jobs",
    );
    assert_eq!(config.await, "0.50");
}

#[tokio::test]
async fn the_default_group_is_the_first_assigned_one_or_the_one_that_was_named() {
    let world = World::new().await;
    for (default, expected) in [(Value::Null, "Vision"), (json!("Chat"), "Chat"), (json!("Vision"), "Vision")]
    {
        let team = world
            .team_with(2, json!({"model_groups": ["Vision", "Chat"], "default_model_group": default}))
            .await;
        let job = world.job(&team).await;
        let opened = world.begin_call(team.key, job, None, 60).await.done();
        assert_eq!(opened["model_group"], json!(expected));
    }
}

#[tokio::test]
async fn a_call_is_settled_once() {
    let world = World::new().await;
    let team = world.team(2).await;
    let job = world.job(&team).await;
    let call = world.opened_call(&team, job).await;

    assert_eq!(world.settle_call(call, "succeeded", 11, Some("0.0011"), true).await.done(), json!(true));
    let settled = stored(&world, call).await;
    assert_eq!(settled, "succeeded 11 0.0011 t t");
    for status in ["succeeded", "failed", "cancelled"] {
        for last in [true, false] {
            assert_eq!(world.settle_call(call, status, 99, Some("9"), last).await.done(), json!(false));
        }
    }
    assert_eq!(stored(&world, call).await, settled);
    assert_eq!(
        world.settle_call(Uuid::now_v7(), "succeeded", 1, None, true).await.done(),
        json!(false),
        "unknown"
    );
    world.check_invariants().await;
}

#[tokio::test]
async fn of_many_settlings_at_once_one_counts() {
    let world = World::new().await;
    let team = world.team(2).await;
    let job = world.job(&team).await;
    let call = world.opened_call(&team, job).await;
    let sessions = join_all((0..10).map(|_| world.session())).await;
    let settlings = sessions
        .iter()
        .zip(1..)
        .map(|(session, tokens)| session.settle_call(call, "succeeded", tokens, None, true));
    let answers = join_all(settlings).await;
    let won: Vec<usize> = (0..10).filter(|index| answers[*index] == Ok(json!(true))).collect();
    assert_eq!(won.len(), 1, "{answers:?}");
    assert_eq!(stored(&world, call).await, format!("succeeded {} unknown t t", won[0] + 1));
}

#[tokio::test]
async fn a_settling_that_is_not_final_ends_the_call_and_the_final_one_says_what_it_used() {
    let world = World::new().await;
    let team = world.team(2).await;
    let job = world.job(&team).await;
    let call = world.opened_call(&team, job).await;

    assert_eq!(world.settle_call(call, "cancelled", 3, None, false).await.done(), json!(true));
    assert_eq!(stored(&world, call).await, "cancelled 3 unknown f t");
    assert_eq!(world.settle_call(call, "succeeded", 8, Some("0.0008"), true).await.done(), json!(true));
    assert_eq!(stored(&world, call).await, "cancelled 8 0.0008 t t", "how it ended stays");
    assert_eq!(world.settle_call(call, "cancelled", 9, None, true).await.done(), json!(false));

    let completed = world.complete_job(team.key, job, "completed", &json!({})).await.done();
    let costs = &completed["costs"];
    assert_eq!(
        (&costs["total_tokens"], &completed["costs"]["credit_applied"]),
        (&json!(8), &json!(true)),
        "hanging up saves no credit"
    );
    world.check_invariants().await;
}

#[tokio::test]
async fn a_call_that_is_open_when_its_job_completes_is_cancelled_and_its_late_settling_adds_only_usage() {
    let world = World::new().await;
    for late in ["succeeded", "failed", "cancelled"] {
        let team = world.team(2).await;
        let job = world.job(&team).await;
        let settled = world.opened_call(&team, job).await;
        world.settle_call(settled, "succeeded", 10, Some("0.10"), true).await.done();
        let open = world.opened_call(&team, job).await;

        let completed = world.complete_job(team.key, job, "completed", &json!({})).await.done();
        let costs = &completed["costs"];
        assert_eq!(
            (
                &costs["total_calls"],
                &costs["successful_calls"],
                &costs["failed_calls"],
                &completed["costs"]["credit_applied"]
            ),
            (&json!(2), &json!(1), &json!(0), &json!(true)),
        );
        assert_eq!(stored(&world, open).await, "cancelled 0 unknown f t");

        assert_eq!(world.settle_call(open, late, 5, Some("0.05"), true).await.done(), json!(true));
        assert_eq!(stored(&world, open).await, "cancelled 5 0.05 t t");
        let job_now = world.get_job(job).await.done()["job"].clone();
        assert_eq!(
            (
                &job_now["total_tokens"],
                &job_now["total_cost_usd"],
                &job_now["status"],
                &job_now["credit_applied"]
            ),
            (&json!(15), &json!(0.15), &json!("completed"), &json!(true)),
        );
        let again = world.complete_job(team.key, job, "completed", &json!({"other": 1})).await.done();
        assert_eq!(again, completed, "the same request again gets the same answer");
        assert_eq!(world.account(&team).await, (2, 1, 0));
    }
    world.check_invariants().await;
}

#[tokio::test]
async fn a_call_past_its_deadline_is_abandoned_and_its_late_settling_adds_only_usage() {
    let world = World::new().await;
    let team = world.team(2).await;
    let job = world.job(&team).await;
    let call = world.opened_call(&team, job).await;
    world.call_is_overdue(call).await;
    world.sweep_team(&team.id).await.done();
    assert_eq!(stored(&world, call).await, "abandoned 0 unknown f t");
    let ended_at_its_deadline = format!("SELECT ended_at = deadline FROM calls WHERE call_id = '{call}'");
    assert_eq!(world.text(&ended_at_its_deadline).await, "true");

    assert_eq!(world.settle_call(call, "failed", 4, None, true).await.done(), json!(true));
    assert_eq!(stored(&world, call).await, "abandoned 4 unknown t t");
    assert_eq!(world.settle_call(call, "failed", 5, None, true).await.done(), json!(false));
    world.check_invariants().await;
}

#[tokio::test]
async fn a_failed_call_keeps_the_credit_and_so_does_a_job_that_is_not_completed() {
    let world = World::new().await;
    let team = world.team(9).await;
    for (call_status, job_status, charged) in [
        ("succeeded", "completed", true),
        ("cancelled", "completed", true),
        ("failed", "completed", false),
        ("succeeded", "failed", false),
        ("succeeded", "cancelled", false),
    ] {
        let (_, used, _) = world.account(&team).await;
        let job = world.job(&team).await;
        let call = world.opened_call(&team, job).await;
        world.settle_call(call, call_status, 1, Some("0.01"), true).await.done();
        let completed = world.complete_job(team.key, job, job_status, &json!({})).await.done();
        assert_eq!(completed["costs"]["credit_applied"], json!(charged), "{call_status} {job_status}");
        assert_eq!(completed["costs"]["credits_remaining"], json!(9 - used - i64::from(charged)));
        assert_eq!(world.account(&team).await, (9, used + i64::from(charged), 0));
    }
    world.check_invariants().await;
}

#[tokio::test]
async fn a_job_without_any_call_costs_nothing_but_its_credit() {
    let world = World::new().await;
    let team = world.team(1).await;
    let job = world.job(&team).await;
    let completed = world.complete_job(team.key, job, "completed", &json!({})).await.done();
    let costs = &completed["costs"];
    assert_eq!(
        (
            &costs["total_calls"],
            &costs["total_cost_usd"],
            &completed["costs"]["credit_applied"],
            &completed["costs"]["credits_remaining"]
        ),
        (&json!(0), &json!(0), &json!(true), &json!(0)),
    );
    assert_eq!(completed["calls"], json!([]));
}

#[tokio::test]
async fn a_cost_that_nobody_knows_is_not_zero() {
    let world = World::new().await;
    let team = world.team(9).await;
    for (costs, expected) in [
        (vec![None], Value::Null),
        (vec![Some("0.0000001"), None], json!(1e-7)),
        (vec![Some("0"), Some("0")], json!(0)),
    ] {
        let job = world.job(&team).await;
        for cost in costs {
            let call = world.opened_call(&team, job).await;
            world.settle_call(call, "succeeded", 1, cost, true).await.done();
        }
        let completed = world.complete_job(team.key, job, "completed", &json!({})).await.done();
        assert_eq!(completed["costs"]["total_cost_usd"], expected);
    }
}

#[tokio::test]
async fn completing_merges_the_metadata_into_the_jobs() {
    let world = World::new().await;
    let team = world.team(1).await;
    let job = world.job(&team).await;
    world.complete_job(team.key, job, "completed", &json!({"result": "success"})).await.done();
    let stored = world.get_job(job).await.done()["job"]["metadata"].clone();
    assert_eq!(stored, json!({"kept": true, "result": "success"}));
}
