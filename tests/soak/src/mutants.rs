//! Ways to break the product that a run has to notice.

use anyhow::{Context, Result, ensure};
use tokio_postgres::Client;

/// A change of one migration that makes the product wrong.
#[derive(Clone, Copy, Debug)]
pub struct Mutant {
    /// What is wrong with it.
    pub name: &'static str,
    /// The rules of which one has to notice it.
    pub breaks: &'static [&'static str],
    /// The replacements: file, text, and what takes its place. The text must be there once.
    pub changes: &'static [(&'static str, &'static str, &'static str)],
}

impl Mutant {
    /// Makes the database anew with the changed migrations.
    pub async fn apply_to(&self, client: &Client) -> Result<()> {
        client.batch_execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public").await?;
        for migration in migrations::ALL {
            let mut sql = migration.sql.to_owned();
            for (file, text, replacement) in self.changes.iter().filter(|change| change.0 == migration.file) {
                ensure!(
                    sql.matches(text).count() == 1,
                    "the mutant '{}' is stale: '{text}' is not once in {file}",
                    self.name
                );
                sql = sql.replace(text, replacement);
            }
            client
                .batch_execute(&sql)
                .await
                .with_context(|| format!("{} as the mutant '{}'", migration.file, self.name))?;
        }
        let known = |file: &str| migrations::ALL.iter().any(|migration| migration.file == file);
        for (file, ..) in self.changes {
            ensure!(known(file), "the mutant '{}' is stale: there is no {file}", self.name);
        }
        Ok(())
    }
}
