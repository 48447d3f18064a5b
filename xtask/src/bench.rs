//! `cargo xtask bench`: the measurements of `bench/`, on a PostgreSQL of their own.

use crate::{
    components::{self, Scope},
    processes, progress, project, temporary_postgres,
};
use anyhow::{Context, Result};
use std::{ffi::OsString, process::Command};

/// The profile in `Cargo.toml`: with optimisation, and built in minutes.
const PROFILE: &str = "measured";

/// Builds everything as it is shipped and measures it. `arguments` are those of the program `bench`.
pub fn run(arguments: &[OsString]) -> Result<()> {
    for program in ["wrk", "valgrind"] {
        let missing = format!("this needs {program} (on Debian: apt-get install {program})");
        Command::new(program).arg("--version").output().context(missing)?;
    }
    components::build(Scope::Application)?;
    progress::step("Building what is measured, and what measures it", || {
        let mut build = project::cargo("build");
        build.args(["--profile", PROFILE, "--bins"]);
        build.args(["--package", "bench", "--package", "host", "--package", "litellm-stand-in"]);
        processes::run("cargo build", &mut build)
    })?;
    // As `up` starts it, so that what is committed is on the disk; and counting statements.
    let settings = ["shared_preload_libraries=pg_stat_statements", "max_connections=500"];
    temporary_postgres::with("bench-postgres", &settings, |url| {
        progress::start("Measuring");
        let mut bench = Command::new(project::target().join(PROFILE).join("bench"));
        processes::run("bench", bench.args(arguments).env("TEST_DATABASE_URL", url))
    })
}
