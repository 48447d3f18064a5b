//! The guests' own HTTP requests: checked against the allowed hosts, sent over kept connections, streamed both ways.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::uri::Scheme;
use http::{Request, Response, Uri};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, Sleep, sleep, timeout};
use tower_service::Service;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks, default_send_request};

use crate::allowed_hosts::AllowedHosts;

/// Each of the three timeouts of a request, when the guest sets none.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(600);

type Client = legacy::Client<Connector, WasiBody>;
type Finished = Box<dyn Future<Output = Result<(), Error>> + Send>;
type Sent = Result<(Response<WasiBody>, Finished), Error>;

/// One component's way out. Clones share their kept connections.
#[derive(Clone)]
pub(crate) struct OutboundHttp {
    allowed: Arc<AllowedHosts>,
    client: Client,
}

impl OutboundHttp {
    pub(crate) fn new(allowed: Arc<AllowedHosts>) -> Self {
        Self { allowed, client: legacy::Client::builder(TokioExecutor::new()).build(Connector) }
    }

    async fn send(self, request: Request<WasiBody>, options: RequestOptions) -> Sent {
        if request.uri().host().is_none_or(str::is_empty) || !self.allowed.allows(&request.uri().to_string())
        {
            return Err(Error::HttpRequestDenied);
        }
        if request.uri().scheme() == Some(&Scheme::HTTPS) {
            let (response, finished) = default_send_request(request, Some(options)).await?;
            return Ok((response.map(|body| body.boxed_unsync()), Box::new(finished)));
        }
        let first_byte = options.first_byte_timeout.unwrap_or(DEFAULT_TIMEOUT);
        let between_bytes = options.between_bytes_timeout.unwrap_or(DEFAULT_TIMEOUT);
        let connect = options.connect_timeout.unwrap_or(DEFAULT_TIMEOUT);
        let sending = CONNECT_TIMEOUT.scope(connect, self.client.request(request));
        let response = timeout(first_byte, sending)
            .await
            .map_err(|_| Error::ConnectionReadTimeout)?
            .map_err(request_error)?;
        let response = response.map(|body| TimedBody::new(body, between_bytes).boxed_unsync());
        Ok((response, Box::new(async { Ok(()) })))
    }
}

impl WasiHttpHooks for OutboundHttp {
    /// The client sets it from the address.
    fn set_host_header(&mut self) -> bool {
        false
    }

    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _response_processed: Finished,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        Box::new(self.clone().send(request, options.unwrap_or_default()))
    }
}

tokio::task_local! {
    /// The client has no parameter for it. A kept connection does not need it.
    static CONNECT_TIMEOUT: Duration;
}

/// Opens TCP connections.
#[derive(Clone)]
struct Connector;

impl Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(async move {
            let limit = CONNECT_TIMEOUT.try_with(|limit| *limit).unwrap_or(DEFAULT_TIMEOUT);
            let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
            let addresses: Vec<_> = lookup_host((host, uri.port_u16().unwrap_or(80)))
                .await
                .map_err(|_| ConnectError::UnknownHost)?
                .collect();
            let stream = timeout(limit, TcpStream::connect(&*addresses))
                .await
                .map_err(|_| ConnectError::Timeout)?
                .map_err(|error| match error.kind() {
                    io::ErrorKind::AddrNotAvailable => ConnectError::UnknownHost,
                    _ => ConnectError::Refused,
                })?;
            Ok(TokioIo::new(stream))
        })
    }
}

/// Why there is no connection.
#[derive(Clone, Copy, Debug)]
enum ConnectError {
    UnknownHost,
    Refused,
    Timeout,
}

impl fmt::Display for ConnectError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::UnknownHost => "unknown host",
            Self::Refused => "connection refused",
            Self::Timeout => "connection timed out",
        })
    }
}

impl std::error::Error for ConnectError {}

impl From<ConnectError> for Error {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::UnknownHost => {
                Self::DnsError { rcode: Some("address not available".into()), info_code: Some(0) }
            }
            ConnectError::Refused => Self::ConnectionRefused,
            ConnectError::Timeout => Self::ConnectionTimeout,
        }
    }
}

fn request_error(error: legacy::Error) -> Error {
    match error.source().and_then(|source| source.downcast_ref::<ConnectError>()) {
        Some(error) => (*error).into(),
        None => Error::HttpProtocolError,
    }
}

/// An answer's body that fails when it is silent for too long.
struct TimedBody {
    body: Incoming,
    limit: Duration,
    silence: Option<Pin<Box<Sleep>>>,
    silent: bool,
}

impl TimedBody {
    fn new(body: Incoming, limit: Duration) -> Self {
        Self { body, limit, silence: None, silent: false }
    }
}

impl Body for TimedBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            this.silent = false;
            return Poll::Ready(frame.map(|frame| frame.map_err(|_| Error::HttpProtocolError)));
        }
        let silence = this.silence.get_or_insert_with(|| Box::pin(sleep(this.limit)));
        if !this.silent {
            this.silent = true;
            silence.as_mut().reset(Instant::now() + this.limit);
        }
        ready!(silence.as_mut().poll(context));
        Poll::Ready(Some(Err(Error::ConnectionReadTimeout)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
