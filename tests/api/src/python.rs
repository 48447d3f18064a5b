//! Python, in which clients of the API are written.

use std::{
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};
use tokio::{process::Command, sync::Mutex, time::timeout};

/// An interpreter with packages, in a virtual environment of their own.
///
/// That is made on first use and kept, which needs `python3` with its `venv`, and a package index that `pip` reaches.
pub struct Python {
    environment: PathBuf,
}

impl Python {
    /// The environment with these packages, of which a version may be asked for (`requests==2.32`). `folder` holds the
    /// environments: `env!("CARGO_TARGET_TMPDIR")`. Fails the test, saying what is missing, if it can't be made.
    pub async fn with(folder: &str, packages: &[&str]) -> Self {
        static MAKING: Mutex<()> = Mutex::const_new(());
        let environment = Path::new(folder).join(format!("python-{}", packages.join("+")));
        let complete = environment.join("complete");
        let python = Self { environment };
        let _one_at_a_time = MAKING.lock().await;
        if !complete.exists() {
            must(
                Command::new("python3").args(["-m", "venv", "--clear"]).arg(&python.environment),
                "these tests need Python 3 with its venv module (on Debian: apt-get install python3-venv)",
            )
            .await;
            must(
                python
                    .program("pip")
                    .args(["install", "--quiet", "--disable-pip-version-check"])
                    .args(packages),
                &format!("these tests need the Python packages {packages:?}, and pip could not get them"),
            )
            .await;
            std::fs::write(&complete, "").expect("a file in the environment");
        }
        python
    }

    /// A program of the environment: `python`, or what a package brings.
    pub fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.environment.join("bin").join(name));
        command.env("PYTHONDONTWRITEBYTECODE", "1").kill_on_drop(true);
        command
    }
}

/// Runs a program to its end and gives what it said; `Err` is the same of one that failed. Fails the test after
/// `limit`.
pub async fn run(command: &mut Command, limit: Duration) -> Result<String, String> {
    let done = timeout(limit, command.output()).await.expect("in time").expect("a program that runs");
    if done.status.success() { Ok(text(&done)) } else { Err(text(&done)) }
}

async fn must(command: &mut Command, need: &str) {
    let done = command.output().await.unwrap_or_else(|error| panic!("{need}: {error}"));
    assert!(done.status.success(), "{need}: {}", text(&done));
}

fn text(done: &Output) -> String {
    format!(
        "{}\n{}{}",
        done.status,
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    )
}
