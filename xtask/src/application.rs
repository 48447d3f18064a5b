//! Running the application that spin.toml describes: with Spin where it is installed, else with the project's own host.

use crate::{database::Address, litellm::LiteLlm, processes, processes::Process, progress, project};
use anyhow::{Context, Result, bail};
use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// The package and program of the project's own host.
pub const HOST: &str = "host";

/// The oldest Spin that runs the application.
const OLDEST_SPIN: (u32, u32) = (4, 1);

/// The first start compiles every component to machine code.
const START_LIMIT: Duration = Duration::from_secs(180);

/// What runs the application.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    /// `spin up`.
    Spin,
    /// The project's own host.
    Host,
}

impl Runtime {
    /// Spin if the `PATH` has a new enough one.
    pub fn find() -> Runtime {
        let Ok(printed) = processes::output("spin", Command::new("spin").arg("--version")) else {
            return Runtime::Host;
        };
        if spin_version(&printed).is_some_and(|version| version >= OLDEST_SPIN) {
            return Runtime::Spin;
        }
        let (major, minor) = OLDEST_SPIN;
        progress::note(&format!(
            "{} is too old (Spin {major}.{minor} is needed): not using it",
            printed.trim()
        ));
        Runtime::Host
    }
}

/// `(4, 1)` of `spin 4.1.0 (abcdef0 2026-05-01)`.
fn spin_version(printed: &str) -> Option<(u32, u32)> {
    let mut numbers = printed.split_whitespace().nth(1)?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Starts the application at `http://127.0.0.1:port` and waits until it is healthy.
pub fn start(
    runtime: Runtime,
    port: u16,
    database: &Address,
    litellm: &LiteLlm,
    admin_key: &str,
) -> Result<Process> {
    let mut command = match runtime {
        Runtime::Spin => Command::new("spin"),
        Runtime::Host => Command::new(project::program(HOST)?),
    };
    let state = project::data()?.join(if runtime == Runtime::Spin { "spin" } else { "host" });
    command.arg("up").arg("--from").arg(project::root().join("spin.toml"));
    command.args(["--listen", &format!("127.0.0.1:{port}")]).arg("--state-dir").arg(state);
    // Secrets go through the environment: everyone on the machine can read the arguments.
    for (name, value) in [
        ("DATABASE_HOST", database.host.as_str()),
        ("DATABASE_PORT", &database.port.to_string()),
        ("DATABASE_NAME", &database.name),
        ("DATABASE_USER", &database.user),
        ("DATABASE_PASSWORD", &database.password),
        ("DATABASE_SSLMODE", database.sslmode),
        ("LITELLM_URL", &litellm.url),
        ("LITELLM_MASTER_KEY", &litellm.master_key),
        ("ADMIN_KEY", admin_key),
    ] {
        command.env(format!("SPIN_VARIABLE_{name}"), value);
    }
    // The components' logs go on to the terminal; the list of routes would hide what is printed here.
    command.current_dir(project::root()).stdout(Stdio::null());

    let mut process = Process::start("the application", &mut command)?;
    wait_until_healthy(&mut process, port)?;
    Ok(process)
}

fn wait_until_healthy(process: &mut Process, port: u16) -> Result<()> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(5)))
        .http_status_as_error(false)
        .proxy(None)
        .build()
        .into();
    let url = format!("http://127.0.0.1:{port}/health");
    let started = Instant::now();
    loop {
        let answer = agent.get(&url).call();
        if answer.as_ref().is_ok_and(|answer| answer.status() == 200) {
            return Ok(());
        }
        if let Some(status) = process.exit_status()? {
            bail!("the application ended before it was ready ({status})");
        }
        if started.elapsed() > START_LIMIT {
            let last = match answer {
                Ok(mut answer) => {
                    format!("{}: {}", answer.status(), answer.body_mut().read_to_string().unwrap_or_default())
                }
                Err(error) => error.to_string(),
            };
            return Err(anyhow::Error::msg(last))
                .with_context(|| format!("GET {url} was not 200 after {} s", START_LIMIT.as_secs()));
        }
        processes::pause(Duration::from_millis(100))?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_spin_is_read_and_compared_by_numbers() {
        assert_eq!(spin_version("spin 4.1.0 (abcdef0 2026-05-01)\n"), Some((4, 1)));
        assert_eq!(spin_version("spin 4.10.2-pre0"), Some((4, 10)));
        assert_eq!(spin_version("no such thing"), None);
        assert!(spin_version("spin 3.12.0") < Some(OLDEST_SPIN));
    }
}
