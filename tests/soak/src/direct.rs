//! The database past the application, also after it was away.

use crate::team::lock;
use anyhow::{Context, Result};
use std::{sync::Arc, sync::Mutex, time::Duration};
use tokio_postgres::{Client, Config, NoTls, Row, types::ToSql};

/// How long the database may be away.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection that is made anew when it was lost.
pub struct Direct {
    config: Config,
    client: Mutex<Option<Arc<Client>>>,
}

impl Direct {
    /// A client of this database, which connects when it is first used.
    pub fn new(config: Config) -> Self {
        Self { config, client: Mutex::default() }
    }

    /// Runs a statement that may be run again without harm, until it is known that it was run.
    pub async fn query(&self, statement: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>> {
        let trying = async {
            loop {
                if let Ok(client) = self.client().await {
                    match client.query(statement, parameters).await {
                        Err(error) if is_lost(&error) => {}
                        answer => return answer.context(statement.to_owned()),
                    }
                }
                lock(&self.client).take();
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(PATIENCE, trying).await.context("the database does not come back")?
    }

    /// A connection.
    pub async fn client(&self) -> Result<Arc<Client>> {
        if let Some(client) = lock(&self.client).clone().filter(|client| !client.is_closed()) {
            return Ok(client);
        }
        let (client, connection) = self.config.connect(NoTls).await?;
        tokio::spawn(connection);
        let client = Arc::new(client);
        *lock(&self.client) = Some(client.clone());
        Ok(client)
    }
}

/// Whether a statement may or may not have been run, or can't be just now, rather than being refused for what it is.
fn is_lost(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_none_or(|error| error.code().code().starts_with("57"))
}
