//! Tricks with paths: only the exact path counts, and whoever writes it otherwise gets nothing by it.

use crate::{
    hostile::encoded,
    recipes::recipe,
    wire::{exchange, head},
    world::Stage,
};
use api_tests::{Answer, Options, TestApp};
use openapi::{name, routes, verb};
use reqwest::Method;
use shared::http::Access;

/// Other spellings of a path, none of which is the path.
fn spellings(path: &str) -> Vec<String> {
    let (first, rest) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
    let mut spellings = vec![
        format!("/{path}"),
        format!("//{path}"),
        format!("{path}/"),
        format!("{path}//"),
        format!("{path}/."),
        format!("{path}/.."),
        format!("{path}/%2e"),
        format!("{path}%2f"),
        format!("{path}%2F."),
        format!("{path}%00"),
        format!("{path}%0a"),
        format!("{path}%20"),
        format!("{path};"),
        format!("{path};/x"),
        format!("{path}.json"),
        format!("{path}%3f"),
        format!("{path}%23"),
        format!("/.{path}"),
        format!("/%2e{path}"),
        format!("/x/..{path}"),
        format!("/x/%2e%2e{path}"),
        format!("/health/..{path}"),
        format!("/docs/..{path}"),
        format!("/docs/%2e%2e{path}"),
        format!("/docs/..%2f..{path}"),
        format!("/openapi.json/../{first}/{rest}"),
        format!("/openapi.json%2f..{path}"),
        format!("/{first};x=1/{rest}"),
        format!("/{first}%2f{rest}"),
        format!("/{first}%252f{rest}"),
        format!("/{first}/.//{rest}"),
        format!("/{first}//{rest}"),
        format!("/{first}/./{rest}"),
        format!("/{first}/%2e/{rest}"),
        format!("/{first}/x/../{rest}"),
        format!("/{first}/x/%2e%2e/{rest}"),
        format!("/{first}\\{rest}"),
        format!("\\{first}\\{rest}"),
        format!("/{first}/%c0%af{rest}"),
        format!("/{}/{rest}", first.to_uppercase()),
        format!("/{}{path}", encoded(b"..")),
        format!("/.well-known/spin/..{path}"),
    ];
    spellings.retain(|spelling| spelling != path);
    spellings
}

/// A request line and what else makes it a request.
async fn ask(app: &TestApp, method: &str, target: &str, identity: &str) -> (u16, String) {
    let headers = [identity, "content-length: 0"];
    let reply = exchange(app, head(&format!("{method} {target}"), &headers).as_bytes()).await;
    (reply.status, reply.text)
}

#[tokio::test]
async fn another_spelling_of_a_path_leads_nowhere_for_anybody() {
    let stage = Stage::set(Options::default()).await;
    let world = stage.world().await;
    // Where those get nothing who may call the path itself, nobody does.
    let identities =
        [format!("authorization: Bearer {}", world.team.key), "x-admin-key: test-admin-key".to_owned()];
    for (_, route) in routes() {
        let path = recipe(&name(&route), &world).await.path;
        let path = path.split('?').next().expect("a path").to_owned();
        let before = stage.app.database.everything().await;
        for spelling in spellings(&path) {
            for identity in &identities {
                let (status, text) = ask(&stage.app, verb(&route.method), &spelling, identity).await;
                let shown = format!("{} {spelling} as {identity}: {text}", verb(&route.method));
                assert!(status == 0 || (400..500).contains(&status), "{shown}");
            }
        }
        assert_eq!(stage.app.database.everything().await, before, "{}", name(&route));
    }
}

#[tokio::test]
async fn an_id_with_a_slash_or_dots_in_it_is_that_id_and_no_other_path() {
    let stage = Stage::set(Options::default()).await;
    let world = stage.world().await;
    let (id, other) = (&world.team.id, &stage.other.id);
    let key = format!("authorization: Bearer {}", stage.other.key);
    for tricky in [
        format!("{other}%2f..%2f{id}"),
        format!("{other}/../{id}"),
        format!("{other}/%2e%2e/{id}"),
        format!("{other}%00{id}"),
        format!("{other}%2c{id}"),
        format!("{other}%26team_id={id}"),
        format!("{other};{id}"),
        format!("{id}%00"),
        format!("{id}%20"),
        format!("%00{id}"),
        format!("{id}%2f"),
        id.to_uppercase(),
        "..".into(),
        "%2e%2e".into(),
        ".".into(),
        "*".into(),
        "%25".into(),
        "null".into(),
    ] {
        for rest in ["", "/jobs", "/usage", "/alerts", "/keys"] {
            for target in
                [format!("/api/teams/{tricky}{rest}"), format!("/api/credits/teams/{tricky}/balance{rest}")]
            {
                let (status, text) = ask(&stage.app, "GET", &target, &key).await;
                assert!(matches!(status, 400 | 401 | 403 | 404), "{target}: {text}");
                assert!(!text.contains("\"credits"), "{target}: {text}");
            }
        }
    }
}

#[tokio::test]
async fn the_hosts_words_about_a_route_are_not_taken_from_a_client() {
    let stage = Stage::set(Options::default()).await;
    let world = stage.world().await;
    for (_, route) in routes().into_iter().filter(|(_, route)| route.access == Access::AdminOrTeam) {
        let theirs = recipe(&name(&route), &world).await;
        let Some((status, _)) = theirs.to_others else { continue };
        let mut request = stage.other.client.request(crate::hostile::method(&route), &theirs.path);
        for (header, value) in [
            ("spin-path-match-team-id", stage.other.id.as_str()),
            ("spin-path-match-job-id", "x"),
            ("spin-full-url", "http://test/health"),
            ("spin-path-info", "/health"),
            ("spin-matched-route", "/health"),
            ("spin-raw-component-route", "/health"),
            ("spin-component-route", "/health"),
            ("spin-client-addr", "127.0.0.1:1"),
            ("x-forwarded-prefix", "/health"),
        ] {
            request = request.header(header, value);
        }
        let body = theirs.body.map(|body| body.to_string()).unwrap_or_default();
        let answer = Answer::of(request.body(body)).await;
        assert_eq!(answer.status, status, "{}: {}", name(&route), answer.text);
    }
}

#[tokio::test]
async fn the_documentation_serves_its_own_parts_and_no_other_file() {
    let app = TestApp::start().await;
    for file in [
        "../../../../etc/passwd",
        "..%2f..%2f..%2f..%2fetc%2fpasswd",
        "%2e%2e/%2e%2e/etc/passwd",
        "%2fetc%2fpasswd",
        "/etc/passwd",
        "....//....//etc/passwd",
        "..%5c..%5cwindows%5cwin.ini",
        "..%252f..%252fetc%252fpasswd",
        "%c0%ae%c0%ae%c0%afetc%c0%afpasswd",
        "swagger-ui.css%00.html",
        "file:%2f%2f%2fetc%2fpasswd",
        "openapi.json",
        "",
    ] {
        let (status, text) = ask(&app, "GET", &format!("/docs/{file}"), "x-nobody: x").await;
        assert!(matches!(status, 400 | 404), "{file}: {text}");
    }
}

#[tokio::test]
async fn a_host_that_looks_like_a_path_opens_no_route() {
    let stage = Stage::set(Options::default()).await;
    let world = stage.world().await;
    for (_, route) in routes().into_iter().filter(|(_, route)| route.access != Access::Public) {
        let path = recipe(&name(&route), &world).await.path;
        let before = stage.app.database.everything().await;
        for host in ["test/health", "test/health?", "test/health#", "health", "test:80/docs/", "/health", ""]
        {
            let request = head(&format!("{} {path}", verb(&route.method)), &["content-length: 0"]);
            let request = request.replace("host: test", &format!("host: {host}"));
            let reply = exchange(&stage.app, request.as_bytes()).await;
            assert!(matches!(reply.status, 0 | 400 | 401), "{host} at {path}: {}", reply.text);
        }
        assert_eq!(stage.app.database.everything().await, before, "{}", name(&route));
    }
}

#[tokio::test]
async fn an_absolute_target_is_the_same_request_and_needs_the_same_key() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    let path = format!("/api/teams/{}", team.id);
    let target = format!("GET http://test{path}");
    assert_eq!(exchange(&app, head(&target, &[]).as_bytes()).await.status, 401);
    let key = format!("authorization: Bearer {}", team.key);
    assert_eq!(exchange(&app, head(&target, &[&key]).as_bytes()).await.status, 200);
    for method in ["CONNECT 127.0.0.1:23451", "CONNECT test:80", "GET *", "GET http://"] {
        let reply = exchange(&app, head(method, &[&key]).as_bytes()).await;
        assert_ne!(reply.status, 200, "{method}: {}", reply.text);
    }
    let health = Answer::of(app.nobody().request(Method::GET, "/health")).await;
    assert_eq!(health.status, 200);
}

/// The tests' host answers these requests as a real Spin does.
#[tokio::test]
async fn a_request_names_one_host_or_gets_no_answer() {
    let app = TestApp::start().await;
    let own = app.url().trim_start_matches("http://").to_owned();
    let asking = async |target: &str, host: Option<&str>| {
        let host = host.map(|host| format!("host: {host}\r\n")).unwrap_or_default();
        let request = format!("GET {target} HTTP/1.1\r\n{host}connection: close\r\n\r\n");
        exchange(&app, request.as_bytes()).await.status
    };
    let absolute = format!("http://{own}/health");
    for (target, host) in [("/health", Some(own.as_str())), (&absolute, Some(&own)), (&absolute, None)] {
        assert_eq!(asking(target, host).await, 200, "{target} {host:?}");
    }
    for (target, host) in [
        ("http://example.com/health", Some(own.as_str())),
        (&absolute, Some("example.com")),
        ("/health", None),
        ("/health", Some("")),
        ("/health", Some("a b")),
        ("/health", Some("\u{e9}")),
    ] {
        assert_eq!(asking(target, host).await, 0, "{target} {host:?}");
    }
}
