//! Teams among each other: whatever of another team's a key names, in a path, query, body or header, it gets nothing
//! and learns nothing, not even whether there is such a thing.

use crate::{
    hostile::method,
    recipes::{Recipe, recipe},
    world::{Stage, send, unique},
};
use api_tests::{Answer, Client, Options, Team, TestApp};
use openapi::{name, routes};
use reqwest::Method;
use serde_json::{Value, json};
use shared::http::Access;
use uuid::Uuid;

/// What an answer says, but for what is new in every answer.
fn told(answer: &Answer) -> (u16, Vec<(String, String)>, &str) {
    let headers = answer.headers.iter().filter(|(name, _)| !matches!(name.as_str(), "x-request-id" | "date"));
    let mut headers: Vec<_> = headers
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    headers.sort();
    (answer.status.as_u16(), headers, &answer.text)
}

fn prompt(text: &str) -> Value {
    json!({"messages": [{"role": "user", "content": text}]})
}

#[tokio::test]
async fn what_is_another_teams_and_what_is_not_there_are_told_apart_by_no_route() {
    let stage = Stage::set(Options::default()).await;
    let world = stage.world().await;
    // Of the same length and kind as what is there.
    let absent = [
        (world.team.id.clone(), unique("team")),
        (world.job.clone(), Uuid::now_v7().to_string()),
        (world.group.clone(), unique("Group")),
    ];
    let mut compared = 0;
    for (_, route) in routes() {
        if !matches!(route.access, Access::Team | Access::AdminOrTeam) {
            continue;
        }
        let theirs = recipe(&name(&route), &world).await;
        let body = theirs.body.as_ref().map(Value::to_string);
        for (there, nowhere) in &absent {
            let in_body = body.as_ref().is_some_and(|body| body.contains(there));
            if !theirs.path.contains(there) && !in_body {
                continue;
            }
            let nothing = Recipe {
                path: theirs.path.replace(there, nowhere),
                body: body
                    .as_ref()
                    .map(|body| serde_json::from_str(&body.replace(there, nowhere)).expect("JSON")),
                to_others: None,
            };
            let before = stage.app.database.everything().await;
            let another = send(&stage.other.client, &route, &theirs, None).await;
            let none = send(&stage.other.client, &route, &nothing, None).await;
            let none = Answer { text: none.text.replace(nowhere, there), ..none };
            assert!(matches!(another.status.as_u16(), 403 | 404), "{}: {}", name(&route), another.text);
            let alike = |answer: &Answer| {
                let (status, mut headers, text) = told(answer);
                headers.retain(|(name, _)| name != "content-length");
                (status, headers, text.to_owned())
            };
            assert_eq!(alike(&another), alike(&none), "{}", name(&route));
            assert_eq!(stage.app.database.everything().await, before, "{}", name(&route));
            compared += 1;
        }
    }
    assert!(compared >= 18, "only {compared} were compared");
}

#[tokio::test]
async fn a_job_of_another_team_in_a_header_is_no_job() {
    let app = TestApp::start().await;
    let (team, other) = (app.team(2).await, app.team(2).await);
    let (theirs, unknown) = (other.job().await, Uuid::now_v7().to_string());
    let before = app.database.everything().await;
    for stream in [false, true] {
        let mut body = prompt("hello");
        body["stream"] = stream.into();
        for job in
            [&theirs, &unknown, &theirs.to_uppercase(), &format!("{theirs} "), &format!("{{{theirs}}}")]
        {
            let request = team.client.request(Method::POST, "/v1/chat/completions").body(body.to_string());
            let answer = Answer::of(request.header("x-job-id", job)).await;
            assert_eq!(
                (answer.status.as_u16(), &answer.body["error"]["message"]),
                (404, &json!("Job not found"))
            );
        }
    }
    assert_eq!(app.database.everything().await, before);
}

#[tokio::test]
async fn the_id_of_a_call_of_a_key_or_of_a_ledger_entry_is_no_jobs_id() {
    let app = TestApp::start().await;
    let team = app.team(2).await;
    let job = team.job().await;
    let call = team.call(&job, "hello").await.ok();
    let keys = app.admin().get(&format!("/api/teams/{}/keys", team.id)).await.ok();
    let ledger = team.client.get(&format!("/api/credits/teams/{}/transactions", team.id)).await.ok();
    for id in [&call["call_id"], &keys["keys"][0]["key_id"], &ledger["transactions"][0]["transaction_id"]] {
        let path = format!("/api/jobs/{}", id.as_str().expect("an id"));
        team.client.get(&path).await.refused(404, "not_found", "Job not found");
        app.admin().get(&path).await.refused(404, "not_found", "Job not found");
    }
}

async fn page(team: &Team, path: &str, list: &str) -> Value {
    let answer = team.client.get(path).await.ok();
    for entry in answer[list].as_array().expect("a list") {
        assert_eq!(entry["team_id"], json!(team.id), "{path}: {answer}");
    }
    answer
}

#[tokio::test]
async fn a_cursor_or_filter_of_another_team_shows_only_ones_own() {
    let app = TestApp::start().await;
    let (team, other) = (app.team(9).await, app.team(9).await);
    for own in [&team, &other, &team, &other, &team, &other] {
        let body = json!({"team_id": own.id, "job_type": format!("of {}", own.id),
            "user_id": format!("user of {}", own.id)});
        let job = own.client.post("/api/jobs/create", body).await.ok();
        own.complete(job["job_id"].as_str().expect("a job_id"), "completed").await.ok();
    }
    let jobs = |of: &Team| format!("/api/teams/{}/jobs", of.id);
    let ledger = |of: &Team| format!("/api/credits/teams/{}/transactions", of.id);
    for (path, list) in [(jobs as fn(&Team) -> String, "jobs"), (ledger, "transactions")] {
        let first = page(&other, &format!("{}?limit=1", path(&other)), list).await;
        let theirs = &first["next_cursor"];
        let cursor = theirs.as_str().map_or(theirs.to_string(), str::to_owned);
        page(&team, &format!("{}?cursor={cursor}", path(&team)), list).await;
        team.client.get(&format!("{}?cursor={cursor}", path(&other))).await.refused(
            403,
            "wrong_team",
            &format!("API key does not belong to team '{}'", other.id),
        );
    }
    for filter in [format!("job_type=of {}", other.id), format!("user_id=user of {}", other.id)] {
        let found = page(&team, &format!("{}?{}", jobs(&team), filter.replace(' ', "%20")), "jobs").await;
        assert_eq!((&found["total"], &found["jobs"]), (&json!(0), &json!([])), "{filter}");
    }
}

#[tokio::test]
async fn an_idempotency_key_of_another_caller_replays_nothing_of_theirs() {
    let app = TestApp::start().await;
    let group = app.model_group(&["gpt-4o-mini"]).await;
    let fields = json!({"credits_allocated": 5, "model_groups": [group]});
    let (team, other) = (app.team_with(fields.clone()).await, app.team_with(fields).await);
    // Without a team's name in it, the request is the same to the letter.
    let body = json!({"job_type": "test", "messages": [{"role": "user", "content": "the secret of the other team"}]});
    for path in ["/api/jobs/create-and-call", "/api/jobs/create-and-call-stream"] {
        let send = async |by: &Team| {
            let request = by.client.request(Method::POST, path).body(body.to_string());
            Answer::of(request.header("idempotency-key", format!("the same for {path}"))).await
        };
        let (theirs, own) = (send(&other).await, send(&team).await);
        assert_eq!((theirs.status.as_u16(), own.status.as_u16()), (200, 200), "{}", own.text);
        assert_eq!(own.header("idempotent-replayed"), None);
        assert_ne!(theirs.header("x-call-id"), own.header("x-call-id"));
        let job = own.header("x-job-id").expect("a job").to_owned();
        assert_eq!(team.read(&job).await["team_id"], json!(team.id));
        assert_eq!(
            send(&other).await.header("x-call-id"),
            theirs.header("x-call-id"),
            "one's own is replayed"
        );
    }
    // Nor does a team get what the admin got.
    let create = |by: &Client| {
        let request =
            by.request(Method::POST, "/api/organizations/create").body(json!({"name": "Mine"}).to_string());
        Answer::of(request.header("idempotency-key", "the admin's"))
    };
    create(&app.admin()).await.ok();
    let detail = "Missing X-Admin-Key header. Admin authentication required.";
    create(&team.client).await.refused(401, "unauthenticated", detail);
    app.check_invariants().await;
}

#[tokio::test]
async fn a_key_is_only_found_under_its_own_team() {
    let app = TestApp::start().await;
    let (team, other) = (app.team(1).await, app.team(1).await);
    let keys = app.admin().get(&format!("/api/teams/{}/keys", other.id)).await.ok();
    let theirs = keys["keys"][0]["key_id"].as_str().expect("a key_id");
    let path = format!("/api/teams/{}/keys", team.id);
    let unknown = Uuid::now_v7().to_string();
    let before = app.database.everything().await;
    for id in [theirs, &unknown] {
        let detail = format!("Key '{id}' not found");
        app.admin().delete(&format!("{path}/{id}")).await.refused(404, "not_found", &detail);
        app.admin().post(&format!("{path}/rotate"), json!({"key_id": id})).await.refused(
            404,
            "not_found",
            &detail,
        );
    }
    assert_eq!(app.database.everything().await, before);
    other.client.get(&format!("/api/teams/{}", other.id)).await.ok();
}

#[tokio::test]
async fn the_id_of_a_deleted_team_stays_taken_and_its_key_reaches_nothing() {
    let app = TestApp::start_with(Options {
        variables: vec![("auth_cache_seconds", "3600".to_owned())],
        ..Options::default()
    })
    .await;
    let old = app.team(3).await;
    let job = old.job().await;
    app.admin().delete(&format!("/api/teams/{}", old.id)).await.ok();
    let again =
        json!({"organization_id": app.organization().await, "team_id": old.id, "credits_allocated": 3});
    let taken = format!("Team '{}' already exists", old.id);
    app.admin().post("/api/teams/create", again).await.refused(409, "already_exists", &taken);
    for path in [format!("/api/teams/{}", old.id), format!("/api/jobs/{job}")] {
        old.client.get(&path).await.refused(401, "unauthenticated", "Invalid API key");
    }
}

#[tokio::test]
async fn no_other_method_and_no_header_that_renames_a_request_opens_a_route() {
    let stage = Stage::set(Options::default()).await;
    let world = stage.world().await;
    for (_, route) in routes().into_iter().filter(|(_, route)| route.access != Access::Public) {
        let request = recipe(&name(&route), &world).await;
        for disguise in [
            "x-http-method-override",
            "x-method-override",
            "x-http-method",
            "x-original-url",
            "x-rewrite-url",
        ] {
            let value = if disguise.ends_with("url") { "/health" } else { "GET" };
            let disguised = stage.app.nobody().request(method(&route), &request.path).header(disguise, value);
            assert_eq!(Answer::of(disguised).await.status, 401, "{disguise}: {}", name(&route));
        }
        for method in
            [Method::HEAD, Method::OPTIONS, Method::TRACE, Method::from_bytes(b"GETX").expect("a method")]
        {
            let answer = Answer::of(stage.app.nobody().request(method.clone(), &request.path)).await;
            assert!(
                matches!(answer.status.as_u16(), 401 | 405),
                "{method} {}: {}",
                name(&route),
                answer.status
            );
        }
    }
}
