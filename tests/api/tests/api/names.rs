//! Ids that callers choose: each that is accepted can be read again by every route that has it in its path.

use api_tests::TestApp;
use serde_json::json;

const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-";

/// Odd ones, and random ones that are always the same.
fn ids() -> Vec<String> {
    let mut random = fastrand::Rng::with_seed(14);
    let random = (0..20).map(|_| {
        let length = if random.bool() { random.usize(1..=3) } else { random.usize(4..=128) };
        (0..length).map(|_| char::from(ALPHABET[random.usize(..ALPHABET.len())])).collect()
    });
    let odd = ["...", ".a", "a.", "-", "_", "--", "0", "Create", "creates", "complete", "keys"]
        .into_iter()
        .map(str::to_owned);
    let mut ids: Vec<String> = odd.chain(random).filter(|id: &String| id != "." && id != "..").collect();
    ids.push("x".repeat(128));
    ids.sort();
    ids.dedup();
    ids
}

#[tokio::test]
async fn whatever_is_accepted_as_an_id_is_found_by_all_routes() {
    let app = TestApp::start().await;
    let admin = app.admin();
    for id in ids() {
        admin.post("/api/organizations/create", json!({"organization_id": id, "name": "x"})).await.ok();
        let models = json!([{"model_name": "gpt-4o-mini", "priority": 0}]);
        admin.post("/api/model-groups/create", json!({"group_name": id, "models": models})).await.ok();
        let access = json!({"group_name": id, "model_groups": [id]});
        admin.post("/api/model-access-groups/create", access).await.ok();
        let team =
            json!({"organization_id": id, "team_id": id, "model_groups": [id], "credits_allocated": 2});
        let team = admin.post("/api/teams/create", team).await.ok();
        let team = app.bearer(team["virtual_key"].as_str().expect("a key"));

        for (path, member) in [
            (format!("/api/organizations/{id}"), "organization_id"),
            (format!("/api/organizations/{id}/teams"), "organization_id"),
            (format!("/api/organizations/{id}/usage"), "organization_id"),
            (format!("/api/model-groups/{id}"), "group_name"),
            (format!("/api/model-groups/{id}/models"), "group_name"),
            (format!("/api/model-groups/{id}/resolve?team_id={id}"), "group_name"),
            (format!("/api/model-access-groups/{id}"), "group_name"),
            (format!("/api/teams/{id}"), "team_id"),
            (format!("/api/teams/{id}/keys"), "team_id"),
            (format!("/api/teams/{id}/usage"), "team_id"),
            (format!("/api/teams/{id}/jobs"), "team_id"),
            (format!("/api/teams/{id}/alerts"), "team_id"),
            (format!("/api/credits/teams/{id}/balance"), "team_id"),
            (format!("/api/credits/teams/{id}/transactions"), "team_id"),
        ] {
            let read = admin.get(&path).await;
            assert_eq!(read.status, 200, "{path}: {}", read.text);
            let group_models = path.ends_with("/models") && read.body.is_array();
            assert!(group_models || read.body[member] == json!(id), "{path}: {}", read.text);
        }
        let body = json!({"model": id, "messages": [{"role": "user", "content": "hello"}]});
        assert_eq!(team.post("/v1/chat/completions", body).await.ok()["model"], json!(id));
        for (path, body) in [
            (format!("/api/teams/{id}"), json!({"team_alias": "y"})),
            (format!("/api/organizations/{id}"), json!({"name": "y"})),
            (format!("/api/model-groups/{id}"), json!({"display_name": "y"})),
            (format!("/api/model-access-groups/{id}"), json!({"display_name": "y"})),
        ] {
            admin.put(&path, body).await.ok();
        }
        for kind in ["teams", "model-access-groups", "model-groups", "organizations"] {
            admin.delete(&format!("/api/{kind}/{id}")).await.ok();
        }
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn what_stands_for_something_else_in_paths_is_no_id() {
    let app = TestApp::start().await;
    let organization = app.organization().await;
    for id in [".", "..", "create", "expire", "create-and-call", "create-and-call-stream"] {
        let detail =
            "expected none of the reserved words . .. create expire create-and-call create-and-call-stream";
        for (path, field, body) in [
            ("/api/organizations/create", "organization_id", json!({"organization_id": id, "name": "x"})),
            ("/api/model-groups/create", "group_name", json!({"group_name": id, "models": []})),
            ("/api/model-access-groups/create", "group_name", json!({"group_name": id})),
            ("/api/teams/create", "team_id", json!({"organization_id": organization, "team_id": id})),
        ] {
            let answer = app.admin().post(path, body).await;
            answer.refused(400, "invalid_request", &format!("{field}: {detail}"));
        }
    }
    // An id that is made from a name is none of them either.
    let made = app.admin().post("/api/organizations/create", json!({"name": "Create"})).await.ok();
    let id = made["organization_id"].as_str().expect("an id").to_owned();
    assert_eq!(app.admin().get(&format!("/api/organizations/{id}")).await.ok()["name"], "Create");
}
