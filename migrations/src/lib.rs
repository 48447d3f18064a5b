//! The database schema, as SQL files that are compiled in, and the one way to bring a database up to date with them.
//!
//! `tables/NNNN_*.sql` are applied once, in the order of their numbers, and are frozen once they are released: another
//! change of a table is another file. `functions/*.sql` hold each function whole, with its attributes and who may
//! execute it; all of them are applied again whenever one has changed, and functions that are in none of them any more
//! are dropped.
//!
//! Guarantees: a database has all of an upgrade or nothing of it, for it is one transaction, which also writes down
//! what was applied; applying again changes nothing; of several runs at once on one database one works and the others
//! find it done; a file that was changed after it was applied is an error that names it, and so is a database of a
//! newer release.
//!
//! Left to others: there is no way back. A file must not hold statements that refuse to run in a transaction, such as
//! `CREATE INDEX CONCURRENTLY`. `CREATE OR REPLACE` can't change what a function answers or what its parameters are
//! called: such a function gets another name, or is dropped by a file in `tables/` once no release calls it any more
//! (see `releases/`).

mod script;
#[cfg(test)]
mod tests;

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use std::{borrow::Cow, fmt};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, NoTls, config::SslMode, error::DbError};
use tokio_postgres_rustls::MakeRustlsConnect;

include!(concat!(env!("OUT_DIR"), "/files.rs"));

/// The release that this is: the version of the whole workspace.
pub const RELEASE: &str = env!("CARGO_PKG_VERSION");

/// The advisory lock that a run holds, in each database on its own. An arbitrary constant: the ASCII codes of
/// `llm-jobs`.
const LOCK: i64 = i64::from_be_bytes(*b"llm-jobs");

/// Where it is written down what was applied.
const BOOKS: &str = "
CREATE TABLE IF NOT EXISTS schema_migrations (
    number     integer     PRIMARY KEY,
    file       text        NOT NULL,
    checksum   text        NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE IF NOT EXISTS schema_functions (
    only_row   boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
    release    text        NOT NULL,
    checksum   text        NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
";

/// Functions may name others that come later. `pg_temp` last: otherwise it comes first, and what a caller makes there
/// would take the place of what is meant.
const BEFORE_FUNCTIONS: &str = "
SET LOCAL check_function_bodies = off;
SELECT set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true);
";

/// Drops the functions that this transaction has not made, and leaves the others to those whom the files name.
const AFTER_FUNCTIONS: &str = "
DO $$
DECLARE
    v_function record;
BEGIN
    FOR v_function IN
        SELECT oid::regprocedure AS name,
               xmin = pg_current_xact_id()::xid OR prorettype = 'trigger'::regtype AS is_current
        FROM pg_proc p
        WHERE pronamespace = current_schema()::regnamespace AND proowner = current_user::regrole
          AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = p.oid AND deptype = 'e')
    LOOP
        IF v_function.is_current THEN
            EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', v_function.name);
        ELSE
            EXECUTE format('DROP FUNCTION %s', v_function.name);
        END IF;
    END LOOP;
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO llm_jobs_application', current_schema());
END $$;
";

/// One SQL file.
#[derive(Clone, Debug)]
pub struct File {
    /// Its path in `migrations/`, such as `tables/0001_first.sql`.
    pub name: &'static str,
    /// What it holds.
    pub sql: Cow<'static, str>,
}

impl File {
    /// The name under which it is written down that a file with tables was applied.
    fn recorded_name(&self) -> &'static str {
        self.name.trim_start_matches("tables/")
    }

    /// The SHA-256 of what it holds, in lower-case hexadecimal.
    fn checksum(&self) -> String {
        hex(Sha256::digest(self.sql.as_bytes()).as_slice())
    }
}

/// All of a schema.
#[derive(Clone, Debug)]
pub struct Schema {
    /// The release that it is of.
    pub release: &'static str,
    /// What is applied once, in this order.
    pub tables: Vec<File>,
    /// What is applied again whenever any of it has changed.
    pub functions: Vec<File>,
}

/// What a database lacks, or what a run has applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// Files with tables, in order.
    pub tables: Vec<&'static str>,
    /// Whether the functions are applied.
    pub functions: bool,
}

impl Steps {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty() && !self.functions
    }
}

impl fmt::Display for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let functions = self.functions.then_some("functions/*.sql");
        let all: Vec<&str> = self.tables.iter().copied().chain(functions).collect();
        f.write_str(if all.is_empty() { "nothing to do" } else { "" })?;
        f.write_str(&all.join(", "))
    }
}

/// What the database at `url` lacks of this release. Changes nothing. Addresses and errors are those of [`apply`].
pub async fn plan(url: &str) -> Result<Steps> {
    let (client, connection) = connect(url).await?;
    let steps = Schema::current().missing_in(&client).await;
    drop(client);
    let _ = connection.await;
    steps
}

/// Brings the database at `url` (a `postgres://` URL or `key=value` pairs) up to date with this release.
///
/// The connection is encrypted if and only if the address says `sslmode=require`. The server's certificate must then be
/// for its host name and from an authority that the system trusts, or one in the file that `SSL_CERT_FILE` names.
///
/// # Errors
/// When the server can't be reached, a file fails (the error says where), an applied file was changed since, or the
/// database is of a newer release. Then nothing has changed.
pub async fn apply(url: &str) -> Result<Steps> {
    let (client, connection) = connect(url).await?;
    let steps = Schema::current().apply_to(&client).await;
    // Closing the connection ends what is left of a transaction; waiting for that makes it certain before this returns.
    drop(client);
    let _ = connection.await;
    steps
}

/// A script for `psql` that does the same as [`apply`], to any database, and writes it down in the same way.
pub fn script() -> String {
    script::of(&Schema::current())
}

impl Schema {
    /// That of this release.
    pub fn current() -> Self {
        let files = |files: &[(&'static str, &'static str)]| -> Vec<File> {
            files.iter().map(|(name, sql)| File { name, sql: Cow::Borrowed(sql) }).collect()
        };
        Self { release: RELEASE, tables: files(TABLES), functions: files(FUNCTIONS) }
    }

    /// The SHA-256 of all files with functions together.
    fn functions_checksum(&self) -> String {
        let mut digest = Sha256::new();
        for file in &self.functions {
            digest.update(file.checksum());
        }
        hex(digest.finalize().as_slice())
    }

    /// What a database lacks of it.
    async fn missing_in(&self, client: &Client) -> Result<Steps> {
        let has = async |table: &str| -> Result<bool> {
            Ok(client.query_one("SELECT to_regclass($1) IS NOT NULL", &[&table]).await?.get(0))
        };
        let mut applied = 0;
        if has("schema_migrations").await? {
            let query = "SELECT number, file, checksum FROM schema_migrations ORDER BY number";
            for row in client.query(query, &[]).await? {
                self.check_applied(row.get(0), row.get(1), row.get(2))?;
                applied += 1;
            }
        }
        let mut functions = None;
        if has("schema_functions").await? {
            functions = client.query_opt("SELECT release, checksum FROM schema_functions", &[]).await?;
        }
        let tables = self.tables.iter().skip(applied).map(|file| file.name).collect();
        let Some(row) = functions else { return Ok(Steps { tables, functions: true }) };
        let (release, checksum): (&str, &str) = (row.get(0), row.get(1));
        ensure!(
            version(release)? <= version(self.release)?,
            "the database is of release {release}, and this is {}: use the newer one",
            self.release
        );
        Ok(Steps { tables, functions: release != self.release || checksum != self.functions_checksum() })
    }

    /// Fails unless what was applied under this number is what is in the file of that number now.
    fn check_applied(&self, number: i32, name: &str, checksum: &str) -> Result<()> {
        let file = usize::try_from(number - 1).ok().and_then(|index| self.tables.get(index));
        let Some(file) = file else {
            bail!("the database has {name}, which this release does not know: use a newer one")
        };
        let known = file.recorded_name();
        ensure!(
            name == known,
            "the database has {name} where this release has {known}: it was made before release 0.2.0, or by something \
             else, and can't be upgraded: begin with a new database"
        );
        ensure!(
            checksum == file.checksum(),
            "migrations/{} was changed after it was applied to this database: put it back as it was and write the \
             change as another file in migrations/tables/",
            file.name
        );
        Ok(())
    }

    /// Brings a database up to date with it.
    ///
    /// # Errors
    /// As [`apply`] has them. The connection must not be in a transaction; it is in none afterwards.
    pub async fn apply_to(&self, client: &Client) -> Result<Steps> {
        client.batch_execute("BEGIN").await?;
        let applied = self.apply_in_transaction(client).await;
        client.batch_execute(if applied.is_ok() { "COMMIT" } else { "ROLLBACK" }).await?;
        applied
    }

    async fn apply_in_transaction(&self, client: &Client) -> Result<Steps> {
        let lock = "SELECT pg_advisory_xact_lock($1)";
        client.execute(lock, &[&LOCK]).await.context("waiting for another migration")?;
        let steps = self.missing_in(client).await?;
        if steps.is_empty() {
            return Ok(steps);
        }
        // Otherwise PostgreSQL says that the tables are there already.
        client.batch_execute("SET LOCAL client_min_messages = warning").await?;
        client.batch_execute(BOOKS).await.context("cannot write down what is applied")?;
        for (number, file) in (1i32..).zip(&self.tables) {
            if steps.tables.contains(&file.name) {
                run(client, file).await?;
                let record = "INSERT INTO schema_migrations (number, file, checksum) VALUES ($1, $2, $3)";
                client.execute(record, &[&number, &file.recorded_name(), &file.checksum()]).await?;
            }
        }
        if !steps.functions {
            return Ok(steps);
        }
        client.batch_execute(BEFORE_FUNCTIONS).await?;
        for file in &self.functions {
            run(client, file).await?;
        }
        client.batch_execute(AFTER_FUNCTIONS).await?;
        let record = "INSERT INTO schema_functions (release, checksum) VALUES ($1, $2)
                      ON CONFLICT (only_row) DO UPDATE
                      SET release = excluded.release, checksum = excluded.checksum, applied_at = now()";
        client.execute(record, &[&self.release, &self.functions_checksum()]).await?;
        Ok(steps)
    }
}

async fn run(client: &Client, file: &File) -> Result<()> {
    match client.batch_execute(&file.sql).await {
        Ok(()) => Ok(()),
        Err(error) => bail!("migrations/{}: {}", file.name, explain(&error, &file.sql)),
    }
}

/// `0.2.0` as numbers that can be compared.
fn version(release: &str) -> Result<Vec<u64>> {
    release
        .split('.')
        .map(|number| number.parse().ok())
        .collect::<Option<_>>()
        .with_context(|| format!("'{release}' is no release"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Connects; the task ends with the connection.
async fn connect(url: &str) -> Result<(Client, JoinHandle<()>)> {
    const FAILED: &str = "cannot connect to PostgreSQL";
    let config: Config = url.parse().context("the database's address is no PostgreSQL URL")?;
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
