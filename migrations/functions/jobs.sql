-- Jobs. A job is one business operation and, by default, costs one credit.

-- Opens a job and reserves one credit for it until it ends or `p_lifetime_seconds` have passed. `p_team_id` NULL: the
-- actor's team. If a job with the id `p_job_id` (see `id_or_new`) exists already, it is returned.
CREATE OR REPLACE FUNCTION create_job(
    p_actor text, p_team_id text, p_user_id text, p_job_type text, p_metadata json, p_lifetime_seconds integer,
    p_job_id uuid DEFAULT NULL
) RETURNS json LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_actors_team text := acting_team(p_actor);
    v_team_id text := coalesce(p_team_id, v_actors_team);
    v_available bigint;
    v_floor bigint;
    v_row jobs;
BEGIN
    IF v_actors_team IS NULL THEN
        PERFORM existing_team(v_team_id);
    ELSIF v_actors_team <> v_team_id THEN
        PERFORM fail('LJ002', format('API key does not belong to team ''%s''', v_team_id));
    END IF;
    PERFORM sweep_team(v_team_id);
    INSERT INTO jobs (job_id, team_id, terms_id, user_id, job_type, metadata, created_at, expires_at)
    SELECT id, v_team_id, terms_id, p_user_id, p_job_type, p_metadata,
           now(), now() + make_interval(secs => p_lifetime_seconds)
    FROM teams, id_or_new(p_job_id) AS id WHERE team_id = v_team_id AND status <> 'deleted'
    ON CONFLICT DO NOTHING
    RETURNING * INTO v_row;
    IF FOUND THEN
        SELECT allocated - used - held, floor INTO v_available, v_floor
        FROM credit_accounts WHERE team_id = v_team_id FOR NO KEY UPDATE;
        IF v_available - 1 < v_floor THEN
            PERFORM fail('LJ005', format('Insufficient credits. Required: 1, Available: %s', v_available));
        END IF;
        UPDATE credit_accounts SET held = held + 1 WHERE team_id = v_team_id;
        PERFORM count_new_job(v_team_id, v_row.job_id, p_job_type);
    ELSE
        PERFORM existing_team(v_team_id);
        SELECT * INTO STRICT v_row FROM jobs WHERE job_id = p_job_id AND team_id = v_team_id;
    END IF;
    RETURN json_build_object('job_id', v_row.job_id, 'status', v_row.status,
                             'created_at', rfc3339(v_row.created_at), 'expires_at', rfc3339(v_row.expires_at));
END $$;
GRANT EXECUTE ON FUNCTION create_job TO llm_jobs_application;

-- The known cost of a job's calls; NULL if calls are unpriced and the known cost is 0.
CREATE OR REPLACE FUNCTION job_cost(j jobs) RETURNS numeric LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN j.priced_calls < j.total_calls THEN nullif(j.known_cost_usd, 0) ELSE j.known_cost_usd END
$$;

-- The average latency of a job's calls, in milliseconds.
CREATE OR REPLACE FUNCTION job_latency(j jobs) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(round(j.total_latency_ms::numeric / nullif(j.timed_calls, 0)), 0)::bigint
$$;

-- Sums over a job's calls. `unpriced_calls`: the number of calls whose cost is not known (yet).
CREATE OR REPLACE FUNCTION job_sums(j jobs) RETURNS json LANGUAGE sql IMMUTABLE AS $$
    SELECT json_build_object(
        'total_calls', j.total_calls, 'successful_calls', j.successful_calls, 'failed_calls', j.failed_calls,
        'total_tokens', j.total_tokens, 'total_cost_usd', job_cost(j), 'unpriced_calls', j.total_calls - j.priced_calls,
        'avg_latency_ms', job_latency(j))
$$;

-- The members of `job_sums`, and what the job cost in credits.
CREATE OR REPLACE FUNCTION job_costs(j jobs, p_charged bigint, p_remaining bigint)
RETURNS json LANGUAGE sql IMMUTABLE AS $$
    SELECT json_build_object(
        'total_calls', j.total_calls, 'successful_calls', j.successful_calls, 'failed_calls', j.failed_calls,
        'total_tokens', j.total_tokens, 'total_cost_usd', job_cost(j), 'unpriced_calls', j.total_calls - j.priced_calls,
        'avg_latency_ms', job_latency(j),
        'credit_applied', p_charged > 0, 'credits_charged', p_charged, 'credits_remaining', p_remaining)
$$;

CREATE OR REPLACE FUNCTION job_is_over(p_job jobs) RETURNS void LANGUAGE plpgsql STABLE AS $$
BEGIN
    PERFORM fail('LJ008', format('Job ''%s'' is already %s', p_job.job_id,
        CASE WHEN p_job.status IN ('pending', 'in_progress') THEN 'expired' ELSE p_job.status END));
END $$;

-- The credits that a job costs by its terms: consumption is rounded up, and at least 1 is charged.
CREATE OR REPLACE FUNCTION job_credits(j jobs, t terms) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT greatest(1, CASE t.billing_mode
        WHEN 'consumption_usd' THEN ceil(j.known_cost_usd * t.credits_per_dollar)
        WHEN 'consumption_tokens' THEN ceil(j.total_tokens::numeric / t.tokens_per_credit)
        ELSE 1 END)::bigint
$$;

-- What the customer is charged in addition to credits, by the terms of the job; NULL if they have no pricing.
-- `p_charged_before`: the number of jobs of the same month that were charged before this one.
CREATE OR REPLACE FUNCTION job_revenue(j jobs, t terms, p_charged_before bigint)
RETURNS numeric LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE t.pricing ->> 'mode'
        WHEN 'flat' THEN (t.pricing ->> 'price_per_job_usd')::numeric
        WHEN 'markup' THEN j.known_cost_usd * (100 + (t.pricing ->> 'markup_percent')::numeric) * 0.01
        WHEN 'tiered' THEN (
            SELECT (tier ->> 'price_per_job_usd')::numeric
            FROM jsonb_array_elements(t.pricing -> 'tiers') WITH ORDINALITY AS tiers (tier, place)
            WHERE coalesce((tier ->> 'up_to')::bigint > p_charged_before, true)
            ORDER BY place LIMIT 1)
        END
$$;

-- The number of charged jobs that were created in the calendar month (UTC) of `p_day`.
CREATE OR REPLACE FUNCTION charged_in_month(p_team_id text, p_day date) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT coalesce(sum(charged_jobs), 0)::bigint FROM usage_days
    WHERE team_id = p_team_id
      AND day >= date_trunc('month', p_day) AND day < date_trunc('month', p_day) + interval '1 month'
$$;

-- Ends a job. If it is completed and no call failed, its credits are deducted; otherwise its reservation is released.
-- Repeating the request gets the same answer: {completion, alerts}, where `alerts` says whether alerts are due for
-- delivery.
CREATE OR REPLACE FUNCTION complete_job(
    p_actor text, p_job_id uuid, p_status text, p_metadata json, p_error_message text
) RETURNS json LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_team_id text := acting_team(p_actor);
    v_job jobs;
    v_terms terms;
    v_credits bigint := 0;
    v_revenue numeric;
    v_remaining bigint;
    -- One entry for each call that this cancels: its model group.
    v_cancelled_groups text[];
BEGIN
    SELECT * INTO v_job FROM jobs WHERE job_id = p_job_id AND team_id = coalesce(v_team_id, team_id) FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        PERFORM fail('LJ006', 'Job not found');
    ELSIF v_job.status = p_status THEN
        RETURN json_build_object('completion', v_job.completion, 'alerts', alerts_are_due(v_job.team_id));
    ELSIF v_job.status NOT IN ('pending', 'in_progress') OR v_job.expires_at <= now() THEN
        PERFORM job_is_over(v_job);
    END IF;
    WITH cancelled AS (
        UPDATE calls SET status = 'cancelled', ended_at = now()
        WHERE job_id = p_job_id AND status = 'open' RETURNING model_group)
    SELECT array_agg(model_group) INTO v_cancelled_groups FROM cancelled;
    IF p_status = 'completed' AND v_job.failed_calls = 0 THEN
        SELECT * INTO STRICT v_terms FROM terms WHERE terms_id = v_job.terms_id;
        v_credits := job_credits(v_job, v_terms);
        v_remaining := (post_transaction(v_job.team_id, 'deduction', -v_credits,
            format('Job %s completed successfully', v_job.job_type), p_job_id, '{}')).balance_after;
        -- Every charge to this team locks its account first, as this one has done, so the count is exact.
        v_revenue := job_revenue(v_job, v_terms, CASE v_terms.pricing ->> 'mode' WHEN 'tiered'
            THEN charged_in_month(v_job.team_id, job_day(p_job_id)) END);
    ELSE
        UPDATE credit_accounts SET held = held - 1, overdraft = greatest(0, floor - (allocated - used - held) - 1)
        WHERE team_id = v_job.team_id RETURNING allocated - used INTO v_remaining;
    END IF;

    UPDATE jobs SET status = p_status, completed_at = now(), credit_applied = v_credits > 0, revenue_usd = v_revenue,
                    error_message = p_error_message, metadata = merged(v_job.metadata, p_metadata),
                    completion = json_build_object(
        'job_id', p_job_id, 'status', p_status, 'completed_at', rfc3339(now()),
        'costs', job_costs(v_job, v_credits, v_remaining),
        'calls', (SELECT coalesce(json_agg(json_build_object(
                      'call_id', call_id, 'purpose', purpose, 'model_group', model_group, 'tokens', total_tokens,
                      'latency_ms', latency_ms, 'error', error) ORDER BY call_id), '[]')
                  FROM calls WHERE job_id = p_job_id))
    WHERE job_id = p_job_id
    RETURNING * INTO v_job;
    PERFORM count_ended_job(v_job.team_id, p_job_id, v_job.job_type, p_status, v_credits, v_revenue,
                            coalesce(cardinality(v_cancelled_groups), 0));
    IF v_cancelled_groups IS NOT NULL THEN
        PERFORM count_closed_calls(v_cancelled_groups, false);
    END IF;
    RETURN json_build_object('completion', v_job.completion, 'alerts', alerts_are_due(v_job.team_id));
END $$;
GRANT EXECUTE ON FUNCTION complete_job TO llm_jobs_application;

CREATE OR REPLACE FUNCTION job_json(j jobs) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT json_build_object(
        'job_id', j.job_id, 'team_id', j.team_id, 'user_id', j.user_id, 'job_type', j.job_type, 'status', j.status,
        'metadata', j.metadata, 'error_message', j.error_message,
        'created_at', rfc3339(j.created_at), 'started_at', rfc3339(j.started_at),
        'completed_at', rfc3339(j.completed_at), 'expires_at', rfc3339(j.expires_at),
        'total_calls', j.total_calls, 'successful_calls', j.successful_calls, 'failed_calls', j.failed_calls,
        'total_tokens', j.total_tokens, 'total_cost_usd', job_cost(j), 'unpriced_calls', j.total_calls - j.priced_calls,
        'avg_latency_ms', job_latency(j), 'credit_applied', j.credit_applied)
$$;

-- A job that the actor may read, after sweeping what is overdue in its team.
CREATE OR REPLACE FUNCTION current_job(p_job_id uuid, p_actor text) RETURNS jobs LANGUAGE plpgsql AS $$
DECLARE
    v_team_id text := reading_team(p_actor);
    v_row jobs;
BEGIN
    PERFORM sweep_team(team_id) FROM jobs WHERE job_id = p_job_id AND team_id = coalesce(v_team_id, team_id);
    SELECT * INTO v_row FROM jobs WHERE job_id = p_job_id AND team_id = coalesce(v_team_id, team_id);
    IF NOT FOUND THEN
        PERFORM fail('LJ006', 'Job not found');
    END IF;
    RETURN v_row;
END $$;

-- Only the admin sees `attempts`, which name models.
CREATE OR REPLACE FUNCTION get_job(p_job_id uuid, p_actor text) RETURNS json LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_row jobs := current_job(p_job_id, p_actor);
BEGIN
    RETURN json_build_object('job', job_json(v_row), 'calls', (
        SELECT coalesce(json_agg(json_build_object(
            'messages', m.messages, 'response', m.response,
            'call_id', c.call_id, 'purpose', purpose, 'model_group', model_group,
            'status', status, 'streamed', streamed,
            'tokens', total_tokens, 'prompt_tokens', prompt_tokens, 'completion_tokens', completion_tokens,
            'cost_usd', cost_usd, 'latency_ms', latency_ms, 'error', error, 'metadata', metadata,
            'created_at', rfc3339(created_at),
            'attempts', CASE WHEN p_actor = 'admin' THEN attempts END) ORDER BY c.call_id), '[]')
        FROM calls c
        LEFT JOIN call_messages m ON m.job_id = c.job_id AND m.call_id = c.call_id AND m.expires_at > now()
        WHERE c.job_id = p_job_id));
END $$;
GRANT EXECUTE ON FUNCTION get_job TO llm_jobs_application;

CREATE OR REPLACE FUNCTION get_job_costs(p_job_id uuid, p_actor text) RETURNS json LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_row jobs := current_job(p_job_id, p_actor);
BEGIN
    RETURN json_build_object(
        'job_id', v_row.job_id, 'team_id', v_row.team_id, 'job_type', v_row.job_type, 'status', v_row.status,
        'costs', job_sums(v_row), 'credit_applied', v_row.credit_applied,
        'breakdown', (SELECT coalesce(json_agg(json_build_object(
            'call_id', call_id, 'purpose', purpose, 'model_group', model_group, 'prompt_tokens', prompt_tokens,
            'completion_tokens', completion_tokens, 'cost_usd', cost_usd, 'created_at', rfc3339(created_at))
            ORDER BY call_id), '[]')
            FROM calls WHERE job_id = p_job_id));
END $$;
GRANT EXECUTE ON FUNCTION get_job_costs TO llm_jobs_application;

-- Merges `p_metadata` into the metadata of a job, which may have ended.
CREATE OR REPLACE FUNCTION merge_job_metadata(p_actor text, p_job_id uuid, p_metadata json)
RETURNS json LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_team_id text := acting_team(p_actor);
    v_metadata json;
BEGIN
    UPDATE jobs SET metadata = merged(metadata, p_metadata)
    WHERE job_id = p_job_id AND team_id = coalesce(v_team_id, team_id)
    RETURNING metadata INTO v_metadata;
    IF NOT FOUND THEN
        PERFORM fail('LJ006', 'Job not found');
    END IF;
    IF octet_length(v_metadata::text) > 16384 THEN
        PERFORM fail('LJ010', 'metadata: expected at most 16384 bytes of JSON with what the job has already');
    END IF;
    RETURN json_build_object('job_id', p_job_id, 'metadata', v_metadata, 'updated_at', rfc3339(now()));
END $$;
GRANT EXECUTE ON FUNCTION merge_job_metadata TO llm_jobs_application;

-- Newest first: `p_limit` jobs, either after the first `p_offset` or, if `p_before_job` is given, below that id. A
-- filter that is NULL matches everything.
CREATE OR REPLACE FUNCTION list_jobs(
    p_team_id text, p_status text, p_job_type text, p_user_id text, p_limit bigint, p_offset bigint, p_before_job uuid
) RETURNS json LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    v_page uuid[];
    v_total bigint;
BEGIN
    PERFORM existing_team(p_team_id);
    PERFORM sweep_team(p_team_id);
    v_page := ARRAY(
        SELECT job_id FROM jobs
        WHERE team_id = p_team_id AND (p_status IS NULL OR status = p_status)
          AND (p_job_type IS NULL OR job_type = p_job_type) AND (p_user_id IS NULL OR user_id = p_user_id)
          AND (p_before_job IS NULL OR job_id < p_before_job)
        -- One more than asked for, to know whether another page follows.
        ORDER BY job_id DESC LIMIT p_limit + 1 OFFSET p_offset);
    IF p_user_id IS NULL AND coalesce(p_status NOT IN ('pending', 'in_progress'), true) THEN
        SELECT coalesce(sum(CASE p_status
            WHEN 'completed' THEN completed WHEN 'failed' THEN failed
            WHEN 'cancelled' THEN cancelled WHEN 'expired' THEN expired
            ELSE open_jobs + completed + failed + cancelled + expired END), 0)
        INTO v_total
        FROM usage_days WHERE team_id = p_team_id AND (p_job_type IS NULL OR job_type = p_job_type);
    ELSIF p_user_id IS NULL THEN
        -- Open jobs are few enough to count, since each reserves a credit.
        SELECT count(*) INTO v_total FROM jobs
        WHERE team_id = p_team_id AND status IN ('pending', 'in_progress') AND status = p_status
          AND (p_job_type IS NULL OR job_type = p_job_type);
    ELSE
        -- The jobs of one user are few enough to count, too.
        SELECT count(*) INTO v_total FROM jobs
        WHERE team_id = p_team_id AND user_id = p_user_id AND (p_status IS NULL OR status = p_status)
          AND (p_job_type IS NULL OR job_type = p_job_type);
    END IF;
    RETURN json_build_object(
        'team_id', p_team_id, 'total', v_total,
        'next_cursor', CASE WHEN cardinality(v_page) > p_limit THEN v_page[p_limit] END,
        'jobs', (SELECT coalesce(json_agg(job_json(j) ORDER BY j.job_id DESC), '[]')
                 FROM jobs j WHERE job_id = ANY (v_page[:p_limit])));
END $$;
GRANT EXECUTE ON FUNCTION list_jobs TO llm_jobs_application;
