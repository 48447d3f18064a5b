//! What is accepted is data: it is kept and given back as it came, whatever it looks like.

use crate::hostile::{TEXTS, encoded};
use api_tests::{Team, TestApp};
use serde_json::{Value, json};

async fn job_with(team: &Team, text: &str) -> String {
    let body = json!({"team_id": team.id, "job_type": text, "user_id": text, "metadata": {text: [text]}});
    let job = team.client.post("/api/jobs/create", body).await.ok();
    job["job_id"].as_str().expect("a job_id").to_owned()
}

#[tokio::test]
async fn what_a_team_writes_is_given_back_to_the_letter() {
    let app = TestApp::start().await;
    for text in TEXTS {
        let team = app.team(2).await;
        let job = job_with(&team, text).await;
        let call = json!({
            "messages": [{"role": "user", "content": text}], "purpose": text, "call_metadata": {text: text},
            "user": text,
        });
        let answer = team.client.post(&format!("/api/jobs/{job}/llm-call"), call).await.ok();
        let said = answer["response"]["content"].as_str().expect("the stand-in repeats the prompt");
        assert!(said.contains(text), "{text}: {said}");
        let merge = json!({"metadata": {format!("{text}2"): text}});
        team.client.patch(&format!("/api/jobs/{job}/metadata"), merge).await.ok();
        let end = json!({"status": "failed", "error_message": text});
        team.client.post(&format!("/api/jobs/{job}/complete"), end).await.ok();

        let job = team.read(&job).await;
        for member in ["job_type", "user_id", "error_message"] {
            assert_eq!(job[member], text, "{member}");
        }
        assert_eq!(job["metadata"], json!({text: [text], format!("{text}2"): text}));
        assert_eq!(
            (&job["calls"][0]["purpose"], &job["calls"][0]["metadata"]),
            (&json!(text), &json!({text: text}))
        );
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn a_filter_finds_what_equals_it_and_nothing_else() {
    let app = TestApp::start().await;
    let team = app.team(50).await;
    for text in TEXTS {
        job_with(&team, text).await;
    }
    for wildcard in ["%", "_", "*", ".*", "x'); DROP TABLE teams CASCADE; --'"] {
        let path = format!("/api/teams/{}/jobs?job_type={}", team.id, encoded(wildcard.as_bytes()));
        assert_eq!(team.client.get(&path).await.ok()["total"], 0, "{wildcard}");
    }
    for text in TEXTS {
        for filter in ["job_type", "user_id"] {
            let path = format!("/api/teams/{}/jobs?{filter}={}", team.id, encoded(text.as_bytes()));
            let found = team.client.get(&path).await.ok();
            assert_eq!((&found["total"], &found["jobs"][0][filter]), (&json!(1), &json!(text)), "{filter}");
        }
    }
}

#[tokio::test]
async fn what_the_admin_writes_is_given_back_to_the_letter() {
    let app = TestApp::start().await;
    let admin = app.admin();
    let shows = async |path: String, member: &str, text: &str| {
        let shown = admin.get(&path).await.ok();
        assert_eq!(shown[member], text, "{member} of {path}");
        shown
    };
    for text in TEXTS {
        let metadata = json!({text: {"nested": text}});
        let team =
            app.team_with(json!({"team_alias": text, "metadata": metadata, "credits_allocated": 1})).await;
        let path = format!("/api/teams/{}", team.id);
        let shown = shows(path.clone(), "team_alias", text).await;
        assert_eq!(shown["metadata"], metadata);

        let organization =
            format!("/api/organizations/{}", shown["organization_id"].as_str().expect("an id"));
        admin.put(&organization, json!({"name": text, "metadata": metadata})).await.ok();
        assert_eq!(shows(organization, "name", text).await["metadata"], metadata);

        let group = format!("/api/model-groups/{}", shown["model_groups"][0].as_str().expect("a group"));
        let models = json!([{"model_name": text, "priority": 0, "config": {"user": text}}]);
        let change =
            json!({"display_name": text, "description": text, "models": models, "metadata": metadata});
        admin.put(&group, change).await.ok();
        let changed = shows(group.clone(), "display_name", text).await;
        assert_eq!((&changed["description"], &changed["metadata"]), (&json!(text), &metadata));
        assert_eq!(changed["models"], models);

        let key = admin.post(&format!("{path}/keys/create"), json!({"alias": text})).await.ok();
        assert_eq!(key["key"]["alias"], text);
        let credits = format!("/api/credits/teams/{}", team.id);
        let more = json!({"amount": 1, "reason": text, "metadata": metadata});
        admin.post(&format!("{credits}/add"), more).await.ok();
        let ledger = admin.get(&format!("{credits}/transactions")).await.ok();
        let entry: &Value = &ledger["transactions"][0];
        assert_eq!((&entry["reason"], &entry["metadata"]), (&json!(text), &metadata));

        let log = admin.get("/api/audit-log?limit=1").await.ok();
        assert_eq!(log["entries"][0]["body"]["reason"], text);
    }
    app.check_invariants().await;
}
