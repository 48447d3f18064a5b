//! The stand-in as a program.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use litellm_stand_in::{Config, StandIn};
use tokio::signal::unix::{SignalKind, signal};

/// A stand-in for the LiteLLM proxy, for tests and a first start. It is not LiteLLM and calls no model: answers echo
/// the prompt, and prices are those of its configuration.
#[derive(Parser)]
#[command(name = "litellm-stand-in", version)]
struct Options {
    /// The address to listen on
    #[arg(long, default_value = "127.0.0.1:21500")]
    listen: SocketAddr,
    /// The admin's key; starts with sk-
    #[arg(long, env = "LITELLM_MASTER_KEY", default_value = "sk-stand-in-master", hide_env_values = true)]
    master_key: String,
    /// A file to keep teams and keys (their hashes) in over restarts; without it everything is forgotten
    #[arg(long)]
    state: Option<PathBuf>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let options = Options::parse();
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    let config = Config { listen: options.listen, master_key: options.master_key };
    let standing = StandIn::start_unrecorded(config, options.state.as_deref()).await?;
    println!("LiteLLM stand-in listening on {}", standing.url());
    tokio::select! {
        _ = interrupted.recv() => {}
        _ = terminated.recv() => {}
    }
    standing.save()
}
