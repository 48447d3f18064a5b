//! `cargo xtask up --demo`: the life of one job, as requests that can be repeated by hand.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader},
    time::Duration,
};
use uuid::Uuid;

const CREDITS: i64 = 10;

/// Creates an organization, a model group and a team, all with names of their own in each run, and completes a job with
/// a buffered and a streamed call. An error unless the job cost exactly one credit.
pub fn run(base: &str, admin_key: &str, models: &[String]) -> Result<()> {
    let demo = Demo { base, agent: agent() };
    let admin = Key { header: "X-Admin-Key", prefix: "", key: admin_key };
    let run = &Uuid::new_v4().simple().to_string()[..8];
    let (organization, group, team) =
        (format!("demo-org-{run}"), format!("demo-group-{run}"), format!("demo-team-{run}"));

    say("An organization, a model group and a team with credits (as the admin)");
    demo.post("/api/organizations/create", admin, json!({"organization_id": organization, "name": "Demo"}))?;
    let models: Vec<Value> = (models.iter().take(2).enumerate())
        .map(|(priority, name)| json!({"model_name": name, "priority": priority}))
        .collect();
    demo.post("/api/model-groups/create", admin, json!({"group_name": group, "models": models}))?;
    let created = demo.post(
        "/api/teams/create",
        admin,
        json!({"organization_id": organization, "team_id": team, "model_groups": [group],
            "credits_allocated": CREDITS}),
    )?;
    let team_key = Key { header: "Authorization", prefix: "Bearer ", key: text(&created, "virtual_key")? };

    say("A job with two calls (as the team)");
    let job = demo.post("/api/jobs/create", team_key, json!({"team_id": team, "job_type": "demo"}))?;
    let job = format!("/api/jobs/{}", text(&job, "job_id")?);
    let question =
        |text: &str| json!({"model_group": group, "messages": [{"role": "user", "content": text}]});
    demo.post(&format!("{job}/llm-call"), team_key, question("What is a job?"))?;
    demo.stream(&format!("{job}/llm-call-stream"), team_key, question("And what is a credit?"))?;

    say("Completing the job costs one credit, whatever the number of calls");
    let completed = demo.post(&format!("{job}/complete"), team_key, json!({"status": "completed"}))?;
    let balance = demo.get(&format!("/api/credits/teams/{team}/balance"), team_key)?;

    let applied = &completed["costs"]["credit_applied"];
    let remaining = &balance["credits_remaining"];
    println!("\nThe job is {}, credit_applied: {applied}", text(&completed, "status")?);
    println!("The balance was {CREDITS} credits and is {remaining}");
    ensure!(applied == &Value::Bool(true), "completing the job applied no credit");
    ensure!(remaining.as_i64() == Some(CREDITS - 1), "the balance is not {}", CREDITS - 1);
    Ok(())
}

/// Who asks.
#[derive(Clone, Copy)]
struct Key<'a> {
    header: &'static str,
    prefix: &'static str,
    key: &'a str,
}

struct Demo<'a> {
    base: &'a str,
    agent: ureq::Agent,
}

impl Demo<'_> {
    fn get(&self, path: &str, key: Key) -> Result<Value> {
        let url = format!("{}{path}", self.base);
        println!("\n$ curl {url} -H '{}'", key.shortened());
        let request = self.agent.get(&url).header(key.header, key.value());
        answer(request.call().with_context(|| format!("cannot reach {url}"))?)
    }

    fn post(&self, path: &str, key: Key, body: Value) -> Result<Value> {
        answer(self.send("curl", path, key, body)?)
    }

    /// Shows each event as it comes.
    fn stream(&self, path: &str, key: Key, body: Value) -> Result<()> {
        let response = self.send("curl -N", path, key, body)?;
        if !response.status().is_success() {
            return answer(response).map(drop);
        }
        let mut last = String::new();
        for line in BufReader::new(response.into_body().into_reader()).lines() {
            let line = line.context("the stream broke off")?;
            println!("{line}");
            if !line.is_empty() {
                last = line;
            }
        }
        ensure!(last == "data: [DONE]", "the stream ended without [DONE]");
        Ok(())
    }

    fn send(
        &self,
        curl: &str,
        path: &str,
        key: Key,
        body: Value,
    ) -> Result<ureq::http::Response<ureq::Body>> {
        let url = format!("{}{path}", self.base);
        println!("\n$ {curl} -X POST {url} -H '{}' -d '{body}'", key.shortened());
        let request = self.agent.post(&url).header(key.header, key.value()).content_type("application/json");
        request.send(body.to_string()).with_context(|| format!("cannot reach {url}"))
    }
}

impl Key<'_> {
    fn value(&self) -> String {
        format!("{}{}", self.prefix, self.key)
    }

    fn shortened(&self) -> String {
        format!("{}: {}{}", self.header, self.prefix, shorten(self.key))
    }
}

/// The beginning of a key, enough to tell it from others.
fn shorten(key: &str) -> String {
    format!("{}…", key.chars().take(8).collect::<String>())
}

/// Shows an answer, with keys shortened, and gives it back as it came; an error unless it is a success.
fn answer(mut response: ureq::http::Response<ureq::Body>) -> Result<Value> {
    let status = response.status();
    let text = response.body_mut().read_to_string().context("the answer broke off")?;
    let answer: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
    match answer["virtual_key"].as_str() {
        Some(key) => println!("{}", text.replace(key, &shorten(key))),
        None => println!("{text}"),
    }
    if !status.is_success() {
        bail!("the answer was {status}");
    }
    Ok(answer)
}

fn text<'a>(answer: &'a Value, field: &str) -> Result<&'a str> {
    answer[field].as_str().with_context(|| format!("the answer has no {field}"))
}

fn say(text: &str) {
    println!("\n# {text}");
}

/// Takes every status as an answer, and no proxy: the application is on this machine.
fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(120)))
        .http_status_as_error(false)
        .proxy(None)
        .build()
        .into()
}
