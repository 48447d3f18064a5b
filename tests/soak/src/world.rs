//! What is driven: the real components on a fresh database of a real PostgreSQL, in front of the LiteLLM stand-in.

use crate::{mutants::Mutant, team::Limits};
use anyhow::{Context, Result};
use api_tests::{Database, TEST_VARIABLES, repository};
use faults::{Postgres, Setup};
use host::{Logs, Running, Settings};
use litellm_stand_in::{Config, StandIn};
use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock, Mutex},
};

/// The components, compiled once per process.
static APPLICATION: LazyLock<host::Application> = LazyLock::new(|| {
    host::Application::load(&repository().join("spin.toml")).expect("built components: use `cargo xtask`")
});

/// The admin's key.
pub const ADMIN_KEY: &str = "soak-admin-key";

/// How long a key's look-up is trusted, in seconds. Less than usual, so that caches are filled and go stale often.
pub const CACHE_SECONDS: i64 = 2;

/// How many hosts there are on one database, each with a key-value store of its own.
const HOSTS: usize = 2;

/// Variables of the driven application besides those of all tests. A fault may last longer than a model may take.
fn variables() -> Vec<(&'static str, String)> {
    let limit = |number: Option<i64>| number.unwrap_or_default().to_string();
    let limits = Limits::DEPLOYMENT;
    vec![
        ("limit_calls_per_job", limit(limits.calls_per_job)),
        ("limit_open_calls_per_job", limit(limits.open_calls_per_job)),
        ("limit_open_calls", limit(limits.open_calls)),
        ("limit_open_jobs", limit(limits.open_jobs)),
        ("limit_cost_usd_per_job", limits.cost_usd_per_job.unwrap_or_default().to_string()),
        ("admin_key", ADMIN_KEY.to_owned()),
        ("auth_cache_seconds", CACHE_SECONDS.to_string()),
        ("litellm_connect_seconds", "2".to_owned()),
        ("llm_timeout_seconds", "5".to_owned()),
        ("llm_idle_seconds", "5".to_owned()),
    ]
}

/// An application of its own, and what it stands on.
pub struct World {
    /// Where its hosts listen.
    pub hosts: Vec<String>,
    ground: Ground,
    /// How to get at the database past the application.
    direct: tokio_postgres::Config,
}

/// What a world stands on.
enum Ground {
    /// Everything in this process and on the common database server: nothing fails.
    Firm { database: Database, litellm: StandIn, logs: Arc<Mutex<Vec<u8>>>, _running: Vec<Running> },
    /// Everything can fail.
    Shaky(faults::Application),
}

impl World {
    /// Starts one in which nothing fails; with a mutant, on a database that is made wrong like that.
    pub async fn start(mutant: Option<&Mutant>) -> Result<Self> {
        let server = std::env::var("TEST_DATABASE_URL").context("TEST_DATABASE_URL is not set")?;
        let database = Database::create().await?;
        if let Some(mutant) = mutant {
            mutant.apply_to(&database.client).await?;
        }
        let litellm = StandIn::start(Config::default()).await?;
        let mut given: BTreeMap<&str, String> =
            TEST_VARIABLES.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        given.extend(variables());
        given.extend(database.variables());
        given.insert("litellm_url", litellm.url());
        given.insert("litellm_master_key", litellm.master_key().to_owned());
        let variables = given.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let logs = Arc::<Mutex<Vec<u8>>>::default();
        let settings = Settings { variables, logs: Logs::Memory(logs.clone()), ..Settings::default() };
        let application = tokio::task::spawn_blocking(|| APPLICATION.clone()).await?;
        let mut running = vec![];
        for _ in 0..HOSTS {
            running.push(application.start(settings.clone()).await.context("cannot start the application")?);
        }
        let hosts = running.iter().map(|host| format!("http://{}", host.addr())).collect();
        let direct = past_the_application(&server, &database)?;
        Ok(Self { hosts, ground: Ground::Firm { database, litellm, logs, _running: running }, direct })
    }

    /// Starts one in which everything can fail: with a database server and host processes of its own, and proxies
    /// between them.
    pub async fn start_shaky(mutant: Option<&Mutant>) -> Result<Self> {
        // Each component of each host keeps as many connections as it once had at the same time.
        let postgres = Postgres::start(&["max_connections=500"]).await?;
        let server = postgres.superuser_url().to_owned();
        let setup = Setup { hosts: HOSTS, postgres: Some(postgres), variables: variables() };
        let application = faults::Application::start_with(setup).await;
        let hosts = application.hosts.iter().map(|host| host.url()).collect();
        if let Some(mutant) = mutant {
            mutant.apply_to(&application.database.client).await?;
        }
        let direct = past_the_application(&server, &application.database)?;
        Ok(Self { hosts, ground: Ground::Shaky(application), direct })
    }

    /// What can fail, if anything.
    pub fn shaky(&self) -> Option<&faults::Application> {
        match &self.ground {
            Ground::Firm { .. } => None,
            Ground::Shaky(application) => Some(application),
        }
    }

    /// Its LiteLLM.
    pub fn litellm(&self) -> &StandIn {
        match &self.ground {
            Ground::Firm { litellm, .. } => litellm,
            Ground::Shaky(application) => &application.litellm,
        }
    }

    /// For looking into its database, past the application.
    pub fn database(&self) -> &tokio_postgres::Config {
        &self.direct
    }

    /// Where its database is, with the rights of a superuser.
    pub fn database_address(&self) -> String {
        match &self.ground {
            Ground::Firm { database, .. } => database.address(),
            Ground::Shaky(application) => application.database.address(),
        }
    }

    /// What the components have logged.
    pub fn logs(&self) -> String {
        match &self.ground {
            Ground::Firm { logs, .. } => {
                String::from_utf8_lossy(&logs.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
                    .into_owned()
            }
            Ground::Shaky(application) => application.hosts.iter().map(|host| host.logs()).collect(),
        }
    }
}

fn past_the_application(server: &str, database: &Database) -> Result<tokio_postgres::Config> {
    let mut config: tokio_postgres::Config = server.parse().context("the database server's URL")?;
    let variables = BTreeMap::from(database.variables());
    config.dbname(&variables["database_name"]);
    Ok(config)
}
