//! A PostgreSQL for as long as some work takes.

use crate::{lock, postgres::Home, progress, project};
use anyhow::Result;

/// Does `work` with the superuser's URL of a PostgreSQL with nothing in it, which ends with it. `name` is its folder
/// beside what cargo builds; of each there is one at a time. `settings` are PostgreSQL's own, `name=value`.
pub fn with(name: &str, settings: &[&str], work: impl FnOnce(&str) -> Result<()>) -> Result<()> {
    let home = || Home::new(project::target().join(name));
    let _lock = lock::take(&project::target().join(format!("{name}.lock")), "another run in this checkout")?;
    let server = progress::step("Starting a PostgreSQL", || {
        home()?.end_leftover()?;
        home()?.remove()?;
        home()?.start(settings)
    })?;
    let result = work(&server.superuser_url());
    drop(server);
    result.and(home()?.remove())
}
