//! Alerts: raised when credits run low and when a team is suspended, and listed.

use crate::{
    credits::add,
    fixtures::{assert_time, assert_uuid},
};
use api_tests::{Answer, Team, TestApp};
use serde_json::{Value, json};

/// Uses so many credits.
pub async fn use_up(team: &Team, credits: usize) {
    for _ in 0..credits {
        let job = team.job().await;
        team.complete(&job, "completed").await.ok();
    }
}

pub async fn listed(app: &TestApp, team: &Team) -> Vec<Value> {
    let list = app.admin().get(&format!("/api/teams/{}/alerts", team.id)).await.ok();
    list["alerts"].as_array().expect("a list").clone()
}

pub async fn kinds(app: &TestApp, team: &Team) -> Vec<String> {
    listed(app, team).await.iter().map(|alert| alert["kind"].as_str().expect("a kind").to_owned()).collect()
}

pub async fn suspend(app: &TestApp, team: &Team) -> Answer {
    app.admin().put(&format!("/api/teams/{}/suspend", team.id), json!({})).await
}

/// `GET /api/teams/{team_id}/alerts`
#[tokio::test]
async fn alerts_are_raised_once_at_80_and_at_100_percent_whatever_the_mode() {
    let app = TestApp::start().await;
    for mode in ["hard", "soft"] {
        let team = app.team_with(json!({"credits_allocated": 10, "budget_mode": mode})).await;
        use_up(&team, 7).await;
        assert_eq!(kinds(&app, &team).await, Vec::<String>::new(), "{mode}");
        use_up(&team, 1).await;
        assert_eq!(kinds(&app, &team).await, ["credits_80_percent"], "{mode}");
        use_up(&team, 1).await;
        assert_eq!(kinds(&app, &team).await, ["credits_80_percent"], "{mode}");
        use_up(&team, 1).await;
        assert_eq!(kinds(&app, &team).await, ["credits_100_percent", "credits_80_percent"], "{mode}");
        if mode == "soft" {
            use_up(&team, 5).await;
            assert_eq!(kinds(&app, &team).await.len(), 2, "below zero nothing new is raised");
        }
        let alerts = listed(&app, &team).await;
        assert_eq!(
            alerts[0]["details"],
            json!({"percent": 100, "credits_allocated": 10, "credits_used": 10})
        );
        assert_eq!(alerts[1]["message"], format!("Team '{}' has used 8 of its 10 credits", team.id));
        for alert in &alerts {
            assert_uuid(&alert["alert_id"]);
            assert_time(&alert["created_at"]);
            assert_eq!(
                [&alert["webhook_url"], &alert["delivery_attempts"], &alert["delivered_at"]],
                [&Value::Null, &json!(0), &Value::Null]
            );
        }
        assert_eq!(
            team.client.get(&format!("/api/teams/{}/alerts", team.id)).await.ok()["alerts"],
            json!(alerts)
        );
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn credits_that_are_added_let_the_same_limit_be_crossed_again() {
    let app = TestApp::start().await;
    let team = app.team(5).await;
    use_up(&team, 4).await;
    add(&app, &team, json!({"amount": 5})).await.ok();
    use_up(&team, 3).await;
    assert_eq!(kinds(&app, &team).await, ["credits_80_percent"]);
    use_up(&team, 1).await;
    assert_eq!(kinds(&app, &team).await, ["credits_80_percent"; 2]);
    app.check_invariants().await;
}

#[tokio::test]
async fn a_jump_or_a_correction_over_a_limit_raises_all_that_it_crosses() {
    let app = TestApp::start().await;
    let team = app
        .team_with(
            json!({"credits_allocated": 10, "billing_mode": "consumption_tokens", "tokens_per_credit": 10}),
        )
        .await;
    let job = team.job().await;
    team.call(&job, "[[prompt_tokens=120]] [[completion_tokens=0]]").await.ok();
    team.complete(&job, "completed").await.ok();
    assert_eq!(kinds(&app, &team).await, ["credits_100_percent", "credits_80_percent"]);

    let corrected = app.team(10).await;
    use_up(&corrected, 6).await;
    let body = json!({"credits_amount": -3, "reason": "too many"});
    app.admin().post(&format!("/api/credits/teams/{}/adjust", corrected.id), body).await.ok();
    assert_eq!(kinds(&app, &corrected).await, ["credits_80_percent"]);
    app.check_invariants().await;
}

#[tokio::test]
async fn jobs_that_end_at_once_raise_each_alert_once() {
    let app = TestApp::start().await;
    let team = app.team(20).await;
    let jobs = futures::future::join_all((0..20).map(|_| team.job())).await;
    futures::future::join_all(jobs.iter().map(|job| team.complete(job, "completed"))).await;
    assert_eq!(kinds(&app, &team).await, ["credits_100_percent", "credits_80_percent"]);
    app.check_invariants().await;
}

#[tokio::test]
async fn a_suspended_team_is_an_alert_and_suspending_it_again_is_none() {
    let app = TestApp::start().await;
    let team = app.team(5).await;
    suspend(&app, &team).await.ok();
    suspend(&app, &team).await.ok();
    let alerts = listed(&app, &team).await;
    assert_eq!(alerts.len(), 1);
    assert_eq!(
        (&alerts[0]["kind"], &alerts[0]["message"]),
        (&json!("team_suspended"), &json!(format!("Team '{}' is suspended", team.id)))
    );
    app.admin().put(&format!("/api/teams/{}/resume", team.id), json!({})).await.ok();
    suspend(&app, &team).await.ok();
    assert_eq!(kinds(&app, &team).await, ["team_suspended"; 2]);
    app.check_invariants().await;
}

#[tokio::test]
async fn the_list_of_alerts_has_pages_and_is_the_teams_own() {
    let app = TestApp::start().await;
    let (team, other) = (app.team(5).await, app.team(5).await);
    for _ in 0..3 {
        suspend(&app, &team).await.ok();
        app.admin().put(&format!("/api/teams/{}/resume", team.id), json!({})).await.ok();
    }
    let all = listed(&app, &team).await;
    let path = format!("/api/teams/{}/alerts", team.id);
    for (query, from, until) in [("?limit=2", 0, 2), ("?limit=2&offset=2", 2, 3), ("?offset=3", 3, 3)] {
        let page = team.client.get(&format!("{path}{query}")).await.ok();
        assert_eq!((&page["total"], &page["team_id"]), (&json!(3), &json!(team.id)));
        assert_eq!(page["alerts"], json!(all[from..until]), "{query}");
    }
    assert_eq!(listed(&app, &other).await, Vec::<Value>::new());
    let refused = format!("API key does not belong to team '{}'", team.id);
    other.client.get(&path).await.refused(403, "wrong_team", &refused);
    app.admin().get("/api/teams/None/alerts").await.refused(404, "not_found", "Team 'None' not found");
}
