//! `host up`: serves an application from its `spin.toml`.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};
use host::{Application, Logs, Settings};
use tokio::signal::unix::{SignalKind, signal};

/// The project's own host for Spin applications, built on wasmtime. It is not Spin: it is there for tests and for
/// machines without Spin, and behaves as `spin up` does for what this project uses.
#[derive(Parser)]
#[command(name = "host", version)]
struct Command {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Serve an application until SIGINT or SIGTERM
    ///
    /// Variables come from SPIN_VARIABLE_<NAME> in the environment or from --variable. This is the project's own host,
    /// not Spin; tests/host/README.md lists what differs.
    Up(Up),
}

#[derive(Args)]
struct Up {
    /// The manifest, or the folder that has it as spin.toml
    #[arg(short, long = "from", default_value = "spin.toml")]
    from: PathBuf,
    /// Address and port to listen on; port 0 takes a free one
    #[arg(long, env = "SPIN_HTTP_LISTEN_ADDR", default_value = "127.0.0.1:3000", value_parser = listen_address)]
    listen: SocketAddr,
    /// A value for an application variable
    #[arg(long = "variable", value_name = "NAME=VALUE", value_parser = variable)]
    variables: Vec<(String, String)>,
    /// Folder for the key-value store; without it, the store is in memory and gone with the process
    #[arg(long)]
    state_dir: Option<PathBuf>,
    /// Requests that one instance serves in all
    #[arg(long, default_value_t = Settings::default().max_instance_reuse_count)]
    max_instance_reuse_count: usize,
    /// Requests that one instance serves at the same time
    #[arg(long, default_value_t = Settings::default().max_instance_concurrent_reuse_count)]
    max_instance_concurrent_reuse_count: usize,
    /// How long a request may take until its answer starts, as in 30s or 500ms [default: for ever]
    #[arg(long, value_parser = duration)]
    request_timeout: Option<Duration>,
    /// How long an instance with nothing to do is kept
    #[arg(long, env = "SPIN_HTTP_IDLE_INSTANCE_TIMEOUT_SECS", default_value = "1s", value_parser = duration)]
    idle_instance_timeout: Duration,
    /// Bytes of memory that one instance may have [default: as many as there are]
    #[arg(long, env = "SPIN_MAX_INSTANCE_MEMORY")]
    max_instance_memory: Option<usize>,
    /// Database connections that each component may have open; one more request waits [Spin: runtime configuration]
    #[arg(long, default_value_t = Settings::default().max_pg_connections)]
    max_pg_connections: usize,
    /// Silence the components' output
    #[arg(short, long)]
    quiet: bool,
}

#[tokio::main]
async fn main() -> Result<()> {
    match Command::parse().action {
        Action::Up(up) => serve(up).await,
    }
}

async fn serve(up: Up) -> Result<()> {
    let manifest = if up.from.is_dir() { up.from.join("spin.toml") } else { up.from };
    let application = Application::load(&manifest)?;
    let settings = Settings {
        listen: up.listen,
        variables: up.variables.into_iter().collect(),
        state_dir: up.state_dir,
        max_instance_reuse_count: up.max_instance_reuse_count,
        max_instance_concurrent_reuse_count: up.max_instance_concurrent_reuse_count,
        request_timeout: up.request_timeout,
        idle_instance_timeout: up.idle_instance_timeout,
        max_instance_memory: up.max_instance_memory,
        max_pg_connections: up.max_pg_connections,
        logs: if up.quiet { Logs::Discard } else { Logs::Stderr },
    };
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let running = application.start(settings).await?;
    let url = format!("http://{}", running.addr());
    println!("Serving {url}\nAvailable Routes:");
    for (route, component) in running.routes() {
        let shown = match route.strip_suffix("/...") {
            Some(prefix) => format!("{prefix} (wildcard)"),
            None => route.to_owned(),
        };
        println!("  {component}: {url}{shown}");
    }
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    running.shutdown().await;
    Ok(())
}

fn listen_address(text: &str) -> Result<SocketAddr> {
    let mut addresses: Vec<_> = text.to_socket_addrs()?.collect();
    addresses.sort_by_key(SocketAddr::is_ipv6);
    addresses.into_iter().next().context("the address has no meaning here")
}

fn variable(text: &str) -> Result<(String, String)> {
    let (name, value) = text.split_once('=').context("a variable is given as NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Spin's notation: a number with `s`, `ms`, `us` or `ns`; without a unit it is seconds.
fn duration(text: &str) -> Result<Duration> {
    let digits = text.trim_end_matches(|character: char| !character.is_ascii_digit());
    let number = digits.parse().with_context(|| format!("{text:?} does not start with a whole number"))?;
    Ok(match &text[digits.len()..] {
        "" | "s" => Duration::from_secs(number),
        "ms" => Duration::from_millis(number),
        "us" | "μs" => Duration::from_micros(number),
        "ns" => Duration::from_nanos(number),
        unit => anyhow::bail!("{unit:?} is not one of s, ms, us, ns"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_spin_has_them() {
        for (text, expected) in [
            ("5", Duration::from_secs(5)),
            ("5s", Duration::from_secs(5)),
            ("250ms", Duration::from_millis(250)),
            ("7us", Duration::from_micros(7)),
            ("7μs", Duration::from_micros(7)),
            ("9ns", Duration::from_nanos(9)),
        ] {
            assert_eq!(duration(text).unwrap(), expected, "{text}");
        }
        for text in ["", "s", "5m", "1.5s", "-1s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_variable_may_hold_an_equals_sign() {
        assert_eq!(variable("a=b=c").unwrap(), ("a".into(), "b=c".into()));
        assert!(variable("a").is_err());
    }
}
