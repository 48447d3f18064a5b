//! Starting: instances, the application, its memory, the components' sizes.

use crate::{
    figures::{Figures, Goal, Rounds, percentile},
    options::Options,
    programs::Program,
    world::World,
    wrk::Load,
};
use anyhow::{Context, Result};
use api_tests::repository;
use host::{Application, Logs, Settings};
use std::{collections::BTreeSet, fs};
use tempfile::TempDir;

/// Instances that are made of each component.
const INSTANCES: usize = 200;

/// The largest that a component may be, in MB of a million bytes.
const LARGEST: f64 = 1.5;

/// Measures what it takes until there is something to answer with.
pub async fn measure(world: &World, options: &Options, figures: &mut Figures) -> Result<()> {
    instances(figures).await?;
    sizes(figures)?;

    let (mut cold, mut warm, mut rest, mut loaded) = <(Rounds, Rounds, Rounds, Rounds)>::default();
    let teams = world.teams(16).await;
    let calls = crate::call::calls_in_jobs(&teams, 4).await;
    let load = Load::post(calls, &crate::call::chat(None))?;
    for _ in 0..options.rounds.min(3) {
        // Machine code is cached where XDG says: first nothing is there, then everything.
        let cache = TempDir::with_prefix("llm-jobs-bench-cache-")?;
        let start = || world.application_with_cache(cache.path());
        let first: Program = start()?;
        cold.add(first.started_in.as_secs_f64() * 1e3);
        drop(first);
        let again = start()?;
        warm.add(again.started_in.as_secs_f64() * 1e3);
        rest.add(again.memory_mib()?);
        load.run(&again.url, 64, options.seconds)?;
        loaded.add(again.memory_mib()?);
    }
    figures.add("start", "the application, nothing compiled yet", "ms", &cold);
    figures.add("start", "the application, compiled before", "ms", &warm);
    figures.add("start", "memory at rest", "MiB", &rest);
    figures.add("start", "memory after calls with 64 in flight", "MiB", &loaded);
    Ok(())
}

async fn instances(figures: &mut Figures) -> Result<()> {
    let application = Application::load(&repository().join("spin.toml"))?;
    // Never called, so it needs no servers.
    let variables = [
        ("database_password", "none"),
        ("litellm_url", "http://127.0.0.1:9"),
        ("litellm_master_key", "sk-none"),
        ("admin_key", "none"),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let running =
        application.start(Settings { variables, logs: Logs::Discard, ..Settings::default() }).await?;
    let components: BTreeSet<String> = running.routes().map(|(_, component)| component.to_owned()).collect();
    for component in components {
        let mut took = vec![];
        for _ in 0..INSTANCES {
            took.push(running.time_instantiation(&component).await?.as_secs_f64() * 1e3);
        }
        let p50 = [percentile(&mut took, 50.0)].into_iter().collect();
        figures.add_with_goal(
            "start",
            format!("an instance of {component}, p50"),
            "ms",
            &p50,
            Goal::AtMost(1.0),
        );
    }
    running.shutdown().await;
    Ok(())
}

fn sizes(figures: &mut Figures) -> Result<()> {
    let folder = repository().join("target/wasm32-wasip2/release");
    let manifest = fs::read_to_string(repository().join("spin.toml"))?;
    let sources = manifest.lines().filter_map(|line| line.strip_prefix("source = \"")?.strip_suffix('"'));
    for source in sources {
        let file = repository().join(source);
        let size =
            fs::metadata(&file).with_context(|| format!("no {} in {}", source, folder.display()))?.len();
        let name = file.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let size = [size as f64 / 1e6].into_iter().collect();
        figures.add_with_goal("start", format!("size of {name}.wasm"), "MB", &size, Goal::AtMost(LARGEST));
    }
    Ok(())
}
