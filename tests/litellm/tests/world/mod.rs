//! A stand-in and a client for it, for the tests beside.

#![allow(dead_code, reason = "every test file is a crate of its own and uses a part")]

use futures::StreamExt;
use litellm_stand_in::{Config, KeyRecord, StandIn};
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

/// A running stand-in with a client.
pub struct World {
    pub litellm: StandIn,
    pub client: reqwest::Client,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {}", self.text))
    }

    /// A header's value, empty when it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().expect("text")).unwrap_or_default()
    }

    /// A member of the error.
    pub fn error(&self, name: &str) -> String {
        let value = self.json()["error"][name].clone();
        value.as_str().map_or_else(|| value.to_string(), str::to_owned)
    }

    pub fn message(&self) -> String {
        self.error("message")
    }

    /// Status and type of the error.
    pub fn failure(&self) -> (u16, String) {
        (self.status, self.error("type"))
    }

    /// What the model said.
    pub fn content(&self) -> String {
        self.json()["choices"][0]["message"]["content"].as_str().unwrap_or_default().to_owned()
    }

    /// The events of a stream; `[DONE]` is a string.
    pub fn events(&self) -> Vec<Value> {
        let data = self.text.split("\n\n").filter_map(|event| event.strip_prefix("data: "));
        data.map(|data| serde_json::from_str(data).unwrap_or_else(|_| json!(data))).collect()
    }

    /// The text of a stream's events.
    pub fn streamed(&self) -> String {
        let events = self.events();
        let pieces = events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str());
        pieces.collect()
    }
}

/// Starts a stand-in.
pub async fn world() -> World {
    let litellm = StandIn::start(Config::default()).await.expect("a free port");
    World { litellm, client: reqwest::Client::new() }
}

/// A chat request with one message.
pub fn prompt(model: &str, content: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": content}]})
}

/// A streamed chat request that asks for usage.
pub fn stream(model: &str, content: &str) -> Value {
    let mut body = prompt(model, content);
    body["stream"] = json!(true);
    body["stream_options"] = json!({"include_usage": true});
    body
}

impl World {
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.litellm.url())
    }

    async fn finish(request: reqwest::RequestBuilder) -> Answer {
        let response = request.send().await.expect("an answer");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Answer { status, headers, text: response.text().await.expect("a whole body") }
    }

    pub async fn post(&self, key: &str, path: &str, body: Value) -> Answer {
        World::finish(self.client.post(self.url(path)).bearer_auth(key).json(&body)).await
    }

    pub async fn get(&self, key: &str, path: &str) -> Answer {
        World::finish(self.client.get(self.url(path)).bearer_auth(key)).await
    }

    /// A request that is built by hand.
    pub async fn send(&self, build: impl FnOnce(&reqwest::Client) -> reqwest::RequestBuilder) -> Answer {
        World::finish(build(&self.client)).await
    }

    pub async fn admin(&self, path: &str, body: Value) -> Answer {
        self.post(self.litellm.master_key(), path, body).await
    }

    pub async fn admin_get(&self, path: &str) -> Answer {
        self.get(self.litellm.master_key(), path).await
    }

    /// A new team's id.
    pub async fn team(&self, settings: Value) -> String {
        let answer = self.admin("/team/new", settings).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()["team_id"].as_str().expect("an id").to_owned()
    }

    /// A new key.
    pub async fn key(&self, settings: Value) -> String {
        let answer = self.admin("/key/generate", settings).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()["key"].as_str().expect("a key").to_owned()
    }

    pub async fn chat(&self, key: &str, body: Value) -> Answer {
        self.post(key, "/v1/chat/completions", body).await
    }

    /// `info` of `/key/info`.
    pub async fn key_info(&self, key: &str) -> Value {
        self.admin_get(&format!("/key/info?key={key}")).await.json()["info"].clone()
    }

    /// The team's only key.
    pub fn only_key(&self, team_id: &str) -> KeyRecord {
        let keys = self.litellm.keys_of(team_id);
        assert_eq!(keys.len(), 1);
        keys.into_iter().next().expect("one key")
    }

    /// Reads some events of a stream and leaves.
    pub async fn leave_after(&self, key: &str, body: Value, events: usize) {
        let request = self.client.post(self.url("/v1/chat/completions")).bearer_auth(key).json(&body);
        let mut read = request.send().await.expect("an answer").bytes_stream();
        let mut seen = 0;
        while seen < events {
            let bytes = read.next().await.expect("more").expect("bytes");
            seen += bytes.windows(2).filter(|pair| pair == b"\n\n").count();
        }
    }
}

/// Waits until it holds, also on a machine with much else to do.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..4800 {
        if holds() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    panic!("never: {what}");
}
