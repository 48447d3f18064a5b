//! How a component declares its routes.
//!
//! Each route says beside its path who may call it ([`Access`]); nothing is reachable without having said so, and a handler finds
//! in [`Principal`] who it was. Every answer carries `x-request-id`, and every failure has the form of [`crate::error`].
//!
//! Spin's router lets paths through that are not quite the declared ones (a doubled leading slash, a trailing one, `%2f` in a
//! segment). Here only the exact path counts; everything else is a 404, and parts of it are decoded once and then validated.

use crate::{
    auth::{self, Access, Principal},
    error::{Cause, Code, Error, Result},
    input::Slug,
};
use axum::{
    Extension, Router,
    body::Body,
    extract::{FromRequestParts, Path, Request},
    handler::Handler,
    http::{HeaderName, HeaderValue, StatusCode, Uri, header::ALLOW, request::Parts},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::{MethodRouter, get, post, put},
};
use std::{collections::HashMap, convert::Infallible};
use tower_service::Service;
use uuid::Uuid;

/// The routes of a component.
#[derive(Clone)]
pub struct Api(Router);

impl Api {
    /// No routes: everything is a 404.
    #[expect(clippy::new_without_default, reason = "an empty API is a beginning, not a default")]
    pub fn new() -> Self {
        Self(Router::new().fallback(|uri: Uri| async move {
            Error::new(Code::NotFound, format!("Route '{}' not found", uri.path()))
        }))
    }

    /// Adds a GET route.
    pub fn get<H: Handler<T, ()>, T: 'static>(self, path: &str, access: Access, handler: H) -> Self {
        self.route(path, access, get(handler))
    }

    /// Adds a POST route.
    pub fn post<H: Handler<T, ()>, T: 'static>(self, path: &str, access: Access, handler: H) -> Self {
        self.route(path, access, post(handler))
    }

    /// Adds a PUT route.
    pub fn put<H: Handler<T, ()>, T: 'static>(self, path: &str, access: Access, handler: H) -> Self {
        self.route(path, access, put(handler))
    }

    fn route(self, path: &str, access: Access, methods: MethodRouter) -> Self {
        let guard = from_fn(move |request: Request, next: Next| admit(access, request, next));
        Self(self.0.route(path, methods.route_layer(guard)))
    }

    /// Answers one request.
    pub async fn answer<B>(&self, request: axum::http::Request<B>) -> Result<Response, Infallible>
    where
        B: axum::body::HttpBody<Data = axum::body::Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        let id = request_id(&request);
        let mut response = self.0.clone().call(request.map(Body::new)).await?;
        if let (StatusCode::METHOD_NOT_ALLOWED, Some(allowed)) =
            (response.status(), response.headers().get(ALLOW))
        {
            // The router's own answer, which has no body.
            let detail =
                format!("Method not allowed here; allowed: {}", allowed.to_str().unwrap_or_default());
            let allowed = allowed.clone();
            response = Error::new(Code::MethodNotAllowed, detail).into_response();
            response.headers_mut().insert(ALLOW, allowed);
        }
        if response.status().is_server_error() {
            let cause = response.extensions().get::<Cause>().map_or("", |Cause(cause)| cause);
            eprintln!("request {}: {} {cause}", id.to_str().unwrap_or_default(), response.status());
        }
        response.headers_mut().insert(REQUEST_ID, id);
        Ok(response)
    }
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The caller's own id for the request, if it is a sane one: 1 to 128 visible ASCII characters. Otherwise a new one.
fn request_id<B>(request: &axum::http::Request<B>) -> HeaderValue {
    let sane = |id: &&HeaderValue| {
        let bytes = id.as_bytes();
        (1..=128).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
    };
    request.headers().get(REQUEST_ID).filter(sane).cloned().unwrap_or_else(|| {
        HeaderValue::from_str(&Uuid::now_v7().to_string()).unwrap_or(HeaderValue::from_static("unknown"))
    })
}

async fn admit(access: Access, mut request: Request, next: Next) -> Response {
    match auth::authenticate(access, request.headers()).await {
        Ok(principal) => {
            request.extensions_mut().insert(principal);
            next.run(request).await
        }
        Err(refusal) => refusal.into_response(),
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Principal {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let Extension(principal) = Extension::from_request_parts(parts, state)
            .await
            .map_err(|_| Error::internal("a route without a principal"))?;
        Ok(principal)
    }
}

/// The team of a route with [`Access::Team`].
impl<S: Send + Sync> FromRequestParts<S> for auth::TeamKey {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        match Principal::from_request_parts(parts, state).await? {
            Principal::Team(key) => Ok(key),
            Principal::Admin | Principal::Nobody => {
                Err(Error::internal("a team's handler on a route for others"))
            }
        }
    }
}

/// The one parameter of a path that is an id chosen by a caller; what can't be one names nothing that exists.
pub struct PathSlug(pub Slug);

impl<S: Send + Sync> FromRequestParts<S> for PathSlug {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let (name, value) = path_parameter(parts, state).await?;
        value.try_into().map(PathSlug).map_err(|allowed| Error::invalid(&name, allowed))
    }
}

/// The one parameter of a path that is a job's id.
pub struct PathJob(pub Uuid);

impl<S: Send + Sync> FromRequestParts<S> for PathJob {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let (_, value) = path_parameter(parts, state).await?;
        // Something that is no UUID is no job's id either.
        Uuid::try_parse(&value).map(PathJob).map_err(|_| Error::new(Code::NotFound, "Job not found"))
    }
}

/// Name and decoded value of the path's one parameter.
async fn path_parameter<S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<(String, String)> {
    let Path(parameters) = Path::<HashMap<String, String>>::from_request_parts(parts, state)
        .await
        .map_err(|_| Error::invalid("path", "expected UTF-8"))?;
    parameters
        .into_iter()
        .next()
        .ok_or_else(|| Error::internal("a route without the parameter its handler reads"))
}
