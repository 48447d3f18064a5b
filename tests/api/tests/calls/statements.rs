//! How many statements a request costs. Each is a checkout of a connection and three round trips, so the number is a
//! promise.

use crate::fixtures::{app_with_connections, events, prompt, stream};
use api_tests::{Options, TestApp, eventually};
use serde_json::json;

/// Every statement that clients have sent to the test's database, as often as it was sent, but for the pool's resets of
/// connections and what this file asks itself.
const STATEMENTS: &str = "SELECT query, calls FROM pg_stat_statements
    WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND query !~ 'pg_stat_statements|pg_advisory_unlock_all'
      AND query !~ '^(CLOSE ALL|RESET ALL|SET SESSION AUTHORIZATION|UNLISTEN|DISCARD)'
    ORDER BY query";

/// An application whose statements are counted.
struct Counted {
    app: TestApp,
}

impl Counted {
    /// `cached`: whether a key that was looked up once is known from then on, or never.
    async fn start(cached: bool) -> Self {
        let seconds = if cached { "3600" } else { "0" };
        let variables = vec![("auth_cache_seconds", seconds.to_owned())];
        let app = TestApp::start_with(Options { variables, ..Options::default() }).await;
        app.database
            .client
            .batch_execute("CREATE EXTENSION pg_stat_statements")
            .await
            .expect("the extension");
        Self { app }
    }

    /// The functions that `work` called in the database, by name.
    async fn of(&self, work: impl Future) -> Vec<String> {
        let reset =
            "SELECT pg_stat_statements_reset(0, oid, 0) FROM pg_database WHERE datname = current_database()";
        self.app.database.client.query(reset, &[]).await.expect("a reset");
        work.await;
        let rows = self.app.database.client.query(STATEMENTS, &[]).await.expect("the statements");
        let repeated = rows.iter().flat_map(|row| {
            let (query, calls): (String, i64) = (row.get(0), row.get(1));
            std::iter::repeat_n(operation(&query), usize::try_from(calls).expect("a count"))
        });
        let mut repeated: Vec<String> = repeated.collect();
        repeated.sort();
        repeated
    }
}

/// The function that a statement is about. What changes something is wrapped in what claims its request and keeps its
/// answer.
fn operation(statement: &str) -> String {
    let wrapping = ["claim", "keep", "finish", "json_build_object"];
    let before_parentheses = statement.split('(').map(|text| text.trim_end());
    let names = before_parentheses.filter_map(|text| text.rsplit([' ', ',']).next());
    let operation = names.filter(|name| name.contains('_')).find(|name| !wrapping.contains(name));
    operation.unwrap_or(statement).to_owned()
}

#[tokio::test]
async fn with_a_known_key_every_request_is_one_statement_and_a_call_two() {
    let counted = Counted::start(true).await;
    let team = counted.app.team(10).await;
    let job = team.job().await;

    let create = counted.of(team.job()).await;
    assert_eq!(create, ["create_job"]);
    assert_eq!(counted.of(team.call(&job, "hello")).await, ["begin_call", "settle_call"]);
    let streamed = async { events(stream(&team, &job, prompt("hello")).await).await };
    assert_eq!(counted.of(streamed).await, ["begin_call", "settle_call"]);
    assert_eq!(counted.of(team.read(&job)).await.len(), 1);
    assert_eq!(counted.of(team.balance()).await.len(), 1);
    let list = format!("/api/teams/{}/jobs", team.id);
    assert_eq!(counted.of(team.client.get(&list)).await.len(), 1);
    let transactions = format!("/api/credits/teams/{}/transactions", team.id);
    assert_eq!(counted.of(team.client.get(&transactions)).await.len(), 1);
    let check = format!("/api/credits/teams/{}/check", team.id);
    assert_eq!(counted.of(team.client.post(&check, json!({}))).await.len(), 1);
    assert_eq!(counted.of(team.complete(&job, "completed")).await, ["complete_job"]);
    counted.app.check_invariants().await;
}

#[tokio::test]
async fn an_unknown_key_costs_one_statement_more() {
    let counted = Counted::start(false).await;
    let team = counted.app.team(10).await;
    let job = team.job().await;
    for statements in [counted.of(team.read(&job)).await, counted.of(team.balance()).await] {
        assert_eq!(statements.len(), 2, "{statements:?}");
        assert!(statements.contains(&"lookup_key".to_owned()), "{statements:?}");
    }
    assert_eq!(counted.of(team.job()).await, ["create_job", "lookup_key"]);
    assert_eq!(counted.of(team.call(&job, "hello")).await, ["begin_call", "lookup_key", "settle_call"]);
    counted.app.check_invariants().await;
}

#[tokio::test]
async fn fallbacks_and_refusals_cost_no_statement_more() {
    let counted = Counted::start(true).await;
    let team = counted.app.team_using(&["err500", "err503", "err429"], 10).await;
    let job = team.job().await;
    assert_eq!(counted.of(team.call(&job, "hello")).await, ["begin_call", "settle_call"]);
    let malformed = team.client.post("/api/jobs/create", json!({"team_id": team.id}));
    assert_eq!(counted.of(malformed).await, Vec::<String>::new());
    counted.app.check_invariants().await;
}

#[tokio::test]
async fn a_waiting_call_holds_no_connection() {
    let app = app_with_connections(1).await;
    let team = app.team(1).await;
    let job = team.job().await;
    let answers = futures::future::join_all((0..5).map(|_| team.call(&job, "[[first_ms=5000]] hello")));
    let open = "SELECT count(*) FROM calls WHERE status = 'open'";
    let all_wait = eventually("five open calls", async || {
        let count: i64 = app.database.client.query_one(open, &[]).await.expect("a count").get(0);
        (count == 5).then_some(())
    });
    let (answers, ()) = futures::join!(answers, all_wait);
    for answer in answers {
        answer.ok();
    }
    app.check_invariants().await;
}
