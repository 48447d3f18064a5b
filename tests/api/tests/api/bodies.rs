//! How bodies may come: any content type, not compressed, at most 4 MiB, complete.

use crate::conventions::assert_error;
use api_tests::{Answer, PATIENCE, TestApp};
use reqwest::Method;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

const MOST: usize = 4 * 1024 * 1024;

/// Sends this text over a connection of its own and reads the answer's head.
async fn raw(app: &TestApp, request: &[u8]) -> String {
    let address = app.url().trim_start_matches("http://").to_owned();
    let mut connection = TcpStream::connect(address).await.expect("a connection");
    connection.write_all(request).await.expect("sent");
    let mut answer = vec![];
    while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut part = [0; 4096];
        let read = timeout(PATIENCE, connection.read(&mut part)).await.expect("an answer in time");
        match read.expect("an answer") {
            0 => break,
            length => answer.extend_from_slice(&part[..length]),
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

fn head(path: &str, header: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: test\r\nx-admin-key: test-admin-key\r\n{header}\r\n\r\n")
}

#[tokio::test]
async fn a_body_is_json_whatever_its_content_type_says() {
    let app = TestApp::start().await;
    for content_type in
        ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "nonsense", ""]
    {
        let request = app
            .admin()
            .request(Method::POST, "/api/organizations/create")
            .header("content-type", content_type);
        let answer = Answer::of(request.body(json!({"name": "Test"}).to_string())).await;
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.ok()["name"], "Test");
    }
}

#[tokio::test]
async fn a_compressed_body_is_a_415() {
    let app = TestApp::start().await;
    for encoding in ["gzip", "br", "deflate", "zstd", "gzip, identity"] {
        let request = app
            .admin()
            .request(Method::POST, "/api/organizations/create")
            .header("content-encoding", encoding);
        let answer = Answer::of(request.body(json!({"name": "Test"}).to_string())).await;
        assert_error(&answer, 415, "unsupported_media_type");
    }
    let request =
        app.admin().request(Method::POST, "/api/organizations/create").header("content-encoding", "identity");
    Answer::of(request.body(json!({"name": "Test"}).to_string())).await.ok();
}

#[tokio::test]
async fn a_body_that_is_announced_as_too_large_is_refused_before_it_comes() {
    let app = TestApp::start().await;
    let answer =
        raw(&app, head("/api/organizations/create", &format!("content-length: {}", MOST + 1)).as_bytes())
            .await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[tokio::test]
async fn a_body_that_grows_too_large_without_notice_is_refused() {
    let app = TestApp::start().await;
    let mut request = head("/api/organizations/create", "transfer-encoding: chunked").into_bytes();
    for size in [MOST / 2, MOST / 2, 1] {
        request.extend_from_slice(format!("{size:x}\r\n").as_bytes());
        request.resize(request.len() + size, b' ');
        request.extend_from_slice(b"\r\n");
    }
    let answer = raw(&app, &request).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[tokio::test]
async fn a_body_of_just_4_mib_is_read() {
    let app = TestApp::start().await;
    let mut body = json!({"name": "Test"}).to_string();
    body.push_str(&" ".repeat(MOST - body.len()));
    let request = app.admin().request(Method::POST, "/api/organizations/create");
    Answer::of(request.body(body)).await.ok();
}

#[tokio::test]
async fn a_body_may_come_in_chunks_without_a_length() {
    let app = TestApp::start().await;
    let mut request = head("/api/organizations/create", "transfer-encoding: chunked");
    for part in ["{\"na", "me\": \"Te", "st\"}", ""] {
        request.push_str(&format!("{:x}\r\n{part}\r\n", part.len()));
    }
    let answer = raw(&app, request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    app.admin().get("/api/organizations/test").await.ok();
}

#[tokio::test]
async fn a_body_that_breaks_off_does_nothing_even_if_it_is_json_so_far() {
    let app = TestApp::start().await;
    let address = app.url().trim_start_matches("http://").to_owned();
    for header in ["content-length: 100", "transfer-encoding: chunked"] {
        let mut connection = TcpStream::connect(&address).await.expect("a connection");
        let chunk = if header.contains("chunked") { "f\r\n" } else { "" };
        let request = format!("{}{chunk}{}", head("/api/organizations/create", header), r#"{"name":"Test"}"#);
        connection.write_all(request.as_bytes()).await.expect("sent");
        connection.shutdown().await.expect("closed");
        let mut answer = vec![];
        // The server closes when it is done with the request, with or without an answer.
        let closed = timeout(PATIENCE, connection.read_to_end(&mut answer)).await;
        assert!(
            closed.is_ok() && !answer.starts_with(b"HTTP/1.1 200"),
            "{}",
            String::from_utf8_lossy(&answer)
        );
    }
    app.admin().get("/api/organizations/test").await.refused(
        404,
        "not_found",
        "Organization 'test' not found",
    );
}
