//! The tools themselves: a fault is what it is called, and over when it is said to be.

use crate::asking::skipped;
use faults::{After, Application, Direction, Disk, Mode, Postgres, Proxy, RawServer, Script, Setup};
use std::time::{Duration, Instant};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// A server that sends back what it gets, behind a proxy.
async fn echo() -> Proxy {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut input, mut output) = stream.split();
                tokio::io::copy(&mut input, &mut output).await
            });
        }
    });
    Proxy::start(address).await.expect("a proxy")
}

async fn connect(proxy: &Proxy) -> TcpStream {
    TcpStream::connect(proxy.address()).await.expect("a connection")
}

/// What comes back until the connection ends, or nothing more comes.
async fn echoed(stream: &mut TcpStream, sent: &[u8]) -> (Vec<u8>, bool) {
    let mut back = vec![];
    if stream.write_all(sent).await.is_err() {
        return (back, true);
    }
    loop {
        let patience = if back.is_empty() { Duration::from_secs(10) } else { Duration::from_millis(500) };
        match timeout(patience, stream.read_buf(&mut back)).await {
            Ok(Ok(1..)) => {}
            Ok(_) => return (back, true),
            Err(_) => return (back, false),
        }
    }
}

#[tokio::test]
async fn a_connection_is_cut_at_exactly_the_planned_byte_in_either_direction() {
    let proxy = echo().await;
    for bytes in [0, 1, 4, 5] {
        for direction in [Direction::ToServer, Direction::ToClient] {
            let cuts = proxy.cuts();
            let mut stream = connect(&proxy).await;
            assert_eq!(echoed(&mut stream, b"before").await, (b"before".into(), false));
            proxy.cut_once_after(direction, bytes);
            let (back, ended) = echoed(&mut stream, b"hello").await;
            assert_eq!(proxy.cuts() - cuts, 1, "{direction:?} {bytes}");
            assert!(ended, "{direction:?} {bytes}");
            if direction == Direction::ToClient {
                assert_eq!(back, &b"hello"[..bytes as usize]);
            }
            assert_eq!(echoed(&mut connect(&proxy).await, b"again").await, (b"again".into(), false), "once");
        }
    }
    proxy.cut_each_after(Direction::ToClient, 2);
    for _ in 0..3 {
        assert_eq!(echoed(&mut connect(&proxy).await, b"hello").await, (b"he".into(), true));
    }
    proxy.cut_no_more();
    assert_eq!(echoed(&mut connect(&proxy).await, b"hello").await, (b"hello".into(), false));
}

#[tokio::test]
async fn a_stalled_connection_passes_afterwards_what_was_sent_meanwhile() {
    let proxy = echo().await;
    let mut old = connect(&proxy).await;
    assert_eq!(echoed(&mut old, b"1").await, (b"1".into(), false));
    proxy.set(Mode::Stall).await;
    let mut new = connect(&proxy).await;
    assert_eq!(echoed(&mut old, b"2").await, (vec![], false));
    assert_eq!(echoed(&mut new, b"3").await, (vec![], false));
    proxy.set(Mode::Pass).await;
    assert_eq!(echoed(&mut old, b"4").await, (b"24".into(), false));
    assert_eq!(echoed(&mut new, b"5").await, (b"35".into(), false));
}

#[tokio::test]
async fn a_proxy_refuses_resets_and_delays_until_it_passes_again() {
    let proxy = echo().await;
    let mut old = connect(&proxy).await;
    assert_eq!(echoed(&mut old, b"first").await, (b"first".into(), false));
    proxy.set(Mode::Refuse).await;
    let refused = TcpStream::connect(proxy.address()).await.expect_err("nobody listens");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    assert_eq!(echoed(&mut old, b"old").await, (b"old".into(), false));
    proxy.cut();
    assert_eq!(echoed(&mut old, b"").await, (vec![], true));
    proxy.set(Mode::Reset).await;
    let reset = match TcpStream::connect(proxy.address()).await {
        Ok(mut stream) => stream.read_u8().await.expect_err("it is reset"),
        Err(error) => error,
    };
    assert_eq!(reset.kind(), std::io::ErrorKind::ConnectionReset);
    proxy.set(Mode::Delay(Duration::from_millis(100))).await;
    let since = Instant::now();
    assert_eq!(echoed(&mut connect(&proxy).await, b"late").await, (b"late".into(), false));
    assert!(since.elapsed() > Duration::from_millis(200));
    proxy.set(Mode::Pass).await;
    assert_eq!(echoed(&mut connect(&proxy).await, b"new").await, (b"new".into(), false));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_proxy_ignores_who_wants_a_connection_until_it_passes_again() {
    let proxy = echo().await;
    let mut old = connect(&proxy).await;
    assert_eq!(echoed(&mut old, b"first").await, (b"first".into(), false));
    for _ in 0..2 {
        proxy.set(Mode::Ignore).await;
        let ignored = timeout(Duration::from_millis(500), TcpStream::connect(proxy.address())).await;
        assert!(ignored.is_err(), "{ignored:?}");
        assert_eq!(echoed(&mut old, b"old").await, (b"old".into(), false));
        proxy.set(Mode::Pass).await;
        assert_eq!(echoed(&mut connect(&proxy).await, b"new").await, (b"new".into(), false));
    }
}

#[tokio::test]
async fn a_raw_server_says_what_it_is_told_to_say() {
    let script = Script::http("418 I'm a teapot", "x-pot: tea\r\n", "short");
    let server = RawServer::start(script.clone()).await.expect("a server");
    let answer = reqwest::get(format!("http://{}/", server.address())).await.expect("an answer");
    assert_eq!((answer.status().as_u16(), answer.headers()["x-pot"].to_str().ok()), (418, Some("tea")));
    assert_eq!(answer.text().await.expect("a body"), "short");
    let held = RawServer::start(Script::of("").then(After::Hold)).await.expect("a server");
    let answer = timeout(Duration::from_millis(300), reqwest::get(format!("http://{}/", held.address())));
    assert!(answer.await.is_err());
}

#[tokio::test]
async fn an_application_with_two_hosts_works_through_its_proxies() {
    let app = Application::start_with(Setup { hosts: 2, ..Setup::default() }).await;
    app.recovers().await;
    for proxy in [&app.to_database, &app.to_litellm] {
        assert!(proxy.passed(Direction::ToServer) > 0 && proxy.passed(Direction::ToClient) > 0);
    }
    assert!(app.hosts.iter().all(|host| host.logs().contains("Serving http://")));
}

#[tokio::test]
async fn a_killed_server_and_a_killed_host_start_again_where_they_were() {
    let postgres = Postgres::start(&[]).await.expect("a server");
    let app = Application::start_with(Setup { postgres: Some(postgres), ..Setup::default() }).await;
    let team = app.team(3).await;
    team.job().await;
    let postgres = app.postgres.as_ref().expect("its own");
    postgres.kill().await;
    app.hosts[0].kill().await;
    assert!(!postgres.runs().await);
    assert!(reqwest::get(app.hosts[0].url()).await.is_err());
    postgres.restart().await.expect("started again");
    app.hosts[0].restart().await.expect("started again");
    assert_eq!(app.number("SELECT count(*) FROM jobs").await, 1);
    assert_eq!(team.balance().await["credits_available"], 2);
    app.recovers().await;
}

#[tokio::test]
async fn a_small_disk_gets_full_and_empty_again() {
    let postgres = match Postgres::start_on(Disk::Small(100 << 20), &[]).await {
        Ok(postgres) => postgres,
        Err(error) => return skipped(&format!("a small disk: {error:#}")),
    };
    let (client, connection) =
        tokio_postgres::connect(postgres.superuser_url(), tokio_postgres::NoTls).await.expect("connected");
    tokio::spawn(connection);
    let make = "CREATE TABLE t AS SELECT repeat('x', 1000) FROM generate_series(1, 3000)";
    postgres.fill_disk().await.expect("filled");
    assert!(client.batch_execute(make).await.is_err());
    postgres.free_disk().await.expect("freed");
    if !postgres.runs().await {
        postgres.restart().await.expect("started again");
    }
    let (client, connection) =
        tokio_postgres::connect(postgres.superuser_url(), tokio_postgres::NoTls).await.expect("connected");
    tokio::spawn(connection);
    client.batch_execute(make).await.expect("made");
}
