//! The machine that a run was made on.

use crate::world::World;
use anyhow::Result;
use serde::Serialize;
use std::{fmt, fs, process::Command, thread};

/// What figures depend on besides the code.
#[derive(Serialize)]
pub struct Machine {
    date: String,
    commit: String,
    processor: String,
    cores: usize,
    memory_gib: f64,
    system: String,
    postgresql: String,
    load_generator: String,
}

impl Machine {
    /// Describes the machine that this runs on.
    pub async fn describe(world: &World) -> Result<Self> {
        let field = |file: &str, name: &str| {
            let text = fs::read_to_string(file).unwrap_or_default();
            let value = text
                .lines()
                .find_map(|line| line.strip_prefix(name)?.split_once(':').map(|(_, value)| value));
            value.unwrap_or("unknown").trim().to_owned()
        };
        let kib = field("/proc/meminfo", "MemTotal");
        let memory_gib = kib.trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0) / 1024.0 / 1024.0;
        Ok(Self {
            date: chrono::Utc::now().format("%Y-%m-%d").to_string(),
            commit: first_line(Command::new("git").args(["rev-parse", "--short", "HEAD"])),
            processor: field("/proc/cpuinfo", "model name"),
            cores: thread::available_parallelism().map_or(1, usize::from),
            memory_gib,
            system: first_line(Command::new("uname").args(["-sr"])),
            postgresql: world.database.client.query_one("SHOW server_version", &[]).await?.get(0),
            // "wrk 4.1.0 [epoll] Copyright …"
            load_generator: first_line(Command::new("wrk").arg("--version"))
                .split_once(" [")
                .map_or_else(|| "wrk".to_owned(), |(version, _)| version.to_owned()),
        })
    }
}

fn first_line(command: &mut Command) -> String {
    let printed = command.output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&printed).lines().next().unwrap_or("unknown").trim().to_owned()
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { date, commit, processor, cores, memory_gib, system, postgresql, load_generator } = self;
        writeln!(
            f,
            "{date}, commit {commit}, {cores} cores ({processor}), {memory_gib:.0} GiB, {system}, PostgreSQL \
             {postgresql}; load by {load_generator}. Everything, the load generator too, shares these cores."
        )
    }
}
