//! The application with everything around it, each part of which can fail.

use crate::{HostProcess, Postgres, Proxy};
use anyhow::{Context, Result};
use api_tests::{Client, Database, TEST_VARIABLES, Team, eventually};
use litellm_stand_in::{Config, StandIn};
use serde_json::{Value, json};
use std::{collections::BTreeMap, net::SocketAddr};

/// How an application is started that is not quite the usual one.
pub struct Setup {
    /// How many hosts, each with a key-value store of its own.
    pub hosts: usize,
    /// A database server of its own, instead of a new database on the one of `TEST_DATABASE_URL`.
    pub postgres: Option<Postgres>,
    /// Values for variables of `spin.toml`.
    pub variables: Vec<(&'static str, String)>,
}

impl Default for Setup {
    /// One host, on the common server.
    fn default() -> Self {
        Self { hosts: 1, postgres: None, variables: vec![] }
    }
}

/// An application of a test's own.
///
/// Between its hosts and PostgreSQL is one proxy, between them and the LiteLLM stand-in another; the test itself
/// reaches all directly.
pub struct Application {
    /// Its hosts.
    pub hosts: Vec<HostProcess>,
    /// In front of PostgreSQL.
    pub to_database: Proxy,
    /// In front of LiteLLM.
    pub to_litellm: Proxy,
    /// Its database. The connection in it does not survive a kill of the server; `connect` makes another.
    pub database: Database,
    /// LiteLLM.
    pub litellm: StandIn,
    /// The database server, where it has one of its own.
    pub postgres: Option<Postgres>,
}

impl Application {
    /// Starts an application with the default setup.
    pub async fn start() -> Self {
        Self::start_with(Setup::default()).await
    }

    /// Starts one. Fails the test if that is not possible.
    pub async fn start_with(setup: Setup) -> Self {
        Self::try_start(setup).await.unwrap_or_else(|error| panic!("{error:#}"))
    }

    async fn try_start(setup: Setup) -> Result<Self> {
        let Setup { hosts: number, postgres, variables } = setup;
        let database = match &postgres {
            Some(postgres) => Database::create_on(postgres.superuser_url()).await?,
            None => Database::create().await?,
        };
        let litellm = StandIn::start(Config::default()).await?;
        let mut all: BTreeMap<&str, String> = TEST_VARIABLES.map(|(name, value)| (name, value.into())).into();
        all.extend(database.variables());
        let postgres_address: SocketAddr = format!("{}:{}", all["database_host"], all["database_port"])
            .parse()
            .context("TEST_DATABASE_URL")?;
        let to_database = Proxy::start(postgres_address).await?;
        let to_litellm = Proxy::start(stand_in_address(&litellm)).await?;
        all.extend([
            ("database_host", to_database.address().ip().to_string()),
            ("database_port", to_database.address().port().to_string()),
            ("litellm_url", format!("http://{}", to_litellm.address())),
            ("litellm_master_key", litellm.master_key().to_owned()),
        ]);
        all.extend(variables);
        let variables: BTreeMap<String, String> =
            all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let mut hosts = vec![];
        for _ in 0..number {
            hosts.push(HostProcess::start(variables.clone()).await?);
        }
        Ok(Self { hosts, to_database, to_litellm, database, litellm, postgres })
    }

    /// Somebody without a key, at a host; 0 is the first one.
    pub fn nobody(&self, host: usize) -> Client {
        Client::new(self.hosts[host].url())
    }

    /// The admin, at the first host.
    pub fn admin(&self) -> Client {
        self.nobody(0).as_admin()
    }

    /// A team with these credits, whose default group has the one model `gpt-4o-mini`, at the first host.
    pub async fn team(&self, credits: i64) -> Team {
        self.admin().new_team(json!({"credits_allocated": credits})).await
    }

    /// A team with the models of one group of its own, tried in order.
    pub async fn team_using(&self, models: &[&str], credits: i64) -> Team {
        let group = self.admin().new_model_group(models).await;
        self.admin().new_team(json!({"credits_allocated": credits, "model_groups": [group]})).await
    }

    /// The team at another host.
    pub fn at(&self, host: usize, team: &Team) -> Team {
        Team { client: team.client.at(self.hosts[host].url()), ..team.clone() }
    }

    /// Where the stand-in itself listens, which is where [`to_litellm`](Self::to_litellm) leads at first.
    pub fn litellm_address(&self) -> SocketAddr {
        stand_in_address(&self.litellm)
    }

    /// The first column of the first row.
    pub async fn number(&self, statement: &str) -> i64 {
        self.database.connect().await.query_one(statement, &[]).await.expect(statement).get(0)
    }

    /// Waits until no call is under way.
    pub async fn settled(&self) {
        eventually("no call under way", async || {
            let open = "SELECT count(*) FROM calls WHERE status = 'open' AND deadline > now()";
            (self.number(open).await == 0).then_some(())
        })
        .await;
    }

    /// Shows that nobody has to lend a hand after a fault that is over: within half a minute a new team's job works,
    /// with a buffered and a streamed call, at every host. Then checks the invariants.
    #[track_caller]
    pub fn recovers(&self) -> impl Future<Output = ()> {
        let check = self.database.check_invariants();
        async move {
            for host in 0..self.hosts.len() {
                let healthy = async || {
                    let health = self.nobody(host).request(reqwest::Method::GET, "/health");
                    let answer = api_tests::Answer::try_of(health).await.ok()?;
                    (answer.status == 200).then_some(())
                };
                eventually("good health", healthy).await;
                let team = self
                    .at(host, &self.nobody(host).as_admin().new_team(json!({"credits_allocated": 1})).await);
                let job = team.job().await;
                team.call(&job, "hello").await.ok();
                let hello = json!({"messages": [{"role": "user", "content": "hello"}]});
                let events =
                    team.client.stream(&format!("/api/jobs/{job}/llm-call-stream"), hello).await.rest().await;
                assert_eq!(events.last().map(String::as_str), Some("data: [DONE]"), "{events:?}");
                let completed = team.complete(&job, "completed").await.ok();
                assert_eq!(completed["costs"]["credits_remaining"], Value::from(0), "{completed}");
            }
            self.settled().await;
            check.await;
        }
    }
}

fn stand_in_address(litellm: &StandIn) -> SocketAddr {
    litellm.url().trim_start_matches("http://").parse().expect("an address")
}
