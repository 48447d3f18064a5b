//! The application under test, and what tests need set up.

use crate::{Client, Database, Team, client::ADMIN_KEY};
use host::{Application, Logs, Running, Settings};
use litellm_stand_in::{Config, StandIn};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, LazyLock, Mutex},
};

/// The components, compiled once per process.
static APPLICATION: LazyLock<Application> = LazyLock::new(|| {
    Application::load(&repository().join("spin.toml"))
        .expect("built components: run the tests with `cargo xtask test`")
});

/// Variables that every test's application gets; [`Options::variables`] come on top.
pub const TEST_VARIABLES: [(&str, &str); 3] =
    [("admin_key", ADMIN_KEY), ("llm_timeout_seconds", "10"), ("llm_idle_seconds", "10")];

/// The folder with `spin.toml`.
pub fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// How an application is started that is not quite the usual one.
#[derive(Default)]
pub struct Options {
    /// Values for variables of `spin.toml`.
    pub variables: Vec<(&'static str, String)>,
    /// Text to add to `spin.toml`; paths in it are relative to the repository.
    pub manifest_addition: &'static str,
    /// Changes to how the host runs it.
    pub settings: Settings,
}

/// An application of a test's own.
pub struct TestApp {
    /// Its database.
    pub database: Database,
    litellm: Option<StandIn>,
    running: Running,
    http: reqwest::Client,
    logs: Arc<Mutex<Vec<u8>>>,
}

impl TestApp {
    /// Starts an application with the default options.
    pub async fn start() -> Self {
        Self::start_with(Options::default()).await
    }

    /// Starts one that is not quite the usual one.
    pub async fn start_with(options: Options) -> Self {
        let database = Database::create().await.expect("a database");
        let (litellm, url, master_key) =
            match (std::env::var("LITELLM_URL"), std::env::var("LITELLM_MASTER_KEY")) {
                (Ok(url), Ok(key)) => (None, url, key),
                _ => {
                    let stand_in = StandIn::start(Config::default()).await.expect("the stand-in");
                    let (url, key) = (stand_in.url(), stand_in.master_key().to_owned());
                    (Some(stand_in), url, key)
                }
            };
        let mut variables: BTreeMap<String, String> =
            TEST_VARIABLES.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        variables.extend(database.variables().map(|(name, value)| (name.to_owned(), value)));
        variables.extend([("litellm_url".into(), url), ("litellm_master_key".into(), master_key)]);
        variables.extend(options.variables.into_iter().map(|(name, value)| (name.to_owned(), value)));
        let application = if options.manifest_addition.is_empty() {
            APPLICATION.clone()
        } else {
            let manifest = std::fs::read_to_string(repository().join("spin.toml")).expect("spin.toml");
            Application::from_toml(&format!("{manifest}\n{}", options.manifest_addition), repository())
                .expect("built components")
        };
        let logs = Arc::new(Mutex::new(vec![]));
        let settings = Settings { variables, logs: Logs::Memory(logs.clone()), ..options.settings };
        let running = application.start(settings).await.expect("the application");
        Self { database, litellm, running, http: reqwest::Client::new(), logs }
    }

    /// The stand-in, for tests that look into it or make it fail. `None` against a real LiteLLM: such a test returns,
    /// having said so.
    pub fn stand_in(&self) -> Option<&StandIn> {
        if self.litellm.is_none() {
            eprintln!("skipped: this test needs the stand-in, and LITELLM_URL names a real LiteLLM");
        }
        self.litellm.as_ref()
    }

    /// Where it listens: `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.running.addr())
    }

    /// What the components have logged so far.
    pub fn logs(&self) -> String {
        String::from_utf8_lossy(&self.logs.lock().expect("logs")).into_owned()
    }

    /// A client that shows this header.
    pub fn client(&self, identity: Option<(&'static str, String)>) -> Client {
        Client { http: self.http.clone(), base: self.url(), identity: None }.with(identity)
    }

    /// The admin.
    pub fn admin(&self) -> Client {
        self.client(Some(("x-admin-key", ADMIN_KEY.into())))
    }

    /// Whoever has this virtual key.
    pub fn bearer(&self, key: &str) -> Client {
        self.client(Some(("authorization", format!("Bearer {key}"))))
    }

    /// Somebody without a key.
    pub fn nobody(&self) -> Client {
        self.client(None)
    }

    /// An organization with a new id.
    pub async fn organization(&self) -> String {
        self.admin().new_organization().await
    }

    /// A model group with a new name and these models, in order.
    pub async fn model_group(&self, models: &[&str]) -> String {
        self.admin().new_model_group(models).await
    }

    /// A team with these credits, whose default group has the one model `gpt-4o-mini`.
    pub async fn team(&self, credits: i64) -> Team {
        self.team_with(json!({"credits_allocated": credits})).await
    }

    /// A team with the models of one group of its own, tried in order.
    pub async fn team_using(&self, models: &[&str], credits: i64) -> Team {
        let group = self.model_group(models).await;
        self.team_with(json!({"credits_allocated": credits, "model_groups": [group]})).await
    }

    /// A team made of these fields, completed with an organization, an id and a model group where they are missing.
    pub async fn team_with(&self, fields: Value) -> Team {
        self.admin().new_team(fields).await
    }
}
