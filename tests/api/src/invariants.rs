//! What must hold after anything.

use crate::TestApp;

/// Each answers a row for every violation.
const INVARIANTS: [(&str, &str); 9] = [
    (
        "the ledger's sum is the balance",
        "SELECT a.team_id, a.allocated - a.used, coalesce(sum(x.change), 0) FROM credit_accounts a
         LEFT JOIN credit_transactions x USING (team_id) GROUP BY a.team_id
         HAVING a.allocated - a.used <> coalesce(sum(x.change), 0)",
    ),
    (
        "every ledger row continues the one before",
        "SELECT team_id, entry FROM (SELECT team_id, entry, balance_after - change AS before,
             lag(balance_after, 1, 0::bigint) OVER w AS previous, row_number() OVER w AS position FROM credit_transactions
             WINDOW w AS (PARTITION BY team_id ORDER BY entry)) AS rows WHERE before <> previous OR entry <> position",
    ),
    (
        "held credits are those of open jobs",
        "SELECT a.team_id FROM credit_accounts a WHERE held <> (SELECT count(*) FROM jobs j
             WHERE j.team_id = a.team_id AND j.status IN ('pending', 'in_progress'))",
    ),
    (
        "credits are never below the limit",
        "SELECT team_id FROM credit_accounts WHERE allocated - used - held < floor",
    ),
    (
        "a job has one deduction if it was charged, and none otherwise",
        "SELECT job_id FROM jobs j WHERE credit_applied::int <> (SELECT count(*) FROM credit_transactions x
             WHERE x.job_id = j.job_id AND x.transaction_type = 'deduction')",
    ),
    (
        "a job is charged if and only if it was completed and no call of it had failed",
        "SELECT job_id FROM jobs j WHERE credit_applied <> (status = 'completed' AND NOT EXISTS (SELECT FROM calls c
             WHERE c.job_id = j.job_id AND c.status = 'failed'))",
    ),
    (
        "no call is open in a job that has been completed",
        "SELECT call_id FROM calls c JOIN jobs j USING (job_id) WHERE c.status = 'open' AND j.completion IS NOT NULL",
    ),
    ("no call is open past its deadline unseen", "SELECT call_id FROM calls WHERE status = 'open' AND deadline <= now()"),
    (
        "no transaction is left open",
        "SELECT pid::text FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'",
    ),
];

impl TestApp {
    /// Fails the test if any invariant is violated. At the end of a test, with nothing under way.
    #[track_caller]
    pub fn check_invariants(&self) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            for (rule, violations) in INVARIANTS {
                let rows = self.database.client.query(violations, &[]).await.expect(rule);
                assert!(rows.is_empty(), "{caller}: violated: {rule}: {rows:?}");
            }
        }
    }
}
