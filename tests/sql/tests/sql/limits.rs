//! Limits of what a job may make and cost and of what a team may have open: however many begin at once, never more
//! than the limit pass, and whoever is refused leaves no trace.

use serde_json::{Value, json};
use sql_tests::{Answer, Expect, Refusal, Session, Settling, Team, World, actor};
use std::collections::BTreeMap;
use tokio_postgres::types::Json;
use uuid::Uuid;

const AT_ONCE: usize = 60;

/// How many passed, and what the others were refused with: once it is certain that it is the same for all.
fn passed(answers: Vec<Answer>) -> (usize, Option<Refusal>) {
    let all = answers.len();
    let mut refusals: Vec<Refusal> = answers.into_iter().filter_map(Answer::err).collect();
    let passed = all - refusals.len();
    for refusal in &mut refusals {
        refusal.context = None;
    }
    assert!(refusals.iter().all(|refusal| *refusal == refusals[0]), "{refusals:?}");
    (passed, refusals.pop())
}

/// SQLSTATE, message, and after how many seconds to come again.
fn told(refusal: Option<Refusal>) -> (String, String, Option<String>) {
    let Refusal { sqlstate, message, detail, .. } = refusal.expect("a refusal");
    (sqlstate, message, detail)
}

fn refusal(sqlstate: &str, message: &str, seconds: Option<&str>) -> (String, String, Option<String>) {
    (sqlstate.into(), message.into(), seconds.map(Into::into))
}

async fn begin_at_once(world: &World, team: &Team, job: Uuid, limits: &Value) -> (usize, Option<Refusal>) {
    let crowd = world.crowd().await;
    passed(
        crowd
            .at_once(AT_ONCE, async |session, _| session.begin_call_within(team.key, job, limits).await)
            .await,
    )
}

async fn settle_one(world: &World, job: Uuid, cost: &str) {
    let open = format!("SELECT call_id FROM calls WHERE job_id = '{job}' AND status = 'open' LIMIT 1");
    let call = world.text(&open).await.parse().expect("an open call");
    world.settle_call(call, "succeeded", 5, Some(cost), true).await.done();
}

#[tokio::test]
async fn of_calls_that_begin_at_once_in_a_job_no_more_than_its_number_pass() {
    let world = World::new().await;
    let team = world.team(9).await;
    let job = world.job(&team).await;
    let limits = json!({"calls_per_job": 7});
    let (passed, refused) = begin_at_once(&world, &team, job, &limits).await;
    assert_eq!(passed, 7);
    let message = "calls_per_job: a job of team 'team-0' may make at most 7 calls";
    assert_eq!(told(refused), refusal("LJ016", message, None));
    settle_one(&world, job, "0").await;
    world.begin_call_within(team.key, job, &limits).await.refused("LJ016", message);
    let other = world.job(&team).await;
    world.begin_call_within(team.key, other, &limits).await.done();
    world.check_invariants().await;
}

#[tokio::test]
async fn of_calls_that_begin_at_once_in_a_job_no_more_than_may_be_open_pass() {
    let world = World::new().await;
    let team = world.team(9).await;
    let job = world.job(&team).await;
    let limits = json!({"open_calls_per_job": 7});
    let (passed, refused) = begin_at_once(&world, &team, job, &limits).await;
    assert_eq!(passed, 7);
    let message = "open_calls_per_job: a job of team 'team-0' may have at most 7 open calls";
    assert_eq!(told(refused), refusal("LJ015", message, Some("1")));
    settle_one(&world, job, "0").await;
    world.begin_call_within(team.key, job, &limits).await.done();
    world.begin_call_within(team.key, job, &limits).await.refused("LJ015", message);
    world.check_invariants().await;
}

#[tokio::test]
async fn of_calls_that_begin_at_once_no_more_than_a_team_may_have_open_pass() {
    let world = World::new().await;
    let limits = json!({"open_calls": 7});
    for in_one_job in [true, false] {
        let team = world.team(100).await;
        let mut jobs = vec![world.job(&team).await];
        while jobs.len() < AT_ONCE {
            let job = if in_one_job { jobs[0] } else { world.job(&team).await };
            jobs.push(job);
        }
        let crowd = world.crowd().await;
        let answers = crowd
            .at_once(AT_ONCE, async |session, number| {
                session.begin_call_within(team.key, jobs[number], &limits).await
            })
            .await;
        let (passed, refused) = passed(answers);
        assert_eq!(passed, 7, "in one job: {in_one_job}");
        let message = format!("open_calls: team '{}' may have at most 7 open calls", team.id);
        assert_eq!(told(refused), refusal("LJ015", &message, Some("1")));

        // One that is past its deadline doesn't count, and neither does one that has ended.
        let open =
            format!("SELECT call_id FROM calls WHERE team_id = '{}' AND status = 'open' LIMIT 1", team.id);
        world.call_is_overdue(world.text(&open).await.parse().expect("an id")).await;
        world.begin_call_within(team.key, jobs[0], &limits).await.done();
        world.begin_call_within(team.key, jobs[0], &limits).await.refused("LJ015", &message);
        world.complete_job(team.key, jobs[0], "failed", &json!({})).await.done();
        let job = world.job(&team).await;
        world.begin_call_within(team.key, job, &limits).await.done();
        world.sweep_team(&team.id).await.done();
    }
    world.check_invariants().await;
}

#[tokio::test]
async fn a_team_with_more_open_jobs_than_calls_opens_all_the_calls_that_it_may() {
    let world = World::new().await;
    let team = world.team(100).await;
    let limits = json!({"open_calls": 5});
    for _ in 0..20 {
        world.job(&team).await;
    }
    let job = world.job(&team).await;
    for _ in 0..5 {
        world.begin_call_within(team.key, job, &limits).await.done();
    }
    world
        .begin_call_within(team.key, job, &limits)
        .await
        .refused("LJ015", "open_calls: team 'team-0' may have at most 5 open calls");
    world.check_invariants().await;
}

async fn create_within(session: &Session, team: &Team, limits: &Value) -> Answer {
    let statement = "SELECT create_job($1, $2, NULL, 'test', '{}', 3600, p_limits => $3)::text";
    session.call(statement, &[&actor(team.key), &team.id, &Json(limits)]).await
}

#[tokio::test]
async fn of_jobs_that_are_opened_at_once_no_more_than_a_team_may_have_open_pass() {
    let world = World::new().await;
    let team = world.team(100).await;
    let limits = json!({"open_jobs": 7});
    let crowd = world.crowd().await;
    let answers =
        crowd.at_once(AT_ONCE, async |session, _| create_within(session, &team, &limits).await).await;
    let (passed, refused) = passed(answers);
    assert_eq!(passed, 7);
    let message = "open_jobs: team 'team-0' may have at most 7 open jobs";
    assert_eq!(told(refused), refusal("LJ015", message, Some("1")));
    assert_eq!(world.account(&team).await, (100, 0, 7));
    let job = world.text("SELECT job_id FROM jobs LIMIT 1").await.parse().expect("an id");
    world.complete_job(team.key, job, "failed", &json!({})).await.done();
    create_within(&world, &team, &limits).await.done();
    create_within(&world, &team, &limits).await.refused("LJ015", message);
    world.check_invariants().await;
}

#[tokio::test]
async fn of_calls_that_begin_at_once_no_more_pass_than_their_job_may_cost_by_the_mean_of_their_group() {
    let world = World::new().await;
    let team = world.team(9).await;
    let earlier = world.job(&team).await;
    for cost in ["0.05", "0.15"] {
        world.opened_call(&team, earlier).await;
        settle_one(&world, earlier, cost).await;
    }
    // One that failed before it cost anything doesn't make the others cheaper.
    let failed = world.opened_call(&team, earlier).await;
    world.settle_call(failed, "failed", 0, None, true).await.done();

    let job = world.job(&team).await;
    let limits = json!({"cost_usd_per_job": "0.75"});
    let (passed, refused) = begin_at_once(&world, &team, job, &limits).await;
    assert_eq!(passed, 7, "of 0.10 each");
    let message = "cost_usd_per_job: the job may not cost more";
    assert_eq!(told(refused), refusal("LJ016", message, None));

    // What is expected is given back for what it did cost.
    settle_one(&world, job, "0.01").await;
    world.begin_call_within(team.key, job, &limits).await.done();
    world.begin_call_within(team.key, job, &limits).await.refused("LJ016", message);
    settle_one(&world, job, "0.74").await;
    world.begin_call_within(team.key, job, &limits).await.refused("LJ016", message);
    world.check_invariants().await;
}

#[tokio::test]
async fn while_a_groups_calls_have_no_cost_a_job_is_limited_by_what_it_did_cost() {
    let world = World::new().await;
    let team = world.team(9).await;
    let job = world.job(&team).await;
    let limits = json!({"cost_usd_per_job": 0.75});
    assert_eq!(begin_at_once(&world, &team, job, &limits).await, (AT_ONCE, None));
    settle_one(&world, job, "0.75").await;
    world
        .begin_call_within(team.key, job, &limits)
        .await
        .refused("LJ016", "cost_usd_per_job: the job may not cost more");
    world.check_invariants().await;
}

#[tokio::test]
async fn a_call_that_nobody_settles_is_expected_to_cost_something_until_it_is_given_up() {
    let world = World::new().await;
    let team = world.team(9).await;
    let earlier = world.job(&team).await;
    world.opened_call(&team, earlier).await;
    settle_one(&world, earlier, "0.5").await;
    let job = world.job(&team).await;
    let limits = json!({"cost_usd_per_job": 0.75});
    let lost = sql_tests::id(&world.begin_call_within(team.key, job, &limits).await.done(), "call_id");
    world.call_is_overdue(lost).await;
    world.sweep_team(&team.id).await.done();
    let message = "cost_usd_per_job: the job may not cost more";
    world.begin_call_within(team.key, job, &limits).await.refused("LJ016", message);
    world.price_call(job, lost, None, None).await.done();
    world.begin_call_within(team.key, job, &limits).await.done();
    world.check_invariants().await;
}

#[tokio::test]
async fn a_teams_own_limits_win_over_the_deployments_and_zero_is_none() {
    let world = World::new().await;
    let names = ["calls_per_job", "open_calls_per_job", "open_calls", "open_jobs", "cost_usd_per_job"];
    let deployment = json!({"calls_per_job": 2, "open_calls_per_job": 2, "open_calls": 2, "open_jobs": 2,
                            "cost_usd_per_job": 0.2});
    for name in names {
        for (own, expected) in [(None, 2), (Some(json!(1)), 1), (Some(json!(3)), 3), (Some(json!(0)), 4)] {
            // The other limits are none.
            let mut limits: BTreeMap<&str, Value> = names.map(|name| (name, json!(0))).into();
            let own =
                own.map(
                    |own| if name == "cost_usd_per_job" { json!(own.as_f64().unwrap() / 10.0) } else { own },
                );
            limits.insert(name, own.clone().unwrap_or_default());
            let team = world.team_with(50, json!({"limits": {"calls_per_job": 1}})).await;
            world.update_team(&team.id, &json!({"limits": limits})).await.done();
            world.update_team(&team.id, &json!({"team_alias": "same", "limits": {}})).await.done();
            let shown =
                world.call("SELECT get_team($1)::text", &[&team.id]).await.done()["limits"][name].take();
            assert_eq!(shown, own.clone().unwrap_or_default(), "{name}");

            let job = world.job(&team).await;
            let mut passed = u32::from(name == "open_jobs");
            let others = 4 - passed;
            for _ in 0..others {
                let answer = if name == "open_jobs" {
                    create_within(&world, &team, &deployment).await
                } else {
                    world.begin_call_within(team.key, job, &deployment).await
                };
                passed += u32::from(answer.is_ok());
                if name == "cost_usd_per_job" && answer.is_ok() {
                    settle_one(&world, job, "0.1").await;
                    // The mean of the group is not what this is about.
                    world
                        .run("UPDATE call_totals SET priced = 0, cost_usd = 0; DELETE FROM group_costs")
                        .await
                        .done();
                }
            }
            assert_eq!(passed, expected, "{name} {own:?}");
        }
    }
}

#[tokio::test]
async fn who_is_refused_leaves_no_trace_and_who_asks_again_under_its_id_is_not_refused() {
    let world = World::new().await;
    let team = world.team_with(9, json!({"rpm_limit": 100})).await;
    let job = world.job(&team).await;
    let begin = async |call: Uuid, limits: &Value| {
        let statement = "SELECT begin_call($1, $2, NULL, NULL, false, '{}', 60, 5, $3, $4)::text";
        world.call(statement, &[&actor(team.key), &job, &call, &Json(limits)]).await
    };
    let limits = json!({"calls_per_job": 1, "open_calls_per_job": 1, "open_calls": 1, "open_jobs": 1,
                        "cost_usd_per_job": 1});
    let call = Uuid::now_v7();
    let first = begin(call, &limits).await.done();
    let state = "SELECT json_build_array((SELECT json_agg(j) FROM jobs j), (SELECT json_agg(c) FROM calls c),
                     (SELECT json_agg(a) FROM credit_accounts a), (SELECT json_agg(r) FROM team_rates r))";
    let before = world.text(state).await;
    assert_eq!(begin(call, &limits).await.done()["call_id"], first["call_id"]);
    assert_eq!(begin(Uuid::now_v7(), &limits).await.expect_err("the limit").sqlstate, "LJ016");
    assert_eq!(
        begin(Uuid::now_v7(), &json!({"open_calls": 1})).await.expect_err("the limit").sqlstate,
        "LJ015"
    );
    assert_eq!(create_within(&world, &team, &limits).await.expect_err("the limit").sqlstate, "LJ015");
    let statement = "SELECT begin_job_with_call($1, NULL, NULL, 'test', '{}', 60, NULL, NULL, true, '{}', 60, \
                     p_limits => '{\"open_calls\": 1}')::text";
    let refused = world.call(statement, &[&actor(team.key)]).await.expect_err("the limit");
    assert_eq!(refused.sqlstate, "LJ015", "and its job was not opened either");
    assert_eq!(world.text(state).await, before);
    world.check_invariants().await;
}

/// Runs this within a minute of the server's clock, however often that takes.
async fn within_a_minute<T>(world: &World, test: impl AsyncFn() -> T) -> T {
    loop {
        let minute = "SELECT date_trunc('minute', clock_timestamp())";
        let before = world.text(minute).await;
        let result = test().await;
        if world.text(minute).await == before {
            return result;
        }
    }
}

/// Lets a team's minute pass.
async fn minute_passes(world: &World, team: &Team) {
    world
        .run(&format!(
            "UPDATE team_rates SET minute = minute - interval '1 minute' WHERE team_id = '{}'",
            team.id
        ))
        .await
        .done();
}

/// Whether the refusal says when the minute ends.
fn says_when(refusal: &Refusal) -> bool {
    let seconds: u32 = refusal.detail.as_deref().and_then(|detail| detail.parse().ok()).expect("seconds");
    (1..=60).contains(&seconds)
}

#[tokio::test]
async fn of_calls_that_begin_at_once_no_more_than_the_rate_pass_until_the_minute_ends() {
    let world = World::new().await;
    let team = world.team_with(9, json!({"rpm_limit": 7})).await;
    let other = world.team(9).await;
    let (job, elsewhere) = (world.job(&team).await, world.job(&other).await);
    let crowd = world.crowd().await;
    for _ in 0..3 {
        let answers = within_a_minute(&world, async || {
            minute_passes(&world, &team).await;
            crowd
                .at_once(AT_ONCE, async |session, _| session.begin_call(team.key, job, None, 3600).await)
                .await
        })
        .await;
        let refusals: Vec<&Refusal> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
        assert_eq!(refusals.len(), AT_ONCE - 7);
        for refusal in refusals {
            let message = "rpm_limit: team 'team-0' may make at most 7 calls a minute";
            assert_eq!((refusal.sqlstate.as_str(), refusal.message.as_str()), ("LJ014", message));
            assert!(says_when(refusal), "{refusal:?}");
        }
    }
    assert_eq!(
        begin_at_once(&world, &other, elsewhere, &json!({})).await,
        (AT_ONCE, None),
        "it has no limit"
    );
    assert_eq!(world.text("SELECT string_agg(team_id, ' ') FROM team_rates").await, team.id);
    world.check_invariants().await;
}

#[tokio::test]
async fn once_a_minutes_tokens_are_used_no_call_passes_until_the_minute_ends() {
    let world = World::new().await;
    let team = world.team_with(9, json!({"tpm_limit": 100})).await;
    let job = world.job(&team).await;
    within_a_minute(&world, async || {
        minute_passes(&world, &team).await;
        let (first, second) = (world.opened_call(&team, job).await, world.opened_call(&team, job).await);
        // Provisional usage doesn't count.
        world.settle_call(second, "cancelled", 500, None, false).await.done();
        world.settle_call(first, "succeeded", 60, None, true).await.done();
        world.opened_call(&team, job).await;
        world.settle_call(second, "cancelled", 40, None, true).await.done();
        let refused = world.begin_call(team.key, job, None, 60).await;
        assert!(says_when(refused.as_ref().expect_err("the limit")), "{refused:?}");
        refused.refused("LJ014", "tpm_limit: team 'team-0' may use at most 100 tokens a minute");
    })
    .await;
    minute_passes(&world, &team).await;
    world.opened_call(&team, job).await;

    // Tokens of a call that ends in a later minute count in that one.
    minute_passes(&world, &team).await;
    let last = world.opened_call(&team, job).await;
    within_a_minute(&world, async || {
        minute_passes(&world, &team).await;
        world.opened_call(&team, job).await;
        let job = world.text(&format!("SELECT job_id FROM calls WHERE call_id = '{last}'")).await;
        let again = format!("UPDATE calls SET settled_at = NULL WHERE call_id = '{last}'");
        world.run(&again).await.done();
        let settling = Settling { tokens: 100, ..Settling::default() };
        world.settle(job.parse().expect("an id"), last, settling).await.done();
        assert_eq!(
            world
                .begin_call(team.key, job.parse().expect("an id"), None, 60)
                .await
                .expect_err("the limit")
                .sqlstate,
            "LJ014"
        );
    })
    .await;
}
