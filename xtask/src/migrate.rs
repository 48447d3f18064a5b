//! `cargo xtask migrate`.

use crate::{database, up};
use anyhow::Result;

/// Applies the migrations to the database at `url`, or to the one that `up` keeps in `.data/`.
pub fn run(url: Option<&str>) -> Result<()> {
    if let Some(url) = url {
        return database::migrate(url);
    }
    let home = up::database_home()?;
    match up::lock()? {
        // Nobody else uses the server, so it runs for as long as this takes.
        Some(_lock) => {
            let server = home.start(&[])?;
            database::migrate(&up::application_database(&server.superuser_url())?.owner)
        }
        None => database::migrate(&up::application_database(&home.superuser_url()?)?.owner),
    }
}
