//! Long random sequences of operations, one after another: every answer and the state at the end are those of the
//! [model](super::model).

use crate::{
    model::{Job, Model},
    operation::{Billing, Completion, Operation, Outcome, Pricing, RefillMode, Terms, Used},
};
use serde_json::{Value, json};
use sql_tests::{Answer, Expect, Settling, Team, World, id};
use uuid::Uuid;

const STEPS: usize = 1500;

/// The seed of a test's random choices: `TEST_SEED` to replay one, else a new one. It is printed, so a failed test
/// shows it.
pub fn seed() -> u64 {
    let seed = std::env::var("TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| fastrand::u64(..));
    println!("TEST_SEED={seed}");
    seed
}

/// The ids of the keys, jobs and calls of a sequence, by their numbers.
struct Ids {
    keys: Vec<Uuid>,
    jobs: Vec<Uuid>,
    calls: Vec<(Uuid, Uuid)>,
}

const TIERS: &[(Option<i64>, i64)] = &[(Some(5), 500_000), (Some(40), 450_000), (None, 400_001)];

fn terms(random: &mut fastrand::Rng) -> Terms {
    let billing = [
        Billing::Job,
        Billing::Usd {
            credits_per_dollar: random.i64(1..20),
            credits_per_1k_tokens_unpriced: random.i64(0..5),
        },
        Billing::Tokens { tokens_per_credit: random.i64(1..900) },
    ];
    let pricing =
        [Pricing::None, Pricing::Flat(123_456), Pricing::Markup { percent: 30 }, Pricing::Tiered(TIERS)];
    Terms {
        billing: billing[random.usize(..3)],
        pricing: pricing[random.usize(..4)],
        delivered: random.bool(),
    }
}

/// A number of what has happened, mostly a recent one; the newest key mostly.
fn recent(random: &mut fastrand::Rng, count: usize, usual: usize) -> Option<usize> {
    let reach = if random.u8(..) < 200 { usual } else { count };
    count.checked_sub(1 + random.usize(..reach.clamp(1, count.max(1))))
}

fn choose(random: &mut fastrand::Rng, model: &Model) -> Operation {
    let key = recent(random, model.keys.len(), 1).expect("a key");
    let (job, call) = (recent(random, model.jobs.len(), 8), recent(random, model.calls.len(), 8));
    let cost = (random.u8(..4) > 0).then(|| random.i64(0..2_000_000));
    let used = Used {
        status: ["succeeded", "succeeded", "failed", "refused", "cancelled"][random.usize(..5)],
        tokens: random.i64(0..1000),
        cost,
        last: random.u8(..4) > 0,
        delivered: (random.u8(..3) == 0).then(|| random.bool()),
    };
    match (random.u32(..1000), job, call) {
        (240..420, Some(job), _) => Operation::OpenCall { key, job },
        (420..590, _, Some(call)) => Operation::SettleCall { call, used },
        (590..640, _, Some(call)) => Operation::SettleJob { call, used },
        (640..770, Some(job), _) => {
            let status = ["completed", "completed", "failed", "cancelled"][random.usize(..4)];
            Operation::CompleteJob { key, job, status }
        }
        (770..815, _, Some(call)) => {
            let tokens = random.bool().then(|| random.i64(0..1000));
            Operation::PriceCall { call, tokens, cost }
        }
        (815..830, Some(job), _) => {
            Operation::Refund { job, credits: random.bool().then(|| random.i64(1..4)) }
        }
        (830..845, ..) => Operation::AddCredits { amount: random.i64(1..20) },
        (845..857, ..) => Operation::Adjust { change: random.i64(-9..9) },
        (857..867, ..) => Operation::ConfigureRefill {
            enabled: random.u8(..3) > 0,
            amount: random.i64(1..9),
            period: ["daily", "weekly", "monthly"][random.usize(..3)],
            mode: match random.u8(..3) {
                0 => RefillMode::ResetTo,
                _ => RefillMode::Add { cap: random.bool().then(|| random.i64(1..20)) },
            },
        },
        (867..877, ..) => Operation::PeriodsPass { number: random.i64(0..3) },
        (877..887, ..) => {
            Operation::SetBudget { soft: random.bool(), limit: random.bool().then(|| random.i64(0..30)) }
        }
        (887..897, ..) => Operation::SetTerms { terms: terms(random) },
        (897..905, ..) => Operation::RotateKey { key, grace: random.bool() },
        // Without any key nothing more would happen.
        (905..908, ..) if model.keys.iter().filter(|key| key.works).count() > 1 => {
            Operation::RevokeKey { key: recent(random, model.keys.len(), 9).expect("a key") }
        }
        (908..912, ..) => Operation::GracePasses { key },
        (912..930, ..) => Operation::GetBalance,
        (930..950, ..) => Operation::Sweep,
        (950..980, Some(job), _) => Operation::JobDeadlinePasses { job },
        (980.., _, Some(call)) => Operation::CallDeadlinePasses { call },
        _ => Operation::CreateJob { key },
    }
}

fn usd(millionths: i64) -> String {
    format!("{}.{:06}", millionths / 1_000_000, millionths % 1_000_000)
}

fn settling<'a>(used: &Used, cost: &'a Option<String>) -> Settling<'a> {
    let Used { status, tokens, last, delivered, .. } = *used;
    Settling { status, tokens, cost: cost.as_deref(), last, delivered, ..Settling::default() }
}

fn fields(terms: Terms) -> Value {
    let (mode, credits_per_dollar, unpriced, tokens_per_credit) = match terms.billing {
        Billing::Job => ("job_based", 10, 1, 10_000),
        Billing::Usd { credits_per_dollar, credits_per_1k_tokens_unpriced } => {
            ("consumption_usd", credits_per_dollar, credits_per_1k_tokens_unpriced, 10_000)
        }
        Billing::Tokens { tokens_per_credit } => ("consumption_tokens", 10, 1, tokens_per_credit),
    };
    let pricing = match terms.pricing {
        Pricing::None => Value::Null,
        Pricing::Flat(price) => json!({"mode": "flat", "price_per_job_usd": usd(price)}),
        Pricing::Markup { percent } => json!({"mode": "markup", "markup_percent": percent}),
        Pricing::Tiered(tiers) => {
            let tier = |tier: &(_, _)| json!({"up_to": tier.0, "price_per_job_usd": usd(tier.1)});
            json!({"mode": "tiered", "tiers": tiers.iter().map(tier).collect::<Vec<_>>()})
        }
    };
    json!({"billing_mode": mode, "credits_per_dollar": credits_per_dollar, "tokens_per_credit": tokens_per_credit,
           "credits_per_1k_tokens_unpriced": unpriced, "pricing": pricing,
           "charge_when": if terms.delivered { "delivered" } else { "completed" }})
}

async fn perform(world: &World, team: &Team, ids: &mut Ids, operation: Operation) -> Answer {
    use Operation::*;
    match operation {
        CreateJob { key } => {
            let answer = world.create_job(ids.keys[key], &team.id, 3600).await;
            ids.jobs.extend(answer.as_ref().ok().map(|job| id(job, "job_id")));
            answer
        }
        OpenCall { key, job } => {
            let answer = world.begin_call(ids.keys[key], ids.jobs[job], None, 3600).await;
            ids.calls.extend(answer.as_ref().ok().map(|call| (ids.jobs[job], id(call, "call_id"))));
            answer
        }
        SettleCall { call: number, used } => {
            let ((job, call), cost) = (ids.calls[number], used.cost.map(usd));
            world.settle(job, call, settling(&used, &cost)).await
        }
        SettleJob { call: number, used } => {
            let ((job, call), cost) = (ids.calls[number], used.cost.map(usd));
            Ok(world.settle_job(job, call, settling(&used, &cost)).await?["completion"].take())
        }
        PriceCall { call: number, tokens, cost } => {
            let ((job, call), cost) = (ids.calls[number], cost.map(usd));
            world.price_call(job, call, tokens, cost.as_deref()).await
        }
        Refund { job, credits } => world.refund_credits(&team.id, ids.jobs[job], credits).await,
        CompleteJob { key, job, status } => {
            world.complete_job(ids.keys[key], ids.jobs[job], status, &json!({})).await
        }
        AddCredits { amount } => world.add_credits(&team.id, amount).await,
        Adjust { change } => world.adjust_credits(&team.id, change).await,
        ConfigureRefill { enabled, amount, period, mode } => {
            let (mode, cap) = match mode {
                RefillMode::Add { cap } => ("add", cap),
                RefillMode::ResetTo => ("reset_to", None),
            };
            world.configure_refill(&team.id, enabled, amount, period, mode, cap).await
        }
        SetBudget { soft, limit } => {
            let mode = if soft { "soft" } else { "hard" };
            world.update_team(&team.id, &json!({"budget_mode": mode, "credit_limit": limit})).await
        }
        SetTerms { terms } => world.update_team(&team.id, &fields(terms)).await,
        RotateKey { key, grace } => {
            let answer = world.rotate_key(&team.id, ids.keys[key], if grace { 3600 } else { 0 }).await;
            ids.keys.extend(
                answer.as_ref().ok().map(|key| key.as_str().expect("an id").parse::<Uuid>().expect("a UUID")),
            );
            answer
        }
        RevokeKey { key } => world.revoke_key(&team.id, ids.keys[key]).await,
        GetBalance => world.get_balance(&team.id).await,
        Sweep => world.sweep_team(&team.id).await,
        DeleteTeam => world.delete_team(&team.id).await,
        JobDeadlinePasses { job } => {
            world.job_is_overdue(ids.jobs[job]).await;
            Ok(Value::Null)
        }
        CallDeadlinePasses { call } => {
            world.call_is_overdue(ids.calls[call].1).await;
            Ok(Value::Null)
        }
        GracePasses { key } => {
            let statement = "UPDATE virtual_keys SET revoked_at = now() WHERE revoked_at > now() AND key_id";
            world.run(&format!("{statement} = '{}'", ids.keys[key])).await
        }
        PeriodsPass { number } => world.periods_pass(team, number).await,
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
        (Operation::SettleCall { .. } | Operation::PriceCall { .. }, Ok(answer)) => {
            Outcome::Settled(answer.as_bool().expect("a boolean"))
        }
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
        (Operation::SettleJob { .. }, Ok(Value::Null)) => Outcome::Completed(None),
        (Operation::CompleteJob { .. } | Operation::SettleJob { .. }, Ok(answer)) => {
            let field = |name| number(&answer["costs"][name]);
            Outcome::Completed(Some(Completion {
                total_calls: field("total_calls"),
                successful_calls: field("successful_calls"),
                failed_calls: field("failed_calls"),
                refused_calls: field("refused_calls"),
                unpriced_calls: field("unpriced_calls"),
                total_tokens: field("total_tokens"),
                credit_applied: answer["costs"]["credit_applied"].as_bool().expect("a boolean"),
                credits_charged: field("credits_charged"),
                credits_refunded: field("credits_refunded"),
                charge_is_final: answer["costs"]["charge_is_final"].as_bool().expect("a boolean"),
                credits_remaining: field("credits_remaining"),
            }))
        }
        _ => Outcome::Done,
    }
}

/// Fails unless the state is the model's.
async fn compare(world: &World, team: &Team, ids: &Ids, model: &Model) {
    for (job, expected) in ids.jobs.iter().zip(&model.jobs) {
        let stored = world
            .text(&format!(
                "SELECT concat_ws(' ', status, coalesce(trim_scale(revenue_usd * 100000000)::text, 'none'),
                                  credits_due, credits_charged, credits_refunded)
                 FROM jobs WHERE job_id = '{job}'"
            ))
            .await;
        let revenue = expected.revenue.map_or("none".into(), |revenue| revenue.to_string());
        let Job { status, due, charged, refunded, .. } = expected;
        assert_eq!(stored, format!("{status} {revenue} {due} {charged} {refunded}"), "{job}");
    }
    for ((job, call), expected) in ids.calls.iter().zip(&model.calls) {
        let stored = world.text(&format!(
            "SELECT concat_ws(' ', status, total_tokens, coalesce(trim_scale(cost_usd * 1000000)::text, 'unknown'),
                              cost_check_at IS NOT NULL, delivered)
             FROM calls
             WHERE job_id = '{job}' AND call_id = '{call}'"
        )).await;
        let cost = expected.cost.map_or("unknown".into(), |cost| cost.to_string());
        let letter = |is: bool| if is { "t" } else { "f" };
        let (asked, delivered) = (letter(expected.asked), letter(expected.delivered));
        let expected = format!("{} {} {cost} {asked} {delivered}", expected.status, expected.tokens);
        assert_eq!(stored, expected, "{call}");
    }
    assert_eq!(world.account(team).await, (model.allocated, model.used, model.held));

    let jobs = |status| model.jobs.iter().filter(|job| job.status == status).count() as i128;
    let settled = || model.calls.iter().filter(|call| call.settled);
    let free = (0..model.jobs.len()).filter(|number| {
        let job = &model.jobs[*number];
        !job.is_open() && job.charged == 0 && model.has_delivered(*number)
    });
    let expected = [
        jobs("completed"),
        jobs("failed"),
        jobs("cancelled"),
        jobs("expired"),
        model.jobs.len() as i128,
        model.jobs.iter().filter(|job| job.charged > 0).count() as i128,
        free.count() as i128,
        i128::from(model.used),
        model.jobs.iter().filter_map(|job| job.revenue).sum(),
        model.calls.iter().filter(|call| call.status != "open").count() as i128,
        model.calls.iter().filter(|call| call.status == "refused").count() as i128,
        settled().filter(|call| call.cost.is_some()).count() as i128,
        settled().map(|call| i128::from(call.tokens)).sum(),
        settled().filter_map(|call| call.cost).map(i128::from).sum(),
        model.budget().map_or(-1, i128::from),
        i128::from(model.alerts[0]),
        i128::from(model.alerts[1]),
    ];
    let stored = world
        .text(&format!(
            "SELECT concat_ws(' ', sum(completed), sum(failed), sum(cancelled), sum(expired), sum(opened_jobs),
                              sum(charged_jobs), sum(free_jobs_with_output), sum(credits_charged),
                              trim_scale(sum(revenue_usd) * 100000000), sum(calls), sum(refused_calls),
                              sum(priced_calls), sum(tokens), trim_scale(sum(cost_usd) * 1000000),
                              coalesce(trim_scale(10 * (litellm_desired_team('{0}') ->> 'max_budget')::numeric), -1),
                              (SELECT count(*) FROM alerts WHERE kind = 'credits_80_percent'),
                              (SELECT count(*) FROM alerts WHERE kind = 'credits_100_percent'))
             FROM usage_days WHERE team_id = '{0}'",
            team.id
        ))
        .await;
    assert_eq!(stored, expected.map(|number| number.to_string()).join(" "));
}

async fn follows_the_model(credits: i64, budget: Value, floor: Option<i64>) {
    let mut random = fastrand::Rng::with_seed(seed());
    let world = World::new().await;
    let terms = terms(&mut random);
    let mut spec = fields(terms);
    spec["max_budget"] = Value::Null;
    spec.as_object_mut().unwrap().extend(budget.as_object().unwrap().clone());
    let team = world.team_with(credits, spec).await;
    let mut model = Model::new(credits, floor, terms);
    let mut ids = Ids { keys: vec![team.key], jobs: vec![], calls: vec![] };
    for step in 0..STEPS {
        let operation = if step == STEPS - 100 { Operation::DeleteTeam } else { choose(&mut random, &model) };
        let answer = perform(&world, &team, &mut ids, operation).await;
        let expected = model.apply(operation);
        assert_eq!(
            outcome(operation, &answer, &expected),
            expected,
            "step {step}: {operation:?}: {answer:?}"
        );
        if step % 300 == 299 {
            compare(&world, &team, &ids, &model).await;
        }
    }
    world.sweep_team(&team.id).await.done();
    model.apply(Operation::Sweep);
    compare(&world, &team, &ids, &model).await;
    world.check_invariants().await;
}

#[tokio::test]
async fn a_team_with_few_credits_follows_the_model() {
    follows_the_model(6, json!({}), Some(0)).await;
}

#[tokio::test]
async fn a_soft_team_with_a_limit_follows_the_model() {
    follows_the_model(0, json!({"budget_mode": "soft", "credit_limit": 10}), Some(-10)).await;
}

#[tokio::test]
async fn a_soft_team_without_a_limit_follows_the_model() {
    follows_the_model(0, json!({"budget_mode": "soft"}), None).await;
}
