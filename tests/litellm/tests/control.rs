//! What a test can do with the stand-in besides calling it: look at requests, plan faults, take it down; and the
//! program.

mod world;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use litellm_stand_in::Outcome;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use world::{prompt, stream, world};

#[tokio::test]
async fn every_request_is_recorded_without_its_key() {
    let world = world().await;
    let team = world.team(json!({})).await;
    let key = world.key(json!({"team_id": team})).await;
    world.chat(&key, prompt("err503", "hi")).await;
    world.admin_get("/team/info?team_id=a%20b").await;
    let requests = world.litellm.requests();
    let seen: Vec<(&str, &str, Outcome)> = requests
        .iter()
        .map(|request| (request.method.as_str(), request.path.as_str(), request.outcome))
        .collect();
    let expected = [
        ("POST", "/team/new", Outcome::Answered(200)),
        ("POST", "/key/generate", Outcome::Answered(200)),
        ("POST", "/v1/chat/completions", Outcome::Answered(503)),
        ("GET", "/team/info", Outcome::Answered(404)),
    ];
    assert_eq!(seen, expected);
    assert_eq!(requests[2].body["model"], "err503");
    assert_eq!(requests[3].query.as_deref(), Some("team_id=a%20b"));
    let hash: String = Sha256::digest(&key).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(requests[2].key_hash, Some(hash));
    assert!(!format!("{requests:?}").contains(&key));
}

#[tokio::test]
async fn a_complete_stream_is_recorded_as_answered() {
    let world = world().await;
    world.chat(world.litellm.master_key(), stream("gpt-4o", "hi")).await;
    world::eventually("the outcome", || world.litellm.requests()[0].outcome == Outcome::Answered(200)).await;
}

#[tokio::test]
async fn a_planned_fault_has_no_effect_and_comes_as_often_as_planned() {
    let world = world().await;
    world.litellm.fail_next("/key/generate", 500, 2);
    world.litellm.fail_next("/key/generate", 503, 1);
    for status in [500, 500, 503] {
        let answer = world.admin("/key/generate", json!({"team_id": "t"})).await;
        assert_eq!(answer.failure(), (status, "internal_server_error".to_owned()));
        assert_eq!(answer.error("code"), status.to_string());
    }
    assert_eq!(world.litellm.keys_of("t").len(), 0);
    world.key(json!({"team_id": "t"})).await;
    assert_eq!(world.litellm.keys_of("t").len(), 1);
    world.litellm.fail_next("/chat/completions", 502, 1);
    let master = world.litellm.master_key();
    assert_eq!(world.chat(master, prompt("gpt-4o", "hi")).await.status, 502, "with /v1 as well");
}

#[tokio::test]
async fn while_down_every_connection_is_closed_without_an_answer() {
    let world = world().await;
    let key = world.key(json!({})).await;
    let url = world.url("/chat/completions");
    let call = |marks: &str| world.client.post(&url).bearer_auth(&key).json(&prompt("gpt-4o", marks)).send();
    let (under_way, ()) = futures::join!(call("[[first_ms=5000]]"), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        world.litellm.set_down(true);
    });
    assert!(under_way.is_err(), "a call under way is cut");
    assert!(call("hi").await.is_err());
    world.litellm.set_down(false);
    assert_eq!(call("hi").await.expect("an answer").status(), 200);
}

#[tokio::test]
async fn a_stopped_stand_in_does_not_answer() {
    let world = world().await;
    let url = world.url("/health/liveliness");
    drop(world.litellm);
    assert!(world.client.get(url).send().await.is_err());
}

/// The program under test, ended when dropped.
struct Program {
    child: Child,
    url: String,
}

impl Program {
    fn start(arguments: &[&str]) -> Program {
        let mut child = Command::new(env!("CARGO_BIN_EXE_litellm-stand-in"))
            .args(["--listen", "127.0.0.1:0", "--master-key", "sk-test-master"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program");
        let mut line = String::new();
        let output = child.stdout.take().expect("its output");
        BufReader::new(output).read_line(&mut line).expect("a line");
        let url =
            line.trim().strip_prefix("LiteLLM stand-in listening on ").expect("where it listens").to_owned();
        Program { child, url }
    }

    /// Ends it as a supervisor does, and says whether it ended well.
    fn terminate(mut self) -> bool {
        let id = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &id]).status().expect("kill");
        self.child.wait().expect("its end").success()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It has ended already where a test ended it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn the_program_keeps_teams_keys_and_spend_over_a_restart_and_no_key_in_plain() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("state.json");
    let state = file.to_str().expect("a path");
    let client = reqwest::Client::new();
    let post = async |url: &str, key: &str, path: &str, body: Value| {
        let request = client.post(format!("{url}{path}")).bearer_auth(key).json(&body);
        let response = request.send().await.expect("an answer");
        (response.status().as_u16(), response.json::<Value>().await.expect("JSON"))
    };
    let program = Program::start(&["--state", state]);
    let url = program.url.clone();
    post(&url, "sk-test-master", "/team/new", json!({"team_id": "t", "max_budget": 1})).await;
    let (_, made) = post(&url, "sk-test-master", "/key/generate", json!({"team_id": "t"})).await;
    let key = made["key"].as_str().expect("a key").to_owned();
    let (status, _) = post(&url, &key, "/chat/completions", prompt("gpt-4o", "hi there")).await;
    assert_eq!(status, 200);
    assert!(program.terminate());

    let saved = std::fs::read_to_string(&file).expect("the file");
    assert!(!saved.contains(&key));
    let program = Program::start(&["--state", state]);
    let (status, _) = post(&program.url, &key, "/chat/completions", prompt("gpt-4o", "hi there")).await;
    assert_eq!(status, 200);
    let info =
        client.get(format!("{}/key/info", program.url)).bearer_auth(&key).send().await.expect("an answer");
    let info: Value = info.json().await.expect("JSON");
    assert_eq!(info["info"]["spend"].as_f64(), Some(9e-5));
}

#[test]
fn help_says_that_it_is_not_litellm() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_litellm-stand-in")).arg("--help").output().expect("the program");
    assert!(String::from_utf8_lossy(&output.stdout).contains("It is not LiteLLM"));
}

#[tokio::test]
async fn a_model_can_say_numbers_that_can_not_be_true() {
    let world = world().await;
    let master = world.litellm.master_key();
    let claims = "[[prompt_tokens=9223372036854775800]] [[completion_tokens=-35]] [[cost=nan]]";
    let answer = world.chat(master, prompt("gpt-4o", claims)).await;
    let usage = answer.json()["usage"].clone();
    assert_eq!(usage["prompt_tokens"], json!(9_223_372_036_854_775_800_u64));
    assert_eq!(usage["completion_tokens"], json!(-35));
    assert_eq!(answer.header("x-litellm-response-cost"), "nan");
    let body = stream("gpt-4o", "[[prompt_tokens=99999999999999999999]] [[cost=1e300]]");
    let events = world.chat(master, body).await.events();
    let usage = &events[events.len() - 2]["usage"];
    assert_eq!((&usage["prompt_tokens"], &usage["cost"]), (&json!(u64::MAX), &json!(1e300)));
}

#[tokio::test]
async fn the_spend_log_can_be_late_and_say_something_else_than_before() {
    let world = world().await;
    let key = world.key(json!({})).await;
    let call_id = world.chat(&key, prompt("unpriced", "hi")).await.header("x-litellm-call-id").to_owned();
    let path = format!("/spend/logs?request_id={call_id}");
    let spend = async || world.admin_get(&path).await.json()[0]["spend"].clone();
    assert_eq!(spend().await, json!(0.0));
    world.litellm.set_spend_log_late(true);
    assert_eq!(world.admin_get(&path).await.json(), json!([]));
    assert_eq!(world.litellm.set_spend(&call_id, 0.25), 1);
    world.litellm.set_spend_log_late(false);
    assert_eq!(spend().await, json!(0.25));
}

#[tokio::test]
async fn a_team_and_a_key_that_are_lost_are_as_if_they_had_never_been() {
    let world = world().await;
    let team = world.team(json!({})).await;
    let key = world.key(json!({"team_id": team})).await;
    let token = world.only_key(&team).token;
    assert!(world.litellm.lose_team(&team) && !world.litellm.lose_team(&team));
    assert_eq!(world.admin_get(&format!("/team/info?team_id={team}")).await.status, 404);
    assert_eq!(world.litellm.keys_of(&team).len(), 1, "its keys stay");
    assert!(world.litellm.lose_key(&token) && !world.litellm.lose_key(&token));
    assert_eq!(world.admin_get(&format!("/key/info?key={token}")).await.status, 404);
    assert_eq!(world.chat(&key, prompt("gpt-4o", "hi")).await.status, 401);
}
