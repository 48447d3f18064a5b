//! Reads in databases of several sizes: what they cost is not to grow with the data.

use crate::{
    figures::{Figures, Goal, Rounds},
    options::Options,
    programs::Program,
    world::{MODEL, World},
    wrk::Load,
};
use anyhow::{Context, Result};
use api_tests::{Client, Database, Team};
use serde_json::json;

/// Jobs in the database, all of one team and of this month.
const SIZES: [i64; 3] = [1_000, 100_000, 1_000_000];

/// A database with so many jobs, and the application on it.
struct Filled {
    host: Program,
    team: Team,
    // Dropped last.
    _database: Database,
}

/// Measures reads in databases that differ in their number of jobs alone.
pub async fn measure(world: &World, options: &Options, figures: &mut Figures) -> Result<()> {
    let mut filled = vec![];
    for jobs in SIZES {
        filled.push(fill(world, jobs).await?);
    }
    type Path = fn(&str) -> String;
    let reads: [(&str, Path); 4] = [
        ("balance", |team| format!("/api/credits/teams/{team}/balance")),
        ("usage of the month", |team| format!("/api/teams/{team}/usage")),
        ("jobs, the newest 50", |team| format!("/api/teams/{team}/jobs")),
        ("completed jobs, the newest 50", |team| format!("/api/teams/{team}/jobs?status=completed")),
    ];
    for (name, path) in reads {
        let mut p50: [Rounds; SIZES.len()] = Default::default();
        let mut ratio = Rounds::default();
        for round in 0..=options.rounds {
            let mut this = [0.0; SIZES.len()];
            for (at, Filled { host, team, .. }) in filled.iter().enumerate() {
                let load = Load::get([(team.key.as_str(), path(&team.id))])?;
                this[at] = load.run(&host.url, 1, options.seconds)?.p50_ms;
            }
            // The first one warms up.
            if round > 0 {
                p50.iter_mut().zip(this).for_each(|(rounds, p50)| rounds.add(p50));
                ratio.add(this[SIZES.len() - 1] / this[0]);
            }
        }
        for (jobs, p50) in SIZES.iter().zip(&p50) {
            figures.add("reads", format!("{name}, p50, {jobs} jobs"), "ms", p50);
        }
        let of = format!("{name}, {} jobs to {}", SIZES[SIZES.len() - 1], SIZES[0]);
        figures.add_with_goal("reads", of, "×", &ratio, Goal::AtMost(1.3));
    }
    Ok(())
}

async fn fill(world: &World, jobs: i64) -> Result<Filled> {
    let database = Database::create().await?;
    let host = world.another_application(&database, &[])?;
    let admin = Client::new(host.url.clone()).as_admin();
    let group = admin.new_model_group(&[MODEL]).await;
    let fields =
        json!({"model_groups": [group], "credits_allocated": 1_000_000_000, "max_budget": 1_000_000});
    let team = admin.new_team(fields).await;
    let statements = FILL.replace("{team}", &team.id).replace("{jobs}", &jobs.to_string());
    database.client.batch_execute(&statements).await.context("filling a database")?;
    database.client.batch_execute("VACUUM (ANALYZE)").await?;
    database.check_invariants().await;
    Ok(Filled { host, team, _database: database })
}

/// Completed jobs with a call each, as if they had gone through the API during this month.
const FILL: &str = include_str!("fill.sql");
