//! Where things are in the checkout, and how cargo is called there.

use anyhow::{Context, Result, bail};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The workspace's folder.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a folder of the workspace")
}

/// cargo's output folder. Always this one, whatever `CARGO_TARGET_DIR` says: spin.toml names files in it.
pub fn target() -> PathBuf {
    root().join("target")
}

/// What `up` keeps between its runs: database, keys, logs. Made when it is not there.
pub fn data() -> Result<PathBuf> {
    let data = root().join(".data");
    fs::create_dir_all(&data).with_context(|| format!("cannot make {}", data.display()))?;
    Ok(data)
}

/// A program of this workspace, as cargo's profile `dev` builds it; an error unless it was built.
pub fn program(name: &str) -> Result<PathBuf> {
    let program = target().join("debug").join(name);
    if !program.is_file() {
        bail!("{} is not built: leave out --no-build", program.display());
    }
    Ok(program)
}

/// Cargo in the workspace's folder.
pub fn cargo(subcommand: &str) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.arg(subcommand).current_dir(root()).env("CARGO_TARGET_DIR", target());
    command
}
