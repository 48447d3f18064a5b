//! On a real PostgreSQL: `TEST_DATABASE_URL` names a server and a superuser, as `cargo xtask test` sets it. Each test
//! makes a database of its own and removes it.

mod current;
mod database;

use super::*;
use database::Database;

const TABLE: File = File { name: "tables/0001_table.sql", sql: Cow::Borrowed("CREATE TABLE t (n integer);") };
const ROWS: File = File {
    name: "tables/0002_rows.sql",
    sql: Cow::Borrowed("INSERT INTO t VALUES (1);\nINSERT INTO t VALUES (2);"),
};
const BROKEN: File = File {
    name: "tables/0003_broken.sql",
    sql: Cow::Borrowed("INSERT INTO t VALUES (3);\n\nSELECT nonsense;"),
};

/// A schema with these tables and a function `number` that answers 1, for which another one, `helper`, is needed.
fn schema(tables: &[File]) -> Schema {
    // In the wrong order on purpose: one function may use another that comes later.
    let number = "CREATE OR REPLACE FUNCTION number() RETURNS integer LANGUAGE sql
                  SECURITY DEFINER SET search_path FROM CURRENT AS 'SELECT helper()';
                  GRANT EXECUTE ON FUNCTION number TO llm_jobs_application;";
    let helper = "CREATE OR REPLACE FUNCTION helper() RETURNS integer LANGUAGE sql AS 'SELECT 1';";
    let file = |name, sql| File { name, sql: Cow::Borrowed(sql) };
    Schema {
        release: "1.2.3",
        tables: tables.to_vec(),
        functions: vec![file("functions/a.sql", number), file("functions/b.sql", helper)],
    }
}

fn steps(tables: &[&'static str], functions: bool) -> Steps {
    Steps { tables: tables.to_vec(), functions }
}

#[tokio::test]
async fn files_are_applied_in_order_and_only_once() {
    let database = Database::create().await;
    let schema = schema(&[TABLE, ROWS]);
    let client = database.connect().await;
    assert_eq!(schema.missing_in(&client).await.expect("a plan"), steps(&[TABLE.name, ROWS.name], true));
    assert_eq!(database.number("SELECT count(*) FROM pg_class WHERE relname = 't'").await, 0, "a plan");

    let first = schema.apply_to(&client).await.expect("all of it");
    assert_eq!(first, steps(&[TABLE.name, ROWS.name], true));
    assert_eq!(schema.apply_to(&client).await.expect("nothing"), Steps::default());
    assert_eq!(database.number("SELECT count(*) FROM t").await, 2);
    assert_eq!(database.number("SELECT number()::bigint").await, 1);
    database.drop().await;
}

#[tokio::test]
async fn a_new_file_is_applied_after_those_that_are_there() {
    let database = Database::create().await;
    let client = database.connect().await;
    schema(&[TABLE]).apply_to(&client).await.expect("the first");
    let applied = schema(&[TABLE, ROWS]).apply_to(&client).await.expect("the second");
    assert_eq!(applied, steps(&[ROWS.name], false));
    database.drop().await;
}

#[tokio::test]
async fn a_failing_file_leaves_the_database_as_it_was() {
    let database = Database::create().await;
    let client = database.connect().await;
    schema(&[TABLE]).apply_to(&client).await.expect("the first");
    let error =
        schema(&[TABLE, ROWS, BROKEN]).apply_to(&client).await.expect_err("the third fails").to_string();
    assert!(error.starts_with("migrations/tables/0003_broken.sql: line 3: "), "{error}");
    assert!(error.contains("nonsense") && error.contains("42703"), "{error}");
    assert_eq!(database.number("SELECT count(*) FROM t").await, 0);
    assert_eq!(database.number("SELECT count(*) FROM schema_migrations").await, 1);
    // The connection is in no transaction, so another one can begin.
    schema(&[TABLE, ROWS]).apply_to(&client).await.expect("the second");
    database.drop().await;
}

#[tokio::test]
async fn a_file_that_was_changed_after_it_was_applied_is_an_error_that_names_it() {
    let database = Database::create().await;
    let client = database.connect().await;
    schema(&[TABLE]).apply_to(&client).await.expect("the first");
    let changed = File { sql: "CREATE TABLE t (n bigint);".into(), ..TABLE };
    let error = schema(&[changed, ROWS]).apply_to(&client).await.expect_err("it was changed").to_string();
    assert!(error.starts_with("migrations/tables/0001_table.sql was changed"), "{error}");
    assert_eq!(database.number("SELECT count(*) FROM t").await, 0);
    database.drop().await;
}

#[tokio::test]
async fn a_database_that_is_ahead_or_of_something_else_is_an_error() {
    let database = Database::create().await;
    let client = database.connect().await;
    schema(&[TABLE, ROWS]).apply_to(&client).await.expect("both");
    let error = schema(&[TABLE]).apply_to(&client).await.expect_err("it is ahead").to_string();
    assert!(error.contains("0002_rows.sql") && error.contains("newer"), "{error}");

    let older = Schema { release: "1.2.0", ..schema(&[TABLE, ROWS]) };
    let error = older.apply_to(&client).await.expect_err("it is newer").to_string();
    assert!(error.contains("of release 1.2.3, and this is 1.2.0"), "{error}");

    let other = File { name: "tables/0001_other.sql", ..TABLE };
    let error = schema(&[other]).apply_to(&client).await.expect_err("it is another").to_string();
    assert!(error.contains("0001_table.sql where this release has 0001_other.sql"), "{error}");
    database.drop().await;
}

#[tokio::test]
async fn a_changed_function_is_replaced_and_one_that_is_no_longer_defined_is_dropped() {
    let database = Database::create().await;
    let client = database.connect().await;
    schema(&[TABLE]).apply_to(&client).await.expect("all of it");
    client.batch_execute("CREATE EXTENSION pg_stat_statements").await.expect("an extension");
    let mut changed = schema(&[TABLE]);
    changed.functions[0].sql = changed.functions[0].sql.replace("helper()", "2").into();
    changed.functions.pop();
    assert_eq!(changed.apply_to(&client).await.expect("the functions"), steps(&[], true));
    assert_eq!(database.number("SELECT number()::bigint").await, 2);
    let left = "SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace \
                AND proname IN ('number', 'helper')";
    assert_eq!(database.number(left).await, 1);
    assert_eq!(
        database.number("SELECT count(*) FROM pg_stat_statements WHERE false").await,
        0,
        "what is not ours"
    );
    database.drop().await;
}

#[tokio::test]
async fn a_function_with_the_same_name_and_other_parameter_names_is_refused() {
    let database = Database::create().await;
    let client = database.connect().await;
    let with = |parameter: &str| {
        let mut schema = schema(&[TABLE]);
        let sql = format!(
            "CREATE OR REPLACE FUNCTION same({parameter} text) RETURNS text LANGUAGE sql AS 'SELECT $1';"
        );
        schema.functions.push(File { name: "functions/c.sql", sql: sql.into() });
        schema
    };
    with("p_old").apply_to(&client).await.expect("the first");
    let error = with("p_new").apply_to(&client).await.expect_err("an old component says p_old").to_string();
    assert!(error.contains("cannot change name of input parameter"), "{error}");
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_runs_at_once_one_applies_and_the_others_find_it_done() {
    let database = Database::create().await;
    let runs: Vec<_> = (0..8)
        .map(|_| {
            let client = database.connect();
            tokio::spawn(async move { schema(&[TABLE, ROWS]).apply_to(&client.await).await })
        })
        .collect();
    let mut files = 0;
    for run in runs {
        files += run.await.expect("the task ends").expect("the run succeeds").tables.len();
    }
    assert_eq!(files, 2);
    assert_eq!(database.number("SELECT count(*) FROM t").await, 2);
    database.drop().await;
}

#[test]
fn releases_are_compared_by_numbers() {
    let number = |release| version(release).expect("a release");
    assert!(number("0.10.0") > number("0.9.9") && number("1.0.0") > number("0.10.0"));
    assert!(version("0.2.0-rc1").is_err());
}
