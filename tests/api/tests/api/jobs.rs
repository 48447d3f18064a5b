//! Jobs: created, completed, read.

use crate::fixtures::{assert_time, assert_uuid, stored};
use api_tests::{Options, Team, TestApp};
use futures::future::join_all;
use serde_json::{Value, json};

/// `POST /api/jobs/create`
#[tokio::test]
async fn a_new_job_is_pending_and_holds_a_credit() {
    let app = TestApp::start().await;
    let team = app.team(2).await;
    let body = json!({
        "team_id": team.id, "job_type": "résumé analysis", "user_id": "john@example.com", "metadata": {"file": "a.pdf"},
    });
    let created = team.client.post("/api/jobs/create", body.clone()).await.ok();
    assert_eq!(created["status"], "pending");
    assert_uuid(&created["job_id"]);
    assert_time(&created["created_at"]);

    let job = team.read(created["job_id"].as_str().expect("an id")).await;
    for (field, value) in body.as_object().expect("an object") {
        assert_eq!(&job[field], value, "{field}");
    }
    for (field, value) in [
        ("job_id", created["job_id"].clone()),
        ("created_at", created["created_at"].clone()),
        ("status", json!("pending")),
        ("completed_at", Value::Null),
        ("calls", json!([])),
        ("total_calls", json!(0)),
        ("total_tokens", json!(0)),
        ("credit_applied", json!(false)),
    ] {
        assert_eq!(job[field], value, "{field}");
    }
    let balance = team.balance().await;
    assert_eq!((&balance["credits_remaining"], &balance["credits_available"]), (&json!(2), &json!(1)));
    app.check_invariants().await;
}

#[tokio::test]
async fn without_a_credit_there_is_no_job() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    let body = json!({"team_id": team.id, "job_type": "test"});
    let job = team.job().await;
    let refused = "Insufficient credits. Required: 1, Available: 0";
    team.client.post("/api/jobs/create", body.clone()).await.refused(402, "insufficient_credits", refused);
    team.complete(&job, "completed").await.ok();
    team.client.post("/api/jobs/create", body).await.refused(402, "insufficient_credits", refused);
    app.check_invariants().await;
}

/// `POST /api/jobs/{job_id}/complete`
#[tokio::test]
async fn completing_a_job_without_calls_deducts_its_credit() {
    let app = TestApp::start().await;
    let team = app.team(3).await;
    let job = team.job().await;
    let done = team.complete(&job, "completed").await.ok();
    assert_eq!(
        (&done["job_id"], &done["status"], &done["calls"]),
        (&json!(job), &json!("completed"), &json!([]))
    );
    assert_time(&done["completed_at"]);
    let expected = json!({
        "total_calls": 0, "successful_calls": 0, "failed_calls": 0, "refused_calls": 0, "total_tokens": 0,
        "total_cost_usd": 0, "avg_latency_ms": 0, "unpriced_calls": 0, "credit_applied": true, "credits_charged": 1,
        "credits_refunded": 0, "charge_is_final": true, "credits_remaining": 2,
    });
    assert_eq!(done["costs"], expected);
    let read = team.read(&job).await;
    assert_eq!(
        (&read["status"], &read["completed_at"], &read["credit_applied"]),
        (&json!("completed"), &done["completed_at"], &json!(true))
    );
    app.check_invariants().await;
}

#[tokio::test]
async fn a_job_that_failed_or_was_cancelled_keeps_the_credit() {
    let app = TestApp::start().await;
    let team = app.team(3).await;
    for status in ["failed", "cancelled"] {
        let job = team.job().await;
        team.call(&job, "hello").await.ok();
        let body = json!({"status": status, "error_message": "the résumé is empty"});
        let done = team.client.post(&format!("/api/jobs/{job}/complete"), body).await.ok();
        assert_eq!((&done["status"], &done["costs"]["credit_applied"]), (&json!(status), &json!(false)));
        assert_eq!(done["costs"]["credits_remaining"], 3);
        assert_eq!(team.read(&job).await["error_message"], "the résumé is empty");
    }
    let balance = team.balance().await;
    assert_eq!((&balance["credits_remaining"], &balance["credits_reserved"]), (&json!(3), &json!(0)));
    app.check_invariants().await;
}

#[tokio::test]
async fn an_error_message_may_be_what_a_program_caught() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    let lines =
        "Traceback (most recent call last):\n  File \"a.py\", line 1\n\tValueError: 'x'\r\n".repeat(100);
    // Many exceptions say nothing: `str(TimeoutError())` is the empty text.
    for (message, expected) in [(lines.as_str(), json!(lines)), ("", Value::Null)] {
        let job = team.job().await;
        let body = json!({"status": "failed", "error_message": message});
        team.client.post(&format!("/api/jobs/{job}/complete"), body).await.ok();
        let shown = &team.read(&job).await["error_message"];
        assert!(*shown == expected || message.is_empty() && *shown == "", "{shown}");
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn a_call_that_failed_keeps_the_credit_of_a_completed_job() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    let job = team.job().await;
    let tokens = team.call(&job, "hello").await.ok()["metadata"]["tokens_used"].clone();
    assert_eq!(team.call(&job, "[[status=500]]").await.status, 502);
    let done = team.complete(&job, "completed").await.ok();
    let costs = &done["costs"];
    assert_eq!(
        (&costs["total_calls"], &costs["successful_calls"], &costs["failed_calls"]),
        (&json!(2), &json!(1), &json!(1))
    );
    assert_eq!((&costs["credit_applied"], &costs["credits_remaining"]), (&json!(false), &json!(1)));
    assert!(tokens.as_i64() > Some(0) && costs["total_tokens"] == tokens, "{done}");
    let failed = &done["calls"][1];
    assert!(failed["error"].is_string() && done["calls"][0]["error"].is_null(), "{done}");
    app.check_invariants().await;
}

#[tokio::test]
async fn the_same_completion_again_has_the_same_answer_and_another_status_is_refused() {
    let app = TestApp::start().await;
    let team = app.team(9).await;
    for status in ["completed", "failed", "cancelled"] {
        let job = team.job().await;
        team.call(&job, "hello").await.ok();
        let first = team.complete(&job, status).await.ok();
        team.job().await; // the balance moves on, the answer does not
        let before = stored(&app).await;
        assert_eq!(team.complete(&job, status).await.ok(), first);
        for other in ["completed", "failed", "cancelled"] {
            if other != status {
                let detail = format!("Job '{job}' is already {status}");
                team.complete(&job, other).await.refused(409, "job_finished", &detail);
            }
        }
        assert_eq!(stored(&app).await, before);
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn a_finished_job_takes_no_calls() {
    let app = TestApp::start().await;
    let team = app.team(3).await;
    let job = team.job().await;
    team.complete(&job, "cancelled").await.ok();
    let detail = format!("Job '{job}' is already cancelled");
    let body = json!({"messages": [{"role": "user", "content": "hello"}]});
    for route in ["llm-call", "llm-call-stream"] {
        let answer = team.client.post(&format!("/api/jobs/{job}/{route}"), body.clone()).await;
        answer.refused(409, "job_finished", &detail);
    }
    assert_eq!(team.read(&job).await["calls"], json!([]));
    app.check_invariants().await;
}

#[tokio::test]
async fn different_ends_at_once_leave_one_end() {
    let app = TestApp::start().await;
    let team = app.team(4).await;
    for _ in 0..4 {
        let job = team.job().await;
        let ends = ["completed", "failed", "cancelled", "completed", "failed", "cancelled"];
        let answers = join_all(ends.map(|status| team.complete(&job, status))).await;
        let won = team.read(&job).await["status"].clone();
        for (status, answer) in ends.iter().zip(answers) {
            let expected = if won == *status { 200 } else { 409 };
            assert_eq!(answer.status, expected, "{won} {status}: {}", answer.text);
        }
    }
    app.check_invariants().await;
}

/// `GET /api/jobs/{job_id}`
#[tokio::test]
async fn the_admin_reads_a_job_with_its_attempts_and_the_team_without() {
    let app = TestApp::start().await;
    let team = app.team_using(&["err503", "gpt-4o-mini"], 3).await;
    let job = team.job().await;
    team.call(&job, "hello").await.ok();
    let (shown, all) = (
        team.client.get(&format!("/api/jobs/{job}")).await,
        app.admin().get(&format!("/api/jobs/{job}")).await,
    );
    for model in ["err503", "gpt-4o", "attempts"] {
        assert!(!shown.text.contains(model), "{}", shown.text);
    }
    let (mut shown, mut all) = (shown.ok(), all.ok());
    let tried: Vec<&Value> =
        all["calls"][0]["attempts"].as_array().expect("attempts").iter().map(|a| &a["model"]).collect();
    assert_eq!(tried, ["err503", "gpt-4o-mini"]);
    all["calls"][0].as_object_mut().expect("a call").remove("attempts");
    shown["calls"][0].as_object_mut().expect("a call").remove("attempts");
    assert_eq!(shown, all);
    app.check_invariants().await;
}

async fn job_of(team: &Team, job_type: &str, user_id: Option<&str>) -> String {
    let body = json!({"team_id": team.id, "job_type": job_type, "user_id": user_id});
    let job = team.client.post("/api/jobs/create", body).await.ok();
    job["job_id"].as_str().expect("an id").to_owned()
}

/// `GET /api/teams/{team_id}/jobs`
#[tokio::test]
async fn the_list_is_newest_first_and_can_be_filtered_and_paged() {
    let app = TestApp::start().await;
    let (team, other) = (app.team(9).await, app.team(9).await);
    other.job().await;
    let jobs = [
        job_of(&team, "a", Some("ann")).await,
        job_of(&team, "b", Some("bob & co")).await,
        job_of(&team, "a", None).await,
        job_of(&team, "b", Some("ann")).await,
        job_of(&team, "a", Some("ann")).await,
    ];
    team.complete(&jobs[0], "completed").await.ok();
    team.complete(&jobs[1], "failed").await.ok();
    team.complete(&jobs[2], "cancelled").await.ok();
    team.call(&jobs[3], "hello").await.ok();
    for (query, expected, total) in [
        ("", vec![4, 3, 2, 1, 0], 5),
        ("?limit=2", vec![4, 3], 5),
        ("?limit=2&offset=1", vec![3, 2], 5),
        ("?offset=4", vec![0], 5),
        ("?offset=5", vec![], 5),
        ("?status=completed", vec![0], 1),
        ("?status=COMPLETED", vec![0], 1),
        ("?status=In_Progress", vec![3], 1),
        ("?status=pending", vec![4], 1),
        ("?status=expired", vec![], 0),
        ("?job_type=a", vec![4, 2, 0], 3),
        ("?job_type=a&limit=1&offset=1", vec![2], 3),
        ("?job_type=A", vec![], 0),
        ("?user_id=ann", vec![4, 3, 0], 3),
        ("?user_id=bob+%26%20co", vec![1], 1),
        ("?user_id=ann&job_type=a&status=pending", vec![4], 1),
    ] {
        for client in [&team.client, &app.admin()] {
            let list = client.get(&format!("/api/teams/{}/jobs{query}", team.id)).await.ok();
            let ids: Vec<&Value> =
                list["jobs"].as_array().expect("a list").iter().map(|job| &job["job_id"]).collect();
            assert_eq!(ids, expected.iter().map(|at| jobs[*at].as_str()).collect::<Vec<_>>(), "{query}");
            assert_eq!((&list["total"], &list["team_id"]), (&json!(total), &json!(team.id)), "{query}");
        }
    }
    let list = team.client.get(&format!("/api/teams/{}/jobs?status=completed", team.id)).await.ok();
    let mut job = team.read(&jobs[0]).await;
    job.as_object_mut()
        .expect("a job")
        .retain(|member, _| !["calls", "more_calls"].contains(&member.as_str()));
    assert_eq!(list["jobs"][0], job, "a job in the list is the job without its calls");
    app.admin().get("/api/teams/None/jobs").await.refused(404, "not_found", "Team 'None' not found");
    app.check_invariants().await;
}

#[tokio::test]
async fn a_list_has_50_jobs_unless_asked_for_more() {
    let app = TestApp::start().await;
    let team = app.team(60).await;
    join_all((0..55).map(|_| team.job())).await;
    for (query, length) in [("", 50), ("?limit=1000", 55), ("?limit=55", 55), ("?offset=50", 5)] {
        let list = team.client.get(&format!("/api/teams/{}/jobs{query}", team.id)).await.ok();
        assert_eq!(
            (list["jobs"].as_array().map(Vec::len), &list["total"]),
            (Some(length), &json!(55)),
            "{query}"
        );
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn a_job_lives_as_long_as_its_creator_or_the_configuration_says() {
    let variables = vec![("job_lifetime_seconds", "100".to_owned())];
    let app = TestApp::start_with(Options { variables, ..Options::default() }).await;
    let team = app.team(3).await;
    for (asked, expected) in [(json!(null), 100), (json!(7), 7), (json!(2_592_000.0), 2_592_000)] {
        let body = json!({"team_id": team.id, "job_type": "test", "expires_in_seconds": asked});
        team.client.post("/api/jobs/create", body).await.ok();
        let lifetime =
            "SELECT extract(epoch FROM expires_at - created_at)::int FROM jobs ORDER BY job_id DESC LIMIT 1";
        let lifetime: i32 = app.database.client.query_one(lifetime, &[]).await.expect("a job").get(0);
        assert_eq!(lifetime, expected);
    }
}

/// `GET /api/jobs/{job_id}/costs`
#[tokio::test]
async fn the_costs_of_a_job_are_shown_together_and_call_by_call() {
    let app = TestApp::start().await;
    let (team, other) = (app.team_using(&["expensive"], 100).await, app.team(1).await);
    let job = team.job().await;
    let costs = async || team.client.get(&format!("/api/jobs/{job}/costs")).await.ok();
    let before = costs().await;
    assert_eq!((&before["breakdown"], &before["costs"]["total_cost_usd"]), (&json!([]), &json!(0)));
    for (purpose, marks) in
        [(json!("draft"), "[[prompt_tokens=100]] [[completion_tokens=20]]"), (Value::Null, "[[status=500]]")]
    {
        let body = json!({"purpose": purpose, "messages": [{"role": "user", "content": marks}]});
        team.client.post(&format!("/api/jobs/{job}/llm-call"), body).await;
    }
    team.complete(&job, "completed").await.ok();

    let shown = costs().await;

    let read = team.read(&job).await;
    for name in ["job_id", "team_id", "job_type", "status", "credit_applied"] {
        assert_eq!(shown[name], read[name], "{name}");
    }
    assert_eq!(shown["credit_applied"], false);
    for (name, value) in shown["costs"].as_object().expect("sums") {
        assert_eq!(*value, read[name], "{name}");
    }
    assert_eq!(shown["costs"]["total_cost_usd"].as_f64(), Some(0.12));
    let breakdown = shown["breakdown"].as_array().expect("calls");
    assert_eq!(breakdown.len(), 2);
    for (part, call) in breakdown.iter().zip(read["calls"].as_array().expect("calls")) {
        for (name, value) in part.as_object().expect("a call") {
            assert_eq!(*value, call[name], "{name}");
        }
        assert!(part.get("cost_usd").is_some() && part.get("purpose").is_some(), "{part}");
    }
    assert_eq!(
        (&breakdown[0]["prompt_tokens"], &breakdown[0]["completion_tokens"]),
        (&json!(100), &json!(20))
    );
    assert_eq!(app.admin().get(&format!("/api/jobs/{job}/costs")).await.ok(), shown);
    for id in [job.as_str(), "nope"] {
        other.client.get(&format!("/api/jobs/{id}/costs")).await.refused(404, "not_found", "Job not found");
    }
    app.check_invariants().await;
}
