//! `cargo xtask migrate`.

use crate::{database, up};
use anyhow::Result;

/// What the command line says.
#[derive(clap::Args)]
pub struct Options {
    /// The database, as `postgres://user:password@host/name`, with `?sslmode=require` for TLS; without it, the one
    /// that `up` keeps in .data/.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: Option<String>,
    /// Say what it would do, and change nothing.
    #[arg(long)]
    plan: bool,
    /// Print a script for `psql` that does the same to any database, and writes it down in the same way.
    #[arg(long, conflicts_with = "plan")]
    script: bool,
}

/// Migrates the database that the options name, or tells how.
pub fn run(options: &Options) -> Result<()> {
    if options.script {
        print!("{}", migrations::script());
        return Ok(());
    }
    let migrate = if options.plan { database::plan } else { database::migrate };
    if let Some(url) = options.database_url.as_deref().filter(|url| !url.is_empty()) {
        return migrate(url);
    }
    let home = up::database_home()?;
    match up::lock()? {
        // Nobody else uses the server, so it runs for as long as this takes.
        Some(_lock) => {
            let server = home.start(&[])?;
            migrate(&up::application_database(&server.superuser_url())?.owner)
        }
        None => migrate(&up::application_database(&home.superuser_url()?)?.owner),
    }
}
