-- Sweeping: ending what is overdue.

-- Sweeps a team: jobs past their deadline expire and release their reservation, calls past their deadline are
-- abandoned, and automatic refills that are due are made, one for each period. Everything that shows or uses a team's
-- credits calls this first. Costs three index look-ups when nothing is due. Answers how many jobs expired.
CREATE OR REPLACE FUNCTION sweep_team(p_team_id text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    -- No job is open for longer than 30 days, so older months need not be searched.
    v_oldest uuid := uuid_v7_floor(now() - interval '32 days');
    -- One entry for each call that this abandons: its model group and its job.
    v_abandoned_groups text[];
    v_jobs_of_abandoned uuid[];
    v_expired_jobs uuid[];
BEGIN
    IF NOT something_is_overdue(p_team_id, v_oldest) THEN
        RETURN 0;
    END IF;
    -- The account is locked before the counters, since other transactions update counters while they have it locked.
    PERFORM FROM credit_accounts WHERE team_id = p_team_id FOR NO KEY UPDATE;
    WITH overdue AS (
        SELECT job_id, call_id FROM calls
        WHERE team_id = p_team_id AND status = 'open' AND deadline <= now() AND job_id >= v_oldest
        FOR UPDATE SKIP LOCKED
    ), ended AS (
        UPDATE calls c SET status = 'abandoned', ended_at = c.deadline
        FROM overdue o WHERE c.job_id = o.job_id AND c.call_id = o.call_id AND c.job_id >= v_oldest
        RETURNING c.model_group, c.job_id
    )
    SELECT array_agg(model_group), array_agg(job_id) INTO v_abandoned_groups, v_jobs_of_abandoned FROM ended;

    WITH overdue AS (
        SELECT job_id FROM jobs
        WHERE team_id = p_team_id AND status IN ('pending', 'in_progress')
          AND expires_at <= now() AND job_id >= v_oldest
        FOR UPDATE SKIP LOCKED
    ), ended AS (
        UPDATE jobs j SET status = 'expired', completed_at = j.expires_at
        FROM overdue o WHERE j.job_id = o.job_id AND j.job_id >= v_oldest
        RETURNING j.job_id
    )
    SELECT array_agg(job_id) INTO v_expired_jobs FROM ended;
    IF v_expired_jobs IS NOT NULL THEN
        UPDATE credit_accounts SET held = held - cardinality(v_expired_jobs),
            overdraft = greatest(0, floor - (allocated - used - held) - cardinality(v_expired_jobs))
        WHERE team_id = p_team_id;
    END IF;
    PERFORM refill(p_team_id) FROM credit_accounts WHERE team_id = p_team_id AND refill_due <= now();
    IF v_expired_jobs IS NOT NULL OR v_jobs_of_abandoned IS NOT NULL THEN
        PERFORM count_overdue(p_team_id, v_expired_jobs, v_jobs_of_abandoned, v_oldest);
    END IF;
    IF v_abandoned_groups IS NOT NULL THEN
        PERFORM count_closed_calls(v_abandoned_groups, true);
    END IF;
    RETURN coalesce(cardinality(v_expired_jobs), 0);
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
