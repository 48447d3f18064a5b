//! What the command line says.

use clap::{Parser, ValueEnum};
use std::path::PathBuf;

/// Measures the application side by side with what it is compared to, in one run on this machine.
///
/// With LITELLM_URL and LITELLM_MASTER_KEY in the environment a real LiteLLM is measured too; it must know the model
/// gpt-4o-mini.
#[derive(Parser)]
#[command(name = "bench", bin_name = "cargo xtask bench")]
pub struct Options {
    /// What to measure; all of it if nothing is named
    #[arg(value_enum)]
    pub what: Vec<What>,
    /// How often each measurement is made, in turn with those that it is compared to
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// How long wrk runs each time
    #[arg(long, default_value_t = 3)]
    pub seconds: u32,
    /// Database connections that the native baseline and each of our components may have open
    #[arg(long, default_value_t = 64)]
    pub max_pg_connections: usize,
    /// Where to write the figures: this name with .json, and as a table with .md
    #[arg(long)]
    pub write: Option<PathBuf>,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// Buffered calls
    Call,
    /// Streams
    Stream,
    /// Jobs, created and completed
    Jobs,
    /// Reads in databases of different sizes
    Reads,
    /// Instances, starts, memory, sizes
    Start,
    /// What one call costs, counted
    Cost,
}

impl Options {
    /// Whether this is to be measured.
    pub fn wants(&self, what: What) -> bool {
        self.what.is_empty() || self.what.contains(&what)
    }
}
