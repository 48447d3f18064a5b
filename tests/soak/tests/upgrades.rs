//! A database of each earlier release, full of what a randomised run left in it, becomes one of this release with
//! nothing lost.

use api_tests::{Database, repository, violations};
use std::{fs, path::Path, process::Command};
use tokio_postgres::Client;

fn run(program: &str, database: &Database, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(["--dbname", &database.address()])
        .args(arguments)
        .output()
        .expect(program);
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The schema but for the months, which depend on the day, and for the marks that `pg_dump` makes anew each time.
fn schema(database: &Database) -> String {
    let months = ["--schema-only", "--no-owner", "--exclude-table=jobs_2*", "--exclude-table=calls_2*"];
    let dump = run("pg_dump", database, &months);
    dump.lines().filter(|line| !line.contains("restrict ")).map(|line| format!("{line}\n")).collect()
}

/// What must be the same before and after: sums that no upgrade may change.
async fn sums(client: &Client) -> String {
    let sums = "SELECT json_build_object(
        'jobs', (SELECT json_agg(s) FROM (SELECT status, count(*), sum(known_cost_usd)
                 FROM jobs GROUP BY 1 ORDER BY 1) AS s),
        'calls', (SELECT json_agg(s) FROM (SELECT status, count(*), sum(total_tokens)
                 FROM calls GROUP BY 1 ORDER BY 1) AS s),
        'ledger', (SELECT json_agg(s) FROM (SELECT transaction_type, count(*), sum(change) FROM credit_transactions
                                            GROUP BY 1 ORDER BY 1) AS s),
        'accounts', (SELECT json_agg(s) FROM (SELECT team_id, allocated, used, held
                 FROM credit_accounts ORDER BY 1) AS s)
    )::text";
    client.query_one(sums, &[]).await.expect("the sums").get(0)
}

async fn is_upgraded(dump: &Path) {
    let fresh = schema(&Database::create().await.expect("a database of this release"));
    let database = Database::empty().await.expect("an empty database");
    let client = database.connect().await;
    run("pg_restore", &database, &["--no-owner", "--exit-on-error", &dump.to_string_lossy()]);
    let jobs: i64 = client.query_one("SELECT count(*) FROM jobs", &[]).await.expect("a number").get(0);
    assert!(jobs > 100, "{}: {jobs} jobs", dump.display());

    let before = sums(&client).await;
    migrations::apply(&database.address()).await.expect("the upgrade");
    assert!(migrations::plan(&database.address()).await.expect("a plan").is_empty());
    assert_eq!(sums(&client).await, before);
    assert_eq!(schema(&database), fresh);
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
