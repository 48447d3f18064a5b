//! Jobs without calls: created and completed, which is what credits cost.

use crate::{
    figures::{Figures, Rounds},
    options::Options,
    world::World,
    wrk::{Load, Seen},
};
use anyhow::Result;

/// Requests in flight.
const IN_FLIGHT: u32 = 16;

/// Measures jobs of one team, which all need its one account, and of many.
pub async fn measure(world: &World, options: &Options, figures: &mut Figures) -> Result<()> {
    let teams = world.teams(100).await;
    let of = |number: usize| {
        Load::jobs(teams.iter().take(number).map(|team| (team.key.as_str(), team.id.clone())))
    };
    let mut loads = [("one team", of(1)?, vec![]), ("100 teams", of(100)?, vec![])];
    for round in 0..=options.rounds {
        for (_, load, seen) in &mut loads {
            let this = load.run(&world.application.url, IN_FLIGHT, options.seconds)?;
            // The first one warms up.
            if round > 0 {
                seen.push(this);
            }
        }
    }
    for (name, _, seen) in &loads {
        // A job is two requests.
        let jobs: Rounds = seen.iter().map(|seen| seen.rate() / 2.0).collect();
        figures.add("jobs", format!("created and completed, {name}, {IN_FLIGHT} in flight"), "/s", &jobs);
        let p50: Rounds = seen.iter().map(|seen: &Seen| seen.p50_ms).collect();
        figures.add("jobs", format!("p50 of a request, {name}, {IN_FLIGHT} in flight"), "ms", &p50);
    }
    Ok(())
}
