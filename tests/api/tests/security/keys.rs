//! Keys: a cache that is warm answers for no key but its own, and a key is taken from no place but the one header.

use crate::{
    recipes::recipe,
    wire::{exchange, head},
    world::{Stage, assert_refused, send},
};
use api_tests::{Answer, Client, Options, TestApp};
use futures::{StreamExt, future::join_all, stream};
use openapi::{name, routes};
use reqwest::Method;
use serde_json::json;
use sha2::{Digest, Sha256};
use shared::http::Access;

/// An application whose cache holds what it has once seen.
fn caching() -> Options {
    Options { variables: vec![("auth_cache_seconds", "3600".to_owned())], ..Options::default() }
}

fn hash(key: &str) -> String {
    Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What may look like a key to whoever compares carelessly.
fn resembling(key: &str) -> Vec<String> {
    let hash = hash(key);
    let other_case: String = key
        .chars()
        .map(|c| if c.is_uppercase() { c.to_ascii_lowercase() } else { c.to_ascii_uppercase() })
        .collect();
    let mut keys = vec![
        key.to_uppercase(),
        key.to_lowercase(),
        other_case,
        key.trim_start_matches("sk-").to_owned(),
        format!("sk-{key}"),
        format!("{key}{key}"),
        format!("{key},"),
        format!("{key};"),
        format!("{key},{key}"),
        format!("{key}%00"),
        format!("{key}%20"),
        format!("\"{key}\""),
        format!("'{key}'"),
        format!("<{key}>"),
        format!("\t{key}"),
        format!("{key}\tx"),
        format!("{key}/../x"),
        hash.to_uppercase(),
        format!("sk-{hash}"),
        format!("sha256:{hash}"),
        format!("virtual-key:{hash}"),
        format!("\\x{hash}"),
        hash,
        "null".into(),
        "undefined".into(),
        "*".into(),
        "%".into(),
    ];
    // Every beginning of it, and every one-character change.
    for end in (1..key.len()).step_by(3) {
        keys.push(key[..end].to_owned());
        keys.push(format!("{}~{}", &key[..end], &key[end + 1..]));
    }
    keys.retain(|resembling| resembling != key);
    keys
}

#[tokio::test]
async fn a_warm_cache_answers_for_no_key_that_resembles_one_it_holds() {
    let app = TestApp::start_with(caching()).await;
    let team = app.team(5).await;
    let path = format!("/api/teams/{}", team.id);
    for _ in 0..3 {
        team.client.get(&path).await.ok();
    }
    let before = app.database.everything().await;
    for key in resembling(&team.key) {
        let client = app.bearer(&key);
        let job = json!({"team_id": team.id, "job_type": "test"});
        for answer in [client.get(&path).await, client.post("/api/jobs/create", job).await] {
            answer.refused(401, "unauthenticated", "Invalid API key");
        }
    }
    assert_eq!(app.database.everything().await, before);
    team.client.get(&path).await.ok();
}

#[tokio::test]
async fn keys_that_differ_in_their_last_letter_or_its_case_keep_to_their_teams_under_load() {
    let app = TestApp::start_with(caching()).await;
    let mut teams = vec![];
    let beginning = format!("sk-{}", "a".repeat(150));
    for last in ["a", "b", "A", "aa", "é"] {
        let team = app.team(1).await;
        let key = format!("{beginning}{last}");
        let insert = "INSERT INTO virtual_keys (key_id, team_id, alias, litellm_alias, key_hash, hint)
            VALUES (uuid_v7(), $1, 'chosen', $2, $3, 'xxxx')";
        let digest = Sha256::digest(&key).to_vec();
        app.database.client.execute(insert, &[&team.id, &key, &digest]).await.expect("a key");
        teams.push((team.id, app.bearer(&key)));
    }
    // A header is ASCII: the last key can't be shown.
    let (mute, unsayable) = teams.pop().expect("a team");
    unsayable.get(&format!("/api/teams/{mute}")).await.refused(
        401,
        "unauthenticated",
        "Invalid Authorization header format. Expected: 'Authorization: Bearer sk-xxx...'",
    );
    let teams = &teams;
    let pairs =
        teams.iter().flat_map(|(own, client)| teams.iter().map(move |(asked, _)| (own, client, asked)));
    let asks = std::iter::repeat_n(pairs, 40).flatten().map(async |(own, client, asked)| {
        let answer = client.get(&format!("/api/teams/{asked}")).await;
        if asked == own {
            assert_eq!(answer.ok()["team_id"], json!(own));
        } else {
            answer.refused(403, "wrong_team", &format!("API key does not belong to team '{asked}'"));
        }
    });
    // At once, but no more than the system lets wait for a connection.
    stream::iter(asks).buffer_unordered(100).collect::<()>().await;
}

#[tokio::test]
async fn a_key_in_any_other_place_than_its_header_is_none() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    let path = format!("/api/teams/{}", team.id);
    let missing = "Missing Authorization header. Expected: 'Authorization: Bearer sk-xxx...'";
    for (key, header) in [(&team.key, "Bearer "), (&"test-admin-key".to_owned(), "")] {
        for name in [
            "x-api-key",
            "api-key",
            "x-litellm-api-key",
            "x-goog-api-key",
            "ocp-apim-subscription-key",
            "proxy-authorization",
            "x-auth-token",
            "x-forwarded-authorization",
        ] {
            let request = app.nobody().request(Method::GET, &path).header(name, format!("{header}{key}"));
            Answer::of(request).await.refused(401, "unauthenticated", missing);
        }
        for cookie in ["authorization", "x-admin-key", "api_key", "token"] {
            let request =
                app.nobody().request(Method::GET, &path).header("cookie", format!("{cookie}={key}"));
            Answer::of(request).await.refused(401, "unauthenticated", missing);
        }
        for name in ["api_key", "key", "access_token", "authorization", "x-admin-key"] {
            app.nobody().get(&format!("{path}?{name}={key}")).await.refused(401, "unauthenticated", missing);
        }
        let body = json!({"team_id": team.id, "job_type": "test", "api_key": key,
            "authorization": format!("Bearer {key}")});
        app.nobody().post("/api/jobs/create", body).await.refused(401, "unauthenticated", missing);
        let with_credentials = app.url().replace("http://", &format!("http://user:{key}@"));
        let answer = Answer::of(reqwest::Client::new().get(format!("{with_credentials}{path}"))).await;
        assert_eq!(answer.status, 401, "{}", answer.text);
    }
}

#[tokio::test]
async fn of_several_identities_none_is_chosen_but_the_one_that_a_route_is_for() {
    let app = TestApp::start().await;
    let (team, other) = (app.team(2).await, app.team(2).await);
    let path = format!("/api/teams/{}", team.id);
    let malformed = "Invalid Authorization header format. Expected: 'Authorization: Bearer sk-xxx...'";
    for (first, second) in [(&team.key, &other.key), (&other.key, &team.key), (&team.key, &team.key)] {
        let twice =
            app.bearer(first).request(Method::GET, &path).header("authorization", format!("Bearer {second}"));
        Answer::of(twice).await.refused(401, "unauthenticated", malformed);
        let joined = app.client(Some(("authorization", format!("Bearer {first}, Bearer {second}"))));
        joined.get(&path).await.refused(401, "unauthenticated", malformed);
    }
    for (first, second) in [("test-admin-key", "wrong"), ("wrong", "test-admin-key"), ("test-admin-key", "")]
    {
        let twice = app.client(Some(("x-admin-key", first.into()))).request(Method::GET, &path);
        let answer = Answer::of(twice.header("x-admin-key", second)).await;
        answer.refused(401, "unauthenticated", "Invalid admin API key");
        let joined = app.client(Some(("x-admin-key", format!("{first}, {second}"))));
        joined.get(&path).await.refused(401, "unauthenticated", "Invalid admin API key");
    }
    // The admin who also shows a team's key is the admin, except where only a team can be meant.
    let both = |method: Method, path: &str| {
        other.client.request(method, path).header("x-admin-key", "test-admin-key")
    };
    assert_eq!(Answer::of(both(Method::GET, &path)).await.ok()["team_id"], json!(team.id));
    let body = json!({"job_type": "test", "messages": [{"role": "user", "content": "hello"}]}).to_string();
    let call = Answer::of(both(Method::POST, "/api/jobs/create-and-call").body(body)).await.ok();
    let job = call["job_id"].as_str().expect("a job_id");
    assert_eq!(other.read(job).await["team_id"], json!(other.id));
    // Neither stands in for the other.
    app.bearer("test-admin-key").get(&path).await.refused(401, "unauthenticated", "Invalid API key");
    let as_admin = app.client(Some(("x-admin-key", team.key.clone())));
    as_admin.get(&path).await.refused(401, "unauthenticated", "Invalid admin API key");
}

#[tokio::test]
async fn white_space_and_control_characters_around_a_key_never_make_another_one() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    let (line, key) = (format!("GET /api/teams/{}", team.id), &team.key);
    // HTTP's own white space around a header's value is none of the value.
    for header in [format!("Authorization:Bearer {key}"), format!("AUTHORIZATION: \t Bearer {key} \t ")] {
        assert_eq!(exchange(&app, head(&line, &[&header]).as_bytes()).await.status, 200, "{header:?}");
    }
    for header in [
        format!("Authorization: Bearer\t{key}"),
        format!("Authorization: Bearer  {key}"),
        format!("Authorization: Bearer {key}\0"),
        format!("Authorization: Bearer {key}\u{b}"),
        format!("Authorization: Bearer {key}\u{a0}"),
        format!("Authorization: Bearer {key}\u{200b}"),
        format!("Authorization: \u{feff}Bearer {key}"),
        format!("Authorization: Bearer\r\n {key}"),
        format!("Authorization : Bearer {key}"),
        format!(" Authorization: Bearer {key}"),
        format!("Authorization\0: Bearer {key}"),
        "X-Admin-Key: test-admin-key\0".into(),
        "X-Admin-Key: \u{a0}test-admin-key".into(),
        "X-Admin-Key: test-admin\r\n -key".into(),
        "X-Admin_Key: test-admin-key".into(),
        "X_Admin_Key: test-admin-key".into(),
    ] {
        let reply = exchange(&app, head(&line, &[&header]).as_bytes()).await;
        assert!(matches!(reply.status, 0 | 400 | 401), "{header:?}: {}", reply.text);
    }
}

#[tokio::test]
async fn a_revoked_key_is_gone_from_a_warm_cache_and_its_digest_opens_nothing() {
    let app = TestApp::start_with(caching()).await;
    let team = app.team(5).await;
    let path = format!("/api/teams/{}", team.id);
    let made = app.admin().post(&format!("{path}/keys/create"), json!({})).await.ok();
    let second = app.bearer(made["virtual_key"].as_str().expect("a key"));
    second.get(&path).await.ok();
    let id = made["key"]["key_id"].as_str().expect("a key_id");
    app.admin().delete(&format!("{path}/keys/{id}")).await.ok();
    let key = made["virtual_key"].as_str().expect("a key");
    for shown in [key, &hash(key), id] {
        app.bearer(shown).get(&path).await.refused(401, "unauthenticated", "Invalid API key");
    }
    team.client.get(&path).await.ok();
}

#[tokio::test]
async fn without_a_configured_admin_key_every_route_of_the_admin_refuses_whatever_is_shown() {
    let variables = vec![("admin_key", "test-admin-key".to_owned())];
    let stage = Stage::set(Options { variables, ..Options::default() }).await;
    let variables = vec![("admin_key", String::new())];
    let closed = TestApp::start_with(Options { variables, ..Options::default() }).await;
    let world = stage.world().await;
    for (_, route) in routes() {
        if !matches!(route.access, Access::Admin | Access::AdminOrTeam) {
            continue;
        }
        let request = recipe(&name(&route), &world).await;
        for key in ["", " ", "test-admin-key", "null", "undefined", "None"] {
            let client: Client = closed.client(Some(("x-admin-key", key.into())));
            assert_refused(
                &send(&client, &route, &request, None).await,
                &route,
                "somebody",
                (401, "unauthenticated"),
            );
        }
        let refused =
            if route.access == Access::Admin { "Missing X-Admin-Key" } else { "Missing Authorization" };
        let answer = send(&closed.nobody(), &route, &request, None).await;
        assert!(
            answer.body["detail"].as_str().is_some_and(|detail| detail.starts_with(refused)),
            "{}",
            answer.text
        );
    }
}

/// No clock here tells how long a comparison took, so this looks at how it is written.
#[test]
fn the_admin_key_is_compared_in_constant_time() {
    let path = api_tests::repository().join("shared/src/http/caller.rs");
    let source = std::fs::read_to_string(path).expect("the source of authentication");
    let (_, admin) = source.split_once("async fn admin(").expect("where the admin is told from others");
    let (admin, _) = admin.split_once("\n}\n").expect("its end");
    // Of what is shown and what is configured only digests meet, and nothing but `ct_eq` lets them.
    assert!(
        admin.contains("Sha256::digest(shown.as_bytes()).ct_eq(&Sha256::digest(&configured))"),
        "{admin}"
    );
    let without = admin.replace("Sha256::digest(shown.as_bytes()).ct_eq(&Sha256::digest(&configured))", "");
    assert_eq!((without.matches("shown").count(), without.matches("configured").count()), (1, 2), "{admin}");
}

#[tokio::test]
async fn keys_revoked_at_the_same_moment_are_all_revoked_and_nobody_sees_a_failure() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    let path = format!("/api/teams/{}", team.id);
    let mut made = vec![];
    for _ in 0..10 {
        made.push(app.admin().post(&format!("{path}/keys/create"), json!({})).await.ok());
    }
    let admin = app.admin();
    let revoke =
        |key: &serde_json::Value| format!("{path}/keys/{}", key["key"]["key_id"].as_str().expect("a key_id"));
    let paths: Vec<String> = made.iter().map(revoke).collect();
    for answer in join_all(paths.iter().map(|path| admin.delete(path))).await {
        assert_eq!(answer.status, 200, "{} {}", answer.text, app.logs());
    }
    for key in made {
        let key = app.bearer(key["virtual_key"].as_str().expect("a key"));
        key.get(&path).await.refused(401, "unauthenticated", "Invalid API key");
    }
    team.client.get(&path).await.ok();
}
