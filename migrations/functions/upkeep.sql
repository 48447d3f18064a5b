-- Sweeping: ending what is overdue.

-- Sweeps a team: jobs past their deadline expire and release their reservation (and are charged if their terms say so),
-- calls past their deadline are abandoned, and automatic refills that are due are made, one for each period.
-- Everything that shows or uses a team's credits calls this first. Costs three index look-ups when nothing is due.
-- Answers how many jobs expired.
CREATE OR REPLACE FUNCTION sweep_team(p_team_id text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    -- No job is open for longer than 30 days, so older months need not be searched.
    v_oldest uuid := uuid_v7_floor(now() - interval '32 days');
    v_row record;
    v_abandoned_groups text[];
    -- What is to be counted, for each job.
    v_counts usage_days[];
    v_count usage_days;
    v_expired bigint := 0;
    v_charged bigint := 0;
    v_extra bigint := 0;
BEGIN
    IF NOT something_is_overdue(p_team_id, v_oldest) THEN
        RETURN 0;
    END IF;
    -- The account is locked before the counters, since other transactions update counters while they have it locked.
    PERFORM FROM credit_accounts WHERE team_id = p_team_id FOR NO KEY UPDATE;
    FOR v_row IN
        WITH overdue AS (
            SELECT j.job_id, j.job_type, j.status, j.open_calls, c.call_id
            FROM calls c JOIN jobs j ON j.job_id = c.job_id AND j.job_id >= v_oldest
            WHERE c.team_id = p_team_id AND c.status = 'open' AND c.deadline <= now() AND c.job_id >= v_oldest
            FOR NO KEY UPDATE SKIP LOCKED
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

    FOR v_row IN
        WITH overdue AS (
            SELECT job_id FROM jobs
            WHERE team_id = p_team_id AND status IN ('pending', 'in_progress')
              AND expires_at <= now() AND job_id >= v_oldest
            FOR NO KEY UPDATE SKIP LOCKED
        ), ended AS (
            UPDATE jobs j SET status = 'expired', completed_at = j.expires_at
            FROM overdue o WHERE j.job_id = o.job_id AND j.job_id >= v_oldest
            RETURNING j.job_id, j.open_calls
        )
        -- In this order they are charged.
        SELECT job_id, open_calls FROM ended ORDER BY job_id
    LOOP
        v_expired := v_expired + 1;
        v_extra := v_extra + extra_calls('expired', v_row.open_calls) - extra_calls('pending', v_row.open_calls);
        v_count := charge_expired(v_row.job_id, v_charged);
        v_charged := v_charged + v_count.charged_jobs;
        v_counts := v_counts || v_count;
    END LOOP;
    IF v_expired > 0 OR v_extra <> 0 THEN
        UPDATE credit_accounts SET held = held - v_expired, extra_calls = extra_calls + v_extra,
            overdraft = greatest(0, floor - (allocated - used - held) - v_expired)
        WHERE team_id = p_team_id;
    END IF;
    PERFORM refill(p_team_id) FROM credit_accounts WHERE team_id = p_team_id AND refill_due <= now();
    IF v_counts IS NOT NULL THEN
        PERFORM count_overdue(p_team_id, v_counts);
    END IF;
    IF v_abandoned_groups IS NOT NULL THEN
        PERFORM count_closed_calls(v_abandoned_groups, true);
    END IF;
    RETURN v_expired;
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

-- Charges a job that has expired, if its terms say so. Answers what is to be counted. Its reservation is released
-- afterwards. `p_uncounted`: see `revenue_of`.
CREATE OR REPLACE FUNCTION charge_expired(p_job_id uuid, p_uncounted bigint)
RETURNS usage_days LANGUAGE plpgsql AS $$
DECLARE
    v_job jobs;
    v_count usage_days;
    v_charge settling;
BEGIN
    SELECT * INTO STRICT v_job FROM jobs WHERE job_id = p_job_id;
    v_count := empty_count(v_job.job_type);
    v_count.expired := 1;
    IF v_job.delivered THEN
        v_charge.revenue_usd := 0;
        v_charge := charge_late(v_job, v_charge, 0, NULL, NULL, p_uncounted);
        v_count.charged_jobs := v_charge.charged_jobs;
        v_count.credits_charged := v_charge.credits;
        v_count.revenue_usd := v_charge.revenue_usd;
        v_count.free_jobs_with_output := 1 - v_charge.charged_jobs;
    END IF;
    RETURN v_count;
END $$;

CREATE OR REPLACE FUNCTION something_is_overdue(p_team_id text, p_oldest uuid)
RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN EXISTS (SELECT FROM jobs WHERE team_id = p_team_id AND status IN ('pending', 'in_progress')
                   AND expires_at <= now() AND job_id >= p_oldest)
        OR EXISTS (SELECT FROM calls WHERE team_id = p_team_id AND status = 'open'
                   AND deadline <= now() AND job_id >= p_oldest)
        OR EXISTS (SELECT FROM credit_accounts WHERE team_id = p_team_id AND refill_due <= now());
END $$;

-- Sweeps several teams. All accounts are locked first, in the order of their ids, so that two transactions can't
-- deadlock.
CREATE OR REPLACE FUNCTION sweep_teams(p_teams text[]) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    v_oldest uuid := uuid_v7_floor(now() - interval '32 days');
    v_due text[] := ARRAY(SELECT team_id FROM unnest(p_teams) AS team_id WHERE something_is_overdue(team_id, v_oldest));
BEGIN
    PERFORM FROM credit_accounts WHERE team_id = ANY (v_due) ORDER BY team_id FOR NO KEY UPDATE;
    RETURN (SELECT coalesce(sum(sweep_team(team_id)), 0) FROM (SELECT unnest(v_due) AS team_id ORDER BY 1) AS due);
END $$;

-- Sweeps all teams, and deletes stored messages that have expired. Answers how many jobs expired.
CREATE OR REPLACE FUNCTION expire_jobs() RETURNS json LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    v_oldest uuid := uuid_v7_floor(now() - interval '32 days');
    v_teams text[] := ARRAY(
        SELECT team_id FROM jobs
        WHERE status IN ('pending', 'in_progress') AND expires_at <= now() AND job_id >= v_oldest
        UNION
        SELECT team_id FROM calls WHERE status = 'open' AND deadline <= now() AND job_id >= v_oldest
        UNION
        SELECT team_id FROM credit_accounts WHERE refill_due <= now());
BEGIN
    DELETE FROM call_messages WHERE expires_at <= now();
    RETURN json_build_object('expired_jobs', sweep_teams(v_teams));
END $$;
GRANT EXECUTE ON FUNCTION expire_jobs TO llm_jobs_application;
