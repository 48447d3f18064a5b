-- Counters for reports and metrics. Last in the lock order: a function that changes jobs or calls updates them after
-- everything else. Everything counts on the day (UTC) on which it is written, so a day that is over never changes.

-- The shard of the totals that this transaction updates. Concurrent transactions never share one, so none waits for
-- another.
CREATE OR REPLACE FUNCTION my_shard() RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    v_shard integer;
BEGIN
    FOR i IN 0..1023 LOOP
        v_shard := (pg_backend_pid() + i) % 1024;
        IF pg_try_advisory_xact_lock(hashtext('shard'), v_shard) THEN
            RETURN v_shard;
        END IF;
    END LOOP;
    RETURN v_shard;
END $$;

CREATE OR REPLACE FUNCTION add_to_job_totals(
    p_created bigint, p_completed bigint, p_failed bigint, p_cancelled bigint, p_expired bigint,
    p_free_with_output bigint
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO job_totals AS t (shard, created, completed, failed, cancelled, expired, free_with_output)
    VALUES (my_shard(), p_created, p_completed, p_failed, p_cancelled, p_expired, p_free_with_output)
    ON CONFLICT (shard) DO UPDATE SET
        created = t.created + excluded.created,
        completed = t.completed + excluded.completed, failed = t.failed + excluded.failed,
        cancelled = t.cancelled + excluded.cancelled, expired = t.expired + excluded.expired,
        free_with_output = t.free_with_output + excluded.free_with_output;
END $$;

-- The most types of jobs that a team's usage has for a day. Further ones count as `other`. The components say it for
-- each connection, by a variable.
CREATE OR REPLACE FUNCTION most_job_types() RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT coalesce(nullif(current_setting('llm_jobs.job_types_per_day', true), ''), '200')::bigint
$$;

-- Usage has got a new row. If its day has more types of jobs than it may have, what is in the row is added to that of
-- `other` types.
CREATE OR REPLACE FUNCTION limit_job_types() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.job_type = 'other' OR most_job_types() = 0
        OR NOT EXISTS (SELECT FROM usage_days WHERE team_id = NEW.team_id AND day = NEW.day AND job_type <> 'other'
                       OFFSET most_job_types()) THEN
        RETURN NULL;
    END IF;
    WITH moved AS (
        DELETE FROM usage_days WHERE team_id = NEW.team_id AND day = NEW.day AND job_type = NEW.job_type RETURNING *)
    INSERT INTO usage_days AS u (
        team_id, day, job_type, opened_jobs, completed, failed, cancelled, expired, charged_jobs, credits_charged,
        revenue_usd, calls, priced_calls, tokens, cost_usd, refused_calls, free_jobs_with_output)
    SELECT team_id, day, 'other', opened_jobs, completed, failed, cancelled, expired, charged_jobs, credits_charged,
           revenue_usd, calls, priced_calls, tokens, cost_usd, refused_calls, free_jobs_with_output FROM moved
    ON CONFLICT (team_id, day, job_type) DO UPDATE SET
        opened_jobs = u.opened_jobs + excluded.opened_jobs, completed = u.completed + excluded.completed,
        failed = u.failed + excluded.failed, cancelled = u.cancelled + excluded.cancelled,
        expired = u.expired + excluded.expired, charged_jobs = u.charged_jobs + excluded.charged_jobs,
        credits_charged = u.credits_charged + excluded.credits_charged,
        revenue_usd = u.revenue_usd + excluded.revenue_usd, calls = u.calls + excluded.calls,
        priced_calls = u.priced_calls + excluded.priced_calls, tokens = u.tokens + excluded.tokens,
        cost_usd = u.cost_usd + excluded.cost_usd, refused_calls = u.refused_calls + excluded.refused_calls,
        free_jobs_with_output = u.free_jobs_with_output + excluded.free_jobs_with_output;
    RETURN NULL;
END $$;
-- Not where a row is added to, so that it takes no time then.
CREATE OR REPLACE TRIGGER job_types_are_limited AFTER INSERT ON usage_days
    FOR EACH ROW EXECUTE FUNCTION limit_job_types();

CREATE OR REPLACE FUNCTION count_new_job(p_team_id text, p_job_type text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO usage_days AS u (team_id, day, job_type, opened_jobs) VALUES (p_team_id, today(), p_job_type, 1)
    ON CONFLICT (team_id, day, job_type) DO UPDATE SET opened_jobs = u.opened_jobs + 1;
    PERFORM add_to_job_totals(1, 0, 0, 0, 0, 0);
END $$;

-- `p_closed_calls`: the number of calls that the end of the job cancelled. `p_free_with_output`: the job delivered
-- output and is not charged.
CREATE OR REPLACE FUNCTION count_ended_job(
    p_team_id text, p_job_type text, p_status text, p_credits bigint, p_revenue_usd numeric, p_closed_calls bigint,
    p_free_with_output boolean
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO usage_days AS u (team_id, day, job_type, completed, failed, cancelled, calls, charged_jobs,
                                 credits_charged, revenue_usd, free_jobs_with_output)
    VALUES (p_team_id, today(), p_job_type, (p_status = 'completed')::integer, (p_status = 'failed')::integer,
            (p_status = 'cancelled')::integer, p_closed_calls, (p_credits > 0)::integer, p_credits,
            coalesce(p_revenue_usd, 0), p_free_with_output::integer)
    ON CONFLICT (team_id, day, job_type) DO UPDATE SET
        completed = u.completed + excluded.completed, failed = u.failed + excluded.failed,
        cancelled = u.cancelled + excluded.cancelled, calls = u.calls + excluded.calls,
        charged_jobs = u.charged_jobs + excluded.charged_jobs,
        credits_charged = u.credits_charged + excluded.credits_charged,
        revenue_usd = u.revenue_usd + excluded.revenue_usd,
        free_jobs_with_output = u.free_jobs_with_output + excluded.free_jobs_with_output;
    PERFORM add_to_job_totals(0, (p_status = 'completed')::integer, (p_status = 'failed')::integer,
                              (p_status = 'cancelled')::integer, 0, p_free_with_output::integer);
END $$;

-- Counts jobs that have expired and calls that were abandoned: one entry for each type of jobs.
CREATE OR REPLACE FUNCTION count_overdue(p_team_id text, p_entries usage_days[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO usage_days AS u (team_id, day, job_type, expired, calls, charged_jobs, credits_charged, revenue_usd,
                                 free_jobs_with_output)
    SELECT p_team_id, today(), job_type, sum(expired), sum(calls), sum(charged_jobs), sum(credits_charged),
           sum(revenue_usd), sum(free_jobs_with_output)
    FROM unnest(p_entries) GROUP BY job_type ORDER BY job_type
    ON CONFLICT (team_id, day, job_type) DO UPDATE SET
        expired = u.expired + excluded.expired, calls = u.calls + excluded.calls,
        charged_jobs = u.charged_jobs + excluded.charged_jobs,
        credits_charged = u.credits_charged + excluded.credits_charged,
        revenue_usd = u.revenue_usd + excluded.revenue_usd,
        free_jobs_with_output = u.free_jobs_with_output + excluded.free_jobs_with_output;
    PERFORM add_to_job_totals(0, 0, 0, 0, sum(expired)::bigint, sum(free_jobs_with_output)::bigint)
    FROM unnest(p_entries) HAVING sum(expired) > 0;
END $$;

-- Counts one abandoned or cancelled call for each entry of `p_model_groups`.
CREATE OR REPLACE FUNCTION count_closed_calls(p_model_groups text[], p_abandoned boolean)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO call_totals AS t (model_group, shard, abandoned, cancelled)
    SELECT model_group, my_shard(),
           CASE WHEN p_abandoned THEN count(*) ELSE 0 END, CASE WHEN p_abandoned THEN 0 ELSE count(*) END
    FROM unnest(p_model_groups) AS model_group GROUP BY model_group ORDER BY model_group
    ON CONFLICT (model_group, shard) DO UPDATE SET
        abandoned = t.abandoned + excluded.abandoned, cancelled = t.cancelled + excluded.cancelled;
END $$;

-- Upper bounds of the latency histogram, in milliseconds.
CREATE OR REPLACE FUNCTION latency_bounds() RETURNS bigint[] LANGUAGE sql IMMUTABLE AS $$
    SELECT ARRAY[50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 120000]::bigint[]
$$;
