//! The HTTP server of a running application, and its end.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::select;
use tokio::time::timeout;
use wasmtime_wasi_http::handler::HandlerState as _;
use wasmtime_wasi_http::{Error, WasiBody};

use crate::headers::{add_route, complete_uri};
use crate::instances::{Handler, Lifetime};
use crate::logs::LogSink;
use crate::router::{RouteMatch, Router};

/// How long [`Running::shutdown`] waits for what is under way.
const GRACE: Duration = Duration::from_secs(5);

/// Everything under it belongs to Spin.
const WELL_KNOWN: &str = "/.well-known/spin/";

/// An application that serves requests until it is shut down or dropped.
pub struct Running {
    address: SocketAddr,
    server: Arc<Server>,
}

/// What all connections of a running application share.
pub(crate) struct Server {
    pub(crate) router: Arc<Router>,
    pub(crate) handlers: BTreeMap<String, Handler>,
    pub(crate) logs: Arc<LogSink>,
    pub(crate) lifetime: Lifetime,
}

impl Running {
    /// Listens on `address` and serves from then on.
    pub(crate) async fn start(address: SocketAddr, server: Server) -> Result<Self> {
        let listener =
            TcpListener::bind(address).await.with_context(|| format!("can't listen on {address}"))?;
        let address = listener.local_addr()?;
        let server = Arc::new(server);
        tokio::spawn(server.clone().accept(listener));
        Ok(Self { address, server })
    }

    /// The address that the application listens on.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Every route with its component, in the order of their precedence.
    pub fn routes(&self) -> impl Iterator<Item = (&str, &str)> {
        self.server.router.routes()
    }

    /// Makes an instance of a component, which runs nothing, and tells how long that took.
    pub async fn time_instantiation(&self, component: &str) -> Result<Duration> {
        let handler =
            self.server.handlers.get(component).with_context(|| format!("no component {component}"))?;
        let since = Instant::now();
        let instance = handler.state().instantiate().await?;
        let took = since.elapsed();
        drop(instance);
        Ok(took)
    }

    /// Takes no more connections, lets requests and guests' work after their answers finish for at most 5 seconds, ends
    /// what is left, and closes the database connections. Afterwards nothing of the application runs.
    pub async fn shutdown(self) {
        let lifetime = &self.server.lifetime;
        lifetime.stopping.cancel();
        lifetime.alive.close();
        if timeout(GRACE, lifetime.alive.wait()).await.is_err() {
            lifetime.stopped.cancel();
            lifetime.alive.wait().await;
        }
        for handler in self.server.handlers.values() {
            handler.state().component.pools.close();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.server.lifetime.stopping.cancel();
        self.server.lifetime.stopped.cancel();
    }
}

impl Server {
    async fn accept(self: Arc<Self>, listener: TcpListener) {
        loop {
            let accepted = select! {
                accepted = listener.accept() => accepted,
                () = self.lifetime.stopping.cancelled() => return,
            };
            match accepted {
                Ok((stream, client)) => {
                    _ = self.lifetime.alive.spawn(self.clone().serve(stream, client));
                }
                // Too many open files, most likely: others must close before there is room.
                Err(error) => {
                    self.logs.line(format!("can't accept a connection: {error}").as_bytes());
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    async fn serve(self: Arc<Self>, stream: TcpStream, client: SocketAddr) {
        let server = self.clone();
        let service = service_fn(move |request| {
            let server = server.clone();
            async move { server.answer(request, client).await }
        });
        let builder = Builder::new(TokioExecutor::new());
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        // How a connection ends is the client's business: errors here are hang-ups.
        select! {
            _ = connection.as_mut() => return,
            () = self.lifetime.stopping.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        select! {
            _ = connection => {}
            () = self.lifetime.stopped.cancelled() => {}
        }
    }

    /// The answer to a request; an error closes the connection without one, as Spin does where a request names no host,
    /// or two.
    async fn answer(
        self: Arc<Self>,
        mut request: Request<Incoming>,
        client: SocketAddr,
    ) -> Result<Response<WasiBody>> {
        let path = request.uri().path().to_owned();
        if let Some(name) = path.strip_prefix(WELL_KNOWN) {
            return Ok(match name {
                "health" => respond(StatusCode::OK, "OK"),
                _ => respond(StatusCode::NOT_FOUND, ""),
            });
        }
        let Some(route) = self.router.route(&path) else {
            return Ok(respond(StatusCode::NOT_FOUND, ""));
        };
        complete_uri(&mut request)?;
        Ok(self.call(request, &route, client).await.unwrap_or_else(|error| {
            self.logs.line(format!("{} failed: {error:#}", route.component()).as_bytes());
            respond(StatusCode::INTERNAL_SERVER_ERROR, "")
        }))
    }

    async fn call(
        &self,
        request: Request<Incoming>,
        route: &RouteMatch<'_>,
        client: SocketAddr,
    ) -> Result<Response<WasiBody>> {
        let handler = self
            .handlers
            .get(route.component())
            .with_context(|| format!("there is no component {}", route.component()))?;
        let (mut parts, body) = request.into_parts();
        add_route(&mut parts, route, client)?;
        let request = Request::from_parts(parts, body.map_err(Error::from).boxed_unsync());
        Ok(handler.handle((), request).await?)
    }
}

fn respond(status: StatusCode, text: &'static str) -> Response<WasiBody> {
    let body = match text {
        "" => Empty::new().map_err(Error::from).boxed_unsync(),
        text => Full::new(Bytes::from_static(text.as_bytes())).map_err(Error::from).boxed_unsync(),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}
