//! `cargo xtask`: everything that is done to this project from a shell: building, starting, testing, migrating.
//!
//! Reading order: this file names the commands; [`up`], [`test`] and [`migrate`] are one command each; [`components`]
//! builds for the target that [`toolchain`] makes sure of; the crate `private-postgres` runs private servers, and
//! starts and stops programs.

mod application;
mod bench;
mod components;
mod database;
mod demo;
mod deny;
mod fuzz;
mod litellm;
mod lock;
mod migrate;
mod project;
mod secret;
mod soak;
mod temporary_postgres;
mod test;
mod toolchain;
mod tools;
mod up;

use clap::{Parser, Subcommand};
use private_postgres::{self as postgres, ports, processes, progress};
use std::{ffi::OsString, process::ExitCode};

/// Builds, starts and tests llm-jobs. Nothing but Rust has to be installed; what is missing is fetched, or named.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Builds the WebAssembly components, the test-only ones too, getting the compiler's wasm32-wasip2 target first.
    Build,
    /// Starts the application with PostgreSQL and a LiteLLM stand-in, and serves until Ctrl-C.
    ///
    /// Uses a PostgreSQL of its own in .data/ unless DATABASE_URL names one (and MIGRATION_DATABASE_URL, the same with
    /// the rights of its owner, where those differ), a stand-in that echoes unless LITELLM_URL and LITELLM_MASTER_KEY
    /// name a LiteLLM, and a kept random admin key unless ADMIN_KEY holds one.
    Up(up::Options),
    /// Checks format and lints, and runs the tests of units and of the SQL, with a PostgreSQL of its own: minutes, when
    /// much is built.
    Check,
    /// Checks everything, with a PostgreSQL of its own; stops at the first failure.
    Test {
        /// Run the tests whose names contain this, and nothing else.
        filter: Option<String>,
    },
    /// Drives the application at random from many clients at once, with faults, and audits every answer; prints a
    /// report.
    ///
    /// A part of `test`, with one minute. Its arguments are those of tests/soak: `--minutes N`, `--seed S`, and others
    /// by `--help`.
    #[command(disable_help_flag = true)]
    Soak {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Measures the application against the stand-in alone, a native server and, where LITELLM_URL and
    /// LITELLM_MASTER_KEY name one, a real LiteLLM, side by side in one run. Needs wrk and valgrind.
    ///
    /// Its arguments are those of bench/, which `--help` shows.
    #[command(disable_help_flag = true)]
    Bench {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Fuzzes what parses bytes from outside, for a bounded time. A part of `test`, with 50,000 inputs for each target.
    Fuzz(fuzz::Options),
    /// Checks licences, duplicates, sources and advisories of all dependencies by the rules of deny.toml. A part of
    /// `test`.
    Deny {
        /// Fail, rather than say so, where the database of advisories can't be reached.
        #[arg(long)]
        require_advisories: bool,
    },
    /// Brings a database up to date with this release: an empty one, or one of an earlier release.
    Migrate(migrate::Options),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    processes::catch_signals();
    let result = match arguments.command {
        Command::Build => components::build(components::Scope::WithTestOnly),
        Command::Up(options) => up::run(&options),
        Command::Check => test::check(),
        Command::Test { filter } => test::run(filter.as_deref()),
        Command::Soak { arguments } => soak::run(&arguments),
        Command::Bench { arguments } => bench::run(&arguments),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Deny { require_advisories } => deny::run(require_advisories),
        Command::Migrate(options) => migrate::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
