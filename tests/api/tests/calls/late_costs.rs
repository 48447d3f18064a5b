//! Costs that come after the end of their job are charged when they are known, each once.

use crate::fixtures::{
    calls_that_are, events, finally_charged, group_of, ledger_of, paying_team, prompt, prompt_with, sql,
    stream, upkeep,
};
use api_tests::{Team, TestApp, eventually};
use futures::future::join_all;
use serde_json::{Value, json};

const COMPLETED: &str = "Job test completed successfully";
const LATE: &str = "Job test: late cost";

/// A row of the ledger.
fn row(kind: &str, amount: i64, reason: &str) -> (String, i64, String) {
    (kind.to_owned(), amount, reason.to_owned())
}

/// What a job is charged, less what was refunded, and whether that is final.
fn charge(job: &Value) -> (i64, bool) {
    let number = |name: &str| job[name].as_i64().expect("a number");
    let is_final = job["charge_is_final"].as_bool().expect("a boolean");
    (number("credits_charged") - number("credits_refunded"), is_final)
}

/// Fails the test unless the credits of this month's usage are those of the ledger, and those of the balance.
async fn assert_used(app: &TestApp, team: &Team, credits: i64) {
    let usage = app.admin().get(&format!("/api/teams/{}/usage", team.id)).await.ok();
    assert_eq!(usage["summary"]["credits_used"], credits, "{usage}");
    assert_eq!(team.balance().await["credits_used"], credits);
}

/// A group whose first model is given up on after 0.3 s, while LiteLLM lets it go on and bills it, and whose second one
/// answers.
async fn impatient_group(app: &TestApp) -> String {
    let slow = json!({"model_name": "slow", "priority": 0, "config": {"timeout_ms": 300}});
    group_of(app, json!([slow, {"model_name": "expensive", "priority": 1}])).await
}

/// Of the slow model this costs $0.0035, of the expensive one $3.
const BOTH: &str = "[[prompt_tokens=1000]] [[completion_tokens=2000]] x";

#[tokio::test]
async fn ten_answers_that_come_after_the_end_of_their_job_cost_thirty_dollars_and_three_hundred_credits() {
    let app = TestApp::start().await;
    let group = app.model_group(&["expensive"]).await;
    let team = paying_team(&app, &group, json!({})).await;
    let job = team.job().await;
    let slow = "[[first_ms=6000]] [[prompt_tokens=3000]] [[completion_tokens=0]] x";
    let calls = join_all((0..10).map(|_| team.call(&job, slow)));
    let complete = async {
        eventually("ten open calls", async || (calls_that_are(&app, "open").await == 10).then_some(())).await;
        team.complete(&job, "completed").await.ok()
    };
    let (answers, completed) = futures::join!(calls, complete);

    let costs = &completed["costs"];
    assert_eq!((charge(costs), &costs["unpriced_calls"]), ((1, false), &json!(10)));
    for answer in answers {
        assert_eq!(answer.ok()["metadata"]["tokens_used"], 3000);
    }
    let read = team.read(&job).await;
    assert_eq!((charge(&read), &read["total_cost_usd"]), ((300, true), &json!(30)));
    // The first $3 are 30 credits, one of which was charged.
    let mut rows = vec![row("deduction", 1, COMPLETED), row("deduction", 29, LATE)];
    rows.resize(11, row("deduction", 30, LATE));
    assert_eq!(ledger_of(&app, &team, &job).await, rows);
    assert_used(&app, &team, 300).await;
    assert_eq!(team.balance().await["credits_remaining"], -299);
    let body = json!({"team_id": team.id, "job_type": "test"});
    assert_eq!(
        team.client.post("/api/jobs/create", body).await.status,
        402,
        "nothing starts until it is paid"
    );
    app.check_invariants().await;
}

#[tokio::test]
async fn a_completion_that_is_repeated_is_the_same_but_for_what_the_job_is_charged_by_now() {
    let app = TestApp::start().await;
    let group = app.model_group(&["expensive"]).await;
    let team = paying_team(&app, &group, json!({"credits_allocated": 100})).await;
    let job = team.job().await;
    let slow = team.call(&job, "[[first_ms=3000]] [[prompt_tokens=500]] [[completion_tokens=0]] x");
    let complete = async {
        team.open_call(&job).await;
        team.complete(&job, "completed").await.ok()
    };
    let (answer, first) = futures::join!(slow, complete);
    answer.ok();
    let refund = json!({"job_id": job, "credits": 2, "reason": "a gift"});
    app.admin().post(&format!("/api/credits/teams/{}/refund", team.id), refund).await.ok();

    let mut expected = first.clone();
    expected["costs"]["credits_charged"] = json!(5);
    expected["costs"]["credits_refunded"] = json!(2);
    expected["costs"]["charge_is_final"] = json!(true);
    assert_eq!(team.complete(&job, "completed").await.ok(), expected);
    let read = team.read(&job).await;
    assert_eq!(
        [&read["credits_charged"], &read["credits_refunded"], &read["charge_is_final"]],
        [&json!(5), &json!(2), &json!(true)]
    );
    assert_used(&app, &team, 3).await;
    app.check_invariants().await;
}

#[tokio::test]
async fn a_model_that_was_given_up_on_is_charged_beside_the_one_that_answered() {
    let app = TestApp::start().await;
    let group = impatient_group(&app).await;
    let team = paying_team(&app, &group, json!({})).await;
    let job = team.job().await;
    team.call(&job, BOTH).await.ok();

    let completed = team.complete(&job, "completed").await.ok();

    assert_eq!(charge(&completed["costs"]), (1, false));
    let read = finally_charged(&team, &job).await;
    assert_eq!((charge(&read), &read["total_cost_usd"]), ((31, true), &json!(3.0035)));
    let rows = [row("deduction", 1, COMPLETED), row("deduction", 30, LATE)];
    assert_eq!(ledger_of(&app, &team, &job).await, rows);
    assert_used(&app, &team, 31).await;
    app.check_invariants().await;
}

#[tokio::test]
async fn a_job_of_its_own_is_charged_for_the_model_that_was_given_up_on_too() {
    let app = TestApp::start().await;
    let group = impatient_group(&app).await;
    for streamed in [false, true] {
        let team = paying_team(&app, &group, json!({})).await;
        let body = prompt_with(BOTH, json!({"job_type": "test"}));
        let ended = if streamed {
            let stream = team.client.stream("/api/jobs/create-and-call-stream", body).await;
            events(stream).await.0.pop().expect("a summary")
        } else {
            team.client.post("/api/jobs/create-and-call", body).await.ok()
        };
        assert_eq!(charge(&ended["costs"]), (1, false), "{ended}");
        let read = finally_charged(&team, ended["job_id"].as_str().expect("an id")).await;
        // LiteLLM stops a stream whose reader leaves, and bills what the prompt cost.
        let cost = read["total_cost_usd"].as_f64();
        assert!(
            if streamed { (3.0..3.0035).contains(&cost.expect("a cost")) } else { cost == Some(3.0035) },
            "{read}"
        );
        assert_eq!(charge(&read), (31, true));
        assert_used(&app, &team, 31).await;
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn a_stream_that_is_left_after_nineteen_of_twenty_pieces_costs_what_litellm_bills() {
    let app = TestApp::start().await;
    let group = app.model_group(&["expensive"]).await;
    let team = paying_team(&app, &group, json!({})).await;
    let job = team.job().await;
    // LiteLLM counts the prompt itself, a token for each word: nearly $3.
    let long = format!("[[chunks=20]] [[delay_ms=400]] {}", "word ".repeat(2850));
    let mut stream = stream(&team, &job, prompt(&long)).await;
    let mut pieces = 0;
    while pieces < 19 {
        let event = stream.next_data().await.expect("an event");
        pieces += usize::from(event["content"].as_str().is_some_and(|text| !text.is_empty()));
    }
    drop(stream);
    // The last piece may have come before anybody noticed that the reader was gone.
    eventually("the end of the call", async || {
        (team.read(&job).await["calls"][0]["status"] != "open").then_some(())
    })
    .await;

    let completed = team.complete(&job, "completed").await.ok();

    assert_eq!(completed["costs"]["credit_applied"], true);
    let read = finally_charged(&team, &job).await;
    let cost = read["total_cost_usd"].as_f64().expect("a cost");
    assert!((2.9..=4.0).contains(&cost), "{read}");
    let credits = (cost * 10.0).ceil() as i64;
    assert_eq!(charge(&read), (credits, true));
    assert_used(&app, &team, credits).await;
    app.check_invariants().await;
}

/// The admin's alerts of a team, by kind.
async fn alerts(app: &TestApp, team: &Team) -> Vec<Value> {
    app.admin().get(&format!("/api/teams/{}/alerts", team.id)).await.ok()["alerts"]
        .as_array()
        .expect("alerts")
        .iter()
        .filter(|alert| alert["kind"] == "unpriced_model")
        .cloned()
        .collect()
}

#[tokio::test]
async fn tokens_without_a_price_are_charged_at_once_and_put_right_when_a_price_comes() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let group = app.model_group(&["unpriced"]).await;
    let team = paying_team(&app, &group, json!({"credits_allocated": 1000})).await;
    let job = team.job().await;
    let answer = team.call(&job, "[[prompt_tokens=200000]] [[completion_tokens=100000]] x").await.ok();
    let call_id = answer["call_id"].as_str().expect("an id");

    let completed = team.complete(&job, "completed").await.ok();

    let costs = &completed["costs"];
    assert_eq!(
        (charge(costs), &costs["total_cost_usd"], &costs["unpriced_calls"]),
        ((300, false), &json!(null), &json!(1))
    );
    let alerts = alerts(&app, &team).await;
    assert_eq!(alerts.len(), 1);
    assert_eq!(alerts[0]["details"], json!({"model": "unpriced", "job_id": job}));

    // LiteLLM still has no price.
    assert_eq!(upkeep(&app).await["steps"]["costs"]["done"], 0);
    assert_eq!(charge(&team.read(&job).await), (300, false));
    assert_eq!(stand_in.set_spend(call_id, 2.05), 1);
    assert_eq!(upkeep(&app).await["steps"]["costs"]["done"], 0, "it is not asked again at once");
    sql(&app, "UPDATE calls SET cost_check_at = now() WHERE cost_check_at IS NOT NULL").await;
    assert_eq!(upkeep(&app).await["steps"]["costs"]["done"], 1);

    let read = team.read(&job).await;
    assert_eq!((charge(&read), &read["total_cost_usd"]), ((21, true), &json!(2.05)));
    let rows = [row("deduction", 300, COMPLETED), row("refund", 279, LATE)];
    assert_eq!(ledger_of(&app, &team, &job).await, rows);
    assert_used(&app, &team, 21).await;
    assert_eq!(upkeep(&app).await["steps"]["costs"]["done"], 0);
    app.check_invariants().await;
}

#[tokio::test]
async fn the_rate_for_tokens_without_a_price_is_the_teams_own() {
    let app = TestApp::start().await;
    let (unpriced, priced) = (app.model_group(&["unpriced"]).await, app.model_group(&["expensive"]).await);
    for (rate, credits) in [(json!(0.5), 11), (json!(3), 16), (json!(0), 10), (json!(0.0001), 11)] {
        let fields = json!({"credits_per_1k_tokens_unpriced": rate, "model_groups": [unpriced, priced]});
        let team = paying_team(&app, &unpriced, fields).await;
        let job = team.job().await;
        team.call(&job, "[[prompt_tokens=2000]] [[completion_tokens=0]] x").await.ok();
        // A dollar besides.
        let body =
            prompt_with("[[prompt_tokens=1000]] [[completion_tokens=0]] x", json!({"model_group": priced}));
        team.client.post(&format!("/api/jobs/{job}/llm-call"), body).await.ok();
        let completed = team.complete(&job, "completed").await.ok();
        assert_eq!(completed["costs"]["credits_charged"], credits, "{rate}");
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn after_seven_days_without_a_price_what_was_charged_is_final() {
    let app = TestApp::start().await;
    let group = app.model_group(&["unpriced"]).await;
    let team = paying_team(&app, &group, json!({"credits_allocated": 1000})).await;
    let job = team.job().await;
    team.call(&job, "[[prompt_tokens=5000]] [[completion_tokens=0]] x").await.ok();
    team.complete(&job, "completed").await.ok();
    for (days, is_final) in [(3, false), (8, true)] {
        sql(
            &app,
            &format!("UPDATE calls SET cost_check_at = now(), created_at = now() - interval '{days} days'"),
        )
        .await;
        assert_eq!(upkeep(&app).await["steps"]["costs"]["done"], 0);
        assert_eq!(charge(&team.read(&job).await), (5, is_final), "{days} days");
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn a_cost_that_litellm_writes_down_late_is_asked_for_until_it_is_there() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    stand_in.set_spend_log_late(true);
    let group = impatient_group(&app).await;
    let team = paying_team(&app, &group, json!({})).await;
    let job = team.job().await;
    team.call(&job, BOTH).await.ok();
    team.complete(&job, "completed").await.ok();
    // Those who ask right after the call give up after half a minute.
    eventually("the call to be settled", async || {
        let settled = "SELECT settled_at IS NOT NULL FROM calls";
        let settled = app.database.client.query_one(settled, &[]).await.expect("the call").get::<_, bool>(0);
        settled.then_some(())
    })
    .await;
    assert_eq!(upkeep(&app).await["steps"]["costs"]["done"], 0);
    let read = team.read(&job).await;
    // 3,000 tokens of the model that answered, whose cost is unknown with that of the other.
    assert_eq!((charge(&read), &read["total_cost_usd"]), ((3, false), &json!(null)));

    stand_in.set_spend_log_late(false);
    sql(&app, "UPDATE calls SET cost_check_at = now() WHERE cost_check_at IS NOT NULL").await;
    assert_eq!(upkeep(&app).await["steps"]["costs"]["done"], 1);

    let read = team.read(&job).await;
    assert_eq!((charge(&read), &read["total_cost_usd"]), ((31, true), &json!(3.0035)));
    assert_used(&app, &team, 31).await;
    app.check_invariants().await;
}

#[tokio::test]
async fn a_job_based_job_costs_one_credit_whatever_comes_late() {
    let app = TestApp::start().await;
    let group = impatient_group(&app).await;
    let team = paying_team(&app, &group, json!({"billing_mode": "job_based"})).await;
    let job = team.job().await;
    team.call(&job, BOTH).await.ok();
    let completed = team.complete(&job, "completed").await.ok();
    assert_eq!(charge(&completed["costs"]), (1, true));
    eventually("LiteLLM's bill", async || {
        (team.read(&job).await["total_cost_usd"] == json!(3.0035)).then_some(())
    })
    .await;
    assert_eq!(ledger_of(&app, &team, &job).await, [row("deduction", 1, COMPLETED)]);
    app.check_invariants().await;
}

#[tokio::test]
async fn late_costs_are_charged_after_the_end_of_their_team() {
    let app = TestApp::start().await;
    let group = app.model_group(&["expensive"]).await;
    let team = paying_team(&app, &group, json!({"charge_when": "delivered"})).await;
    let job = team.job().await;
    team.call(&job, "[[prompt_tokens=1000]] [[completion_tokens=0]] x").await.ok();
    let slow = team.call(&job, "[[first_ms=3000]] [[prompt_tokens=500]] [[completion_tokens=0]] x");
    let delete = async {
        team.open_call(&job).await;
        app.admin().delete(&format!("/api/teams/{}", team.id)).await.ok();
    };
    futures::join!(slow, delete).0.ok();
    let read = app.admin().get(&format!("/api/jobs/{job}")).await.ok();
    assert_eq!((&read["status"], charge(&read)), (&json!("cancelled"), (15, true)));
    app.check_invariants().await;
}
