//! `bench`: measures the application against what it stands in front of and what it could be at best.
//!
//! Every figure is a median over rounds in which all that is compared takes turns, so that what else the machine does
//! hits all alike.

mod call;
mod cost;
mod figures;
mod jobs;
mod machine;
mod options;
mod programs;
mod reads;
mod start;
mod stream;
mod world;
mod wrk;

use anyhow::{Context, Result};
use clap::Parser;
use figures::Figures;
use machine::Machine;
use options::{Options, What};
use serde::Serialize;
use std::fs;
use world::World;

/// What is written of a run.
#[derive(Serialize)]
struct Run {
    machine: Machine,
    rounds: usize,
    seconds: u32,
    real_litellm: bool,
    figures: Figures,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    let world = World::start(&options).await?;
    let mut figures = Figures::default();
    if options.wants(What::Call) {
        call::measure(&world, &options, &mut figures).await?;
    }
    if options.wants(What::Cost) {
        cost::measure(&world, &mut figures).await?;
    }
    if options.wants(What::Stream) {
        stream::measure(&world, &options, &mut figures).await?;
    }
    if options.wants(What::Jobs) {
        jobs::measure(&world, &options, &mut figures).await?;
    }
    if options.wants(What::Start) {
        start::measure(&world, &options, &mut figures).await?;
    }
    if options.wants(What::Reads) {
        reads::measure(&world, &options, &mut figures).await?;
    }
    let run = Run {
        machine: Machine::describe(&world).await?,
        rounds: options.rounds,
        seconds: options.seconds,
        real_litellm: world.litellm.is_some(),
        figures,
    };
    let table = format!("{}\n{}", run.machine, run.figures.table());
    println!("{table}");
    if let Some(path) = &options.write {
        let write = |extension: &str, text: String| {
            let path = path.with_extension(extension);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        write("json", format!("{}\n", serde_json::to_string_pretty(&run)?))?;
        write("md", table)?;
    }
    let missed = run.figures.missed();
    if !missed.is_empty() {
        eprintln!("{} goals were missed", missed.len());
    }
    Ok(())
}
