//! Bodies that are made to use up the reader: deep, wide, long, compressed, slow.

use crate::{
    hostile::{body_with, method, places},
    recipes::recipe,
    wire::{connect, head, rest},
    world::Stage,
};
use api_tests::{Answer, Options, PATIENCE};
use futures::future::{Either, select};
use openapi::{name, routes};
use reqwest::Method;
use serde_json::json;
use shared::http::Access;
use std::pin::pin;
use tokio::{
    io::AsyncWriteExt,
    time::{Duration, sleep},
};

/// Brackets within brackets.
fn deep(levels: usize) -> Vec<u8> {
    [b"[".repeat(levels), b"]".repeat(levels)].concat()
}

fn deep_objects(levels: usize) -> Vec<u8> {
    [br#"{"a":"#.repeat(levels), b"1".to_vec(), b"}".repeat(levels)].concat()
}

/// An object of so many members.
fn wide(members: usize) -> Vec<u8> {
    let members: Vec<String> = (0..members).map(|number| format!("\"{number:x}\":1")).collect();
    format!("{{{}}}", members.join(",")).into_bytes()
}

/// JSON, and what looks like it, that is awkward as a number or in place of one.
const NUMBERS: [&str; 13] = [
    "1e999",
    "-1e999",
    "1e-999",
    "-0",
    "-0.0",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775809",
    "18446744073709551616",
    "1e18",
    "0.1e1",
    "00",
    "NaN",
];

#[tokio::test]
async fn numbers_at_and_beyond_every_edge_break_nothing_on_any_route() {
    let stage = Stage::set(Options::default()).await;
    let long = "9".repeat(100_000);
    let values: Vec<&str> =
        NUMBERS.into_iter().chain([long.as_str(), "true", "null", "[]", "{}", "[[]]", "\"\""]).collect();
    for (_, route) in routes() {
        for place in places(&route) {
            let world = stage.world().await;
            let client = stage.caller(&route, &world);
            for value in &values {
                let recipe = recipe(&name(&route), &world).await;
                let body = body_with(&recipe.body.unwrap_or_default(), &place, value.as_bytes());
                let answer = Answer::of(client.request(method(&route), &recipe.path).body(body)).await;
                let short: String = value.chars().take(30).collect();
                assert!(
                    answer.status.as_u16() < 500,
                    "{short} in {place:?} of {}: {:.300}\n{}",
                    name(&route),
                    answer.text,
                    stage.app.logs()
                );
            }
        }
    }
    stage.app.check_invariants().await;
}

#[tokio::test]
async fn deep_and_wide_bodies_are_refused_on_every_route_and_the_next_request_is_served() {
    let stage = Stage::set(Options::default()).await;
    let bodies = [
        deep(100_000),
        deep_objects(100_000),
        deep(2_000_000),
        wide(300_000),
        b"[".repeat(1_000_000),
        b"{\"a\":".repeat(500_000),
    ];
    for (_, route) in routes() {
        // What deletes takes no body, and looks into none.
        if route.access == Access::Public || matches!(method(&route), Method::GET | Method::DELETE) {
            continue;
        }
        let world = stage.world().await;
        let client = stage.caller(&route, &world);
        let request = recipe(&name(&route), &world).await;
        let before = stage.app.database.everything().await;
        for (number, body) in bodies.iter().enumerate() {
            let answer = Answer::of(client.request(method(&route), &request.path).body(body.clone())).await;
            assert_eq!(
                answer.status,
                400,
                "body {number} of {}: {:.300}\n{}",
                name(&route),
                answer.text,
                stage.app.logs()
            );
        }
        assert_eq!(stage.app.database.everything().await, before, "{}", name(&route));
        stage.app.nobody().get("/health").await.ok();
    }
}

#[tokio::test]
async fn a_value_nested_a_hundred_thousand_times_breaks_nothing_in_any_place() {
    let stage = Stage::set(Options::default()).await;
    for (_, route) in routes() {
        let world = stage.world().await;
        let client = stage.caller(&route, &world);
        for place in places(&route) {
            for value in [deep(100_000), deep_objects(100_000), deep_objects(2_500)] {
                let recipe = recipe(&name(&route), &world).await;
                let body = body_with(&recipe.body.unwrap_or_default(), &place, &value);
                let answer = Answer::of(client.request(method(&route), &recipe.path).body(body)).await;
                assert!(
                    answer.status.as_u16() < 500,
                    "{place:?} of {}: {:.300}\n{}",
                    name(&route),
                    answer.text,
                    stage.app.logs()
                );
            }
        }
    }
    stage.app.check_invariants().await;
}

#[tokio::test]
async fn a_deep_prompt_is_a_call_like_any_other_also_where_it_is_kept() {
    let variables = vec![("store_messages_days", "1".to_owned())];
    let stage = Stage::set(Options { variables, ..Options::default() }).await;
    let world = stage.world().await;
    let client = &world.team.client;
    for value in [deep(100), deep(5_000), deep(100_000)] {
        let part = String::from_utf8(value).expect("text");
        let messages =
            format!(r#"[{{"role":"user","content":[{{"type":"text","text":"hello","x":{part}}}]}}]"#);
        let body = format!(r#"{{"messages":{messages}}}"#);
        let path = format!("/api/jobs/{}/llm-call", world.job);
        let answer = Answer::of(client.request(Method::POST, &path).body(body)).await;
        assert!(
            answer.status.as_u16() < 500 || answer.status == 502,
            "{} {:.300}",
            answer.status,
            answer.text
        );
        // Too deep to be read as JSON here.
        let shown = client.get(&format!("/api/jobs/{}", world.job)).await;
        assert_eq!(shown.status, 200, "{:.500}", shown.text);
        let open = "SELECT count(*) FROM calls WHERE status = 'open'";
        let open: i64 = stage.app.database.client.query_one(open, &[]).await.expect("a count").get(0);
        assert_eq!(open, 0);
    }
    stage.app.check_invariants().await;
}

#[tokio::test]
async fn a_compressed_body_is_refused_on_every_route_whatever_its_encoding_is_called() {
    let stage = Stage::set(Options::default()).await;
    // `{}` by gzip. How large it would be does not matter to who never unpacks it.
    let packed = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0xab, 0xae, 5, 0, 0x43, 0xbf, 0xa6, 0xa3, 2, 0, 0, 0];
    for (_, route) in routes() {
        if route.access == Access::Public || method(&route) == Method::GET {
            continue;
        }
        let world = stage.world().await;
        let client = stage.caller(&route, &world);
        let request = recipe(&name(&route), &world).await;
        let before = stage.app.database.everything().await;
        for encodings in [
            &["gzip"][..],
            &["GZIP"],
            &["x-gzip"],
            &["deflate"],
            &["br"],
            &["zstd"],
            &["gzip, identity"],
            &["identity, gzip"],
            &["identity", "gzip"],
            &["gzip", "identity"],
            &["aes128gcm"],
        ] {
            let sent = client.request(method(&route), &request.path).body(packed.to_vec());
            let sent =
                encodings.iter().fold(sent, |sent, encoding| sent.header("content-encoding", *encoding));
            let status = Answer::of(sent).await.status.as_u16();
            assert!(
                status == 415 || (encodings[0] == "identity" && status == 400),
                "{encodings:?} of {}: {status}",
                name(&route)
            );
        }
        assert_eq!(stage.app.database.everything().await, before, "{}", name(&route));
    }
}

#[tokio::test]
async fn a_body_that_is_announced_as_too_large_is_refused_on_every_route_before_it_comes() {
    let stage = Stage::set(Options::default()).await;
    let world = stage.world().await;
    for (_, route) in routes() {
        if route.access == Access::Public || method(&route) == Method::GET {
            continue;
        }
        let path = recipe(&name(&route), &world).await.path;
        for length in ["4194305", "99999999999", "18446744073709551615"] {
            let admins = matches!(route.access, Access::Admin | Access::AdminOrTeam);
            let key = if admins {
                "x-admin-key: test-admin-key".into()
            } else {
                format!("authorization: Bearer {}", world.team.key)
            };
            let request =
                head(&format!("{} {path}", method(&route)), &[&key, &format!("content-length: {length}")]);
            let mut connection = connect(&stage.app).await;
            connection.write_all(request.as_bytes()).await.expect("sent");
            let reply = rest(connection).await;
            // 431 is the server's own for a number that nobody can count to.
            assert!(
                matches!(reply.status, 0 | 400 | 413 | 431),
                "{length} of {}: {}",
                name(&route),
                reply.text
            );
        }
    }
}

#[tokio::test]
async fn a_body_that_comes_a_byte_a_second_is_given_up_on_and_keeps_nobody_waiting() {
    let stage = Stage::set(Options::default()).await;
    let team = &stage.other;
    let before = stage.app.database.everything().await;
    let mut slow = vec![];
    for (path, identity) in [
        ("/api/jobs/create", format!("authorization: Bearer {}", team.key)),
        ("/api/jobs/create-and-call", format!("authorization: Bearer {}", team.key)),
        ("/v1/chat/completions", format!("authorization: Bearer {}", team.key)),
        ("/api/teams/create", "x-admin-key: test-admin-key".into()),
        (&format!("/api/credits/teams/{}/add", team.id), "x-admin-key: test-admin-key".into()),
    ] {
        for framing in ["content-length: 100000", "transfer-encoding: chunked"] {
            let mut connection = connect(&stage.app).await;
            let request = head(&format!("POST {path}"), &[&identity, framing]);
            let chunked = framing.contains("chunked");
            slow.push(async move {
                connection.write_all(request.as_bytes()).await.expect("sent");
                let (reader, mut writer) = connection.into_split();
                let drip = async {
                    loop {
                        let sent = writer.write_all(if chunked { b"1\r\n \r\n" } else { b" " }).await;
                        if sent.is_err() {
                            std::future::pending::<()>().await;
                        }
                        sleep(Duration::from_secs(1)).await;
                    }
                };
                let read = read_head(reader);
                tokio::select! {
                    head = read => head, () = drip => String::new(), () = sleep(PATIENCE) => "nothing".into()
                }
            });
        }
    }
    let meanwhile = async {
        for _ in 0..10 {
            team.balance().await;
        }
    };
    let slow = pin!(futures::future::join_all(slow));
    let Either::Right(((), slow)) = select(slow, pin!(meanwhile)).await else {
        panic!("fast requests waited for slow ones")
    };
    for head in slow.await {
        assert!(head.starts_with("HTTP/1.1 408 "), "{head}");
        assert!(head.contains("request_timeout"), "{head}");
    }
    assert_eq!(stage.app.database.everything().await, before);
}

/// What comes until the server closes or has said all of a short answer.
async fn read_head(mut reader: tokio::net::tcp::OwnedReadHalf) -> String {
    use tokio::io::AsyncReadExt;
    let mut answer = vec![];
    let mut part = [0; 4096];
    while !answer.ends_with(b"}") {
        match reader.read(&mut part).await {
            Ok(0) | Err(_) => break,
            Ok(length) => answer.extend_from_slice(&part[..length]),
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn what_is_no_request_at_all_harms_nobody_elses() {
    let stage = Stage::set(Options::default()).await;
    let world = stage.world().await;
    let key = format!("authorization: Bearer {}", world.team.key);
    let many: String = (0..500).map(|number| format!("x-{number}: 1\r\n")).collect();
    let large = format!("x-large: {}", "x".repeat(2_000_000));
    let post = "POST /api/jobs/create";
    let before = stage.app.database.everything().await;
    for request in [
        head(post, &[&key, many.trim_end()]),
        head(post, &[&key, &large]),
        head(&format!("GET /{}", "x".repeat(200_000)), &[&key]),
        head(post, &[&key, "content-length: -1"]),
        head(post, &[&key, "content-length: 1, 2"]),
        head(post, &[&key, "content-length: 5\r\ncontent-length: 6"]),
        head(post, &[&key, "content-length: 0x10"]),
        head(post, &[&key, "transfer-encoding: chunked"]) + "zz\r\n{}\r\n0\r\n\r\n",
        head(post, &[&key, "transfer-encoding: chunked"]) + "ffffffffffffffffff\r\n{}",
        head(post, &[&key, "transfer-encoding: gzip, chunked"]) + "2\r\n{}\r\n0\r\n\r\n",
        head(post, &[&key, "transfer-encoding: chunked, identity"]) + "2\r\n{}\r\n0\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0".into(),
        "\u{16}\u{3}\u{1}".repeat(100) + "\r\n\r\n",
    ] {
        let mut connection = connect(&stage.app).await;
        _ = connection.write_all(request.as_bytes()).await;
        _ = connection.shutdown().await;
        let reply = rest(connection).await;
        assert_ne!(reply.status, 200, "{:.200}: {}", request, reply.text);
    }
    assert_eq!(stage.app.database.everything().await, before);
    assert_eq!(world.team.balance().await["team_id"], json!(world.team.id));
}
