//! `/metrics`: Prometheus' text format, and what it counts.

use crate::amounts::decimal;
use api_tests::{Answer, Options, Team, TestApp};
use rust_decimal::Decimal;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// A sample: its name and its labels.
type Series = (String, BTreeMap<String, String>);

/// Everything of a scrape.
#[derive(Debug)]
struct Scrape {
    /// `counter`, `gauge` or `histogram`, by the family's name.
    kinds: BTreeMap<String, String>,
    samples: BTreeMap<Series, Decimal>,
}

impl Scrape {
    fn value(&self, name: &str, labels: &[(&str, &str)]) -> Decimal {
        let labels = labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let series: Series = (name.to_owned(), labels);
        *self.samples.get(&series).unwrap_or_else(|| panic!("no {series:?}"))
    }

    fn is(&self, name: &str, labels: &[(&str, &str)], expected: &str) {
        assert_eq!(self.value(name, labels), decimal(expected), "{name} {labels:?}");
    }
}

fn is_name(name: &str) -> bool {
    name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !name.starts_with(|c: char| c.is_ascii_digit())
}

/// Reads version 0.0.4 of the format, and panics at whatever is not quite it.
fn parse(text: &str) -> Scrape {
    assert!(text.ends_with('\n'), "the last line ends, too");
    let mut scrape = Scrape { kinds: BTreeMap::new(), samples: BTreeMap::new() };
    let (mut helped, mut current) = (BTreeSet::new(), String::new());
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = help.split_once(' ').expect("a help");
            assert!(is_name(name) && !text.is_empty() && helped.insert(name), "{line}");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect("a type");
            assert!(helped.contains(name) && ["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(
                scrape.kinds.insert(name.to_owned(), kind.to_owned()),
                None,
                "{line}: a family is in one place"
            );
            current = name.to_owned();
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line}"));
            let (name, labels) = match series.split_once('{') {
                Some((name, labels)) => (name, labels.strip_suffix('}').unwrap_or_else(|| panic!("{line}"))),
                None => (series, ""),
            };
            let family = match scrape.kinds.get(&current).map(String::as_str) {
                Some("histogram") => {
                    ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part))
                }
                _ => Some(name),
            };
            assert!(is_name(name) && family == Some(&current), "{line}: not of {current}");
            let labels: BTreeMap<String, String> = labels
                .split_terminator(',')
                .map(|label| {
                    let (name, value) = label.split_once('=').unwrap_or_else(|| panic!("{line}"));
                    let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
                    let value = value
                        .filter(|value| !value.contains(['"', '\\', '\n']))
                        .unwrap_or_else(|| panic!("{line}"));
                    (name.to_owned(), value.to_owned())
                })
                .collect();
            let value = decimal(value);
            assert!(value >= Decimal::ZERO, "{line}");
            assert_eq!(scrape.samples.insert((name.to_owned(), labels), value), None, "{line}: given twice");
        }
    }
    check_histograms(&scrape);
    scrape
}

/// Buckets count up with their bounds, and the last one holds all that the count says.
fn check_histograms(scrape: &Scrape) {
    let mut histograms: BTreeMap<Series, Vec<(Option<Decimal>, Decimal)>> = BTreeMap::new();
    for ((name, labels), value) in &scrape.samples {
        let Some(family) = name.strip_suffix("_bucket") else { continue };
        let mut labels = labels.clone();
        let bound = labels.remove("le").expect("a bound");
        let bound = (bound != "+Inf").then(|| decimal(&bound));
        histograms.entry((family.to_owned(), labels)).or_default().push((bound, *value));
    }
    for ((family, labels), mut buckets) in histograms {
        buckets.sort_by_key(|(bound, _)| (bound.is_none(), *bound));
        assert!(buckets.len() > 1 && buckets.is_sorted_by_key(|(_, count)| *count), "{family}: {buckets:?}");
        let (bound, all) = buckets.pop().expect("a bucket");
        assert_eq!(bound, None, "the last one has no bound");
        assert_eq!(scrape.samples.get(&(format!("{family}_count"), labels.clone())), Some(&all));
        assert!(scrape.samples.contains_key(&(format!("{family}_sum"), labels)));
    }
}

async fn scrape(app: &TestApp) -> Scrape {
    let answer = app.admin().get("/metrics").await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    parse(&answer.text)
}

async fn call(team: &Team, job: &str, group: &str, prompt: &str) {
    let body = json!({"model_group": group, "messages": [{"role": "user", "content": prompt}]});
    team.client.post(&format!("/api/jobs/{job}/llm-call"), body).await;
}

/// `GET /metrics`
#[tokio::test]
async fn metrics_count_what_has_happened() {
    let app = TestApp::start().await;
    let (works, fails) = (app.model_group(&["expensive"]).await, app.model_group(&["err500"]).await);
    let groups = json!([works, fails]);
    let team =
        app.team_with(json!({"credits_allocated": 9, "max_budget": 100, "model_groups": groups})).await;
    let other = app.team(11).await;
    for end in ["completed", "completed", "failed", "cancelled", "open"] {
        let job = team.job().await;
        call(&team, &job, &works, "[[prompt_tokens=100]] [[completion_tokens=1]]").await;
        if end == "failed" {
            call(&team, &job, &fails, "hello").await;
        }
        if end == "open" {
            call(&team, &job, &works, "[[first_ms=600]] [[prompt_tokens=0]] [[completion_tokens=0]]").await;
        } else {
            team.complete(&job, end).await.ok();
        }
    }
    let late = other
        .client
        .post("/api/jobs/create", json!({"team_id": other.id, "job_type": "x", "expires_in_seconds": 1}));
    late.await.ok();
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    app.admin().post("/api/upkeep", json!({})).await.ok();

    let scrape = scrape(&app).await;

    scrape.is("llm_jobs_jobs_created_total", &[], "6");
    for (status, expected) in [("completed", "2"), ("failed", "1"), ("cancelled", "1"), ("expired", "1")] {
        scrape.is("llm_jobs_jobs_ended_total", &[("status", status)], expected);
    }
    scrape.is("llm_jobs_lost_settlements_total", &[], "0");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time").as_secs();
    for step in ["jobs", "months", "messages", "costs", "deletions", "history"] {
        let labels = [("step", step)];
        let at = scrape.value("llm_jobs_upkeep_last_success_timestamp_seconds", &labels);
        assert!((Decimal::from(now - 60)..=Decimal::from(now + 1)).contains(&at), "{step}: {at}");
    }
    for (state, expected) in [("allocated", "20"), ("used", "2"), ("reserved", "1")] {
        scrape.is("llm_jobs_credits", &[("state", state)], expected);
    }
    for (group, succeeded, failed) in [(&works, "6", "0"), (&fails, "0", "1")] {
        for (status, expected) in
            [("succeeded", succeeded), ("failed", failed), ("cancelled", "0"), ("abandoned", "0")]
        {
            scrape.is("llm_jobs_calls_total", &[("model_group", group), ("status", status)], expected);
        }
        let all = decimal(succeeded) + decimal(failed);
        assert_eq!(scrape.value("llm_jobs_call_latency_seconds_count", &[("model_group", group)]), all);
    }
    scrape.is("llm_jobs_tokens_total", &[("model_group", &works)], "505");
    scrape.is("llm_jobs_cost_usd_total", &[("model_group", &works)], "0.505");
    scrape.is("llm_jobs_cost_usd_total", &[("model_group", &fails)], "0");
    let bucket = |le: &str| {
        scrape.value("llm_jobs_call_latency_seconds_bucket", &[("model_group", &works), ("le", le)])
    };
    assert!(bucket("0.5") <= Decimal::from(5), "the slow one took longer");
    assert_eq!(bucket("30"), Decimal::from(6));
    assert!(scrape.value("llm_jobs_call_latency_seconds_sum", &[("model_group", &works)]) >= decimal("0.6"));
    for (name, kind) in &scrape.kinds {
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name}");
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn a_scrape_before_any_traffic_is_complete_too() {
    let app = TestApp::start().await;
    let scrape = scrape(&app).await;
    scrape.is("llm_jobs_jobs_created_total", &[], "0");
    assert_eq!(scrape.kinds.get("llm_jobs_call_latency_seconds").map(String::as_str), Some("histogram"));
}

#[tokio::test]
async fn calls_that_were_abandoned_or_cancelled_are_counted_as_such() {
    let app = TestApp::start().await;
    let group = app.model_group(&["gpt-4o-mini"]).await;
    let team = app.team_with(json!({"credits_allocated": 5, "model_groups": [group]})).await;
    let job = team.job().await;
    let body = json!({"messages": [{"role": "user", "content": "[[chunks=8]] [[delay_ms=100]]"}]});
    let mut stream = team.client.stream(&format!("/api/jobs/{job}/llm-call-stream"), body).await;
    stream.next_data().await.expect("an event");
    team.complete(&job, "completed").await.ok();
    stream.rest().await;
    let open = team.job().await;
    team.call(&open, "hello").await.ok();
    let reopened =
        "UPDATE calls SET status = 'open', ended_at = NULL, deadline = now() WHERE job_id = $1::text::uuid";
    app.database.client.execute(reopened, &[&open]).await.expect("an open call");
    team.balance().await;
    let scrape = scrape(&app).await;
    for (status, expected) in [("cancelled", "1"), ("abandoned", "1")] {
        scrape.is("llm_jobs_calls_total", &[("model_group", &group), ("status", status)], expected);
    }
}

#[tokio::test]
async fn counters_never_go_back_also_when_a_team_is_deleted_or_a_month_dropped() {
    let variables = vec![("retention_months", "1".to_owned())];
    let app = TestApp::start_with(Options { variables, ..Options::default() }).await;
    let team = app.team(5).await;
    for end in ["completed", "failed"] {
        let job = team.job().await;
        team.call(&job, "hello").await.ok();
        team.complete(&job, end).await.ok();
    }
    let before = scrape(&app).await;
    let delete = app.admin().request(reqwest::Method::DELETE, &format!("/api/teams/{}", team.id));
    Answer::of(delete).await.ok();
    app.admin().post("/api/upkeep", json!({})).await.ok();
    let after = scrape(&app).await;
    for (series, value) in before.samples {
        if !series.0.starts_with("llm_jobs_credits") {
            assert_eq!(after.samples[&series], value, "{series:?}");
        }
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn metrics_are_the_admins() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    for client in [team.client.clone(), app.nobody(), app.client(Some(("x-admin-key", "wrong".into())))] {
        let answer = client.get("/metrics").await;
        assert_eq!(
            (answer.status.as_u16(), &answer.body["code"]),
            (401, &json!("unauthenticated")),
            "{}",
            answer.text
        );
    }
}

#[tokio::test]
async fn the_usage_of_a_call_that_is_gone_is_counted_and_logged_as_lost() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    let job = team.job().await;
    let gone = async {
        team.open_call(&job).await;
        crate::fixtures::sql(&app, "DELETE FROM calls").await;
    };
    let (answer, ()) = futures::join!(team.call(&job, "[[first_ms=1500]] hello"), gone);
    let call = answer.ok()["call_id"].as_str().expect("an id").to_owned();
    scrape(&app).await.is("llm_jobs_lost_settlements_total", &[], "1");
    let logs = app.logs();
    let line = logs.lines().find(|line| line.contains("settling a call")).expect("a line");
    assert!(line.contains(&call) && line.contains(&job), "{line}");
}
