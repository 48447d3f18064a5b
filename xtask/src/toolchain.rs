//! A Rust compiler with the target `wasm32-wasip2`: the installed one if it has the target or rustup can add it, else
//! Debian's, unpacked into the user's cache by [`debian`].

mod apt;
mod debian;

use crate::{processes, progress, project};
use anyhow::Result;
use std::{
    env, fs,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

/// The components' target.
pub const TARGET: &str = "wasm32-wasip2";

/// rustup downloads about 40 MB. Where its servers can't be reached it tries again and again for long.
const RUSTUP_LIMIT: Duration = Duration::from_secs(180);

/// What compiles the components.
pub enum Toolchain {
    /// The compiler that also builds this program.
    Installed,
    /// Debian's compiler, in this folder.
    Debian(PathBuf),
}

impl Toolchain {
    /// Finds the toolchain or gets it, which takes a minute or so the first time.
    pub fn obtain() -> Result<Toolchain> {
        if installed_has_target()? {
            return Ok(Toolchain::Installed);
        }
        if let Some(root) = debian::cached()? {
            return Ok(Toolchain::Debian(root));
        }
        let no_rustup = match add_with_rustup() {
            Ok(()) if installed_has_target()? => return Ok(Toolchain::Installed),
            Ok(()) => "it added the target to another toolchain than the one in use".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        processes::check_interrupted()?;
        progress::note(&format!("rustup cannot add {TARGET} here ({no_rustup}): taking Debian's compiler"));
        debian::fetch().map(Toolchain::Debian)
    }

    /// Cargo with this compiler.
    pub fn cargo(&self, subcommand: &str) -> Command {
        let mut cargo = project::cargo(subcommand);
        if let Toolchain::Debian(root) = self {
            cargo.env("RUSTC", debian::rustc(root));
        }
        cargo
    }

    /// Cargo's clippy with this compiler; [`deny_warnings`](Self::deny_warnings) goes after all arguments.
    pub fn clippy(&self) -> Command {
        match self {
            Toolchain::Installed => self.cargo("clippy"),
            Toolchain::Debian(root) => {
                // What `cargo clippy` does itself; but it can only call the driver that is installed beside it.
                let mut cargo = self.cargo("check");
                cargo.env("RUSTC_WORKSPACE_WRAPPER", debian::clippy_driver(root));
                cargo
            }
        }
    }

    /// Makes clippy's warnings errors.
    pub fn deny_warnings(&self, clippy: &mut Command) {
        match self {
            Toolchain::Installed => clippy.args(["--", "-D", "warnings"]),
            // The separator is the driver's own.
            Toolchain::Debian(_) => {
                clippy.env("CLIPPY_ARGS", "-D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__")
            }
        };
    }
}

fn installed_has_target() -> Result<bool> {
    let mut rustc = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    let folder = processes::output("rustc", rustc.args(["--print", "target-libdir", "--target", TARGET]))?;
    let Ok(files) = fs::read_dir(folder.trim()) else { return Ok(false) };
    Ok(files.flatten().any(|file| file.file_name().to_string_lossy().starts_with("libstd-")))
}

fn add_with_rustup() -> Result<()> {
    progress::step(&format!("Adding the target {TARGET} with rustup"), || {
        let mut rustup = Command::new("rustup");
        rustup.args(["target", "add", TARGET]).stdout(Stdio::null());
        let status = processes::Process::start("rustup", &mut rustup)?.wait(Some(RUSTUP_LIMIT))?;
        if !status.success() {
            anyhow::bail!("rustup failed, {status}");
        }
        Ok(())
    })
}
