//! Upkeep of all teams, for a timer to request every minute. The application also works without it for a while: every
//! function that touches a team first ends what is overdue in that team.

use crate::costs;
use axum::Json;
use serde::{Deserialize, Serialize, de::IgnoredAny};
use shared::{
    alerts,
    error::{Code, Error, Result},
    function,
    http::{Body, Mutation, NoFields},
    platform::settings,
    teams::deletion::{self, Finished},
};
use std::time::{Duration, Instant};
use utoipa::ToSchema;

/// The maximum time in which a step begins another batch.
const LIMIT: Duration = Duration::from_secs(8);

/// The time after which a repeat of a request with an `Idempotency-Key` takes over.
const LEASE_SECONDS: i32 = 240;

/// What the upkeep has done.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Upkeep {
    /// The number of jobs that expired because their deadline had passed.
    expired: i64,
    /// The same.
    expired_jobs: i64,
    /// Whether a step did not get to the end of its work: the next upkeep goes on.
    more: bool,
    /// What each step has done. A step that fails leaves the others.
    steps: Steps,
}

/// The steps of the upkeep, in this order.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Steps {
    /// Jobs past their deadline expire and release their credit, calls past theirs become `abandoned`, and due
    /// automatic refills are made. `done` is the number of jobs that expired.
    jobs: Step,
    /// Teams whose deletion was begun are deleted in LiteLLM, too, and their jobs ended. `done` is the number of teams.
    deletions: Step,
    /// Jobs and calls for which no month's table was there in time get one.
    other_months: Step,
    /// Tables for the coming months are made.
    months: Step,
    /// Tables of months older than the variable `retention_months` are dropped, unless it is 0.
    old_months: Step,
    /// Stored messages are deleted after the variable `store_messages_days`.
    messages: Step,
    /// Requests with an `Idempotency-Key` are forgotten after a day.
    idempotency_keys: Step,
    /// Alerts and revoked keys are deleted after the variable `history_days`, unless it is 0.
    history: Step,
    /// LiteLLM is asked for the costs of calls that ended without one, at growing intervals for seven days. `done` is
    /// the number of calls whose cost has become known.
    costs: Step,
    /// Alerts that are due are sent to webhooks. `done` is the number of alerts that were accepted.
    alerts: Step,
}

/// What a step of the upkeep has done.
#[derive(Serialize, Deserialize, Default, ToSchema)]
pub struct Step {
    /// The number of things that it has done.
    done: i64,
    /// Whether there is more to do.
    more: bool,
    /// Why it failed; `null`: it has not.
    error: Option<String>,
}

/// The answer of the function behind a step.
#[derive(Deserialize, Default)]
struct Batch {
    done: i64,
    more: bool,
    /// Where the next batch begins, for a step that goes through something.
    next: Option<String>,
}

impl Steps {
    fn named(&self) -> [(&'static str, &Step); 10] {
        let Self {
            jobs,
            deletions,
            other_months,
            months,
            old_months,
            messages,
            idempotency_keys,
            history,
            costs,
            alerts,
        } = self;
        [
            ("jobs", jobs),
            ("deletions", deletions),
            ("other_months", other_months),
            ("months", months),
            ("old_months", old_months),
            ("messages", messages),
            ("idempotency_keys", idempotency_keys),
            ("history", history),
            ("costs", costs),
            ("alerts", alerts),
        ]
    }
}

/// Upkeep
///
/// A timer should request this every minute. It ends what is overdue in all teams, sends alerts that were not
/// delivered, asks LiteLLM for costs that it did not tell, and deletes what is kept for a limited time. Each step works
/// in small batches for a few seconds at most; `more` says that another request would go on. `GET /metrics` tells when
/// each step last succeeded.
#[utoipa::path(post, path = "/api/upkeep", tag = "Service", responses((status = 200, body = Upkeep)))]
pub async fn upkeep(mutation: Mutation, Body(NoFields {}): Body<NoFields>) -> Result<Json<Upkeep>> {
    let lease = || function!(begin_work(p_lease_seconds: LEASE_SECONDS));
    mutation.work(lease(), lease, |_: IgnoredAny| all()).await.map(Json)
}

/// Upkeep, by its earlier name
///
/// The same as `POST /api/upkeep`.
#[utoipa::path(post, path = "/api/jobs/expire", tag = "Jobs", operation_id = "expire",
    responses((status = 200, body = Upkeep)))]
pub async fn expire(mutation: Mutation, body: Body<NoFields>) -> Result<Json<Upkeep>> {
    upkeep(mutation, body).await
}

async fn all() -> Result<Upkeep> {
    let steps = Steps {
        jobs: step("jobs", |after| async move { function!(sweep_batch(p_after: &after)).run().await }).await,
        deletions: step("deletions", |_| finish_deletions()).await,
        other_months: step("other_months", |_| function!(adopt_other_months()).run()).await,
        months: step("months", |_| function!(keep_months()).run()).await,
        old_months: step("old_months", |_| drop_month()).await,
        messages: step("messages", |_| function!(delete_messages()).run()).await,
        idempotency_keys: step("idempotency_keys", |_| function!(delete_idempotency_keys()).run()).await,
        history: step("history", |_| delete_history()).await,
        costs: step("costs", |_| ask_for_costs()).await,
        alerts: step("alerts", |_| deliver_alerts()).await,
    };
    let succeeded = steps.named().into_iter().filter(|(_, step)| step.error.is_none());
    let succeeded: Vec<String> = succeeded.map(|(name, _)| name.to_owned()).collect();
    function!(upkeep_succeeded(p_steps: &succeeded)).run::<bool>().await?;
    Ok(Upkeep {
        expired: steps.jobs.done,
        expired_jobs: steps.jobs.done,
        more: steps.named().iter().any(|(_, step)| step.more),
        steps,
    })
}

async fn drop_month() -> Result<Batch> {
    match settings::parsed::<i32>("retention_months").await? {
        0 => Ok(Batch::default()),
        months => function!(drop_month(p_months: months)).run().await,
    }
}

async fn delete_history() -> Result<Batch> {
    match settings::parsed::<i32>("history_days").await? {
        0 => Ok(Batch::default()),
        days => function!(delete_history(p_days: days)).run().await,
    }
}

async fn finish_deletions() -> Result<Batch> {
    match deletion::finish_all().await? {
        Finished { failed: true, .. } => {
            Err(Error::new(Code::Unavailable, "A team could not be deleted: the log says why"))
        }
        Finished { done, more, .. } => Ok(Batch { done, more, next: None }),
    }
}

async fn ask_for_costs() -> Result<Batch> {
    Ok(Batch { done: costs::ask().await?, ..Batch::default() })
}

async fn deliver_alerts() -> Result<Batch> {
    Ok(Batch { done: alerts::deliver_due().await?, ..Batch::default() })
}

/// Does batches of a step until there is no more to do, one fails, or the time is up. Each is told where the one before
/// it has stopped.
async fn step<F: Future<Output = Result<Batch>>>(name: &str, batch: impl Fn(String) -> F) -> Step {
    let began = Instant::now();
    let mut step = Step::default();
    let mut after = String::new();
    loop {
        match batch(after).await {
            Ok(Batch { done, more, next }) => {
                step.done = step.done.saturating_add(done);
                step.more = more;
                if !more || began.elapsed() >= LIMIT {
                    return step;
                }
                after = next.unwrap_or_default();
            }
            Err(error) => {
                step.error = Some(error.body().detail.to_owned());
                error.log(&format!("the step '{name}' of the upkeep"));
                return step;
            }
        }
    }
}
