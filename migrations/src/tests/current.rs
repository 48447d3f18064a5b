//! The schema of this release.

use super::{super::*, database::Database};
use std::{collections::BTreeSet, fs, path::Path};

/// Functions that the application calls whose statements PostgreSQL plans for the values at hand: they read as much as
/// is asked for, or look at everything. The others find one or a few rows by their keys, so that one plan is as good as
/// another, and planning them anew each time would be half of the time of a call.
const PLANNED_ANEW: [&str; 80] = [
    "abandon_team",
    "activate_key",
    "activate_team",
    "add_credits",
    "adjust_credits",
    "adopt_other_months",
    "alert_delivered",
    "begin_key",
    "begin_resync",
    "begin_team",
    "begin_work",
    "cancel_open_jobs",
    "claim",
    "configure_auto_refill",
    "create_model_access_group",
    "create_model_group",
    "create_organization",
    "delete_history",
    "delete_idempotency_keys",
    "delete_messages",
    "delete_model_access_group",
    "delete_model_group",
    "delete_organization",
    "delete_team",
    "drop_month",
    "end_jobs_of_deleted_team",
    "erase_user",
    "expire_jobs",
    "finish",
    "forget_keys",
    "get_model_access_group",
    "get_model_group",
    "get_openai_model",
    "get_organization",
    "get_team",
    "get_team_model_group",
    "keep",
    "keep_messages",
    "keep_months",
    "lease",
    "list_alerts",
    "list_audit_log",
    "list_jobs",
    "list_keys",
    "list_model_access_groups",
    "list_model_groups",
    "list_openai_models",
    "list_organizations",
    "list_team_model_groups",
    "list_teams",
    "list_transactions",
    "litellm_desired_team",
    "litellm_pending_sync",
    "litellm_synced",
    "lookup_key",
    "metrics",
    "organization_teams",
    "organization_usage",
    "price_call",
    "refund_credits",
    "release",
    "resolve_model_group",
    "revoke_key",
    "rotate_webhook_secret",
    "schema_version",
    "send_alert_again",
    "set_team_access_groups",
    "set_team_model_groups",
    "set_team_status",
    "sweep_batch",
    "take_alerts",
    "take_unpriced_calls",
    "team_usage",
    "unfinished_deletions",
    "update_model_access_group",
    "update_model_group",
    "update_organization",
    "update_team",
    "upkeep_succeeded",
    "usage_rows",
];

#[tokio::test]
async fn an_empty_database_gets_all_of_it_and_a_second_run_finds_nothing_to_do() {
    let database = Database::create().await;
    let all = plan(&database.url).await.expect("a plan");
    assert!(all.functions && all.tables.len() == TABLES.len());
    assert_eq!(apply(&database.url).await.expect("everything"), all);
    assert_eq!(apply(&database.url).await.expect("nothing").to_string(), "nothing to do");
    assert_eq!(plan(&database.url).await.expect("nothing"), Steps::default());
    database.drop().await;
}

#[tokio::test]
async fn the_script_makes_the_same_database_and_writes_down_the_same() {
    let (by_script, by_program) = (Database::create().await, Database::create().await);
    by_script.run_script(&script()).expect("the script");
    apply(&by_program.url).await.expect("everything");
    assert_eq!(by_script.dump(), by_program.dump());
    assert_eq!(plan(&by_script.url).await.expect("nothing"), Steps::default());
    // And again, also where the other one was before.
    for database in [&by_script, &by_program] {
        database.run_script(&script()).expect("nothing to do");
        assert_eq!(database.dump(), by_program.dump());
    }

    let newer = "UPDATE schema_functions SET release = '99.0.0'";
    by_script.connect().await.batch_execute(newer).await.expect("newer");
    let error = by_script.run_script(&script()).expect_err("it is newer");
    assert!(error.contains("of release 99.0.0, which is newer"), "{error}");
    let changed = "UPDATE schema_migrations SET checksum = 'another' WHERE number = 1";
    by_program.connect().await.batch_execute(changed).await.expect("changed");
    let error = by_program.run_script(&script()).expect_err("it is another");
    assert!(error.contains("0001_first.sql as this release does not know it"), "{error}");
    for database in [by_script, by_program] {
        database.drop().await;
    }
}

/// A file names each function once, with all that it is; nothing is added elsewhere.
#[tokio::test]
async fn what_the_application_may_call_runs_as_its_owner_with_a_fixed_path_and_a_chosen_plan() {
    let database = Database::create().await;
    apply(&database.url).await.expect("everything");
    let client = database.connect().await;
    let functions = "SELECT proname::text, prosecdef, coalesce(proconfig, '{}') FROM pg_proc p
        WHERE pronamespace = 'public'::regnamespace AND has_function_privilege('llm_jobs_application', oid, 'EXECUTE')";
    let mut seen = BTreeSet::new();
    for row in client.query(functions, &[]).await.expect("the functions") {
        let (name, definer, settings): (String, bool, Vec<String>) = (row.get(0), row.get(1), row.get(2));
        assert!(definer, "{name} does not run as its owner");
        assert!(settings.contains(&"search_path=public, pg_temp".to_owned()), "{name}: {settings:?}");
        let planned_once = settings.contains(&"plan_cache_mode=force_generic_plan".to_owned());
        assert_ne!(planned_once, PLANNED_ANEW.contains(&name.as_str()), "{name}: which plan is it to have?");
        seen.insert(name);
    }
    assert!(PLANNED_ANEW.iter().all(|name| seen.contains(*name)), "one in the list is gone");
    let to_everybody =
        "SELECT count(*) FROM pg_proc p, aclexplode(coalesce(proacl, acldefault('f', proowner))) AS acl
        WHERE pronamespace = 'public'::regnamespace AND acl.grantee = 0";
    assert_eq!(database.number(to_everybody).await, 0, "something is executable by PUBLIC");
    database.drop().await;
}

/// With the bodies checked, which applying does not do, since functions may use others that come later.
#[tokio::test]
async fn every_body_of_a_function_names_what_is_there() {
    let database = Database::create().await;
    apply(&database.url).await.expect("everything");
    let client = database.connect().await;
    for file in Schema::current().functions {
        client
            .batch_execute(&file.sql)
            .await
            .unwrap_or_else(|error| panic!("{}: {}", file.name, explain(&error, &file.sql)));
    }
    database.drop().await;
}

/// `releases/VERSION.txt` has a line for each function that the components of that release call. During an upgrade they
/// meet the functions of a newer one: what they call has to be there still, with the names of its parameters.
#[tokio::test]
async fn what_the_components_of_earlier_releases_call_is_still_there() {
    let database = Database::create().await;
    apply(&database.url).await.expect("everything");
    let client = database.connect().await;
    let now = signatures(&client).await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("releases");
    if std::env::var_os("WRITE_RELEASE").is_some() {
        fs::write(folder.join(format!("{RELEASE}.txt")), now.join("\n") + "\n").expect("written");
    }
    let mut releases = 0;
    for file in fs::read_dir(folder).expect("the releases") {
        let path = file.expect("a file").path();
        for signature in fs::read_to_string(&path).expect("a text").lines() {
            if let Err(error) = client.prepare(&call_of(signature)).await {
                panic!("{}: {signature}: {error:?}", path.display());
            }
        }
        releases += 1;
    }
    assert!(releases > 0);
    database.drop().await;
}

/// `name(p_one text, p_two bigint DEFAULT 1) json` of every function that the application may call.
async fn signatures(client: &Client) -> Vec<String> {
    let query = "SELECT proname || '(' || pg_get_function_arguments(oid) || ') ' || pg_get_function_result(oid)
                 FROM pg_proc
        WHERE pronamespace = 'public'::regnamespace AND has_function_privilege('llm_jobs_application', oid, 'EXECUTE')
        ORDER BY proname";
    client.query(query, &[]).await.expect("the functions").iter().map(|row| row.get(0)).collect()
}

/// A statement that calls the function of a signature with a value for each parameter, by name.
fn call_of(signature: &str) -> String {
    let (name, rest) = signature.split_once('(').expect("parameters");
    let (parameters, result) = rest.rsplit_once(") ").expect("a result");
    let values = parameters.split(", ").filter(|parameter| !parameter.is_empty()).map(|parameter| {
        let (name, kind) = parameter.split_once(' ').expect("a name and a type");
        format!("{name} => NULL::{}", kind.split(" DEFAULT").next().unwrap_or_default())
    });
    let cast = if result == "void" { String::new() } else { format!("::{result}") };
    format!("SELECT {name}({}){cast}", values.collect::<Vec<_>>().join(", "))
}
