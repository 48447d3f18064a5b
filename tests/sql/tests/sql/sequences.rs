//! Long random sequences of operations, one after another: every answer and the state at the end are those of the [model](super::model).

use crate::model::{Completion, Model, Operation, Outcome};
use serde_json::{Value, json};
use sql_tests::{Answer, Expect, Team, World, id};
use uuid::Uuid;

const STEPS: usize = 1500;

/// The seed of a test's random choices: `TEST_SEED` to replay one, else a new one. It is printed, so a failed test shows it.
pub fn seed() -> u64 {
    let seed = std::env::var("TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| fastrand::u64(..));
    println!("TEST_SEED={seed}");
    seed
}

/// The ids of the jobs and calls of a sequence, by their numbers.
#[derive(Default)]
struct Ids {
    jobs: Vec<Uuid>,
    calls: Vec<Uuid>,
}

fn choose(random: &mut fastrand::Rng, model: &Model) -> Operation {
    // Mostly what is recent, where something is still open.
    let mut recent = |count: usize| {
        let reach = if random.u8(..) < 200 { 8 } else { count };
        count.checked_sub(1 + random.usize(..reach.clamp(1, count.max(1))))
    };
    let (job, call) = (recent(model.jobs.len()), recent(model.calls.len()));
    match (random.u32(..100), job, call) {
        (0..24, ..) => Operation::CreateJob,
        (24..48, Some(job), _) => Operation::OpenCall { job },
        (48..70, _, Some(call)) => Operation::SettleCall {
            call,
            status: ["succeeded", "succeeded", "failed", "cancelled"][random.usize(..4)],
            tokens: random.i64(0..1000),
            last: random.u8(..4) > 0,
        },
        (70..88, Some(job), _) => {
            let status = ["completed", "completed", "failed", "cancelled"][random.usize(..4)];
            Operation::CompleteJob { job, status }
        }
        (88..90, ..) => Operation::AddCredits { amount: random.i64(1..20) },
        (90..93, ..) => Operation::GetBalance,
        (93..95, ..) => Operation::Sweep,
        (95..98, Some(job), _) => Operation::JobDeadlinePasses { job },
        (98.., _, Some(call)) => Operation::CallDeadlinePasses { call },
        _ => Operation::CreateJob,
    }
}

async fn perform(world: &World, team: &Team, ids: &mut Ids, operation: Operation) -> Answer {
    match operation {
        Operation::CreateJob => {
            let answer = world.create_job(team.key, &team.id, 3600).await;
            ids.jobs.extend(answer.as_ref().ok().map(|job| id(job, "job_id")));
            answer
        }
        Operation::OpenCall { job } => {
            let answer = world.open_call(team.key, ids.jobs[job], None, 3600).await;
            ids.calls.extend(answer.as_ref().ok().map(|call| id(call, "call_id")));
            answer
        }
        Operation::SettleCall { call, status, tokens, last } => {
            world.settle_call(ids.calls[call], status, tokens, Some("0.01"), last).await
        }
        Operation::CompleteJob { job, status } => {
            world.complete_job(team.key, ids.jobs[job], status, &json!({})).await
        }
        Operation::AddCredits { amount } => world.add_credits(&team.id, amount).await,
        Operation::GetBalance => world.get_balance(&team.id).await,
        Operation::Sweep => world.sweep_team(&team.id).await,
        Operation::JobDeadlinePasses { job } => {
            world.job_is_overdue(ids.jobs[job]).await;
            Ok(Value::Null)
        }
        Operation::CallDeadlinePasses { call } => {
            world.call_is_overdue(ids.calls[call]).await;
            Ok(Value::Null)
        }
    }
}

/// The answer as the model would have put it.
fn outcome(operation: Operation, answer: &Answer, expected: &Outcome) -> Outcome {
    let number = |value: &Value| value.as_i64().unwrap_or_else(|| panic!("a number in {answer:?}"));
    match (operation, answer) {
        (_, Err(refusal)) => match expected {
            Outcome::Refused { sqlstate, message_ends }
                if refusal.sqlstate == *sqlstate && refusal.message.ends_with(message_ends) =>
            {
                expected.clone()
            }
            _ => panic!("{operation:?}: {refusal:?}, expected {expected:?}"),
        },
        (Operation::SettleCall { .. }, Ok(answer)) => Outcome::Settled(answer.as_bool().expect("a boolean")),
        (Operation::GetBalance, Ok(answer)) => {
            let field = |name| number(&answer[name]);
            let (allocated, used, held) =
                (field("credits_allocated"), field("credits_used"), field("credits_reserved"));
            assert_eq!(
                (field("credits_remaining"), field("credits_available")),
                (allocated - used, allocated - used - held)
            );
            Outcome::Balance { allocated, used, held }
        }
        (Operation::CompleteJob { .. }, Ok(answer)) => {
            let field = |name| number(&answer["costs"][name]);
            Outcome::Completed(Completion {
                total_calls: field("total_calls"),
                successful_calls: field("successful_calls"),
                failed_calls: field("failed_calls"),
                total_tokens: field("total_tokens"),
                credit_applied: answer["costs"]["credit_applied"] == json!(true),
                credits_remaining: field("credits_remaining"),
            })
        }
        _ => Outcome::Done,
    }
}

async fn follows_the_model(credits: i64, fields: Value, floor: Option<i64>) {
    let mut random = fastrand::Rng::with_seed(seed());
    let world = World::new().await;
    let team = world.team_with(credits, fields).await;
    let (mut model, mut ids) = (Model { allocated: credits, floor, ..Model::default() }, Ids::default());
    for step in 0..STEPS {
        let operation = choose(&mut random, &model);
        let answer = perform(&world, &team, &mut ids, operation).await;
        let expected = model.apply(operation);
        assert_eq!(
            outcome(operation, &answer, &expected),
            expected,
            "step {step}: {operation:?}: {answer:?}"
        );
    }
    world.sweep_team(&team.id).await.done();
    model.apply(Operation::Sweep);
    for (job, expected) in ids.jobs.iter().zip(&model.jobs) {
        assert_eq!(world.job_status(*job).await, expected.status);
    }
    for (call, expected) in ids.calls.iter().zip(&model.calls) {
        let tokens = world.text(&format!("SELECT total_tokens FROM calls WHERE call_id = '{call}'")).await;
        assert_eq!(
            (world.call_status(*call).await.as_str(), tokens),
            (expected.status, expected.tokens.to_string())
        );
    }
    assert_eq!(world.account(&team).await, (model.allocated, model.used, model.held));
    world.check_invariants().await;
}

#[tokio::test]
async fn a_team_with_few_credits_follows_the_model() {
    follows_the_model(6, json!({}), Some(0)).await;
}

#[tokio::test]
async fn a_soft_team_with_a_limit_follows_the_model() {
    follows_the_model(0, json!({"budget_mode": "soft", "credit_limit": "10"}), Some(-10)).await;
}

#[tokio::test]
async fn a_soft_team_without_a_limit_follows_the_model() {
    follows_the_model(0, json!({"budget_mode": "soft"}), None).await;
}
