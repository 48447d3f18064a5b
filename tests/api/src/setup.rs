//! What a test needs before it begins, set up by the admin: an organization, a model group, a team.

use crate::{Client, eventually};
use serde_json::{Value, json};
use uuid::Uuid;

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

    /// Waits until a call in the job is open.
    pub async fn open_call(&self, job: &str) {
        eventually("an open call", async || {
            let calls = self.read(job).await["calls"].take();
            calls
                .as_array()
                .is_some_and(|calls| calls.iter().any(|call| call["status"] == "open"))
                .then_some(())
        })
        .await;
    }

    /// Its balance.
    pub async fn balance(&self) -> Value {
        self.client.get(&format!("/api/credits/teams/{}/balance", self.id)).await.ok()
    }
}

/// What the admin sets up.
impl Client {
    /// An organization with a new id.
    pub async fn new_organization(&self) -> String {
        let id = unique("org");
        self.post("/api/organizations/create", json!({"organization_id": id, "name": "Test"})).await.ok();
        id
    }

    /// A model group with a new name and these models, in order.
    pub async fn new_model_group(&self, models: &[&str]) -> String {
        let name = unique("Group");
        let models: Vec<Value> = models
            .iter()
            .zip(0..)
            .map(|(model, priority)| json!({"model_name": model, "priority": priority}))
            .collect();
        self.post("/api/model-groups/create", json!({"group_name": name, "models": models})).await.ok();
        name
    }

    /// A team made of these fields, completed with an organization, an id and a model group where they are missing.
    pub async fn new_team(&self, fields: Value) -> Team {
        let mut body = fields;
        let fields = body.as_object_mut().expect("an object");
        if !fields.contains_key("organization_id") {
            fields.insert("organization_id".into(), self.new_organization().await.into());
        }
        if !fields.contains_key("model_groups") && !fields.contains_key("access_groups") {
            fields.insert("model_groups".into(), json!([self.new_model_group(&["gpt-4o-mini"]).await]));
        }
        fields.entry("team_id").or_insert_with(|| unique("team").into());
        let team = self.post("/api/teams/create", body).await.ok();
        let text = |name: &str| team[name].as_str().expect(name).to_owned();
        let (id, key) = (text("team_id"), text("virtual_key"));
        Team { id, client: self.as_team(&key), key }
    }
}

/// An id that no other test has, against a LiteLLM that several share too.
fn unique(what: &str) -> String {
    format!("{what}-{}", Uuid::now_v7().simple())
}
