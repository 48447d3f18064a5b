//! The application under test, and what tests need set up.

use crate::{Client, Database};
use host::{Application, Logs, Running, Settings};
use litellm_stand_in::{Config, StandIn};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, LazyLock, Mutex},
};
use uuid::Uuid;

/// The components, compiled once per process.
static APPLICATION: LazyLock<Application> = LazyLock::new(|| {
    Application::load(&repository().join("spin.toml"))
        .expect("built components: run the tests with `cargo xtask test`")
});

/// Variables that every test's application gets; [`Options::variables`] come on top.
const TEST_VARIABLES: [(&str, &str); 2] = [("admin_key", ADMIN_KEY), ("llm_timeout_seconds", "10")];

const ADMIN_KEY: &str = "test-admin-key";

fn repository() -> &'static Path {
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

/// A team that a test acts as.
#[derive(Clone)]
pub struct Team {
    /// Its id.
    pub id: String,
    /// Its virtual key.
    pub key: String,
    /// A client with that key.
    pub client: Client,
}

impl Team {
    /// Opens a job and gives its id.
    pub async fn job(&self) -> String {
        let job =
            self.client.post("/api/jobs/create", json!({"team_id": self.id, "job_type": "test"})).await.ok();
        job["job_id"].as_str().expect("a job_id").to_owned()
    }

    /// Makes a buffered call with this prompt in the default group.
    pub async fn call(&self, job: &str, prompt: &str) -> crate::Answer {
        let body = json!({"messages": [{"role": "user", "content": prompt}]});
        self.client.post(&format!("/api/jobs/{job}/llm-call"), body).await
    }

    /// Ends a job.
    pub async fn complete(&self, job: &str, status: &str) -> crate::Answer {
        self.client.post(&format!("/api/jobs/{job}/complete"), json!({"status": status})).await
    }

    /// Reads a job.
    pub async fn read(&self, job: &str) -> Value {
        self.client.get(&format!("/api/jobs/{job}")).await.ok()
    }

    /// Its balance.
    pub async fn balance(&self) -> Value {
        self.client.get(&format!("/api/credits/teams/{}/balance", self.id)).await.ok()
    }
}

impl TestApp {
    /// Starts one.
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

    /// The stand-in, for tests that look into it or make it fail. `None` against a real LiteLLM: such a test returns, having said so.
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
        Client { http: self.http.clone(), base: self.url(), identity }
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
        let id = unique("org");
        self.admin()
            .post("/api/organizations/create", json!({"organization_id": id, "name": "Test"}))
            .await
            .ok();
        id
    }

    /// A model group with a new name and these models, in order.
    pub async fn model_group(&self, models: &[&str]) -> String {
        let name = unique("Group");
        let models: Vec<Value> = models
            .iter()
            .zip(0..)
            .map(|(model, priority)| json!({"model_name": model, "priority": priority}))
            .collect();
        self.admin()
            .post("/api/model-groups/create", json!({"group_name": name, "models": models}))
            .await
            .ok();
        name
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
        let mut body = fields;
        let fields = body.as_object_mut().expect("an object");
        if !fields.contains_key("organization_id") {
            fields.insert("organization_id".into(), self.organization().await.into());
        }
        if !fields.contains_key("model_groups") && !fields.contains_key("access_groups") {
            fields.insert("model_groups".into(), json!([self.model_group(&["gpt-4o-mini"]).await]));
        }
        fields.entry("team_id").or_insert_with(|| unique("team").into());
        let team = self.admin().post("/api/teams/create", body).await.ok();
        let text = |name: &str| team[name].as_str().expect(name).to_owned();
        let (id, key) = (text("team_id"), text("virtual_key"));
        Team { id, client: self.bearer(&key), key }
    }
}

/// An id that no other test has, against a LiteLLM that several share too.
fn unique(what: &str) -> String {
    format!("{what}-{}", Uuid::now_v7().simple())
}
