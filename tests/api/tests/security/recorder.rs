//! Somebody between the application and the LiteLLM stand-in who writes everything down, and can answer in LiteLLM's
//! place with an error that quotes all that it was sent, as providers do with prompts.

use crate::world::Stage;
use api_tests::{Options, TestApp};
use http_body_util::{BodyExt, Full};
use hyper::{
    HeaderMap, Request, Response,
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::{
    convert::Infallible,
    sync::{Arc, Mutex, OnceLock},
};
use tokio::net::TcpListener;

/// A request that LiteLLM got.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its path with the query.
    pub path: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body; `null` where there is none.
    pub body: Value,
}

/// A recording proxy between the application and the LiteLLM stand-in.
#[derive(Clone)]
pub struct Recorder(Arc<Desk>);

#[derive(Default)]
struct Desk {
    url: String,
    litellm: OnceLock<String>,
    http: reqwest::Client,
    seen: Mutex<Vec<Seen>>,
    quoting: Mutex<Option<u16>>,
}

impl Recorder {
    /// An application that reaches LiteLLM through it. `None` without the stand-in.
    pub async fn start(mut options: Options) -> Option<(TestApp, Self)> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let desk = Arc::new(Desk { url: url.clone(), ..Desk::default() });
        let shared = Arc::clone(&desk);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let desk = Arc::clone(&shared);
                let service = service_fn(move |request| answer(request, Arc::clone(&desk)));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        options.variables.push(("litellm_url", url));
        let app = TestApp::start_with(options).await;
        desk.litellm.set(app.stand_in()?.url()).expect("set once");
        Some((app, Self(desk)))
    }

    /// [`start`](Self::start) with other teams beside what a test is about.
    pub async fn on_stage(options: Options) -> Option<(Stage, Self)> {
        let (app, recorder) = Self::start(options).await?;
        Some((Stage { other: app.team(10).await, suspended: app.team(10).await, app }, recorder))
    }

    /// Its address, which is LiteLLM's to the application.
    pub fn url(&self) -> &str {
        &self.0.url
    }

    /// What LiteLLM got so far, in order.
    pub fn seen(&self) -> Vec<Seen> {
        self.0.seen.lock().expect("requests").clone()
    }

    /// The calls of models among it.
    pub fn completions(&self) -> Vec<Seen> {
        self.seen().into_iter().filter(|seen| seen.path.ends_with("/chat/completions")).collect()
    }

    /// From now on every request is answered with this status and an error that quotes it, headers and all, in an
    /// answer of that form or, with 200, in one that should have been a model's; with `None` LiteLLM answers again.
    pub fn quote(&self, status: Option<u16>) {
        *self.0.quoting.lock().expect("the mode") = status;
    }
}

async fn answer(request: Request<Incoming>, desk: Arc<Desk>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let seen = Seen {
        path: path.clone(),
        headers: parts.headers.clone(),
        body: serde_json::from_slice(&body).unwrap_or_default(),
    };
    desk.seen.lock().expect("requests").push(seen);
    let quoting = *desk.quoting.lock().expect("the mode");
    if let Some(status) = quoting {
        let sent = String::from_utf8_lossy(&body);
        let message = format!("no luck with {sent} from {:?}\r\nof nobody\n{sent}\u{1b}[31m", parts.headers);
        let error = json!({"message": message, "type": "None", "param": null, "code": status.to_string()});
        let error = match (status, sent.contains("\"stream\":true")) {
            (200, true) => format!("data: {}\n\n", json!({"error": error})),
            (200, false) => json!({"choices": message}).to_string(),
            _ => json!({"error": error}).to_string(),
        };
        let quoted = Response::builder().status(status).header("x-litellm-call-id", "quoted");
        return Ok(quoted.body(Full::from(error)).expect("an answer"));
    }
    let litellm = desk.litellm.get().expect("the stand-in is known");
    let mut headers = parts.headers;
    headers.remove("host");
    let request =
        desk.http.request(parts.method, format!("{litellm}{path}")).headers(headers).body(body.to_vec());
    let Ok(answer) = request.send().await else {
        return Ok(Response::builder().status(502).body(Full::default()).expect("an answer"));
    };
    let mut passed_on = Response::builder().status(answer.status());
    for (name, value) in answer.headers().iter().filter(|(name, _)| *name != "transfer-encoding") {
        passed_on = passed_on.header(name, value);
    }
    let body = answer.bytes().await.unwrap_or_default();
    Ok(passed_on.body(Full::from(body)).expect("an answer"))
}
