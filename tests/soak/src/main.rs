//! Drives the application at random and audits it, for as long as it is told.

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use soak::{
    driver::{Options, Soak, Weather},
    report::Report,
    world::World,
};
use std::{
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

/// Many clients at once do everything to an application of their own, and every answer is audited.
///
/// Meanwhile a database server, the way to it, a stand-in for LiteLLM, the way to that, and the application's hosts
/// fail at random.
#[derive(Parser)]
struct Arguments {
    /// For how long, in minutes.
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// The choices of the clients follow from it. When they meet is not repeated.
    #[arg(long)]
    seed: Option<u64>,
    /// How many clients at once.
    #[arg(long, default_value_t = 24)]
    clients: u64,
    /// Seconds of a round, in the first half of which things fail; after each, all is audited.
    #[arg(long, default_value_t = 40)]
    round: u64,
    /// Let nothing fail.
    #[arg(long)]
    calm: bool,
    /// Write the report to this file, too, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the database to this file as `pg_dump -Fc` does: for `tests/soak/releases/`, from which the upgrade of a
    /// release is tested.
    #[arg(long)]
    dump: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let options =
        Options { seed: arguments.seed.unwrap_or_else(|| fastrand::u64(..)), clients: arguments.clients };
    println!("seed {}", options.seed);
    let mut soak = Soak::new(World::start_shaky(None).await?, options).await?;
    let mut report = Report::new(options.seed);
    let end = Instant::now() + Duration::from_secs_f64(arguments.minutes * 60.0);
    while Instant::now() < end && report.violations().is_empty() {
        let began = Instant::now();
        let left = end.saturating_duration_since(began).min(Duration::from_secs(arguments.round));
        let half = left.max(Duration::from_secs(1)) / 2;
        let storm = if arguments.calm { Duration::ZERO } else { half };
        let judged = soak.round(Weather { storm, calm: 2 * half - storm, impatient: false }).await?;
        report.add(judged, began.elapsed());
    }
    println!("{report}");
    if let Some(file) = &arguments.json {
        std::fs::write(file, format!("{:#}\n", report.to_json()))
            .with_context(|| file.display().to_string())?;
    }
    if !report.violations().is_empty() {
        let file = std::env::temp_dir().join(format!("soak-{}.log", options.seed));
        std::fs::write(&file, soak.world.logs()).with_context(|| file.display().to_string())?;
        bail!("violated; what the hosts have logged is in {}", file.display());
    }
    if let Some(file) = &arguments.dump {
        let mut pg_dump = Command::new("pg_dump");
        pg_dump
            .args(["-Fc", "--no-owner", "--file"])
            .arg(file)
            .args(["--dbname", &soak.world.database_address()]);
        ensure!(pg_dump.status().context("cannot start pg_dump")?.success(), "pg_dump failed");
    }
    Ok(())
}
