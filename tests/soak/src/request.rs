//! One request, and hearing what comes back, whatever that is.

use crate::history::{Heard, StreamEnd};
use futures::StreamExt;
use reqwest::{Client, Method, Response, header::CONTENT_TYPE};
use serde_json::Value;
use std::time::Duration;
use uuid::Uuid;

/// After this long without the end of an answer nobody waits for it any more. Longer than any answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A request to send.
#[derive(Clone)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The path and the query.
    pub path: String,
    /// The body; `null`: none.
    pub body: Value,
    /// The header that says who asks.
    pub identity: (&'static str, String),
    /// The `Idempotency-Key`.
    pub key: Option<String>,
    /// The header that puts a call of OpenAI's API into a job.
    pub job: Option<Uuid>,
    /// Hang up after so many events.
    pub leave_after: Option<usize>,
}

impl Request {
    /// Sends it to a host.
    pub async fn send(&self, http: &Client, host: &str) -> Heard {
        let mut request = http.request(self.method.clone(), format!("{host}{}", self.path));
        request = request.header(self.identity.0, &self.identity.1);
        if let Some(key) = &self.key {
            request = request.header("idempotency-key", key);
        }
        if let Some(job) = self.job {
            request = request.header("x-job-id", job.to_string());
        }
        if !self.body.is_null() {
            request = request.body(self.body.to_string());
        }
        let heard = async {
            let response = request.send().await.ok()?;
            let streams =
                response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "text/event-stream");
            if streams { Some(self.hear_stream(response).await) } else { hear(response).await }
        };
        tokio::time::timeout(PATIENCE, heard).await.ok().flatten().unwrap_or_default()
    }

    async fn hear_stream(&self, response: Response) -> Heard {
        let mut heard = heads(&response);
        let mut body = response.bytes_stream();
        let mut text = String::new();
        loop {
            if self.leave_after.is_some_and(|events| text.matches("\n\n").count() >= events) {
                heard.stream = Some(StreamEnd::Left);
                return heard;
            }
            match body.next().await {
                Some(Ok(bytes)) => text.push_str(&String::from_utf8_lossy(&bytes)),
                Some(Err(_)) | None => break,
            }
        }
        heard.stream = Some(end_of(&text));
        heard
    }
}

async fn hear(response: Response) -> Option<Heard> {
    let mut heard = heads(&response);
    let text = response.text().await.ok()?;
    heard.body = serde_json::from_str(&text).unwrap_or_default();
    let named = |name: &str| heard.body[name].as_str().and_then(|id| id.parse().ok());
    heard.job = heard.job.or_else(|| named("job_id"));
    heard.call = heard.call.or_else(|| named("call_id"));
    Some(heard)
}

fn heads(response: &Response) -> Heard {
    let header = |name: &str| response.headers().get(name)?.to_str().ok();
    Heard {
        status: response.status().as_u16(),
        replayed: header("idempotent-replayed") == Some("true"),
        call: header("x-call-id").and_then(|id| id.parse().ok()),
        job: header("x-job-id").and_then(|id| id.parse().ok()),
        retry_after: header("retry-after").is_some(),
        ..Heard::default()
    }
}

/// What the whole text of a stream says about its end.
fn end_of(text: &str) -> StreamEnd {
    let events: Vec<&str> = text.split("\n\n").filter(|event| !event.is_empty()).collect();
    let data = |event: &str| {
        let data = event.lines().find_map(|line| line.strip_prefix("data: "));
        data.and_then(|data| serde_json::from_str::<Value>(data).ok()).unwrap_or_default()
    };
    match events.last() {
        Some(&"data: [DONE]") => {
            let before = events.len().checked_sub(2).and_then(|index| events.get(index));
            StreamEnd::Done(before.map(|event| data(event)).unwrap_or_default())
        }
        Some(event) => {
            let data = data(event);
            if data["error"].is_object() { StreamEnd::Failed(data) } else { StreamEnd::Broken }
        }
        None => StreamEnd::Broken,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_stream_ends_done_failed_or_broken() {
        assert_eq!(
            end_of("data: {\"a\":1}\n\ndata: {\"usage\":2}\n\ndata: [DONE]\n\n"),
            StreamEnd::Done(json!({"usage": 2}))
        );
        assert_eq!(
            end_of("data: {}\n\nevent: error\ndata: {\"error\":{\"code\":\"x\"}}\n\n"),
            StreamEnd::Failed(json!({"error": {"code": "x"}}))
        );
        assert_eq!(end_of("data: {\"a\":1}\n\n"), StreamEnd::Broken);
        assert_eq!(end_of(""), StreamEnd::Broken);
    }
}
