//! The limits of what a team may have open, and of what a job may make and cost.

use crate::{
    error::{Error, Result},
    platform::settings,
    store::parameters::Jsonb,
    values::Usd,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A team's own limits; `null`: the deployment's limit applies, which its variable of the same name with `limit_`
/// before it says.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Limits {
    /// How many calls a job may make; 0: without limit.
    pub calls_per_job: Option<i64>,
    /// How many calls of a job may be open at once; 0: without limit.
    pub open_calls_per_job: Option<i64>,
    /// How many calls of the team may be open at once; 0: without limit.
    pub open_calls: Option<i64>,
    /// How many jobs of the team may be open at once; 0: without limit.
    pub open_jobs: Option<i64>,
    /// How many US dollars a job may cost; 0: without limit.
    pub cost_usd_per_job: Option<Usd>,
}

/// The deployment's limits, for teams that have none of their own.
pub async fn defaults() -> Result<Jsonb> {
    #[derive(Serialize)]
    struct Defaults {
        calls_per_job: u64,
        open_calls_per_job: u64,
        open_calls: u64,
        open_jobs: u64,
        cost_usd_per_job: Usd,
    }
    let defaults = Defaults {
        calls_per_job: settings::parsed("limit_calls_per_job").await?,
        open_calls_per_job: settings::parsed("limit_open_calls_per_job").await?,
        open_calls: settings::parsed("limit_open_calls").await?,
        open_jobs: settings::parsed("limit_open_jobs").await?,
        cost_usd_per_job: settings::parsed("limit_cost_usd_per_job").await?,
    };
    serde_json::to_string(&defaults).map(Jsonb).map_err(Error::internal)
}
