//! `cargo xtask test`: everything that has to hold before a change is good, in order, until the first failure; and
//! `cargo xtask check`: the quick part of it.

use crate::{
    components::{self, Scope},
    deny, fuzz, processes, progress, project, temporary_postgres,
};
use anyhow::Result;
use std::thread;

/// Runs all checks; with a filter, only the tests whose names contain it.
pub fn run(filter: Option<&str>) -> Result<()> {
    if filter.is_none() {
        lint()?;
        deny::run(false)?;
        fuzz::run(&fuzz::Options::in_tests())?;
    }
    build_application(&["host"])?;
    with_postgres(|url| {
        progress::step("Testing the examples in the documentation", || test(&["--doc"], filter, url))?;
        // Nothing is printed after the tests: their summary is to be the last thing to see.
        progress::start("Testing");
        test(&["--lib", "--bins", "--tests"], filter, url)
    })
}

/// Format, lints, unit tests and the tests of the SQL: what needs neither components nor hosts.
pub fn check() -> Result<()> {
    lint()?;
    with_postgres(|url| {
        progress::step("Testing the units", || test(&["--lib", "--bins"], None, url))?;
        progress::step("Testing the SQL", || test(&["--package", "sql-tests", "--tests"], None, url))
    })
}

fn lint() -> Result<()> {
    progress::step("Checking the format", || {
        processes::run("cargo fmt", project::cargo("fmt").args(["--all", "--check"]))
    })?;
    progress::step("Linting what runs natively", || {
        let mut clippy = project::cargo("clippy");
        processes::run("cargo clippy", clippy.args(["--all-targets", "--", "-D", "warnings"]))
    })?;
    components::lint()
}

/// Builds the components, the test-only ones too, and these programs, which run them.
pub fn build_application(programs: &[&str]) -> Result<()> {
    components::build(Scope::WithTestOnly)?;
    progress::step(&format!("Building {}", programs.join(" and ")), || {
        let mut build = project::cargo("build");
        build.args(programs.iter().flat_map(|program| ["--package", program]));
        processes::run("cargo build", &mut build)
    })
}

/// Does `work` with the superuser's URL of a PostgreSQL whose data need not survive anything, which ends with it.
pub fn with_postgres(work: impl FnOnce(&str) -> Result<()>) -> Result<()> {
    let settings = [
        "shared_preload_libraries=pg_stat_statements",
        // Hundreds of databases, each with its own statements: by default the rarest are forgotten while a test counts
        // them.
        "pg_stat_statements.max=100000",
        "max_connections=500",
        "fsync=off",
    ];
    temporary_postgres::with("test-postgres", &settings, work)
}

fn test(which: &[&str], filter: Option<&str>, database_url: &str) -> Result<()> {
    // Most tests wait most of the time.
    let threads = 2 * thread::available_parallelism().map_or(1, usize::from);
    let mut test = project::cargo("test");
    test.env("TEST_DATABASE_URL", database_url).env("RUST_TEST_THREADS", threads.to_string());
    processes::run("cargo test", test.args(which).args(filter))
}
