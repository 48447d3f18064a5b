//! The programs that check the project, in the versions of `tools.txt`, kept in `target/tools`.

use crate::{processes, progress, project};
use anyhow::{Context, Result};
use std::{fs, path::PathBuf, process::Command};

/// A program of `tools.txt`. All are fetched the first time, and when the file has changed, which takes some seconds.
pub fn program(name: &str) -> Result<PathBuf> {
    let requirements = project::root().join("xtask/tools.txt");
    let wanted = fs::read_to_string(&requirements)
        .with_context(|| format!("cannot read {}", requirements.display()))?;
    let folder = project::target().join("tools");
    let installed = folder.join("installed.txt");
    if fs::read_to_string(&installed).ok().as_ref() != Some(&wanted) {
        progress::step("Getting the programs in xtask/tools.txt", || {
            let mut venv = Command::new("python3");
            processes::run("python3 -m venv", venv.args(["-m", "venv", "--clear"]).arg(&folder)).context(
                "this needs Python 3 with its venv module (on Debian: apt-get install python3-venv)",
            )?;
            let mut pip = Command::new(folder.join("bin/pip"));
            pip.args([
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--no-deps",
                "--only-binary=:all:",
            ]);
            processes::run("pip", pip.args(["--require-hashes", "--requirement"]).arg(&requirements))?;
            fs::write(&installed, &wanted).with_context(|| format!("cannot write {}", installed.display()))
        })?;
    }
    Ok(folder.join("bin").join(name))
}
