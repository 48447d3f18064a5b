//! Starting programs and making sure that they end.
//!
//! Every program gets a process group of its own, so that Ctrl-C reaches this process alone, which then stops what it
//! started in the order that it wants, with all descendants that stayed in the group. A [`Process`] that is dropped is
//! stopped. A signal makes every wait here end with an error, so that the stack unwinds and everything gets dropped.
//! When this process itself is killed with SIGKILL, Linux ends the programs; elsewhere they stay behind.

use anyhow::{Context, Result, bail};
pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process, kill_process_group};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::{
    fs,
    os::unix::process::CommandExt,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

const POLL: Duration = Duration::from_millis(20);

static INTERRUPTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// From here on SIGINT, SIGTERM and SIGHUP end this process in an orderly way.
pub fn catch_signals() {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, INTERRUPTED.clone()).expect("the signal may be caught");
    }
}

/// Whether a signal asked this process to end.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// An error once a signal asked this process to end.
pub fn check_interrupted() -> Result<()> {
    if interrupted() {
        bail!("interrupted");
    }
    Ok(())
}

/// Sleeps a moment between two looks at something that is waited for; an error when a signal came.
pub fn pause(duration: Duration) -> Result<()> {
    let end = Instant::now() + duration;
    while Instant::now() < end {
        check_interrupted()?;
        thread::sleep(POLL.min(duration));
    }
    check_interrupted()
}

/// A running program. Dropping it stops it.
pub struct Process {
    name: String,
    child: Child,
    stop_signal: Signal,
    ended: bool,
}

impl Process {
    /// Starts a program without standard input, to be ended with SIGTERM. `name` is what messages call it.
    pub fn start(name: &str, command: &mut Command) -> Result<Process> {
        Process::start_to_stop_with(Signal::TERM, name, command)
    }

    /// Starts a program that another signal asks to end.
    pub fn start_to_stop_with(stop_signal: Signal, name: &str, command: &mut Command) -> Result<Process> {
        check_interrupted()?;
        let program = command.get_program().to_owned();
        #[cfg(target_os = "linux")]
        // SAFETY: between fork and exec this makes one system call; it neither allocates nor takes a lock.
        unsafe {
            command
                .pre_exec(move || Ok(rustix::process::set_parent_process_death_signal(Some(stop_signal))?));
        }
        let child = command
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {name} ({})", program.display()))?;
        Ok(Process { name: name.to_owned(), child, stop_signal, ended: false })
    }

    /// What messages call the program.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How the program ended; `None` while it runs. What it left in its process group is killed when it is seen to have
    /// ended.
    pub fn exit_status(&mut self) -> Result<Option<ExitStatus>> {
        let status = self.child.try_wait().with_context(|| format!("cannot wait for {}", self.name))?;
        if status.is_some() && !self.ended {
            self.ended = true;
            self.signal(Signal::KILL);
        }
        Ok(status)
    }

    /// Waits until the program ends, or a signal or the deadline comes; after either of the latter the program is
    /// stopped by being dropped.
    pub fn wait(mut self, limit: Option<Duration>) -> Result<ExitStatus> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.exit_status()? {
                return Ok(status);
            }
            check_interrupted()?;
            if limit.is_some_and(|limit| started.elapsed() > limit) {
                bail!("{} was not done after {} s", self.name, started.elapsed().as_secs());
            }
            thread::sleep(POLL);
        }
    }

    /// Asks the program to end and waits for that; after 20 seconds it is killed.
    pub fn stop(&mut self) {
        let started = Instant::now();
        self.signal(self.stop_signal);
        while matches!(self.exit_status(), Ok(None)) {
            if started.elapsed() > Duration::from_secs(20) {
                self.signal(Signal::KILL);
                let _ = self.child.wait();
                return;
            }
            thread::sleep(POLL);
        }
    }

    /// Ends the program at once, in the middle of whatever it does, and what is in its process group with it.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.child.wait();
        self.ended = true;
    }

    /// Sends a signal to the program and what is in its process group.
    pub fn signal(&self, signal: Signal) {
        let group = Pid::from_raw(self.child.id() as i32).expect("a process id is positive");
        // The group is gone when its last process is.
        let _ = kill_process_group(group, signal);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.ended {
            self.stop();
        }
    }
}

/// The processes that a process has started and that still run, on Linux; none elsewhere.
pub fn children(parent: u32) -> Vec<u32> {
    let ids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = ids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter(|id| self::parent(*id) == Some(parent)).collect()
}

/// The process that has started a process, on Linux.
pub fn parent(id: u32) -> Option<u32> {
    state(id)?.get(1)?.parse().ok()
}

/// For how long the threads of a process have worked, on Linux.
pub fn worked(id: u32) -> Option<Duration> {
    let state = state(id)?;
    let ticks = |field: usize| state.get(field)?.parse::<u64>().ok();
    // Linux tells it in hundredths of a second.
    Some(Duration::from_millis(10 * (ticks(11)? + ticks(12)?)))
}

/// The fields of a process's `/proc/ID/stat` from its state on.
fn state(id: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name before them, in brackets, may hold anything.
    Some(stat.rsplit_once(") ")?.1.split(' ').map(str::to_owned).collect())
}

/// Sends a signal to one process, if it is still there.
pub fn signal(id: u32, signal: Signal) {
    if let Some(id) = Pid::from_raw(id as i32) {
        let _ = kill_process(id, signal);
    }
}

/// Runs a program to its end; an error unless it succeeds.
pub fn run(name: &str, command: &mut Command) -> Result<()> {
    let status = Process::start(name, command)?.wait(None)?;
    if !status.success() {
        bail!("{name} failed ({status})");
    }
    Ok(())
}

/// Runs a short program and gives back what it printed; an error with its error output unless it succeeds.
pub fn output(name: &str, command: &mut Command) -> Result<String> {
    check_interrupted()?;
    let output: Output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {name}"))?;
    if !output.status.success() {
        bail!("{name} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("{name} printed something that is not UTF-8"))
}
