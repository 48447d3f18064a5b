//! Ways to break the product that a run has to notice.

use anyhow::{Context, Result};
use migrations::Schema;
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
    /// The changed migrations.
    pub fn schema(&self) -> Result<Schema> {
        let mut schema = Schema::current();
        for (name, text, replacement) in self.changes {
            let mut files = schema.tables.iter_mut().chain(&mut schema.functions);
            let file = files.find(|file| file.name == *name);
            let stale = || format!("the mutant '{}' is stale: '{text}' is not once in {name}", self.name);
            let file = file.filter(|file| file.sql.matches(text).count() == 1).with_context(stale)?;
            file.sql = file.sql.replace(text, replacement).into();
        }
        Ok(schema)
    }

    /// Makes the database anew with the changed migrations.
    pub async fn apply_to(&self, client: &Client) -> Result<()> {
        client.batch_execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public").await?;
        let applied = self.schema()?.apply_to(client).await;
        applied.with_context(|| format!("the mutant '{}'", self.name)).map(drop)
    }
}
