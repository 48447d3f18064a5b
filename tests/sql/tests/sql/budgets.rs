//! LiteLLM's budget for a team is what the admin has set, or else what the credits are worth that it may use; whatever
//! changes it is a new version to tell LiteLLM of.

use serde_json::{Value, json};
use sql_tests::{Expect, Team, World};
use uuid::Uuid;

/// How a team may be set, each member in the form of a request.
const MODES: [(&str, Option<i64>, Option<&str>); 6] = [
    ("hard", None, None),
    ("hard", None, Some("7.5")),
    ("soft", Some(5), None),
    ("soft", Some(0), None),
    ("soft", None, None),
    ("soft", None, Some("0")),
];

fn fields((mode, limit, budget): (&str, Option<i64>, Option<&str>)) -> Value {
    json!({"budget_mode": mode, "credit_limit": limit, "max_budget": budget})
}

/// In USD, at ten cents for each credit.
fn expected((mode, limit, budget): (&str, Option<i64>, Option<&str>), allocated: i64) -> Option<f64> {
    let usd = |credits: i64| credits.max(0) as f64 / 10.0;
    budget.map(|budget| budget.parse().expect("a number")).or(match (mode, limit) {
        ("hard", _) => Some(usd(allocated)),
        (_, limit) => limit.map(|limit| usd(allocated + limit)),
    })
}

/// `(budget, version)`.
async fn told(world: &World, team: &Team) -> (Option<f64>, i64) {
    let desired = world.call("SELECT litellm_desired_team($1)::text", &[&team.id]).await.done();
    let shown = world.call("SELECT get_team($1)::text", &[&team.id]).await.done();
    assert_eq!(shown["max_budget"], desired["max_budget"]);
    (desired["max_budget"].as_f64(), desired["version"].as_i64().expect("a version"))
}

async fn synced(world: &World, team: &Team, version: i64) {
    world.litellm_synced(&team.id, version).await.done();
    let pending = world.call("SELECT litellm_pending_sync($1)::text", &[&team.id]).await.done();
    assert_eq!(pending, Value::Null);
}

#[tokio::test]
async fn a_budget_follows_the_mode_and_the_credits_through_all_changes() {
    let world = World::new().await;
    for from in MODES {
        for to in MODES {
            let team = world.team_with(10, fields(from)).await;
            let mut mode = from;
            let (mut allocated, mut before) = (10, told(&world, &team).await);
            assert_eq!(before.0, expected(mode, allocated), "{from:?}");
            synced(&world, &team, before.1).await;
            for step in ["add", "refill", "change", "adjust", "reset", "refill", "back", "add"] {
                match step {
                    "add" => {
                        world.add_credits(&team.id, 4).await.done();
                        allocated += 4;
                    }
                    "refill" => {
                        world.configure_refill(&team.id, true, 3, "daily", "add", None).await.done();
                        world.periods_pass(&team, 2).await.done();
                        world.sweep_team(&team.id).await.done();
                        allocated += 6;
                    }
                    "reset" => {
                        world.configure_refill(&team.id, true, 2, "daily", "reset_to", None).await.done();
                        world.periods_pass(&team, 1).await.done();
                        world.sweep_team(&team.id).await.done();
                        allocated = 2;
                    }
                    "adjust" => {
                        world.adjust_credits(&team.id, -3).await.done();
                        allocated -= 3;
                    }
                    _ => {
                        mode = if step == "back" { from } else { to };
                        let changed = world.update_team(&team.id, &fields(mode)).await.done();
                        assert_eq!(changed["litellm"]["max_budget"].as_f64(), expected(mode, allocated));
                    }
                }
                let now = told(&world, &team).await;
                assert_eq!(now.0, expected(mode, allocated), "{from:?} → {to:?}: {step}");
                let changed = now.0 != before.0;
                if ["change", "back"].contains(&step) {
                    assert!(now.1 > before.1);
                } else {
                    assert_eq!(now.1 > before.1, changed, "{from:?} → {to:?}: {step}");
                }
                synced(&world, &team, now.1).await;
                before = now;
            }
        }
    }
    world.check_invariants().await;
}

#[tokio::test]
async fn what_jobs_cost_changes_no_budget() {
    let world = World::new().await;
    let team = world.team_with(10, json!({"max_budget": null})).await;
    let before = told(&world, &team).await;
    assert_eq!(before.0, Some(1.0));
    let job = world.job(&team).await;
    world.complete_job(team.key, job, "completed", &json!({})).await.done();
    world.refund_credits(&team.id, job, None).await.done();
    assert_eq!(told(&world, &team).await, before);
    world.check_invariants().await;
}

#[tokio::test]
async fn a_team_that_is_made_has_its_budget_in_litellm_before_it_has_its_credits() {
    let world = World::new().await;
    for (credits, mode) in [(30, MODES[0]), (30, MODES[1]), (30, MODES[2]), (0, MODES[2]), (30, MODES[4])] {
        let id = format!("new-{}", Uuid::now_v7().simple());
        let attempt = Uuid::now_v7();
        let mut spec = World::spec(&id, fields(mode));
        spec["credits_allocated"] = json!(credits);
        let begun = world.begin_team(attempt, 60, &spec).await.done();
        assert_eq!(begun["litellm"]["max_budget"].as_f64(), expected(mode, credits), "{mode:?}");
        let key = world.text("SELECT count(*) FROM virtual_keys").await.parse().expect("a number");
        world.activate_team(attempt, &id, key, credits).await.done();
        let pending = world.call("SELECT litellm_pending_sync($1)::text", &[&id]).await.done();
        assert_eq!(pending, Value::Null, "{mode:?}: it is told already");
    }
    world.check_invariants().await;
}

#[tokio::test]
async fn what_a_credit_is_worth_is_what_it_was_when_credits_were_last_changed() {
    let world = World::new().await;
    let (derived, set) = (world.team_with(10, json!({"max_budget": null})).await, world.team(10).await);
    let add = "SELECT add_credits($1, 10, NULL, '{}', $2::text::numeric)::text";
    for (rate, budget) in [("0.1", 2.0), ("0.25", 7.5), ("0.25", 10.0)] {
        for team in [&derived, &set] {
            world.call(add, &[&team.id, &rate]).await.done();
        }
        assert_eq!(told(&world, &derived).await.0, Some(budget), "{rate}");
        assert_eq!(told(&world, &set).await, (Some(100.0), 1), "{rate}");
    }
    world.check_invariants().await;
}

#[tokio::test]
async fn a_budget_that_litellm_resets_is_one_that_the_admin_has_set() {
    let world = World::new().await;
    let refusal = "budget_duration: needs max_budget, the US dollars for each duration";
    let spec = World::spec("new", json!({"max_budget": null, "budget_duration": "30d"}));
    world.begin_team(Uuid::now_v7(), 60, &spec).await.refused("LJ010", refusal);
    let team = world.team_with(10, json!({"max_budget": null})).await;
    world.update_team(&team.id, &json!({"budget_duration": "30d"})).await.refused("LJ010", refusal);
    world.update_team(&team.id, &json!({"budget_duration": "30d", "max_budget": "5"})).await.done();
    world.update_team(&team.id, &json!({"max_budget": null})).await.refused("LJ010", refusal);
    world.add_credits(&team.id, 10).await.done();
    assert_eq!(told(&world, &team).await.0, Some(5.0));
    world.update_team(&team.id, &json!({"max_budget": null, "budget_duration": null})).await.done();
    assert_eq!(told(&world, &team).await.0, Some(2.0));
    world.check_invariants().await;
}
