//! A job, its one call and its end in one request.

use crate::fixtures::{call_when, calls_that_are, events, members, models_asked, prompt_with};
use api_tests::{Answer, Sse, Team, TestApp, eventually};
use serde_json::{Value, json};

const ROUTES: [&str; 2] = ["/api/jobs/create-and-call", "/api/jobs/create-and-call-stream"];

/// A request for a job of type `chat` with this prompt and these fields.
fn body(prompt: &str, fields: Value) -> Value {
    let mut body = prompt_with(prompt, json!({"job_type": "chat"}));
    body.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
    body
}

async fn buffered(team: &Team, prompt: &str, fields: Value) -> Answer {
    team.client.post(ROUTES[0], body(prompt, fields)).await
}

async fn stream(team: &Team, prompt: &str, fields: Value) -> Sse {
    team.client.stream(ROUTES[1], body(prompt, fields)).await
}

/// The team's only job.
async fn only_job(team: &Team) -> Value {
    let list = team.client.get(&format!("/api/teams/{}/jobs", team.id)).await.ok();
    assert_eq!(list["total"], 1, "{list}");
    team.read(list["jobs"][0]["job_id"].as_str().expect("an id")).await
}

/// Available and remaining credits.
async fn credits(team: &Team) -> [i64; 2] {
    let balance = team.balance().await;
    ["credits_available", "credits_remaining"].map(|name| balance[name].as_i64().expect("a number"))
}

/// `POST /api/jobs/create-and-call`
#[tokio::test]
async fn one_request_makes_a_job_its_call_and_its_end_for_one_credit() {
    let app = TestApp::start().await;
    let group = app.model_group(&["gpt-4o-mini"]).await;
    let team = app.team_with(json!({"credits_allocated": 3, "model_groups": [group]})).await;
    let fields = json!({
        "team_id": team.id, "user_id": "ann", "job_metadata": {"file": "a.pdf"}, "purpose": "draft",
        "call_metadata": {"n": 1},
        "model_group": group, "temperature": 0.5,
    });
    let answer = buffered(&team, "[[prompt_tokens=1000]] [[completion_tokens=500]] hello", fields).await;

    let (job_id, call_id) = (answer.header("x-job-id"), answer.header("x-call-id"));
    let ids = [job_id, call_id].map(|id| json!(id.expect("an id")));
    assert!(answer.header("server-timing").is_some_and(|timing| timing.contains("llm;dur=")));
    let answer = answer.ok();
    let expected = ["call_id", "completed_at", "costs", "job_id", "metadata", "response", "status"];
    assert_eq!(members(&answer), expected.into());
    assert_eq!([&answer["job_id"], &answer["call_id"]], [&ids[0], &ids[1]]);
    assert_eq!(answer["status"], "completed");
    assert_eq!(answer["response"]["role"], "assistant");
    assert_eq!(answer["response"]["finish_reason"], "stop");
    assert!(answer["response"]["content"].as_str().is_some_and(|text| text.ends_with("hello")), "{answer}");
    assert_eq!(
        (&answer["metadata"]["tokens_used"], &answer["metadata"]["model_group"]),
        (&json!(1500), &json!(group))
    );
    let costs = &answer["costs"];
    assert_eq!(
        [&costs["total_calls"], &costs["successful_calls"], &costs["failed_calls"], &costs["total_tokens"]],
        [&json!(1), &json!(1), &json!(0), &json!(1500)]
    );
    assert_eq!(costs["total_cost_usd"].as_f64(), Some(0.00045));
    assert_eq!(
        [&costs["credit_applied"], &costs["credits_charged"], &costs["credits_remaining"]],
        [&json!(true), &json!(1), &json!(2)]
    );

    let job = team.read(answer["job_id"].as_str().expect("an id")).await;
    for (name, value) in [
        ("status", json!("completed")),
        ("job_type", json!("chat")),
        ("user_id", json!("ann")),
        ("metadata", json!({"file": "a.pdf"})),
        ("completed_at", answer["completed_at"].clone()),
        ("credit_applied", json!(true)),
    ] {
        assert_eq!(job[name], value, "{name}");
    }
    let call = &job["calls"][0];
    assert_eq!(
        [&call["call_id"], &call["status"], &call["streamed"], &call["purpose"], &call["metadata"]],
        [&answer["call_id"], &json!("succeeded"), &json!(false), &json!("draft"), &json!({"n": 1})]
    );
    assert_eq!(credits(&team).await, [2, 2]);
    assert_eq!(
        team.complete(job["job_id"].as_str().expect("an id"), "completed").await.ok()["costs"],
        *costs
    );
    app.check_invariants().await;
}

/// `POST /api/jobs/create-and-call-stream`
#[tokio::test]
async fn as_a_stream_the_summary_also_tells_how_the_job_ended() {
    let app = TestApp::start().await;
    let team = app.team(3).await;
    let stream = stream(&team, "hello", json!({"purpose": "draft"})).await;
    let header = |name: &str| json!(stream.headers.get(name).expect(name).to_str().expect("text"));
    let (job_id, call_id) = (header("x-job-id"), header("x-call-id"));
    assert_eq!(header("content-type"), json!("text/event-stream"));

    let (events, done) = events(stream).await;

    assert!(done);
    let (summary, chunks) = events.split_last().expect("events");
    let text: String = chunks.iter().filter_map(|chunk| chunk["content"].as_str()).collect();
    assert_eq!(text, "You said: hello");
    let expected =
        ["call_id", "completed_at", "costs", "finish_reason", "job_id", "metadata", "status", "usage"];
    assert_eq!(members(summary), expected.into());
    assert_eq!([&summary["job_id"], &summary["call_id"]], [&job_id, &call_id]);
    assert_eq!((&summary["status"], &summary["finish_reason"]), (&json!("completed"), &json!("stop")));
    assert_eq!(
        [
            &summary["costs"]["credit_applied"],
            &summary["costs"]["credits_remaining"],
            &summary["costs"]["total_tokens"]
        ],
        [&json!(true), &json!(2), &summary["usage"]["total_tokens"]]
    );
    let job = only_job(&team).await;
    assert_eq!(
        [&job["job_id"], &job["status"], &job["completed_at"]],
        [&job_id, &json!("completed"), &summary["completed_at"]]
    );
    assert_eq!((&job["calls"][0]["streamed"], &job["calls"][0]["purpose"]), (&json!(true), &json!("draft")));
    assert_eq!(credits(&team).await, [2, 2]);
    app.check_invariants().await;
}

#[tokio::test]
async fn a_call_that_no_model_answers_fails_its_job_which_costs_nothing() {
    let app = TestApp::start().await;
    for route in ROUTES {
        for (models, status, code, end) in [
            (&["err500", "err503"][..], 502, "llm_failed", "failed"),
            (&["err400"], 400, "invalid_request", "refused"),
            (&["err429"], 502, "llm_failed", "failed"),
        ] {
            let team = app.team_using(models, 1).await;
            let answer = team.client.post(route, body("hello", json!({}))).await;
            assert_eq!(
                (answer.status.as_u16(), &answer.body["code"]),
                (status, &json!(code)),
                "{}",
                answer.text
            );
            let job = only_job(&team).await;
            assert_eq!(answer.header("x-job-id"), job["job_id"].as_str());
            assert_eq!(
                [&job["status"], &job["credit_applied"], &job["error_message"], &job["calls"][0]["status"]],
                [&json!("failed"), &json!(false), &answer.body["detail"], &json!(end)]
            );
            assert_eq!(credits(&team).await, [1, 1]);
        }
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn a_stream_that_breaks_fails_its_job_which_costs_nothing() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    let stream = stream(&team, "[[chunks=8]] [[error_after=3]] hello", json!({})).await;
    let events = stream.rest().await;
    assert!(
        events.last().is_some_and(|last| last.starts_with("event: error\ndata: {\"error\":")),
        "{events:?}"
    );
    let job = eventually("the end of the job", async || {
        let job = only_job(&team).await;
        (job["status"] != "in_progress").then_some(job)
    })
    .await;
    assert_eq!((&job["status"], &job["credit_applied"]), (&json!("failed"), &json!(false)));
    assert_eq!(credits(&team).await, [1, 1]);
    let id = job["job_id"].as_str().expect("an id");
    call_when(&team, id, "LiteLLM's bill", |call| call["cost_usd"].as_f64() > Some(0.0)).await;
    app.check_invariants().await;
}

/// Whoever finds the job's id in the answer's head may call in it, but only for as long as its own call lasts.
#[tokio::test]
async fn what_others_have_under_way_in_the_job_is_cancelled_when_its_own_call_ends() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    let (own, ()) = futures::join!(buffered(&team, "[[first_ms=4000]] hello", json!({})), async {
        let job = eventually("the job", async || {
            let list = team.client.get(&format!("/api/teams/{}/jobs", team.id)).await.ok();
            list["jobs"][0]["job_id"].as_str().map(str::to_owned)
        });
        let path = format!("/api/jobs/{}/llm-call-stream", job.await);
        let other = team.client.stream(&path, prompt_with("[[first_ms=8000]] hello", json!({}))).await;
        assert_eq!(other.rest().await.last().map(String::as_str), Some("data: [DONE]"));
    });
    own.ok();
    let job = only_job(&team).await;
    let statuses: Vec<&Value> =
        job["calls"].as_array().expect("calls").iter().map(|call| &call["status"]).collect();
    assert_eq!(statuses, ["succeeded", "cancelled"]);
    assert_eq!((&job["status"], &job["credit_applied"]), (&json!("completed"), &json!(true)));
    assert_eq!(credits(&team).await, [0, 0]);
    app.check_invariants().await;
}

#[tokio::test]
async fn other_models_are_tried_within_the_one_call() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let team = app.team_using(&["err503", "gpt-4o-mini"], 2).await;
    buffered(&team, "hello", json!({})).await.ok();
    events(stream(&team, "hello", json!({})).await).await;
    assert_eq!(models_asked(stand_in), ["err503", "gpt-4o-mini", "err503", "gpt-4o-mini"]);
    assert_eq!(credits(&team).await, [0, 0]);
    app.check_invariants().await;
}

#[tokio::test]
async fn what_is_refused_before_the_call_leaves_nothing_behind() {
    let app = TestApp::start().await;
    let (team, other, poor, groupless) = (
        app.team(1).await,
        app.team(1).await,
        app.team(0).await,
        app.team_with(json!({"credits_allocated": 1, "model_groups": []})).await,
    );
    let before = app.database.everything().await;
    for route in ROUTES {
        let ask = async |team: &Team, fields: Value| team.client.post(route, body("hello", fields)).await;
        let refused = format!("API key does not belong to team '{}'", other.id);
        ask(&team, json!({"team_id": other.id})).await.refused(403, "wrong_team", &refused);
        let refused = format!("Team '{}' does not have access to model group 'Other'", team.id);
        ask(&team, json!({"model_group": "Other"})).await.refused(403, "model_group_denied", &refused);
        let refused = format!("Team '{}' has no model group", groupless.id);
        ask(&groupless, json!({})).await.refused(403, "model_group_denied", &refused);
        let refused = "Insufficient credits. Required: 1, Available: 0";
        ask(&poor, json!({})).await.refused(402, "insufficient_credits", refused);
        let nobody = app.nobody().post(route, body("hello", json!({}))).await;
        assert_eq!((nobody.status.as_u16(), &nobody.body["code"]), (401, &json!("unauthenticated")));
        assert_eq!(
            app.admin().post(route, body("hello", json!({}))).await.status,
            401,
            "a call needs the team's key"
        );
    }
    assert_eq!(app.database.everything().await, before);
    if let Some(stand_in) = app.stand_in() {
        assert_eq!(models_asked(stand_in), Vec::<String>::new());
    }
}

#[tokio::test]
async fn fields_are_refused_as_in_a_call_and_those_of_the_job_as_in_a_job() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    let before = app.database.everything().await;
    for (route, streamed) in ROUTES.iter().zip([false, true]) {
        for (field, body) in [
            ("job_type", json!({"messages": [{"role": "user", "content": "hello"}]})),
            ("job_type", body("hello", json!({"job_type": ""}))),
            ("job_type", body("hello", json!({"job_type": 5}))),
            ("messages", json!({"job_type": "chat"})),
            ("messages", body("hello", json!({"messages": []}))),
            ("team_id", body("hello", json!({"team_id": "a b"}))),
            ("user_id", body("hello", json!({"user_id": ""}))),
            ("job_metadata", body("hello", json!({"job_metadata": [1]}))),
            ("job_metadata", body("hello", json!({"job_metadata": {"a": "x".repeat(20_000)}}))),
            ("temperature", body("hello", json!({"temperature": 3}))),
            ("stream", body("hello", json!({"stream": !streamed}))),
            ("api_base", body("hello", json!({"api_base": "http://evil"}))),
            ("api_key", body("hello", json!({"api_key": "sk-x"}))),
            ("metadata", body("hello", json!({"metadata": {}}))),
            ("fallbacks", body("hello", json!({"fallbacks": ["gpt-4"]}))),
            ("status", body("hello", json!({"status": "completed"}))),
        ] {
            let answer = team.client.post(route, body).await;
            let named = answer.body["detail"]
                .as_str()
                .is_some_and(|detail| detail.starts_with(&format!("{field}: ")));
            assert!(answer.status == 400 && named, "{route} {field}: {}", answer.text);
        }
    }
    assert_eq!(app.database.everything().await, before);
}

#[tokio::test]
async fn a_client_that_hangs_up_on_the_stream_has_had_its_job() {
    let app = TestApp::start().await;
    let team = app.team(2).await;
    let mut stream = stream(&team, "[[chunks=50]] [[delay_ms=100]] hello", json!({})).await;
    let job = stream.headers["x-job-id"].to_str().expect("text").to_owned();
    stream.next_data().await.expect("an event");
    drop(stream);

    let call = call_when(&team, &job, "the end of the call", |call| call["status"] != "open").await;

    assert_eq!(call["status"], "cancelled");
    let ended = team.read(&job).await;
    assert_eq!((&ended["status"], &ended["credit_applied"]), (&json!("completed"), &json!(true)));
    assert_eq!(credits(&team).await, [1, 1]);
    call_when(&team, &job, "LiteLLM's bill", |call| call["cost_usd"].as_f64() > Some(0.0)).await;
    assert_eq!(credits(&team).await, [1, 1]);
    app.check_invariants().await;
}

#[tokio::test]
async fn a_client_that_does_not_wait_for_its_answer_has_had_its_job() {
    let app = TestApp::start().await;
    let team = app.team(2).await;
    let asked = buffered(&team, "[[first_ms=4000]] hello", json!({}));
    let begun = eventually("its call", async || (calls_that_are(&app, "open").await == 1).then_some(()));
    tokio::select! {
        answer = asked => panic!("answered before the client left: {}", answer.text),
        () = begun => {}
    }
    let job = eventually("the end of the job", async || {
        let job = only_job(&team).await;
        (job["status"] == "completed").then_some(job)
    })
    .await;
    assert_eq!((&job["credit_applied"], &job["calls"][0]["status"]), (&json!(true), &json!("succeeded")));
    assert_eq!(credits(&team).await, [1, 1]);
    app.check_invariants().await;
}

#[tokio::test]
async fn of_many_at_once_as_many_are_made_as_there_are_credits() {
    let app = TestApp::start().await;
    let team = app.team(5).await;
    let asked = (0..12).map(async |n| match n % 2 {
        0 => buffered(&team, "[[first_ms=300]] hello", json!({})).await.status,
        _ => {
            let stream = stream(&team, "[[first_ms=300]] hello", json!({})).await;
            let status = stream.status;
            stream.rest().await;
            status
        }
    });
    let statuses: Vec<u16> =
        futures::future::join_all(asked).await.iter().map(|status| status.as_u16()).collect();
    let made = statuses.iter().filter(|status| **status == 200).count();
    assert_eq!((made, statuses.iter().filter(|status| **status == 402).count()), (5, 7), "{statuses:?}");
    assert_eq!(credits(&team).await, [0, 0]);
    app.check_invariants().await;
}

#[tokio::test]
async fn a_job_of_its_own_is_billed_by_its_teams_terms() {
    let app = TestApp::start().await;
    let group = app.model_group(&["expensive"]).await;
    let terms = json!({
        "credits_allocated": 100, "max_budget": 1000, "model_groups": [group], "billing_mode": "consumption_usd",
        "pricing": {"mode": "markup", "markup_percent": 50},
    });
    let team = app.team_with(terms).await;
    let dear = "[[prompt_tokens=501]] [[completion_tokens=0]]";
    assert_eq!(buffered(&team, dear, json!({})).await.ok()["costs"]["credits_charged"], 6);
    let (events, _) = events(stream(&team, dear, json!({})).await).await;
    assert_eq!(events.last().expect("a summary")["costs"]["credits_charged"], 6);
    let usage = app.admin().get(&format!("/api/teams/{}/usage", team.id)).await.ok();
    assert_eq!((&usage["summary"]["credits_used"], usage["revenue_usd"].as_f64()), (&json!(12), Some(1.503)));
    app.check_invariants().await;
}

#[tokio::test]
async fn a_job_that_others_end_while_its_call_runs_ends_once() {
    let app = TestApp::start().await;
    let team = app.team(2).await;
    let mut stream = stream(&team, "[[chunks=10]] [[delay_ms=100]] hello", json!({})).await;
    let job = stream.headers["x-job-id"].to_str().expect("text").to_owned();
    stream.next_data().await.expect("an event");
    team.complete(&job, "cancelled").await.ok();
    let rest = stream.rest().await;
    assert_eq!(rest.last().map(String::as_str), Some("data: [DONE]"));
    let read = team.read(&job).await;
    assert_eq!(
        [&read["status"], &read["credit_applied"], &read["calls"][0]["status"]],
        [&json!("cancelled"), &json!(false), &json!("cancelled")]
    );
    assert_eq!(credits(&team).await, [2, 2]);
    app.check_invariants().await;
}
