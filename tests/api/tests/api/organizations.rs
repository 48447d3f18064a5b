//! Organizations, which teams belong to.

use crate::{
    fixtures::{assert_time, stored},
    teams::show,
};
use api_tests::TestApp;
use futures::future::join_all;
use serde_json::{Value, json};

/// `POST /api/organizations/create`
/// `GET /api/organizations/{organization_id}`
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

/// `GET /api/organizations`
#[tokio::test]
async fn organizations_are_listed_by_id_with_a_total_and_in_pages() {
    let app = TestApp::start().await;
    for id in ["c", "a", "b"] {
        app.admin()
            .post("/api/organizations/create", json!({"organization_id": id, "name": "Same"}))
            .await
            .ok();
    }
    for (query, expected) in [
        ("", vec!["a", "b", "c"]),
        ("?limit=2", vec!["a", "b"]),
        ("?limit=1&offset=2", vec!["c"]),
        ("?offset=3", vec![]),
    ] {
        let list = app.admin().get(&format!("/api/organizations{query}")).await.ok();
        let ids: Vec<&Value> =
            list["organizations"].as_array().expect("a list").iter().map(|o| &o["organization_id"]).collect();
        assert_eq!(ids, expected, "{query}");
        assert_eq!(list["total"], 3, "{query}");
    }
    let list = app.admin().get("/api/organizations?limit=1").await.ok();
    assert_eq!(list["organizations"][0], app.admin().get("/api/organizations/a").await.ok());
}

/// `PUT /api/organizations/{organization_id}`
#[tokio::test]
async fn changing_an_organization_keeps_what_is_left_out_and_null_takes_away() {
    let app = TestApp::start().await;
    let made = json!({
        "organization_id": "Acme", "name": "Acme", "metadata": {"plan": "pro"}, "litellm_organization_id": "there",
    });
    let mut expected = app.admin().post("/api/organizations/create", made).await.ok();
    for (field, value) in [
        ("name", json!("Größe 😀")),
        ("metadata", json!({"plan": "free", "a": [1.50]})),
        ("litellm_organization_id", json!("elsewhere")),
        ("litellm_organization_id", Value::Null),
    ] {
        let changed = app.admin().put("/api/organizations/Acme", json!({field: value})).await.ok();
        assert!(changed["updated_at"].as_str() > expected["updated_at"].as_str(), "{field}");
        expected[field] = value;
        expected["updated_at"] = changed["updated_at"].clone();
        assert_eq!(changed, expected, "{field}");
        assert_eq!(app.admin().get("/api/organizations/Acme").await.ok(), expected, "{field}");
    }
}

#[tokio::test]
async fn a_refused_change_of_an_organization_leaves_it_as_it_is() {
    let app = TestApp::start().await;
    let id = app.organization().await;
    let path = format!("/api/organizations/{id}");
    let before = stored(&app).await;
    for (body, field) in [
        (json!({"nam": "x"}), "nam"),
        (json!({"organization_id": "other"}), "organization_id"),
        (json!({"status": "deleted"}), "status"),
        (json!({"name": ""}), "name"),
        (json!({"name": 5}), "name"),
        (json!({"metadata": []}), "metadata"),
        (json!({"litellm_organization_id": "a b"}), "litellm_organization_id"),
        (json!([]), "body"),
    ] {
        let answer = app.admin().put(&path, body.clone()).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.body["code"]),
            (400, &json!("invalid_request")),
            "{body}"
        );
        let detail = answer.body["detail"].as_str().expect("a detail");
        assert!(detail.starts_with(&format!("{field}: ")), "{body}: {detail}");
    }
    app.admin().put("/api/organizations/None", json!({"name": "x"})).await.refused(
        404,
        "not_found",
        "Organization 'None' not found",
    );
    assert_eq!(stored(&app).await, before);
}

/// `GET /api/organizations/{organization_id}/teams`
#[tokio::test]
async fn an_organization_shows_its_teams_and_no_others() {
    let app = TestApp::start().await;
    let (own, other) = (app.organization().await, app.organization().await);
    let mut teams = vec![];
    for organization in [&own, &own, &other] {
        teams.push(app.team_with(json!({"organization_id": organization, "credits_allocated": 3})).await);
    }
    app.admin().put(&format!("/api/teams/{}/suspend", teams[0].id), json!({})).await.ok();
    let mut expected = vec![show(&app, &teams[0]).await, show(&app, &teams[1]).await];
    expected.sort_by(|a, b| a["team_id"].as_str().cmp(&b["team_id"].as_str()));
    let listed = app.admin().get(&format!("/api/organizations/{own}/teams")).await.ok();
    assert_eq!(listed, json!({"organization_id": own, "team_count": 2, "teams": expected}));

    let empty = app.organization().await;
    let listed = app.admin().get(&format!("/api/organizations/{empty}/teams")).await.ok();
    assert_eq!(listed, json!({"organization_id": empty, "team_count": 0, "teams": []}));
    app.admin().get("/api/organizations/None/teams").await.refused(
        404,
        "not_found",
        "Organization 'None' not found",
    );
}

/// `DELETE /api/organizations/{organization_id}`
#[tokio::test]
async fn an_organization_without_teams_can_be_deleted_and_its_id_stays_taken() {
    let app = TestApp::start().await;
    let id = app.organization().await;
    let kept = app.organization().await;
    let path = format!("/api/organizations/{id}");
    assert_eq!(app.admin().delete(&path).await.ok(), json!({"organization_id": id, "deleted": true}));

    let gone = format!("Organization '{id}' not found");
    app.admin().delete(&path).await.refused(404, "not_found", &gone);
    app.admin().get(&path).await.refused(404, "not_found", &gone);
    app.admin().get(&format!("{path}/teams")).await.refused(404, "not_found", &gone);
    app.admin().put(&path, json!({"name": "x"})).await.refused(404, "not_found", &gone);
    app.admin().post("/api/teams/create", json!({"organization_id": id})).await.refused(
        404,
        "not_found",
        &gone,
    );
    let list = app.admin().get("/api/organizations").await.ok();
    assert_eq!((&list["total"], &list["organizations"][0]["organization_id"]), (&json!(1), &json!(kept)));

    let again =
        app.admin().post("/api/organizations/create", json!({"organization_id": id, "name": "x"})).await;
    again.refused(409, "already_exists", &format!("Organization '{id}' already exists"));
}

#[tokio::test]
async fn an_organization_with_teams_can_not_be_deleted_until_they_are() {
    let app = TestApp::start().await;
    let id = app.organization().await;
    let path = format!("/api/organizations/{id}");
    let (first, second) = (
        app.team_with(json!({"organization_id": id})).await,
        app.team_with(json!({"organization_id": id})).await,
    );
    app.admin().put(&format!("/api/teams/{}/suspend", second.id), json!({})).await.ok();
    for team in [first, second] {
        let refused = app.admin().delete(&path).await;
        refused.refused(409, "in_use", &format!("Organization '{id}' still has teams"));
        app.admin().get(&path).await.ok();
        app.admin().delete(&format!("/api/teams/{}", team.id)).await.ok();
    }
    app.admin().delete(&path).await.ok();
    app.check_invariants().await;
}

#[tokio::test]
async fn deleting_an_organization_while_a_team_is_made_in_it_leaves_no_team_without_one() {
    let app = TestApp::start().await;
    for _ in 0..8 {
        let id = app.organization().await;
        let (admin, path) = (app.admin(), format!("/api/organizations/{id}"));
        let (created, deleted) = futures::join!(
            admin.post("/api/teams/create", json!({"organization_id": id})),
            admin.delete(&path)
        );
        match deleted.status.as_u16() {
            200 => created.refused(404, "not_found", &format!("Organization '{id}' not found")),
            _ => {
                deleted.refused(409, "in_use", &format!("Organization '{id}' still has teams"));
                created.ok();
            }
        }
    }
    app.check_invariants().await;
}
