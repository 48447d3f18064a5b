-- Jobs: one business operation, one credit.

-- Opens a job and holds one credit for it until it ends or `p_lifetime_seconds` have passed. `p_key_id` NULL: the admin does it.
CREATE FUNCTION create_job(
    p_key_id uuid, p_team_id text, p_user_id text, p_job_type text, p_metadata json, p_lifetime_seconds integer
) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    v_available bigint;
    v_floor bigint;
    v_row jobs;
BEGIN
    IF p_key_id IS NULL THEN
        PERFORM existing_team(p_team_id);
    ELSIF acting_team(p_key_id) <> p_team_id THEN
        PERFORM fail('LJ002', format('API key does not belong to team ''%s''', p_team_id));
    END IF;
    PERFORM sweep_team(p_team_id);
    SELECT allocated - used - held, floor INTO v_available, v_floor
    FROM credit_accounts WHERE team_id = p_team_id FOR NO KEY UPDATE;
    IF v_available - 1 < v_floor THEN
        PERFORM fail('LJ005', format('Insufficient credits. Required: 1, Available: %s', v_available));
    END IF;
    UPDATE credit_accounts SET held = held + 1 WHERE team_id = p_team_id;
    INSERT INTO jobs (job_id, team_id, user_id, job_type, metadata, expires_at)
    VALUES (uuid_v7(), p_team_id, p_user_id, p_job_type, p_metadata, now() + make_interval(secs => p_lifetime_seconds))
    RETURNING * INTO v_row;
    RETURN json_build_object('job_id', v_row.job_id, 'status', v_row.status,
                             'created_at', rfc3339(v_row.created_at), 'expires_at', rfc3339(v_row.expires_at));
END $$;

-- Sums over a job's calls. The cost is the sum of what is known, so it is NULL where that is nothing; `unpriced_calls` says of how
-- many calls it is not known, or not yet.
CREATE FUNCTION job_costs(p_job_id uuid) RETURNS TABLE (
    total_calls bigint, successful_calls bigint, failed_calls bigint, unpriced_calls bigint, total_tokens bigint,
    total_cost_usd numeric, avg_latency_ms bigint
) LANGUAGE sql STABLE AS $$
    SELECT count(*), count(*) FILTER (WHERE status = 'succeeded'), count(*) FILTER (WHERE status = 'failed'),
           count(*) FILTER (WHERE cost_usd IS NULL), coalesce(sum(total_tokens), 0)::bigint,
           CASE WHEN count(cost_usd) < count(*) THEN nullif(sum(cost_usd), 0) ELSE coalesce(sum(cost_usd), 0) END,
           coalesce(round(avg(latency_ms)), 0)::bigint
    FROM calls WHERE job_id = p_job_id
$$;

CREATE FUNCTION job_is_over(p_job jobs) RETURNS void LANGUAGE plpgsql STABLE AS $$
BEGIN
    PERFORM fail('LJ008', format('Job ''%s'' is already %s', p_job.job_id,
        CASE WHEN p_job.status IN ('pending', 'in_progress') THEN 'expired' ELSE p_job.status END));
END $$;

-- Ends a job. One credit is deducted when it is completed and no call failed; otherwise its hold is given back.
-- The same request again gets the same answer. `p_key_id` NULL: the admin does it.
CREATE FUNCTION complete_job(p_key_id uuid, p_job_id uuid, p_status text, p_metadata json, p_error_message text)
RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    v_team_id text := CASE WHEN p_key_id IS NOT NULL THEN acting_team(p_key_id) END;
    v_job jobs;
    v_costs record;
    v_charged boolean;
    v_remaining bigint;
BEGIN
    SELECT * INTO v_job FROM jobs WHERE job_id = p_job_id AND team_id = coalesce(v_team_id, team_id) FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        PERFORM fail('LJ006', 'Job not found');
    ELSIF v_job.status = p_status THEN
        RETURN v_job.completion;
    ELSIF v_job.status NOT IN ('pending', 'in_progress') OR v_job.expires_at <= now() THEN
        PERFORM job_is_over(v_job);
    END IF;
    UPDATE calls SET status = 'cancelled', ended_at = now() WHERE job_id = p_job_id AND status = 'open';
    SELECT * INTO v_costs FROM job_costs(p_job_id);
    v_charged := p_status = 'completed' AND v_costs.failed_calls = 0;
    IF v_charged THEN
        v_remaining := (post_transaction(v_job.team_id, 'deduction', -1,
            format('Job %s completed successfully', v_job.job_type), p_job_id, '{}')).balance_after;
    ELSE
        UPDATE credit_accounts SET held = held - 1 WHERE team_id = v_job.team_id RETURNING allocated - used INTO v_remaining;
    END IF;

    UPDATE jobs SET status = p_status, completed_at = now(), credit_applied = v_charged, error_message = p_error_message,
                    metadata = merged(v_job.metadata, p_metadata),
                    completion = json_build_object(
        'job_id', p_job_id, 'status', p_status, 'completed_at', rfc3339(now()),
        'costs', json_build_object(
            'total_calls', v_costs.total_calls, 'successful_calls', v_costs.successful_calls,
            'failed_calls', v_costs.failed_calls, 'total_tokens', v_costs.total_tokens,
            'total_cost_usd', v_costs.total_cost_usd, 'unpriced_calls', v_costs.unpriced_calls, 'avg_latency_ms', v_costs.avg_latency_ms,
            'credit_applied', v_charged, 'credits_remaining', v_remaining),
        'calls', (SELECT coalesce(json_agg(json_build_object(
                      'call_id', call_id, 'purpose', purpose, 'model_group', model_group, 'tokens', total_tokens,
                      'latency_ms', latency_ms, 'error', error) ORDER BY call_id), '[]')
                  FROM calls WHERE job_id = p_job_id))
    WHERE job_id = p_job_id
    RETURNING * INTO v_job;
    RETURN v_job.completion;
END $$;

CREATE FUNCTION job_json(j jobs) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT json_build_object(
        'job_id', j.job_id, 'team_id', j.team_id, 'user_id', j.user_id, 'job_type', j.job_type, 'status', j.status,
        'metadata', j.metadata, 'error_message', j.error_message,
        'created_at', rfc3339(j.created_at), 'started_at', rfc3339(j.started_at),
        'completed_at', rfc3339(j.completed_at), 'expires_at', rfc3339(j.expires_at),
        'total_calls', c.total_calls, 'successful_calls', c.successful_calls, 'failed_calls', c.failed_calls,
        'total_tokens', c.total_tokens, 'total_cost_usd', c.total_cost_usd, 'unpriced_calls', c.unpriced_calls,
        'avg_latency_ms', c.avg_latency_ms,
        'credit_applied', j.credit_applied)
    FROM job_costs(j.job_id) c
$$;

-- `p_team_id` NULL: the admin asks, who may see every job, and which models were tried.
CREATE FUNCTION get_job(p_job_id uuid, p_team_id text) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    v_row jobs;
BEGIN
    PERFORM sweep_team(team_id) FROM jobs WHERE job_id = p_job_id AND team_id = coalesce(p_team_id, team_id);
    SELECT * INTO v_row FROM jobs WHERE job_id = p_job_id AND team_id = coalesce(p_team_id, team_id);
    IF NOT FOUND THEN
        PERFORM fail('LJ006', 'Job not found');
    END IF;
    RETURN json_build_object('job', job_json(v_row), 'calls', (
        SELECT coalesce(json_agg(json_build_object(
            'call_id', call_id, 'purpose', purpose, 'model_group', model_group, 'status', status, 'streamed', streamed,
            'tokens', total_tokens, 'prompt_tokens', prompt_tokens, 'completion_tokens', completion_tokens,
            'cost_usd', cost_usd, 'latency_ms', latency_ms, 'error', error, 'metadata', metadata,
            'created_at', rfc3339(created_at),
            'attempts', CASE WHEN p_team_id IS NULL THEN attempts END) ORDER BY call_id), '[]')
        FROM calls WHERE job_id = p_job_id));
END $$;

-- Newest first. A NULL filter lets everything pass.
CREATE FUNCTION list_jobs(
    p_team_id text, p_status text, p_job_type text, p_user_id text, p_limit bigint, p_offset bigint
) RETURNS json LANGUAGE plpgsql AS $$
BEGIN
    PERFORM existing_team(p_team_id);
    PERFORM sweep_team(p_team_id);
    RETURN json_build_object(
        'team_id', p_team_id,
        'total', (SELECT count(*) FROM jobs
                  WHERE team_id = p_team_id AND (p_status IS NULL OR status = p_status)
                    AND (p_job_type IS NULL OR job_type = p_job_type) AND (p_user_id IS NULL OR user_id = p_user_id)),
        'jobs', (SELECT coalesce(json_agg(job_json(j) ORDER BY j.job_id DESC), '[]')
                 FROM (SELECT job_id FROM jobs
                       WHERE team_id = p_team_id AND (p_status IS NULL OR status = p_status)
                         AND (p_job_type IS NULL OR job_type = p_job_type) AND (p_user_id IS NULL OR user_id = p_user_id)
                       ORDER BY job_id DESC LIMIT p_limit OFFSET p_offset) AS page
                 JOIN jobs j USING (job_id)));
END $$;
