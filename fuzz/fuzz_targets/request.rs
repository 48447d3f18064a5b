//! A request as the host hands it over: method, target, and headers, one a line.
//!
//! * Paths that are not quite a route's (`//`, `%2f`, a trailing slash, dots) reach nothing, and what guards a route
//!   can't be gone around: without a well-formed key the answer of a team's route is never its own.
//! * Ids in paths are valid once a handler sees them.
//! * Every answer has one `x-request-id`, visible and bounded; every failure has the documented form.
#![no_main]

use axum::{
    Json,
    body::{Body, to_bytes},
    http::{HeaderName, HeaderValue, Method, Request, Uri, header::AUTHORIZATION},
    response::Response,
};
use futures::executor::block_on;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use shared::{
    http::{Api, Page, PathOf, Query, caller::bearer},
    values::{GroupName, JobId, KeyId, OrganizationId},
};
use std::sync::LazyLock;

/// What a team's route answers; no caller here is a team.
const SECRET: &str = "a team's own";

/// Routes of every kind that need neither a database nor variables to answer.
mod routes {
    use super::*;

    #[utoipa::path(get, path = "/api/organizations/{organization_id}")]
    pub async fn organization(
        PathOf(id): PathOf<OrganizationId>,
        Query(page): Query<Page>,
    ) -> Json<(String, i64)> {
        Json((id.to_string(), page.limit.get()))
    }

    #[utoipa::path(post, path = "/api/jobs/{job_id}/complete")]
    pub async fn job(PathOf(job_id): PathOf<JobId>) -> Json<String> {
        Json(job_id.to_string())
    }

    #[utoipa::path(delete, path = "/api/groups/{group_name}/keys/{key_id}")]
    pub async fn key(
        PathOf(name): PathOf<GroupName>,
        PathOf(key_id): PathOf<KeyId>,
    ) -> Json<(String, String)> {
        Json((name.to_string(), key_id.to_string()))
    }

    #[utoipa::path(get, path = "/api/secret/{group_name}")]
    pub async fn secret(PathOf(_): PathOf<GroupName>) -> &'static str {
        SECRET
    }
}

static API: LazyLock<Api> = LazyLock::new(
    || shared::api![Public: routes::organization, Public: routes::job, Public: routes::key, Team: routes::secret],
);

fuzz_target!(|input: &[u8]| {
    let Some(request) = request(input) else { return };
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let sent = request.headers().get_all("x-request-id").iter().next().cloned();
    let response = block_on(API.answer(request)).unwrap_or_else(|never| match never {});
    let ids: Vec<&[u8]> =
        response.headers().get_all("x-request-id").iter().map(HeaderValue::as_bytes).collect();
    let [id] = ids[..] else { panic!("{} ids", ids.len()) };
    assert!((1..=128).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic));
    assert!(
        sent.is_none_or(|sent| sent.as_bytes() == id
            || sent.len() > 128
            || !sent.as_bytes().iter().all(u8::is_ascii_graphic))
            || id.len() == 36
    );
    check(&method, &path, response);
});

/// Without a key that would have to be looked up, and without the admin's.
fn request(input: &[u8]) -> Option<Request<Body>> {
    let mut lines = input.split(|byte| *byte == b'\n');
    let mut request = Request::builder()
        .method(Method::from_bytes(lines.next()?).ok()?)
        .uri(Uri::try_from(lines.next()?).ok()?)
        .body(Body::empty())
        .ok()?;
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = line.split_at(colon);
        let name = HeaderName::from_bytes(name).ok()?;
        if name != "x-admin-key" {
            request.headers_mut().append(name, HeaderValue::from_bytes(value.get(1..)?).ok()?);
        }
    }
    if bearer(request.headers()).is_ok() {
        request.headers_mut().remove(AUTHORIZATION);
    }
    Some(request)
}

fn check(method: &Method, path: &str, response: Response) {
    let (status, head) = (response.status(), *method == Method::HEAD);
    let body = block_on(to_bytes(response.into_body(), 1 << 20)).expect("a body");
    assert_ne!(body, SECRET);
    if status.is_success() {
        let parts: Vec<&str> = path.split('/').collect();
        assert!(
            ["/api/organizations/", "/api/groups/", "/api/jobs/"].iter().any(|start| path.starts_with(start)),
            "{path}"
        );
        assert!(
            (4..=6).contains(&parts.len()) && parts.iter().skip(1).all(|part| !part.is_empty()),
            "{path}"
        );
        if !head {
            let answer: Value = serde_json::from_slice(&body).expect("JSON");
            let id = answer.get(0).unwrap_or(&answer).as_str().expect("an id");
            assert!(
                (1..=128).contains(&id.len())
                    && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
            );
        }
    } else if !head {
        assert!(status.is_client_error(), "{status}");
        let failure: Value = serde_json::from_slice(&body).expect("JSON");
        assert!(failure["detail"].is_string() && failure["code"].is_string());
    }
}
