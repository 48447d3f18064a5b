//! Each failure on purpose has its own SQLSTATE and a message for the caller, and leaves no trace.

use serde_json::json;
use sql_tests::{Answer, Expect, World};
use uuid::Uuid;

/// What a key may be used for: each function that acts on behalf of one.
async fn everything_a_key_does(
    world: &World,
    key: Uuid,
    team: &str,
    job: Uuid,
) -> [(&'static str, Answer); 3] {
    [
        ("create_job", world.create_job(key, team, 60).await),
        ("begin_call", world.begin_call(key, job, None, 60).await),
        ("complete_job", world.complete_job(key, job, "completed", &json!({})).await),
    ]
}

/// Everything that a refused statement could have changed.
async fn state(world: &World) -> String {
    let mut state = String::new();
    for table in ["teams", "credit_accounts", "credit_transactions", "jobs", "calls"] {
        state += &world.text(&format!("SELECT json_agg(t ORDER BY t::text) FROM {table} t")).await;
    }
    state
}

#[tokio::test]
async fn a_key_that_does_not_exist_or_is_revoked_or_of_a_team_in_the_making_does_nothing() {
    let world = World::new().await;
    let team = world.team(5).await;
    let job = world.job(&team).await;
    let revoked = world.team(5).await;
    world
        .run(&format!("UPDATE virtual_keys SET revoked_at = now() WHERE team_id = '{}'", revoked.id))
        .await
        .done();
    let unfinished = world.team(5).await;
    world
        .run(&format!("UPDATE teams SET status = 'creating' WHERE team_id = '{}'", unfinished.id))
        .await
        .done();

    let before = state(&world).await;
    for key in [Uuid::now_v7(), revoked.key, unfinished.key] {
        for (_, answer) in everything_a_key_does(&world, key, &team.id, job).await {
            answer.refused("LJ001", "Invalid API key");
        }
    }
    assert_eq!(state(&world).await, before);
    for hash in ["revoked", "unfinished"] {
        let team = if hash == "revoked" { &revoked } else { &unfinished };
        let found =
            format!("SELECT lookup_key(key_hash) IS NULL FROM virtual_keys WHERE team_id = '{}'", team.id);
        assert_eq!(world.text(&found).await, "true", "{hash}");
    }
    world.check_invariants().await;
}

#[tokio::test]
async fn a_key_opens_no_job_for_another_team() {
    let world = World::new().await;
    let (team, other) = (world.team(5).await, world.team(5).await);
    let before = state(&world).await;
    let expected = format!("API key does not belong to team '{}'", other.id);
    world.create_job(team.key, &other.id, 60).await.refused("LJ002", &expected);
    world
        .create_job(team.key, "nowhere", 60)
        .await
        .refused("LJ002", "API key does not belong to team 'nowhere'");
    assert_eq!(state(&world).await, before);
}

#[tokio::test]
async fn a_suspended_teams_key_changes_nothing_until_the_team_is_resumed() {
    let world = World::new().await;
    let team = world.team(5).await;
    let job = world.job(&team).await;
    world.set_team_status(&team.id, "suspended").await.done();

    let before = state(&world).await;
    for (_, answer) in everything_a_key_does(&world, team.key, &team.id, job).await {
        answer.refused("LJ003", &format!("Team '{}' is suspended", team.id));
    }
    assert_eq!(state(&world).await, before);

    world.set_team_status(&team.id, "active").await.done();
    for (function, answer) in everything_a_key_does(&world, team.key, &team.id, job).await {
        assert!(answer.is_ok(), "{function}: {answer:?}");
    }
    world.check_invariants().await;
}

#[tokio::test]
async fn a_call_needs_a_model_group_that_its_team_may_use() {
    let world = World::new().await;
    let team = world.team(5).await;
    let job = world.job(&team).await;
    let bare = world.team_with(5, json!({"model_groups": []})).await;
    let bare_job = world.job(&bare).await;

    let before = state(&world).await;
    for group in ["Code", "Nothing"] {
        let expected = format!("Team '{}' does not have access to model group '{group}'", team.id);
        world.begin_call(team.key, job, Some(group), 60).await.refused("LJ004", &expected);
    }
    let expected = format!("Team '{}' has no model group", bare.id);
    world.begin_call(bare.key, bare_job, None, 60).await.refused("LJ004", &expected);
    assert_eq!(state(&world).await, before, "a refused call does not start its job");
}

#[tokio::test]
async fn a_job_needs_a_credit_that_no_other_job_holds() {
    let world = World::new().await;
    let team = world.team(2).await;
    let job = world.job(&team).await;
    world.job(&team).await;

    let before = state(&world).await;
    for _ in 0..2 {
        let refused = world.create_job(team.key, &team.id, 60).await;
        refused.refused("LJ005", "Insufficient credits. Required: 1, Available: 0");
    }
    assert_eq!(state(&world).await, before);

    world.complete_job(team.key, job, "failed", &json!({})).await.done();
    world.job(&team).await;
    world.check_invariants().await;
}

#[tokio::test]
async fn a_soft_team_goes_below_zero_down_to_its_limit_or_without_end() {
    let world = World::new().await;
    let limited = world.team_with(1, json!({"budget_mode": "soft", "credit_limit": "2"})).await;
    for _ in 0..3 {
        let job = world.job(&limited).await;
        world.complete_job(limited.key, job, "completed", &json!({})).await.done();
    }
    let refused = world.create_job(limited.key, &limited.id, 60).await;
    refused.refused("LJ005", "Insufficient credits. Required: 1, Available: -2");
    assert_eq!(world.account(&limited).await, (1, 3, 0));

    let endless = world.team_with(0, json!({"budget_mode": "soft"})).await;
    for _ in 0..20 {
        world.job(&endless).await;
    }
    assert_eq!(world.account(&endless).await, (0, 0, 20));
    world.check_invariants().await;
}

#[tokio::test]
async fn check_credits_says_what_creating_jobs_would_say() {
    let world = World::new().await;
    for (credits, fields) in [
        (3, json!({})),
        (3, json!({"credit_limit": "5"})),
        (0, json!({"budget_mode": "soft", "credit_limit": "3"})),
        (1, json!({"budget_mode": "soft", "credit_limit": "2"})),
    ] {
        let team = world.team_with(credits, fields).await;
        for required in (1..=3_i64).rev() {
            for (wanted, enough) in [(required, true), (required + 1, false)] {
                let answer = world
                    .call("SELECT check_credits('admin', $1, $2)::text", &[&team.id, &wanted])
                    .await
                    .done();
                assert_eq!(
                    (&answer["available"], &answer["has_credits"], &answer["credits_required"]),
                    (&json!(enough), &json!(enough), &json!(wanted)),
                    "{answer}"
                );
            }
            world.job(&team).await;
        }
        assert_eq!(world.create_job(team.key, &team.id, 60).await.expect_err("no credit").sqlstate, "LJ005");
    }
    let endless = world.team_with(0, json!({"budget_mode": "soft"})).await;
    let answer =
        world.call("SELECT check_credits('admin', $1, 1000000000)::text", &[&endless.id]).await.done();
    assert_eq!(answer["available"], json!(true));
}

#[tokio::test]
async fn what_does_not_exist_is_not_found_by_its_name() {
    let world = World::new().await;
    for (statement, thing) in [
        ("get_organization('x')", "Organization"),
        ("get_model_group('x')", "Model group"),
        ("resolve_model_group('x', 'x')", "Model group"),
        ("resolve_model_group('Chat', 'x')", "Team"),
        ("get_team_model_group('x', 'x')", "Model group"),
        ("get_model_access_group('x')", "Model access group"),
        ("create_model_access_group('new', 'new', NULL, ARRAY['Chat', 'x'], NULL)", "Model group"),
        ("get_team('x')", "Team"),
        ("set_team_status('x', 'suspended')", "Team"),
        ("set_team_model_groups('x', ARRAY['Chat'])", "Team"),
        ("get_balance('x')", "Team"),
        ("check_credits('admin', 'x', 1)", "Team"),
        ("add_credits('x', 1, NULL, '{}', 0.1)", "Team"),
        ("list_transactions('x', 10, 0, NULL)", "Team"),
        ("list_jobs('x', NULL, NULL, NULL, 10, 0, NULL)", "Team"),
    ] {
        let answer = world.call(&format!("SELECT ({statement})::text"), &[]).await;
        assert_eq!(answer.expect_err(statement).message, format!("{thing} 'x' not found"), "{statement}");
    }
    let team = world.team(1).await;
    world.set_team_model_groups(&team.id, &["Chat", "x"]).await.refused("LJ006", "Model group 'x' not found");
    for (field, value, thing) in [
        ("organization_id", json!("x"), "Organization"),
        ("model_groups", json!(["Chat", "x"]), "Model group"),
        ("access_groups", json!(["x"]), "Model access group"),
        ("default_model_group", json!("x"), "Model group"),
    ] {
        let mut fields = json!({});
        fields[field] = value;
        let answer = world.begin_team(Uuid::now_v7(), 60, &World::spec("new", fields)).await;
        answer.refused("LJ006", &format!("{thing} 'x' not found"));
    }
    let left = world.text("SELECT count(*) FROM teams WHERE team_id = 'new'").await;
    assert_eq!(
        (left.as_str(), world.text("SELECT count(*) FROM model_access_groups").await.as_str()),
        ("0", "0")
    );
}

#[tokio::test]
async fn another_teams_job_is_not_found_just_like_one_that_does_not_exist() {
    let world = World::new().await;
    let (team, other) = (world.team(5).await, world.team(5).await);
    let before_job = world.job(&other).await;
    let before = state(&world).await;
    for job in [before_job, Uuid::now_v7()] {
        world.begin_call(team.key, job, None, 60).await.refused("LJ006", "Job not found");
        world.complete_job(team.key, job, "completed", &json!({})).await.refused("LJ006", "Job not found");
        let reader = format!("team:{}", team.id);
        world.call("SELECT get_job($1, $2)::text", &[&job, &reader]).await.refused("LJ006", "Job not found");
    }
    assert_eq!(state(&world).await, before);
    world.get_job(before_job).await.done();
    world.get_job(Uuid::now_v7()).await.refused("LJ006", "Job not found");
}

#[tokio::test]
async fn a_name_that_is_taken_is_refused_unless_we_made_it_up() {
    let world = World::new().await;
    let team = world.team(1).await;
    world.call("SELECT create_model_access_group('all', 'All', NULL, '{}', NULL)::text", &[]).await.done();
    let models = r#"'[{"model_name": "m", "priority": 0, "config": {}}]'"#;
    for (statement, expected) in [
        ("create_organization('org', false, 'Name', '{}', NULL)".into(), "Organization 'org' already exists"),
        (
            format!("create_model_group('Chat', 'Chat', NULL, {models}, '{{}}')"),
            "Model group 'Chat' already exists",
        ),
        (
            "create_model_access_group('all', 'All', NULL, '{}', NULL)".into(),
            "Model access group 'all' already exists",
        ),
        (
            format!("create_model_access_group('Chat', 'Chat', NULL, NULL, {models})"),
            "Model group 'Chat' already exists",
        ),
    ] {
        world.call(&format!("SELECT ({statement})::text"), &[]).await.refused("LJ007", expected);
    }
    assert_eq!(
        world.text("SELECT count(*) FROM model_access_groups").await,
        "1",
        "the half that worked is undone"
    );
    let again = world.begin_team(Uuid::now_v7(), 60, &World::spec(&team.id, json!({}))).await;
    again.refused("LJ007", &format!("Team '{}' already exists", team.id));

    let made_up =
        world.call("SELECT create_organization('org', true, 'Name', '{}', NULL)::text", &[]).await.done();
    let id = made_up["organization_id"].as_str().expect("an id");
    assert!(id.starts_with("org-") && id.len() > 4, "{id}");
}

#[tokio::test]
async fn a_job_that_has_ended_takes_no_calls_and_no_other_end() {
    let world = World::new().await;
    let team = world.team(9).await;
    for status in ["completed", "failed", "cancelled", "expired"] {
        let job = world.job(&team).await;
        if status == "expired" {
            world.job_is_overdue(job).await;
        } else {
            world.complete_job(team.key, job, status, &json!({})).await.done();
        }
        for swept in [false, true] {
            let before = state(&world).await;
            let expected = format!("Job '{job}' is already {status}");
            world.begin_call(team.key, job, None, 60).await.refused("LJ008", &expected);
            for other in ["completed", "failed", "cancelled"].into_iter().filter(|other| *other != status) {
                world.complete_job(team.key, job, other, &json!({})).await.refused("LJ008", &expected);
            }
            assert_eq!(state(&world).await, before, "{status}, swept: {swept}");
            world.sweep_team(&team.id).await.done();
        }
    }
    assert_eq!(world.account(&team).await, (9, 1, 0));
    world.check_invariants().await;
}

#[tokio::test]
async fn a_default_group_that_is_not_among_the_teams_groups_is_refused() {
    let world = World::new().await;
    let spec = World::spec("new", json!({"default_model_group": "Code"}));
    let answer = world.begin_team(Uuid::now_v7(), 60, &spec).await;
    answer.refused("LJ010", "default_model_group: 'Code' is not among the team's model groups");
    world.check_invariants().await;
}

/// Nobody is what is left when something is missing.
#[tokio::test]
async fn an_actor_that_is_none_may_do_nothing_and_one_that_may_only_read_changes_nothing() {
    let world = World::new().await;
    let team = world.team(5).await;
    let job = world.job(&team).await;
    let before = state(&world).await;
    let reader = format!("team:{}", team.id);
    for actor in [None, Some(""), Some("nobody"), Some("Admin"), Some(reader.as_str())] {
        let named = actor.unwrap_or("NULL");
        let refusal = format!("no actor that may change anything: {named}");
        for statement in [
            "SELECT create_job($1, $2, NULL, 'test', '{}', 60)::text".to_owned(),
            "SELECT check_credits($1, $2, 1)::text".to_owned(),
            format!("SELECT complete_job($1, '{job}', $2, '{{}}', NULL)::text"),
            format!("SELECT merge_job_metadata($1, '{job}', to_json($2::text))::text"),
            format!("SELECT begin_call($1, '{job}', $2, NULL, false, '{{}}', 60)::text"),
        ] {
            world.call(&statement, &[&actor, &team.id]).await.refused("LJ000", &refusal);
        }
    }
    let key = sql_tests::actor(team.key);
    for actor in [None, Some(""), Some("nobody"), Some(key.as_str()), Some("system")] {
        let refusal = format!("no actor that may read: {}", actor.unwrap_or("NULL"));
        for function in ["get_job", "get_job_costs"] {
            let statement = format!("SELECT {function}('{job}', $1)::text");
            world.call(&statement, &[&actor]).await.refused("LJ000", &refusal);
        }
        let usage = "SELECT team_usage($1, $2, '2026-01-01', '2026-02-01')::text";
        world.call(usage, &[&actor, &team.id]).await.refused("LJ000", &refusal);
    }
    assert_eq!(state(&world).await, before);
}
