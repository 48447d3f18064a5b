//! Webhooks: each alert is sent at least once, signed, and nobody waits for it.

use crate::{
    alerts::{kinds, listed, suspend, use_up},
    fixtures::{assert_time, sql},
};
use api_tests::{Options, Team, TestApp, eventually};
use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use sha2::Sha256;
use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{net::TcpListener, sync::Notify};

/// The deployment's.
pub const SECRET: &str = "a webhook's secret";

/// What is said where the deployment has no secret.
pub const NO_SECRET: &str =
    "webhook_secret: the deployment has none, so no alert is sent anywhere; set this variable first";

/// What a receiver got.
#[derive(Clone, Debug)]
pub struct Delivery {
    headers: hyper::HeaderMap,
    pub body: String,
}

impl Delivery {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name}")).to_str().expect("text")
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }

    /// Its signature by a secret: the HMAC-SHA256 of id, timestamp and body, with dots between.
    pub fn signature(&self, secret: &str) -> String {
        let key = secret.strip_prefix("whsec_").map(|text| STANDARD.decode(text).expect("base64"));
        let key = key.unwrap_or_else(|| secret.as_bytes().to_vec());
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("a key");
        let (id, timestamp) = (self.header("webhook-id"), self.header("webhook-timestamp"));
        mac.update(format!("{id}.{timestamp}.{}", self.body).as_bytes());
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }

    /// Fails the test unless it is signed now by these secrets, in this order, and by no other.
    #[track_caller]
    pub fn verify(&self, secrets: &[&str]) {
        let signatures: Vec<String> = secrets.iter().map(|secret| self.signature(secret)).collect();
        assert_eq!(self.header("webhook-signature"), signatures.join(" "));
        let timestamp = self.header("webhook-timestamp");
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("now").as_secs();
        assert!(timestamp.parse::<u64>().is_ok_and(|sent| now.abs_diff(sent) < 60), "{timestamp}");
    }
}

/// Somebody whom webhooks reach. Answers with the statuses that are left in its list, then with 204.
pub struct Receiver {
    pub url: String,
    desk: Arc<Desk>,
}

/// What a receiver and its server share.
#[derive(Default)]
struct Desk {
    got: Mutex<Vec<Delivery>>,
    statuses: Mutex<Vec<u16>>,
    /// Whether it keeps its answers to itself, and who waits for them.
    waits: AtomicBool,
    waiting: Notify,
}

impl Receiver {
    pub async fn start() -> Self {
        Self::serve(Desk::default()).await
    }

    /// One that answers nobody until it is told to.
    async fn that_waits() -> Self {
        Self::serve(Desk { waits: true.into(), ..Desk::default() }).await
    }

    fn answers_now(&self) {
        self.desk.waits.store(false, Ordering::SeqCst);
        self.desk.waiting.notify_waiters();
    }

    async fn serve(desk: Desk) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/hooks/alerts", listener.local_addr().expect("an address"));
        let desk = Arc::new(desk);
        let shared = Arc::clone(&desk);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let desk = Arc::clone(&shared);
                let service = service_fn(move |request| answer(request, Arc::clone(&desk)));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { url, desk }
    }

    pub fn got(&self) -> Vec<Delivery> {
        self.desk.got.lock().expect("deliveries").clone()
    }

    /// Waits until it got so many, and then a moment for any more.
    pub async fn got_just(&self, count: usize) -> Vec<Delivery> {
        eventually("the deliveries", async || (self.got().len() >= count).then_some(())).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let got = self.got();
        assert_eq!(got.len(), count, "{got:#?}");
        got
    }
}

async fn answer(request: Request<Incoming>, desk: Arc<Desk>) -> Result<Response<Full<Bytes>>, Infallible> {
    assert_eq!((request.method().as_str(), request.uri().path()), ("POST", "/hooks/alerts"));
    let headers = request.headers().clone();
    let body = request.into_body().collect().await.expect("a body").to_bytes();
    let body = String::from_utf8(body.into()).expect("text");
    desk.got.lock().expect("deliveries").push(Delivery { headers, body });
    let answered = desk.waiting.notified();
    if desk.waits.load(Ordering::SeqCst) {
        answered.await;
    }
    let status = desk.statuses.lock().expect("statuses").pop().unwrap_or(204);
    Ok(Response::builder().status(status).body(Full::default()).expect("an answer"))
}

/// An application that sends webhooks to this machine, signed with [`SECRET`].
pub async fn sending() -> TestApp {
    sending_with(SECRET).await
}

/// An application that sends webhooks to this machine and has this secret.
pub async fn sending_with(secret: &str) -> TestApp {
    let variables =
        vec![("webhook_secret", secret.to_owned()), ("webhook_hosts", "http://127.0.0.1:*".to_owned())];
    TestApp::start_with(Options { variables, ..Options::default() }).await
}

pub async fn listening_team(app: &TestApp, receiver: &Receiver, credits: i64) -> Team {
    app.team_with(json!({"credits_allocated": credits, "webhook_url": receiver.url})).await
}

/// Makes everything that did not arrive due again, and lets upkeep send it.
pub async fn retry(app: &TestApp) {
    sql(app, "UPDATE alerts SET next_attempt_at = now() - interval '1 second'").await;
    app.admin().post("/api/upkeep", json!({})).await.ok();
}

#[tokio::test]
async fn a_webhook_gets_each_alert_once_with_its_id_and_a_signature() {
    let (app, receiver) = (sending().await, Receiver::start().await);
    let team = listening_team(&app, &receiver, 5).await;
    use_up(&team, 5).await;
    suspend(&app, &team).await.ok();

    let mut got = receiver.got_just(3).await;

    got.sort_by_key(|delivery| delivery.json()["alert_id"].as_str().map(str::to_owned));
    let mut alerts = listed(&app, &team).await;
    alerts.reverse();
    for (delivery, alert) in got.iter().zip(&alerts) {
        delivery.verify(&[SECRET]);
        assert_eq!(delivery.header("content-type"), "application/json");
        let body = delivery.json();
        assert_eq!(delivery.header("webhook-id"), body["alert_id"].as_str().expect("an id"));
        assert_eq!(body["team_id"], json!(team.id));
        for member in ["alert_id", "kind", "message", "details", "created_at"] {
            assert_eq!(body[member], alert[member], "{member}");
        }
        assert_eq!(body.as_object().map(serde_json::Map::len), Some(6), "{body}");
        assert_eq!((&alert["webhook_url"], &alert["delivery_attempts"]), (&json!(receiver.url), &json!(1)));
        assert_time(&alert["delivered_at"]);
    }
    retry(&app).await;
    receiver.got_just(3).await;
    app.check_invariants().await;
}

#[tokio::test]
async fn an_alert_that_was_not_taken_is_sent_again_until_it_is() {
    let (app, receiver) = (sending().await, Receiver::start().await);
    let team = listening_team(&app, &receiver, 5).await;
    *receiver.desk.statuses.lock().expect("statuses") = vec![302, 404, 500];
    suspend(&app, &team).await.ok();
    receiver.got_just(1).await;
    app.admin().post("/api/upkeep", json!({})).await.ok();
    receiver.got_just(1).await;
    let alert = listed(&app, &team).await.remove(0);
    assert_eq!((&alert["delivery_attempts"], &alert["delivered_at"]), (&json!(1), &Value::Null));
    assert_eq!(alert["status"], "due");
    for attempts in 2..=4 {
        retry(&app).await;
        let got = receiver.got_just(attempts).await;
        got[attempts - 1].verify(&[SECRET]);
        assert_eq!(got[attempts - 1].body, got[0].body);
    }
    let alert = listed(&app, &team).await.remove(0);
    assert_eq!(alert["delivery_attempts"], 4);
    assert_time(&alert["delivered_at"]);
    retry(&app).await;
    receiver.got_just(4).await;
}

#[tokio::test]
async fn without_a_secret_nothing_is_sent() {
    let variables = vec![("webhook_hosts", "http://127.0.0.1:*".to_owned())];
    let app = TestApp::start_with(Options { variables, ..Options::default() }).await;
    let receiver = Receiver::start().await;
    let team = listening_team(&app, &receiver, 5).await;
    use_up(&team, 5).await;
    suspend(&app, &team).await.ok();
    retry(&app).await;
    receiver.got_just(0).await;
    assert_eq!(kinds(&app, &team).await.len(), 3, "they are listed all the same");
}

#[tokio::test]
async fn a_webhook_that_the_deployment_does_not_allow_is_never_reached() {
    let receiver = Receiver::start().await;
    // The default allows HTTPS only.
    let variables = vec![("webhook_secret", SECRET.to_owned())];
    let app = TestApp::start_with(Options { variables, ..Options::default() }).await;
    let team = listening_team(&app, &receiver, 1).await;
    use_up(&team, 1).await;
    retry(&app).await;
    receiver.got_just(0).await;
    assert!(listed(&app, &team).await.iter().all(|alert| alert["delivered_at"].is_null()));
    app.check_invariants().await;
}

#[tokio::test]
async fn nobody_waits_for_a_receiver_that_takes_its_time() {
    let (app, receiver) = (sending().await, Receiver::that_waits().await);
    let team = listening_team(&app, &receiver, 1).await;
    let job = team.job().await;
    // Both are answered although the receiver has answered nobody.
    team.complete(&job, "completed").await.ok();
    suspend(&app, &team).await.ok();
    eventually("a delivery", async || receiver.got().first().cloned()).await;
    assert!(listed(&app, &team).await.iter().all(|alert| alert["delivered_at"].is_null()));
    receiver.answers_now();
    all_are_delivered(&app, &team).await;
}

/// Waits until it is written down that somebody took every alert of a team.
async fn all_are_delivered(app: &TestApp, team: &Team) {
    eventually("the deliveries", async || {
        listed(app, team).await.iter().all(|alert| alert["delivered_at"].is_string()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_alert_goes_where_its_team_wanted_it_when_it_was_raised_and_other_teams_hear_nothing() {
    let (app, receiver, other) = (sending().await, Receiver::start().await, Receiver::start().await);
    let team = listening_team(&app, &receiver, 10).await;
    let silent = app.team(1).await;
    use_up(&silent, 1).await;
    use_up(&team, 8).await;
    receiver.got_just(1).await;
    let path = format!("/api/teams/{}", team.id);
    app.admin().put(&path, json!({"webhook_url": other.url})).await.ok();
    use_up(&team, 2).await;
    assert_eq!(other.got_just(1).await[0].json()["kind"], "credits_100_percent");
    app.admin().put(&path, json!({"webhook_url": null})).await.ok();
    suspend(&app, &team).await.ok();
    retry(&app).await;
    receiver.got_just(1).await;
    other.got_just(1).await;
    app.check_invariants().await;
}

#[tokio::test]
async fn a_webhook_is_an_http_address_without_credentials() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    for url in [
        "",
        "hooks.example.com",
        "ftp://example.com",
        "file:///etc/passwd",
        "http://",
        "http://a:b@example.com/",
        "javascript:1",
    ] {
        let answer = app.admin().put(&format!("/api/teams/{}", team.id), json!({"webhook_url": url})).await;
        let named = answer.body["detail"].as_str().is_some_and(|detail| detail.starts_with("webhook_url: "));
        assert!(answer.status == 400 && named, "{url}: {}", answer.text);
    }
}

#[tokio::test]
async fn upkeep_sends_what_jobs_of_one_call_have_raised() {
    let (app, receiver) = (sending().await, Receiver::start().await);
    let team = listening_team(&app, &receiver, 5).await;
    for _ in 0..5 {
        let body = json!({"messages": [{"role": "user", "content": "hello"}]});
        team.client.post("/v1/chat/completions", body).await.ok();
    }
    retry(&app).await;
    let mut sent: Vec<Value> =
        receiver.got_just(2).await.iter().map(|got| got.json()["kind"].clone()).collect();
    sent.sort_by_key(Value::to_string);
    assert_eq!(sent, ["credits_100_percent", "credits_80_percent"]);
    app.check_invariants().await;
}

#[tokio::test]
async fn a_receiver_that_was_away_for_long_gets_all_that_it_missed() {
    let (app, receiver) = (sending().await, Receiver::start().await);
    let team = listening_team(&app, &receiver, 5).await;
    sql(&app, "UPDATE teams SET webhook_url = 'http://127.0.0.1:9/'").await;
    for _ in 0..25 {
        suspend(&app, &team).await.ok();
        app.admin().put(&format!("/api/teams/{}/resume", team.id), json!({})).await.ok();
    }
    sql(&app, &format!("UPDATE alerts SET webhook_url = '{}'", receiver.url)).await;
    eventually("all of them", async || {
        retry(&app).await;
        tokio::time::sleep(Duration::from_millis(250)).await;
        let ids: std::collections::BTreeSet<String> =
            receiver.got().iter().map(|got| got.header("webhook-id").to_owned()).collect();
        (ids.len() == 25).then_some(())
    })
    .await;
    all_are_delivered(&app, &team).await;
}

/// How the deliveries of a team's alerts stand, by the list's own filter.
async fn alerts_that_are(app: &TestApp, team: &Team, status: &str) -> Value {
    let list = app.admin().get(&format!("/api/teams/{}/alerts?status={status}", team.id)).await.ok();
    let alerts = list["alerts"].as_array().expect("a list");
    let same = |alert: &Value| alert["status"] == status.to_lowercase().as_str();
    assert!(alerts.iter().all(same) && list["total"] == alerts.len(), "{list}");
    list["total"].clone()
}

async fn send_again(app: &TestApp, alert: &Value) -> api_tests::Answer {
    let id = alert["alert_id"].as_str().expect("an id");
    app.admin().post(&format!("/api/alerts/{id}/send-again"), json!({})).await
}

#[tokio::test]
async fn an_alert_is_undelivered_after_20_attempts_until_it_is_sent_again() {
    let (app, receiver) = (sending().await, Receiver::start().await);
    let team = listening_team(&app, &receiver, 5).await;
    *receiver.desk.statuses.lock().expect("statuses") = vec![503; 20];
    suspend(&app, &team).await.ok();
    receiver.got_just(1).await;
    sql(&app, "UPDATE alerts SET attempts = 18").await;
    for attempts in [2, 3] {
        assert_eq!(alerts_that_are(&app, &team, "due").await, 1);
        retry(&app).await;
        receiver.got_just(attempts).await;
    }
    assert_eq!(alerts_that_are(&app, &team, "Undelivered").await, 1);
    let alert = listed(&app, &team).await.remove(0);
    assert_eq!((&alert["delivery_attempts"], &alert["delivered_at"]), (&json!(20), &Value::Null));
    retry(&app).await;
    receiver.got_just(3).await;

    // With all attempts before it: this one fails, and the next does not.
    *receiver.desk.statuses.lock().expect("statuses") = vec![503];
    let again = send_again(&app, &alert).await.ok();
    assert_eq!((&again["status"], &again["delivery_attempts"]), (&json!("due"), &json!(0)));
    for member in ["alert_id", "team_id", "kind", "message", "details", "created_at", "webhook_url"] {
        assert_eq!(again[member], alert[member], "{member}");
    }
    receiver.got_just(4).await;
    retry(&app).await;
    let got = receiver.got_just(5).await;
    assert!(got.iter().all(|delivery| delivery.body == got[0].body));
    all_are_delivered(&app, &team).await;
    assert_eq!(alerts_that_are(&app, &team, "delivered").await, 1);
    assert_eq!(listed(&app, &team).await[0]["delivery_attempts"], 2);
    app.check_invariants().await;
}

/// `POST /api/alerts/{alert_id}/send-again`
#[tokio::test]
async fn a_delivered_alert_is_sent_again_to_where_its_team_wants_it_now() {
    let (app, receiver, other) = (sending().await, Receiver::start().await, Receiver::start().await);
    let team = listening_team(&app, &receiver, 5).await;
    suspend(&app, &team).await.ok();
    let first = receiver.got_just(1).await.remove(0);
    all_are_delivered(&app, &team).await;
    let alert = listed(&app, &team).await.remove(0);
    app.admin().put(&format!("/api/teams/{}", team.id), json!({"webhook_url": other.url})).await.ok();
    assert_eq!(send_again(&app, &alert).await.ok()["webhook_url"], json!(other.url));
    let second = other.got_just(1).await.remove(0);
    second.verify(&[SECRET]);
    assert_eq!((second.header("webhook-id"), &second.body), (first.header("webhook-id"), &first.body));
    all_are_delivered(&app, &team).await;
    receiver.got_just(1).await;
    app.check_invariants().await;
}

#[tokio::test]
async fn what_can_not_be_sent_again_is_refused_and_stays_as_it_is() {
    let app = sending().await;
    let team = app.team(5).await;
    suspend(&app, &team).await.ok();
    let alert = listed(&app, &team).await.remove(0);
    assert_eq!((&alert["status"], alerts_that_are(&app, &team, "none").await), (&json!("none"), json!(1)));
    let none = format!("webhook_url: team '{}' has none; give it one first", team.id);
    send_again(&app, &alert).await.refused(400, "invalid_request", &none);
    assert_eq!(listed(&app, &team).await.remove(0), alert);
    for id in ["0198c0de-0000-7000-8000-000000000000", "None"] {
        let detail = format!("Alert '{id}' not found");
        send_again(&app, &json!({"alert_id": id})).await.refused(404, "not_found", &detail);
    }
    let wrong = app.admin().get(&format!("/api/teams/{}/alerts?status=lost", team.id)).await;
    wrong.refused(400, "invalid_request", "status: expected one of none, due, delivered, undelivered");

    let silent = TestApp::start().await;
    let team = silent.team_with(json!({"webhook_url": "https://hooks.example.com/"})).await;
    suspend(&silent, &team).await.ok();
    let alert = listed(&silent, &team).await.remove(0);
    send_again(&silent, &alert).await.refused(400, "invalid_request", NO_SECRET);
}

#[tokio::test]
async fn receivers_that_say_nothing_keep_no_other_team_waiting() {
    let (app, receiver) = (sending().await, Receiver::start().await);
    let silent = Receiver::that_waits().await;
    let one = listening_team(&app, &silent, 5).await;
    let other = listening_team(&app, &receiver, 5).await;
    // Alerts that were raised first, and more than are sent at once.
    for (team, receiver) in [(&one, &silent), (&other, &receiver)] {
        let raise = "INSERT INTO alerts (alert_id, team_id, kind, message, details, webhook_url)
                     SELECT gen_random_uuid(), $1, 'team_suspended', 'A test', '{}', $2 FROM generate_series(1, 40)";
        app.database.client.execute(raise, &[&team.id, &receiver.url]).await.expect("alerts");
    }
    let admin = app.admin();
    let (done, ()) = futures::join!(admin.post("/api/upkeep", json!({})), async {
        eventually("the other team's", async || (receiver.got().len() >= 4).then_some(())).await;
        assert_eq!(silent.got_just(4).await.len(), 4, "of one team four at once");
        assert!(listed(&app, &one).await.iter().all(|alert| alert["delivered_at"].is_null()));
        silent.answers_now();
    });
    done.ok();
    for team in [&one, &other] {
        all_are_delivered(&app, team).await;
    }
    silent.got_just(40).await;
    receiver.got_just(40).await;
    app.check_invariants().await;
}
