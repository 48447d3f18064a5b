//! Who may call, on every route, in the contract's words.

use crate::fixtures::{Access, ROUTES, path, sql, stored};
use api_tests::{Answer, Client, Options, Team, TestApp};
use reqwest::Method;
use serde_json::json;
use uuid::Uuid;

const NO_KEY: &str = "Missing Authorization header. Expected: 'Authorization: Bearer sk-xxx...'";
const MALFORMED: &str = "Invalid Authorization header format. Expected: 'Authorization: Bearer sk-xxx...'";
const NO_ADMIN_KEY: &str = "Missing X-Admin-Key header. Admin authentication required.";

/// Sends the route a request that is good for it only if nothing but the caller matters.
async fn ask(client: &Client, method: &Method, path: &str) -> Answer {
    Answer::of(client.request(method.clone(), path)).await
}

fn any_path(route: &str) -> String {
    path(route, "any", &Uuid::now_v7().to_string())
}

#[tokio::test]
async fn without_a_key_every_route_says_which_key_it_needs() {
    let app = TestApp::start().await;
    for (method, route, access) in ROUTES {
        let expected = if access == Access::Admin { NO_ADMIN_KEY } else { NO_KEY };
        ask(&app.nobody(), &method, &any_path(route)).await.refused(401, "unauthenticated", expected);
    }
    app.nobody().get("/health").await.ok();
}

#[tokio::test]
async fn a_malformed_authorization_header_is_told_apart_from_a_wrong_key() {
    let app = TestApp::start().await;
    let key = app.team(1).await.key;
    for (method, route, _) in ROUTES.into_iter().filter(|(_, _, access)| *access != Access::Admin) {
        for value in [
            key.clone(),
            format!("Basic {key}"),
            "Bearer".into(),
            "Bearer ".into(),
            format!("Bearer {key} x"),
        ] {
            let client = app.client(Some(("authorization", value)));
            ask(&client, &method, &any_path(route)).await.refused(401, "unauthenticated", MALFORMED);
        }
        let twice = app
            .bearer(&key)
            .request(method, &any_path(route))
            .header("authorization", format!("Bearer {key}"));
        Answer::of(twice).await.refused(401, "unauthenticated", MALFORMED);
    }
}

#[tokio::test]
async fn what_is_no_virtual_key_of_ours_opens_nothing() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    let hash = "SELECT encode(key_hash, 'hex') FROM virtual_keys";
    let hash: String = app.database.client.query_one(hash, &[]).await.expect("a key").get(0);
    let mut wrong = vec![
        "sk-unknown".to_owned(),
        hash.clone(),
        format!("sk-{hash}"),
        "test-admin-key".into(),
        format!("{}x", team.key),
        team.key[..team.key.len() - 1].to_owned(),
        "sk-' OR '1'='1".replace(' ', "+"),
    ];
    wrong.extend(app.stand_in().map(|stand_in| stand_in.master_key().to_owned()));
    for (method, route, _) in ROUTES.into_iter().filter(|(_, _, access)| *access != Access::Admin) {
        for key in &wrong {
            let answer = ask(&app.bearer(key), &method, &any_path(route)).await;
            answer.refused(401, "unauthenticated", "Invalid API key");
        }
    }
}

#[tokio::test]
async fn a_wrong_admin_key_opens_nothing_even_beside_a_good_virtual_key() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    let wrong = |value: &str| app.client(Some(("x-admin-key", value.to_owned())));
    for (method, route, access) in ROUTES {
        if access == Access::Team {
            continue;
        }
        let path = path(route, &team.id, "any");
        for key in ["wrong", "", "test-admin-ke", "test-admin-keyx", "TEST-ADMIN-KEY", &team.key] {
            ask(&wrong(key), &method, &path).await.refused(401, "unauthenticated", "Invalid admin API key");
        }
        let both = team.client.request(method.clone(), &path).header("x-admin-key", "wrong");
        Answer::of(both).await.refused(401, "unauthenticated", "Invalid admin API key");
        let twice = app.admin().request(method, &path).header("x-admin-key", "test-admin-key");
        Answer::of(twice).await.refused(401, "unauthenticated", "Invalid admin API key");
    }
}

#[tokio::test]
async fn without_a_configured_admin_key_nobody_is_the_admin() {
    let variables = vec![("admin_key", String::new())];
    let app = TestApp::start_with(Options { variables, ..Options::default() }).await;
    for (method, route, _) in ROUTES.into_iter().filter(|(_, _, access)| *access != Access::Team) {
        for key in ["", "test-admin-key", " "] {
            let client = app.client(Some(("x-admin-key", key.into())));
            let answer = ask(&client, &method, &any_path(route)).await;
            answer.refused(401, "unauthenticated", "Invalid admin API key");
        }
    }
}

#[tokio::test]
async fn a_team_is_not_the_admin_and_the_admin_makes_no_calls() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    let job = team.job().await;
    let before = stored(&app).await;
    for (method, route, access) in ROUTES {
        let path = path(route, &team.id, &job);
        if access == Access::Admin {
            ask(&team.client, &method, &path).await.refused(401, "unauthenticated", NO_ADMIN_KEY);
        }
        if route.contains("llm-call") {
            ask(&app.admin(), &method, &path).await.refused(401, "unauthenticated", NO_KEY);
        }
    }
    assert_eq!(stored(&app).await, before);
}

#[tokio::test]
async fn a_key_does_not_reach_another_team_nor_learn_whether_it_exists() {
    let app = TestApp::start().await;
    let (team, other) = (app.team(1).await, app.team(1).await);
    let before = stored(&app).await;
    for asked in [other.id.as_str(), "no-such-team"] {
        let detail = format!("API key does not belong to team '{asked}'");
        for (method, route, access) in ROUTES {
            if access == Access::AdminOrTeam && route.contains("{team}") {
                ask(&team.client, &method, &path(route, asked, "any")).await.refused(
                    403,
                    "wrong_team",
                    &detail,
                );
            }
        }
        let resolve = format!("/api/model-groups/any/resolve?team_id={asked}");
        team.client.get(&resolve).await.refused(403, "wrong_team", &detail);
        let job = json!({"team_id": asked, "job_type": "test"});
        team.client.post("/api/jobs/create", job).await.refused(403, "wrong_team", &detail);
    }
    assert_eq!(without_use_of_keys(&stored(&app).await), without_use_of_keys(&before));
}

#[tokio::test]
async fn an_encoded_id_is_the_same_id() {
    let app = TestApp::start().await;
    let (team, other) = (app.team(1).await, app.team(1).await);
    let encoded = |id: &str| id.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
    for route in ["/api/teams/{}", "/api/teams/{}/jobs", "/api/credits/teams/{}/balance"] {
        team.client.get(&route.replace("{}", &encoded(&team.id))).await.ok();
        let detail = format!("API key does not belong to team '{}'", other.id);
        team.client.get(&route.replace("{}", &encoded(&other.id))).await.refused(403, "wrong_team", &detail);
    }
    let job = other.job().await;
    let answer = team.client.get(&format!("/api/jobs/{}", encoded(&job))).await;
    answer.refused(404, "not_found", "Job not found");
    other.client.get(&format!("/api/jobs/{}", encoded(&job))).await.ok();
}

/// When a key was last used is no change that anybody asked for.
fn without_use_of_keys(stored: &str) -> Vec<&str> {
    stored.lines().filter(|line| !line.contains("\\x")).collect()
}

#[tokio::test]
async fn another_teams_job_and_an_unknown_one_are_the_same() {
    let app = TestApp::start().await;
    let (team, other) = (app.team(1).await, app.team(1).await);
    let theirs = other.job().await;
    let message = json!({"messages": [{"role": "user", "content": "hello"}]});
    let upper = Uuid::now_v7().to_string().to_uppercase();
    for job in [theirs.as_str(), &Uuid::now_v7().to_string(), &upper, "no-uuid", "a%2Fb", "1' OR '1'='1"] {
        let job = job.replace(' ', "%20");
        let at = |rest: &str| format!("/api/jobs/{job}{rest}");
        for answer in [
            team.client.get(&at("")).await,
            team.client.post(&at("/complete"), json!({"status": "completed"})).await,
            team.client.post(&at("/llm-call"), message.clone()).await,
            team.client.post(&at("/llm-call-stream"), message.clone()).await,
        ] {
            answer.refused(404, "not_found", "Job not found");
        }
    }
    app.admin().get(&format!("/api/jobs/{}", Uuid::now_v7())).await.refused(
        404,
        "not_found",
        "Job not found",
    );
    assert_eq!(other.read(&theirs).await["status"], "pending");
    app.check_invariants().await;
}

#[tokio::test]
async fn a_suspended_teams_key_opens_nothing() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    let job = team.job().await;
    app.admin().put(&format!("/api/teams/{}/suspend", team.id), json!({})).await.ok();
    let detail = format!("Team '{}' is suspended", team.id);
    for (method, route, access) in ROUTES {
        if access != Access::Admin {
            ask(&team.client, &method, &path(route, &team.id, &job)).await.refused(
                403,
                "team_suspended",
                &detail,
            );
        }
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn the_word_bearer_is_read_in_any_case() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    for word in ["Bearer", "bearer", "BEARER"] {
        let client = app.client(Some(("authorization", format!("{word} {}", team.key))));
        client.get(&format!("/api/teams/{}", team.id)).await.ok();
    }
}

#[tokio::test]
async fn keys_are_shown_once_and_kept_nowhere() {
    let app = TestApp::start().await;
    let team = app.team(5).await;
    let answers = use_everything(&app, &team).await;

    let (stored, logs) = (stored(&app).await, app.logs());
    let hex = team.key.bytes().map(|byte| format!("{byte:02x}")).collect();
    assert!(stored.contains(&team.id) && !logs.is_empty(), "else there is nothing to find");
    let mut secrets = vec![team.key.trim_start_matches("sk-").to_owned(), hex, "test-admin-key".into()];
    secrets.extend(app.stand_in().map(|stand_in| stand_in.master_key().to_owned()));
    for secret in secrets {
        assert!(!stored.contains(&secret), "a key in the database");
        assert!(!logs.contains(&secret), "a key in the log");
        assert!(!answers.contains(&secret), "a key in an answer");
    }
    let shown = team.client.get(&format!("/api/teams/{}", team.id)).await.ok();
    assert_eq!(shown["key"]["hint"], json!(team.key[team.key.len() - 4..]));
    app.check_invariants().await;
}

/// Makes the application do a bit of everything, with failures among it, and gives all that it answered.
async fn use_everything(app: &TestApp, team: &Team) -> String {
    let job = team.job().await;
    let mut answers = vec![
        team.call(&job, "hello").await,
        team.call(&job, "[[status=500]]").await,
        team.call("no-job", "hello").await,
        team.complete(&job, "completed").await,
        team.complete(&job, "failed").await,
        app.bearer(&format!("{}x", team.key)).get("/api/model-groups").await,
        app.admin().get("/api/teams").await,
        app.admin().post(&format!("/api/credits/teams/{}/add", team.id), json!({"amount": 1})).await,
    ];
    if let Some(stand_in) = app.stand_in() {
        stand_in.fail_next("/key/generate", 500, 1);
        stand_in.fail_next("/key/update", 400, 1);
        let organization = app.organization().await;
        let create = json!({"organization_id": organization});
        answers.push(app.admin().post("/api/teams/create", create).await);
        answers.push(app.admin().put(&format!("/api/teams/{}/model-groups", team.id), json!([])).await);
    }
    // A broken database brings a failure's text into the log.
    sql(app, "ALTER FUNCTION get_team RENAME TO lost").await;
    answers.push(team.client.get(&format!("/api/teams/{}", team.id)).await);
    assert_eq!(answers.last().map(|answer| answer.status.as_u16()), Some(500));
    sql(app, "ALTER FUNCTION lost RENAME TO get_team").await;
    answers.iter().map(|answer| format!("{:?}{}", answer.headers, answer.text)).collect()
}
