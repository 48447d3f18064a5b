//! How a component declares its routes.
//!
//! A handler says its method and path, and what it takes and answers, in the `#[utoipa::path]` above it; the
//! component's list says who may call it ([`Access`]). Nothing is reachable without being on the list. Every answer
//! carries `x-request-id`, and every failure has the form of [`crate::error`].
//!
//! Spin's router lets paths through that are not quite the declared ones (a doubled leading slash, a trailing one,
//! `%2f` in a segment). Here only the exact path counts; everything else is a 404, and parts of it are decoded once
//! and then validated.

use super::{
    access::{self, Access, Kind},
    body::{self, RawBody},
    caller::{self, Caller},
    mutation::Mutation,
};
use crate::{
    error::{Code, Error, Result},
    platform::log::Line,
    values::{AccessGroupName, AlertId, GroupName, JobId, KeyId, OrganizationId, TeamId},
};
use axum::{
    Router,
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
use std::{
    collections::HashMap,
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};
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
        $crate::http::api::paste! {
            $crate::http::Api::new()
                $(.route::<$module::[<__path_ $handler>], _, _, $crate::http::access::$access>($module::$handler))*
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
    pub fn route<P, H, T, K>(mut self, handler: H) -> Self
    where
        P: utoipa::Path + utoipa::__dev::SchemaReferences + utoipa::__dev::Tags<'static>,
        H: Handler<T, K>,
        T: 'static,
        K: Kind,
    {
        let access = K::ACCESS;
        #[cfg(not(target_family = "wasm"))]
        for method in P::methods() {
            let mut schemas = vec![];
            P::schemas(&mut schemas);
            let (path, mut operation) = (P::path(), P::operation());
            operation.tags = Some(P::tags().into_iter().map(str::to_owned).collect());
            self.routes.push(Route { access, method, path, operation, schemas });
        }
        self.add(P::path(), &P::methods(), access, &|filter| {
            on(filter, handler.clone()).with_state(K::default())
        });
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
        let since = Instant::now();
        let id = request_id(&request);
        let method = request.method().clone();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(RequestId(id.clone()));
        let mut response = self.router.clone().call(request).await?;
        if response.status().is_server_error() {
            log_failure(&response, &id, &method, since.elapsed());
        }
        let headers = response.headers_mut();
        headers.insert(REQUEST_ID, id);
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        // It is for who asked; caches on the way know no `x-admin-key`.
        headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
        Ok(response)
    }
}

fn log_failure(response: &Response, id: &HeaderValue, method: &Method, duration: Duration) {
    let extensions = response.extensions();
    let asked = extensions.get::<Asked>();
    Line {
        request_id: id.to_str().ok(),
        method: Some(method.as_str()),
        route: asked.map(|asked| asked.route.as_str()),
        team_id: asked.and_then(|asked| asked.team_id.as_ref()).map(TeamId::as_str),
        status: Some(response.status().as_u16()),
        duration_ms: Some(duration),
        cause: extensions.get::<Error>().and_then(|error| error.cause.as_deref()),
        ..Line::default()
    }
    .write();
}

/// What the log says of a request, on its way there with the response.
#[derive(Clone)]
struct Asked {
    route: String,
    team_id: Option<TeamId>,
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
    let access = match guard.access(&request) {
        Ok(access) => access,
        Err(refusal) => return *refusal,
    };
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str).to_owned();
    let mut asked = Asked { route, team_id: None };
    let response = admitted(access, request, next, &mut asked).await;
    let mut response = response.unwrap_or_else(Error::into_response);
    response.extensions_mut().insert(asked);
    response
}

/// Establishes who calls, and lets the request through.
///
/// Where what it does checks the key again, an instance may have known the key for a while. Then whoever is refused
/// hears of the key first.
async fn admitted(access: Access, request: Request, next: Next, asked: &mut Asked) -> Result<Response> {
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD);
    let caller = caller::authenticate(access, request.headers(), changes).await?;
    let Some(caller) = caller else { return Ok(next.run(request).await) };
    if let Caller::Team(key) = &caller {
        asked.team_id = Some(key.team_id.clone());
    }
    if !changes {
        let mut request = request;
        request.extensions_mut().insert(caller);
        return Ok(next.run(request).await);
    }
    let response = change(&caller, request, next).await.unwrap_or_else(Error::into_response);
    // What became of a call that was made is told as it is.
    let made_a_call = response.headers().contains_key(CALL_ID);
    if response.status().is_client_error() && !made_a_call {
        caller::confirm(&caller).await?;
    }
    Ok(response)
}

/// Reads the body of a request that may change something, and lets it through.
async fn change(caller: &Caller, request: Request, next: Next) -> Result<Response> {
    let (mut parts, body) = request.into_parts();
    let body = body::read(&parts.headers, body).await?;
    let route = parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let id =
        parts.extensions.get::<RequestId>().and_then(|RequestId(id)| id.to_str().ok()).unwrap_or_default();
    let mutation = Mutation::new(caller, &parts, route, id, &body)?;
    parts.extensions.insert(caller.clone());
    parts.extensions.insert(mutation.clone());
    parts.extensions.insert(RawBody(body));
    let mut response = next.run(Request::from_parts(parts, Body::empty())).await;
    if mutation.is_replayed() {
        response.headers_mut().insert("idempotent-replayed", HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// A parameter of a path, which is refused where it can't be one.
pub trait PathParameter: Sized {
    /// Its name in the path.
    const NAME: &'static str;

    /// Reads it from its decoded text.
    fn read(text: String) -> Result<Self>;
}

/// A parameter of a path.
pub struct PathOf<T>(pub T);

impl<S: Send + Sync, T: PathParameter> FromRequestParts<S> for PathOf<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        T::read(path_parameter(parts, state, T::NAME).await?).map(PathOf)
    }
}

macro_rules! chosen_ids {
    ($($id:ty: $name:literal),*) => { $(
        impl PathParameter for $id {
            const NAME: &'static str = $name;

            fn read(text: String) -> Result<Self> {
                text.try_into().map_err(|allowed| Error::invalid($name, allowed))
            }
        }
    )* };
}

chosen_ids! { OrganizationId: "organization_id", GroupName: "group_name", AccessGroupName: "group_name" }

impl PathParameter for JobId {
    const NAME: &'static str = "job_id";

    /// Something that is no UUID is no job's id either.
    fn read(text: String) -> Result<Self> {
        let id = Uuid::try_parse(&text).map_err(|_| Error::new(Code::NotFound, "Job not found"))?;
        Ok(JobId(id))
    }
}

impl PathParameter for KeyId {
    const NAME: &'static str = "key_id";

    fn read(text: String) -> Result<Self> {
        Uuid::try_parse(&text)
            .map(KeyId)
            .map_err(|_| Error::new(Code::NotFound, format!("Key '{text}' not found")))
    }
}

impl PathParameter for AlertId {
    const NAME: &'static str = "alert_id";

    fn read(text: String) -> Result<Self> {
        Uuid::try_parse(&text)
            .map(AlertId)
            .map_err(|_| Error::new(Code::NotFound, format!("Alert '{text}' not found")))
    }
}

async fn team_id<S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<TeamId> {
    let text = path_parameter(parts, state, "team_id").await?;
    text.try_into().map_err(|allowed| Error::invalid("team_id", allowed))
}

/// The team of a path of the admin's, who may see every team.
pub struct PathTeam(pub TeamId);

impl FromRequestParts<access::Admin> for PathTeam {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &access::Admin) -> Result<Self> {
        team_id(parts, state).await.map(PathTeam)
    }
}

/// The team of a path that teams share with the admin. Another team than the caller's own is refused.
pub struct VisibleTeam(pub TeamId);

impl FromRequestParts<access::AdminOrTeam> for VisibleTeam {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &access::AdminOrTeam) -> Result<Self> {
        let caller = Caller::from_request_parts(parts, state).await?;
        let team_id = team_id(parts, state).await?;
        caller.may_see(&team_id)?;
        Ok(VisibleTeam(team_id))
    }
}

/// The decoded text of a parameter of the path.
async fn path_parameter<S: Send + Sync>(parts: &mut Parts, state: &S, name: &str) -> Result<String> {
    let Path(mut parameters): Path<HashMap<String, String>> =
        Path::from_request_parts(parts, state).await.map_err(|_| Error::invalid("path", "expected UTF-8"))?;
    parameters.remove(name).ok_or_else(|| {
        Error::internal(format!("a route without the parameter {name}, which its handler reads"))
    })
}
