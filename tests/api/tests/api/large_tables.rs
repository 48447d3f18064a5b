//! Tables of any size: they are read page by page as they are sent, and nobody takes a part of one for the whole.

use crate::outages::set_away;
use api_tests::{Options, Team, TestApp, eventually};
use futures::StreamExt;
use host::Settings;
use serde_json::json;

/// What an instance may have. A table that was held in memory would be many times as large.
const MEMORY: usize = 64 << 20;

/// As many entries as the team's ledger has then, made without the functions, with the reason `row N` in each.
async fn fill_ledger(app: &TestApp, team: &Team, number: i64) {
    let statement = format!(
        "SET session_replication_role = replica;
         DELETE FROM credit_transactions WHERE team_id = '{team}';
         INSERT INTO credit_transactions (team_id, entry, transaction_id, transaction_type, change, balance_after,
                                          reason)
         SELECT '{team}', n, lpad(to_hex(n), 32, '0')::uuid, 'adjustment', 1, n, 'row ' || n
         FROM generate_series(1, {number}) AS n;
         UPDATE credit_accounts SET entries = {number}, allocated = {number}, used = 0 WHERE team_id = '{team}';
         RESET session_replication_role",
        team = team.id
    );
    app.database.client.batch_execute(&statement).await.expect("a ledger");
}

fn table_of(team: &Team, query: &str) -> reqwest::RequestBuilder {
    let path = format!("/api/credits/teams/{}/transactions?format=csv{query}", team.id);
    team.client.request(reqwest::Method::GET, &path)
}

#[tokio::test]
async fn a_ledger_of_a_million_entries_is_one_table_and_takes_little_memory() {
    const ENTRIES: i64 = 1_000_000;
    let settings = Settings { max_instance_memory: Some(MEMORY), ..Settings::default() };
    let app = TestApp::start_with(Options { settings, ..Options::default() }).await;
    let team = app.team(1).await;
    fill_ledger(&app, &team, ENTRIES).await;
    let mut pieces = table_of(&team, "").send().await.expect("an answer").bytes_stream();
    // All lines, one after another, though not all at once here either.
    let (mut rest, mut lines, mut next) = (vec![], 0, ENTRIES);
    while let Some(piece) = pieces.next().await {
        rest.extend_from_slice(&piece.expect("the whole table"));
        let complete = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        for line in rest.drain(..complete).collect::<Vec<_>>().split_inclusive(|byte| *byte == b'\n') {
            if lines > 0 {
                let reason = format!(",row {next},");
                let line = std::str::from_utf8(line).expect("text");
                assert!(line.contains(&reason), "{line} instead of {next}");
                next -= 1;
            }
            lines += 1;
        }
    }
    assert_eq!((rest.len(), lines, next), (0, ENTRIES + 1, 0));
}

#[tokio::test]
async fn a_ledger_of_the_largest_entries_takes_no_more() {
    let settings = Settings { max_instance_memory: Some(MEMORY), ..Settings::default() };
    let app = TestApp::start_with(Options { settings, ..Options::default() }).await;
    let team = app.team(1).await;
    fill_ledger(&app, &team, 2_000).await;
    let statement = "SET session_replication_role = replica;
        UPDATE credit_transactions SET reason = repeat('\u{1f600}', 10000),
                                       metadata = json_build_object('text', repeat('x', 16000));
        RESET session_replication_role";
    app.database.client.batch_execute(statement).await.expect("large entries");
    let mut pieces = table_of(&team, "").send().await.expect("an answer").bytes_stream();
    let mut bytes = 0;
    while let Some(piece) = pieces.next().await {
        bytes += piece.expect("the whole table").len();
    }
    assert!(bytes > 2_000 * 56_000, "{bytes} bytes");
}

#[tokio::test]
async fn a_limit_of_memory_ends_an_instance_that_takes_more() {
    let settings = Settings { max_instance_memory: Some(4 << 20), ..Settings::default() };
    let app = TestApp::start_with(Options { settings, ..Options::default() }).await;
    let text = "x".repeat(3 << 20);
    let body = json!({"organization_id": "large", "name": "Large", "metadata": {"text": text}});
    let request = app.admin().request(reqwest::Method::POST, "/api/organizations/create").json(&body);
    let answer = request.send().await;
    assert!(!answer.is_ok_and(|answer| answer.status() == 400), "it had the memory");
    eventually("the instance's end", async || {
        app.logs().contains("an instance of tenancy failed").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_table_begins_and_ends_where_the_query_says() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    fill_ledger(&app, &team, 1_234).await;
    for (query, first, last) in [
        ("", 1_234, 1),
        ("&offset=7", 1_227, 1),
        ("&cursor=1000", 999, 1),
        ("&limit=1000", 1_234, 235),
        ("&limit=3&cursor=1000", 999, 997),
        ("&offset=1234", 0, 1),
    ] {
        let text = table_of(&team, query).send().await.expect("an answer").text().await.expect("a table");
        let rows: Vec<String> =
            text.lines().skip(1).map(|line| line.split(',').nth(7).unwrap_or("").into()).collect();
        let expected: Vec<String> = (last..=first).rev().map(|n: i64| format!("row {n}")).collect();
        assert!(rows == expected, "{query}: {} rows, {:?}", rows.len(), rows.first());
    }
}

#[tokio::test]
async fn a_table_that_can_not_be_read_to_its_end_is_a_transfer_that_breaks_off() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    fill_ledger(&app, &team, 200_000).await;
    let answer = table_of(&team, "").send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let mut pieces = answer.bytes_stream();
    pieces.next().await.expect("a piece").expect("its beginning");
    set_away(&app, true).await;
    let mut broken = false;
    while let Some(piece) = pieces.next().await {
        broken |= piece.is_err();
    }
    set_away(&app, false).await;
    assert!(broken, "the client takes a part for the whole");
    assert!(app.logs().contains("going on with a table"), "{}", app.logs());
    let text = table_of(&team, "").send().await.expect("an answer").text().await.expect("a table");
    assert_eq!(text.lines().count(), 200_001, "all is well afterwards");
}

#[tokio::test]
async fn the_usage_of_an_organization_is_one_table_team_by_team() {
    let app = TestApp::start().await;
    let organization = app.organization().await;
    let mut teams = vec![];
    for _ in 0..3 {
        teams.push(app.team_with(json!({"credits_allocated": 1, "organization_id": organization})).await.id);
    }
    teams.sort();
    let stranger = app.team(1).await.id;
    for team in teams.iter().chain([&stranger]) {
        let statement = format!(
            "SET session_replication_role = replica; -- As many types as before release 0.4.0.
             INSERT INTO usage_days (team_id, day, job_type, opened_jobs)
             SELECT '{team}', date '2025-10-01' + day, 'type ' || type, 1
             FROM generate_series(0, 9) AS day, generate_series(1, 250) AS type;
             RESET session_replication_role"
        );
        app.database.client.batch_execute(&statement).await.expect("usage");
    }
    let table = async |path: String| {
        let answer = app.admin().get(&format!("{path}/usage?period=2025-10&format=csv")).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let cells = |line: &str| line.split(',').take(3).map(str::to_owned).collect::<Vec<_>>();
        answer.text.lines().skip(1).map(cells).collect::<Vec<_>>()
    };
    let mut all = vec![];
    for team in &teams {
        let rows = table(format!("/api/teams/{team}")).await;
        assert_eq!(rows.len(), 2500);
        assert!(rows.iter().all(|row| row[1] == *team));
        let days: Vec<&String> = rows.iter().map(|row| &row[0]).collect();
        assert!(days.is_sorted(), "day by day");
        all.extend(rows);
    }
    assert!(table(format!("/api/organizations/{organization}")).await == all);
    let mut distinct = all.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), all.len(), "each row once");
}
