//! Personas: the admin, a team, nobody.

use futures::StreamExt;
use reqwest::{Method, RequestBuilder, StatusCode, header::HeaderMap};
use serde_json::Value;

/// The admin key of every application under test.
pub const ADMIN_KEY: &str = "test-admin-key";

/// Somebody who sends requests.
#[derive(Clone)]
pub struct Client {
    pub(crate) http: reqwest::Client,
    pub(crate) base: String,
    /// The header that says who it is.
    pub(crate) identity: Option<(&'static str, String)>,
}

impl Client {
    /// Somebody without a key, at `base` (`http://127.0.0.1:PORT`), whose every request has a connection of its own:
    /// for servers that may be gone the next moment.
    pub fn new(base: String) -> Self {
        let http = reqwest::Client::builder().pool_max_idle_per_host(0).build().expect("a client");
        Self { http, base, identity: None }
    }

    /// The same connections, by the admin, whose key in tests is always the same one.
    pub fn as_admin(&self) -> Self {
        self.with(Some(("x-admin-key", ADMIN_KEY.into())))
    }

    /// The same connections, by whoever has this virtual key.
    pub fn as_team(&self, key: &str) -> Self {
        self.with(Some(("authorization", format!("Bearer {key}"))))
    }

    /// The same persona at another address.
    pub fn at(&self, base: String) -> Self {
        Self { base, ..self.clone() }
    }

    pub(crate) fn with(&self, identity: Option<(&'static str, String)>) -> Self {
        Self { identity, ..self.clone() }
    }

    /// A request with this persona's identity, for what the other methods don't cover.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.identity {
            Some((name, value)) => request.header(*name, value),
            None => request,
        }
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::GET, path)).await
    }

    /// POST of a JSON body.
    pub async fn post(&self, path: &str, body: Value) -> Answer {
        Answer::of(self.request(Method::POST, path).body(body.to_string())).await
    }

    /// PUT of a JSON body.
    pub async fn put(&self, path: &str, body: Value) -> Answer {
        Answer::of(self.request(Method::PUT, path).body(body.to_string())).await
    }

    /// PATCH of a JSON body.
    pub async fn patch(&self, path: &str, body: Value) -> Answer {
        Answer::of(self.request(Method::PATCH, path).body(body.to_string())).await
    }

    /// DELETE.
    pub async fn delete(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::DELETE, path)).await
    }

    /// Opens a stream and reads nothing yet.
    pub async fn stream(&self, path: &str, body: Value) -> Sse {
        Sse::of(self.request(Method::POST, path).body(body.to_string())).await
    }
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body as text.
    pub text: String,
    /// Its body as JSON; `null` when it is none.
    pub body: Value,
}

impl Answer {
    /// Sends a request and reads the answer to its end.
    pub async fn of(request: RequestBuilder) -> Self {
        Self::try_of(request).await.expect("a complete answer")
    }

    /// [`of`](Self::of) a server that may not be there, or may go away before the answer is complete.
    pub async fn try_of(request: RequestBuilder) -> reqwest::Result<Self> {
        let response = request.send().await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await?;
        let body = serde_json::from_str(&text).unwrap_or_default();
        Ok(Self { status, headers, text, body })
    }

    /// The body of a successful answer; fails the test for any other.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text);
        self.body
    }

    /// Fails the test unless the answer is this error: status, `code`, and the whole `detail`.
    #[track_caller]
    pub fn refused(self, status: u16, code: &str, detail: &str) {
        assert_eq!(
            (self.status.as_u16(), &self.body["code"], &self.body["detail"]),
            (status, &code.into(), &detail.into()),
            "{}",
            self.text
        );
    }

    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// A stream of server-sent events. Dropping it closes the connection.
pub struct Sse {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    body: futures::stream::BoxStream<'static, reqwest::Result<Vec<u8>>>,
    unread: String,
}

impl Sse {
    /// Sends a request and reads no more than the head of the answer.
    pub async fn of(request: RequestBuilder) -> Self {
        let response = request.send().await.expect("an answer");
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.bytes_stream().map(|chunk| chunk.map(|chunk| chunk.to_vec())).boxed();
        Self { status, headers, body, unread: String::new() }
    }

    /// The next event or comment as its lines, without the blank line that ends it. `None` at the end of the body, or
    /// where it breaks.
    pub async fn next(&mut self) -> Option<String> {
        loop {
            if let Some((event, rest)) = self.unread.split_once("\n\n") {
                let event = event.to_owned();
                self.unread = rest.to_owned();
                return Some(event);
            }
            let chunk = self.body.next().await?.ok()?;
            self.unread.push_str(std::str::from_utf8(&chunk).expect("text"));
        }
    }

    /// The JSON of the next `data:` event, skipping comments. `None` at `[DONE]` and at the end.
    pub async fn next_data(&mut self) -> Option<Value> {
        loop {
            let event = self.next().await?;
            let Some((_, data)) = event.split_once("data: ") else { continue };
            return (data != "[DONE]").then(|| serde_json::from_str(data).expect("JSON"));
        }
    }

    /// The whole answer, where it is no stream.
    pub async fn into_answer(mut self) -> Answer {
        let mut bytes = self.unread.into_bytes();
        while let Some(chunk) = self.body.next().await {
            bytes.extend(chunk.expect("a complete body"));
        }
        let text = String::from_utf8(bytes).expect("text");
        let body = serde_json::from_str(&text).unwrap_or_default();
        Answer { status: self.status, headers: self.headers, text, body }
    }

    /// All events to the end.
    pub async fn rest(mut self) -> Vec<String> {
        let mut events = vec![];
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }
}
