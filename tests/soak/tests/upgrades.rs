//! A database of each earlier release, full of what a randomised run left in it, becomes one of this release with nothing lost.

use api_tests::{Database, repository, violations};
use soak::world::connection;
use std::{collections::BTreeMap, env, fs, path::Path, process::Command};
use tokio_postgres::{Client, Config};

/// How to get at a database past the application.
fn config(database: &Database) -> Config {
    let server = env::var("TEST_DATABASE_URL").expect("TEST_DATABASE_URL is set: use `cargo xtask test`");
    let mut config: Config = server.parse().expect("the server's address");
    config.dbname(&BTreeMap::from(database.variables())["database_name"]);
    config
}

fn run(program: &str, config: &Config, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    let output = command.args(connection(config)).args(arguments).output().expect(program);
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The schema but for the months, which depend on the day, and for the marks that `pg_dump` makes anew each time.
fn schema(config: &Config) -> String {
    let months = ["--schema-only", "--no-owner", "--exclude-table=jobs_2*", "--exclude-table=calls_2*"];
    let dump = run("pg_dump", config, &months);
    dump.lines().filter(|line| !line.contains("restrict ")).map(|line| format!("{line}\n")).collect()
}

/// An address as `key=value` pairs.
fn address(config: &Config) -> String {
    let names =
        [("--dbname=", "dbname="), ("--username=", "user="), ("--port=", "port="), ("--host=", "host=")];
    let pair = |argument: String| {
        names
            .iter()
            .find_map(|(option, name)| argument.strip_prefix(option).map(|value| format!("{name}{value}")))
    };
    connection(config).into_iter().filter_map(pair).collect::<Vec<_>>().join(" ")
}

/// What must be the same before and after: sums that no upgrade may change.
async fn sums(client: &Client) -> String {
    let sums = "SELECT json_build_object(
        'jobs', (SELECT json_agg(s) FROM (SELECT status, count(*), sum(known_cost_usd) FROM jobs GROUP BY 1 ORDER BY 1) AS s),
        'calls', (SELECT json_agg(s) FROM (SELECT status, count(*), sum(total_tokens) FROM calls GROUP BY 1 ORDER BY 1) AS s),
        'ledger', (SELECT json_agg(s) FROM (SELECT transaction_type, count(*), sum(change) FROM credit_transactions
                                            GROUP BY 1 ORDER BY 1) AS s),
        'accounts', (SELECT json_agg(s) FROM (SELECT team_id, allocated, used, held FROM credit_accounts ORDER BY 1) AS s)
    )::text";
    client.query_one(sums, &[]).await.expect("the sums").get(0)
}

async fn is_upgraded(dump: &Path) {
    let database = Database::create().await.expect("a database");
    let fresh = schema(&config(&database));
    let client = database.connect().await;
    client.batch_execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public").await.expect("emptied");
    let config = config(&database);
    run("pg_restore", &config, &["--no-owner", "--exit-on-error", &dump.to_string_lossy()]);
    let jobs: i64 = client.query_one("SELECT count(*) FROM jobs", &[]).await.expect("a number").get(0);
    assert!(jobs > 100, "{}: {jobs} jobs", dump.display());

    let before = sums(&client).await;
    migrations::apply(&address(&config)).await.expect("the upgrade");
    assert!(migrations::plan(&address(&config)).await.expect("a plan").is_empty());
    assert_eq!(sums(&client).await, before);
    assert_eq!(schema(&config), fresh);
    assert_eq!(violations(&client).await, vec![]);
    client.query("SELECT get_balance(team_id) FROM teams", &[]).await.expect("the balances");
}

#[tokio::test]
async fn every_release_can_be_upgraded_to_this_one() {
    let mut releases = 0;
    for file in fs::read_dir(repository().join("tests/soak/releases")).expect("the releases") {
        is_upgraded(&file.expect("a file").path()).await;
        releases += 1;
    }
    assert!(releases > 0);
}
