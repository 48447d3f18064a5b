//! Which SQL statements a request takes. Each is a checkout of a connection and three round trips, so this is a
//! promise, and `docs/api.md` repeats it.

use crate::{
    recipes::recipe,
    world::{Stage, assert_allowed, callers, send},
};
use api_tests::Options;
use openapi::{Statements, name, routes, statements, statements_file};
use tokio_postgres::Client;

/// Every statement that clients have sent to the test's database, as often as it was sent, but for the pool's resets of
/// connections, what this file asks itself, and the sending of alerts, which goes on after the answer.
const SENT: &str = "SELECT query, calls FROM pg_stat_statements
    WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND query !~ 'pg_stat_statements|pg_advisory_unlock_all|pg_proc|take_alerts'
      AND query !~ '^(CLOSE ALL|RESET ALL|SET SESSION AUTHORIZATION|UNLISTEN|DISCARD)'
    ORDER BY query";

/// The functions of `migrations/`. Those by which requests are made idempotent stand around others.
const FUNCTIONS: &str = "SELECT proname FROM pg_proc
    WHERE pronamespace = 'public'::regnamespace AND proname NOT IN ('claim', 'lease', 'keep', 'finish', 'release')";

#[tokio::test]
async fn every_route_takes_the_statements_that_are_written_down() {
    let variables = vec![("auth_cache_seconds", "3600".to_owned())];
    let stage = Stage::set(Options { variables, ..Options::default() }).await;
    let database = &stage.app.database.client;
    database.batch_execute("CREATE EXTENSION pg_stat_statements").await.expect("the extension");
    let functions = functions(database).await;
    let mut measured = Statements::new();
    for (_, route) in routes() {
        for caller in callers(&route) {
            let world = stage.world().await;
            let request = recipe(&name(&route), &world).await;
            // The key is known from then on.
            world.team.balance().await;
            reset(database).await;
            let answer = send(&stage.client(caller, &world), &route, &request, None).await;
            assert_allowed(&answer, &route, caller);
            let statements = sent(database, &functions).await;
            measured.entry(name(&route)).or_default().insert((*caller).to_owned(), statements);
        }
    }
    if std::env::var_os("WRITE_STATEMENTS").is_some() {
        let mut text = serde_json::to_string_pretty(&measured).expect("JSON");
        text.push('\n');
        std::fs::write(statements_file(), text).expect("tests/openapi/statements.json");
    }
    let written = statements().expect("tests/openapi/statements.json");
    assert!(
        measured == written,
        "measured are {measured:#?}\nIf that is meant: WRITE_STATEMENTS=1 cargo test -p api-tests --test matrix \
         statements, and cargo run -p openapi"
    );
}

async fn functions(database: &Client) -> Vec<String> {
    let rows = database.query(FUNCTIONS, &[]).await.expect("the functions");
    rows.iter().map(|row| row.get(0)).collect()
}

async fn reset(database: &Client) {
    let reset =
        "SELECT pg_stat_statements_reset(0, oid, 0) FROM pg_database WHERE datname = current_database()";
    database.query(reset, &[]).await.expect("a reset");
}

/// The functions that clients called since the reset, one for each statement. A statement without any is given as it
/// is.
async fn sent(database: &Client, functions: &[String]) -> Vec<String> {
    let rows = database.query(SENT, &[]).await.expect("the statements");
    let mut sent: Vec<String> = rows
        .iter()
        .flat_map(|row| {
            let (query, calls): (String, i64) = (row.get(0), row.get(1));
            let words: Vec<&str> = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
            let called = functions.iter().find(|function| words.contains(&function.as_str()));
            let name = called.cloned().unwrap_or(query.clone());
            std::iter::repeat_n(name, usize::try_from(calls).expect("a count"))
        })
        .collect();
    sent.sort();
    sent
}
