//! Lists that grow without end: a cursor goes through them once and whole, whatever is added meanwhile. And the ledger
//! as a table.

use crate::credits::add;
use api_tests::{Team, TestApp};
use serde_json::{Value, json};

/// Goes through a list page by page, with something done after each, and gives the ids in the order in which they came.
async fn walk(team: &Team, path: &str, list: &str, id: &str, mut between: impl AsyncFnMut()) -> Vec<String> {
    let (mut ids, mut cursor) = (vec![], String::new());
    loop {
        let page = team.client.get(&format!("{path}{cursor}")).await.ok();
        let entries = page[list].as_array().expect("a list");
        ids.extend(entries.iter().map(|entry| entry[id].as_str().expect("an id").to_owned()));
        let next = match page.get("next_cursor").expect("next_cursor") {
            Value::Null => return ids,
            Value::String(next) => next.clone(),
            next => next.to_string(),
        };
        assert!(!entries.is_empty(), "a page with nothing on it has no next one");
        cursor = format!("&cursor={next}");
        between().await;
    }
}

async fn ids(team: &Team, path: &str, list: &str, id: &str) -> Vec<String> {
    walk(team, path, list, id, async || {}).await
}

async fn job_of(team: &Team, job_type: &str, user_id: &str) -> String {
    let body = json!({"team_id": team.id, "job_type": job_type, "user_id": user_id});
    team.client.post("/api/jobs/create", body).await.ok()["job_id"].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn a_cursor_goes_through_the_ledger_once_while_rows_are_added() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    for amount in 2..=25 {
        add(&app, &team, json!({"amount": amount})).await.ok();
    }
    let path = format!("/api/credits/teams/{}/transactions", team.id);
    let all = ids(&team, &format!("{path}?limit=1000"), "transactions", "transaction_id").await;
    assert_eq!(all.len(), 25);
    for limit in [1, 4, 5, 24, 25, 26] {
        let page = format!("{path}?limit={limit}");
        let before = ids(&team, &format!("{path}?limit=1000"), "transactions", "transaction_id").await;
        let seen = walk(&team, &page, "transactions", "transaction_id", async || {
            add(&app, &team, json!({"amount": 1})).await.ok();
        })
        .await;
        assert_eq!(seen, before, "limit {limit}");
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn a_cursor_goes_through_the_jobs_once_while_jobs_are_added_with_the_same_filter() {
    let app = TestApp::start().await;
    let team = app.team_with(json!({"budget_mode": "soft"})).await;
    for n in 0..12 {
        let job =
            job_of(&team, if n % 2 == 0 { "a" } else { "b" }, if n % 3 == 0 { "ann" } else { "bob" }).await;
        if n % 4 == 0 {
            team.complete(&job, "completed").await.ok();
        }
    }
    let path = format!("/api/teams/{}/jobs", team.id);
    for filter in
        ["", "&job_type=a", "&user_id=ann", "&status=pending", "&job_type=b&user_id=bob&status=PENDING"]
    {
        for limit in [1, 3, 5] {
            let before = ids(&team, &format!("{path}?limit=1000{filter}"), "jobs", "job_id").await;
            assert!(!before.is_empty(), "{filter}");
            let page = format!("{path}?limit={limit}{filter}");
            let mut more = 3;
            let seen = walk(&team, &page, "jobs", "job_id", async || {
                if more > 0 {
                    more -= 1;
                    job_of(&team, "a", "ann").await;
                    job_of(&team, "b", "bob").await;
                }
            })
            .await;
            assert_eq!(seen, before, "{filter} {limit}");
        }
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn the_last_page_says_that_it_is_the_last_also_when_it_is_full() {
    let app = TestApp::start().await;
    let team = app.team(4).await;
    for _ in 0..4 {
        let job = team.job().await;
        team.complete(&job, "failed").await.ok();
        add(&app, &team, json!({"amount": 1})).await.ok();
    }
    for path in [
        format!("/api/teams/{}/jobs", team.id),
        format!("/api/credits/teams/{}/transactions?offset=1", team.id),
    ] {
        let sign = if path.contains('?') { '&' } else { '?' };
        let page = team.client.get(&format!("{path}{sign}limit=4")).await.ok();
        assert_eq!(page["next_cursor"], Value::Null, "{path}");
        let page = team.client.get(&format!("{path}{sign}limit=3")).await.ok();
        assert_ne!(page["next_cursor"], Value::Null, "{path}");
    }
}

#[tokio::test]
async fn totals_count_all_that_the_filter_lets_pass_wherever_the_page_is() {
    let app = TestApp::start().await;
    let team = app.team(9).await;
    for n in 0..6 {
        job_of(&team, if n < 4 { "a" } else { "b" }, "ann").await;
    }
    for filter in ["job_type=a", "job_type=a&user_id=ann", "job_type=a&status=pending"] {
        let first = team.client.get(&format!("/api/teams/{}/jobs?limit=2&{filter}", team.id)).await.ok();
        let cursor = first["next_cursor"].as_str().expect("a cursor");
        let second = team
            .client
            .get(&format!("/api/teams/{}/jobs?limit=2&{filter}&cursor={cursor}", team.id))
            .await
            .ok();
        assert_eq!((&first["total"], &second["total"]), (&json!(4), &json!(4)), "{filter}");
    }
    let path = format!("/api/credits/teams/{}/transactions?limit=2", team.id);
    for _ in 0..4 {
        add(&app, &team, json!({"amount": 1})).await.ok();
    }
    let first = team.client.get(&path).await.ok();
    let second = team.client.get(&format!("{path}&cursor={}", first["next_cursor"])).await.ok();
    for page in [first, second] {
        assert_eq!((&page["total"], &page["total_transactions"]), (&json!(5), &json!(5)));
    }
}

#[tokio::test]
async fn a_cursor_that_is_none_or_stands_beside_an_offset_is_refused() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    let job = team.job().await;
    let (jobs, ledger) =
        (format!("/api/teams/{}/jobs", team.id), format!("/api/credits/teams/{}/transactions", team.id));
    for (path, query) in [
        (&jobs, "cursor=".to_owned()),
        (&jobs, "cursor=1".into()),
        (&jobs, "cursor=nope".into()),
        (&jobs, format!("cursor={job}&offset=0")),
        (&jobs, format!("cursor={job}&cursor={job}")),
        (&ledger, "cursor=".into()),
        (&ledger, "cursor=0".into()),
        (&ledger, "cursor=-1".into()),
        (&ledger, "cursor=1.5".into()),
        (&ledger, format!("cursor={job}")),
        (&ledger, "cursor=5&offset=1".into()),
    ] {
        let answer = team.client.get(&format!("{path}?{query}")).await;
        let named = answer.body["detail"].as_str().is_some_and(|detail| detail.starts_with("cursor: "));
        assert!(answer.status == 400 && named, "{query}: {}", answer.text);
    }
}
