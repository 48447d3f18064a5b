//! What the server was asked, and the faults that tests plan for requests to come.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::extract::{Request, State as FromApp};
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use serde_json::Value;

use crate::auth;
use crate::error::ApiError;
use crate::fields::key_hash;
use crate::state::{App, Shared};

/// A request that came in.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// `GET`, `POST` …
    pub method: String,
    /// The path as it was sent, such as `/v1/chat/completions`.
    pub path: String,
    /// What followed the `?`, if anything.
    pub query: Option<String>,
    /// SHA-256 of the key that the request carried, in hexadecimal. The key itself is not kept.
    pub key_hash: Option<String>,
    /// The body; `null` for an empty one and for what is no JSON.
    pub body: Value,
    /// How it ended.
    pub outcome: Outcome,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is still being worked on.
    Pending,
    /// It was answered with this status, to the last byte of the body.
    Answered(u16),
    /// The connection ended before the answer was complete.
    ClientLeft,
}

/// Requests in the order in which they came, and planned faults.
#[derive(Default)]
pub(crate) struct Journal {
    /// Whether requests are kept; a server that runs for days does not.
    keeps: bool,
    requests: Vec<Recorded>,
    faults: Vec<Fault>,
}

struct Fault {
    path: String,
    status: u16,
    left: usize,
}

impl Journal {
    /// A journal that keeps requests.
    pub fn keeping() -> Journal {
        Journal { keeps: true, ..Journal::default() }
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Recorded> {
        self.requests.clone()
    }

    /// Plans a fault; `/v1` before a path makes no difference.
    pub fn plan(&mut self, path: &str, status: u16, count: usize) {
        self.faults.push(Fault { path: plain(path).to_owned(), status, left: count });
    }

    fn next_fault(&mut self, path: &str) -> Option<u16> {
        let fault = self.faults.iter_mut().find(|fault| fault.left > 0 && fault.path == plain(path))?;
        fault.left -= 1;
        Some(fault.status)
    }

    /// The number under which the outcome is reported later.
    fn record(&mut self, request: Recorded) -> usize {
        self.requests.push(request);
        self.requests.len() - 1
    }
}

fn plain(path: &str) -> &str {
    path.strip_prefix("/v1").unwrap_or(path)
}

/// Records every request and how it ended, and answers those with an error for which a fault is planned.
pub(crate) async fn keep(FromApp(app): FromApp<App>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, usize::MAX).await else {
        return ApiError::new(400, "invalid_request_error", "The request's body broke off.").into_response();
    };
    let path = parts.uri.path().to_owned();
    let recorded = app.journal().keeps.then(|| Recorded {
        method: parts.method.to_string(),
        path: path.clone(),
        query: parts.uri.query().map(str::to_owned),
        key_hash: presented_hash(&parts.headers),
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
        outcome: Outcome::Pending,
    });
    let (at, fault) = {
        let mut journal = app.journal();
        (recorded.map(|request| journal.record(request)), journal.next_fault(&path))
    };
    let mut ending = Ending { app, at, outcome: Outcome::ClientLeft };
    let response = match fault {
        Some(status) => {
            ApiError::new(status, "internal_server_error", "stand-in: a planned fault").into_response()
        }
        None => next.run(Request::from_parts(parts, Body::from(body))).await,
    };
    let status = Outcome::Answered(response.status().as_u16());
    if response.body().size_hint().exact().is_some() {
        ending.outcome = status;
        return response;
    }
    response.map(|inner| Body::new(Watched { inner, complete: status, ending }))
}

fn presented_hash(headers: &HeaderMap) -> Option<String> {
    auth::presented_key(headers).ok().map(key_hash)
}

/// Reports the outcome of a request when it is dropped, which is when nothing more can happen to it.
struct Ending {
    app: Arc<Shared>,
    at: Option<usize>,
    outcome: Outcome,
}

impl Drop for Ending {
    fn drop(&mut self) {
        let Some(at) = self.at else { return };
        if let Some(request) = self.app.journal().requests.get_mut(at) {
            request.outcome = self.outcome;
        }
    }
}

/// A streamed body that notices whether it was read to its end.
struct Watched {
    inner: Body,
    complete: Outcome,
    ending: Ending,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        if matches!(polled, Poll::Ready(None)) {
            self.ending.outcome = self.complete;
        }
        polled
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
