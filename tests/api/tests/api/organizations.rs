//! Organizations, which teams belong to.

use crate::fixtures::assert_time;
use api_tests::TestApp;
use futures::future::join_all;
use serde_json::json;

#[tokio::test]
async fn an_organization_is_shown_as_it_was_made() {
    let app = TestApp::start().await;
    let body = json!({
        "organization_id": "org_Acme.1-x", "name": "Acme, Größe & Co. 😀", "metadata": {"plan": "pro"},
        "litellm_organization_id": "litellm-acme",
    });
    let made = app.admin().post("/api/organizations/create", body.clone()).await.ok();
    for (field, value) in body.as_object().expect("an object") {
        assert_eq!(&made[field], value, "{field}");
    }
    assert_eq!(made["status"], "active");
    assert_time(&made["created_at"]);
    assert_time(&made["updated_at"]);
    assert_eq!(app.admin().get("/api/organizations/org_Acme.1-x").await.ok(), made);
}

#[tokio::test]
async fn without_an_id_one_is_made_from_the_name_and_never_a_taken_one() {
    let app = TestApp::start().await;
    let create = |name: &'static str| {
        let admin = app.admin();
        async move { admin.post("/api/organizations/create", json!({"name": name})).await.ok() }
    };
    assert_eq!(create("Acme Corp").await["organization_id"], "acme-corp");
    let mut ids = vec![];
    for organization in join_all((0..8).map(|_| create("Acme Corp"))).await {
        let id = organization["organization_id"].as_str().expect("an id").to_owned();
        assert!(id.starts_with("acme-corp-"), "{id}");
        assert_eq!(app.admin().get(&format!("/api/organizations/{id}")).await.ok(), organization);
        ids.push(id);
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 8);
    for name in ["日本", "!!!", "😀"] {
        let organization = create(name).await;
        assert_eq!(organization["name"], name);
        let id = organization["organization_id"].as_str().expect("an id");
        app.admin().get(&format!("/api/organizations/{id}")).await.ok();
    }
}

#[tokio::test]
async fn a_taken_id_is_refused_also_when_two_want_it_at_once() {
    let app = TestApp::start().await;
    let create = |name: String| {
        let admin = app.admin();
        async move {
            admin.post("/api/organizations/create", json!({"organization_id": "Acme", "name": name})).await
        }
    };
    let answers = join_all((0..8).map(|number| create(format!("Number {number}")))).await;
    let (made, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 200);
    assert_eq!((made.len(), refused.len()), (1, 7));
    for answer in refused {
        answer.refused(409, "already_exists", "Organization 'Acme' already exists");
    }
    assert_eq!(app.admin().get("/api/organizations/Acme").await.ok(), made[0].body);
}

#[tokio::test]
async fn an_unknown_organization_is_a_404() {
    let app = TestApp::start().await;
    app.organization().await;
    app.admin().get("/api/organizations/None").await.refused(
        404,
        "not_found",
        "Organization 'None' not found",
    );
}
