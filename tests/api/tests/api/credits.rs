//! Balances, top-ups and checks.

use crate::fixtures::stored;
use api_tests::{Answer, Team, TestApp};
use futures::future::join_all;
use serde_json::{Value, json};

/// Tops a team up.
pub async fn add(app: &TestApp, team: &Team, body: Value) -> Answer {
    app.admin().post(&format!("/api/credits/teams/{}/add", team.id), body).await
}

/// Allocated, used, remaining, reserved, available.
fn figures(balance: &Value) -> [i64; 5] {
    ["allocated", "used", "remaining", "reserved", "available"].map(|name| {
        balance[format!("credits_{name}")].as_i64().unwrap_or_else(|| panic!("credits_{name}: {balance}"))
    })
}

/// `GET /api/credits/teams/{team_id}/balance`
#[tokio::test]
async fn remaining_is_what_was_not_used_and_available_what_is_not_held_either() {
    let app = TestApp::start().await;
    let team = app.team(10).await;
    let mut figures_after = vec![figures(&team.balance().await)];
    let (first, second, third) = (team.job().await, team.job().await, team.job().await);
    figures_after.push(figures(&team.balance().await));
    team.complete(&first, "completed").await.ok();
    figures_after.push(figures(&team.balance().await));
    team.complete(&second, "failed").await.ok();
    add(&app, &team, json!({"amount": 5})).await.ok();
    figures_after.push(figures(&team.balance().await));
    team.complete(&third, "completed").await.ok();
    figures_after.push(figures(&team.balance().await));
    assert_eq!(
        figures_after,
        [[10, 0, 10, 0, 10], [10, 0, 10, 3, 7], [10, 1, 9, 2, 7], [15, 1, 14, 1, 13], [15, 2, 13, 0, 13]]
    );
    let balance = team.balance().await;
    assert_eq!((&balance["team_id"], &balance["credit_limit"]), (&json!(team.id), &Value::Null));
    assert!(balance.get("auto_refill").is_some());
    let admins = app.admin().get(&format!("/api/credits/teams/{}/balance", team.id)).await.ok();
    assert_eq!(admins, balance);
    let shown = team.client.get(&format!("/api/teams/{}", team.id)).await.ok();
    assert_eq!(figures(&shown["credits"]), figures(&balance), "a team shows the same");
    app.check_invariants().await;
}

/// `POST /api/credits/teams/{team_id}/add`
#[tokio::test]
async fn credits_are_added_by_any_of_their_names_and_with_a_fraction_of_zero() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    let mut expected = 1;
    for body in [
        json!({"credits_amount": 1}),
        json!({"amount": 2}),
        json!({"credits": 3}),
        json!({"amount": 100.0}),
        json!({"credits_amount": 1e2}),
        json!({"credits": 1_000_000_000}),
    ] {
        let amount = body
            .as_object()
            .and_then(|fields| fields.values().next())
            .and_then(Value::as_f64)
            .expect("a number") as i64;
        expected += amount;
        let added = add(&app, &team, body).await.ok();
        assert_eq!(
            (&added["team_id"], &added["credits_added"], &added["credits_remaining"]),
            (&json!(team.id), &json!(amount), &json!(expected))
        );
        assert_eq!(added.get("warnings"), None, "{added}");
    }
    assert_eq!(team.balance().await["credits_allocated"], expected);
    app.check_invariants().await;
}

#[tokio::test]
async fn one_amount_has_to_be_given_and_not_two() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    let before = stored(&app).await;
    for body in [
        json!({}),
        json!({"reason": "x"}),
        json!({"amount": 1, "credits": 1}),
        json!({"credits_amount": 1, "amount": 1}),
    ] {
        let answer = add(&app, &team, body).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.body["code"]),
            (400, &json!("invalid_request")),
            "{}",
            answer.text
        );
    }
    let nobody = app.admin().post("/api/credits/teams/None/add", json!({"amount": 1})).await;
    nobody.refused(404, "not_found", "Team 'None' not found");
    assert_eq!(stored(&app).await, before);
}

#[tokio::test]
async fn an_added_credit_raises_litellms_budget_by_the_same_rate() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let team = app.team(10).await;
    add(&app, &team, json!({"amount": 5})).await.ok();
    assert_eq!(stand_in.team(&team.id).and_then(|team| team.max_budget), Some(1.5));
    assert_eq!(stand_in.keys_of(&team.id)[0].max_budget, Some(1.5));
    for round in 1..=5 {
        join_all((0..8).map(|_| add(&app, &team, json!({"amount": 10})))).await;
        let budget = Some(1.5 + 8.0 * f64::from(round));
        let (of_team, of_key) =
            (stand_in.team(&team.id).expect("a team"), stand_in.keys_of(&team.id).remove(0));
        assert_eq!(
            (of_team.max_budget, of_key.max_budget),
            (budget, budget),
            "the last word is the right one"
        );
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn an_explicit_budget_is_never_moved_and_no_budget_stays_none() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let explicit = app.team_with(json!({"credits_allocated": 10, "max_budget": 7.25})).await;
    add(&app, &explicit, json!({"amount": 5})).await.ok();
    assert_eq!(stand_in.team(&explicit.id).and_then(|team| team.max_budget), Some(7.25));
    assert_eq!(stand_in.keys_of(&explicit.id)[0].max_budget, Some(7.25));
    let endless = app.team_with(json!({"credits_allocated": 10, "budget_mode": "soft"})).await;
    add(&app, &endless, json!({"amount": 5})).await.ok();
    assert_eq!(stand_in.team(&endless.id).expect("a team").max_budget, None);
}

#[tokio::test]
async fn credits_are_added_while_litellm_fails_and_the_next_change_repairs_its_budget() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let budgets = |team: &Team| {
        (stand_in.team(&team.id).and_then(|team| team.max_budget), stand_in.keys_of(&team.id)[0].max_budget)
    };
    for path in ["/key/update", "/team/update"] {
        let team = app.team(10).await;
        stand_in.fail_next(path, 500, 1);
        let added = add(&app, &team, json!({"amount": 10})).await.ok();
        assert_eq!(added["credits_remaining"], 20);
        assert!(added["warnings"][0].is_string(), "{added}");
        assert_ne!(budgets(&team), (Some(2.0), Some(2.0)));

        let added = add(&app, &team, json!({"amount": 1})).await.ok();
        assert_eq!(added.get("warnings"), None, "{added}");
        assert_eq!(budgets(&team), (Some(2.1), Some(2.1)));
    }
    let team = app.team(10).await;
    stand_in.set_down(true);
    let added = add(&app, &team, json!({"amount": 10})).await.ok();
    assert!(added["warnings"][0].is_string(), "{added}");
    stand_in.set_down(false);
    app.admin().put(&format!("/api/teams/{}/suspend", team.id), json!({})).await.ok();
    assert_eq!(budgets(&team), (Some(2.0), Some(2.0)));
    app.check_invariants().await;
}

/// `POST /api/credits/teams/{team_id}/check`
#[tokio::test]
async fn a_check_goes_by_what_a_new_job_goes_by() {
    let app = TestApp::start().await;
    let team = app.team(5).await;
    join_all((0..3).map(|_| team.job())).await;
    let check = |query: &str, body: &str| {
        let path = format!("/api/credits/teams/{}/check{query}", team.id);
        let request = team.client.request(reqwest::Method::POST, &path).body(body.to_owned());
        async move { Answer::of(request).await.ok() }
    };
    for (query, body, required, enough) in [
        ("", "", 1, true),
        ("", "{}", 1, true),
        ("", r#"{"credits_required": 2}"#, 2, true),
        ("", r#"{"credits_required": 3}"#, 3, false),
        ("", r#"{"credits_required": 2.0}"#, 2, true),
        ("?credits_needed=2", "", 2, true),
        ("?credits_needed=3", "{}", 3, false),
        ("?credits_needed=1000000000", "", 1_000_000_000, false),
    ] {
        let expected = json!({
            "team_id": team.id, "available": enough, "has_credits": enough, "credits_required": required,
            "credits_remaining": 5, "credits_available": 2,
        });
        assert_eq!(check(query, body).await, expected, "{query} {body}");
    }
    let both = format!("/api/credits/teams/{}/check?credits_needed=1", team.id);
    assert_eq!(team.client.post(&both, json!({"credits_required": 1})).await.status, 400);
    app.admin().post("/api/credits/teams/None/check", json!({})).await.refused(
        404,
        "not_found",
        "Team 'None' not found",
    );
    app.check_invariants().await;
}

#[tokio::test]
async fn a_soft_team_works_on_below_zero_down_to_its_limit() {
    let app = TestApp::start().await;
    let team = app.team_with(json!({"credits_allocated": 1, "budget_mode": "soft", "credit_limit": 2})).await;
    let check = format!("/api/credits/teams/{}/check", team.id);
    let mut jobs = vec![];
    for _ in 0..3 {
        assert_eq!(team.client.post(&check, json!({})).await.ok()["has_credits"], true);
        jobs.push(team.job().await);
    }
    assert_eq!(team.client.post(&check, json!({})).await.ok()["has_credits"], false);
    let body = json!({"team_id": team.id, "job_type": "test"});
    let refused = "Insufficient credits. Required: 1, Available: -2";
    team.client.post("/api/jobs/create", body.clone()).await.refused(402, "insufficient_credits", refused);
    for job in jobs {
        team.complete(&job, "completed").await.ok();
    }
    let balance = team.balance().await;
    assert_eq!(figures(&balance), [1, 3, -2, 0, -2]);
    assert_eq!((&balance["budget_mode"], &balance["credit_limit"]), (&json!("soft"), &json!(2)));
    team.client.post("/api/jobs/create", body).await.refused(402, "insufficient_credits", refused);

    add(&app, &team, json!({"amount": 1})).await.ok();
    let job = team.job().await;
    team.complete(&job, "completed").await.ok();
    assert_eq!(team.balance().await["credits_remaining"], -2);
    app.check_invariants().await;
}

#[tokio::test]
async fn a_soft_team_without_a_limit_has_no_end() {
    let app = TestApp::start().await;
    let team = app.team_with(json!({"budget_mode": "soft"})).await;
    for job in join_all((0..10).map(|_| team.job())).await {
        team.complete(&job, "completed").await.ok();
    }
    assert_eq!(figures(&team.balance().await), [0, 10, -10, 0, -10]);
    let check = format!("/api/credits/teams/{}/check?credits_needed=1000", team.id);
    assert_eq!(team.client.post(&check, json!({})).await.ok()["available"], true);
    app.check_invariants().await;
}

#[tokio::test]
async fn a_credit_limit_means_nothing_in_hard_mode() {
    let app = TestApp::start().await;
    for mode in ["hard", "hard_limit"] {
        let team =
            app.team_with(json!({"credits_allocated": 1, "budget_mode": mode, "credit_limit": 5})).await;
        team.job().await;
        let body = json!({"team_id": team.id, "job_type": "test"});
        let refused = "Insufficient credits. Required: 1, Available: 0";
        team.client.post("/api/jobs/create", body).await.refused(402, "insufficient_credits", refused);
        assert_eq!(team.balance().await["budget_mode"], "hard");
    }
    app.check_invariants().await;
}

/// Corrects a team's balance.
async fn adjust(app: &TestApp, team: &Team, body: Value) -> Answer {
    app.admin().post(&format!("/api/credits/teams/{}/adjust", team.id), body).await
}

/// `POST /api/credits/teams/{team_id}/adjust`
#[tokio::test]
async fn a_correction_goes_both_ways_and_says_why() {
    let app = TestApp::start().await;
    let team = app.team(10).await;
    let job = team.job().await;
    team.complete(&job, "completed").await.ok();
    let mut remaining = 9;
    for (change, sent) in
        [(5, json!(5)), (-3, json!(-3)), (-1, json!(-1.0)), (1000, json!(1e3)), (-1010, json!(-1010))]
    {
        let body = json!({"credits_amount": sent, "reason": "Invoice 7", "metadata": {"ticket": change}});
        let adjusted = adjust(&app, &team, body).await.ok();
        remaining += change;
        assert_eq!(
            (&adjusted["team_id"], &adjusted["credits_adjusted"], &adjusted["credits_remaining"]),
            (&json!(team.id), &json!(change), &json!(remaining))
        );
        assert_eq!(adjusted.get("warnings"), None, "{adjusted}");
        let entry = &adjusted["transaction"];
        for (name, value) in [
            ("transaction_type", json!("adjustment")),
            ("credits_amount", json!(change)),
            ("balance_before", json!(remaining - change)),
            ("balance_after", json!(remaining)),
            ("reason", json!("Invoice 7")),
            ("metadata", json!({"ticket": change})),
            ("job_id", Value::Null),
        ] {
            assert_eq!(entry[name], value, "{name}");
        }
        let path = format!("/api/credits/teams/{}/transactions?limit=1", team.id);
        assert_eq!(team.client.get(&path).await.ok()["transactions"][0], *entry);
    }
    assert_eq!(figures(&team.balance().await), [1, 1, 0, 0, 0], "what was used stays what was used");
    app.check_invariants().await;
}

#[tokio::test]
async fn a_correction_takes_no_more_than_is_available() {
    let app = TestApp::start().await;
    let team = app.team(10).await;
    team.job().await;
    let refused = "Insufficient credits. Required: 10, Available: 9";
    let body = |change: i64| json!({"credits_amount": change, "reason": "too many"});
    adjust(&app, &team, body(-10)).await.refused(402, "insufficient_credits", refused);
    assert_eq!(figures(&team.balance().await), [10, 0, 10, 1, 9]);
    adjust(&app, &team, body(-9)).await.ok();
    let refused = "Insufficient credits. Required: 1, Available: 0";
    adjust(&app, &team, body(-1)).await.refused(402, "insufficient_credits", refused);

    let soft = app.team_with(json!({"credits_allocated": 1, "budget_mode": "soft", "credit_limit": 2})).await;
    adjust(&app, &soft, body(-3)).await.ok();
    let refused = "Insufficient credits. Required: 1, Available: -2";
    adjust(&app, &soft, body(-1)).await.refused(402, "insufficient_credits", refused);
    assert_eq!(soft.balance().await["credits_remaining"], -2);
    app.check_invariants().await;
}

#[tokio::test]
async fn corrections_at_once_together_take_no_more_than_there_is() {
    let app = TestApp::start().await;
    let team = app.team(10).await;
    let answers =
        join_all((0..8).map(|_| adjust(&app, &team, json!({"credits_amount": -3, "reason": "x"})))).await;
    let mut statuses: Vec<u16> = answers.iter().map(|answer| answer.status.as_u16()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 200, 402, 402, 402, 402, 402]);
    assert_eq!(team.balance().await["credits_remaining"], 1);
    app.check_invariants().await;
}

#[tokio::test]
async fn a_correction_of_nothing_or_without_a_reason_is_refused_by_name() {
    let app = TestApp::start().await;
    let team = app.team(10).await;
    let before = stored(&app).await;
    for (field, body) in [
        ("credits_amount", json!({"reason": "x"})),
        ("credits_amount", json!({"credits_amount": 0, "reason": "x"})),
        ("credits_amount", json!({"credits_amount": 1.5, "reason": "x"})),
        ("credits_amount", json!({"credits_amount": "-5", "reason": "x"})),
        ("credits_amount", json!({"credits_amount": -1_000_000_001, "reason": "x"})),
        ("credits_amount", json!({"credits_amount": null, "reason": "x"})),
        ("reason", json!({"credits_amount": -1})),
        ("reason", json!({"credits_amount": -1, "reason": ""})),
        ("reason", json!({"credits_amount": -1, "reason": " "})),
        ("reason", json!({"credits_amount": -1, "reason": null})),
        ("metadata", json!({"credits_amount": -1, "reason": "x", "metadata": []})),
        ("why", json!({"credits_amount": -1, "reason": "x", "why": "y"})),
    ] {
        let answer = adjust(&app, &team, body.clone()).await;
        let named =
            answer.body["detail"].as_str().is_some_and(|detail| detail.starts_with(&format!("{field}: ")));
        assert!(answer.status == 400 && named, "{body}: {}", answer.text);
    }
    let body = json!({"credits_amount": 1, "reason": "x"});
    app.admin().post("/api/credits/teams/None/adjust", body.clone()).await.refused(
        404,
        "not_found",
        "Team 'None' not found",
    );
    let path = format!("/api/credits/teams/{}/adjust", team.id);
    assert_eq!(team.client.post(&path, body).await.status, 401, "only the admin corrects");
    assert_eq!(stored(&app).await, before);
}

#[tokio::test]
async fn litellms_budget_follows_a_correction_and_never_below_zero() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let body = |change: i64| json!({"credits_amount": change, "reason": "x"});
    let budgets = |team: &Team| {
        (stand_in.team(&team.id).and_then(|team| team.max_budget), stand_in.keys_of(&team.id)[0].max_budget)
    };
    let team = app.team(10).await;
    for (change, budget) in [(-4, 0.6), (10, 1.6), (-16, 0.0)] {
        adjust(&app, &team, body(change)).await.ok();
        assert_eq!(budgets(&team), (Some(budget), Some(budget)), "{change}");
    }
    let explicit = app.team_with(json!({"credits_allocated": 10, "max_budget": 0.5})).await;
    adjust(&app, &explicit, body(-8)).await.ok();
    assert_eq!(budgets(&explicit), (Some(0.5), Some(0.5)), "what was set is what holds");
    let endless = app.team_with(json!({"credits_allocated": 10, "budget_mode": "soft"})).await;
    adjust(&app, &endless, body(-5)).await.ok();
    assert_eq!(budgets(&endless).0, None);

    let late = app.team(10).await;
    stand_in.set_down(true);
    let adjusted = adjust(&app, &late, body(-4)).await.ok();
    assert!(adjusted["warnings"][0].is_string(), "{adjusted}");
    stand_in.set_down(false);
    let job = late.job().await;
    late.call(&job, "hello").await.ok();
    assert_eq!(budgets(&late), (Some(0.6), Some(0.6)), "told before the next call");
    app.check_invariants().await;
}
