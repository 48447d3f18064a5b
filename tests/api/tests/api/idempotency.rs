//! Requests that carry an `Idempotency-Key`: done once, answered the same again.

use crate::{
    fixtures::{sql, stored, unique},
    idempotent_calls::completions,
    litellm_teams::known,
    teams::show,
};
use api_tests::{Answer, Client, Options, Team, TestApp};
use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

async fn send(client: &Client, method: Method, path: &str, key: &str, body: &Value) -> Answer {
    Answer::of(client.request(method, path).header("idempotency-key", key).body(body.to_string())).await
}

/// POST with this `Idempotency-Key`.
pub async fn post(client: &Client, path: &str, key: &str, body: &Value) -> Answer {
    send(client, Method::POST, path, key, body).await
}

/// Whether the answer says that it is one given before.
pub fn is_replayed(answer: &Answer) -> bool {
    match answer.header("idempotent-replayed") {
        None => false,
        Some(value) => {
            assert_eq!(value, "true");
            true
        }
    }
}

/// Fails the test unless the second is what a repeat of the first gets.
#[track_caller]
pub fn assert_replay(first: &Answer, second: &Answer) {
    assert!(!is_replayed(first), "{}", first.text);
    assert!(is_replayed(second), "{} {}", second.status, second.text);
    assert_eq!((second.status, &second.text), (first.status, &first.text));
    for header in ["content-type", "retry-after", "x-call-id", "x-job-id"] {
        assert_eq!(second.header(header), first.header(header), "{header}");
    }
    assert_ne!(second.header("x-request-id"), first.header("x-request-id"), "it is another request");
}

/// Fails the test unless the answer is the refusal of another request under a used key.
pub fn mismatch(answer: Answer) {
    answer.refused(422, "idempotency_mismatch", "Idempotency-Key: it was used with another request");
}

/// A call with this prompt and nothing else.
pub fn prompt(text: &str) -> Value {
    json!({"messages": [{"role": "user", "content": text}]})
}

/// Requests that the database remembers.
async fn remembered(app: &TestApp) -> i64 {
    let count = "SELECT count(*) FROM idempotency_keys";
    app.database.client.query_one(count, &[]).await.expect("a count").get(0)
}

#[tokio::test]
async fn a_job_is_created_once_however_often_it_is_asked_for() {
    let app = TestApp::start().await;
    let team = app.team(5).await;
    let body = json!({"team_id": team.id, "job_type": "test", "metadata": {"a": 1.50}});
    let first = post(&team.client, "/api/jobs/create", "k", &body).await;
    first.clone().ok();
    for _ in 0..3 {
        assert_replay(&first, &post(&team.client, "/api/jobs/create", "k", &body).await);
    }
    let other = post(&team.client, "/api/jobs/create", "another", &body).await;
    assert_ne!(other.clone().ok()["job_id"], first.body["job_id"]);
    let without = team.client.post("/api/jobs/create", body).await;
    assert!(!is_replayed(&without));
    assert_eq!(team.balance().await["credits_reserved"], 3);
    app.check_invariants().await;
}

#[tokio::test]
async fn of_ten_twins_at_once_one_adds_credits_and_all_get_its_answer() {
    let app = TestApp::start().await;
    let team = app.team(5).await;
    let (admin, path) = (app.admin(), format!("/api/credits/teams/{}/add", team.id));
    let body = json!({"credits_amount": 100, "reason": "Invoice 7"});
    let answers = join_all((0..10).map(|_| post(&admin, &path, "invoice-7", &body))).await;
    assert_eq!(answers.iter().filter(|answer| !is_replayed(answer)).count(), 1);
    for answer in answers {
        let added = answer.ok();
        assert_eq!(added["transaction"]["balance_after"], 105);
    }
    assert_eq!(team.balance().await["credits_allocated"], 105);
    if let Some(stand_in) = app.stand_in() {
        assert_eq!(known(stand_in, &team.id).1, Some(10.5));
    }
    let log = app.admin().get("/api/audit-log?limit=1000").await;
    assert_eq!(log.text.matches("Invoice 7").count(), 1);
    app.check_invariants().await;
}

#[tokio::test]
async fn a_job_is_completed_once_and_its_repeat_gets_the_same_answer() {
    let app = TestApp::start().await;
    let team = app.team(5).await;
    let job = team.job().await;
    team.call(&job, "hello").await.ok();
    let path = format!("/api/jobs/{job}/complete");
    let body = json!({"status": "completed", "metadata": {"pages": 12}});
    let answers = join_all((0..10).map(|_| post(&team.client, &path, "end", &body))).await;
    assert_eq!(answers.iter().filter(|answer| !is_replayed(answer)).count(), 1);
    for answer in &answers {
        assert_eq!((answer.status.as_u16(), &answer.text), (200, &answers[0].text));
    }
    mismatch(post(&team.client, &path, "end", &json!({"status": "failed"})).await);
    assert_eq!(team.balance().await["credits_used"], 1);

    let path = format!("/api/jobs/{job}/metadata");
    let first = send(&team.client, Method::PATCH, &path, "merge", &json!({"metadata": {"pages": 1}})).await;
    first.clone().ok();
    team.client.patch(&path, json!({"metadata": {"pages": 2}})).await.ok();
    let again = send(&team.client, Method::PATCH, &path, "merge", &json!({"metadata": {"pages": 1}})).await;
    assert_replay(&first, &again);
    assert_eq!(team.read(&job).await["metadata"]["pages"], 2, "the repeat changes nothing");
    app.check_invariants().await;
}

#[tokio::test]
async fn another_request_under_the_same_key_is_refused_and_changes_nothing() {
    let app = TestApp::start().await;
    let (team, other) = (app.team(5).await, app.team(5).await);
    let path = |team: &Team, rest: &str| format!("/api/teams/{}/{rest}", team.id);
    send(&app.admin(), Method::PUT, &path(&team, "suspend"), "k", &json!({})).await.ok();
    let before = stored(&app).await;
    for (method, path, body) in [
        (Method::PUT, path(&other, "suspend"), json!({})),
        (Method::PUT, path(&team, "resume"), json!({})),
        (Method::POST, path(&team, "keys/create"), json!({})),
        (Method::DELETE, format!("/api/teams/{}", team.id), json!({})),
        (Method::PUT, format!("{}?x=1", path(&team, "suspend")), json!({})),
        (Method::POST, "/api/organizations/create".into(), json!({"name": "x"})),
        (Method::POST, format!("/api/credits/teams/{}/add", team.id), json!({"amount": 1})),
        (Method::POST, "/api/jobs/create".into(), json!({"team_id": team.id, "job_type": "test"})),
    ] {
        let answer = send(&app.admin(), method.clone(), &path, "k", &body).await;
        assert_eq!(answer.status, 422, "{method} {path}: {}", answer.text);
        mismatch(answer);
    }
    assert_eq!(stored(&app).await, before);
    app.check_invariants().await;
}

#[tokio::test]
async fn a_key_that_is_no_key_is_refused_before_anything_happens() {
    let app = TestApp::start().await;
    let team = app.team(5).await;
    let before = stored(&app).await;
    let body = json!({"team_id": team.id, "job_type": "test"}).to_string();
    let request = || team.client.request(Method::POST, "/api/jobs/create").body(body.clone());
    let refused = "Idempotency-Key: expected one header of 1 to 255 visible ASCII characters";
    for value in [b"".to_vec(), vec![b'x'; 256], "schlüssel".as_bytes().to_vec(), b"a\tb".to_vec()] {
        let value = reqwest::header::HeaderValue::from_bytes(&value).expect("a header's value");
        let answer = Answer::of(request().header("idempotency-key", value)).await;
        answer.refused(400, "invalid_request", refused);
    }
    let twice = request().header("idempotency-key", "a").header("idempotency-key", "b");
    Answer::of(twice).await.refused(400, "invalid_request", refused);
    assert_eq!(stored(&app).await, before);

    for value in ["x".repeat(255), "x".into(), "a b: \"c\" 'd' \\ {}~!".into()] {
        let first = Answer::of(request().header("idempotency-key", &value)).await;
        first.clone().ok();
        assert_replay(&first, &Answer::of(request().header("idempotency-key", &value)).await);
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn what_was_refused_before_any_effect_is_not_remembered() {
    let app = TestApp::start().await;
    let team = app.team(0).await;
    let none = uuid::Uuid::now_v7();
    let job = json!({"team_id": team.id, "job_type": "test"});
    let foreign = json!({"team_id": "other", "job_type": "test"});
    let invalid = json!({"team_id": team.id, "job_type": "test", "typo": 1});
    let before = remembered(&app).await;
    for (path, body, status) in [
        ("/api/jobs/create".into(), &invalid, 400),
        ("/api/jobs/create".into(), &foreign, 403),
        ("/api/jobs/create".into(), &job, 402),
        (format!("/api/jobs/{none}/llm-call"), &prompt("hello"), 404),
        (format!("/api/jobs/{none}/llm-call-stream"), &prompt("hello"), 404),
        (format!("/api/jobs/{none}/llm-call"), &json!({"messages": []}), 400),
        (format!("/api/jobs/{none}/complete"), &json!({"status": "completed"}), 404),
        ("/api/organizations/create".into(), &json!({"name": "x"}), 401),
        ("/v1/chat/completions".into(), &prompt("hello"), 402),
    ] {
        let answer = post(&team.client, &path, "k", body).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text);
    }
    assert_eq!(remembered(&app).await, before);

    app.admin().post(&format!("/api/credits/teams/{}/add", team.id), json!({"amount": 1})).await.ok();
    let first = post(&team.client, "/api/jobs/create", "k", &job).await;
    first.clone().ok();
    assert_replay(&first, &post(&team.client, "/api/jobs/create", "k", &job).await);
    let create = json!({"organization_id": "None", "team_id": unique("team")});
    post(&app.admin(), "/api/teams/create", "k", &create).await.refused(
        404,
        "not_found",
        "Organization 'None' not found",
    );
    app.admin().post("/api/organizations/create", json!({"organization_id": "None", "name": "x"})).await.ok();
    let first = post(&app.admin(), "/api/teams/create", "k", &create).await;
    assert!(!is_replayed(&first));
    first.ok();
    app.check_invariants().await;
}

#[tokio::test]
async fn each_caller_has_keys_of_its_own_and_a_teams_keys_share_theirs() {
    let app = TestApp::start().await;
    let (team, other) = (app.team(5).await, app.team(5).await);
    let body = |team: &Team| json!({"team_id": team.id, "job_type": "test"});
    let first = post(&team.client, "/api/jobs/create", "k", &body(&team)).await;
    first.clone().ok();
    for answer in [
        post(&other.client, "/api/jobs/create", "k", &body(&other)).await,
        post(&app.admin(), "/api/jobs/create", "k", &body(&team)).await,
    ] {
        assert!(!is_replayed(&answer));
        assert_ne!(answer.ok()["job_id"], first.body["job_id"]);
    }
    let rotated = app.admin().post(&format!("/api/teams/{}/keys/rotate", team.id), json!({})).await.ok();
    let renewed = app.bearer(rotated["virtual_key"].as_str().expect("a key"));
    assert_replay(&first, &post(&renewed, "/api/jobs/create", "k", &body(&team)).await);
    let old = post(&team.client, "/api/jobs/create", "k", &body(&team)).await;
    old.refused(401, "unauthenticated", "Invalid API key");
    app.check_invariants().await;
}

#[tokio::test]
async fn a_replay_does_nothing_again_and_says_what_was_said() {
    let app = TestApp::start().await;
    let team = app.team(5).await;
    let path = format!("/api/teams/{}", team.id);
    let suspend = format!("{path}/suspend");
    let first = send(&app.admin(), Method::PUT, &suspend, "k", &json!({})).await;
    first.clone().ok();
    app.admin().put(&format!("{path}/resume"), json!({})).await.ok();
    assert_replay(&first, &send(&app.admin(), Method::PUT, &suspend, "k", &json!({})).await);
    assert_eq!(show(&app, &team).await["status"], "active");
    if let Some(stand_in) = app.stand_in() {
        assert!(!known(stand_in, &team.id).2);
    }
    team.job().await;

    let first = send(&app.admin(), Method::DELETE, &path, "d", &json!({})).await;
    first.clone().ok();
    assert_replay(&first, &send(&app.admin(), Method::DELETE, &path, "d", &json!({})).await);
    app.admin().delete(&path).await.refused(404, "not_found", &format!("Team '{}' not found", team.id));
    app.check_invariants().await;
}

#[tokio::test]
async fn a_repeat_tells_litellm_what_it_did_not_hear_the_first_time() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let (team, gone) = (app.team(5).await, app.team(5).await);
    let group = app.model_group(&["gpt-4"]).await;
    let (groups, deletion) =
        (format!("/api/teams/{}/model-groups", team.id), format!("/api/teams/{}", gone.id));
    stand_in.set_down(true);
    let put = || async { send(&app.admin(), Method::PUT, &groups, "k", &json!([group])).await };
    let delete = || async { send(&app.admin(), Method::DELETE, &deletion, "d", &json!({})).await };
    assert_eq!((put().await.status.as_u16(), delete().await.status.as_u16()), (503, 503));
    stand_in.set_down(false);
    assert_eq!(put().await.ok()["allowed_models"], json!(["gpt-4"]));
    assert_eq!(known(stand_in, &team.id).0, ["gpt-4"]);
    delete().await.ok();
    assert_eq!(stand_in.team(&gone.id), None);
    app.check_invariants().await;
}

#[tokio::test]
async fn another_node_and_a_later_one_give_the_same_answer() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let team = app.team(5).await;
    let job = team.job().await;
    let path = format!("/api/jobs/{job}/llm-call");
    let first = post(&team.client, &path, "k", &prompt("hello")).await;
    first.clone().ok();
    let rotate = format!("/api/teams/{}/keys/create", team.id);
    let made = post(&app.admin(), &rotate, "k", &json!({})).await;
    made.clone().ok();

    let mut variables: Vec<_> = app.database.variables().into();
    variables.push(("litellm_url", stand_in.url()));
    let later = TestApp::start_with(Options { variables, ..Options::default() }).await;
    assert_replay(&first, &post(&later.bearer(&team.key), &path, "k", &prompt("hello")).await);
    assert_replay(&made, &post(&later.admin(), &rotate, "k", &json!({})).await);
    assert_eq!(completions(stand_in), 1);
    team.complete(&job, "completed").await.ok();
    app.check_invariants().await;
}

#[tokio::test]
async fn after_a_day_a_key_is_new_again() {
    let app = TestApp::start().await;
    let team = app.team(5).await;
    let body = json!({"team_id": team.id, "job_type": "test"});
    let first = post(&team.client, "/api/jobs/create", "k", &body).await;
    sql(&app, "UPDATE idempotency_keys SET created_at = now() - interval '23 hours 59 minutes'").await;
    assert_replay(&first, &post(&team.client, "/api/jobs/create", "k", &body).await);
    sql(&app, "UPDATE idempotency_keys SET created_at = now() - interval '24 hours 1 second'").await;
    let other = json!({"team_id": team.id, "job_type": "other"});
    let renewed = post(&team.client, "/api/jobs/create", "k", &other).await;
    assert_ne!(renewed.clone().ok()["job_id"], first.body["job_id"]);
    assert_replay(&renewed, &post(&team.client, "/api/jobs/create", "k", &other).await);

    sql(&app, "UPDATE idempotency_keys SET created_at = now() - interval '25 hours'").await;
    post(&team.client, "/api/jobs/create", "another", &body).await.ok();
    assert_eq!(remembered(&app).await, 1, "what is over a day old goes by and by");
    app.check_invariants().await;
}
