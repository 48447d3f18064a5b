//! The database schema, as numbered SQL files that are compiled in, and the one function that applies them.
//!
//! Guarantees: files are applied in the order of their numbers, each in a transaction of its own together with its row
//! in `schema_migrations`, so a file has taken effect if and only if it is recorded; applying again changes nothing;
//! of several runs at once on one database only one works and the others wait; a file that was changed after it was
//! applied is an error that names it.
//!
//! Left to others: there is no way back (write a new file instead), and a file must not hold statements that refuse to
//! run in a transaction, such as `CREATE INDEX CONCURRENTLY`. The files are plain SQL: `psql -1 -f` in the same order
//! gives the same schema.

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, NoTls, config::SslMode, error::DbError};
use tokio_postgres_rustls::MakeRustlsConnect;

/// The advisory lock that a run holds, in each database on its own. An arbitrary constant: the ASCII codes of `llm-jobs`.
const LOCK: i64 = i64::from_be_bytes(*b"llm-jobs");

const CREATE_TABLE: &str = "
    CREATE TABLE IF NOT EXISTS schema_migrations (
        number     integer     PRIMARY KEY,
        file       text        NOT NULL,
        checksum   text        NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT now()
    )";

const RECORD: &str = "INSERT INTO schema_migrations (number, file, checksum) VALUES ($1, $2, $3)";

/// Every migration in the order of its number, which starts at 1 and has no gaps.
pub const ALL: &[Migration] = include!(concat!(env!("OUT_DIR"), "/migrations.rs"));

/// One SQL file.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// The number that the file name starts with.
    pub number: i32,
    /// The file's name in `migrations/`, such as `0001_tenants.sql`.
    pub file: &'static str,
    /// What the file holds.
    pub sql: &'static str,
}

impl Migration {
    /// The SHA-256 of the file, in lower-case hexadecimal.
    fn checksum(&self) -> String {
        Sha256::digest(self.sql.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// What a run did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The files that this run applied, in order; empty when the database was up to date.
    pub new: Vec<&'static str>,
    /// How many migrations the database has now.
    pub total: usize,
}

/// Brings the database that `database_url` names (a `postgres://` URL or `key=value` pairs) up to date with [`ALL`].
///
/// The connection is encrypted if and only if the address says `sslmode=require`. The server's certificate must then be
/// for its host name and from an authority that the system trusts, or one in the file that `SSL_CERT_FILE` names.
///
/// # Errors
/// When the server can't be reached, a file fails (the error says where; it and the files after it have no effect), an
/// applied file was changed since, or the database holds migrations that this build does not know.
pub async fn apply(database_url: &str) -> Result<Applied> {
    apply_these(database_url, ALL).await
}

async fn apply_these(database_url: &str, migrations: &[Migration]) -> Result<Applied> {
    let (mut client, connection) = connect(database_url).await?;

    client
        .execute("SELECT pg_advisory_lock($1)", &[&LOCK])
        .await
        .context("waiting for another migration run")?;
    let applied = apply_locked(&mut client, migrations).await;

    // Closing the connection gives the lock back too; waiting for that makes it certain before this returns.
    drop(client);
    let _ = connection.await;
    applied
}

/// Connects; the task ends with the connection.
async fn connect(database_url: &str) -> Result<(Client, JoinHandle<()>)> {
    const FAILED: &str = "cannot connect to PostgreSQL";
    let config: Config = database_url.parse().context("the database's address is no PostgreSQL URL")?;
    // How the connection ended shows in the answer to whatever was asked last.
    if config.get_ssl_mode() != SslMode::Require {
        let (client, connection) = config.connect(NoTls).await.context(FAILED)?;
        return Ok((client, tokio::spawn(async { drop(connection.await) })));
    }
    let Ok((tls, _unreadable)) = MakeRustlsConnect::with_native_certs() else {
        bail!("sslmode=require: the system has no certificates of authorities (or SSL_CERT_FILE names none)");
    };
    let (client, connection) = config.connect(tls).await.context(FAILED)?;
    Ok((client, tokio::spawn(async { drop(connection.await) })))
}

async fn apply_locked(client: &mut Client, migrations: &[Migration]) -> Result<Applied> {
    // Without the look first, every repeated run would print the server's notice that the table exists.
    let known = "SELECT to_regclass('schema_migrations') IS NOT NULL";
    if !client.query_one(known, &[]).await?.get::<_, bool>(0) {
        client.batch_execute(CREATE_TABLE).await.context("cannot create the table schema_migrations")?;
    }

    let rows =
        client.query("SELECT number, file, checksum FROM schema_migrations ORDER BY number", &[]).await?;
    for (index, row) in rows.iter().enumerate() {
        let (number, file, checksum): (i32, &str, &str) = (row.get(0), row.get(1), row.get(2));
        match migrations.get(index) {
            Some(migration) if migration.number == number && migration.checksum() == checksum => {}
            Some(migration) if migration.number == number => bail!(
                "migrations/{} was changed after it was applied to this database: put the file back as it was and \
                 write the change as a new migration (or begin with a new database, where the data may be lost)",
                migration.file
            ),
            _ => bail!(
                "the database has the migration {file}, which this build does not know: use a newer build"
            ),
        }
    }

    let mut new = Vec::new();
    for migration in migrations.iter().skip(rows.len()) {
        let transaction = client.transaction().await?;
        if let Err(error) = transaction.batch_execute(migration.sql).await {
            bail!("migrations/{}: {}", migration.file, explain(&error, migration.sql));
        }
        transaction
            .execute(RECORD, &[&migration.number, &migration.file, &migration.checksum()])
            .await
            .with_context(|| format!("cannot record migrations/{}", migration.file))?;
        transaction.commit().await.with_context(|| format!("cannot commit migrations/{}", migration.file))?;
        new.push(migration.file);
    }
    Ok(Applied { new, total: migrations.len() })
}

/// The server's message with everything that helps to find the place: line, detail, hint and SQLSTATE.
fn explain(error: &tokio_postgres::Error, sql: &str) -> String {
    let Some(error) = error.as_db_error() else { return error.to_string() };
    let mut text = String::new();
    if let Some(line) = line(error, sql) {
        text.push_str(&format!("line {line}: "));
    }
    text.push_str(error.message());
    for (name, value) in [("detail", error.detail()), ("hint", error.hint()), ("where", error.where_())] {
        if let Some(value) = value {
            text.push_str(&format!("; {name}: {value}"));
        }
    }
    format!("{text} (SQLSTATE {})", error.code().code())
}

fn line(error: &DbError, sql: &str) -> Option<usize> {
    let tokio_postgres::error::ErrorPosition::Original(position) = error.position()? else { return None };
    let before = sql.chars().take(position.saturating_sub(1) as usize);
    Some(before.filter(|&character| character == '\n').count() + 1)
}

#[cfg(test)]
mod tests;
