-- Counters for reports and metrics. Last in the lock order: a function that changes jobs or calls updates them after
-- everything else.

-- The day (UTC) on which everything about a job counts: that of its creation, taken from the UUIDv7.
CREATE OR REPLACE FUNCTION job_day(p_job_id uuid) RETURNS date LANGUAGE sql IMMUTABLE AS $$
    SELECT (timestamp '1970-01-01' + make_interval(
        secs => ('x' || translate(left(p_job_id::text, 13), '-', ''))::bit(48)::bigint / 1000.0::double precision
    ))::date
$$;

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
    p_created bigint, p_completed bigint, p_failed bigint, p_cancelled bigint, p_expired bigint
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO job_totals AS t (shard, created, completed, failed, cancelled, expired)
    VALUES (my_shard(), p_created, p_completed, p_failed, p_cancelled, p_expired)
    ON CONFLICT (shard) DO UPDATE SET
        created = t.created + excluded.created,
        completed = t.completed + excluded.completed, failed = t.failed + excluded.failed,
        cancelled = t.cancelled + excluded.cancelled, expired = t.expired + excluded.expired;
END $$;

CREATE OR REPLACE FUNCTION count_new_job(p_team_id text, p_job_id uuid, p_job_type text)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO usage_days AS u (team_id, day, job_type, open_jobs) VALUES (p_team_id, job_day(p_job_id), p_job_type, 1)
    ON CONFLICT (team_id, day, job_type) DO UPDATE SET open_jobs = u.open_jobs + 1;
    PERFORM add_to_job_totals(1, 0, 0, 0, 0);
END $$;

-- `p_closed_calls`: the number of calls that the end of the job cancelled.
CREATE OR REPLACE FUNCTION count_ended_job(
    p_team_id text, p_job_id uuid, p_job_type text, p_status text, p_credits bigint, p_revenue_usd numeric,
    p_closed_calls bigint
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE usage_days SET
        open_jobs = open_jobs - 1,
        completed = completed + (p_status = 'completed')::integer,
        failed = failed + (p_status = 'failed')::integer,
        cancelled = cancelled + (p_status = 'cancelled')::integer,
        calls = calls + p_closed_calls,
        charged_jobs = charged_jobs + (p_credits > 0)::integer,
        credits_charged = credits_charged + p_credits,
        revenue_usd = revenue_usd + coalesce(p_revenue_usd, 0)
    WHERE team_id = p_team_id AND day = job_day(p_job_id) AND job_type = p_job_type;
    PERFORM add_to_job_totals(0, (p_status = 'completed')::integer, (p_status = 'failed')::integer,
                              (p_status = 'cancelled')::integer, 0);
END $$;

-- Counts `p_jobs` as expired, and one abandoned call for each entry of `p_of_calls`, which holds the jobs of those
-- calls. No job is older than `p_oldest`, so that older months need not be searched.
CREATE OR REPLACE FUNCTION count_overdue(p_team_id text, p_jobs uuid[], p_of_calls uuid[], p_oldest uuid)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE usage_days u
    SET open_jobs = u.open_jobs - ended.jobs, expired = u.expired + ended.jobs, calls = u.calls + ended.calls
    FROM (SELECT job_day(j.job_id) AS day, j.job_type, sum(entries.jobs) AS jobs, sum(entries.calls) AS calls
          FROM (SELECT unnest(p_jobs) AS job_id, 1 AS jobs, 0 AS calls
                UNION ALL
                SELECT unnest(p_of_calls), 0, 1) AS entries
          JOIN jobs j ON j.job_id = entries.job_id AND j.job_id >= p_oldest
          GROUP BY 1, 2) AS ended
    WHERE u.team_id = p_team_id AND u.day = ended.day AND u.job_type = ended.job_type;
    IF p_jobs IS NOT NULL THEN
        PERFORM add_to_job_totals(0, 0, 0, 0, cardinality(p_jobs));
    END IF;
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
