-- The changes of version 0.3.0: money over time. Late costs, limits, refusals, refunds, booking by day.
--
-- Added columns have defaults, so that no table with a row for each job or call is rewritten. The two new indexes read
-- the calls and the ledger once. What is NULL in a job that ended before this release is in its `completion`.

-- The functions with grants that take more from now on. With two of one name, a grant would not know which is meant.
DROP FUNCTION IF EXISTS
    begin_call(text, uuid, text, text, boolean, json, integer, integer, uuid),
    begin_job_with_call(text, text, text, text, json, integer, text, text, boolean, json, integer, integer, uuid, uuid),
    configure_auto_refill(text, boolean, bigint, text, numeric),
    create_job(text, text, text, text, json, integer, uuid),
    list_alerts(text, bigint, bigint),
    litellm_desired_team(text),
    settle_call(uuid, uuid, text, bigint, bigint, bigint, numeric, bigint, json, text, boolean),
    settle_job_with_call(uuid, uuid, text, bigint, bigint, bigint, numeric, bigint, json, text, boolean),
    update_team(text, json);

-- `credits_per_1k_tokens_unpriced`: in `consumption_usd`, the credits for 1,000 tokens of calls whose cost is unknown.
-- `charge_when`: `completed` charges jobs that were completed without a failed call; `delivered` also charges every
-- other job in which a call delivered output.
ALTER TABLE terms
    ADD COLUMN credits_per_1k_tokens_unpriced numeric NOT NULL DEFAULT 1,
    ADD COLUMN charge_when text NOT NULL DEFAULT 'completed',
    DROP CONSTRAINT terms_unique,
    ADD CONSTRAINT terms_unique UNIQUE NULLS NOT DISTINCT
        (billing_mode, credits_per_dollar, tokens_per_credit, credits_per_1k_tokens_unpriced, charge_when, pricing),
    ADD CONSTRAINT unpriced_not_negative CHECK (credits_per_1k_tokens_unpriced >= 0),
    ADD CONSTRAINT charge_when_valid CHECK (charge_when IN ('completed', 'delivered'));

-- `max_budget` is what the admin has set; what LiteLLM should have is derived from it or, if it is NULL, from the
-- credits and `usd_per_credit` (see `litellm_budget`).
-- The limits of a team: NULL is the deployment's default, 0 no limit.
-- `costs_visible` and `models_visible`: NULL is the deployment's default.
ALTER TABLE teams RENAME COLUMN litellm_max_budget TO max_budget;
ALTER TABLE teams
    ADD COLUMN usd_per_credit numeric NOT NULL DEFAULT 0.1,
    ADD COLUMN limit_calls_per_job bigint,
    ADD COLUMN limit_open_calls_per_job bigint,
    ADD COLUMN limit_open_calls bigint,
    ADD COLUMN limit_open_jobs bigint,
    ADD COLUMN limit_cost_usd_per_job numeric,
    ADD COLUMN costs_visible boolean,
    ADD COLUMN models_visible boolean,
    ADD CONSTRAINT limits_not_negative CHECK (
        limit_calls_per_job >= 0 AND limit_open_calls_per_job >= 0 AND limit_open_calls >= 0
        AND limit_open_jobs >= 0 AND limit_cost_usd_per_job >= 0);

-- Calls in the current minute, of teams that have a rate limit.
CREATE TABLE team_rates (
    team_id text PRIMARY KEY REFERENCES teams ON DELETE CASCADE,
    minute timestamptz NOT NULL,
    calls bigint NOT NULL,
    tokens numeric NOT NULL
) WITH (fillfactor = 50);

-- `extra_calls`: how many more calls are open than one for each open job (see `extra_calls`). So `held + extra_calls`
-- is never less than the number of open calls.
-- `refill_mode`: `add` adds `refill_amount`, up to a remaining of `refill_cap`; `reset_to` makes it the remaining.
ALTER TABLE credit_accounts
    ADD COLUMN extra_calls bigint NOT NULL DEFAULT 0,
    ADD COLUMN refill_mode text NOT NULL DEFAULT 'add',
    ADD COLUMN refill_cap bigint,
    DROP COLUMN refill_usd_per_credit,
    ADD CONSTRAINT refill_mode_valid CHECK (refill_mode IN ('add', 'reset_to'));

-- `credits_due`: what the job costs by its terms as far as its costs are known, all of which is in the ledger; more
-- where the costs became less after the admin had refunded everything.
-- `credits_charged` and `credits_refunded`: the sums of its deductions and of its refunds in the ledger.
-- `unpriced_tokens`: the tokens of settled calls without a cost.
-- `expected_cost_usd`: what the calls that are not settled yet are expected to cost.
-- `delivered`: a call delivered output.
ALTER TABLE jobs
    ADD COLUMN refused_calls bigint NOT NULL DEFAULT 0,
    ADD COLUMN open_calls bigint NOT NULL DEFAULT 0,
    ADD COLUMN unpriced_tokens bigint NOT NULL DEFAULT 0,
    ADD COLUMN expected_cost_usd numeric NOT NULL DEFAULT 0,
    ADD COLUMN delivered boolean NOT NULL DEFAULT false,
    ADD COLUMN credits_due bigint,
    ADD COLUMN credits_charged bigint,
    ADD COLUMN credits_refunded bigint,
    DROP CONSTRAINT only_completed_jobs_are_charged;
ALTER TABLE jobs
    ALTER COLUMN credits_due SET DEFAULT 0,
    ALTER COLUMN credits_charged SET DEFAULT 0,
    ALTER COLUMN credits_refunded SET DEFAULT 0;

-- `refused`: the call failed because of what the caller sent or has used up.
-- `cost_check_at`: when LiteLLM is asked again what the call cost; NULL: that is known, or given up.
-- `settlements` counts how often the usage was written. `counts_tokens`: the team has a limit of tokens in a minute.
ALTER TABLE calls
    ADD COLUMN delivered boolean NOT NULL DEFAULT false,
    ADD COLUMN implausible_usage boolean NOT NULL DEFAULT false,
    ADD COLUMN expected_cost_usd numeric NOT NULL DEFAULT 0,
    ADD COLUMN settlements integer NOT NULL DEFAULT 0,
    ADD COLUMN counts_tokens boolean NOT NULL DEFAULT false,
    ADD COLUMN cost_check_at timestamptz,
    DROP CONSTRAINT call_status_valid,
    ADD CONSTRAINT call_status_valid
        CHECK (status IN ('open', 'succeeded', 'failed', 'refused', 'cancelled', 'abandoned')) NOT VALID,
    -- One constraint in place of two, since each takes time at each change of a row.
    DROP CONSTRAINT call_usage_not_negative,
    ADD CONSTRAINT call_usage_plausible CHECK (
        prompt_tokens BETWEEN 0 AND 1000000000 AND completion_tokens BETWEEN 0 AND 1000000000
        AND total_tokens BETWEEN 0 AND 1000000000 AND cost_usd BETWEEN 0 AND 1000000 AND latency_ms >= 0) NOT VALID;
CREATE INDEX calls_to_ask_about ON calls (cost_check_at) WHERE cost_check_at IS NOT NULL;

-- The calls that are open now.
UPDATE jobs j SET open_calls = open.calls
FROM (SELECT job_id, count(*) AS calls FROM calls WHERE status = 'open' GROUP BY job_id) AS open
WHERE j.job_id = open.job_id;
UPDATE credit_accounts a SET extra_calls = extra.calls
FROM (SELECT team_id, sum(CASE WHEN status IN ('pending', 'in_progress') THEN open_calls - 1 ELSE open_calls END)
          AS calls
      FROM jobs WHERE open_calls > 0 GROUP BY team_id) AS extra
WHERE a.team_id = extra.team_id;

-- A job may be charged again when the cost of a call comes late: once for each settlement of a call.
ALTER TABLE credit_transactions ADD COLUMN call_id uuid, ADD COLUMN settlement integer;
DROP INDEX one_deduction_per_job;
CREATE UNIQUE INDEX one_deduction_per_settlement ON credit_transactions (job_id, call_id, settlement)
    NULLS NOT DISTINCT WHERE transaction_type = 'deduction';

-- What the settling of a call changed, for the functions that update the counters. `tokens`, `cost_usd` and `priced`
-- are what is to be counted now, since provisional usage is not counted.
DROP TYPE settling CASCADE;
CREATE TYPE settling AS (
    team_id text, job_id uuid, job_type text, model_group text, model text, ended_as text, first boolean,
    final boolean, unpriced boolean, priced integer, tokens bigint, cost_usd numeric, revenue_usd numeric,
    credits bigint, charged_jobs integer, free_jobs integer, latency_ms bigint, counts_tokens boolean
);

-- From now on everything counts on the day on which it happens. `opened_jobs`: the jobs that were opened on that day.
-- The sums are numeric, which can't overflow.
ALTER TABLE usage_days RENAME COLUMN open_jobs TO opened_jobs;
ALTER TABLE usage_days
    ADD COLUMN refused_calls bigint NOT NULL DEFAULT 0,
    ADD COLUMN free_jobs_with_output bigint NOT NULL DEFAULT 0,
    ALTER COLUMN credits_charged TYPE numeric,
    ALTER COLUMN tokens TYPE numeric;
UPDATE usage_days SET opened_jobs = opened_jobs + completed + failed + cancelled + expired;
-- `unpriced_requests`: those whose cost was unknown when they were settled.
ALTER TABLE usage_models
    ADD COLUMN unpriced_requests bigint NOT NULL DEFAULT 0,
    ALTER COLUMN tokens TYPE numeric;
ALTER TABLE job_totals ADD COLUMN free_with_output bigint NOT NULL DEFAULT 0;
ALTER TABLE call_totals
    ADD COLUMN refused bigint NOT NULL DEFAULT 0,
    ADD COLUMN priced bigint NOT NULL DEFAULT 0,
    ALTER COLUMN tokens TYPE numeric,
    ALTER COLUMN latency_ms TYPE numeric;
UPDATE call_totals SET priced = succeeded;

-- Usage that is not final was counted, on the day on which the job was opened, and is counted when it is final now.
CREATE TEMPORARY TABLE provisional ON COMMIT DROP AS
    SELECT c.team_id, j.job_type, c.model_group, c.total_tokens AS tokens, coalesce(c.cost_usd, 0) AS cost_usd,
           (c.cost_usd IS NOT NULL)::integer AS priced, coalesce(c.attempts -> -1 ->> 'model', 'unknown') AS model,
           -- The first 48 bits of an id are milliseconds.
           (to_timestamp(('x' || left(replace(c.job_id::text, '-', ''), 12))::bit(48)::bigint / 1000.0)
            AT TIME ZONE 'UTC')::date AS day
    FROM calls c JOIN jobs j ON j.job_id = c.job_id WHERE c.settled_at IS NULL AND c.latency_ms IS NOT NULL;
UPDATE usage_days u
SET tokens = u.tokens - p.tokens, cost_usd = u.cost_usd - p.cost_usd, priced_calls = priced_calls - priced
FROM (SELECT team_id, day, job_type, sum(tokens) AS tokens, sum(cost_usd) AS cost_usd, sum(priced) AS priced
      FROM provisional GROUP BY team_id, day, job_type) AS p
WHERE u.team_id = p.team_id AND u.day = p.day AND u.job_type = p.job_type;
UPDATE usage_models u
SET tokens = u.tokens - p.tokens, cost_usd = u.cost_usd - p.cost_usd, requests = requests - calls
FROM (SELECT team_id, day, model, sum(tokens) AS tokens, sum(cost_usd) AS cost_usd, count(*) AS calls
      FROM provisional GROUP BY team_id, day, model) AS p
WHERE u.team_id = p.team_id AND u.day = p.day AND u.model = p.model;
DELETE FROM usage_models WHERE requests = 0 AND tokens = 0 AND cost_usd = 0;
-- What counts is the sum of all shards.
UPDATE call_totals t SET tokens = t.tokens - p.tokens, cost_usd = t.cost_usd - p.cost_usd
FROM (SELECT model_group, sum(tokens) AS tokens, sum(cost_usd) AS cost_usd FROM provisional GROUP BY model_group) AS p
WHERE t.model_group = p.model_group
  AND shard = (SELECT min(shard) FROM call_totals m WHERE m.model_group = p.model_group);
-- The components that would have settled these calls are replaced now.
UPDATE calls SET cost_check_at = greatest(deadline, now()) WHERE settled_at IS NULL AND ended_at IS NOT NULL;

-- The mean cost of a model group's calls, counted anew at most once a second, when a call is opened.
CREATE TABLE group_costs (
    model_group text PRIMARY KEY,
    mean_cost_usd numeric NOT NULL,
    counted_at timestamptz NOT NULL
) WITH (fillfactor = 50);

ALTER TABLE alerts
    DROP CONSTRAINT alert_kind_valid,
    ADD CONSTRAINT alert_kind_valid
        CHECK (kind IN ('credits_80_percent', 'credits_100_percent', 'team_suspended', 'unpriced_model'));

-- Which budgets were set by the admin was not kept. Those that are the credits of the team times the rate that most
-- teams have are taken to be derived, and so are those that any change of mode left behind.
UPDATE teams SET usd_per_credit = rate
FROM (SELECT mode() WITHIN GROUP (ORDER BY t.max_budget / a.allocated) AS rate
      FROM teams t JOIN credit_accounts a USING (team_id)
      WHERE a.budget_mode = 'hard' AND a.allocated > 0 AND t.max_budget IS NOT NULL) AS usual
WHERE rate IS NOT NULL;
UPDATE teams t SET max_budget = NULL
FROM credit_accounts a
WHERE a.team_id = t.team_id AND t.litellm_budget_duration IS NULL
  AND t.max_budget = usd_per_credit * CASE WHEN a.budget_mode = 'hard' THEN a.allocated
                                           ELSE a.allocated + a.credit_limit END;
-- What was moved with the credits, or not set where it should have been, is told to LiteLLM before the next call.
UPDATE teams SET litellm_version = litellm_version + 1
WHERE max_budget IS NULL AND status IN ('active', 'suspended');
