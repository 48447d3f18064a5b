//! A database of a test's own.

use std::{env, process::Command};
use tokio_postgres::{Client, Config, NoTls};
use uuid::Uuid;

pub struct Database {
    server: Config,
    name: String,
    pub url: String,
}

impl Database {
    pub async fn create() -> Database {
        let url = env::var("TEST_DATABASE_URL").expect("TEST_DATABASE_URL is set: use `cargo xtask test`");
        let server: Config = url.parse().expect("TEST_DATABASE_URL is a PostgreSQL URL");
        let name = format!("migrations_{}", Uuid::new_v4().simple());
        let database = Database { url: with_database(&url, &name), server, name };
        database.on_server(&format!("CREATE DATABASE {}", database.name)).await;
        database
    }

    async fn on_server(&self, sql: &str) {
        connect(&self.server).await.batch_execute(sql).await.expect(sql);
    }

    pub fn connect(&self) -> impl Future<Output = Client> + 'static {
        let mut config = self.server.clone();
        config.dbname(&self.name);
        async move { connect(&config).await }
    }

    /// The first column of the first row.
    pub async fn number(&self, sql: &str) -> i64 {
        self.connect().await.query_one(sql, &[]).await.expect(sql).get(0)
    }

    /// The schema as `pg_dump` writes it, without the marks that it makes anew each time.
    pub fn dump(&self) -> String {
        let output =
            Command::new("pg_dump").args(["--schema-only", &self.url]).output().expect("pg_dump runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let dump = String::from_utf8(output.stdout).expect("UTF-8");
        dump.lines().filter(|line| !line.contains("restrict ")).map(|line| format!("{line}\n")).collect()
    }

    /// Runs a script with `psql`; the error is what that printed.
    pub fn run_script(&self, script: &str) -> Result<(), String> {
        use std::io::Write as _;
        let mut psql = Command::new("psql");
        psql.args(["-X", "-q", "-f", "-", &self.url]).stdin(std::process::Stdio::piped());
        psql.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
        let mut psql = psql.spawn().expect("psql runs");
        // One that fails does not read the rest.
        _ = psql.stdin.take().expect("its input").write_all(script.as_bytes());
        let output = psql.wait_with_output().expect("psql ends");
        match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    pub async fn drop(self) {
        self.on_server(&format!("DROP DATABASE {} WITH (FORCE)", self.name)).await;
    }
}

async fn connect(config: &Config) -> Client {
    let (client, connection) = config.connect(NoTls).await.expect("the test server accepts connections");
    tokio::spawn(connection);
    client
}

/// The URL with another database in its path.
fn with_database(url: &str, name: &str) -> String {
    let (base, query) =
        url.split_once('?').map_or((url, String::new()), |(base, query)| (base, format!("?{query}")));
    let server = match base.match_indices('/').nth(2) {
        Some((slash, _)) => &base[..slash],
        None => base,
    };
    format!("{server}/{name}{query}")
}
