//! For each route a request that succeeds.

use crate::world::{World, unique};
use serde_json::{Value, json};
use uuid::Uuid;

/// A request that succeeds, once.
pub struct Recipe {
    /// Its path with what belongs to it in the query.
    pub path: String,
    /// Its body.
    pub body: Option<Value>,
    /// What a team gets whose things the request is not about; `None`: the same as everybody, its own things.
    pub to_others: Option<(u16, &'static str)>,
}

impl Recipe {
    fn new(path: impl Into<String>) -> Self {
        let path = path.into();
        let to_others = match () {
            () if path.starts_with("/api/jobs/") => Some((404, "not_found")),
            () if path.starts_with("/api/teams/") || path.starts_with("/api/credits/teams/") => {
                Some((403, "wrong_team"))
            }
            () => None,
        };
        Self { path, body: None, to_others }
    }

    fn body(self, body: Value) -> Self {
        Self { body: Some(body), ..self }
    }

    fn others_get(self, status: u16, code: &'static str) -> Self {
        Self { to_others: Some((status, code)), ..self }
    }
}

/// The request for a route, about the things of a world.
pub async fn recipe(route: &str, world: &World<'_>) -> Recipe {
    let World { app, organization, group, access_group, team, job } = world;
    let id = &team.id;
    let at = |path: String| Recipe::new(path);
    let call = json!({"messages": [{"role": "user", "content": "hello"}]});
    let own_job =
        json!({"team_id": id, "job_type": "test", "messages": [{"role": "user", "content": "hello"}]});
    let models = json!([{"model_name": "gpt-4o", "priority": 0}]);
    match route {
        "POST /api/organizations/create" => at("/api/organizations/create".into())
            .body(json!({"organization_id": unique("org"), "name": "Test"})),
        "GET /api/organizations" => at("/api/organizations".into()),
        "GET /api/organizations/{organization_id}" => at(format!("/api/organizations/{organization}")),
        "PUT /api/organizations/{organization_id}" => {
            at(format!("/api/organizations/{organization}")).body(json!({"name": "Changed"}))
        }
        "DELETE /api/organizations/{organization_id}" => {
            at(format!("/api/organizations/{}", app.organization().await))
        }
        "GET /api/organizations/{organization_id}/teams" => {
            at(format!("/api/organizations/{organization}/teams"))
        }
        "GET /api/organizations/{organization_id}/usage" => {
            at(format!("/api/organizations/{organization}/usage"))
        }

        "POST /api/model-groups/create" => at("/api/model-groups/create".into())
            .body(json!({"group_name": unique("Group"), "models": models})),
        "GET /api/model-groups" => at("/api/model-groups".into()),
        "GET /api/model-groups/{group_name}" => {
            at(format!("/api/model-groups/{group}")).others_get(404, "not_found")
        }
        "PUT /api/model-groups/{group_name}" => {
            at(format!("/api/model-groups/{group}")).body(json!({"display_name": "Changed"}))
        }
        "DELETE /api/model-groups/{group_name}" => {
            at(format!("/api/model-groups/{}", app.model_group(&["gpt-4o"]).await))
        }
        "GET /api/model-groups/{group_name}/models" => at(format!("/api/model-groups/{group}/models")),
        "PUT /api/model-groups/{group_name}/models" => {
            at(format!("/api/model-groups/{group}/models")).body(models)
        }
        "GET /api/model-groups/{group_name}/resolve" => {
            at(format!("/api/model-groups/{group}/resolve?team_id={id}")).others_get(403, "wrong_team")
        }

        "POST /api/model-access-groups/create" => at("/api/model-access-groups/create".into())
            .body(json!({"group_name": unique("access"), "model_groups": [group]})),
        "GET /api/model-access-groups" => at("/api/model-access-groups".into()),
        "GET /api/model-access-groups/{group_name}" => at(format!("/api/model-access-groups/{access_group}")),
        "PUT /api/model-access-groups/{group_name}" => {
            at(format!("/api/model-access-groups/{access_group}")).body(json!({"display_name": "Changed"}))
        }
        "PUT /api/model-access-groups/{group_name}/model-groups" => {
            at(format!("/api/model-access-groups/{access_group}/model-groups")).body(json!([]))
        }
        "DELETE /api/model-access-groups/{group_name}" => {
            let name = unique("access");
            app.admin().post("/api/model-access-groups/create", json!({"group_name": name})).await.ok();
            at(format!("/api/model-access-groups/{name}"))
        }

        "POST /api/teams/create" => at("/api/teams/create".into()).body(
            json!({"organization_id": organization, "team_id": unique("team"), "credits_allocated": 5}),
        ),
        "GET /api/teams" => at("/api/teams".into()),
        "GET /api/teams/{team_id}" => at(format!("/api/teams/{id}")),
        "PUT /api/teams/{team_id}" => at(format!("/api/teams/{id}")).body(json!({"rpm_limit": 100})),
        "DELETE /api/teams/{team_id}" => at(format!("/api/teams/{id}")),
        "PUT /api/teams/{team_id}/model-groups" => {
            at(format!("/api/teams/{id}/model-groups")).body(json!([]))
        }
        "PUT /api/teams/{team_id}/access-groups" => {
            at(format!("/api/teams/{id}/access-groups")).body(json!([]))
        }
        "PUT /api/teams/{team_id}/suspend" => at(format!("/api/teams/{id}/suspend")),
        "PUT /api/teams/{team_id}/resume" => at(format!("/api/teams/{id}/resume")),
        "POST /api/teams/{team_id}/erase-user" => {
            at(format!("/api/teams/{id}/erase-user")).body(json!({"user_id": "somebody"}))
        }
        "POST /api/teams/{team_id}/resync" => at(format!("/api/teams/{id}/resync")),
        "GET /api/teams/{team_id}/jobs" => at(format!("/api/teams/{id}/jobs")),
        "GET /api/teams/{team_id}/usage" => at(format!("/api/teams/{id}/usage")),
        "GET /api/teams/{team_id}/alerts" => at(format!("/api/teams/{id}/alerts")),
        "POST /api/alerts/{alert_id}/send-again" => {
            // One that is not sent before the request.
            let alert =
                "WITH listening AS (UPDATE teams SET webhook_url = 'https://127.0.0.1:9/' WHERE team_id = $1)
                         INSERT INTO alerts (alert_id, team_id, kind, message, details)
                         VALUES (uuid_v7(), $1, 'team_suspended', 'A test', '{}') RETURNING alert_id::text";
            let alert = app.database.client.query_one(alert, &[&id]).await.expect("an alert");
            at(format!("/api/alerts/{}/send-again", alert.get::<_, String>(0)))
        }
        "POST /api/teams/{team_id}/webhook-secret/rotate" => {
            at(format!("/api/teams/{id}/webhook-secret/rotate")).body(json!({"grace_seconds": 60}))
        }
        "GET /api/teams/{team_id}/keys" => at(format!("/api/teams/{id}/keys")),
        "POST /api/teams/{team_id}/keys/create" => {
            at(format!("/api/teams/{id}/keys/create")).body(json!({"alias": "ci"}))
        }
        "POST /api/teams/{team_id}/keys/rotate" => {
            at(format!("/api/teams/{id}/keys/rotate")).body(json!({"grace_seconds": 60}))
        }
        "DELETE /api/teams/{team_id}/keys/{key_id}" => {
            let key = app.admin().post(&format!("/api/teams/{id}/keys/create"), json!({})).await.ok();
            at(format!("/api/teams/{id}/keys/{}", key["key"]["key_id"].as_str().expect("a key_id")))
        }

        "GET /api/credits/teams/{team_id}/balance" => at(format!("/api/credits/teams/{id}/balance")),
        "POST /api/credits/teams/{team_id}/add" => {
            at(format!("/api/credits/teams/{id}/add")).body(json!({"amount": 5}))
        }
        "POST /api/credits/teams/{team_id}/adjust" => at(format!("/api/credits/teams/{id}/adjust"))
            .body(json!({"credits_amount": -1, "reason": "a test"})),
        "POST /api/credits/teams/{team_id}/refund" => {
            team.complete(job, "completed").await.ok();
            at(format!("/api/credits/teams/{id}/refund")).body(json!({"job_id": job, "reason": "a test"}))
        }
        "POST /api/credits/teams/{team_id}/check" => {
            at(format!("/api/credits/teams/{id}/check")).body(json!({"credits_required": 2}))
        }
        "POST /api/credits/teams/{team_id}/configure-auto-refill" => {
            at(format!("/api/credits/teams/{id}/configure-auto-refill"))
                .body(json!({"enabled": true, "refill_amount": 10, "refill_period": "monthly"}))
        }
        "GET /api/credits/teams/{team_id}/transactions" => {
            at(format!("/api/credits/teams/{id}/transactions"))
        }

        "POST /api/jobs/create" => at("/api/jobs/create".into())
            .body(json!({"team_id": id, "job_type": "test"}))
            .others_get(403, "wrong_team"),
        "GET /api/jobs/{job_id}" => at(format!("/api/jobs/{job}")),
        "GET /api/jobs/{job_id}/calls" => at(format!("/api/jobs/{job}/calls")),
        "GET /api/jobs/{job_id}/costs" => at(format!("/api/jobs/{job}/costs")),
        "PATCH /api/jobs/{job_id}/metadata" => {
            at(format!("/api/jobs/{job}/metadata")).body(json!({"metadata": {"reviewed": true}}))
        }
        "POST /api/jobs/{job_id}/complete" => {
            at(format!("/api/jobs/{job}/complete")).body(json!({"status": "completed"}))
        }
        "POST /api/upkeep" => at("/api/upkeep".into()),
        "POST /api/jobs/expire" => at("/api/jobs/expire".into()),
        "POST /api/jobs/{job_id}/llm-call" => at(format!("/api/jobs/{job}/llm-call")).body(call),
        "POST /api/jobs/{job_id}/llm-call-stream" => {
            at(format!("/api/jobs/{job}/llm-call-stream")).body(call)
        }
        "POST /api/jobs/create-and-call" => {
            at("/api/jobs/create-and-call".into()).body(own_job).others_get(403, "wrong_team")
        }
        "POST /api/jobs/create-and-call-stream" => {
            at("/api/jobs/create-and-call-stream".into()).body(own_job).others_get(403, "wrong_team")
        }

        "POST /v1/chat/completions" => at("/v1/chat/completions".into())
            .body(json!({"model": group, "messages": [{"role": "user", "content": "hello"}]}))
            .others_get(403, "model_group_denied"),
        "GET /v1/models" => at("/v1/models".into()),
        "GET /v1/models/{group_name}" => at(format!("/v1/models/{group}")).others_get(404, "not_found"),

        "GET /api/audit-log" => at("/api/audit-log".into()),
        "GET /metrics" => at("/metrics".into()),
        "GET /health" => at("/health".into()),
        "GET /openapi.json" => at("/openapi.json".into()),
        "GET /docs" => at("/docs".into()),
        "GET /docs/{name}" => at("/docs/swagger-ui.css".into()),
        "GET /redoc" => at("/redoc".into()),
        _ => panic!("{route} is new: give it a recipe in tests/api/tests/matrix/recipes.rs"),
    }
}

/// The same request made wrong, so that it is refused: with a field that nothing has, or for something that is not
/// there.
pub fn spoilt(recipe: &Recipe, deletes: bool) -> Recipe {
    let mut spoilt = Recipe { path: recipe.path.clone(), body: recipe.body.clone(), to_others: None };
    if deletes {
        let (parent, _) = recipe.path.rsplit_once('/').expect("a path");
        spoilt.path = format!("{parent}/{}", Uuid::now_v7());
    } else {
        spoilt.body = Some(json!({"no_such_field": 1}));
    }
    spoilt
}
