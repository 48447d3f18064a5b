//! What must hold after anything.

use crate::{Database, TestApp};

/// Each answers a row for every violation.
const INVARIANTS: [(&str, &str); 18] = [
    (
        "the ledger's sum is the balance",
        "SELECT a.team_id, a.allocated - a.used, coalesce(sum(x.change), 0) FROM credit_accounts a
         LEFT JOIN credit_transactions x USING (team_id) GROUP BY a.team_id
         HAVING a.allocated - a.used <> coalesce(sum(x.change), 0)",
    ),
    (
        "every ledger row continues the one before",
        "SELECT team_id, entry FROM (SELECT team_id, entry, balance_after - change AS before,
             lag(balance_after, 1, 0::bigint) OVER w AS previous, row_number() OVER w AS position
             FROM credit_transactions
             WINDOW w AS (PARTITION BY team_id ORDER BY entry)) AS rows WHERE before <> previous OR entry <> position",
    ),
    (
        "held credits are those of open jobs",
        "SELECT a.team_id FROM credit_accounts a WHERE held <> (SELECT count(*) FROM jobs j
             WHERE j.team_id = a.team_id AND j.status IN ('pending', 'in_progress'))",
    ),
    (
        "credits are below the limit only by what a consumption was charged in full, or by a limit that was lowered",
        "SELECT team_id, allocated - used - held AS available, floor, overdraft FROM credit_accounts
         WHERE overdraft <> greatest(0, floor - (allocated - used - held))",
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
    (
        "no call is open past its deadline unseen",
        "SELECT call_id FROM calls WHERE status = 'open' AND deadline <= now()",
    ),
    (
        "a job has cost the credits that its terms say of what was known when it was completed",
        "SELECT job_id, charged, t.* FROM terms t JOIN (
             SELECT job_id, terms_id, -change AS charged,
                    coalesce((completion #>> '{costs,total_cost_usd}')::numeric, 0) AS cost_usd,
                    (completion #>> '{costs,total_tokens}')::numeric AS tokens,
                    (completion ->> 'credits_charged')::bigint AS told
             FROM credit_transactions JOIN jobs USING (job_id)
             WHERE transaction_type = 'deduction') AS j USING (terms_id)
         WHERE charged <> told OR charged <> greatest(1, CASE billing_mode
             WHEN 'consumption_usd' THEN ceil(cost_usd * credits_per_dollar)
             WHEN 'consumption_tokens' THEN ceil(tokens / tokens_per_credit) ELSE 1 END)",
    ),
    (
        "the revenue of a job is what its terms say",
        "WITH charged AS (
             SELECT j.*, t.pricing, row_number() OVER (
                 PARTITION BY x.team_id, date_trunc('month', job_day(job_id)::timestamp) ORDER BY x.entry) AS place
             FROM credit_transactions x JOIN jobs j USING (job_id) JOIN terms t USING (terms_id)
             WHERE x.transaction_type = 'deduction')
         SELECT job_id, pricing, place, revenue_usd, known_cost_usd FROM charged
         WHERE revenue_usd IS DISTINCT FROM CASE pricing ->> 'mode'
             WHEN 'flat' THEN (pricing ->> 'price_per_job_usd')::numeric
             WHEN 'markup' THEN known_cost_usd * (100 + (pricing ->> 'markup_percent')::numeric) * 0.01
             WHEN 'tiered' THEN (SELECT (tier ->> 'price_per_job_usd')::numeric
                 FROM jsonb_array_elements(pricing -> 'tiers') WITH ORDINALITY AS tiers (tier, number)
                 WHERE coalesce((tier ->> 'up_to')::bigint >= place, true) ORDER BY number LIMIT 1) END",
    ),
    (
        "only what was charged has brought revenue",
        "SELECT job_id FROM jobs WHERE revenue_usd IS NOT NULL AND NOT credit_applied",
    ),
    (
        "the sums on a job are those of its calls",
        "(SELECT job_id, total_calls, successful_calls, failed_calls, priced_calls, timed_calls, total_tokens,
         known_cost_usd,
                 total_latency_ms FROM jobs)
         EXCEPT
         (SELECT job_id, count(call_id), count(*) FILTER (WHERE c.status = 'succeeded'),
                 count(*) FILTER (WHERE c.status = 'failed'), count(cost_usd), count(latency_ms),
                 coalesce(sum(c.total_tokens), 0),
                 coalesce(sum(cost_usd), 0), coalesce(sum(latency_ms), 0)
          FROM jobs LEFT JOIN calls c USING (job_id) GROUP BY job_id)",
    ),
    (
        "usage by the day equals a recount of jobs, calls and ledger",
        "WITH recount AS (
             SELECT j.team_id, job_day(j.job_id) AS day, j.job_type,
                    count(*) FILTER (WHERE j.status IN ('pending', 'in_progress')) AS open_jobs,
                    count(*) FILTER (WHERE j.status = 'completed') AS completed,
                    count(*) FILTER (WHERE j.status = 'failed') AS failed,
                    count(*) FILTER (WHERE j.status = 'cancelled') AS cancelled,
                    count(*) FILTER (WHERE j.status = 'expired') AS expired,
                    count(x.change) AS charged_jobs, coalesce(-sum(x.change), 0) AS credits_charged,
                    coalesce(sum(j.revenue_usd), 0) AS revenue_usd, sum(c.calls) AS calls,
                    sum(c.priced_calls) AS priced_calls,
                    sum(c.tokens) AS tokens, sum(c.cost_usd) AS cost_usd
             FROM jobs j LEFT JOIN credit_transactions x ON x.job_id = j.job_id AND x.transaction_type = 'deduction',
                  LATERAL (SELECT count(ended_at) AS calls, count(cost_usd) AS priced_calls,
                                  coalesce(sum(total_tokens), 0) AS tokens,
                                  coalesce(sum(cost_usd), 0) AS cost_usd FROM calls c WHERE c.job_id = j.job_id) AS c
             GROUP BY j.team_id, day, j.job_type)
         SELECT u.*, r.* FROM usage_days u FULL JOIN recount r USING (team_id, day, job_type)
         WHERE (u.open_jobs, u.completed, u.failed, u.cancelled, u.expired, u.charged_jobs, u.credits_charged,
                u.revenue_usd, u.calls, u.priced_calls, u.tokens, u.cost_usd)
             IS DISTINCT FROM
               (r.open_jobs, r.completed, r.failed, r.cancelled, r.expired, r.charged_jobs, r.credits_charged,
                r.revenue_usd, r.calls, r.priced_calls, r.tokens, r.cost_usd)",
    ),
    (
        "usage by model equals a recount of calls",
        "WITH recount AS (
             SELECT team_id, job_day(job_id) AS day, coalesce(attempts -> -1 ->> 'model', 'unknown') AS model,
                    count(*) AS requests,
                    sum(total_tokens) AS tokens, coalesce(sum(cost_usd), 0) AS cost_usd
             FROM calls WHERE latency_ms IS NOT NULL GROUP BY 1, 2, 3)
         SELECT u.*, r.* FROM usage_models u FULL JOIN recount r USING (team_id, day, model)
         WHERE (u.requests, u.tokens, u.cost_usd) IS DISTINCT FROM (r.requests, r.tokens, r.cost_usd)",
    ),
    (
        "the totals of jobs equal a recount",
        "(SELECT coalesce(sum(created), 0), coalesce(sum(completed), 0), coalesce(sum(failed), 0),
         coalesce(sum(cancelled), 0),
                 coalesce(sum(expired), 0) FROM job_totals)
         EXCEPT
         (SELECT count(*), count(*) FILTER (WHERE status = 'completed'), count(*) FILTER (WHERE status = 'failed'),
                 count(*) FILTER (WHERE status = 'cancelled'), count(*) FILTER (WHERE status = 'expired') FROM jobs)",
    ),
    (
        "the totals of calls equal a recount",
        "WITH totals AS (
             SELECT model_group, sum(succeeded) AS succeeded, sum(failed) AS failed, sum(cancelled) AS cancelled,
                    sum(abandoned) AS abandoned, sum(tokens) AS tokens, sum(cost_usd) AS cost_usd,
                    sum(latency_ms) AS latency_ms
             FROM call_totals GROUP BY model_group),
         recount AS (
             SELECT model_group, count(*) FILTER (WHERE status = 'succeeded') AS succeeded,
                    count(*) FILTER (WHERE status = 'failed') AS failed,
                    count(*) FILTER (WHERE status = 'cancelled') AS cancelled,
                    count(*) FILTER (WHERE status = 'abandoned') AS abandoned, sum(total_tokens) AS tokens,
                    coalesce(sum(cost_usd), 0) AS cost_usd, coalesce(sum(latency_ms), 0) AS latency_ms
             FROM calls WHERE status <> 'open' GROUP BY model_group)
         SELECT t.*, r.* FROM totals t FULL JOIN recount r USING (model_group)
         WHERE (t.succeeded, t.failed, t.cancelled, t.abandoned, t.tokens, t.cost_usd, t.latency_ms)
             IS DISTINCT FROM (r.succeeded, r.failed, r.cancelled, r.abandoned, r.tokens, r.cost_usd, r.latency_ms)",
    ),
    (
        "the histogram of latencies equals a recount",
        "(SELECT model_group, place, sum(number)
         FROM call_totals, unnest(latency_counts) WITH ORDINALITY AS c (number, place)
          GROUP BY model_group, place HAVING sum(number) > 0)
         EXCEPT
         (SELECT model_group, (SELECT count(*) + 1 FROM unnest(latency_bounds()) AS bound
                               WHERE bound < latency_ms) AS place, count(*)
          FROM calls WHERE latency_ms IS NOT NULL GROUP BY model_group, place)",
    ),
    (
        "no transaction is left open",
        "SELECT pid::text FROM pg_stat_activity WHERE datname = current_database() \
         AND state LIKE 'idle in transaction%'",
    ),
];

impl TestApp {
    /// [`Database::check_invariants`] of its database.
    #[track_caller]
    pub fn check_invariants(&self) -> impl Future<Output = ()> {
        self.database.check_invariants()
    }
}

impl Database {
    /// Fails the test if any invariant is violated. At the end of a test, with nothing under way.
    #[track_caller]
    pub fn check_invariants(&self) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            // The test's own may have been cut.
            let violated = violations(&self.connect().await).await;
            assert!(violated.is_empty(), "{caller}: violated: {violated:#?}");
        }
    }
}

/// The invariants that are violated, each with a row that shows it.
pub async fn violations(client: &tokio_postgres::Client) -> Vec<(&'static str, String)> {
    let mut violated = vec![];
    for (rule, violations) in INVARIANTS {
        let statement = format!("SELECT v::text FROM ({violations}) AS v");
        let rows = client.query(&statement, &[]).await.expect(rule);
        violated.extend(rows.iter().map(|row| (rule, row.get::<_, String>(0))));
    }
    violated
}
