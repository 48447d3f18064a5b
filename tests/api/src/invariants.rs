//! What must hold after anything.

use crate::{Database, TestApp};

/// Each answers a row for every violation.
const INVARIANTS: [(&str, &str); 26] = [
    (
        "the ledger's sum is the balance",
        "SELECT a.team_id, a.allocated - a.used, coalesce(sum(x.change), 0) FROM credit_accounts a
         LEFT JOIN credit_transactions x USING (team_id) GROUP BY a.team_id
         HAVING a.allocated - a.used <> coalesce(sum(x.change), 0)",
    ),
    (
        "what is used is what jobs were charged less what they were refunded, all else is allocated",
        "SELECT a.team_id, a.allocated, a.used FROM credit_accounts a
         LEFT JOIN credit_transactions x USING (team_id) GROUP BY a.team_id
         HAVING (a.used, a.allocated) IS DISTINCT FROM (
             coalesce(-sum(x.change) FILTER (WHERE transaction_type IN ('deduction', 'refund')), 0),
             coalesce(sum(x.change) FILTER (WHERE transaction_type NOT IN ('deduction', 'refund')), 0))",
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
        "extra calls are the open ones but for one of each open job",
        "SELECT a.team_id, a.extra_calls FROM credit_accounts a WHERE extra_calls <> (
             SELECT count(*) - count(DISTINCT c.job_id) FILTER (WHERE j.status IN ('pending', 'in_progress'))
             FROM calls c JOIN jobs j USING (job_id) WHERE j.team_id = a.team_id AND c.status = 'open')",
    ),
    (
        "credits are below the limit only by what was charged in full or expired, or by a limit that was lowered",
        "SELECT team_id, allocated - used - held AS available, floor, overdraft FROM credit_accounts
         WHERE overdraft <> greatest(0, floor - (allocated - used - held))",
    ),
    (
        "a job has deductions if and only if it was charged",
        "SELECT job_id FROM jobs j WHERE credit_applied <> EXISTS (SELECT FROM credit_transactions x
             WHERE x.job_id = j.job_id AND x.transaction_type = 'deduction')",
    ),
    (
        "what a job was charged and refunded is what the ledger has of it, and all but the admin's refunds was due",
        // Jobs that ended before there were late costs have only what their completion says.
        "WITH ledger AS (
             SELECT job_id, -sum(change) FILTER (WHERE transaction_type = 'deduction') AS charged,
                    sum(change) FILTER (WHERE transaction_type = 'refund') AS refunded,
                    -sum(change) FILTER (WHERE transaction_type = 'deduction' OR call_id IS NOT NULL) AS due
             FROM credit_transactions WHERE job_id IS NOT NULL GROUP BY job_id)
         SELECT j.job_id, j.credits_charged, j.credits_refunded, j.credits_due, x.*
         FROM jobs j LEFT JOIN ledger x USING (job_id)
         WHERE (coalesce(credits_charged, (completion #>> '{costs,credits_charged}')::bigint, 0),
                coalesce(credits_refunded, 0), coalesce(credits_due, charged, 0))
             IS DISTINCT FROM (coalesce(charged, 0), coalesce(refunded, 0), coalesce(due, 0))",
    ),
    (
        "what is due of a job is what its terms say of its calls as far as they are known",
        "WITH known AS (
             SELECT job_id, count(*) AS calls, count(*) FILTER (WHERE status = 'failed') AS failed,
                    count(*) FILTER (WHERE status = 'refused') AS refused, bool_or(delivered) AS delivered,
                    sum(total_tokens) AS tokens, coalesce(sum(cost_usd), 0) AS cost_usd,
                    coalesce(sum(total_tokens) FILTER (WHERE settled_at IS NOT NULL AND cost_usd IS NULL), 0)
                        AS unpriced
             FROM calls GROUP BY job_id)
         SELECT j.job_id, j.status, j.credits_due, t.*, k.* FROM jobs j JOIN terms t USING (terms_id)
         LEFT JOIN known k USING (job_id)
         -- What became less after everything had been refunded was not refunded once more.
         WHERE sign(j.credits_due - CASE
             WHEN j.status = 'completed' AND (k.job_id IS NULL OR failed = 0 AND refused < calls)
                  OR j.completed_at IS NOT NULL AND charge_when = 'delivered' AND k.delivered
             THEN greatest(1, CASE billing_mode
                 WHEN 'consumption_usd' THEN ceil(coalesce(cost_usd, 0) * credits_per_dollar
                     + coalesce(unpriced, 0) * credits_per_1k_tokens_unpriced / 1000)
                 WHEN 'consumption_tokens' THEN ceil(coalesce(tokens, 0) / tokens_per_credit) ELSE 1 END)
             ELSE 0 END) NOT IN (0, (j.credits_charged = j.credits_refunded)::integer)",
    ),
    (
        "a job is refunded no more than it was charged",
        "SELECT job_id, credits_charged, credits_refunded FROM jobs WHERE credits_refunded > credits_charged",
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
        "what a call used is asked for as long as it is not settled, and no longer than its cost is unknown",
        "SELECT call_id, c.status, settled_at, cost_usd, cost_check_at FROM calls c JOIN jobs j USING (job_id)
         WHERE cost_check_at IS NULL AND ended_at IS NOT NULL AND settled_at IS NULL AND j.credits_due IS NOT NULL
            OR cost_check_at IS NOT NULL AND (c.status = 'open' OR settled_at IS NOT NULL AND cost_usd IS NOT NULL)",
    ),
    (
        "implausible usage is unknown as a whole",
        "SELECT call_id FROM calls
         WHERE implausible_usage AND (total_tokens + prompt_tokens + completion_tokens > 0 OR cost_usd IS NOT NULL)",
    ),
    (
        "the revenue of a job is what its terms say",
        "WITH first AS (
             SELECT DISTINCT ON (team_id, job_id) team_id, job_id, entry,
                    date_trunc('month', created_at AT TIME ZONE 'UTC') AS month
             FROM credit_transactions WHERE transaction_type = 'deduction' ORDER BY team_id, job_id, entry),
         charged AS (
             SELECT j.*, t.pricing, x.place FROM (
                 SELECT job_id, row_number() OVER (PARTITION BY team_id, month ORDER BY entry) AS place
                 FROM first) AS x JOIN jobs j USING (job_id) JOIN terms t USING (terms_id))
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
        "(SELECT job_id, total_calls, successful_calls, failed_calls, refused_calls, open_calls, priced_calls,
                 timed_calls, total_tokens, CASE WHEN credits_due IS NOT NULL THEN unpriced_tokens END,
                 known_cost_usd, expected_cost_usd, total_latency_ms, delivered FROM jobs)
         EXCEPT
         (SELECT job_id, count(call_id), count(*) FILTER (WHERE c.status = 'succeeded'),
                 count(*) FILTER (WHERE c.status = 'failed'), count(*) FILTER (WHERE c.status = 'refused'),
                 count(*) FILTER (WHERE c.status = 'open'), count(cost_usd), count(latency_ms),
                 coalesce(sum(c.total_tokens), 0),
                 CASE WHEN credits_due IS NOT NULL THEN
                     coalesce(sum(c.total_tokens) FILTER (WHERE settled_at IS NOT NULL AND cost_usd IS NULL), 0) END,
                 coalesce(sum(cost_usd), 0), coalesce(sum(c.expected_cost_usd), 0), coalesce(sum(latency_ms), 0),
                 coalesce(bool_or(c.delivered), false)
          FROM jobs j LEFT JOIN calls c USING (job_id) GROUP BY job_id, credits_due)",
    ),
    (
        "a call that is settled is expected to cost nothing more",
        "SELECT call_id, expected_cost_usd FROM calls
         WHERE expected_cost_usd <> 0 AND settled_at IS NOT NULL OR expected_cost_usd < 0",
    ),
    (
        "usage over all days equals a recount of jobs, calls and ledger",
        "WITH counted AS (
             SELECT team_id, job_type, sum(opened_jobs) AS opened_jobs, sum(completed) AS completed,
                    sum(failed) AS failed, sum(cancelled) AS cancelled, sum(expired) AS expired,
                    sum(charged_jobs) AS charged_jobs, sum(credits_charged) AS credits_charged,
                    sum(free_jobs_with_output) AS free_jobs, sum(revenue_usd) AS revenue_usd, sum(calls) AS calls,
                    sum(refused_calls) AS refused, sum(priced_calls) AS priced, sum(tokens) AS tokens,
                    sum(cost_usd) AS cost_usd
             FROM usage_days GROUP BY team_id, job_type),
         recount AS (
             SELECT j.team_id, j.job_type, count(*) AS opened_jobs,
                    count(*) FILTER (WHERE j.status = 'completed') AS completed,
                    count(*) FILTER (WHERE j.status = 'failed') AS failed,
                    count(*) FILTER (WHERE j.status = 'cancelled') AS cancelled,
                    count(*) FILTER (WHERE j.status = 'expired') AS expired,
                    count(x.first) AS charged_jobs, coalesce(-sum(x.change), 0) AS credits_charged,
                    count(*) FILTER (WHERE x.first IS NULL AND c.delivered AND j.completed_at IS NOT NULL)
                        AS free_jobs,
                    coalesce(sum(j.revenue_usd), 0) AS revenue_usd, sum(c.calls) AS calls, sum(c.refused) AS refused,
                    sum(c.priced) AS priced, sum(c.tokens) AS tokens, sum(c.cost_usd) AS cost_usd
             FROM jobs j,
                  LATERAL (SELECT min(entry) FILTER (WHERE transaction_type = 'deduction') AS first,
                                  sum(change) AS change FROM credit_transactions x WHERE x.job_id = j.job_id) AS x,
                  LATERAL (SELECT count(ended_at) AS calls, count(*) FILTER (WHERE status = 'refused') AS refused,
                                  count(cost_usd) FILTER (WHERE settled_at IS NOT NULL) AS priced,
                                  coalesce(sum(total_tokens) FILTER (WHERE settled_at IS NOT NULL), 0) AS tokens,
                                  coalesce(sum(cost_usd) FILTER (WHERE settled_at IS NOT NULL), 0) AS cost_usd,
                                  coalesce(bool_or(delivered), false) AS delivered
                           FROM calls c WHERE c.job_id = j.job_id) AS c
             GROUP BY j.team_id, j.job_type)
         SELECT u.*, r.* FROM counted u FULL JOIN recount r USING (team_id, job_type)
         WHERE (u.opened_jobs, u.completed, u.failed, u.cancelled, u.expired, u.charged_jobs, u.credits_charged,
                u.free_jobs, u.revenue_usd, u.calls, u.refused, u.priced, u.tokens, u.cost_usd)
             IS DISTINCT FROM
               (r.opened_jobs, r.completed, r.failed, r.cancelled, r.expired, r.charged_jobs, r.credits_charged,
                r.free_jobs, r.revenue_usd, r.calls, r.refused, r.priced, r.tokens, r.cost_usd)",
    ),
    (
        "usage of a day is of what was opened, ended and charged on that day",
        // Jobs expire on the day on which somebody notices it, which no row has.
        "WITH happened AS (
             SELECT team_id, created_at AS moment, job_type, 1 AS opened, 0 AS completed, 0 AS failed, 0 AS cancelled,
                    0 AS charged, 0::numeric AS credits FROM jobs
             UNION ALL
             SELECT team_id, completed_at, job_type, 0, (status = 'completed')::integer, (status = 'failed')::integer,
                    (status = 'cancelled')::integer, 0, 0
             FROM jobs WHERE status IN ('completed', 'failed', 'cancelled')
             UNION ALL
             SELECT x.team_id, x.created_at, j.job_type, 0, 0, 0, 0,
                    (transaction_type = 'deduction' AND 1 = row_number() OVER (
                        PARTITION BY x.job_id, transaction_type ORDER BY entry))::integer, -change
             FROM credit_transactions x JOIN jobs j USING (job_id)),
         recount AS (
             SELECT team_id, (moment AT TIME ZONE 'UTC')::date AS day, job_type, sum(opened) AS opened,
                    sum(completed) AS completed, sum(failed) AS failed, sum(cancelled) AS cancelled,
                    sum(charged) AS charged, sum(credits) AS credits
             FROM happened GROUP BY 1, 2, 3)
         SELECT u.*, r.* FROM usage_days u FULL JOIN recount r USING (team_id, day, job_type)
         WHERE (coalesce(u.opened_jobs, 0), coalesce(u.completed, 0), coalesce(u.failed, 0), coalesce(u.cancelled, 0),
                coalesce(u.charged_jobs, 0), coalesce(u.credits_charged, 0))
             IS DISTINCT FROM
               (coalesce(r.opened, 0), coalesce(r.completed, 0), coalesce(r.failed, 0), coalesce(r.cancelled, 0),
                coalesce(r.charged, 0), coalesce(r.credits, 0))",
    ),
    (
        "usage by model and day counts the calls that were settled on that day",
        "WITH recount AS (
             SELECT team_id, (settled_at AT TIME ZONE 'UTC')::date AS day,
                    coalesce(attempts -> -1 ->> 'model', 'unknown') AS model, count(*) AS requests
             FROM calls WHERE settled_at IS NOT NULL GROUP BY 1, 2, 3)
         SELECT u.*, r.* FROM usage_models u FULL JOIN recount r USING (team_id, day, model)
         WHERE coalesce(u.requests, 0) <> coalesce(r.requests, 0)
            OR NOT coalesce(unpriced_requests, 0) BETWEEN 0 AND coalesce(u.requests, 0)",
    ),
    (
        "usage by model over all days equals a recount of settled calls",
        "WITH counted AS (
             SELECT team_id, model, sum(requests) AS requests, sum(tokens) AS tokens, sum(cost_usd) AS cost_usd
             FROM usage_models GROUP BY team_id, model),
         recount AS (
             SELECT team_id, coalesce(attempts -> -1 ->> 'model', 'unknown') AS model, count(*) AS requests,
                    sum(total_tokens) AS tokens, coalesce(sum(cost_usd), 0) AS cost_usd
             FROM calls WHERE settled_at IS NOT NULL GROUP BY 1, 2)
         SELECT u.*, r.* FROM counted u FULL JOIN recount r USING (team_id, model)
         WHERE (u.requests, u.tokens, u.cost_usd) IS DISTINCT FROM (r.requests, r.tokens, r.cost_usd)",
    ),
    (
        "the totals of jobs equal a recount",
        "(SELECT coalesce(sum(created), 0), coalesce(sum(completed), 0), coalesce(sum(failed), 0),
                 coalesce(sum(cancelled), 0), coalesce(sum(expired), 0), coalesce(sum(free_with_output), 0)
          FROM job_totals)
         EXCEPT
         (SELECT count(*), count(*) FILTER (WHERE status = 'completed'), count(*) FILTER (WHERE status = 'failed'),
                 count(*) FILTER (WHERE status = 'cancelled'), count(*) FILTER (WHERE status = 'expired'),
                 count(*) FILTER (WHERE delivered AND NOT credit_applied AND completed_at IS NOT NULL) FROM jobs)",
    ),
    (
        "the totals of calls equal a recount",
        "WITH totals AS (
             SELECT model_group, sum(succeeded) AS succeeded, sum(failed) AS failed, sum(refused) AS refused,
                    sum(cancelled) AS cancelled, sum(abandoned) AS abandoned, sum(tokens) AS tokens,
                    sum(cost_usd) AS cost_usd, sum(latency_ms) AS latency_ms, sum(priced) AS priced
             FROM call_totals GROUP BY model_group),
         recount AS (
             SELECT model_group, count(*) FILTER (WHERE status = 'succeeded') AS succeeded,
                    count(*) FILTER (WHERE status = 'failed') AS failed,
                    count(*) FILTER (WHERE status = 'refused') AS refused,
                    count(*) FILTER (WHERE status = 'cancelled') AS cancelled,
                    count(*) FILTER (WHERE status = 'abandoned') AS abandoned,
                    coalesce(sum(total_tokens) FILTER (WHERE settled_at IS NOT NULL), 0) AS tokens,
                    coalesce(sum(cost_usd) FILTER (WHERE settled_at IS NOT NULL), 0) AS cost_usd,
                    coalesce(sum(latency_ms), 0) AS latency_ms,
                    count(cost_usd) FILTER (WHERE settled_at IS NOT NULL) AS priced
             FROM calls WHERE status <> 'open' GROUP BY model_group)
         SELECT t.*, r.* FROM totals t FULL JOIN recount r USING (model_group)
         WHERE (t.succeeded, t.failed, t.refused, t.cancelled, t.abandoned, t.tokens, t.cost_usd, t.latency_ms)
             IS DISTINCT FROM
               (r.succeeded, r.failed, r.refused, r.cancelled, r.abandoned, r.tokens, r.cost_usd, r.latency_ms)
            -- How many calls of earlier releases had a cost was estimated.
            OR t.priced <> r.priced AND NOT EXISTS (SELECT FROM jobs WHERE credits_due IS NULL)",
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
