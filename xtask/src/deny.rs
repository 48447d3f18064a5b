//! `cargo xtask deny`: what the project stands on, by the rules of `deny.toml`, for each lock file.

use crate::{processes, progress, project, tools};
use anyhow::{Result, bail};
use std::{
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

/// The workspace, and the fuzz targets, which are one of their own.
const MANIFESTS: [&str; 2] = ["Cargo.toml", "fuzz/Cargo.toml"];

/// The database of known holes is a git repository, of some megabytes. Where its server can't be reached it may take
/// long to know.
const FETCH_LIMIT: Duration = Duration::from_secs(60);

/// Checks licences, duplicates and sources, and the advisories where their database can be had. Where it can't, that is
/// an error only if they are required, but is always said.
pub fn run(advisories_required: bool) -> Result<()> {
    let deny = tools::program("cargo-deny")?;
    progress::step("Checking licences, duplicates and sources of dependencies", || {
        MANIFESTS.iter().try_for_each(|manifest| check(&deny, manifest, &["licenses", "bans", "sources"]))
    })?;
    if let Err(error) = fetch_advisories(&deny) {
        processes::check_interrupted()?;
        if advisories_required {
            return Err(error);
        }
        progress::note(&format!("ADVISORIES NOT CHECKED: {error:#}"));
        progress::note(
            "where their database can be reached, `cargo xtask deny --require-advisories` checks them",
        );
        return Ok(());
    }
    progress::step("Checking advisories about dependencies", || {
        MANIFESTS.iter().try_for_each(|manifest| check(&deny, manifest, &["advisories"]))
    })
}

fn check(deny: &Path, manifest: &str, checks: &[&str]) -> Result<()> {
    let mut command = command(deny, manifest);
    command.arg("check").args(checks).args(["--allow", "license-exception-not-encountered"]);
    if manifest == MANIFESTS[0] {
        // Also an exception in deny.toml that nothing needs any more.
        command.args(["--deny", "warnings"]);
    } else {
        command.args(["--allow", "unmatched-skip", "--allow", "unnecessary-skip"]);
    }
    processes::run(&format!("cargo deny for {manifest}"), &mut command)
}

fn fetch_advisories(deny: &Path) -> Result<()> {
    let mut command = command(deny, MANIFESTS[0]);
    command.args(["fetch", "db"]).stdout(Stdio::null()).stderr(Stdio::null());
    let status = processes::Process::start("cargo deny fetch", &mut command)?.wait(Some(FETCH_LIMIT))?;
    if !status.success() {
        bail!("the advisory database (a git repository on GitHub) can't be fetched from here");
    }
    Ok(())
}

fn command(deny: &Path, manifest: &str) -> Command {
    let mut command = Command::new(deny);
    let root = project::root();
    command.current_dir(root).args(["--locked", "--log-level", "error", "--manifest-path", manifest]);
    command.args(["--config", "deny.toml"]);
    command
}
