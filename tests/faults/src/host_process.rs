//! The application in a process of its own.

use crate::keeper::Keeper;
use anyhow::{Context, Result, bail};
use api_tests::repository;
use private_postgres::{
    ports,
    processes::{self, Process},
};
use std::{
    collections::BTreeMap,
    env,
    fs::{self, OpenOptions},
    net::TcpStream,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// The first start after a build compiles every component to machine code.
const START_LIMIT: Duration = Duration::from_secs(180);

/// The project's own host, serving `spin.toml` with a key-value store of its own. It may be killed, and starts again on
/// the same port with the same store. Dropping it kills it.
pub struct HostProcess {
    // Dropped before the folder.
    keeper: Keeper<Kept>,
    folder: TempDir,
    port: u16,
}

struct Kept {
    process: Option<Process>,
    variables: BTreeMap<String, String>,
    folder: PathBuf,
    port: u16,
}

impl HostProcess {
    /// Starts one with these variables of `spin.toml`; done when it listens.
    pub async fn start(variables: BTreeMap<String, String>) -> Result<Self> {
        let folder = TempDir::with_prefix("llm-jobs-host-")?;
        let (path, port) = (folder.path().to_owned(), ports::free()?);
        let keeper = Keeper::start(move || {
            let mut kept = Kept { process: None, variables, folder: path, port };
            kept.start()?;
            Ok(kept)
        })
        .await?;
        Ok(Self { keeper, folder, port })
    }

    /// Where it listens: `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Ends it in the middle of whatever it does.
    pub async fn kill(&self) {
        self.keeper
            .with(|kept| {
                if let Some(mut process) = kept.process.take() {
                    process.kill();
                }
            })
            .await;
    }

    /// Ends it in order: requests get up to five seconds.
    pub async fn stop(&self) {
        self.keeper.with(|kept| drop(kept.process.take())).await;
    }

    /// Starts it again once it has ended; done when it listens.
    pub async fn restart(&self) -> Result<()> {
        self.keeper.with(Kept::start).await
    }

    /// What its components and it itself have logged so far, over all its starts.
    pub fn logs(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for HostProcess {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let logs = self.logs();
            let requests: Vec<&str> = logs.lines().filter(|line| !line.contains("http://")).collect();
            let last = &requests[requests.len().saturating_sub(20)..];
            eprintln!("the last lines that {} has logged:\n{}", self.url(), last.join("\n"));
        }
    }
}

impl Kept {
    fn start(&mut self) -> Result<()> {
        let log = OpenOptions::new().create(true).append(true).open(self.folder.join("log"))?;
        let mut host = Command::new(program()?);
        host.arg("up").arg("--from").arg(repository().join("spin.toml"));
        host.args(["--listen", &format!("127.0.0.1:{}", self.port)]);
        host.arg("--state-dir").arg(self.folder.join("state"));
        for (name, value) in &self.variables {
            host.env(format!("SPIN_VARIABLE_{}", name.to_uppercase()), value);
        }
        host.stdout(log.try_clone()?).stderr(log);
        let process = self.process.insert(Process::start("the host", &mut host)?);
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            if let Some(status) = process.exit_status()? {
                let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                bail!("the host did not start ({status}): {log}");
            }
            if started.elapsed() > START_LIMIT {
                bail!("the host did not listen within {} s", START_LIMIT.as_secs());
            }
            processes::pause(Duration::from_millis(10))?;
        }
        Ok(())
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }
}

/// The host as cargo has built it, in the folder above that of this test.
fn program() -> Result<PathBuf> {
    let test = env::current_exe()?;
    let mut folders = test.ancestors().skip(1).take(2);
    folders.find_map(|folder| Some(folder.join("host")).filter(|host| host.is_file())).with_context(|| {
        format!(
            "the program `host` is not beside {}: `cargo xtask test` builds it, or `cargo build -p host`",
            test.display()
        )
    })
}
