//! Everything that is measured, running side by side: PostgreSQL, the stand-in, the application, the native baseline.

use crate::{options::Options, programs::Program};
use anyhow::{Context, Result};
use api_tests::{ADMIN_KEY, Client, Database, Team, repository};
use reqwest::Method;
use serde_json::{Value, json};
use std::{net::SocketAddr, path::Path, process::Command};
use tempfile::TempDir;

/// The stand-in's key for administration.
const MASTER_KEY: &str = "sk-bench-master";

/// What is measured. Dropping it stops everything.
pub struct World {
    /// The application on the project's own host, as `spin up` would run it by default.
    pub application: Program,
    /// The native server that the application is compared with.
    pub native: Program,
    /// The stand-in for LiteLLM.
    pub stand_in: Program,
    /// A key of the stand-in's own that may use every model.
    pub stand_in_key: String,
    /// The application's database.
    pub database: Database,
    /// A real LiteLLM, where the environment names one.
    pub litellm: Option<RealLiteLlm>,
    connections: String,
    logs: TempDir,
}

/// A LiteLLM that was started by somebody else.
pub struct RealLiteLlm {
    /// Its address.
    pub url: String,
    /// A key that may use the model.
    pub key: String,
}

/// The model that all calls are for.
pub const MODEL: &str = "gpt-4o-mini";

impl World {
    /// Starts everything on the server of `TEST_DATABASE_URL`, with a database of its own.
    pub async fn start(options: &Options) -> Result<Self> {
        let logs = TempDir::with_prefix("llm-jobs-bench-logs-")?;
        let stand_in = Program::start("litellm-stand-in", logs.path(), |program, port| {
            program.arg("--listen").arg(format!("127.0.0.1:{port}")).env("LITELLM_MASTER_KEY", MASTER_KEY);
        })?;
        let database = Database::create().await?;
        let connections = options.max_pg_connections.to_string();
        let application = start(&database, &stand_in.url, logs.path(), &connections, |_| {})?;
        let native = Program::start("native-baseline", logs.path(), |program, port| {
            program.args(["--listen", &format!("127.0.0.1:{port}"), "--litellm-url", &stand_in.url]);
            program.args(["--max-pg-connections", &connections]).env("DATABASE", address(&database));
        })?;
        let stand_in_key = generate_key(&stand_in.url, MASTER_KEY).await?;
        let litellm = match (std::env::var("LITELLM_URL"), std::env::var("LITELLM_MASTER_KEY")) {
            (Ok(url), Ok(master_key)) => {
                let key = generate_key(&url, &master_key).await?;
                Some(RealLiteLlm { url, key })
            }
            _ => None,
        };
        Ok(Self { application, native, stand_in, stand_in_key, database, litellm, connections, logs })
    }

    /// Another host with the application on this database, started with these flags.
    pub fn another_application(&self, database: &Database, flags: &[&str]) -> Result<Program> {
        self.host(database, |host| _ = host.args(flags))
    }

    /// Another host, which keeps compiled components in a folder of its own.
    pub fn application_with_cache(&self, folder: &Path) -> Result<Program> {
        self.host(&self.database, |host| _ = host.env("XDG_CACHE_HOME", folder))
    }

    /// Another host, which finds PostgreSQL and LiteLLM at other addresses.
    pub fn application_through(&self, database: SocketAddr, litellm: SocketAddr) -> Result<Program> {
        self.host(&self.database, |host| {
            host.env("SPIN_VARIABLE_DATABASE_HOST", database.ip().to_string());
            host.env("SPIN_VARIABLE_DATABASE_PORT", database.port().to_string());
            host.env("SPIN_VARIABLE_LITELLM_URL", format!("http://{litellm}"));
        })
    }

    fn host(&self, database: &Database, change: impl FnOnce(&mut Command)) -> Result<Program> {
        start(database, &self.stand_in.url, self.logs.path(), &self.connections, change)
    }

    /// Teams with credits that last.
    pub async fn teams(&self, number: usize) -> Vec<Team> {
        let admin = Client::new(self.application.url.clone()).as_admin();
        let organization = admin.new_organization().await;
        let group = admin.new_model_group(&[MODEL]).await;
        let mut teams = vec![];
        for _ in 0..number {
            let fields = json!({
                "organization_id": organization, "model_groups": [group], "credits_allocated": 1_000_000_000,
                "max_budget": 1_000_000,
            });
            teams.push(admin.new_team(fields).await);
        }
        teams
    }
}

fn start(
    database: &Database,
    litellm_url: &str,
    logs: &Path,
    connections: &str,
    change: impl FnOnce(&mut Command),
) -> Result<Program> {
    Program::start("host", logs, |program, port| {
        program.arg("up").arg("--from").arg(repository().join("spin.toml"));
        program.args(["--listen", &format!("127.0.0.1:{port}")]);
        program.args(["--max-pg-connections", connections]);
        // The key-value store is a file, as in Spin.
        program.arg("--state-dir").arg(logs.join(format!("state-{port}")));
        let mut variables = database.variables().to_vec();
        variables.extend([
            ("litellm_url", litellm_url.to_owned()),
            ("litellm_master_key", MASTER_KEY.to_owned()),
            ("admin_key", ADMIN_KEY.to_owned()),
        ]);
        for (name, value) in variables {
            program.env(format!("SPIN_VARIABLE_{}", name.to_uppercase()), value);
        }
        change(program);
    })
}

/// A database's address for the application's role, as `key=value` pairs.
fn address(database: &Database) -> String {
    let pair = |(name, value): (&str, String)| {
        let name = match name {
            "database_name" => "dbname",
            name => name.trim_start_matches("database_"),
        };
        format!("{name}='{value}'")
    };
    database.variables().map(pair).join(" ")
}

async fn generate_key(litellm: &str, master_key: &str) -> Result<String> {
    let client = reqwest::Client::new();
    let request = client.request(Method::POST, format!("{litellm}/key/generate")).bearer_auth(master_key);
    let answer: Value = request.json(&json!({})).send().await?.json().await?;
    Ok(answer["key"].as_str().with_context(|| format!("/key/generate answered {answer}"))?.to_owned())
}
