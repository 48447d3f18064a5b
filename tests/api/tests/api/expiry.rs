//! A job whose deadline passes expires, and its credit is given back the next time that its team is touched.

use crate::fixtures::sql;
use api_tests::{Answer, Team, TestApp, eventually};
use serde_json::{Value, json};

/// A team with one credit, which is held by a job that is overdue, and that nobody has noticed yet.
async fn overdue() -> (TestApp, Team, String) {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    let job = team.job().await;
    pass_deadline(&app).await;
    (app, team, job)
}

async fn pass_deadline(app: &TestApp) {
    sql(app, "UPDATE jobs SET expires_at = now() - interval '1 second'").await;
}

#[tokio::test]
async fn a_jobs_own_deadline_ends_it() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    let body = json!({"team_id": team.id, "job_type": "test", "expires_in_seconds": 1});
    let job =
        team.client.post("/api/jobs/create", body).await.ok()["job_id"].as_str().expect("an id").to_owned();
    assert_eq!(team.balance().await["credits_available"], 0);
    eventually("its end", async || (team.balance().await["credits_available"] != 0).then_some(())).await;
    let read = team.read(&job).await;
    assert_eq!((&read["status"], &read["credit_applied"]), (&json!("expired"), &json!(false)));
    assert_eq!(read["completed_at"], read["expires_at"]);
    app.check_invariants().await;
}

#[tokio::test]
async fn whatever_shows_or_uses_the_credit_notices_that_it_is_free_again() {
    let (app, team, job) = overdue().await;
    let credits = |path: &str| format!("/api/credits/teams/{}/{path}", team.id);
    let show = format!("/api/teams/{}", team.id);
    let mut flaws = vec![];
    let mut expect = |what: &str, answer: Answer, found: &Value, expected: Value| {
        if answer.status != 200 || *found != expected {
            flaws.push(format!("{what}: expected {expected}, got {} {:.300}", answer.status, answer.text));
        }
    };
    for touch in 0..7 {
        sql(&app, "UPDATE jobs SET status = 'pending', completed_at = NULL").await;
        sql(&app, "UPDATE credit_accounts SET held = 1").await;
        sql(&app, "UPDATE usage_days SET opened_jobs = 1, expired = 0").await;
        sql(&app, "UPDATE job_totals SET expired = 0").await;
        sql(&app, "UPDATE job_totals SET expired = 0").await;
        match touch {
            0 => {
                let answer = team.client.get(&credits("balance")).await;
                expect("balance", answer.clone(), &answer.body["credits_available"], json!(1));
            }
            1 => {
                let answer = team.client.post(&credits("check"), json!({})).await;
                expect("check", answer.clone(), &answer.body["has_credits"], json!(true));
            }
            2 => {
                let answer = team.client.get(&show).await;
                expect("the team", answer.clone(), &answer.body["credits"]["credits_available"], json!(1));
            }
            3 => {
                let answer = team.client.get(&format!("{show}/jobs")).await;
                expect(
                    "the list of jobs",
                    answer.clone(),
                    &answer.body["jobs"][0]["status"],
                    json!("expired"),
                );
            }
            4 => {
                let answer = team.client.get(&format!("{show}/jobs?status=expired")).await;
                expect("the filtered list of jobs", answer.clone(), &answer.body["total"], json!(1));
            }
            5 => {
                let answer = app.admin().get(&format!("/api/jobs/{job}")).await;
                expect("the job", answer.clone(), &answer.body["status"], json!("expired"));
            }
            _ => {
                let answer = app.admin().get("/api/teams").await;
                let found = &answer.body["teams"][0]["credits"]["credits_available"];
                expect("the list of teams", answer.clone(), found, json!(1));
            }
        }
    }
    assert!(flaws.is_empty(), "{}", flaws.join("\n"));
    app.check_invariants().await;
}

#[tokio::test]
async fn the_credit_of_an_overdue_job_opens_the_next_one() {
    let (app, team, job) = overdue().await;
    let next = team.job().await;
    assert_eq!(team.read(&job).await["status"], "expired");
    team.complete(&next, "completed").await.ok();
    assert_eq!(team.balance().await["credits_remaining"], 0);
    app.check_invariants().await;
}

#[tokio::test]
async fn an_overdue_job_is_finished_whether_or_not_somebody_noticed() {
    for noticed in [false, true] {
        let (app, team, job) = overdue().await;
        if noticed {
            team.balance().await;
        }
        let detail = format!("Job '{job}' is already expired");
        for status in ["completed", "failed", "cancelled"] {
            team.complete(&job, status).await.refused(409, "job_finished", &detail);
        }
        team.call(&job, "hello").await.refused(409, "job_finished", &detail);
        let body = json!({"messages": [{"role": "user", "content": "hello"}]});
        let stream = team.client.post(&format!("/api/jobs/{job}/llm-call-stream"), body).await;
        stream.refused(409, "job_finished", &detail);
        let balance = team.balance().await;
        assert_eq!((&balance["credits_remaining"], &balance["credits_reserved"]), (&json!(1), &json!(0)));
        app.check_invariants().await;
    }
}

#[tokio::test]
async fn a_finished_job_does_not_expire() {
    let app = TestApp::start().await;
    let team = app.team(2).await;
    let job = team.job().await;
    let done = team.complete(&job, "completed").await.ok();
    pass_deadline(&app).await;
    assert_eq!(team.balance().await["credits_remaining"], 1);
    assert_eq!(team.read(&job).await["status"], "completed");
    assert_eq!(team.complete(&job, "completed").await.ok(), done);
    app.check_invariants().await;
}

#[tokio::test]
async fn jobs_that_expire_while_all_touch_the_team_give_back_each_credit_once() {
    let app = TestApp::start().await;
    let team = app.team(20).await;
    let jobs = futures::future::join_all((0..20).map(|_| team.job())).await;
    pass_deadline(&app).await;
    let (ends, balances) = futures::join!(
        futures::future::join_all(jobs.iter().map(|job| team.complete(job, "completed"))),
        futures::future::join_all((0..20).map(|_| team.balance())),
    );
    for (job, end) in jobs.iter().zip(ends) {
        end.refused(409, "job_finished", &format!("Job '{job}' is already expired"));
    }
    assert!(balances.iter().all(|balance| balance["credits_remaining"] == 20));
    assert_eq!(team.balance().await["credits_available"], 20);
    app.check_invariants().await;
}

/// `POST /api/upkeep`
#[tokio::test]
async fn upkeep_ends_what_is_overdue_in_all_teams_at_once() {
    let app = TestApp::start().await;
    let teams = [app.team(2).await, app.team(2).await, app.team(2).await];
    for team in &teams {
        team.job().await;
        let job = team.job().await;
        team.call(&job, "hello").await.ok();
    }
    let list = teams[2].client.get(&format!("/api/teams/{}/jobs?limit=1", teams[2].id)).await.ok();
    teams[2].complete(list["jobs"][0]["job_id"].as_str().expect("an id"), "completed").await.ok();
    pass_deadline(&app).await;
    assert_eq!(teams[0].client.post("/api/upkeep", json!({})).await.status, 401, "it is the admin's");

    let admin = app.admin();
    let upkeep = || admin.post("/api/upkeep", json!({}));
    let twice = futures::join!(upkeep(), upkeep());

    // Who both find the same job overdue may both count it.
    let expired =
        [twice.0.ok(), twice.1.ok()].map(|answer| answer["expired_jobs"].as_i64().expect("a number"));
    assert!(expired.contains(&5), "{expired:?}");
    let states = "SELECT status, count(*) FROM jobs GROUP BY status ORDER BY status";
    let states = app.database.client.query(states, &[]).await.expect("the states");
    let states: Vec<(String, i64)> = states.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(states, [("completed".to_owned(), 1), ("expired".to_owned(), 5)]);
    let held = "SELECT sum(held)::bigint FROM credit_accounts";
    assert_eq!(app.database.client.query_one(held, &[]).await.expect("a sum").get::<_, i64>(0), 0);
    let nothing = upkeep().await.ok();
    assert_eq!(
        (&nothing["expired"], &nothing["expired_jobs"], &nothing["more"]),
        (&json!(0), &json!(0), &json!(false))
    );
    for (name, step) in nothing["steps"].as_object().expect("the steps") {
        assert_eq!(step, &json!({"done": 0, "more": false, "error": null}), "{name}");
    }
    let unknown = app.admin().post("/api/upkeep", json!({"team_id": teams[0].id})).await;
    assert_eq!((unknown.status.as_u16(), &unknown.body["code"]), (400, &json!("invalid_request")));
    app.check_invariants().await;
}

/// `POST /api/jobs/expire`
#[tokio::test]
async fn upkeep_has_an_earlier_name_and_is_repeated_by_its_idempotency_key() {
    for path in ["/api/jobs/expire", "/api/upkeep"] {
        let (app, team, _) = overdue().await;
        let once = async || {
            let request = app.admin().request(reqwest::Method::POST, path).header("idempotency-key", "once");
            Answer::of(request.body("{}")).await
        };
        let first = once().await;
        assert_eq!(first.clone().ok()["expired_jobs"], 1);
        team.job().await;
        pass_deadline(&app).await;
        let again = once().await;
        assert_eq!((again.header("idempotent-replayed"), &again.body), (Some("true"), &first.body));
        assert_eq!(team.balance().await["credits_reserved"], 0);
    }
}
