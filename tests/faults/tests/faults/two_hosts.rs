//! Two hosts on one database, each with a key-value store of its own: what one does, the other knows at once or within
//! its cache's lifetime, and what must be exact is exact on both.

use crate::asking::{ask, call, complete, create_job, messages, post};
use api_tests::{Answer, Team};
use faults::{Application, Setup};
use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};
use uuid::Uuid;

/// How long a look-up is trusted by default (`auth_cache_seconds`).
const CACHE: Duration = Duration::from_secs(5);

async fn two_hosts() -> Application {
    Application::start_with(Setup { hosts: 2, ..Setup::default() }).await
}

/// What of the other host knows a key: every component that looks keys up.
async fn read_everywhere(team: &Team, job: &str) -> Vec<Answer> {
    let paths = [
        format!("/api/teams/{}", team.id),
        format!("/api/credits/teams/{}/balance", team.id),
        format!("/api/jobs/{job}"),
        format!("/api/teams/{}/usage?period=2026-01", team.id),
        "/v1/models".to_owned(),
    ];
    let requests = paths.iter().map(|path| ask(team.client.request(Method::GET, path)));
    join_all(requests).await.into_iter().map(|answer| answer.expect("an answer")).collect()
}

/// Everything that a key can change.
async fn change_everything(team: &Team, job: &str) -> Vec<Answer> {
    let own = json!({"job_type": "test", "messages": messages("hello")["messages"]});
    let openai = json!({"model": "any", "messages": messages("hello")["messages"]});
    let requests = [
        create_job(team, None),
        call(team, job, "hello", None),
        post(&team.client, &format!("/api/jobs/{job}/llm-call-stream"), &messages("hello"), None),
        post(&team.client, "/api/jobs/create-and-call", &own, None),
        post(&team.client, "/api/jobs/create-and-call-stream", &own, None),
        post(&team.client, "/v1/chat/completions", &openai, None),
        team.client
            .request(Method::PATCH, &format!("/api/jobs/{job}/metadata"))
            .body("{\"metadata\": {\"a\": 1}}"),
        complete(team, job, None),
    ];
    let mut answers = vec![];
    for request in requests {
        answers.push(ask(request).await.expect("an answer"));
    }
    answers
}

/// The ways in which a key ends, with what it is told from then on.
const ENDS: [(&str, u16); 4] =
    [("revoked", 401), ("rotated", 401), ("deleted with its team", 401), ("suspended", 403)];

/// Ends the team's key on the first host.
async fn end(app: &Application, team: &Team, way: &str) {
    let (admin, path) = (app.admin(), format!("/api/teams/{}", team.id));
    match way {
        "revoked" => {
            let keys = admin.get(&format!("{path}/keys")).await.ok();
            let key = keys["keys"][0]["key_id"].as_str().unwrap_or_else(|| panic!("{keys}"));
            admin.delete(&format!("{path}/keys/{key}")).await
        }
        "rotated" => admin.post(&format!("{path}/keys/rotate"), json!({})).await,
        "suspended" => admin.put(&format!("{path}/suspend"), json!({})).await,
        _ => admin.delete(&path).await,
    }
    .ok();
}

#[tokio::test]
async fn a_key_that_has_ended_ends_here_at_once_and_there_within_the_caches_lifetime() {
    let app = two_hosts().await;
    let ended = join_all(ENDS.map(async |(way, status)| {
        let here = app.team(20).await;
        let (there, job) = (app.at(1, &here), here.job().await);
        for team in [&here, &there] {
            for answer in read_everywhere(team, &job).await {
                answer.ok();
            }
        }
        let since = Instant::now();
        end(&app, &here, way).await;
        for answer in read_everywhere(&here, &job).await {
            assert_eq!(answer.status.as_u16(), status, "{way}, here, at once: {}", answer.text);
        }
        (way, status, here, there, job, since)
    }))
    .await;

    let before = app.database.everything().await;
    let checks = ended.iter().map(async |(way, status, here, there, job, since)| {
        let mut refused = false;
        loop {
            // What is asked from now on; an answer may come later than that.
            let over = since.elapsed() >= CACHE;
            let answers = read_everywhere(there, job).await;
            let statuses: BTreeSet<u16> = answers.iter().map(|answer| answer.status.as_u16()).collect();
            // It is one cache, so once it has forgotten the key no component knows it.
            assert!(!(over || refused) || statuses == [*status].into(), "{way}, there: {statuses:?}");
            refused = statuses == [*status].into();
            for team in [here, there] {
                for answer in change_everything(team, job).await {
                    assert_eq!(answer.status.as_u16(), *status, "{way}, a change: {}", answer.text);
                }
            }
            if over {
                return;
            }
        }
    });
    join_all(checks).await;
    assert_eq!(before, app.database.everything().await, "a key that is no more has changed something");
    app.recovers().await;
}

#[tokio::test]
async fn a_key_in_its_grace_works_on_both_hosts_until_it_is_over_and_the_new_one_at_once() {
    let app = two_hosts().await;
    let here = app.team(1_000_000).await;
    let there = app.at(1, &here);
    let job = here.job().await;
    read_everywhere(&there, &job).await;
    let rotate = format!("/api/teams/{}/keys/rotate", here.id);
    let (grace, since) = (CACHE + Duration::from_secs(1), Instant::now());
    let rotated = app.admin().post(&rotate, json!({"grace_seconds": grace.as_secs()})).await.ok();
    let begun = Instant::now();
    let key = rotated["virtual_key"].as_str().unwrap_or_else(|| panic!("{rotated}")).to_owned();
    for host in [0, 1] {
        let new = Team { client: app.nobody(host).as_team(&key), key: key.clone(), id: here.id.clone() };
        new.job().await;
    }
    loop {
        let over = begun.elapsed() > grace;
        for team in [&here, &there] {
            let read = team.client.request(Method::GET, &format!("/api/jobs/{job}"));
            for answer in [create_job(team, None), read].map(ask) {
                let answer = answer.await.expect("an answer");
                if over {
                    answer.refused(401, "unauthenticated", "Invalid API key");
                } else if since.elapsed() < grace {
                    answer.ok();
                }
            }
        }
        if over {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    app.recovers().await;
}

#[tokio::test]
async fn a_resumed_team_works_on_both_hosts_at_once() {
    let app = two_hosts().await;
    let here = app.team(20).await;
    let there = app.at(1, &here);
    let job = here.job().await;
    for _ in 0..3 {
        app.admin().put(&format!("/api/teams/{}/suspend", here.id), json!({})).await.ok();
        for team in [&here, &there] {
            assert_eq!(ask(create_job(team, None)).await.expect("an answer").status, 403);
        }
        app.admin().put(&format!("/api/teams/{}/resume", here.id), json!({})).await.ok();
        for team in [&here, &there] {
            for answer in read_everywhere(team, &job).await {
                answer.ok();
            }
            team.job().await;
        }
    }
    app.recovers().await;
}

#[tokio::test]
async fn twins_under_one_idempotency_key_on_two_hosts_take_effect_once() {
    let app = two_hosts().await;
    let here = app.team(1000).await;
    let there = app.at(1, &here);
    for _ in 0..20 {
        let key = Uuid::new_v4().to_string();
        let twins = [&here, &there, &here, &there].map(|team| ask(create_job(team, Some(&key))));
        let answers: Vec<Value> =
            join_all(twins).await.into_iter().map(|answer| answer.expect("an answer").ok()).collect();
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    }
    assert_eq!(app.number("SELECT count(*) FROM jobs").await, 20);

    // A call's work is not all in one statement: who comes while it is under way is told so, and after it gets the
    // same.
    for _ in 0..5 {
        let (job, key) = (here.job().await, Uuid::new_v4().to_string());
        let twins = [&here, &there].map(|team| ask(call(team, &job, "[[first_ms=300]] hello", Some(&key))));
        let answers = join_all(twins).await.into_iter().map(|answer| answer.expect("an answer"));
        let (done, refused): (Vec<Answer>, Vec<Answer>) = answers.partition(|answer| answer.status == 200);
        assert!(!done.is_empty());
        for answer in refused {
            assert_eq!(
                (answer.status.as_u16(), &answer.body["code"]),
                (409, &json!("idempotency_in_progress"))
            );
        }
        let again = ask(call(&there, &job, "[[first_ms=300]] hello", Some(&key))).await.expect("an answer");
        assert_eq!(again.header("idempotent-replayed"), Some("true"));
        assert_eq!(again.ok(), done[0].body);
        assert_eq!(there.read(&job).await["total_calls"], 1);
    }
    app.recovers().await;
}

#[tokio::test]
async fn two_hosts_that_complete_one_job_at_once_charge_it_once() {
    let app = two_hosts().await;
    let here = app.team(1000).await;
    let there = app.at(1, &here);
    for round in 1..=15 {
        let job = here.job().await;
        let twins = [&here, &there, &here, &there].map(|team| ask(complete(team, &job, None)));
        let answers: Vec<Value> =
            join_all(twins).await.into_iter().map(|answer| answer.expect("an answer").ok()).collect();
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
        assert_eq!(answers[0]["costs"]["credits_remaining"], 1000 - round);
    }
    // Of different ends, one holds.
    for _ in 0..15 {
        let job = here.job().await;
        let path = format!("/api/jobs/{job}/complete");
        let end =
            |team: &Team, status: &str| ask(post(&team.client, &path, &json!({"status": status}), None));
        let (one, other) = tokio::join!(end(&here, "completed"), end(&there, "failed"));
        let mut statuses = [one, other].map(|answer| answer.expect("an answer").status.as_u16());
        statuses.sort();
        assert_eq!(statuses, [200, 409]);
    }
    app.recovers().await;
}

#[tokio::test]
async fn the_last_credit_is_given_once_however_many_ask_on_two_hosts() {
    let app = two_hosts().await;
    let here = app.team(0).await;
    let there = app.at(1, &here);
    let add = format!("/api/credits/teams/{}/add", here.id);
    for round in 1..=5 {
        app.admin().post(&add, json!({"credits": 1})).await.ok();
        let asking = (0..24).map(|at| ask(create_job(if at % 2 == 0 { &here } else { &there }, None)));
        let statuses = join_all(asking).await.into_iter().map(|answer| answer.expect("an answer").status);
        assert_eq!(statuses.filter(|status| *status == 200).count(), 1);
        assert_eq!(app.number("SELECT count(*) FROM jobs").await, round);
    }
    app.recovers().await;
}
