//! Erasing an end user of a team.

use api_tests::{Options, TestApp};
use serde_json::{Value, json};

const USER: &str = "jane.doe@example.com";

/// What is said of the user.
const SECRET: &str = "canary of the user";

fn job_of(team: &str, user: &str) -> Value {
    json!({"team_id": team, "user_id": user, "job_type": "test", "metadata": {"name": SECRET}})
}

/// `POST /api/teams/{team_id}/erase-user`
#[tokio::test]
async fn an_erased_user_leaves_no_trace_and_all_sums_stay() {
    let variables = vec![("store_messages_days", "7".to_owned())];
    let app = TestApp::start_with(Options { variables, ..Options::default() }).await;
    let (team, other) = (app.team(600).await, app.team(5).await);
    let mut jobs = vec![];
    for end in ["completed", "failed", "open"] {
        let job = team.client.post("/api/jobs/create", job_of(&team.id, USER)).await.ok();
        let job = job["job_id"].as_str().expect("an id").to_owned();
        for prompt in [SECRET.to_owned(), format!("[[status=400]] {SECRET}")] {
            let body = json!({
                "messages": [{"role": "user", "content": prompt}], "purpose": SECRET, "call_metadata": {"x": SECRET},
            });
            team.client.post(&format!("/api/jobs/{job}/llm-call"), body).await;
        }
        if end != "open" {
            let request = team.client.request(reqwest::Method::POST, &format!("/api/jobs/{job}/complete"));
            let body = json!({"status": end, "error_message": SECRET, "metadata": {"y": SECRET}});
            api_tests::Answer::of(request.header("idempotency-key", &job).body(body.to_string())).await.ok();
        }
        jobs.push(job);
    }
    // More than one statement erases.
    let many = format!(
        "INSERT INTO jobs (job_id, team_id, terms_id, user_id, job_type, metadata, status, completed_at, expires_at)
         SELECT uuid_v7(), team_id, terms_id, '{USER}', 'test', '{{}}', 'cancelled', now(), now()
         FROM teams, generate_series(1, 450) WHERE team_id = '{}'",
        team.id
    );
    app.database.client.batch_execute(&many).await.expect("many jobs");
    let same_name =
        other.client.post("/api/jobs/create", job_of(&other.id, USER)).await.ok()["job_id"].clone();
    let kept =
        team.client.post("/api/jobs/create", job_of(&team.id, "somebody else")).await.ok()["job_id"].clone();
    let usage = format!("/api/teams/{}/usage", team.id);
    let jobs_before: Vec<Value> = futures::future::join_all(jobs.iter().map(|job| team.read(job))).await;

    let path = format!("/api/teams/{}/erase-user", team.id);
    let by_admin = app.admin().post("/api/jobs/create", job_of(&team.id, USER)).await.ok()["job_id"].clone();
    let by_admin = format!("/api/jobs/{}/complete", by_admin.as_str().expect("an id"));
    app.admin().post(&by_admin, json!({"status": "failed", "error_message": SECRET})).await.ok();
    let (before, balance) = (app.admin().get(&usage).await.ok(), team.balance().await);
    let erase = async || {
        let request = app.admin().request(reqwest::Method::POST, &path).header("idempotency-key", "once");
        api_tests::Answer::of(request.body(json!({"user_id": USER}).to_string())).await.ok()
    };
    let erased = erase().await;
    assert_eq!(erased["jobs"], 454);
    assert_eq!(erase().await, erased, "a repeat");
    assert!(erased["messages"].as_i64() > Some(2), "{erased}");
    assert_eq!(
        app.admin().post(&path, json!({"user_id": USER})).await.ok(),
        json!({"jobs": 0, "messages": 0})
    );

    app.admin().delete(&format!("/api/teams/{}", other.id)).await.ok();
    let everything = app.database.everything().await;
    for line in everything.lines().filter(|line| line.contains(USER) || line.contains(SECRET)) {
        assert!(line.contains(&other.id) || line.contains("somebody else"), "{line}");
    }
    assert!(!app.logs().contains(USER));
    assert_eq!(app.admin().get(&usage).await.ok(), before);
    assert_eq!(team.balance().await, balance);
    let mut names = vec![];
    for (job, before) in jobs.iter().zip(jobs_before) {
        let read = team.read(job).await;
        names.push(read["user_id"].as_str().expect("a name").to_owned());
        for member in ["status", "total_calls", "total_tokens", "total_cost_usd", "credits_charged"] {
            assert_eq!(read[member], before[member], "{member}");
        }
        assert_eq!((&read["metadata"], &read["error_message"]), (&json!({}), &Value::Null));
        for call in read["calls"].as_array().expect("calls") {
            assert_eq!(
                (&call["purpose"], &call["error"], &call["metadata"]),
                (&Value::Null, &Value::Null, &json!({}))
            );
        }
    }
    assert!(names.iter().all(|name| *name == names[0] && name.starts_with("erased-")), "{names:?}");
    assert_eq!(team.read(kept.as_str().expect("an id")).await["metadata"]["name"], SECRET);
    assert_eq!(team.complete(&jobs[0], "completed").await.ok()["costs"]["total_calls"], 2);
    let audit = app.admin().get("/api/audit-log").await;
    assert!(audit.text.contains("erase-user") && !audit.text.contains(USER));
    // In a deleted team, too.
    let of_deleted = format!("/api/teams/{}/erase-user", other.id);
    assert_eq!(app.admin().post(&of_deleted, json!({"user_id": USER})).await.ok()["jobs"], 1);
    assert!(!app.database.everything().await.contains(USER));
    let read = app.admin().get(&format!("/api/jobs/{}", same_name.as_str().expect("an id"))).await.ok();
    assert_eq!(read["metadata"], json!({}));
}

#[tokio::test]
async fn erasing_a_user_needs_an_admin_a_user_and_a_team() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    let path = format!("/api/teams/{}/erase-user", team.id);
    for body in
        [json!({}), json!({"user_id": ""}), json!({"user_id": 7}), json!({"user_id": "x", "team_id": "y"})]
    {
        assert_eq!(app.admin().post(&path, body.clone()).await.status, 400, "{body}");
    }
    assert_eq!(team.client.post(&path, json!({"user_id": "x"})).await.status, 401);
    let nobody = app.admin().post("/api/teams/None/erase-user", json!({"user_id": "x"})).await;
    nobody.refused(404, "not_found", "Team 'None' not found");
}
