//! PostgreSQL as a client: what an address says, the application's own database, migrations.

use crate::progress;
use anyhow::{Context, Result, bail};
use private_postgres::run;
use std::future::Future;
use tokio_postgres::{
    Config,
    config::{Host, SslMode},
};

/// The name of the application's database in a private server, and of the role that serves requests.
const APPLICATION: &str = "llm_jobs";

/// The role that owns it.
const OWNER: &str = "llm_jobs_owner";

/// Where a database is, in the parts that the application's variables want.
#[derive(Debug, PartialEq, Eq)]
pub struct Address {
    /// A host name or an IP address.
    pub host: String,
    /// The TCP port.
    pub port: u16,
    /// The database.
    pub name: String,
    /// The role.
    pub user: String,
    /// The role's password; empty if none is needed.
    pub password: String,
    /// `disable`, `prefer` or `require`.
    pub sslmode: &'static str,
}

impl Address {
    /// Reads a `postgres://` URL or `key=value` pairs. Exactly one TCP host, a user and a database must be named.
    pub fn parse(url: &str) -> Result<Address> {
        let config: Config = url.parse().context("the database's address is no PostgreSQL URL")?;
        let host = match config.get_hosts() {
            [Host::Tcp(host)] => host.clone(),
            _ => bail!("the database's address must name one TCP host: the application has no Unix sockets"),
        };
        let port = config.get_ports().first().copied().unwrap_or(5432);
        let user = config.get_user().context("the database's address names no user")?.to_owned();
        let name = config.get_dbname().context("the database's address names no database")?.to_owned();
        let password = String::from_utf8(config.get_password().unwrap_or_default().to_vec())
            .context("the database's password is not UTF-8")?;
        let sslmode = match config.get_ssl_mode() {
            SslMode::Disable => "disable",
            SslMode::Prefer => "prefer",
            _ => "require",
        };
        for (what, value) in [("host", &host), ("user", &user), ("database", &name), ("password", &password)]
        {
            if value.contains(['\'', '\\']) {
                bail!("the {what} in the database's address must not hold a quote or a backslash");
            }
        }
        Ok(Address { host, port, name, user, password, sslmode })
    }
}

/// The addresses of the application's database in a private server.
pub struct Urls {
    /// As the role that owns it, which migrates.
    pub owner: String,
    /// As the role that may call the application's functions and nothing else, which serves requests.
    pub application: String,
}

/// Makes the application's database and its two roles, unless they are there. The password is both roles'.
pub fn make_application_database(superuser_url: &str, password: &str) -> Result<Urls> {
    // The password is hexadecimal. CREATE DATABASE can't be part of a larger statement.
    let roles = format!(
        "DO $$ BEGIN
             IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{APPLICATION}') THEN
                 CREATE ROLE llm_jobs_application;
                 CREATE ROLE {OWNER};
                 CREATE ROLE {APPLICATION} IN ROLE llm_jobs_application;
             END IF;
         END $$;
         ALTER ROLE {OWNER} LOGIN PASSWORD '{password}';
         ALTER ROLE {APPLICATION} LOGIN PASSWORD '{password}'"
    );
    run(superuser_url, &roles).context("cannot make the application's roles")?;
    let address = Address::parse(superuser_url)?;
    let url = |role| format!("postgres://{role}:{password}@{}:{}/{APPLICATION}", address.host, address.port);
    let urls = Urls { owner: url(OWNER), application: url(APPLICATION) };
    if run(&urls.owner, "SELECT 1").is_err() {
        run(superuser_url, &format!("CREATE DATABASE {APPLICATION} OWNER {OWNER}"))
            .context("cannot make the application's database")?;
    }
    Ok(urls)
}

/// Brings the database up to date and says what that took.
pub fn migrate(url: &str) -> Result<()> {
    progress::step("Migrating the database", || {
        let applied = block_on(migrations::apply(url))?;
        progress::note(&match applied.is_empty() {
            true => applied.to_string(),
            false => format!("applied {applied}"),
        });
        Ok(())
    })
}

/// Says what bringing the database up to date would take.
pub fn plan(url: &str) -> Result<()> {
    println!("{}", block_on(migrations::plan(url))?);
    Ok(())
}

fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_gives_all_parts_decoded() {
        let address = Address::parse("postgres://me%40home:p%2Fw@db.example:6543/jobs?sslmode=require");
        assert_eq!(
            address.expect("a full URL"),
            Address {
                host: "db.example".into(),
                port: 6543,
                name: "jobs".into(),
                user: "me@home".into(),
                password: "p/w".into(),
                sslmode: "require",
            }
        );
    }

    #[test]
    fn port_and_password_may_be_left_out() {
        let address = Address::parse("postgresql://me@127.0.0.1/jobs").expect("a short URL");
        assert_eq!((address.port, address.password.as_str(), address.sslmode), (5432, "", "prefer"));
    }

    #[test]
    fn pairs_of_keys_and_values_are_an_address_too() {
        let address = Address::parse("host=db user=me dbname=jobs password=x").expect("pairs");
        assert_eq!((address.host.as_str(), address.name.as_str()), ("db", "jobs"));
    }

    #[test]
    fn addresses_that_the_application_could_not_use_are_refused_with_the_reason() {
        for (url, reason) in [
            ("nonsense", "no PostgreSQL URL"),
            ("postgres://db/jobs", "no user"),
            ("postgres://me@db", "no database"),
            ("postgres://me@%2Frun%2Fpostgresql/jobs", "one TCP host"),
            ("postgres://me@one,two/jobs", "one TCP host"),
            ("postgres://me:it's@db/jobs", "password"),
        ] {
            let error = format!("{:#}", Address::parse(url).expect_err(url));
            assert!(error.contains(reason), "{url}: {error}");
        }
    }
}
