-- Calls: opened by one statement, settled by another, with the model's work in between.

-- Checks everything a call needs and records it as open. `p_model_group` NULL: the team's default group.
-- The answer carries the models to try, in order: {call_id, team_id, model_group, models: [{model_name, config}]}.
-- A call that is not settled within `p_deadline_seconds` counts as abandoned.
CREATE FUNCTION open_call(
    p_key_id uuid, p_job_id uuid, p_model_group text, p_purpose text, p_streamed boolean, p_metadata json,
    p_deadline_seconds integer
) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    v_team_id text := acting_team(p_key_id);
    v_job jobs;
    v_group model_groups;
    v_call_id uuid := uuid_v7();
BEGIN
    SELECT * INTO v_job FROM jobs WHERE job_id = p_job_id AND team_id = v_team_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        PERFORM fail('LJ006', 'Job not found');
    ELSIF v_job.status NOT IN ('pending', 'in_progress') OR v_job.expires_at <= now() THEN
        PERFORM job_is_over(v_job);
    END IF;

    SELECT g.* INTO v_group
    FROM team_groups(v_team_id) t JOIN model_groups g USING (model_group_id)
    JOIN teams ON teams.team_id = v_team_id
    WHERE p_model_group IS NULL OR g.group_name = p_model_group
    ORDER BY g.model_group_id IS NOT DISTINCT FROM teams.default_model_group_id DESC, t.rank
    LIMIT 1;
    IF NOT FOUND THEN
        PERFORM fail('LJ004', CASE WHEN p_model_group IS NULL
            THEN format('Team ''%s'' has no model group', v_team_id)
            ELSE format('Team ''%s'' does not have access to model group ''%s''', v_team_id, p_model_group) END);
    END IF;

    IF v_job.status = 'pending' THEN
        UPDATE jobs SET status = 'in_progress', started_at = now() WHERE job_id = p_job_id;
    END IF;
    INSERT INTO calls (call_id, job_id, team_id, model_group, purpose, streamed, metadata, deadline)
    VALUES (v_call_id, p_job_id, v_team_id, v_group.group_name, p_purpose, p_streamed, p_metadata,
            now() + make_interval(secs => p_deadline_seconds));
    RETURN json_build_object(
        'call_id', v_call_id, 'team_id', v_team_id, 'model_group', v_group.group_name,
        'models', (SELECT json_agg(json_build_object('model_name', model_name, 'config', config) ORDER BY priority)
                   FROM model_group_models WHERE model_group_id = v_group.model_group_id));
END $$;

-- Writes how a call ended and what it used, once; answers whether this was that once.
-- A call that was closed before, by its job's end or its deadline, keeps its status and gets what it used.
-- `p_final` false: more about what it used will follow in another, final, settling.
CREATE FUNCTION settle_call(
    p_call_id uuid, p_status text, p_prompt_tokens bigint, p_completion_tokens bigint, p_total_tokens bigint,
    p_cost_usd numeric, p_latency_ms bigint, p_attempts json, p_error text, p_final boolean
) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    UPDATE calls
    SET status = CASE status WHEN 'open' THEN p_status ELSE status END,
        error = CASE status WHEN 'open' THEN p_error ELSE error END,
        ended_at = coalesce(ended_at, now()),
        settled_at = CASE WHEN p_final THEN now() END,
        prompt_tokens = p_prompt_tokens, completion_tokens = p_completion_tokens, total_tokens = p_total_tokens,
        cost_usd = p_cost_usd, latency_ms = p_latency_ms, attempts = p_attempts
    WHERE call_id = p_call_id AND settled_at IS NULL;
    RETURN FOUND;
END $$;
