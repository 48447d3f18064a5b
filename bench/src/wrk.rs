//! wrk, the load generator for plain requests.

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};
use tempfile::TempDir;

/// What a round of wrk saw.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Seen {
    requests: u64,
    seconds: f64,
    /// Half of the requests took no longer.
    pub p50_ms: f64,
    /// All but one in a hundred took no longer.
    pub p99_ms: f64,
    failed: u64,
}

impl Seen {
    /// Requests a second.
    pub fn rate(&self) -> f64 {
        self.requests as f64 / self.seconds
    }

    /// How many requests were answered.
    pub fn requests(&self) -> u64 {
        self.requests
    }
}

/// Requests to send in turn.
pub struct Load {
    folder: TempDir,
    arguments: Vec<PathBuf>,
    script: PathBuf,
}

const REQUESTS: &str = concat!(include_str!("../lua/requests.lua"), include_str!("../lua/report.lua"));
const JOBS: &str = concat!(include_str!("../lua/jobs.lua"), include_str!("../lua/report.lua"));

impl Load {
    /// POST of one body to paths, each with its key.
    pub fn post<'a>(to: impl IntoIterator<Item = (&'a str, String)>, body: &str) -> Result<Self> {
        let mut load = Self::new(REQUESTS, to)?;
        let file = load.folder.path().join("body");
        fs::write(&file, body)?;
        load.arguments.extend(["POST".into(), file]);
        Ok(load)
    }

    /// GET of paths, each with its key.
    pub fn get<'a>(from: impl IntoIterator<Item = (&'a str, String)>) -> Result<Self> {
        let mut load = Self::new(REQUESTS, from)?;
        load.arguments.push("GET".into());
        Ok(load)
    }

    /// Jobs that are created and completed, in teams with their keys.
    pub fn jobs<'a>(teams: impl IntoIterator<Item = (&'a str, String)>) -> Result<Self> {
        Self::new(JOBS, teams)
    }

    fn new<'a>(script: &'static str, lines: impl IntoIterator<Item = (&'a str, String)>) -> Result<Self> {
        let folder = TempDir::with_prefix("llm-jobs-bench-")?;
        let (file, script_file) = (folder.path().join("requests"), folder.path().join("script.lua"));
        fs::write(&script_file, script)?;
        let lines: Vec<String> = lines.into_iter().map(|(key, rest)| format!("{key} {rest}\n")).collect();
        fs::write(&file, lines.concat())?;
        Ok(Self { folder, arguments: vec![file], script: script_file })
    }

    /// Sends them to a server over so many connections, each with one request at a time. A failed request is an error.
    pub fn run(&self, base: &str, connections: u32, seconds: u32) -> Result<Seen> {
        let mut wrk = Command::new("wrk");
        wrk.args(["--threads=1", "--timeout=30s", &format!("--connections={connections}")]);
        wrk.arg(format!("--duration={seconds}s")).arg("--script").arg(&self.script);
        wrk.arg(base).arg("--").args(&self.arguments).stderr(Stdio::inherit());
        let output = wrk.output().context("cannot start wrk (on Debian: apt-get install wrk)")?;
        let printed = String::from_utf8_lossy(&output.stdout);
        let json = printed.lines().find(|line| line.starts_with('{'));
        let seen: Seen = serde_json::from_str(json.with_context(|| format!("wrk printed {printed}"))?)?;
        ensure!(seen.failed == 0, "{} of {} requests to {base} failed", seen.failed, seen.requests);
        ensure!(seen.requests > 0, "no request to {base} was answered in {seconds} s");
        Ok(seen)
    }
}
