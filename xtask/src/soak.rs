//! `cargo xtask soak`: the randomised run with faults of `tests/soak`, for as long as one likes.

use crate::{processes, project, test};
use anyhow::Result;
use std::ffi::OsString;

/// Builds everything and runs it on a PostgreSQL of its own. `arguments` are those of the program `soak`.
pub fn run(arguments: &[OsString]) -> Result<()> {
    test::build_application(&["host", "soak"])?;
    test::with_postgres(|url| {
        let mut soak = project::cargo("run");
        soak.args(["--quiet", "--package", "soak", "--"]).args(arguments).env("TEST_DATABASE_URL", url);
        processes::run("soak", &mut soak)
    })
}
