//! Canaries: a prompt and keys that are sent wherever they might be stored or logged, and then looked for in everything
//! that is kept or shown.

use crate::{
    hostile::method,
    recipes::recipe,
    recorder::Recorder,
    steering::call_routes,
    world::{Stage, World, send, unique},
};
use api_tests::{Answer, Options, Team};
use futures::{StreamExt, stream};
use host::Settings;
use openapi::{name, routes};
use reqwest::Method;
use serde_json::{Value, json};
use shared::http::Access;
use std::{
    fs,
    path::{Path, PathBuf},
};
use tokio::time::{Duration, timeout};

/// A folder for the key-value store that is gone with this.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        Self(Path::new(env!("CARGO_TARGET_TMPDIR")).join(unique("store")))
    }

    /// An application that keeps its store here.
    fn options(&self) -> Options {
        Options {
            settings: Settings { state_dir: Some(self.0.clone()), ..Settings::default() },
            variables: vec![
                ("auth_cache_seconds", "3600".to_owned()),
                ("webhook_secret", WEBHOOK_SECRET.to_owned()),
            ],
            ..Options::default()
        }
    }

    /// All that is in its files.
    fn text(&self) -> String {
        let files =
            fs::read_dir(&self.0).expect("the store's folder").map(|file| file.expect("a file").path());
        let texts: Vec<String> = files
            .map(|file| String::from_utf8_lossy(&fs::read(file).expect("a file")).into_owned())
            .collect();
        assert!(texts.concat().contains("virtual-key:"), "the store is elsewhere");
        texts.concat()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left of it is in the build's folder, which is thrown away.
        _ = fs::remove_dir_all(&self.0);
    }
}

const WEBHOOK_SECRET: &str = "canary-webhook-secret";

/// What is kept, logged, told LiteLLM beside calls, and shown by every route that reads, to the team and to the admin.
async fn everything_after(
    stage: &Stage,
    recorder: &Recorder,
    world: &World<'_>,
    folder: &Folder,
) -> Vec<(String, String)> {
    let told = recorder.seen().into_iter().filter(|seen| !seen.path.ends_with("/chat/completions"));
    let told: Vec<String> = told.map(|seen| format!("{} {}", seen.path, seen.body)).collect();
    let mut all = vec![
        ("a table".to_owned(), stage.app.database.everything().await),
        ("the log".to_owned(), stage.app.logs()),
        ("the store".to_owned(), folder.text()),
        ("what LiteLLM was told".to_owned(), told.join("\n")),
    ];
    for (_, route) in routes().into_iter().filter(|(_, route)| method(route) == Method::GET) {
        let path = recipe(&name(&route), world).await.path;
        let mut clients = vec![("its caller", stage.caller(&route, world))];
        if route.access == Access::AdminOrTeam {
            clients.push(("the admin", stage.app.admin()));
        }
        for (who, client) in clients {
            let answer = client.get(&path).await;
            assert_eq!(answer.status, 200, "{path}: {}", answer.text);
            all.push((
                format!("{} to {who}", name(&route)),
                format!("{:?}\n{}", answer.headers, answer.text),
            ));
        }
    }
    all
}

/// Fails the test if a secret is in any of these.
#[track_caller]
fn nowhere<S: AsRef<str>>(secrets: &[S], all: &[(String, String)]) {
    for (place, text) in all {
        for secret in secrets.iter().map(AsRef::as_ref) {
            if let Some(at) = text.find(secret) {
                let around: String = text[..at].chars().rev().take(200).collect();
                let around: String = around.chars().rev().collect();
                panic!("{secret} is in {place}, after …{around}");
            }
        }
    }
}

const PROMPT: &str = "canary that sings of the old mine";

fn said(text: &str) -> Value {
    json!({"messages": [
        {"role": "system", "content": format!("{PROMPT} and its system")},
        {"role": "user", "content": [{"type": "text", "text": format!("{PROMPT} {text}")}]},
    ]})
}

#[tokio::test]
async fn a_prompt_is_in_no_table_log_metric_or_later_answer_whatever_becomes_of_its_call() {
    let folder = Folder::new();
    let Some((stage, recorder)) = Recorder::on_stage(folder.options()).await else { return };
    let world = stage.world().await;
    let client = &world.team.client;
    for route in call_routes() {
        let request = recipe(&name(&route), &world).await;
        let send = async |call: Value, key: Option<&str>| {
            let mut body = request.body.clone().expect("a body");
            let members = body.as_object_mut().expect("an object");
            members.extend(call.as_object().expect("an object").clone());
            let sent = client.request(method(&route), &request.path).body(body.to_string());
            Answer::of(match key {
                Some(key) => sent.header("idempotency-key", key),
                None => sent,
            })
            .await
        };
        let told = |answer: Answer, what: &str| {
            assert!(!answer.text.contains("canary"), "{what} of {}: {}", name(&route), answer.text);
            assert_ne!(answer.status, 500, "{what} of {}: {}", name(&route), answer.text);
        };
        // It is answered, once for itself and once to be repeated.
        for key in [None, Some("once"), Some("once")] {
            let key = key.map(|key| format!("{key} {}", name(&route)));
            let answer = send(said("hello"), key.as_deref()).await;
            assert!(answer.status == 200 && answer.text.contains("canary"), "{}", answer.text);
        }
        // Everybody who fails quotes it.
        for status in [200, 400, 401, 403, 404, 408, 409, 413, 422, 429, 500, 502, 503, 504] {
            recorder.quote(Some(status));
            told(send(said("hello"), None).await, &format!("a quoting {status}"));
            told(send(said("hello"), Some(&format!("{status} {}", name(&route)))).await, "a kept failure");
        }
        recorder.quote(None);
        for marks in ["[[status=400]]", "[[chunks=5]] [[cut_after=2]]", "[[chunks=5]] [[error_after=2]]"] {
            send(said(marks), None).await;
        }
        // It is refused here, for what is wrong about it.
        for call in [
            json!({"messages": PROMPT}),
            json!({"messages": [PROMPT]}),
            json!({"messages": [{"role": PROMPT, "content": PROMPT}]}),
            json!({"messages": [{"role": "user", "content": {"text": PROMPT}}]}),
            json!({"messages": said("x")["messages"], "temperature": PROMPT}),
            json!({"messages": said("x")["messages"], "tools": PROMPT}),
            json!({"messages": said("x")["messages"], "model": PROMPT}),
        ] {
            let answer = send(call, None).await;
            assert_eq!(answer.status, 400, "{}", answer.text);
            told(answer, "a refusal");
        }
    }
    world.team.complete(&world.job, "failed").await.ok();
    let path = format!("/api/jobs/{}/llm-call", world.job);
    world.team.client.post(&path, said("too late")).await.refused(
        409,
        "job_finished",
        &format!("Job '{}' is already failed", world.job),
    );
    let all = everything_after(&stage, &recorder, &world, &folder).await;
    nowhere(&["canary", "sings of"], &all);
    stage.app.check_invariants().await;
}

#[tokio::test]
async fn a_key_is_in_no_table_log_metric_or_later_answer_whatever_is_done_with_it() {
    let folder = Folder::new();
    let Some((stage, recorder)) = Recorder::on_stage(folder.options()).await else { return };
    let master_key = stage.app.stand_in().expect("the stand-in").master_key().to_owned();
    let password = stage.app.database.variables().into_iter().find(|(name, _)| *name == "database_password");
    let mut secrets =
        vec![master_key, "test-admin-key".into(), WEBHOOK_SECRET.into(), password.expect("one").1];
    for (number, (_, route)) in routes().into_iter().enumerate() {
        let world = stage.world().await;
        let request = recipe(&name(&route), &world).await;
        let idempotency_key = format!("canary-{number}-of-idempotency");
        let client = stage.caller(&route, &world);
        let answer = send(&client, &route, &request, Some(&idempotency_key)).await;
        assert_eq!(answer.status, 200, "{}: {}", name(&route), answer.text);
        let shown = [&answer.body["virtual_key"], &answer.body["webhook_secret"]];
        secrets.extend(shown.into_iter().filter_map(|secret| secret.as_str().map(str::to_owned)));
        // And once more where LiteLLM, or whoever is behind it, quotes the key that it was shown.
        for status in [400, 401, 403, 429, 500] {
            let request = recipe(&name(&route), &world).await;
            recorder.quote(Some(status));
            let failed = send(&client, &route, &request, Some(&format!("{idempotency_key}-{status}"))).await;
            recorder.quote(None);
            for secret in secrets.iter().chain([&world.team.key]) {
                assert!(!failed.text.contains(secret), "{status} of {}: {}", name(&route), failed.text);
            }
        }
        secrets.extend([world.team.key.clone(), idempotency_key]);
    }
    let world = stage.world().await;
    // In every place where it does not belong.
    for key in [world.team.key.as_str(), "test-admin-key"] {
        let anybody = stage.app.nobody();
        for path in [format!("/api/jobs/{key}"), format!("/api/teams/{key}"), format!("/{key}?key={key}")] {
            anybody.get(&path).await;
            let shown = anybody.request(Method::POST, &path).header("x-api-key", key).header("cookie", key);
            Answer::of(shown.header("x-request-id", "misplaced").body(key.to_owned())).await;
        }
    }
    secrets.push(world.team.key.clone());
    let all = everything_after(&stage, &recorder, &world, &folder).await;
    nowhere(&secrets, &all);
}

/// Asks for an answer in one of four ways, and gives what came of it.
async fn ask(team: &Team, number: usize) -> Option<String> {
    let mark = format!("mark-{number:04}-end ").repeat(8);
    let messages = json!([{"role": "user", "content": format!("{mark} [[first_ms=20]] [[delay_ms=5]]")}]);
    let body = json!({"job_type": "test", "messages": messages});
    let whole = async |path: &str| {
        let answer = team.client.post(path, body.clone()).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.text
    };
    match number % 4 {
        0 => Some(whole("/api/jobs/create-and-call").await),
        1 => Some(whole("/api/jobs/create-and-call-stream").await),
        // Gone before there is an answer, wherever that finds it, and gone within it.
        2 => {
            let patience = Duration::from_millis(u64::try_from(number % 50).expect("few"));
            timeout(patience, whole("/api/jobs/create-and-call")).await.ok()
        }
        _ => {
            let mut stream = team.client.stream("/api/jobs/create-and-call-stream", body.clone()).await;
            let (first, second) = (stream.next().await, stream.next().await);
            Some([first, second].into_iter().flatten().collect())
        }
    }
}

#[tokio::test]
async fn nobody_hears_what_another_was_told_however_many_speak_and_leave_at_once() {
    let folder = Folder::new();
    let Some((stage, _recorder)) = Recorder::on_stage(folder.options()).await else { return };
    let (one, other) = (stage.app.team(400).await, stage.app.team(400).await);
    let answers: Vec<(usize, Option<String>)> = stream::iter(0..240)
        .map(async |number| (number, ask(if number % 3 == 0 { &one } else { &other }, number).await))
        .buffer_unordered(40)
        .collect()
        .await;
    for (number, answer) in &answers {
        let Some(answer) = answer else { continue };
        let own = format!("mark-{number:04}-end");
        for mark in
            answer.match_indices("mark-").map(|(at, _)| &answer[at..(at + own.len()).min(answer.len())])
        {
            assert_eq!(mark, own, "in the answer to {own}: {answer}");
        }
    }
    let heard =
        answers.iter().filter(|(_, answer)| answer.as_ref().is_some_and(|text| text.contains("mark-")));
    assert!(heard.count() >= 60, "nobody heard anything");
}
