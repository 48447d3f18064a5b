//! The API's documentation, which is served by the application itself and loads nothing from elsewhere.

use crate::conventions::assert_error;
use api_tests::{Answer, Client, TestApp};
use reqwest::{Method, Response, header::HeaderMap};

const PAGES: [&str; 2] = ["/docs", "/redoc"];

/// What the addresses in a page have in front of them.
const REFERENCES: [&str; 3] = ["src=\"", "href=\"", "spec-url=\""];

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).unwrap_or_else(|| panic!("no {name}")).to_str().expect("text")
}

/// The addresses that a page loads, but for the empty picture that keeps browsers from asking for a `/favicon.ico`.
fn references(page: &str) -> Vec<&str> {
    let after = |mark| page.split(mark).skip(1).filter_map(|rest| rest.split('"').next());
    REFERENCES.into_iter().flat_map(after).filter(|address| *address != "data:,").collect()
}

async fn compressed(client: &Client, path: &str, accepted: &str) -> Response {
    let request = client.request(Method::GET, path).header("accept-encoding", accepted);
    request.send().await.expect("an answer")
}

/// `GET /openapi.json`
#[tokio::test]
async fn the_openapi_document_is_public_and_describes_this_api() {
    let app = TestApp::start().await;
    let answer = app.nobody().get("/openapi.json").await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let document = answer.ok();
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1.")), "{document}");
    for path in ["/health", "/api/teams", "/openapi.json"] {
        assert!(document["paths"][path]["get"].is_object(), "{path}");
    }
    let schemes = document["components"]["securitySchemes"].as_object().expect("security schemes");
    assert!(schemes.values().any(|scheme| scheme["in"] == "header" && scheme["name"] == "X-Admin-Key"));
    assert!(schemes.values().any(|scheme| scheme["type"] == "http" && scheme["scheme"] == "bearer"));
}

/// `GET /docs`
/// `GET /redoc`
#[tokio::test]
async fn the_pages_may_load_nothing_from_elsewhere() {
    let app = TestApp::start().await;
    for path in PAGES {
        let page = app.nobody().get(path).await;
        assert_eq!(
            (page.status.as_u16(), page.header("content-type")),
            (200, Some("text/html; charset=utf-8"))
        );
        let policy = page.header("content-security-policy").expect("a policy");
        let directives: Vec<&str> = policy.split(';').map(str::trim).collect();
        for directive in ["default-src 'none'", "script-src 'self'", "connect-src 'self'", "img-src data:"] {
            assert!(directives.contains(&directive), "{path}: {policy}");
        }
        for source in ["unsafe", "http:", "https:", "*"] {
            assert!(!policy.contains(source), "{path}: {policy}");
        }
        assert!(!page.text.contains("//"), "{path} names another host: {}", page.text);
        assert!(!page.text.contains("<style") && !page.text.contains("<script>"), "inline: {}", page.text);
    }
}

/// `GET /docs/{name}`
#[tokio::test]
async fn what_the_pages_are_made_of_is_served_with_them() {
    let app = TestApp::start().await;
    for path in PAGES {
        let page = app.nobody().get(path).await.text;
        let addresses = references(&page);
        assert!(addresses.len() >= 3, "{path}: {addresses:?}");
        for address in addresses {
            let kind = match address.rsplit('.').next() {
                Some("js") => "text/javascript; charset=utf-8",
                Some("css") => "text/css; charset=utf-8",
                _ => "application/json",
            };
            let answer = app.nobody().get(address).await;
            assert_eq!(
                (answer.status.as_u16(), answer.header("content-type")),
                (200, Some(kind)),
                "{address}"
            );
            assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
            assert!(!answer.text.is_empty(), "{address}");
        }
    }
    let swagger = app.nobody().get("/docs/swagger.js").await.text;
    assert!(swagger.contains("persistAuthorization: false"), "keys would be kept in the browser: {swagger}");
    assert!(swagger.contains("validatorUrl: null"), "somebody else would be told: {swagger}");
    let redoc = app.nobody().get("/docs/redoc.standalone.js").await.text;
    assert!(!redoc.contains("//cdn."), "a picture would be asked for elsewhere");
    assert_error(&app.nobody().get("/docs/nope.js").await, 404, "not_found");
    assert_error(&app.nobody().get("/docs/").await, 404, "not_found");
}

#[tokio::test]
async fn compressed_bytes_go_only_to_those_who_accept_them() {
    let app = TestApp::start().await;
    let path = "/docs/swagger-ui-bundle.js";
    // The tests' own client accepts nothing but plain bytes.
    let plain = app.nobody().get(path).await;
    assert_eq!((plain.header("content-encoding"), plain.header("vary")), (None, Some("accept-encoding")));
    assert!(plain.text.contains("SwaggerUIBundle"));

    for accepted in ["gzip", "br;q=1.0, GZIP;q=0.8", "*", "identity;q=0.1, *;q=0.5"] {
        let answer = compressed(&app.nobody(), path, accepted).await;
        assert_eq!(header(answer.headers(), "content-encoding"), "gzip", "{accepted}");
        assert_eq!(header(answer.headers(), "etag"), plain.header("etag").expect("a tag"));
        let bytes = answer.bytes().await.expect("a complete body");
        assert!(bytes.starts_with(&[0x1f, 0x8b]) && bytes.len() < plain.text.len() / 3, "{accepted}");
    }
    for accepted in ["", "identity", "br", "gzip;q=0", "gzip;q=0.0, *", "*;q=0", "gzip;q=x"] {
        let answer = compressed(&app.nobody(), path, accepted).await;
        assert_eq!(answer.headers().get("content-encoding"), None, "{accepted}");
        assert!(answer.text().await.expect("a complete body") == plain.text, "{accepted}");
    }
}

#[tokio::test]
async fn who_has_a_page_already_is_not_sent_it_again() {
    let app = TestApp::start().await;
    for path in
        ["/openapi.json", "/docs", "/docs/swagger-ui-bundle.js", "/docs/redoc.standalone.js", "/redoc"]
    {
        let first = app.nobody().get(path).await;
        assert_eq!(first.header("cache-control"), Some("no-cache"), "{path}: must be asked for again");
        let tag = first.header("etag").expect("a tag");
        for (known, status) in
            [(tag.to_owned(), 304), (format!("\"x\", {tag}"), 304), ("\"x\"".to_owned(), 200)]
        {
            let request = app.nobody().request(Method::GET, path).header("if-none-match", known);
            let again = Answer::of(request).await;
            assert_eq!((again.status.as_u16(), again.header("etag")), (status, Some(tag)), "{path}");
            assert_eq!(again.text.is_empty(), status == 304, "{path}");
        }
    }
}
