//! Limits of what a job may make and cost, and of what a team may have open: the deployment's, or the team's own.

use crate::fixtures::{calls_that_are, completions, early_in_a_minute, prompt, sql, stream_refusal};
use api_tests::{Answer, Options, Team, TestApp, behind_our_back, eventually};
use futures::future::join_all;
use serde_json::{Value, json};

/// A team with these limits of its own, whose calls cost a dollar for a thousand tokens and are not bounded by LiteLLM.
async fn limited(app: &TestApp, limits: Value) -> Team {
    let group = app.model_group(&["expensive"]).await;
    let fields = json!({
        "credits_allocated": 50, "max_budget": 1_000_000, "model_groups": [group], "limits": limits,
    });
    app.team_with(fields).await
}

/// An application whose deployment has this limit.
async fn app_with(variable: &'static str, value: &str) -> TestApp {
    TestApp::start_with(Options { variables: vec![(variable, value.to_owned())], ..Options::default() }).await
}

async fn change(app: &TestApp, team: &Team, limits: Value) -> Value {
    app.admin().put(&format!("/api/teams/{}", team.id), json!({"limits": limits})).await.ok()["limits"]
        .clone()
}

async fn open_job(team: &Team) -> Answer {
    team.client.post("/api/jobs/create", json!({"team_id": team.id, "job_type": "test"})).await
}

/// A call that is open for so long that others are refused meanwhile.
const LONG: &str = "[[first_ms=4000]] hello";

/// Opens so many long calls in a job, runs `meanwhile`, and waits until they are answered.
async fn with_open_calls<T>(
    app: &TestApp,
    team: &Team,
    jobs: &[String],
    meanwhile: impl AsyncFnOnce() -> T,
) -> T {
    let calls = join_all(jobs.iter().map(|job| team.call(job, LONG)));
    let during = async {
        let number = i64::try_from(jobs.len()).expect("a number");
        eventually("open calls", async || (calls_that_are(app, "open").await == number).then_some(())).await;
        meanwhile().await
    };
    let (answers, result) = futures::join!(calls, during);
    for answer in answers {
        answer.ok();
    }
    result
}

#[tokio::test]
async fn of_sixty_calls_at_once_in_one_job_sixteen_are_made_and_then_the_job_has_cost_enough() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let group = app.model_group(&["expensive"]).await;
    // One credit is $0.10 of LiteLLM's budget, which LiteLLM compares with what has been spent before.
    let team = app.team_with(json!({"credits_allocated": 1, "model_groups": [group]})).await;
    let job = team.job().await;
    let dear = "[[first_ms=6000]] [[prompt_tokens=3000]] [[completion_tokens=0]] x";
    let answers = join_all((0..60).map(|_| team.call(&job, dear))).await;

    let detail = format!("open_calls_per_job: a job of team '{}' may have at most 16 open calls", team.id);
    let (made, refused): (Vec<Answer>, Vec<Answer>) =
        answers.into_iter().partition(|answer| answer.status == 200);
    assert_eq!((made.len(), refused.len()), (16, 44));
    for answer in refused {
        assert_eq!(answer.header("retry-after"), Some("1"));
        answer.refused(429, "too_many_calls", &detail);
    }
    // What one credit costs at most: the limit of a job's cost, which was not reached yet, and so many of its dearest
    // calls.
    assert_eq!(completions(stand_in).len(), 16);
    assert_eq!(team.read(&job).await["total_cost_usd"], json!(48));
    let detail = "cost_usd_per_job: the job may not cost more";
    team.call(&job, "hello").await.refused(403, "job_limit", detail);
    stream_refusal(&team, &job, prompt("hello")).await.refused(403, "job_limit", detail);
    assert_eq!(completions(stand_in).len(), 16);
    let costs = team.complete(&job, "completed").await.ok()["costs"].clone();
    assert_eq!((&costs["total_calls"], &costs["credits_charged"]), (&json!(16), &json!(1)));
    app.check_invariants().await;
}

#[tokio::test]
async fn calls_of_a_job_are_counted_whatever_became_of_them() {
    let app = app_with("limit_calls_per_job", "2").await;
    let team = limited(&app, json!({})).await;
    let refusal =
        |most: u32| format!("calls_per_job: a job of team '{}' may make at most {most} calls", team.id);
    let job = team.job().await;
    team.call(&job, "hello").await.ok();
    assert_eq!(team.call(&job, "[[status=500]] x").await.status, 502);
    team.call(&job, "hello").await.refused(403, "job_limit", &refusal(2));
    // Each has its own.
    change(&app, &team, json!({"calls_per_job": 3})).await;
    team.call(&job, "hello").await.ok();
    stream_refusal(&team, &job, prompt("hello")).await.refused(403, "job_limit", &refusal(3));
    change(&app, &team, json!({"calls_per_job": 0})).await;
    team.call(&job, "hello").await.ok();
    change(&app, &team, json!({"calls_per_job": null})).await;
    team.call(&job, "hello").await.refused(403, "job_limit", &refusal(2));
    assert_eq!(team.read(&job).await["total_calls"], 4, "what is refused before it is opened is no call");
    app.check_invariants().await;
}

#[tokio::test]
async fn open_calls_of_a_job_are_limited_until_one_ends() {
    let app = app_with("limit_open_calls_per_job", "1").await;
    let team = limited(&app, json!({})).await;
    let job = team.job().await;
    let jobs = [job.clone()];
    let refused = |most: u32| {
        format!("open_calls_per_job: a job of team '{}' may have at most {most} open calls", team.id)
    };
    with_open_calls(&app, &team, &jobs, async || {
        let answer = team.call(&job, "hello").await;
        assert_eq!(answer.header("retry-after"), Some("1"));
        answer.refused(429, "too_many_calls", &refused(1));
        stream_refusal(&team, &job, prompt("hello")).await.refused(429, "too_many_calls", &refused(1));
        let other = team.job().await;
        team.call(&other, "hello").await.ok();
        change(&app, &team, json!({"open_calls_per_job": 2})).await;
        team.call(&job, "hello").await.ok();
        change(&app, &team, json!({"open_calls_per_job": 0})).await;
        team.call(&job, "hello").await.ok();
        change(&app, &team, json!({"open_calls_per_job": null})).await;
        team.call(&job, "hello").await.refused(429, "too_many_calls", &refused(1));
    })
    .await;
    team.call(&job, "hello").await.ok();
    app.check_invariants().await;
}

#[tokio::test]
async fn open_calls_of_a_team_are_limited_over_all_its_jobs() {
    let app = app_with("limit_open_calls", "2").await;
    let team = limited(&app, json!({})).await;
    let stranger = limited(&app, json!({})).await;
    let jobs = [team.job().await, team.job().await];
    let refused = |most: u32| format!("open_calls: team '{}' may have at most {most} open calls", team.id);
    let strangers_job = stranger.job().await;
    with_open_calls(&app, &team, &jobs, async || {
        let third = team.job().await;
        let answer = team.call(&third, "hello").await;
        assert_eq!(answer.header("retry-after"), Some("1"));
        answer.refused(429, "too_many_calls", &refused(2));
        team.call(&jobs[0], "hello").await.refused(429, "too_many_calls", &refused(2));
        let own = json!({"job_type": "test", "messages": [{"role": "user", "content": "hello"}]});
        let answer = team.client.post("/api/jobs/create-and-call", own).await;
        answer.refused(429, "too_many_calls", &refused(2));
        stranger.call(&strangers_job, "hello").await.ok();
        change(&app, &team, json!({"open_calls": 3})).await;
        team.call(&third, "hello").await.ok();
        change(&app, &team, json!({"open_calls": 0})).await;
        team.call(&third, "hello").await.ok();
        change(&app, &team, json!({"open_calls": null})).await;
        team.call(&third, "hello").await.refused(429, "too_many_calls", &refused(2));
    })
    .await;
    team.call(&jobs[0], "hello").await.ok();
    assert_eq!(team.balance().await["credits_reserved"], 3, "a refused job of its own holds nothing");
    app.check_invariants().await;
}

#[tokio::test]
async fn open_jobs_of_a_team_are_limited_until_one_ends() {
    let app = app_with("limit_open_jobs", "2").await;
    let team = limited(&app, json!({})).await;
    let refused = |most: u32| format!("open_jobs: team '{}' may have at most {most} open jobs", team.id);
    let first = team.job().await;
    team.job().await;
    let answer = open_job(&team).await;
    assert_eq!(answer.header("retry-after"), Some("1"));
    answer.refused(429, "too_many_calls", &refused(2));
    let own = json!({"job_type": "test", "messages": [{"role": "user", "content": "hello"}]});
    let answer = team.client.post("/api/jobs/create-and-call", own).await;
    answer.refused(429, "too_many_calls", &refused(2));
    change(&app, &team, json!({"open_jobs": 3})).await;
    team.job().await;
    open_job(&team).await.refused(429, "too_many_calls", &refused(3));
    change(&app, &team, json!({"open_jobs": 0})).await;
    let fourth = team.job().await;
    change(&app, &team, json!({"open_jobs": null})).await;
    for job in [first, fourth] {
        open_job(&team).await.refused(429, "too_many_calls", &refused(2));
        team.complete(&job, "completed").await.ok();
    }
    open_job(&team).await.refused(429, "too_many_calls", &refused(2));
    app.check_invariants().await;
}

#[tokio::test]
async fn a_jobs_cost_is_limited_by_what_is_known_and_what_a_call_of_the_group_costs_on_the_average() {
    let app = app_with("limit_cost_usd_per_job", "1").await;
    let team = limited(&app, json!({})).await;
    let job = team.job().await;
    let dear = "[[prompt_tokens=400]] [[completion_tokens=0]] x";
    let detail = "cost_usd_per_job: the job may not cost more";
    // Nothing is known of the group before its first call.
    team.call(&job, dear).await.ok();
    team.call(&job, dear).await.ok();
    team.call(&job, dear).await.refused(403, "job_limit", detail);
    // $0.80 are known, and one more is expected to cost $0.40.
    change(&app, &team, json!({"cost_usd_per_job": 1.2})).await;
    team.call(&job, dear).await.ok();
    team.call(&job, dear).await.refused(403, "job_limit", detail);
    change(&app, &team, json!({"cost_usd_per_job": 0})).await;
    team.call(&job, dear).await.ok();
    change(&app, &team, json!({"cost_usd_per_job": null})).await;
    team.call(&job, dear).await.refused(403, "job_limit", detail);
    let other = team.job().await;
    team.call(&other, dear).await.ok();
    assert_eq!(team.read(&job).await["total_cost_usd"], json!(1.6));
    app.check_invariants().await;
}

#[tokio::test]
async fn calls_that_are_open_count_with_what_they_are_expected_to_cost() {
    let app = TestApp::start().await;
    let team = limited(&app, json!({"cost_usd_per_job": 2})).await;
    let before = team.job().await;
    team.call(&before, "[[prompt_tokens=1000]] [[completion_tokens=0]] x").await.ok();
    let job = team.job().await;
    with_open_calls(&app, &team, &[job.clone(), job.clone()], async || {
        let detail = "cost_usd_per_job: the job may not cost more";
        team.call(&job, "hello").await.refused(403, "job_limit", detail);
    })
    .await;
    // They were much cheaper than that.
    team.call(&job, "hello").await.ok();
    app.check_invariants().await;
}

#[tokio::test]
async fn limits_are_shown_and_changed_one_by_one() {
    let app = TestApp::start().await;
    let names = ["calls_per_job", "cost_usd_per_job", "open_calls", "open_calls_per_job", "open_jobs"];
    let none = json!(
        names.map(|name| (name.to_owned(), Value::Null)).into_iter().collect::<serde_json::Map<_, _>>()
    );
    let team = app.team(5).await;
    let path = format!("/api/teams/{}", team.id);
    let mut expected = none.clone();
    assert_eq!(team.client.get(&path).await.ok()["limits"], none);
    for (name, value) in [
        ("calls_per_job", json!(10)),
        ("open_calls_per_job", json!(0)),
        ("open_calls", json!(1_000_000_000)),
        ("open_jobs", json!(7)),
        ("cost_usd_per_job", json!(2.5)),
        ("calls_per_job", Value::Null),
        ("cost_usd_per_job", json!(0)),
        ("cost_usd_per_job", Value::Null),
    ] {
        expected[name] = value.clone();
        assert_eq!(change(&app, &team, json!({name: value})).await, expected, "{name}");
        assert_eq!(team.client.get(&path).await.ok()["limits"], expected, "{name}");
    }
    assert_eq!(change(&app, &team, json!({})).await, expected, "nothing is named, nothing changes");
    let limits = json!({"calls_per_job": 3, "open_jobs": 0, "cost_usd_per_job": 0.5});
    let made = app.team_with(json!({"limits": limits})).await;
    let shown = app.admin().get(&format!("/api/teams/{}", made.id)).await.ok()["limits"].clone();
    let mut expected = none;
    expected.as_object_mut().expect("an object").extend(limits.as_object().expect("an object").clone());
    assert_eq!(shown, expected);

    for (name, value) in [
        ("calls_per_job", json!(-1)),
        ("calls_per_job", json!(1.5)),
        ("open_calls", json!("many")),
        ("open_calls_per_job", json!(1_000_000_001)),
        ("open_jobs", json!([])),
        ("cost_usd_per_job", json!(-0.01)),
        ("cost_usd_per_job", json!("1")),
        ("jobs_per_week", json!(1)),
    ] {
        let answer = app.admin().put(&path, json!({"limits": {name: value}})).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.body["code"]),
            (400, &json!("invalid_request")),
            "{name} {value}"
        );
        assert!(answer.text.contains(name), "{}", answer.text);
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn the_limit_of_open_calls_is_told_to_litellm_for_every_key() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let known = |team: &Team| -> Vec<Option<i64>> {
        stand_in.keys_of(&team.id).iter().map(|key| key.max_parallel_requests).collect()
    };
    let team = app.team(5).await;
    assert_eq!(known(&team), [Some(256)], "the deployment's");
    change(&app, &team, json!({"open_calls": 5})).await;
    assert_eq!(known(&team), [Some(5)]);
    let keys = format!("/api/teams/{}/keys", team.id);
    app.admin().post(&format!("{keys}/create"), json!({"alias": "ci"})).await.ok();
    app.admin().post(&format!("{keys}/rotate"), json!({"grace_seconds": 60})).await.ok();
    assert_eq!(known(&team), [Some(5); 3]);
    change(&app, &team, json!({"open_calls": 0})).await;
    assert_eq!(known(&team), [None; 3]);
    let unlimited = app.team_with(json!({"limits": {"open_calls": 0}})).await;
    assert_eq!(known(&unlimited), [None]);
}

/// Takes the limits of a rate away in LiteLLM, as one without Redis forgets them.
async fn without_litellms_limits(app: &TestApp, team: &Team) {
    let Some(stand_in) = app.stand_in() else { return };
    let key = stand_in.keys_of(&team.id).remove(0).token;
    let none = json!({"key": key, "team_id": team.id, "rpm_limit": null, "tpm_limit": null});
    behind_our_back(stand_in, "/key/update", none.clone()).await;
    behind_our_back(stand_in, "/team/update", none).await;
}

/// Lets a minute go by for the rates of all teams.
async fn let_a_minute_pass(app: &TestApp) {
    sql(app, "UPDATE team_rates SET minute = minute - interval '1 minute'").await;
}

#[tokio::test]
async fn requests_a_minute_are_limited_here_whatever_litellm_does() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let team = app.team_with(json!({"credits_allocated": 5, "rpm_limit": 2})).await;
    without_litellms_limits(&app, &team).await;
    early_in_a_minute(&app).await;
    let job = team.job().await;
    for _ in 0..2 {
        team.call(&job, "hello").await.ok();
    }
    let detail = format!("rpm_limit: team '{}' may make at most 2 calls a minute", team.id);
    for answer in [team.call(&job, "hello").await, stream_refusal(&team, &job, prompt("hello")).await] {
        let seconds = answer.header("retry-after").expect("retry-after").parse::<u32>().expect("seconds");
        assert!((1..=60).contains(&seconds), "{seconds}");
        answer.refused(429, "rate_limited", &detail);
    }
    assert_eq!(completions(stand_in).len(), 2, "LiteLLM was not asked");
    let_a_minute_pass(&app).await;
    team.call(&job, "hello").await.ok();
    // What was refused before it was a call is none.
    let costs = team.complete(&job, "completed").await.ok()["costs"].clone();
    assert_eq!(
        [&costs["total_calls"], &costs["refused_calls"], &costs["credit_applied"]],
        [&json!(3), &json!(0), &json!(true)]
    );
    app.check_invariants().await;
}

#[tokio::test]
async fn tokens_a_minute_are_limited_here_whatever_litellm_does() {
    let app = TestApp::start().await;
    let Some(stand_in) = app.stand_in() else { return };
    let team = app.team_with(json!({"credits_allocated": 5, "tpm_limit": 1000})).await;
    without_litellms_limits(&app, &team).await;
    early_in_a_minute(&app).await;
    let job = team.job().await;
    for _ in 0..2 {
        team.call(&job, "[[prompt_tokens=300]] [[completion_tokens=200]] x").await.ok();
    }
    let detail = format!("tpm_limit: team '{}' may use at most 1000 tokens a minute", team.id);
    team.call(&job, "hello").await.refused(429, "rate_limited", &detail);
    assert_eq!(completions(stand_in).len(), 2, "LiteLLM was not asked");
    let_a_minute_pass(&app).await;
    team.call(&job, "hello").await.ok();
    app.admin().put(&format!("/api/teams/{}", team.id), json!({"tpm_limit": null})).await.ok();
    for _ in 0..3 {
        team.call(&job, "[[prompt_tokens=900]] [[completion_tokens=0]] x").await.ok();
    }
    app.check_invariants().await;
}
