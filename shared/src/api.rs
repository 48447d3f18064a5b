//! How a component declares its routes.
//!
//! A handler says its method and path, and what it takes and answers, in the `#[utoipa::path]` above it; the component's list says
//! who may call it ([`Access`]). Nothing is reachable without being on the list, and a handler finds in [`Principal`] who it was.
//! Every answer carries `x-request-id`, and every failure has the form of [`crate::error`].
//!
//! Spin's router lets paths through that are not quite the declared ones (a doubled leading slash, a trailing one, `%2f` in a
//! segment). Here only the exact path counts; everything else is a 404, and parts of it are decoded once and then validated.

use crate::{
    auth::{self, Access, Principal},
    change::Change,
    error::{self, Code, Error, Result},
    input::{self, RawBody, Slug},
};
use axum::{
    Extension, Router,
    body::Body,
    extract::{FromRequestParts, MatchedPath, Path, Request},
    handler::Handler,
    http::{
        HeaderName, HeaderValue, Method, Uri,
        header::{ALLOW, CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS},
        request::Parts,
    },
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::{MethodFilter, MethodRouter, on},
};
use std::{collections::HashMap, convert::Infallible, sync::Arc};
use tower_service::Service;
use utoipa::openapi::HttpMethod;
use uuid::Uuid;

#[doc(hidden)]
pub use pastey::paste;

/// The routes of a component, each with who may call it: `api![Admin: organizations::create, Public: health::get]`.
/// The handlers have a `#[utoipa::path]`.
#[macro_export]
macro_rules! api {
    ($($access:ident: $module:ident::$handler:ident),* $(,)?) => {
        $crate::api::paste! {
            $crate::api::Api::new()
                $(.route::<$module::[<__path_ $handler>], _, _>($crate::auth::Access::$access, $module::$handler))*
                .guarded()
        }
    };
}

/// The routes of a component.
#[derive(Clone)]
pub struct Api {
    router: Router,
    guard: Guard,
    #[cfg(not(target_family = "wasm"))]
    routes: Vec<Route>,
}

/// A route with its documentation. Only tools ask for it, so components don't carry it.
#[cfg(not(target_family = "wasm"))]
#[derive(Clone)]
pub struct Route {
    /// Who may call it.
    pub access: Access,
    /// Its method.
    pub method: HttpMethod,
    /// Its path, with parameters in braces.
    pub path: String,
    /// What it takes and answers.
    pub operation: utoipa::openapi::path::Operation,
    /// The schemas that its documentation refers to, by name.
    pub schemas: Vec<(String, utoipa::openapi::RefOr<utoipa::openapi::Schema>)>,
}

impl Api {
    /// No routes: everything is a 404.
    #[expect(clippy::new_without_default, reason = "an empty API is a beginning, not a default")]
    pub fn new() -> Self {
        Self {
            router: Router::new(),
            guard: Guard::default(),
            #[cfg(not(target_family = "wasm"))]
            routes: vec![],
        }
    }

    /// Adds a handler; `P` is what its `#[utoipa::path]` made. See [`api!`](crate::api!).
    pub fn route<P, H, T>(mut self, access: Access, handler: H) -> Self
    where
        P: utoipa::Path + utoipa::__dev::SchemaReferences + utoipa::__dev::Tags<'static>,
        H: Handler<T, ()>,
        T: 'static,
    {
        #[cfg(not(target_family = "wasm"))]
        for method in P::methods() {
            let mut schemas = vec![];
            P::schemas(&mut schemas);
            let (path, mut operation) = (P::path(), P::operation());
            operation.tags = Some(P::tags().into_iter().map(str::to_owned).collect());
            self.routes.push(Route { access, method, path, operation, schemas });
        }
        self.add(P::path(), &P::methods(), access, &|filter| on(filter, handler.clone()));
        self
    }

    /// Apart from [`Api::route`], which a component has once for each of its handlers.
    fn add(
        &mut self,
        path: String,
        methods: &[HttpMethod],
        access: Access,
        handled: &dyn Fn(MethodFilter) -> MethodRouter,
    ) {
        for method in methods {
            let method = standard(method);
            if let Ok(filter) = MethodFilter::try_from(method.clone()) {
                self.router = std::mem::take(&mut self.router).route(&path, handled(filter));
            }
            self.guard.0.entry(path.clone()).or_default().push((method, access));
        }
    }

    /// Ends the list: from here on, who may not call a route does not reach it.
    pub fn guarded(mut self) -> Self {
        let guard = Arc::new(std::mem::take(&mut self.guard));
        let admit = from_fn(move |request: Request, next: Next| admit(guard.clone(), request, next));
        self.router = self.router.route_layer(admit).fallback(|uri: Uri| async move {
            Error::new(Code::NotFound, format!("Route '{}' not found", uri.path()))
        });
        self
    }

    /// Its routes, in the order of the list.
    #[cfg(not(target_family = "wasm"))]
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// Answers one request.
    pub async fn answer<B>(&self, request: axum::http::Request<B>) -> Result<Response, Infallible>
    where
        B: axum::body::HttpBody<Data = axum::body::Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        let id = request_id(&request);
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(RequestId(id.clone()));
        let mut response = self.router.clone().call(request).await?;
        if response.status().is_server_error() {
            let cause = response.extensions().get::<Error>().and_then(|error| error.cause.as_deref());
            let id = id.to_str().unwrap_or_default();
            error::log(&format!("request {id}: {} {}", response.status(), cause.unwrap_or_default()));
        }
        let headers = response.headers_mut();
        headers.insert(REQUEST_ID, id);
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        // It is for who asked; caches on the way know no `x-admin-key`.
        headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
        Ok(response)
    }
}

fn standard(method: &HttpMethod) -> Method {
    match method {
        HttpMethod::Get => Method::GET,
        HttpMethod::Post => Method::POST,
        HttpMethod::Put => Method::PUT,
        HttpMethod::Patch => Method::PATCH,
        HttpMethod::Delete => Method::DELETE,
        HttpMethod::Head => Method::HEAD,
        HttpMethod::Options => Method::OPTIONS,
        HttpMethod::Trace => Method::TRACE,
    }
}

/// The id of the call that an answer is about.
pub(crate) const CALL_ID: HeaderName = HeaderName::from_static("x-call-id");

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id of a request, on its way to who writes down what the request did.
#[derive(Clone)]
struct RequestId(HeaderValue);

/// The caller's own id for the request, if it is a sane one: 1 to 128 of `A-Z a-z 0-9 _ . -`. Otherwise a new one.
fn request_id<B>(request: &axum::http::Request<B>) -> HeaderValue {
    let sane = |id: &&HeaderValue| {
        let bytes = id.as_bytes();
        let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.-".contains(byte);
        (1..=128).contains(&bytes.len()) && bytes.iter().all(allowed)
    };
    request.headers().get(REQUEST_ID).filter(sane).cloned().unwrap_or_else(|| {
        HeaderValue::from_str(&Uuid::now_v7().to_string()).unwrap_or(HeaderValue::from_static("unknown"))
    })
}

/// Who may call what: by path, and then by method.
#[derive(Clone, Default)]
struct Guard(HashMap<String, Vec<(Method, Access)>>);

impl Guard {
    /// Who may make this request; a method that the path does not have is refused.
    fn access(&self, request: &Request) -> Result<Access, Box<Response>> {
        let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
        let methods = self.0.get(path).map(Vec::as_slice).unwrap_or_default();
        // As the router has it: what answers GET answers HEAD.
        let method = if request.method() == Method::HEAD { &Method::GET } else { request.method() };
        if let Some((_, access)) = methods.iter().find(|(declared, _)| declared == method) {
            return Ok(*access);
        }
        let mut allowed: Vec<&str> = methods.iter().map(|(method, _)| method.as_str()).collect();
        if allowed.contains(&"GET") {
            allowed.push("HEAD");
        }
        let allowed = allowed.join(",");
        let detail = format!("Method not allowed here; allowed: {allowed}");
        let mut response = Error::new(Code::MethodNotAllowed, detail).into_response();
        if let Ok(allowed) = HeaderValue::from_str(&allowed) {
            response.headers_mut().insert(ALLOW, allowed);
        }
        Err(Box::new(response))
    }
}

async fn admit(guard: Arc<Guard>, request: Request, next: Next) -> Response {
    match guard.access(&request) {
        Ok(access) => admitted(access, request, next).await.unwrap_or_else(Error::into_response),
        Err(refusal) => *refusal,
    }
}

/// Establishes who calls, and lets the request through.
///
/// Where what it does checks the key again, an instance may have known the key for a while. Then whoever is refused hears of the key first.
async fn admitted(access: Access, request: Request, next: Next) -> Result<Response> {
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD) && access != Access::Public;
    let principal = auth::authenticate(access, request.headers(), changes).await?;
    if !changes {
        let mut request = request;
        request.extensions_mut().insert(principal);
        return Ok(next.run(request).await);
    }
    let response = change(&principal, request, next).await.unwrap_or_else(Error::into_response);
    // What became of a call that was made is told as it is.
    let made_a_call = response.headers().contains_key(CALL_ID);
    if response.status().is_client_error() && !made_a_call {
        auth::confirm(&principal).await?;
    }
    Ok(response)
}

/// Reads the body of a request that may change something, and lets it through.
async fn change(principal: &Principal, request: Request, next: Next) -> Result<Response> {
    let (mut parts, body) = request.into_parts();
    let body = input::read(&parts.headers, body).await?;
    let route = parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let id =
        parts.extensions.get::<RequestId>().and_then(|RequestId(id)| id.to_str().ok()).unwrap_or_default();
    let change = Change::new(principal, &parts, route, id, &body)?;
    parts.extensions.insert(principal.clone());
    parts.extensions.insert(change.clone());
    parts.extensions.insert(RawBody(body));
    let mut response = next.run(Request::from_parts(parts, Body::empty())).await;
    if change.is_replayed() {
        response.headers_mut().insert("idempotent-replayed", HeaderValue::from_static("true"));
    }
    Ok(response)
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

/// The first parameter of a path, an id chosen by a caller; what can't be one is refused.
pub struct PathSlug(pub Slug);

impl<S: Send + Sync> FromRequestParts<S> for PathSlug {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let parameters = path_parameters(parts, state).await?;
        let id = parameters
            .into_iter()
            .find(|(name, _)| name == "team_id" || name == "group_name" || name == "organization_id");
        let (name, value) =
            id.ok_or_else(|| Error::internal("a route without the parameter its handler reads"))?;
        value.try_into().map(PathSlug).map_err(|allowed| Error::invalid(&name, allowed))
    }
}

/// The parameter `job_id` of a path.
pub struct PathJob(pub Uuid);

impl<S: Send + Sync> FromRequestParts<S> for PathJob {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        // Something that is no UUID is no job's id either.
        let id =
            path_parameters(parts, state).await?.remove("job_id").and_then(|id| Uuid::try_parse(&id).ok());
        id.map(PathJob).ok_or_else(|| Error::new(Code::NotFound, "Job not found"))
    }
}

/// The parameter `key_id` of a path.
pub struct PathKey(pub Uuid);

impl<S: Send + Sync> FromRequestParts<S> for PathKey {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let id = path_parameters(parts, state).await?.remove("key_id").unwrap_or_default();
        Uuid::try_parse(&id)
            .map(PathKey)
            .map_err(|_| Error::new(Code::NotFound, format!("Key '{id}' not found")))
    }
}

/// Names and decoded values of the path's parameters.
async fn path_parameters<S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<HashMap<String, String>> {
    let Path(parameters) =
        Path::from_request_parts(parts, state).await.map_err(|_| Error::invalid("path", "expected UTF-8"))?;
    Ok(parameters)
}
