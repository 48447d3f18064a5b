-- Sweeping: ending what is overdue.

-- Sweeps a team: jobs past their deadline expire and release their reservation (and are charged if their terms say so),
-- calls past their deadline are abandoned, and automatic refills that are due are made, one for each period. Everything
-- that shows or uses a team's credits calls this first. At most `p_limit` jobs and as many calls are ended, those first
-- whose deadline passed first; the next sweep goes on. `expired` is the number of jobs that expired, `ended` the larger
-- one of the numbers of jobs and calls.
-- `p_recent`: jobs that were opened more than 32 days ago are not looked for, since each month's tables take time. No
-- job is open for longer than 30 days, so such a job is only there if nothing else has swept its team for a while.
CREATE OR REPLACE FUNCTION sweep_team(
    p_team_id text, p_limit bigint DEFAULT 20, p_recent boolean DEFAULT false, OUT expired bigint, OUT ended bigint
) LANGUAGE plpgsql AS $$
DECLARE
    v_oldest uuid := oldest_job_to_sweep(p_recent);
    v_row record;
    v_jobs uuid[];
    v_calls uuid[];
    v_abandoned_groups text[];
    -- What is to be counted: for each type of jobs, and for each job that is charged.
    v_counts usage_days[];
    v_count usage_days;
    v_delivering uuid[];
    v_job_id uuid;
    v_charged bigint := 0;
    v_extra bigint := 0;
BEGIN
    expired := 0;
    ended := 0;
    IF NOT something_is_overdue(p_team_id, v_oldest) THEN
        RETURN;
    END IF;
    -- The account is locked before the counters, since other transactions update counters while they have it locked.
    PERFORM FROM credit_accounts WHERE team_id = p_team_id FOR NO KEY UPDATE;
    -- What is found is kept in arrays, of which the planner believes that they are short.
    SELECT array_agg(job_id), array_agg(call_id) INTO v_jobs, v_calls FROM (
        SELECT job_id, call_id FROM calls
        WHERE team_id = p_team_id AND status = 'open' AND deadline <= now() AND job_id >= v_oldest
        ORDER BY deadline LIMIT p_limit) AS due;
    FOR v_row IN
        WITH overdue AS (
            SELECT j.job_id, j.job_type, j.status, j.open_calls, c.call_id
            FROM unnest(v_jobs, v_calls) AS due (job_id, call_id)
                JOIN calls c ON c.job_id = due.job_id AND c.call_id = due.call_id
                JOIN jobs j ON j.job_id = due.job_id
            WHERE c.status = 'open' AND c.job_id >= v_oldest AND j.job_id >= v_oldest
            FOR NO KEY UPDATE OF c, j SKIP LOCKED
        ), ended AS (
            UPDATE calls c SET status = 'abandoned', ended_at = c.deadline, cost_check_at = now()
            FROM overdue o WHERE c.job_id = o.job_id AND c.call_id = o.call_id AND c.job_id >= v_oldest
            RETURNING c.model_group, o.job_id, o.job_type, o.status, o.open_calls
        )
        SELECT job_id, job_type, status, open_calls, count(*) AS calls, array_agg(model_group) AS groups
        FROM ended GROUP BY job_id, job_type, status, open_calls
    LOOP
        UPDATE jobs SET open_calls = open_calls - v_row.calls WHERE job_id = v_row.job_id;
        v_extra := v_extra + extra_calls(v_row.status, v_row.open_calls - v_row.calls)
            - extra_calls(v_row.status, v_row.open_calls);
        v_abandoned_groups := v_abandoned_groups || v_row.groups;
        v_count := empty_count(v_row.job_type);
        v_count.calls := v_row.calls;
        v_counts := v_counts || v_count;
    END LOOP;

    v_jobs := ARRAY(
        SELECT job_id FROM jobs
        WHERE team_id = p_team_id AND status IN ('pending', 'in_progress') AND expires_at <= now()
          AND job_id >= v_oldest
        ORDER BY expires_at LIMIT p_limit FOR NO KEY UPDATE SKIP LOCKED);
    FOR v_row IN
        WITH ended AS (
            UPDATE jobs j SET status = 'expired', completed_at = j.expires_at
            FROM unnest(v_jobs) AS due (job_id) WHERE j.job_id = due.job_id AND j.job_id >= v_oldest
            RETURNING j.job_id, j.job_type, j.open_calls, j.delivered
        )
        SELECT job_type, count(*) AS jobs,
               sum(extra_calls('expired', open_calls) - extra_calls('pending', open_calls)) AS extra,
               array_agg(job_id) FILTER (WHERE delivered) AS delivering
        FROM ended GROUP BY job_type
    LOOP
        expired := expired + v_row.jobs;
        v_extra := v_extra + v_row.extra;
        v_delivering := v_delivering || v_row.delivering;
        v_count := empty_count(v_row.job_type);
        v_count.expired := v_row.jobs;
        v_counts := v_counts || v_count;
    END LOOP;
    FOR v_job_id IN SELECT unnest(v_delivering) ORDER BY 1 LOOP
        v_count := charge_expired(v_job_id, v_charged);
        v_charged := v_charged + v_count.charged_jobs;
        v_counts := v_counts || v_count;
    END LOOP;
    IF expired > 0 OR v_extra <> 0 THEN
        UPDATE credit_accounts SET held = held - expired, extra_calls = extra_calls + v_extra,
            overdraft = greatest(0, floor - (allocated - used - held) - expired)
        WHERE team_id = p_team_id;
    END IF;
    PERFORM refill(p_team_id) FROM credit_accounts WHERE team_id = p_team_id AND refill_due <= now();
    IF v_counts IS NOT NULL THEN
        PERFORM count_overdue(p_team_id, v_counts);
    END IF;
    IF v_abandoned_groups IS NOT NULL THEN
        PERFORM count_closed_calls(v_abandoned_groups, true);
    END IF;
    ended := greatest(expired, cardinality(v_abandoned_groups));
END $$;

-- A row of counters to which something is added.
CREATE OR REPLACE FUNCTION empty_count(p_job_type text) RETURNS usage_days LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    v_count usage_days;
BEGIN
    v_count.job_type := p_job_type;
    v_count.expired := 0;
    v_count.calls := 0;
    v_count.charged_jobs := 0;
    v_count.credits_charged := 0;
    v_count.revenue_usd := 0;
    v_count.free_jobs_with_output := 0;
    RETURN v_count;
END $$;

-- Charges a job that has expired and in which a call delivered output, if its terms say so. Answers what is to be
-- counted. Its reservation is released afterwards. `p_uncounted`: see `revenue_of`.
CREATE OR REPLACE FUNCTION charge_expired(p_job_id uuid, p_uncounted bigint)
RETURNS usage_days LANGUAGE plpgsql AS $$
DECLARE
    v_job jobs;
    v_count usage_days;
    v_charge settling;
BEGIN
    SELECT * INTO STRICT v_job FROM jobs WHERE job_id = p_job_id;
    v_count := empty_count(v_job.job_type);
    v_charge.revenue_usd := 0;
    v_charge := charge_late(v_job, v_charge, 0, NULL, NULL, p_uncounted);
    v_count.charged_jobs := v_charge.charged_jobs;
    v_count.credits_charged := v_charge.credits;
    v_count.revenue_usd := v_charge.revenue_usd;
    v_count.free_jobs_with_output := 1 - v_charge.charged_jobs;
    RETURN v_count;
END $$;

-- The first id of a sweep: see `sweep_team`.
CREATE OR REPLACE FUNCTION oldest_job_to_sweep(p_recent boolean) RETURNS uuid LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF p_recent THEN
        RETURN uuid_v7_floor(now() - interval '32 days');
    END IF;
    RETURN '00000000-0000-0000-0000-000000000000';
END $$;

CREATE OR REPLACE FUNCTION something_is_overdue(p_team_id text, p_oldest uuid)
RETURNS boolean LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_refill boolean;
    v_open boolean;
BEGIN
    -- Each open job holds a credit, and `held + extra_calls` is never less than the number of open calls.
    SELECT coalesce(refill_due <= now(), false), held > 0 OR extra_calls > 0 INTO v_refill, v_open
    FROM credit_accounts WHERE team_id = p_team_id;
    -- In an order that an index has, so that no table is read through where most jobs are overdue.
    RETURN v_refill OR v_open AND (
        (SELECT true FROM jobs
         WHERE team_id = p_team_id AND status IN ('pending', 'in_progress') AND expires_at <= now()
           AND job_id >= p_oldest ORDER BY expires_at LIMIT 1) IS NOT NULL
        OR (SELECT true FROM calls
            WHERE team_id = p_team_id AND status = 'open' AND deadline <= now()
              AND job_id >= p_oldest ORDER BY deadline LIMIT 1) IS NOT NULL);
END $$;

-- Sweeps several teams, together as much as one. All accounts are locked first, in the order of their ids, so that two
-- transactions can't deadlock.
CREATE OR REPLACE FUNCTION sweep_teams(p_teams text[]) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    v_due text[] := ARRAY(
        SELECT team_id FROM unnest(p_teams) AS team_id WHERE something_is_overdue(team_id, oldest_job_to_sweep(false))
        ORDER BY team_id LIMIT 200);
BEGIN
    PERFORM FROM credit_accounts WHERE team_id = ANY (v_due) ORDER BY team_id FOR NO KEY UPDATE;
    RETURN (SELECT coalesce(sum((sweep_team(team_id, greatest(1, 200 / greatest(1, cardinality(v_due))))).expired), 0)
            FROM (SELECT unnest(v_due) AS team_id ORDER BY 1) AS due);
END $$;

-- One batch of sweeping all teams, in the order of their ids after `p_after`: {done, more, next}. `done` is the number
-- of jobs that expired, and `next` the `p_after` of the next batch. A batch ends 200 jobs and looks at 1,000 teams at
-- most, since calls may wait for the accounts that it locks.
CREATE OR REPLACE FUNCTION sweep_batch(p_after text) RETURNS json LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    c_teams constant bigint := 1000;
    v_left bigint := 200;
    v_account record;
    v_before text := p_after;
    v_seen bigint := 0;
    v_expired bigint := 0;
    v_swept record;
BEGIN
    FOR v_account IN
        SELECT team_id, held > 0 OR extra_calls > 0 OR coalesce(refill_due <= now(), false) AS may_be_due
        FROM credit_accounts WHERE team_id > p_after ORDER BY team_id LIMIT c_teams
    LOOP
        v_seen := v_seen + 1;
        IF v_account.may_be_due AND something_is_overdue(v_account.team_id, oldest_job_to_sweep(false)) THEN
            v_swept := sweep_team(v_account.team_id, v_left);
            v_expired := v_expired + v_swept.expired;
            v_left := v_left - v_swept.ended;
            IF v_left <= 0 THEN
                -- There may be more of the same team.
                RETURN json_build_object('done', v_expired, 'more', true, 'next', v_before);
            END IF;
            -- A team takes time, too.
            v_left := greatest(1, v_left - 1);
        END IF;
        v_before := v_account.team_id;
    END LOOP;
    RETURN json_build_object('done', v_expired, 'more', v_seen = c_teams, 'next', v_before);
END $$;
GRANT EXECUTE ON FUNCTION sweep_batch TO llm_jobs_application;

-- What release 0.3.0 calls: as much as one batch, from the beginning.
CREATE OR REPLACE FUNCTION expire_jobs() RETURNS json LANGUAGE sql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
    SELECT json_build_object('expired_jobs', sweep_batch('') -> 'done')
$$;
GRANT EXECUTE ON FUNCTION expire_jobs TO llm_jobs_application;

-- Deletes up to 1,000 stored messages that have expired: {done, more}.
CREATE OR REPLACE FUNCTION delete_messages() RETURNS json LANGUAGE sql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
    WITH deleted AS (
        DELETE FROM call_messages WHERE (job_id, call_id) IN (
            SELECT job_id, call_id FROM call_messages WHERE expires_at <= now() ORDER BY expires_at LIMIT 1000
            FOR UPDATE SKIP LOCKED)
        RETURNING true)
    SELECT json_build_object('done', count(*), 'more', count(*) = 1000) FROM deleted
$$;
GRANT EXECUTE ON FUNCTION delete_messages TO llm_jobs_application;

-- Deletes up to 1,000 requests with an `Idempotency-Key` that are older than a day: {done, more}.
CREATE OR REPLACE FUNCTION delete_idempotency_keys() RETURNS json LANGUAGE sql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
    WITH deleted AS (
        DELETE FROM idempotency_keys WHERE (caller, key_hash) IN (
            SELECT caller, key_hash FROM idempotency_keys WHERE created_at < now() - interval '24 hours'
            ORDER BY created_at LIMIT 1000 FOR UPDATE SKIP LOCKED)
        RETURNING true)
    SELECT json_build_object('done', count(*), 'more', count(*) = 1000) FROM deleted
$$;
GRANT EXECUTE ON FUNCTION delete_idempotency_keys TO llm_jobs_application;

-- Deletes up to 1,000 keys that were revoked and as many alerts that were raised more than `p_days` days ago: {done,
-- more}. Keys stay while LiteLLM may have them, and alerts while they are due to be sent.
CREATE OR REPLACE FUNCTION delete_history(p_days integer) RETURNS json LANGUAGE sql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
    WITH keys AS (
        DELETE FROM virtual_keys WHERE key_id IN (
            SELECT key_id FROM virtual_keys
            WHERE revoked_at < now() - make_interval(days => p_days) AND litellm_deleted
            LIMIT 1000 FOR UPDATE SKIP LOCKED)
        RETURNING true
    ), old_alerts AS (
        DELETE FROM alerts WHERE alert_id IN (
            SELECT alert_id FROM alerts a
            WHERE created_at < now() - make_interval(days => p_days)
              AND alert_status(a) <> 'due'
            LIMIT 1000 FOR UPDATE SKIP LOCKED)
        RETURNING true
    ), counts AS (
        SELECT (SELECT count(*) FROM keys) AS keys, (SELECT count(*) FROM old_alerts) AS alerts)
    SELECT json_build_object('done', keys + alerts, 'more', greatest(keys, alerts) = 1000) FROM counts
$$;
GRANT EXECUTE ON FUNCTION delete_history TO llm_jobs_application;

-- Claims a request of several statements for so long, and ends it: for one with an `Idempotency-Key`.
CREATE OR REPLACE FUNCTION begin_work(p_lease_seconds integer) RETURNS json LANGUAGE sql STABLE
SECURITY DEFINER SET search_path FROM CURRENT AS $$
    SELECT json_build_object('deadline', now() + make_interval(secs => p_lease_seconds))
$$;
GRANT EXECUTE ON FUNCTION begin_work TO llm_jobs_application;

-- Writes down that these steps of an upkeep have succeeded now.
CREATE OR REPLACE FUNCTION upkeep_succeeded(p_steps text[]) RETURNS boolean LANGUAGE sql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
    INSERT INTO upkeep_steps (step, succeeded_at) SELECT step, now() FROM unnest(p_steps) AS step ORDER BY step
    ON CONFLICT (step) DO UPDATE SET succeeded_at = excluded.succeeded_at;
    SELECT true;
$$;
GRANT EXECUTE ON FUNCTION upkeep_succeeded TO llm_jobs_application;
