//! The compiler's target for the components. rustup gets it by `rust-toolchain.toml`, unless another toolchain is asked
//! for or rustup is told to install nothing by itself.

use crate::{processes, progress};
use anyhow::{Context, Result, bail};
use std::{
    env, fs,
    process::{Command, Stdio},
    time::Duration,
};

/// The components' target.
pub const TARGET: &str = "wasm32-wasip2";

/// rustup downloads about 40 MB. Where its servers can't be reached it tries again and again for long.
const RUSTUP_LIMIT: Duration = Duration::from_secs(180);

/// Makes sure that the compiler in use has the target, adding it with rustup where it is missing.
pub fn ensure_target() -> Result<()> {
    if has_target()? {
        return Ok(());
    }
    let added = add_target();
    processes::check_interrupted()?;
    added.with_context(|| {
        format!("the compiler has no target {TARGET}: with Rust by rustup, run `rustup target add {TARGET}`")
    })?;
    if !has_target()? {
        bail!(
            "rustup has {TARGET}, but the compiler in use is not rustup's: run \
             `unset RUSTC; export PATH=\"$HOME/.cargo/bin:$PATH\"`"
        );
    }
    Ok(())
}

fn has_target() -> Result<bool> {
    let mut rustc = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    let folder = processes::output("rustc", rustc.args(["--print", "target-libdir", "--target", TARGET]))?;
    let Ok(files) = fs::read_dir(folder.trim()) else { return Ok(false) };
    Ok(files.flatten().any(|file| file.file_name().to_string_lossy().starts_with("libstd-")))
}

fn add_target() -> Result<()> {
    progress::step(&format!("Adding the target {TARGET} with rustup"), || {
        let mut rustup = Command::new("rustup");
        rustup.args(["target", "add", TARGET]).stdout(Stdio::null());
        let status = processes::Process::start("rustup", &mut rustup)?.wait(Some(RUSTUP_LIMIT))?;
        if !status.success() {
            bail!("rustup failed, {status}");
        }
        Ok(())
    })
}
