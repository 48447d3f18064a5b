//! On a real PostgreSQL: `TEST_DATABASE_URL` names a server and a superuser, as `cargo xtask test` sets it. Each test
//! makes a database of its own and removes it.

use super::*;
use std::env;
use tokio_postgres::Config;
use uuid::Uuid;

const TABLE: Migration = Migration { number: 1, file: "0001_table.sql", sql: "CREATE TABLE t (n integer);" };
const ROWS: Migration = Migration {
    number: 2,
    file: "0002_rows.sql",
    sql: "INSERT INTO t VALUES (1);\nINSERT INTO t VALUES (2);",
};
const BROKEN: Migration =
    Migration { number: 3, file: "0003_broken.sql", sql: "INSERT INTO t VALUES (3);\n\nSELECT nonsense;" };

/// A fresh database.
struct Database {
    server: Config,
    name: String,
    url: String,
}

impl Database {
    async fn create() -> Database {
        let url = env::var("TEST_DATABASE_URL").expect("TEST_DATABASE_URL is set: use `cargo xtask test`");
        let server: Config = url.parse().expect("TEST_DATABASE_URL is a PostgreSQL URL");
        let name = format!("migrations_{}", Uuid::new_v4().simple());
        let database = Database { url: with_database(&url, &name), server, name };
        database.on_server(&format!("CREATE DATABASE {}", database.name)).await;
        database
    }

    async fn on_server(&self, sql: &str) {
        let (client, connection) =
            self.server.connect(NoTls).await.expect("the test server accepts connections");
        tokio::spawn(connection);
        client.batch_execute(sql).await.expect(sql);
    }

    /// The first column of the first row.
    async fn number(&self, sql: &str) -> i64 {
        let (client, connection) =
            tokio_postgres::connect(&self.url, NoTls).await.expect("the database exists");
        tokio::spawn(connection);
        client.query_one(sql, &[]).await.expect(sql).get(0)
    }

    async fn drop(self) {
        self.on_server(&format!("DROP DATABASE {} WITH (FORCE)", self.name)).await;
    }
}

/// The URL with another database in its path.
fn with_database(url: &str, name: &str) -> String {
    let (base, query) =
        url.split_once('?').map_or((url, String::new()), |(base, query)| (base, format!("?{query}")));
    let server = match base.match_indices('/').nth(2) {
        Some((slash, _)) => &base[..slash],
        None => base,
    };
    format!("{server}/{name}{query}")
}

#[tokio::test]
async fn files_are_applied_in_order_and_only_once() {
    let database = Database::create().await;
    let first = apply_these(&database.url, &[TABLE, ROWS]).await.expect("both apply");
    assert_eq!(first, Applied { new: vec![TABLE.file, ROWS.file], total: 2 });

    let second = apply_these(&database.url, &[TABLE, ROWS]).await.expect("nothing is left to do");
    assert_eq!(second, Applied { new: vec![], total: 2 });
    assert_eq!(database.number("SELECT count(*) FROM t").await, 2);
    database.drop().await;
}

#[tokio::test]
async fn a_new_file_is_applied_after_those_that_are_there() {
    let database = Database::create().await;
    apply_these(&database.url, &[TABLE]).await.expect("the first applies");
    let applied = apply_these(&database.url, &[TABLE, ROWS]).await.expect("the second applies");
    assert_eq!(applied, Applied { new: vec![ROWS.file], total: 2 });
    database.drop().await;
}

#[tokio::test]
async fn a_failing_file_has_no_effect_and_those_before_it_stay() {
    let database = Database::create().await;
    let error =
        apply_these(&database.url, &[TABLE, ROWS, BROKEN]).await.expect_err("the third fails").to_string();
    assert!(error.starts_with("migrations/0003_broken.sql: line 3: "), "{error}");
    assert!(error.contains("nonsense") && error.contains("42703"), "{error}");
    assert_eq!(database.number("SELECT count(*) FROM t").await, 2);
    assert_eq!(database.number("SELECT count(*) FROM schema_migrations").await, 2);
    database.drop().await;
}

#[tokio::test]
async fn a_file_that_was_changed_after_it_was_applied_is_an_error_that_names_it() {
    let database = Database::create().await;
    apply_these(&database.url, &[TABLE]).await.expect("the first applies");
    let changed = Migration { sql: "CREATE TABLE t (n bigint);", ..TABLE };
    let error = apply_these(&database.url, &[changed, ROWS]).await.expect_err("it was changed").to_string();
    assert!(error.starts_with("migrations/0001_table.sql was changed"), "{error}");
    assert_eq!(database.number("SELECT count(*) FROM t").await, 0);
    database.drop().await;
}

#[tokio::test]
async fn a_database_that_is_ahead_of_the_build_is_an_error() {
    let database = Database::create().await;
    apply_these(&database.url, &[TABLE, ROWS]).await.expect("both apply");
    let error = apply_these(&database.url, &[TABLE]).await.expect_err("it is ahead").to_string();
    assert!(error.contains("0002_rows.sql") && error.contains("newer build"), "{error}");
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_runs_at_once_one_applies_and_the_others_find_it_done() {
    let database = Database::create().await;
    let runs: Vec<_> = (0..8)
        .map(|_| {
            let url = database.url.clone();
            tokio::spawn(async move { apply_these(&url, &[TABLE, ROWS]).await })
        })
        .collect();
    let mut files = 0;
    for run in runs {
        files += run.await.expect("the task ends").expect("the run succeeds").new.len();
    }
    assert_eq!(files, 2);
    assert_eq!(database.number("SELECT count(*) FROM t").await, 2);
    database.drop().await;
}

#[tokio::test]
async fn the_files_in_the_folder_apply_to_an_empty_database() {
    let database = Database::create().await;
    let applied = apply(&database.url).await.expect("every file applies");
    assert_eq!(applied.new.len(), ALL.len());
    database.drop().await;
}
