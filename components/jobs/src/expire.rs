//! Upkeep: for a timer to call, say every few minutes. Without it all goes on as well, since whatever touches a team ends what is
//! overdue in it first.

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

/// What was done.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Expired {
    /// Jobs whose deadline had passed.
    expired_jobs: i64,
    /// Months that jobs now have a table for.
    months_made: i64,
    /// Months that were dropped.
    months_dropped: i64,
}

/// Expire overdue jobs
///
/// In all teams: jobs past their deadline expire and give back their credit, calls past theirs are abandoned, automatic refills that are
/// due are made, alerts that did not arrive are sent again. Tables for the months to come are made, and those older than the variable
/// `retention_months` are dropped, unless that is 0.
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
    // On its own, since it locks whole tables for a moment. Where it can't have them at once, the next time does it.
    let months = function!(keep_months(p_months: months)).run::<Months>().await;
    let Months { months_made, months_dropped } = months.unwrap_or_else(|error| {
        error.log("keeping the monthly tables");
        Months::default()
    });
    alerts::deliver();
    Ok(Json(Expired { expired_jobs, months_made, months_dropped }))
}
