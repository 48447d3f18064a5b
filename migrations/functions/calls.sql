-- Calls: one statement opens a call, another settles it, and the model works in between.

-- Checks everything that a call needs and opens it. `p_model_group` NULL: the team's default group.
-- Answers {job_id, call_id, deadline, team_id, model_group, models: [{model_name, config}], litellm}; `models` are in
-- the order in which to try them.
-- `litellm` is the team's desired state where LiteLLM has to be synchronized before the call, and NULL otherwise.
-- If a call with the id `p_call_id` (see `id_or_new`) exists already, it is returned.
-- The deadline is `p_deadline_seconds` from now, plus `p_model_seconds` for each model of the group. A call that is not
-- settled by then is abandoned.
CREATE OR REPLACE FUNCTION begin_call(
    p_actor text, p_job_id uuid, p_model_group text, p_purpose text, p_streamed boolean, p_metadata json,
    p_deadline_seconds integer, p_model_seconds integer DEFAULT 0, p_call_id uuid DEFAULT NULL
) RETURNS json LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_team_id text := acting_team(p_actor);
    v_job jobs;
    v_group_name text;
    v_models json;
    v_deadline timestamptz;
    v_out_of_sync boolean;
    v_call_id uuid := id_or_new(p_call_id);
BEGIN
    UPDATE jobs SET status = 'in_progress', started_at = coalesce(started_at, now()), total_calls = total_calls + 1
    WHERE job_id = p_job_id AND team_id = v_team_id AND status IN ('pending', 'in_progress') AND expires_at > now();
    IF NOT FOUND THEN
        -- Locked, so that a transaction that is ending the job finishes first.
        SELECT * INTO v_job FROM jobs WHERE job_id = p_job_id AND team_id = v_team_id FOR NO KEY UPDATE;
        IF NOT FOUND THEN
            PERFORM fail('LJ006', 'Job not found');
        END IF;
        PERFORM job_is_over(v_job);
    END IF;

    SELECT g.group_name, m.models,
           now() + make_interval(secs => p_deadline_seconds + p_model_seconds * m.number),
           litellm_is_out_of_sync(t)
    INTO v_group_name, v_models, v_deadline, v_out_of_sync
    FROM teams t, LATERAL (
        SELECT CASE
            WHEN p_model_group IS NOT NULL THEN (
                SELECT model_group_id FROM model_groups n
                WHERE n.group_name = p_model_group
                  AND (EXISTS (SELECT FROM team_model_groups d
                               WHERE d.team_id = t.team_id AND d.model_group_id = n.model_group_id)
                       OR EXISTS (SELECT FROM team_access_groups a
                                  JOIN model_access_group_members m USING (access_group_id)
                                  WHERE a.team_id = t.team_id AND m.model_group_id = n.model_group_id)))
            ELSE coalesce(
                -- The default that the team has chosen, or else the first of its groups.
                t.default_model_group_id,
                (SELECT d.model_group_id FROM team_model_groups d
                 WHERE d.team_id = t.team_id ORDER BY position LIMIT 1),
                (SELECT m.model_group_id FROM team_access_groups a
                 JOIN model_access_group_members m USING (access_group_id)
                 WHERE a.team_id = t.team_id ORDER BY a.position, m.position LIMIT 1))
            END AS model_group_id
        -- Keeps the planner from merging this query, so that the id is found first and the group is looked up by it.
        OFFSET 0
    ) AS chosen JOIN model_groups g USING (model_group_id), LATERAL (
        SELECT json_agg(json_build_object('model_name', model_name, 'config', config) ORDER BY priority) AS models,
               count(*)::integer AS number
        FROM model_group_models WHERE model_group_id = g.model_group_id
    ) AS m
    WHERE t.team_id = v_team_id;
    IF NOT FOUND THEN
        PERFORM fail('LJ004', CASE WHEN p_model_group IS NULL
            THEN format('Team ''%s'' has no model group', v_team_id)
            ELSE format('Team ''%s'' does not have access to model group ''%s''', v_team_id, p_model_group) END);
    END IF;

    INSERT INTO calls (call_id, job_id, team_id, model_group, purpose, streamed, metadata, deadline)
    VALUES (v_call_id, p_job_id, v_team_id, v_group_name, p_purpose, p_streamed, p_metadata, v_deadline)
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        -- The call exists already and was counted when it was opened.
        UPDATE jobs SET total_calls = total_calls - 1 WHERE job_id = p_job_id;
    END IF;
    RETURN json_build_object(
        'job_id', p_job_id, 'call_id', v_call_id, 'deadline', v_deadline, 'team_id', v_team_id,
        'model_group', v_group_name, 'models', v_models,
        'litellm', CASE WHEN v_out_of_sync THEN litellm_desired_team(v_team_id) END);
END $$;
GRANT EXECUTE ON FUNCTION begin_call TO llm_jobs_application;

-- Creates a job and opens its only call. `p_team_id` NULL: the key's team.
CREATE OR REPLACE FUNCTION begin_job_with_call(
    p_actor text, p_team_id text, p_user_id text, p_job_type text, p_job_metadata json, p_lifetime_seconds integer,
    p_model_group text, p_purpose text, p_streamed boolean, p_metadata json, p_deadline_seconds integer,
    p_model_seconds integer DEFAULT 0, p_job_id uuid DEFAULT NULL, p_call_id uuid DEFAULT NULL
) RETURNS json LANGUAGE sql
SECURITY DEFINER SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan AS $$
    SELECT begin_call(p_actor, (job ->> 'job_id')::uuid, p_model_group, p_purpose, p_streamed, p_metadata,
                      p_deadline_seconds, p_model_seconds, p_call_id)
    FROM create_job(p_actor, p_team_id, p_user_id, p_job_type, p_job_metadata, p_lifetime_seconds, p_job_id) AS job
$$;
GRANT EXECUTE ON FUNCTION begin_job_with_call TO llm_jobs_application;

-- Settles a call: records how it ended and what it used. Has no effect if the call is settled already; `settled` in the
-- answer says whether it had one.
-- A call that was closed before, by its job's end or by its deadline, keeps its status, and only its usage is added.
-- `p_final` false: the usage is provisional; the call stays unsettled, and another settling that is final will follow.
CREATE OR REPLACE FUNCTION settle_call(
    p_job_id uuid, p_call_id uuid, p_status text,
    p_prompt_tokens bigint, p_completion_tokens bigint, p_total_tokens bigint,
    p_cost_usd numeric, p_latency_ms bigint, p_attempts json, p_error text, p_final boolean
) RETURNS json LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_settling settling := write_settling(p_job_id, p_call_id, p_status,
                                          p_prompt_tokens, p_completion_tokens, p_total_tokens,
                                          p_cost_usd, p_latency_ms, p_attempts, p_error, p_final);
BEGIN
    PERFORM count_settling(v_settling);
    RETURN json_build_object('settled', v_settling.job_id IS NOT NULL);
END $$;
GRANT EXECUTE ON FUNCTION settle_call TO llm_jobs_application;

-- Updates the rows of the call and its job. Answers what changed, for `count_settling`; NULL if the call was settled
-- before.
CREATE OR REPLACE FUNCTION write_settling(
    p_job_id uuid, p_call_id uuid, p_status text,
    p_prompt_tokens bigint, p_completion_tokens bigint, p_total_tokens bigint,
    p_cost_usd numeric, p_latency_ms bigint, p_attempts json, p_error text, p_final boolean
) RETURNS settling LANGUAGE plpgsql AS $$
DECLARE
    v_old record;
    v_ends boolean;
    v_new settling;
BEGIN
    -- The job is locked before the call, since that is their order in this query.
    SELECT j.team_id, j.job_type, j.terms_id, j.credit_applied,
           c.status, c.model_group, c.total_tokens, c.cost_usd, c.latency_ms
    INTO v_old
    FROM jobs j JOIN calls c ON c.job_id = j.job_id
    WHERE j.job_id = p_job_id AND c.job_id = p_job_id AND c.call_id = p_call_id AND c.settled_at IS NULL
    FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    v_ends := v_old.status = 'open';
    UPDATE calls
    SET status = CASE WHEN v_ends THEN p_status ELSE status END,
        error = CASE WHEN v_ends THEN p_error ELSE error END,
        ended_at = coalesce(ended_at, now()),
        settled_at = CASE WHEN p_final THEN now() END,
        prompt_tokens = p_prompt_tokens, completion_tokens = p_completion_tokens, total_tokens = p_total_tokens,
        cost_usd = p_cost_usd, latency_ms = p_latency_ms, attempts = p_attempts
    WHERE job_id = p_job_id AND call_id = p_call_id;
    v_new.team_id := v_old.team_id;
    v_new.job_id := p_job_id;
    v_new.job_type := v_old.job_type;
    v_new.model_group := v_old.model_group;
    v_new.model := coalesce(p_attempts -> -1 ->> 'model', 'unknown');
    v_new.ended_as := CASE WHEN v_ends THEN p_status END;
    v_new.first := v_old.latency_ms IS NULL;
    v_new.priced := (p_cost_usd IS NOT NULL)::integer - (v_old.cost_usd IS NOT NULL)::integer;
    v_new.tokens := p_total_tokens - v_old.total_tokens;
    v_new.cost_usd := coalesce(p_cost_usd, 0) - coalesce(v_old.cost_usd, 0);
    v_new.latency_ms := p_latency_ms;
    -- A job with a markup that was charged before this cost was known is charged for it now.
    v_new.revenue_usd := 0;
    IF v_old.credit_applied THEN
        SELECT v_new.cost_usd * (100 + (pricing ->> 'markup_percent')::numeric) * 0.01 INTO v_new.revenue_usd
        FROM terms WHERE terms_id = v_old.terms_id AND pricing ->> 'mode' = 'markup';
        v_new.revenue_usd := coalesce(v_new.revenue_usd, 0);
    END IF;
    UPDATE jobs
    SET successful_calls = successful_calls + (v_ends AND p_status = 'succeeded')::integer,
        failed_calls = failed_calls + (v_ends AND p_status = 'failed')::integer,
        priced_calls = priced_calls + v_new.priced, total_tokens = total_tokens + v_new.tokens,
        known_cost_usd = known_cost_usd + v_new.cost_usd, timed_calls = timed_calls + v_new.first::integer,
        total_latency_ms = total_latency_ms + p_latency_ms - coalesce(v_old.latency_ms, 0),
        revenue_usd = revenue_usd + v_new.revenue_usd
    WHERE job_id = p_job_id;
    RETURN v_new;
END $$;

CREATE OR REPLACE FUNCTION count_settling(p settling) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_shard integer;
    -- The number of the first bound that is not exceeded; one more than there are bounds if all are.
    v_bucket integer := 1 + width_bucket(p.latency_ms - 1, latency_bounds());
BEGIN
    IF p.job_id IS NULL THEN
        RETURN;
    END IF;
    UPDATE usage_days
    SET calls = calls + (p.ended_as IS NOT NULL)::integer,
        priced_calls = priced_calls + p.priced, tokens = tokens + p.tokens, cost_usd = cost_usd + p.cost_usd,
        revenue_usd = revenue_usd + p.revenue_usd
    WHERE team_id = p.team_id AND day = job_day(p.job_id) AND job_type = p.job_type;
    INSERT INTO usage_models AS u (team_id, day, model, requests, tokens, cost_usd)
    VALUES (p.team_id, job_day(p.job_id), p.model, p.first::integer, p.tokens, p.cost_usd)
    ON CONFLICT (team_id, day, model) DO UPDATE SET
        requests = u.requests + excluded.requests, tokens = u.tokens + excluded.tokens,
        cost_usd = u.cost_usd + excluded.cost_usd;
    -- The latency is counted only the first time, since a provisional settling may come before the final one.
    v_shard := my_shard();
    LOOP
        UPDATE call_totals
        SET succeeded = succeeded + (p.ended_as IS NOT DISTINCT FROM 'succeeded')::integer,
            failed = failed + (p.ended_as IS NOT DISTINCT FROM 'failed')::integer,
            cancelled = cancelled + (p.ended_as IS NOT DISTINCT FROM 'cancelled')::integer,
            tokens = tokens + p.tokens, cost_usd = cost_usd + p.cost_usd,
            latency_ms = latency_ms + CASE WHEN p.first THEN p.latency_ms ELSE 0 END,
            latency_counts[v_bucket] = latency_counts[v_bucket] + p.first::integer
        WHERE model_group = p.model_group AND shard = v_shard;
        EXIT WHEN FOUND;
        INSERT INTO call_totals (model_group, shard) VALUES (p.model_group, v_shard) ON CONFLICT DO NOTHING;
    END LOOP;
END $$;

-- Settles the only call of a job that was created for it, and ends the job.
CREATE OR REPLACE FUNCTION settle_job_with_call(
    p_job_id uuid, p_call_id uuid, p_status text,
    p_prompt_tokens bigint, p_completion_tokens bigint, p_total_tokens bigint,
    p_cost_usd numeric, p_latency_ms bigint, p_attempts json, p_error text, p_final boolean
) RETURNS json LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    -- A client that hung up has had what it read, so the job counts as completed.
    v_job_status text := CASE p_status WHEN 'failed' THEN 'failed' ELSE 'completed' END;
    v_settling settling := write_settling(p_job_id, p_call_id, p_status,
                                          p_prompt_tokens, p_completion_tokens, p_total_tokens,
                                          p_cost_usd, p_latency_ms, p_attempts, p_error, p_final);
    v_completion json;
BEGIN
    -- Not if the job has been ended otherwise, or its deadline has passed.
    IF EXISTS (SELECT FROM jobs WHERE job_id = p_job_id
               AND (status = v_job_status OR (status IN ('pending', 'in_progress') AND expires_at > now()))) THEN
        v_completion := complete_job('system', p_job_id, v_job_status, '{}', p_error);
    END IF;
    PERFORM count_settling(v_settling);
    RETURN json_build_object('settled', v_settling.job_id IS NOT NULL, 'completion', v_completion);
END $$;
GRANT EXECUTE ON FUNCTION settle_job_with_call TO llm_jobs_application;

-- Stores the messages and the response of a call for `p_days` days.
CREATE OR REPLACE FUNCTION keep_messages(
    p_job_id uuid, p_call_id uuid, p_messages json, p_response json, p_days integer
) RETURNS boolean LANGUAGE sql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
    INSERT INTO call_messages (job_id, call_id, messages, response, expires_at)
    VALUES (p_job_id, p_call_id, p_messages, p_response, now() + make_interval(days => p_days))
    ON CONFLICT DO NOTHING;
    SELECT true;
$$;
GRANT EXECUTE ON FUNCTION keep_messages TO llm_jobs_application;
