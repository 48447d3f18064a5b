//! The programs that are measured, each a process of its own beside this one.

use anyhow::{Context, Result, bail};
use private_postgres::{
    ports,
    processes::{self, Process},
};
use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

/// A program that serves HTTP. Dropping it stops it.
pub struct Program {
    process: Process,
    /// `http://127.0.0.1:PORT`
    pub url: String,
    /// From its start until it listened.
    pub started_in: Duration,
}

impl Program {
    /// Starts a program that this crate or a test crate builds, which `command` makes to listen on the port it is
    /// given.
    pub fn start(name: &str, logs: &Path, command: impl FnOnce(&mut Command, u16)) -> Result<Self> {
        let port = ports::free()?;
        let mut program = Command::new(beside(name)?);
        command(&mut program, port);
        let log = File::create(logs.join(format!("{name}-{port}.log")))?;
        program.stdout(log.try_clone()?).stderr(log);
        let since = Instant::now();
        let mut process = Process::start(name, &mut program)?;
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            if let Some(status) = process.exit_status()? {
                bail!("{name} did not start ({status}): see {}", logs.display());
            }
            processes::pause(Duration::from_millis(1))?;
        }
        Ok(Self { process, url: format!("http://127.0.0.1:{port}"), started_in: since.elapsed() })
    }

    /// The memory it has in use, in MiB: what the system calls its resident set.
    pub fn memory_mib(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))
            .context("memory is read from /proc, which only Linux has")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib / 1024.0)
    }

    /// The time its threads have worked so far.
    pub fn worked(&self) -> Result<Duration> {
        processes::worked(self.process.id()).context("working time is read from /proc, which only Linux has")
    }
}

/// A program of the same build as this one.
pub fn beside(name: &str) -> Result<PathBuf> {
    let file = env::current_exe()?.with_file_name(name);
    if !file.is_file() {
        bail!("{} is missing: `cargo xtask bench` builds it", file.display());
    }
    Ok(file)
}
