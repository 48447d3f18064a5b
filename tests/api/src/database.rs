//! Fresh databases on the PostgreSQL that `TEST_DATABASE_URL` names.

use anyhow::{Context, Result};
use tokio::sync::OnceCell;
use tokio_postgres::{Client, Config, NoTls, config::Host};
use uuid::Uuid;

/// A database of a test's own, with all migrations applied. It stays until the server is thrown away.
pub struct Database {
    config: Config,
    /// A connection for the test itself.
    pub client: Client,
}

/// As whom the application connects: a role with the rights that it has in production.
const APPLICATION: (&str, &str) = ("llm_jobs_test", "llm-jobs-test");

/// Made once per process; every database is a copy of it.
static TEMPLATE: OnceCell<String> = OnceCell::const_new();

impl Database {
    /// Creates a database.
    pub async fn create() -> Result<Self> {
        let server = server()?;
        let template = TEMPLATE.get_or_try_init(|| make_template(&server)).await?;
        Self::copy_of(template, server).await
    }

    /// Makes one with nothing in it.
    pub async fn empty() -> Result<Self> {
        Self::copy_of("template0", server()?).await
    }

    async fn copy_of(template: &str, mut config: Config) -> Result<Self> {
        let name = format!("test_{}", Uuid::now_v7().simple());
        connect(&config).await?.batch_execute(&format!("CREATE DATABASE {name} TEMPLATE {template}")).await?;
        config.dbname(&name);
        let client = connect(&config).await?;
        Ok(Self { config, client })
    }

    /// Makes one on a server of a test's own, which this URL names with the rights of a superuser.
    pub async fn create_on(server: &str) -> Result<Self> {
        let config = make(&server.parse()?, "test").await?;
        let client = connect(&config).await?;
        Ok(Self { config, client })
    }

    /// Another connection to it.
    pub async fn connect(&self) -> Client {
        connect(&self.config).await.expect("a connection")
    }

    /// Every row of every table as text, so that a test can see that nothing changed. When keys were last used is left
    /// out.
    pub async fn everything(&self) -> String {
        let tables = "SELECT quote_ident(relname) FROM pg_stat_user_tables ORDER BY 1";
        let mut all = String::new();
        for table in self.client.query(tables, &[]).await.expect("the tables") {
            let table: String = table.get(0);
            let rows = format!(
                "SELECT coalesce(string_agg((to_jsonb(t) - 'last_used_at')::text, E'\\n' ORDER BY t::text), '') \
                 FROM {table} AS t"
            );
            let rows: String = self.client.query_one(&rows, &[]).await.expect("its rows").get(0);
            all.push_str(&format!("-- {table}\n{rows}\n"));
        }
        assert!(all.contains("-- teams\n"), "these are not the application's tables: {all}");
        all
    }

    /// Lets so many days pass: all that has happened is so many days longer ago. Ids stay as they are.
    pub async fn days_pass(&self, days: i32) {
        let statement = format!(
            "DO $$ DECLARE v_row record; BEGIN
                 SET LOCAL session_replication_role = replica; -- The ledger is append-only.
                 FOR v_row IN
                     SELECT c.oid::regclass AS name,
                            string_agg(format('%1$I = %1$I - make_interval(hours => 24 * {days})', attname), ', ')
                                AS changes
                     FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
                     WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
                       AND atttypid = 'timestamptz'::regtype AND attnum > 0 AND NOT attisdropped
                     GROUP BY c.oid
                 LOOP
                     EXECUTE format('UPDATE %s SET %s', v_row.name, v_row.changes);
                 END LOOP;
                 -- In two steps, so that no day is where another one still is.
                 UPDATE usage_days SET day = day - 100000;
                 UPDATE usage_days SET day = day + 100000 - {days};
                 UPDATE usage_models SET day = day - 100000;
                 UPDATE usage_models SET day = day + 100000 - {days};
             END $$"
        );
        self.client.batch_execute(&statement).await.expect("days to pass");
    }

    /// As [`Database::days_pass`], and the ids of jobs are so much older, too, as if they had been made then.
    pub async fn days_pass_with_ids(&self, days: i32) {
        self.days_pass(days).await;
        // The first 48 bits of an id are milliseconds.
        let statement = format!(
            "DO $$ DECLARE v_table text; BEGIN
                 SET LOCAL session_replication_role = replica;
                 FOREACH v_table IN ARRAY ARRAY['jobs', 'calls', 'call_messages', 'credit_transactions'] LOOP
                     EXECUTE format('UPDATE %I SET job_id = overlay(job_id::text PLACING left(uuid_v7_floor(
                         to_timestamp((''x'' || left(replace(job_id::text, ''-'', ''''), 12))::bit(48)::bigint / 1000.0)
                             - interval ''{days} days'')::text, 13) FROM 1 FOR 13)::uuid
                         WHERE job_id IS NOT NULL', v_table);
                 END LOOP;
             END $$"
        );
        self.client.batch_execute(&statement).await.expect("older ids");
    }

    /// Another connection to it, as the application has it.
    pub async fn connect_as_application(&self) -> Client {
        let (user, password) = APPLICATION;
        connect(self.config.clone().user(user).password(password)).await.expect("a connection")
    }

    /// Its address with the rights of a superuser, as `key=value` pairs.
    pub fn address(&self) -> String {
        address(&self.config)
    }

    /// The variables by which the application finds it.
    pub fn variables(&self) -> [(&'static str, String); 5] {
        let host = match self.config.get_hosts().first() {
            Some(Host::Tcp(host)) => host.clone(),
            _ => "127.0.0.1".into(),
        };
        let port = self.config.get_ports().first().copied().unwrap_or(5432);
        let (user, password) = APPLICATION;
        [
            ("database_host", host),
            ("database_port", port.to_string()),
            ("database_name", self.config.get_dbname().unwrap_or_default().into()),
            ("database_user", user.into()),
            ("database_password", password.into()),
        ]
    }
}

/// The server that tests share.
fn server() -> Result<Config> {
    let server = std::env::var("TEST_DATABASE_URL")
        .context("TEST_DATABASE_URL is not set: run the tests with `cargo xtask test`")?;
    server.parse().context("TEST_DATABASE_URL")
}

async fn connect(config: &Config) -> Result<Client> {
    let (client, connection) = config.connect(NoTls).await.context("cannot connect to PostgreSQL")?;
    tokio::spawn(connection);
    Ok(client)
}

async fn make_template(server: &Config) -> Result<String> {
    let name = format!("template_{}", Uuid::now_v7().simple());
    make(server, &name).await?;
    Ok(name)
}

/// A database with this name, with all migrations applied.
async fn make(server: &Config, name: &str) -> Result<Config> {
    connect(server).await?.batch_execute(&format!("CREATE DATABASE {name}")).await?;
    let mut config = server.clone();
    config.dbname(name);
    migrations::apply(&address(&config)).await?;
    connect(&config).await?.batch_execute(&make_application_role()).await?;
    Ok(config)
}

/// Roles belong to the server, so another process may have made it, or be at it.
fn make_application_role() -> String {
    let (user, password) = APPLICATION;
    format!(
        "DO $$ BEGIN CREATE ROLE {user} LOGIN PASSWORD '{password}' IN ROLE llm_jobs_application;
         EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"
    )
}

/// The configuration as `key=value` pairs.
fn address(config: &Config) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
    let mut pairs = vec![
        format!("user={}", quoted(config.get_user().unwrap_or_default())),
        format!("dbname={}", quoted(config.get_dbname().unwrap_or_default())),
        format!("password={}", quoted(&String::from_utf8_lossy(config.get_password().unwrap_or_default()))),
    ];
    pairs.extend(config.get_ports().first().map(|port| format!("port={port}")));
    pairs.extend(config.get_hosts().first().map(|host| match host {
        Host::Tcp(host) => format!("host={}", quoted(host)),
        Host::Unix(path) => format!("host={}", quoted(&path.to_string_lossy())),
    }));
    pairs.join(" ")
}
