//! Upkeep of all teams, for a timer to request every few minutes. The application also works without it: every function
//! that touches a team first ends what is overdue in that team.

use crate::costs;
use axum::Json;
use serde::{Deserialize, Serialize};
use shared::{
    alerts,
    error::Result,
    function,
    http::{Body, Mutation, NoFields},
    platform::settings,
};
use utoipa::ToSchema;

/// What the upkeep has done.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Expired {
    /// The number of jobs that expired because their deadline had passed.
    expired_jobs: i64,
    /// The number of months for which tables were made.
    months_made: i64,
    /// The number of months whose tables were dropped.
    months_dropped: i64,
    /// The number of calls whose cost has become known.
    costs_found: i64,
}

/// Expire overdue jobs
///
/// In all teams, jobs past their deadline expire and release their credit, calls past theirs become `abandoned`, due
/// automatic refills are made, and alerts that were not delivered are sent again. LiteLLM is asked for the costs of
/// calls that ended without one, at growing intervals for seven days. Tables for the coming months are made, and those
/// of months older than the variable `retention_months` are dropped, unless it is 0.
#[utoipa::path(post, path = "/api/jobs/expire", tag = "Jobs", responses((status = 200, body = Expired)))]
pub async fn expire(mutation: Mutation, Body(NoFields {}): Body<NoFields>) -> Result<Json<Expired>> {
    #[derive(Deserialize)]
    struct Jobs {
        expired_jobs: i64,
    }
    #[derive(Deserialize, Default)]
    struct Months {
        months_made: i64,
        months_dropped: i64,
    }
    let Jobs { expired_jobs } = mutation.run(function!(expire_jobs())).await?;
    let months: i32 = settings::parsed("retention_months").await?;
    // A statement of its own, since it locks whole tables for a moment. If it can't get the locks at once, the next run
    // does the work.
    let months = function!(keep_months(p_months: months)).run::<Months>().await;
    let Months { months_made, months_dropped } = months.unwrap_or_else(|error| {
        error.log("keeping the monthly tables");
        Months::default()
    });
    let costs_found = costs::ask().await.unwrap_or_else(|error| {
        error.log("asking LiteLLM for costs");
        0
    });
    alerts::deliver();
    Ok(Json(Expired { expired_jobs, months_made, months_dropped, costs_found }))
}
