//! What a defect that panics leaves behind. A trap ends a component's instance with everything in it; what the database
//! knows by then is not lost, and what was open ends by its deadline.
//!
//! The traps come from the test-only component `trap`, which runs beside the product's and opens calls as they do.

use crate::fixtures::{call_when, calls_that_are, events, prompt, stream};
use api_tests::{Answer, Options, Team, TestApp, eventually};
use futures::future::join_all;
use serde_json::json;
use std::time::Duration;

/// The component as an addition to `spin.toml`: what `llm-call` gets.
const TRAP: &str = r#"
[[trigger.http]]
route = "/test/trap/:job_id"
component = "trap"

[component.trap]
source = "target/wasm32-wasip2/release/trap.wasm"
allowed_outbound_hosts = ["postgres://{{ database_host }}:{{ database_port }}", "{{ litellm_url }}"]
key_value_stores = ["default"]

[component.trap.variables]
database_address = "host='{{ database_host }}' port={{ database_port }} dbname='{{ database_name }}' user='{{ database_user }}' password='{{ database_password }}' sslmode={{ database_sslmode }}"
auth_cache_seconds = "{{ auth_cache_seconds }}"
litellm_url = "{{ litellm_url }}"
llm_timeout_seconds = "{{ llm_timeout_seconds }}"
llm_idle_seconds = "{{ llm_idle_seconds }}"
litellm_connect_seconds = "{{ litellm_connect_seconds }}"
store_messages_days = "{{ store_messages_days }}"
limit_calls_per_job = "{{ limit_calls_per_job }}"
limit_open_calls_per_job = "{{ limit_open_calls_per_job }}"
limit_open_calls = "{{ limit_open_calls }}"
limit_open_jobs = "{{ limit_open_jobs }}"
limit_cost_usd_per_job = "{{ limit_cost_usd_per_job }}"
costs_visible_to_teams = "{{ costs_visible_to_teams }}"
"#;

async fn app_with_trap() -> TestApp {
    TestApp::start_with(Options { manifest_addition: TRAP, ..Options::default() }).await
}

/// Asks for a trap: see the component for when it comes.
async fn trap(team: &Team, job: &str, when: &str) -> Answer {
    team.client.post(&format!("/test/trap/{job}?when={when}"), prompt("hello")).await
}

/// Lets the deadline of every open call pass.
async fn pass_deadlines(app: &TestApp) {
    let statement = "UPDATE calls SET deadline = now() - interval '1 second' WHERE status = 'open'";
    app.database.client.execute(statement, &[]).await.expect("an update");
}

#[tokio::test]
async fn calls_and_streams_settle_while_another_component_traps_again_and_again() {
    let app = app_with_trap().await;
    let teams = join_all((0..4).map(|_| app.team(20))).await;
    let victim = app.team_with(json!({"credits_allocated": 1, "limits": {"open_calls_per_job": 0}})).await;
    let victims_job = victim.job().await;

    let work = async |team: &Team| {
        for round in 0..5 {
            let job = team.job().await;
            let call = team.call(&job, "[[first_ms=100]] hello");
            let streamed = async { events(stream(team, &job, prompt("[[delay_ms=30]] hello")).await).await };
            let (answer, (_, done)) = tokio::join!(call, streamed);
            answer.ok();
            assert!(done, "round {round}");
            assert_eq!(team.complete(&job, "completed").await.ok()["costs"]["successful_calls"], json!(2));
        }
    };
    let traps = async {
        for _ in 0..20 {
            for when in ["at-once", "opened"] {
                assert_eq!(trap(&victim, &victims_job, when).await.status, 500);
            }
        }
    };
    tokio::join!(join_all(teams.iter().map(work)), traps);

    assert!(app.logs().contains("a trap on demand"), "{}", app.logs());
    for team in teams {
        assert_eq!(team.balance().await["credits_remaining"], json!(15));
    }
    assert_eq!((calls_that_are(&app, "succeeded").await, calls_that_are(&app, "open").await), (40, 20));
    pass_deadlines(&app).await;
    assert_eq!(victim.read(&victims_job).await["total_calls"], json!(20));
    assert_eq!(calls_that_are(&app, "abandoned").await, 20);
    app.check_invariants().await;
}

#[tokio::test]
async fn a_call_whose_component_trapped_is_abandoned_once_its_deadline_passes() {
    let app = app_with_trap().await;
    let team = app.team(2).await;
    let job = team.job().await;
    let refused = trap(&team, &job, "opened").await;
    assert_eq!(refused.status, 500);
    assert!(!refused.text.contains("trap on demand"), "{}", refused.text);
    let open = team.read(&job).await;
    assert_eq!((&open["status"], &open["calls"][0]["status"]), (&json!("in_progress"), &json!("open")));
    let deadline = "SELECT extract(epoch FROM deadline - created_at)::float8 FROM calls";
    let seconds: f64 = app.database.client.query_one(deadline, &[]).await.expect("the call").get(0);
    assert!((60.0..600.0).contains(&seconds), "{seconds}: longer than a call may take, and not much longer");

    pass_deadlines(&app).await;

    let call = team.read(&job).await["calls"][0].clone();
    assert_eq!(
        (&call["status"], &call["tokens"], &call["cost_usd"]),
        (&json!("abandoned"), &json!(0), &json!(null))
    );
    team.call(&job, "hello").await.ok();
    let costs = team.complete(&job, "completed").await.ok()["costs"].clone();
    assert_eq!(
        (&costs["total_calls"], &costs["successful_calls"], &costs["failed_calls"]),
        (&json!(2), &json!(1), &json!(0))
    );
    assert_eq!((&costs["credit_applied"], &costs["credits_remaining"]), (&json!(true), &json!(1)));
    app.check_invariants().await;
}

#[tokio::test]
async fn a_trap_takes_its_neighbours_with_it_and_their_jobs_can_still_be_completed() {
    let app = app_with_trap().await;
    let team = app.team(6).await;
    let jobs = join_all((0..5).map(|_| team.job())).await;
    let neighbours = jobs.iter().map(|job| trap(&team, job, "waiting"));
    let trapping = async {
        eventually("the neighbours' calls", async || (calls_that_are(&app, "open").await == 5).then_some(()))
            .await;
        // Which instance a request gets is the host's choice, so until all neighbours are gone.
        let job = team.job().await;
        loop {
            assert_eq!(trap(&team, &job, "at-once").await.status, 500);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let killed = tokio::select! {
        answers = join_all(neighbours) => answers,
        () = trapping => unreachable!("it traps for ever"),
        () = tokio::time::sleep(Duration::from_secs(30)) => panic!("the neighbours live"),
    };
    assert!(killed.iter().all(|answer| answer.status == 500), "{killed:?}");

    // Completing does not wait for a deadline.
    for job in &jobs {
        let completed = team.complete(job, "completed").await.ok();
        assert_eq!(completed["costs"]["credit_applied"], json!(true));
    }
    assert_eq!(calls_that_are(&app, "cancelled").await, 5);
    app.check_invariants().await;
}

#[tokio::test]
async fn a_trap_in_the_middle_of_an_answer_leaves_an_open_call_that_its_deadline_ends() {
    let app = app_with_trap().await;
    let team = app.team(1).await;
    let job = team.job().await;
    let stream = team.client.stream(&format!("/test/trap/{job}?when=answering"), prompt("hello")).await;
    assert_eq!(stream.status, 200);
    let events = stream.rest().await;
    assert!(!events.iter().any(|event| event.contains("[DONE]")), "cut off, and not the end: {events:?}");
    assert_eq!(team.read(&job).await["calls"][0]["status"], "open");
    pass_deadlines(&app).await;
    assert_eq!(team.read(&job).await["calls"][0]["status"], "abandoned");
    assert_eq!(team.complete(&job, "failed").await.ok()["costs"]["credit_applied"], json!(false));
    app.check_invariants().await;
}

#[tokio::test]
async fn a_call_that_ends_after_all_past_its_deadline_adds_what_it_used_and_stays_abandoned() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    let job = team.job().await;
    let mut stream = stream(&team, &job, prompt("[[chunks=15]] [[delay_ms=100]] hello")).await;
    stream.next_data().await.expect("an event");
    pass_deadlines(&app).await;
    assert_eq!(team.read(&job).await["calls"][0]["status"], "abandoned");

    assert_eq!(stream.rest().await.last().map(String::as_str), Some("data: [DONE]"));

    let call = call_when(&team, &job, "what it used", |call| !call["cost_usd"].is_null()).await;
    assert_eq!((&call["status"], &call["completion_tokens"]), (&json!("abandoned"), &json!(15)));
    app.check_invariants().await;
}

#[tokio::test]
async fn an_instance_of_the_product_that_is_killed_leaves_jobs_that_can_be_completed() {
    let settings =
        host::Settings { request_timeout: Some(Duration::from_secs(1)), ..host::Settings::default() };
    let app = TestApp::start_with(Options { settings, ..Options::default() }).await;
    let team = app.team(2).await;
    let (killed, other) = (team.job().await, team.job().await);
    let answer = team.call(&killed, "[[first_ms=5000]] hello").await;
    assert!(answer.status.is_server_error(), "{}", answer.text);
    assert_eq!(team.read(&killed).await["calls"][0]["status"], "open");

    team.call(&other, "hello").await.ok();
    pass_deadlines(&app).await;
    assert_eq!(team.read(&killed).await["calls"][0]["status"], "abandoned");

    for job in [killed, other] {
        assert_eq!(team.complete(&job, "completed").await.ok()["costs"]["credit_applied"], json!(true));
    }
    app.check_invariants().await;
}
