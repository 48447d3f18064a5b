//! The secrets by which webhooks are signed: the deployment's, until a team has one of its own.

use crate::{
    alerts::suspend,
    fixtures::assert_time,
    webhooks::{Delivery, NO_SECRET, Receiver, SECRET, listening_team, retry, sending, sending_with},
};
use api_tests::{Answer, Team, TestApp};
use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::Method;
use serde_json::{Value, json};

fn path(team: &Team) -> String {
    format!("/api/teams/{}/webhook-secret/rotate", team.id)
}

async fn rotate(app: &TestApp, team: &Team, body: Value) -> (String, Value) {
    let answer = app.admin().post(&path(team), body).await.ok();
    (secret(&answer).to_owned(), answer["previous_valid_until"].clone())
}

fn secret(answer: &Value) -> &str {
    answer["webhook_secret"].as_str().expect("a secret")
}

/// Has one more alert of a team raised and sent to its receiver, which got as many before.
async fn next_delivery(app: &TestApp, team: &Team, receiver: &Receiver) -> Delivery {
    let before = receiver.got().len();
    suspend(app, team).await.ok();
    app.admin().put(&format!("/api/teams/{}/resume", team.id), json!({})).await.ok();
    receiver.got_just(before + 1).await.remove(before)
}

/// `POST /api/teams/{team_id}/webhook-secret/rotate`
#[tokio::test]
async fn a_teams_new_secret_signs_beside_the_one_before_it_and_then_alone() {
    let (app, receiver) = (sending().await, Receiver::start().await);
    let team = listening_team(&app, &receiver, 5).await;
    let next = async || next_delivery(&app, &team, &receiver).await;
    next().await.verify(&[SECRET]);

    let (first, until) = rotate(&app, &team, json!({})).await;
    assert_time(&until);
    let left = "SELECT extract(epoch FROM previous_until - now())::float8 FROM webhook_secrets";
    let left: f64 = app.database.client.query_one(left, &[]).await.expect("a secret").get(0);
    assert!((86_000.0..=86_400.0).contains(&left), "a day: {left}");
    next().await.verify(&[&first, SECRET]);

    // At most two hold: the deployment's has ended, though its time was not over.
    let (second, _) = rotate(&app, &team, json!({"grace_seconds": 2_592_000})).await;
    next().await.verify(&[&second, &first]);
    app.database.days_pass(29).await;
    next().await.verify(&[&second, &first]);
    app.database.days_pass(1).await;
    next().await.verify(&[&second]);

    let (third, until) = rotate(&app, &team, json!({"grace_seconds": 0})).await;
    assert_eq!(until, Value::Null);
    next().await.verify(&[&third]);
    app.check_invariants().await;
}

#[tokio::test]
async fn without_a_grace_the_deployments_secret_ends_at_once_and_for_other_teams_it_goes_on() {
    let (app, receiver, other) = (sending().await, Receiver::start().await, Receiver::start().await);
    let (team, old) = (listening_team(&app, &receiver, 5).await, listening_team(&app, &other, 5).await);
    let (own, _) = rotate(&app, &team, json!({"grace_seconds": 0})).await;
    next_delivery(&app, &team, &receiver).await.verify(&[&own]);
    next_delivery(&app, &old, &other).await.verify(&[SECRET]);
}

#[tokio::test]
async fn the_secret_of_one_team_signs_no_delivery_of_another() {
    let (app, receiver, other) = (sending().await, Receiver::start().await, Receiver::start().await);
    let (one, two) = (listening_team(&app, &receiver, 5).await, listening_team(&app, &other, 5).await);
    let (ones, _) = rotate(&app, &one, json!({"grace_seconds": 0})).await;
    let (twos, _) = rotate(&app, &two, json!({"grace_seconds": 0})).await;
    assert_ne!(ones, twos);
    let delivery = next_delivery(&app, &one, &receiver).await;
    delivery.verify(&[&ones]);
    for forged in [&twos, SECRET] {
        assert_ne!(delivery.header("webhook-signature"), delivery.signature(forged));
    }
    // Not even with its salt: only who can write to the database could have them exchanged.
    let salt = "UPDATE webhook_secrets SET salt = (SELECT salt FROM webhook_secrets WHERE team_id = $1)";
    app.database.client.execute(salt, &[&one.id]).await.expect("one salt");
    next_delivery(&app, &one, &receiver).await.verify(&[&ones]);
    let delivery = next_delivery(&app, &two, &other).await;
    for forged in [&ones, &twos, SECRET] {
        assert_ne!(delivery.header("webhook-signature"), delivery.signature(forged));
    }
}

#[tokio::test]
async fn a_secret_is_shown_once_and_to_repeats_of_its_request_and_is_kept_nowhere() {
    let (app, receiver) = (sending().await, Receiver::start().await);
    let team = listening_team(&app, &receiver, 5).await;
    let keyed = async |key: &str| {
        let request = app.admin().request(Method::POST, &path(&team)).header("idempotency-key", key);
        Answer::of(request.body("{}")).await
    };
    let first = keyed("one").await.ok();
    let second = keyed("two").await.ok();
    assert_ne!(secret(&first), secret(&second));
    for (key, answer) in [("one", &first), ("two", &second)] {
        let again = keyed(key).await;
        assert_eq!(again.header("idempotent-replayed"), Some("true"));
        assert_eq!(&again.ok(), answer);
    }
    next_delivery(&app, &team, &receiver).await.verify(&[secret(&second), secret(&first)]);

    let kept = [
        app.database.everything().await,
        app.logs(),
        app.admin().get(&format!("/api/teams/{}", team.id)).await.text,
        app.admin().get("/api/audit-log").await.text,
        team.client.get(&format!("/api/teams/{}", team.id)).await.text,
    ]
    .concat();
    for answer in [&first, &second] {
        let text = secret(answer).strip_prefix("whsec_").expect("its form");
        let key = STANDARD.decode(text).expect("base64");
        assert_eq!(key.len(), 32);
        let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(!kept.contains(text) && !kept.contains(&hex));
    }
    assert!(!kept.contains(SECRET));
}

#[tokio::test]
async fn a_wrong_request_for_a_secret_says_what_is_allowed_and_changes_nothing() {
    let app = sending().await;
    let team = app.team(1).await;
    for (body, detail) in [
        (json!({"grace_seconds": -1}), "grace_seconds: expected a whole number from 0 to 2592000"),
        (json!({"grace_seconds": 2_592_001}), "grace_seconds: expected a whole number from 0 to 2592000"),
        (json!({"grace_seconds": "x"}), "grace_seconds: expected a whole number from 0 to 2592000"),
    ] {
        app.admin().post(&path(&team), body).await.refused(400, "invalid_request", detail);
    }
    assert_eq!(app.admin().post(&path(&team), json!({"key_id": "x"})).await.status, 400);
    let none = app.admin().post("/api/teams/None/webhook-secret/rotate", json!({})).await;
    none.refused(404, "not_found", "Team 'None' not found");
    team.client.post(&path(&team), json!({})).await.refused(
        401,
        "unauthenticated",
        "Missing X-Admin-Key header. Admin authentication required.",
    );
    let rows = app.database.client.query("SELECT FROM webhook_secrets", &[]).await.expect("secrets");
    assert_eq!(rows.len(), 0);

    let silent = TestApp::start().await;
    let team = silent.team(1).await;
    silent.admin().post(&path(&team), json!({})).await.refused(400, "invalid_request", NO_SECRET);
}

#[tokio::test]
async fn a_deployments_secret_in_the_standard_form_is_the_bytes_that_it_says() {
    let deployments = format!("whsec_{}", STANDARD.encode([7; 24]));
    let (app, receiver) = (sending_with(&deployments).await, Receiver::start().await);
    let team = listening_team(&app, &receiver, 5).await;
    next_delivery(&app, &team, &receiver).await.verify(&[&deployments]);
    let (own, _) = rotate(&app, &team, json!({})).await;
    next_delivery(&app, &team, &receiver).await.verify(&[&own, &deployments]);
}

#[tokio::test]
async fn with_a_deployments_secret_that_is_none_alerts_stay_due_and_the_log_says_why() {
    let (app, receiver) = (sending_with("whsec_not base64").await, Receiver::start().await);
    let team = listening_team(&app, &receiver, 5).await;
    suspend(&app, &team).await.ok();
    retry(&app).await;
    receiver.got_just(0).await;
    let list = app.admin().get(&format!("/api/teams/{}/alerts", team.id)).await.ok();
    assert_eq!(
        (&list["alerts"][0]["status"], &list["alerts"][0]["delivery_attempts"]),
        (&json!("due"), &json!(0))
    );
    assert!(
        app.logs().contains("variable webhook_secret: expected the base64 of 24 to 64 bytes after whsec_")
    );
}
