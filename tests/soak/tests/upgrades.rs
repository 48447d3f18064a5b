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
    // With usage that is not final; that of days and models is another one from then on.
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

    are_provisional(&client).await;
    let before = sums(&client).await;
    migrations::apply(&database.address()).await.expect("the upgrade");
    assert!(migrations::plan(&database.address()).await.expect("a plan").is_empty());
    assert_eq!(sums(&client).await, before);
    assert_eq!(schema(&database), fresh);
    assert_eq!(violations(&client).await, vec![]);
    client.query("SELECT get_balance(team_id) FROM teams", &[]).await.expect("the balances");
    goes_on(&client).await;
    assert_eq!(violations(&client).await, vec![]);
}

/// The calls that are not settled have used something, as far as that is known so far.
async fn are_provisional(client: &Client) {
    let settle = "SELECT count(settle_call(job_id, call_id, 'succeeded', 1, 2, 3, 0.25, 100, '[{\"model\": \"late\"}]',
                                           NULL, false))
                  FROM (SELECT job_id, call_id FROM calls WHERE settled_at IS NULL ORDER BY call_id) AS unsettled";
    let calls: i64 = client.query_one(settle, &[]).await.expect("settled for now").get(0);
    assert!(calls > 0, "all calls are settled");
}

/// What the earlier release left is refunded, charged for costs that come late, and told, by the rules of this one.
async fn goes_on(client: &Client) {
    let number =
        async |statement: &str| -> i64 { client.query_one(statement, &[]).await.expect(statement).get(0) };
    let used = "SELECT sum(used)::bigint FROM credit_accounts";
    let before = number(used).await;
    let refund = "SELECT sum((refund_credits(team_id, job_id, NULL, 'a test') ->> 'credits_refunded')::bigint)::bigint
                  FROM (SELECT team_id, job_id FROM jobs WHERE credit_applied ORDER BY job_id LIMIT 20) AS charged";
    let refunded = number(refund).await;
    assert!(refunded >= 20, "{refunded}");
    assert_eq!(number(used).await, before - refunded);
    let again = client.query_one(refund, &[]).await.expect_err("nothing is left");
    assert_eq!(again.code().map(|code| code.code()), Some("LJ017"));

    let settle = "SELECT count(*) FROM (
                      SELECT settle_call(job_id, call_id, 'succeeded', 10, 10, 20, 1.5, 100,
                                         '[{\"model\": \"late\"}]', NULL, true)
                      FROM (SELECT job_id, call_id FROM calls WHERE settled_at IS NULL ORDER BY call_id) AS unsettled)
                  AS settled";
    let asked = "SELECT count(*) FROM calls WHERE settled_at IS NULL AND cost_check_at IS NOT NULL";
    let asked = number(asked).await;
    assert!(asked > 0, "nothing is to be asked for");
    assert_eq!(number(settle).await, asked);
    let late = "SELECT count(*) FROM credit_transactions WHERE call_id IS NOT NULL";
    let in_consumption = "SELECT count(*) FROM calls JOIN jobs USING (job_id) JOIN terms USING (terms_id)
                          WHERE attempts -> 0 ->> 'model' = 'late' AND credit_applied AND billing_mode <> 'job_based'";
    assert_eq!(number(late).await, number(in_consumption).await);
    let told = "SELECT count(*) FROM jobs WHERE completed_at IS NOT NULL AND (
                    (get_job(job_id, 'admin') #>> '{job,credits_charged}')::bigint <> (
                        SELECT coalesce(-sum(change), 0) FROM credit_transactions x
                        WHERE x.job_id = jobs.job_id AND transaction_type = 'deduction')
                    OR completion IS NOT NULL AND complete_job('system', job_id, status, '{}', NULL) IS NULL)";
    assert_eq!(number(told).await, 0);
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
