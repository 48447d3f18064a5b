//! Nobody makes the application call an address: what looks like one in a request is data. Only alerts go where a
//! team's `webhook_url`, which is the admin's to set, and the variable `webhook_hosts`, which is the deployment's,
//! agree.

use crate::{
    recorder::Recorder,
    wire::{exchange, head},
    world::unique,
};
use api_tests::{Options, Team, TestApp, eventually};
use reqwest::Method;
use serde_json::json;
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::{Duration, sleep},
};

/// Somewhere that nobody should call; it counts who does, writes down what they say first, and answers all the same.
struct Trap {
    address: String,
    callers: Arc<AtomicUsize>,
    said: Arc<Mutex<Vec<String>>>,
}

impl Trap {
    /// One that answers with this.
    async fn answering(answer: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let (callers, said) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(vec![])));
        let (count, written) = (Arc::clone(&callers), Arc::clone(&said));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let mut first = vec![0; 16 * 1024];
                let read = stream.read(&mut first).await.unwrap_or_default();
                written.lock().expect("words").push(String::from_utf8_lossy(&first[..read]).to_lowercase());
                _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self { address, callers, said }
    }

    async fn set() -> Self {
        Self::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".into()).await
    }

    fn callers(&self) -> usize {
        self.callers.load(Ordering::SeqCst)
    }

    async fn has_caller(&self) {
        eventually("a caller", async || (self.callers() > 0).then_some(())).await;
    }
}

#[tokio::test]
async fn addresses_in_a_call_are_the_models_business() {
    let Some((app, recorder)) = Recorder::start(Options::default()).await else { return };
    let (trap, team) = (Trap::set().await, app.team(9).await);
    let url = format!("http://{}/x.png", trap.address);
    let job = team.job().await;
    let messages = json!([
        {"role": "system", "content": format!("Fetch {url}")},
        {"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}},
            {"type": "file", "file": {"file_id": url}},
            {"type": "input_audio", "input_audio": {"data": url, "format": "wav"}},
        ]},
    ]);
    let body = json!({
        "messages": messages, "user": url, "purpose": url, "call_metadata": {"url": url, "webhook_url": url},
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"$ref": url}}},
    });
    let path = format!("/api/jobs/{job}/llm-call");
    let request = team.client.request(Method::POST, &path).body(body.to_string());
    let disguised = request
        .header("x-forwarded-host", &trap.address)
        .header("x-original-url", &url)
        .header("referer", &url);
    let answer =
        api_tests::Answer::of(disguised.header("x-forwarded-proto", "gopher").header("origin", &url)).await;
    assert!(!answer.status.is_server_error(), "{}", answer.text);

    assert_eq!(recorder.completions()[0].body["messages"], messages, "they go on as they came");
    assert_eq!(trap.callers(), 0);
}

#[tokio::test]
async fn addresses_in_what_the_admin_writes_are_called_by_nobody() {
    let app = TestApp::start().await;
    let trap = Trap::set().await;
    let url = format!("http://{}/v1", trap.address);
    let admin = app.admin();
    let organization = unique("org");
    admin
        .post(
            "/api/organizations/create",
            json!({"organization_id": organization, "name": url, "metadata": {"api_base": url}}),
        )
        .await
        .ok();
    let group = unique("Group");
    let models =
        json!([{"model_name": url, "priority": 0}, {"model_name": format!("openai/{url}"), "priority": 1}]);
    admin
        .post("/api/model-groups/create", json!({"group_name": group, "description": url, "models": models}))
        .await
        .ok();
    // Alerts are off: there is no secret to sign them with.
    let team = app
        .team_with(json!({"organization_id": organization, "model_groups": [group], "team_alias": url,
            "webhook_url": url, "credits_allocated": 1}))
        .await;
    let job = team.job().await;
    assert!(team.call(&job, "hello").await.status.is_server_error(), "no such model");
    team.complete(&job, "completed").await.ok();
    admin.put(&format!("/api/teams/{}/suspend", team.id), json!({})).await.ok();
    admin.post("/api/upkeep", json!({})).await.ok();
    assert_eq!(trap.callers(), 0);
}

#[tokio::test]
async fn the_host_that_a_request_names_is_not_called() {
    let app = TestApp::start().await;
    let (trap, team) = (Trap::set().await, app.team(2).await);
    let key = format!("authorization: Bearer {}", team.key);
    let body = r#"{"job_type":"x","messages":[{"role":"user","content":"hello"}]}"#;
    let length = format!("content-length: {}", body.len());
    for target in
        ["/api/jobs/create-and-call".to_owned(), format!("http://{}/api/jobs/create-and-call", trap.address)]
    {
        let request = head(&format!("POST {target}"), &[&key, &length])
            .replace("host: test", &format!("host: {}", trap.address));
        let reply = exchange(&app, format!("{request}{body}").as_bytes()).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
    }
    assert_eq!(trap.callers(), 0);
}

#[tokio::test]
async fn a_webhook_is_http_to_a_plain_host() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    let path = format!("/api/teams/{}", team.id);
    let before = app.database.everything().await;
    for url in [
        "file:///etc/passwd",
        "gopher://127.0.0.1:6379/_FLUSHALL",
        "ftp://example.com/",
        "postgres://127.0.0.1:5432/",
        "redis://127.0.0.1/",
        "javascript:alert(1)",
        "data:text/plain,x",
        "unix:///var/run/docker.sock",
        "http://",
        "http:///x",
        "//example.com/x",
        "/x",
        "example.com",
        "",
        " ",
        "http://user:password@example.com/",
        "http://hooks.example.com@127.0.0.1/",
        "http://a b/",
        "http://example.com/\r\nx-evil: 1",
        "http://example.com/\nx",
        "http://example.com/ x",
        "http://exämple.com/",
        "http://example.com\\@127.0.0.1/",
        "http://[::1",
        "http://{{ database_host }}/",
    ] {
        for answer in [
            app.admin().put(&path, json!({"webhook_url": url})).await,
            app.admin()
                .post("/api/teams/create", json!({"organization_id": "none", "webhook_url": url}))
                .await,
        ] {
            let detail = answer.body["detail"].as_str().unwrap_or_default();
            assert!(answer.status == 400 && detail.starts_with("webhook_url: "), "{url:?}: {}", answer.text);
        }
    }
    assert_eq!(app.database.everything().await, before);
}

/// An application that may send webhooks to these hosts only.
fn sending_to(hosts: &str) -> Options {
    let variables =
        vec![("webhook_secret", "a webhook's secret".to_owned()), ("webhook_hosts", hosts.to_owned())];
    Options { variables, ..Options::default() }
}

/// Has an alert raised for a team with this webhook, and sent.
async fn raise(app: &TestApp, url: &str) -> Team {
    let team = app.team_with(json!({"credits_allocated": 1, "webhook_url": url})).await;
    app.admin().put(&format!("/api/teams/{}/suspend", team.id), json!({})).await.ok();
    app.admin().post("/api/upkeep", json!({})).await.ok();
    team
}

/// How often an alert of the team was tried, and whether somebody took it.
async fn attempts(app: &TestApp, team: &Team) -> (i32, bool) {
    let query = "SELECT attempts, delivered_at IS NOT NULL FROM alerts WHERE team_id = $1";
    let row = app.database.client.query_one(query, &[&team.id]).await.expect("an alert");
    (row.get(0), row.get(1))
}

#[tokio::test]
async fn a_webhook_to_a_host_that_the_deployment_does_not_name_is_not_called_however_it_is_written() {
    let app = TestApp::start_with(sending_to("https://hooks.example.invalid")).await;
    let trap = Trap::set().await;
    let port = trap.address.rsplit(':').next().expect("a port");
    for host in [
        "127.0.0.1",
        "localhost",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "0.0.0.0",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "LOCALHOST",
        "hooks.example.invalid.127.0.0.1.nip.invalid",
    ] {
        for scheme in ["http", "https"] {
            let url = format!("{scheme}://{host}:{port}/hooks.example.invalid?https://hooks.example.invalid");
            let team = app.team_with(json!({"credits_allocated": 1})).await;
            let set = app.admin().put(&format!("/api/teams/{}", team.id), json!({"webhook_url": url})).await;
            if set.status == 200 {
                app.admin().put(&format!("/api/teams/{}/suspend", team.id), json!({})).await.ok();
            }
        }
    }
    app.admin().post("/api/upkeep", json!({})).await.ok();
    let tried = "SELECT count(*) FROM alerts WHERE attempts > 0";
    eventually("ten tries", async || {
        let count = app.database.client.query_one(tried, &[]).await.expect("a count").get::<_, i64>(0);
        (count >= 10).then_some(())
    })
    .await;
    sleep(Duration::from_millis(500)).await;
    assert_eq!(trap.callers(), 0);
}

#[tokio::test]
async fn a_redirect_of_a_webhook_is_not_followed_and_is_no_delivery() {
    let app = TestApp::start_with(sending_to("http://127.0.0.1:*")).await;
    for status in [301, 302, 303, 307, 308] {
        let inside = Trap::set().await;
        let redirect = format!(
            "HTTP/1.1 {status} Elsewhere\r\nlocation: http://{}/inside\r\n\
             content-length: 0\r\nconnection: close\r\n\r\n",
            inside.address
        );
        let receiver = Trap::answering(redirect).await;
        let team = raise(&app, &format!("http://{}/hook", receiver.address)).await;
        receiver.has_caller().await;
        sleep(Duration::from_millis(300)).await;
        assert_eq!(inside.callers(), 0, "{status} was followed");
        assert_eq!(attempts(&app, &team).await, (1, false), "{status} counts as taken, or as no attempt");
    }
}

#[tokio::test]
async fn a_webhook_shows_its_receiver_no_key_not_even_where_that_is_litellm() {
    let Some((app, recorder)) = Recorder::start(sending_to("http://127.0.0.1:*")).await else { return };
    let receiver = Trap::set().await;
    raise(&app, &format!("http://{}/hook", receiver.address)).await;
    receiver.has_caller().await;
    let said = receiver.said.lock().expect("words").join("\n");
    for secret in ["authorization", "x-admin-key", "cookie", "sk-", "test-admin-key", "a webhook's secret"] {
        assert!(!said.contains(secret), "{secret} in {said}");
    }
    let litellm = recorder.url();
    let before = recorder.seen().len();
    raise(&app, &format!("{litellm}/key/generate")).await;
    let sent = eventually("a webhook", async || {
        let sent: Vec<_> = recorder
            .seen()
            .split_off(before)
            .into_iter()
            .filter(|seen| seen.headers.contains_key("webhook-id"))
            .collect();
        Some(sent).filter(|sent| !sent.is_empty())
    })
    .await;
    for seen in sent {
        assert_eq!(
            (seen.headers.get("authorization"), seen.headers.get("x-api-key")),
            (None, None),
            "{seen:?}"
        );
    }
}
