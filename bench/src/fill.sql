-- Puts {jobs} completed jobs with a call each into the team {team}, evenly over this month until now, with all that is
-- counted of them.
BEGIN;
CREATE TEMPORARY TABLE filled ON COMMIT DROP AS
SELECT n, at, job_type,
       -- A UUIDv7 of that moment whose other bits are the number.
       (left(uuid_v7_floor(at)::text, 15) || '000-8000-' || lpad(to_hex(n), 12, '0'))::uuid AS job_id
FROM (SELECT n, 'type-' || n % 5 AS job_type,
             date_trunc('month', now(), 'UTC')
                 + (now() - date_trunc('month', now(), 'UTC')) * (n / ({jobs} + 1.0)) AS at
      FROM generate_series(1, {jobs}) AS n) AS numbered;
INSERT INTO jobs (job_id, team_id, terms_id, user_id, job_type, status, metadata, credit_applied, total_calls,
                  successful_calls, priced_calls, timed_calls, total_tokens, known_cost_usd, total_latency_ms,
                  created_at, started_at, completed_at, expires_at)
SELECT job_id, '{team}', (SELECT terms_id FROM teams WHERE team_id = '{team}'), 'user-' || n % 100, job_type,
       'completed', '{}', true, 1, 1, 1, 1, 150, 0.0001, 800, at, at, at, at + interval '1 day'
FROM filled;
INSERT INTO calls (call_id, job_id, team_id, model_group, streamed, status, created_at, deadline, ended_at, settled_at,
                   prompt_tokens, completion_tokens, total_tokens, cost_usd, latency_ms, attempts)
SELECT job_id, job_id, '{team}', 'Chat', false, 'succeeded', at, at + interval '3 minutes', at, at, 100, 50, 150,
       0.0001, 800, '[{"model": "gpt-4o-mini", "outcome": "answered", "latency_ms": 800}]'
FROM filled;
INSERT INTO credit_transactions (team_id, entry, transaction_id, transaction_type, change, balance_after, reason,
                                 job_id, created_at)
SELECT '{team}', 1 + n, job_id, 'deduction', -1, allocated - n, 'Job completed successfully', job_id, at
FROM filled, credit_accounts WHERE team_id = '{team}';
UPDATE credit_accounts SET used = {jobs}, entries = 1 + {jobs} WHERE team_id = '{team}';
INSERT INTO usage_days (team_id, day, job_type, opened_jobs, completed, charged_jobs, credits_charged, calls,
                        priced_calls, tokens, cost_usd)
SELECT '{team}', (at AT TIME ZONE 'UTC')::date, job_type, count(*), count(*), count(*), count(*), count(*), count(*),
       150 * count(*), 0.0001 * count(*)
FROM filled GROUP BY 2, 3;
INSERT INTO usage_models (team_id, day, model, requests, tokens, cost_usd)
SELECT '{team}', (at AT TIME ZONE 'UTC')::date, 'gpt-4o-mini', count(*), 150 * count(*),
       0.0001 * count(*)
FROM filled GROUP BY 2;
INSERT INTO job_totals (shard, created, completed) VALUES (0, {jobs}, {jobs});
INSERT INTO call_totals (model_group, shard, succeeded, tokens, cost_usd, latency_ms, latency_counts)
VALUES ('Chat', 0, {jobs}, 150::bigint * {jobs}, 0.0001 * {jobs}, 800::bigint * {jobs},
        ARRAY[0, 0, 0, 0, {jobs}, 0, 0, 0, 0, 0, 0, 0]);
COMMIT;
