//! What grows without a bound is answered in parts, and what callers choose does not make reports longer for ever.

use crate::fixtures::sql;
use api_tests::{Options, Team, TestApp};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Gives a job so many more calls, which have ended.
async fn add_calls(app: &TestApp, job: &str, number: i32) {
    let calls = format!(
        "INSERT INTO calls (call_id, job_id, team_id, model_group, streamed, status, ended_at, settled_at, deadline,
                            total_tokens, cost_usd, settlements)
         SELECT uuid_v7(), job_id, team_id, 'Chat', false, 'succeeded', now(), now(), now(), 1, 0.5, 1
         FROM jobs, generate_series(1, {number}) WHERE job_id = '{job}';
         UPDATE jobs SET total_calls = total_calls + {number}, successful_calls = successful_calls + {number},
                         priced_calls = priced_calls + {number}, total_tokens = total_tokens + {number},
                         known_cost_usd = known_cost_usd + 0.5 * {number} WHERE job_id = '{job}'"
    );
    app.database.client.batch_execute(&calls).await.expect("calls");
}

/// All calls of a job, page by page.
async fn pages(team: &Team, job: &str, first: &str) -> Vec<Value> {
    let mut calls = vec![];
    let mut query = first.to_owned();
    loop {
        let page = team.client.get(&format!("/api/jobs/{job}/calls?{query}")).await.ok();
        calls.extend(page["calls"].as_array().expect("calls").iter().cloned());
        let Some(next) = page["next_cursor"].as_str() else { return calls };
        query = format!("limit=70&cursor={next}");
    }
}

/// `GET /api/jobs/{job_id}/calls`
#[tokio::test]
async fn a_job_shows_its_newest_hundred_calls_and_pages_show_all() {
    let app = TestApp::start().await;
    let (team, other) = (app.team(5).await, app.team(5).await);
    let job = team.job().await;
    team.call(&job, "hello").await.ok();
    let read = team.read(&job).await;
    assert_eq!((read["calls"].as_array().map(Vec::len), &read["more_calls"]), (Some(1), &json!(false)));
    let only = team.client.get(&format!("/api/jobs/{job}/calls")).await.ok();
    assert_eq!(only, json!({"job_id": job, "total": 1, "calls": read["calls"], "next_cursor": null}));
    add_calls(&app, &job, 99).await;
    assert_eq!(team.read(&job).await["more_calls"], false);
    add_calls(&app, &job, 150).await;

    let read = team.read(&job).await;
    let shown = read["calls"].as_array().expect("calls");
    assert_eq!((shown.len(), &read["more_calls"], &read["total_calls"]), (100, &json!(true), &json!(250)));
    let all = pages(&team, &job, "limit=70").await;
    let ids: Vec<&str> = all.iter().map(|call| call["call_id"].as_str().expect("an id")).collect();
    assert_eq!((ids.len(), ids.iter().collect::<BTreeSet<_>>().len()), (250, 250));
    assert!(ids.is_sorted_by(|a, b| a > b), "newest first");
    let newest: Vec<&Value> = all[..100].iter().rev().collect();
    assert_eq!(shown.iter().collect::<Vec<_>>(), newest);
    // From the job's page one goes on with its first call.
    let rest = pages(&team, &job, &format!("limit=70&cursor={}", ids[99])).await;
    assert_eq!(rest, all[100..]);
    let costs = team.client.get(&format!("/api/jobs/{job}/costs")).await.ok();
    assert_eq!(
        (costs["breakdown"].as_array().map(Vec::len), &costs["more_calls"]),
        (Some(100), &json!(true))
    );

    let completed = team.complete(&job, "completed").await.ok();
    assert_eq!(
        (completed["calls"].as_array().map(Vec::len), &completed["more_calls"]),
        (Some(100), &json!(true))
    );
    assert_eq!(completed["costs"]["total_calls"], 250);
    assert_eq!(team.complete(&job, "completed").await.ok(), completed);

    let path = format!("/api/jobs/{job}/calls");
    other.client.get(&path).await.refused(404, "not_found", "Job not found");
    assert!(app.admin().get(&path).await.ok()["calls"][0]["attempts"].is_array());
    for query in ["limit=0", "limit=1001", "cursor=x", "offset=1"] {
        assert_eq!(team.client.get(&format!("{path}?{query}")).await.status, 400, "{query}");
    }
}

#[tokio::test]
async fn a_job_with_seventy_thousand_calls_is_read_and_completed() {
    let app = TestApp::start().await;
    let team = app.team(5).await;
    let job = team.job().await;
    add_calls(&app, &job, 70_000).await;
    let read = team.client.get(&format!("/api/jobs/{job}")).await;
    assert!(read.text.len() < 100_000, "{} bytes", read.text.len());
    assert_eq!(read.ok()["total_calls"], 70_000);
    let completed = team.complete(&job, "completed").await;
    assert!(completed.text.len() < 100_000, "{} bytes", completed.text.len());
    assert_eq!(completed.ok()["costs"]["total_cost_usd"], 35_000);
}

#[tokio::test]
async fn types_of_jobs_beyond_the_limit_of_a_day_count_as_other() {
    let variables = vec![("limit_job_types_per_day", "3".to_owned())];
    let app = TestApp::start_with(Options { variables, ..Options::default() }).await;
    let (team, other) = (app.team(50).await, app.team(50).await);
    let job_of = async |team: &Team, job_type: &str| {
        let body = json!({"team_id": team.id, "job_type": job_type});
        team.client.post("/api/jobs/create", body).await.ok()["job_id"].as_str().expect("an id").to_owned()
    };
    for (number, job_type) in ["a", "b", "c", "d", "e", "f", "a", "d"].into_iter().enumerate() {
        let job = job_of(&team, job_type).await;
        if number == 5 {
            sql(
                &app,
                &format!("UPDATE jobs SET expires_at = now() - interval '1 second' WHERE job_id = '{job}'"),
            )
            .await;
        } else {
            team.call(&job, "hello").await.ok();
            team.complete(&job, "completed").await.ok();
        }
    }
    job_of(&other, "z").await;
    team.balance().await;
    let usage = app.admin().get(&format!("/api/teams/{}/usage", team.id)).await.ok();
    let types = usage["job_types"].as_object().expect("types");
    let counts: Vec<(&str, &Value)> = types.iter().map(|(name, of)| (name.as_str(), &of["count"])).collect();
    assert_eq!(counts, [("a", &json!(2)), ("b", &json!(1)), ("c", &json!(1)), ("other", &json!(4))]);
    let summary = &usage["summary"];
    assert_eq!(
        [&summary["total_jobs"], &summary["charged_jobs"], &summary["expired_jobs"], &summary["total_calls"]],
        [&json!(8), &json!(7), &json!(1), &json!(7)]
    );
    assert_eq!(team.balance().await["credits_used"], summary["credits_used"]);
    let of_other = app.admin().get(&format!("/api/teams/{}/usage", other.id)).await.ok();
    assert_eq!(of_other["job_types"]["z"]["count"], 1);
}
