//! What the role can do as which the application is connected to its database: call the functions of the API. Whoever
//! got hold of its password, or of a component, can do that and nothing else.

use api_tests::TestApp;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio_postgres::Client;

/// The SQLSTATE with which a statement fails; empty if it succeeds.
async fn refusal(role: &Client, statement: &str) -> String {
    let failure = role.batch_execute(statement).await.err();
    _ = role.batch_execute("ROLLBACK").await;
    failure
        .map(|failure| failure.code().map_or("no SQLSTATE".into(), |code| code.code().to_owned()))
        .unwrap_or_default()
}

const DENIED: &str = "42501";

async fn texts(client: &Client, query: &str) -> Vec<String> {
    client.query(query, &[]).await.expect(query).iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn the_applications_role_can_neither_read_nor_write_any_table() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    team.job().await;
    let role = app.database.connect_as_application().await;
    let before = app.database.everything().await;
    let tables = texts(
        &app.database.client,
        "SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'public'::regnamespace \
         AND relkind IN ('r', 'p', 'v', 'm', 'f')",
    )
    .await;
    assert!(tables.contains(&"virtual_keys".to_owned()) && tables.len() > 20, "{tables:?}");
    for table in &tables {
        let column = format!(
            "SELECT attname::text FROM pg_attribute
             WHERE attrelid = '{table}'::regclass AND attnum > 0 AND attidentity = '' AND attgenerated = '' LIMIT 1"
        );
        let column = texts(&app.database.client, &column).await.remove(0);
        for statement in [
            format!("SELECT {column} FROM {table}"),
            format!("SELECT count(*) FROM {table}"),
            format!("INSERT INTO {table} DEFAULT VALUES"),
            format!("UPDATE {table} SET {column} = {column}"),
            format!("DELETE FROM {table}"),
            format!("TRUNCATE {table} CASCADE"),
            format!("BEGIN; LOCK TABLE {table} IN ACCESS SHARE MODE"),
            format!("COPY {table} TO STDOUT"),
            format!(
                "MERGE INTO {table} USING (SELECT 1) AS one ON false WHEN NOT MATCHED THEN INSERT DEFAULT VALUES"
            ),
        ] {
            assert_eq!(refusal(&role, &statement).await, DENIED, "{statement}");
        }
    }
    let sequences = "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'S' \
                     AND relnamespace = 'public'::regnamespace";
    for sequence in texts(&app.database.client, sequences).await {
        for call in [format!("nextval('{sequence}')"), format!("setval('{sequence}', 1)")] {
            assert_eq!(refusal(&role, &format!("SELECT {call}")).await, DENIED, "{call}");
        }
    }
    assert_eq!(app.database.everything().await, before);
}

#[tokio::test]
async fn the_applications_role_makes_changes_and_becomes_nothing() {
    let app = TestApp::start().await;
    app.team(1).await;
    let role = app.database.connect_as_application().await;
    let owner: i32 =
        app.database.client.query_one("SELECT pg_backend_pid()", &[]).await.expect("a number").get(0);
    let before = app.database.everything().await;
    let terminate = format!("SELECT pg_terminate_backend({owner})");
    let database = format!(
        "ALTER DATABASE {} SET search_path = x",
        texts(&role, "SELECT current_database()::text").await[0]
    );
    for statement in [
        "CREATE TABLE public.x (y text)",
        "CREATE VIEW public.x AS SELECT 1",
        "CREATE FUNCTION public.x() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE FUNCTION public.fail(varchar, varchar) RETURNS void LANGUAGE sql AS 'SELECT'",
        "CREATE TYPE public.x AS (y text)",
        "CREATE SCHEMA x",
        "CREATE EXTENSION pg_stat_statements",
        "CREATE EXTENSION dblink",
        "CREATE LANGUAGE plperlu",
        "CREATE SERVER x FOREIGN DATA WRAPPER y",
        "CREATE EVENT TRIGGER x ON ddl_command_start EXECUTE FUNCTION refuse_change()",
        "CREATE PUBLICATION x FOR ALL TABLES",
        "CREATE ROLE x",
        "CREATE DATABASE x",
        "ALTER ROLE llm_jobs_test SUPERUSER",
        "ALTER ROLE llm_jobs_test BYPASSRLS",
        "ALTER ROLE postgres PASSWORD 'x'",
        "GRANT postgres TO llm_jobs_test",
        "GRANT pg_read_server_files TO llm_jobs_test",
        "GRANT pg_execute_server_program TO llm_jobs_test",
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO llm_jobs_test",
        "SET ROLE postgres",
        "SET SESSION AUTHORIZATION postgres",
        "SET session_replication_role = replica",
        "SET log_statement = 'all'",
        "ALTER SYSTEM SET fsync = off",
        "ALTER TABLE teams ADD COLUMN x text",
        "ALTER TABLE credit_accounts DROP CONSTRAINT credits_not_negative",
        "ALTER TABLE credit_transactions DISABLE TRIGGER ledger_is_append_only",
        "DROP TRIGGER audit_log_is_append_only ON audit_log",
        "CREATE TRIGGER x BEFORE INSERT ON jobs EXECUTE FUNCTION refuse_change()",
        "CREATE RULE x AS ON INSERT TO jobs DO INSTEAD NOTHING",
        "CREATE INDEX ON teams (team_id)",
        "DROP TABLE teams CASCADE",
        "DROP FUNCTION lookup_key",
        "ALTER FUNCTION lookup_key OWNER TO llm_jobs_test",
        "ALTER FUNCTION lookup_key SECURITY INVOKER",
        "CREATE OR REPLACE FUNCTION public.lookup_key(p_key_hash bytea) RETURNS json \
         LANGUAGE sql AS 'SELECT NULL::json'",
        "COMMENT ON TABLE teams IS 'x'",
        "REINDEX TABLE teams",
        "COPY (SELECT 1) TO PROGRAM 'true'",
        "COPY (SELECT 1) TO '/tmp/x'",
        "CREATE TEMP TABLE passwords (line text); COPY passwords FROM '/etc/passwd'",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT pg_read_binary_file('/etc/passwd')",
        "SELECT pg_ls_dir('/')",
        "SELECT pg_stat_file('/etc/passwd')",
        "SELECT lo_import('/etc/passwd')",
        "SELECT pg_reload_conf()",
        "SELECT pg_rotate_logfile()",
        "SELECT pg_switch_wal()",
        "SELECT pg_create_physical_replication_slot('x')",
        "SELECT rolpassword FROM pg_authid",
        "SELECT passwd FROM pg_shadow",
        "SELECT * FROM pg_statistic",
        "SELECT * FROM pg_hba_file_rules",
        "DO $$ BEGIN DELETE FROM public.teams; END $$",
        "DO $$ BEGIN PERFORM public.acting_team(NULL); END $$",
        "LOAD '/tmp/x.so'",
        &terminate,
        &database,
    ] {
        let code = refusal(&role, statement).await;
        // Beside the denial: who may not even see that there is such a thing is told that there is none.
        let refused = [DENIED, "42704", "0A000", "58P01"].contains(&code.as_str());
        assert!(refused, "{statement}: {}", if code.is_empty() { "it succeeded" } else { &code });
    }
    assert_eq!(app.database.everything().await, before);
}

#[tokio::test]
async fn every_function_is_either_refused_or_runs_as_its_owner_with_a_fixed_search_path() {
    let app = TestApp::start().await;
    let role = app.database.connect_as_application().await;
    let functions = app
        .database
        .client
        .query(
            "SELECT p.oid::regprocedure::text, proname::text, has_function_privilege('llm_jobs_test', p.oid, 'EXECUTE'),
             prosecdef,
                    coalesce(array_to_string(proconfig, ' '), ''), prorettype = 'trigger'::regtype,
                    ARRAY(SELECT format_type(t, NULL) FROM unnest(proargtypes) AS t), pg_get_userbyid(proowner)::text
             FROM pg_proc p WHERE pronamespace = 'public'::regnamespace",
            &[],
        )
        .await
        .expect("the functions");
    let before = app.database.everything().await;
    let (mut open, mut closed) = (vec![], vec![]);
    for row in functions {
        let (signature, name): (String, String) = (row.get(0), row.get(1));
        let (callable, definer, config, trigger): (bool, bool, String, bool) =
            (row.get(2), row.get(3), row.get(4), row.get(5));
        let (types, owner): (Vec<String>, String) = (row.get(6), row.get(7));
        assert_ne!(owner, "llm_jobs_test", "{signature}");
        if callable {
            assert!(definer, "{signature} runs with the caller's rights");
            assert!(
                config.contains("search_path=public, pg_temp"),
                "{signature} has no search path of its own: {config}"
            );
            open.push(name);
        } else {
            let arguments: Vec<String> = types.iter().map(|kind| format!("NULL::{kind}")).collect();
            let code = refusal(&role, &format!("SELECT public.{name}({})", arguments.join(", "))).await;
            assert!(code == DENIED || (trigger && code == "0A000"), "{signature}: {code}");
            closed.push(name);
        }
    }
    assert_eq!(app.database.everything().await, before);
    for inner in [
        "acting_team",
        "fail",
        "post_transaction",
        "write_settling",
        "count_settling",
        "make_months",
        "month_tables",
        "refuse_change",
    ] {
        assert!(closed.iter().any(|name| name == inner), "{inner} is open, or is gone");
    }
    for outer in ["lookup_key", "begin_call", "settle_call", "create_job", "get_balance"] {
        assert!(open.iter().any(|name| name == outer), "{outer} is closed, or is gone");
    }
}

#[tokio::test]
async fn what_the_role_makes_for_itself_takes_the_place_of_nothing() {
    let app = TestApp::start().await;
    let team = app.team(5).await;
    let role = app.database.connect_as_application().await;
    let hash = Sha256::digest(&team.key).to_vec();
    // Whether it may make any of these is not the point; none of them may count.
    for table in ["virtual_keys", "teams", "credit_accounts", "jobs", "idempotency_keys", "audit_log"] {
        _ = role.batch_execute(&format!("CREATE TEMP TABLE {table} (LIKE public.{table})")).await;
        _ = role
            .batch_execute(&format!("CREATE TEMP TABLE {table} (team_id text, key_id uuid, status text)"))
            .await;
    }
    for function in [
        "acting_team(text) RETURNS text LANGUAGE sql AS $$ SELECT 'hijacked' $$",
        "fail(text, text) RETURNS void LANGUAGE sql AS $$ $$",
        "uuid_v7() RETURNS uuid LANGUAGE sql AS $$ SELECT NULL::uuid $$",
        "now() RETURNS timestamptz LANGUAGE sql AS $$ SELECT timestamptz '1999-01-01' $$",
        "coalesce_all(anyelement) RETURNS anyelement LANGUAGE sql AS $$ SELECT $1 $$",
        "texteq(text, text) RETURNS boolean LANGUAGE sql AS $$ SELECT true $$",
        "jobs(text) RETURNS boolean LANGUAGE sql AS $$ SELECT true $$",
    ] {
        _ = role.batch_execute(&format!("CREATE FUNCTION pg_temp.{function}")).await;
    }
    let operator = "CREATE OPERATOR pg_temp.= (LEFTARG = text, RIGHTARG = text, FUNCTION = pg_temp.texteq)";
    _ = role.batch_execute(operator).await;
    role.batch_execute("SET search_path = pg_temp, public").await.expect("a setting of its own");

    let found: serde_json::Value =
        role.query_one("SELECT public.lookup_key($1)", &[&hash]).await.expect("the key").get(0);
    assert_eq!(found["team_id"], json!(team.id));
    let balance: serde_json::Value =
        role.query_one("SELECT public.get_balance($1)", &[&team.id]).await.expect("the balance").get(0);
    assert_eq!(balance["credits_remaining"], 5, "{balance}");
    let nobodys: uuid::Uuid = uuid::Uuid::now_v7();
    let create = "SELECT public.create_job('key:' || $1::uuid, NULL, NULL, 'test', '{}', 60)";
    let refused = role.query(create, &[&nobodys]).await.expect_err("no such key");
    assert_eq!(refused.code().map(|code| code.code()), Some("LJ001"), "{refused:?}");
    app.check_invariants().await;
}
