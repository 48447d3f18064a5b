//! Usage equals a recount of the jobs and calls that it is about, to the last digit.

use crate::{
    amounts::{amount, decimal, known_amount, members},
    usage::{busy_team, job_of, usage},
};
use api_tests::{Answer, Team, TestApp};
use futures::future::join_all;
use rust_decimal::Decimal;
use serde_json::{Value, json, value::RawValue};
use std::collections::BTreeMap;

const JOB_TYPES: [&str; 3] = ["analysis", "chat, \"casual\"", "=1+1"];

/// Jobs of all kinds with calls of all kinds, always the same for the same seed.
async fn traffic(team: &Team, groups: &[String], seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..8 {
        let job = job_of(team, JOB_TYPES[random.usize(0..3)]).await;
        for _ in 0..random.u32(0..4) {
            let mut prompt = format!(
                "[[prompt_tokens={}]] [[completion_tokens={}]] x",
                random.u32(0..3000),
                random.u32(0..3000)
            );
            match random.u32(0..8) {
                0 => prompt += " [[status=500]]",
                1 => prompt += " [[status=400]]",
                _ => {}
            }
            let group = &groups[random.usize(0..groups.len())];
            let body = json!({"model_group": group, "messages": [{"role": "user", "content": prompt}]});
            if random.bool() {
                team.client.post(&format!("/api/jobs/{job}/llm-call"), body).await;
            } else {
                team.client.stream(&format!("/api/jobs/{job}/llm-call-stream"), body).await.rest().await;
            }
        }
        let end = match random.u32(0..8) {
            0 => continue,
            1 => "failed",
            2 => "cancelled",
            _ => "completed",
        };
        team.complete(&job, end).await.ok();
    }
}

/// What a team's jobs and calls add up to, counted from the jobs themselves.
#[derive(Default)]
struct Recount {
    jobs: BTreeMap<String, i64>,
    calls: i64,
    refused: i64,
    unpriced: i64,
    charged: i64,
    /// The jobs that have ended, delivered something and are not charged.
    free: i64,
    /// The jobs that are open and have delivered something.
    delivering: i64,
    tokens: i64,
    credits: i64,
    cost: Decimal,
    revenue: Decimal,
    job_types: BTreeMap<String, (i64, Decimal)>,
    models: BTreeMap<String, (i64, Decimal)>,
}

/// Counts a team's jobs again; `price` says what the customer pays for the nth job that was charged, by what its calls
/// cost.
async fn recount(app: &TestApp, team: &Team, price: impl Fn(i64, Decimal) -> Decimal) -> Recount {
    let admin = app.admin();
    let mut sums = Recount::default();
    let list = admin.get(&format!("/api/teams/{}/jobs?limit=1000", team.id)).await.ok();
    let mut costs = BTreeMap::new();
    for job in list["jobs"].as_array().expect("jobs") {
        let id = job["job_id"].as_str().expect("an id");
        let read = admin.get(&format!("/api/jobs/{id}")).await;
        let exact: Vec<Box<RawValue>> =
            serde_json::from_str(members(&read.text)["calls"].get()).expect("calls");
        let job = read.ok();
        *sums.jobs.entry(job["status"].as_str().expect("a status").to_owned()).or_default() += 1;
        let of_type = sums.job_types.entry(job["job_type"].as_str().expect("a type").to_owned()).or_default();
        of_type.0 += 1;
        let mut of_job = Decimal::ZERO;
        let mut delivered = false;
        for (call, exact) in job["calls"].as_array().expect("calls").iter().zip(exact) {
            let cost = known_amount(exact.get(), &["cost_usd"]);
            sums.calls += 1;
            sums.refused += i64::from(call["status"] == "refused");
            delivered |= call["status"] == "succeeded";
            sums.unpriced += i64::from(cost.is_none());
            sums.tokens += call["tokens"].as_i64().expect("tokens");
            of_job += cost.unwrap_or_default();
            let tried = call["attempts"].as_array().and_then(|tried| tried.last()).expect("an attempt");
            let of_model =
                sums.models.entry(tried["model"].as_str().expect("a model").to_owned()).or_default();
            *of_model = (of_model.0 + 1, of_model.1 + cost.unwrap_or_default());
        }
        let charged = job["credit_applied"] == true;
        sums.charged += i64::from(charged);
        sums.free += i64::from(delivered && !charged && !job["completed_at"].is_null());
        sums.delivering += i64::from(delivered && job["completed_at"].is_null());
        sums.cost += of_job;
        of_type.1 += of_job;
        costs.insert(id.to_owned(), of_job);
    }
    let ledger = admin.get(&format!("/api/credits/teams/{}/transactions?limit=1000", team.id)).await.ok();
    let rows = ledger["transactions"].as_array().expect("rows").iter().rev();
    for (row, place) in rows.filter(|row| row["transaction_type"] == "deduction").zip(1..) {
        sums.credits += row["credits_amount"].as_i64().expect("an amount");
        sums.revenue += price(place, costs[row["job_id"].as_str().expect("a job")]);
    }
    sums
}

/// Fails the test unless the usage of a team or organization is this.
fn assert_usage(usage: &Answer, sums: &Recount) {
    let (json, text) = (usage.clone().ok(), &usage.text);
    let jobs = |status: &str| sums.jobs.get(status).copied().unwrap_or_default();
    let all: i64 = sums.jobs.values().sum();
    for (name, expected) in [
        ("total_jobs", all),
        ("successful_jobs", jobs("completed")),
        ("failed_jobs", jobs("failed")),
        ("cancelled_jobs", jobs("cancelled")),
        ("expired_jobs", jobs("expired")),
        ("total_calls", sums.calls),
        ("refused_calls", sums.refused),
        ("unpriced_calls", sums.unpriced),
        ("charged_jobs", sums.charged),
        ("free_jobs_with_output", sums.free),
        ("total_tokens", sums.tokens),
        ("credits_used", sums.credits),
    ] {
        assert_eq!(json["summary"][name], expected, "{name}: {json:#}");
    }
    assert_eq!(amount(text, &["summary", "total_cost_usd"]), sums.cost);
    let average = (sums.cost / Decimal::from(all)).round_dp(10);
    assert!((amount(text, &["summary", "avg_cost_per_job"]) - average).abs() <= decimal("0.0000000001"));
    assert_eq!(json["request_count"], sums.calls);
    for (name, expected) in
        [("total_spend", sums.cost), ("revenue_usd", sums.revenue), ("margin_usd", sums.revenue - sums.cost)]
    {
        assert_eq!(amount(text, &[name]), expected, "{name}: {json:#}");
    }
    for (member, count, cost, expected) in [
        ("job_types", "count", "cost_usd", &sums.job_types),
        ("models_used", "requests", "cost", &sums.models),
    ] {
        assert_eq!(json[member].as_object().map(serde_json::Map::len), Some(expected.len()), "{json:#}");
        for (name, (number, sum)) in expected {
            assert_eq!(json[member][name][count], *number, "{member} {name}: {json:#}");
            assert_eq!(amount(text, &[member, name, cost]), *sum, "{member} {name}");
        }
    }
}

/// `GET /api/teams/{team_id}/usage`
#[tokio::test]
async fn usage_equals_a_recount_of_a_random_mix_of_jobs_and_calls() {
    let app = TestApp::start().await;
    let groups = [
        app.model_group(&["expensive"]).await,
        app.model_group(&["err503", "gpt-4o-mini"]).await,
        app.model_group(&["unpriced"]).await,
        app.model_group(&["claude-3-opus"]).await,
    ];
    let pricing = json!({"mode": "markup", "markup_percent": "17.3"});
    let rate = json!({"pricing": pricing, "billing_mode": "consumption_usd", "credits_per_dollar": 3});
    let team = busy_team(&app, &groups, rate).await;

    join_all((1..=4).map(|seed| traffic(&team, &groups, seed))).await;

    let sums = recount(&app, &team, |_, cost| cost * decimal("1.173")).await;
    assert!(
        sums.jobs.len() >= 4 && sums.unpriced > 0 && sums.refused > 0 && sums.models.len() >= 3,
        "a mix indeed"
    );
    let usage = usage(&app, &team, "").await;
    assert_usage(&usage, &sums);
    assert_eq!(amount(&usage.text, &["remaining_budget"]), decimal("1000000") - sums.cost);
    app.check_invariants().await;
}

/// `GET /api/organizations/{organization_id}/usage`
#[tokio::test]
async fn an_organizations_usage_is_the_sum_of_its_teams_also_of_those_that_were_deleted() {
    let app = TestApp::start().await;
    let organization = app.organization().await;
    let groups = [app.model_group(&["expensive"]).await, app.model_group(&["gpt-4o"]).await];
    let tiers = json!({"mode": "tiered", "tiers": [
        {"up_to": 3, "price_per_job_usd": "0.5"}, {"up_to": null, "price_per_job_usd": "0.25"}]});
    let of = |pricing: Value| json!({"organization_id": organization, "pricing": pricing});
    let teams = [
        busy_team(&app, &groups, of(tiers)).await,
        busy_team(&app, &groups, of(json!({"mode": "flat", "price_per_job_usd": "1.01"}))).await,
        busy_team(&app, &groups, of(json!(null))).await,
    ];
    let stranger = busy_team(&app, &groups, json!({})).await;
    join_all(teams.iter().chain([&stranger]).zip(11..).map(|(team, seed)| traffic(team, &groups, seed)))
        .await;
    let tier = |place: i64| decimal(if place <= 3 { "0.5" } else { "0.25" });
    let sums = [
        recount(&app, &teams[0], |place, _| tier(place)).await,
        recount(&app, &teams[1], |_, _| decimal("1.01")).await,
        recount(&app, &teams[2], |_, _| Decimal::ZERO).await,
    ];
    for (team, sums) in teams.iter().zip(&sums) {
        assert_usage(&usage(&app, team, "").await, sums);
    }

    let path = format!("/api/organizations/{organization}/usage");
    let before = app.admin().get(&path).await;
    let mut all = Recount::default();
    for part in &sums {
        for (status, number) in &part.jobs {
            *all.jobs.entry(status.clone()).or_default() += number;
        }
        for (whole, part) in [(&mut all.job_types, &part.job_types), (&mut all.models, &part.models)] {
            for (name, (number, cost)) in part {
                let entry = whole.entry(name.clone()).or_default();
                *entry = (entry.0 + number, entry.1 + cost);
            }
        }
        all.calls += part.calls;
        all.refused += part.refused;
        all.unpriced += part.unpriced;
        all.charged += part.charged;
        all.free += part.free;
        all.tokens += part.tokens;
        all.credits += part.credits;
        all.cost += part.cost;
        all.revenue += part.revenue;
    }
    assert_usage(&before, &all);
    let json = before.clone().ok();
    assert_eq!(json["organization_id"], json!(organization));
    assert_eq!(json["teams"].as_object().map(serde_json::Map::len), Some(3));
    for (team, sums) in teams.iter().zip(&sums) {
        let of_team = &json["teams"][&team.id];
        assert_eq!(of_team["summary"]["total_calls"], sums.calls);
        assert_eq!(of_team["summary"], usage(&app, team, "").await.ok()["summary"]);
        assert_eq!(amount(&before.text, &["teams", &team.id, "revenue_usd"]), sums.revenue);
    }

    // What is open is cancelled with its team, and is free; nothing else changes.
    let open: Vec<_> = sums[0]
        .jobs
        .iter()
        .filter(|(status, _)| ["pending", "in_progress"].contains(&status.as_str()))
        .collect();
    let open: i64 = open.into_iter().map(|(_, number)| number).sum();
    let delete = app.admin().request(reqwest::Method::DELETE, &format!("/api/teams/{}", teams[0].id));
    Answer::of(delete).await.ok();
    let mut expected = json.clone();
    let cancel = |summary: &mut Value| {
        for (name, more) in [("cancelled_jobs", open), ("free_jobs_with_output", sums[0].delivering)] {
            summary[name] = json!(summary[name].as_i64().expect("a number") + more);
        }
    };
    cancel(&mut expected["summary"]);
    cancel(&mut expected["teams"][&teams[0].id]["summary"]);
    assert_eq!(app.admin().get(&path).await.ok(), expected);
    app.check_invariants().await;
}
