-- Calls: one statement opens a call, another settles it, and the model works in between.

-- The name of the model group of calls that name none: the default that the team has chosen, or else the first of its
-- groups.
CREATE OR REPLACE FUNCTION default_group(p_team_id text) RETURNS text LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (
        SELECT g.group_name
        FROM teams t JOIN model_groups g ON g.model_group_id = coalesce(
            t.default_model_group_id,
            (SELECT d.model_group_id FROM team_model_groups d
             WHERE d.team_id = t.team_id ORDER BY position LIMIT 1),
            (SELECT m.model_group_id FROM team_access_groups a JOIN model_access_group_members m USING (access_group_id)
             WHERE a.team_id = t.team_id ORDER BY a.position, m.position LIMIT 1))
        WHERE t.team_id = p_team_id);
END $$;

-- Checks everything that a call needs and opens it. `p_model_group` NULL: the team's default group.
-- Answers {job_id, call_id, deadline, team_id, model_group, models: [{model_name, config}], litellm}; `models` are in
-- the order in which to try them.
-- `litellm` is the team's desired state where LiteLLM has to be synchronized before the call, and NULL otherwise.
-- If a call with the id `p_call_id` (see `id_or_new`) exists already, it is returned.
-- The deadline is `p_deadline_seconds` from now, plus `p_model_seconds` for each model of the group. A call that is not
-- settled by then is abandoned.
-- `p_limits`: the deployment's limits, for teams that have none of their own:
-- {calls_per_job, open_calls_per_job, open_calls, open_jobs, cost_usd_per_job}; 0 is none.
CREATE OR REPLACE FUNCTION begin_call(
    p_actor text, p_job_id uuid, p_model_group text, p_purpose text, p_streamed boolean, p_metadata json,
    p_deadline_seconds integer, p_model_seconds integer DEFAULT 0, p_call_id uuid DEFAULT NULL,
    p_limits jsonb DEFAULT NULL
) RETURNS json LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_team_id text := acting_team(p_actor);
    v_group_name text := coalesce(p_model_group, default_group(v_team_id));
    v_call record;
    v_job record;
    v_ended jobs;
    v_most_calls bigint;
    v_most_open bigint;
    v_most_cost numeric;
    v_expected numeric := 0;
    v_call_id uuid := id_or_new(p_call_id);
BEGIN
    SELECT g.group_name, m.models, litellm_is_out_of_sync(t) AS out_of_sync,
           now() + make_interval(secs => p_deadline_seconds + p_model_seconds * m.number) AS deadline,
           t.limit_calls_per_job, t.limit_open_calls_per_job, t.limit_open_calls, t.limit_cost_usd_per_job,
           t.litellm_rpm_limit AS rpm_limit, t.litellm_tpm_limit AS tpm_limit,
           a.held + a.extra_calls AS most_open_calls, c.mean_cost_usd, c.counted_at
    INTO v_call
    FROM teams t JOIN credit_accounts a USING (team_id)
    LEFT JOIN model_groups g ON g.group_name = v_group_name
        -- The default group is one of the team's, or was a moment ago.
        AND (p_model_group IS NULL
             OR EXISTS (SELECT FROM team_model_groups d
                        WHERE d.team_id = t.team_id AND d.model_group_id = g.model_group_id)
             OR EXISTS (SELECT FROM team_access_groups b JOIN model_access_group_members m USING (access_group_id)
                        WHERE b.team_id = t.team_id AND m.model_group_id = g.model_group_id))
    LEFT JOIN group_costs c ON c.model_group = g.group_name,
    LATERAL (
        SELECT json_agg(json_build_object('model_name', model_name, 'config', config) ORDER BY priority) AS models,
               count(*)::integer AS number
        FROM model_group_models WHERE model_group_id = g.model_group_id
    ) AS m
    WHERE t.team_id = v_team_id;
    v_most_calls := nullif(coalesce(v_call.limit_calls_per_job, (p_limits ->> 'calls_per_job')::bigint), 0);
    v_most_open := nullif(coalesce(v_call.limit_open_calls_per_job, (p_limits ->> 'open_calls_per_job')::bigint), 0);
    v_most_cost := nullif(coalesce(v_call.limit_cost_usd_per_job, (p_limits ->> 'cost_usd_per_job')::numeric), 0);
    IF v_most_cost IS NOT NULL AND v_call.group_name IS NOT NULL THEN
        v_expected := v_call.mean_cost_usd;
        -- Counted anew once a second at most; more often until there is a cost.
        IF v_expected IS NULL OR v_call.counted_at
            < now() - (CASE v_expected WHEN 0 THEN interval '20 milliseconds' ELSE interval '1 second' END) THEN
            v_expected := count_mean_cost(v_call.group_name, v_expected);
        END IF;
    END IF;

    UPDATE jobs
    SET status = 'in_progress', started_at = coalesce(started_at, now()), total_calls = total_calls + 1,
        open_calls = open_calls + 1, expected_cost_usd = expected_cost_usd + v_expected
    -- An open job, but not in words by which the index of overdue jobs would be searched.
    WHERE job_id = p_job_id AND team_id = v_team_id AND completed_at IS NULL AND expires_at > now()
    RETURNING total_calls, open_calls, known_cost_usd, expected_cost_usd INTO v_job;
    IF NOT FOUND THEN
        -- Locked, so that a transaction that is ending the job finishes first.
        SELECT * INTO v_ended FROM jobs WHERE job_id = p_job_id AND team_id = v_team_id FOR NO KEY UPDATE;
        IF NOT FOUND THEN
            PERFORM fail('LJ006', 'Job not found');
        END IF;
        PERFORM job_is_over(v_ended);
    END IF;
    IF v_call.group_name IS NULL THEN
        PERFORM fail('LJ004', CASE WHEN p_model_group IS NULL
            THEN format('Team ''%s'' has no model group', v_team_id)
            ELSE format('Team ''%s'' does not have access to model group ''%s''', v_team_id, p_model_group) END);
    END IF;

    INSERT INTO calls (call_id, job_id, team_id, model_group, purpose, streamed, metadata, deadline, expected_cost_usd,
                       counts_tokens)
    VALUES (v_call_id, p_job_id, v_team_id, v_call.group_name, p_purpose, p_streamed, p_metadata, v_call.deadline,
            v_expected, v_call.tpm_limit IS NOT NULL)
    ON CONFLICT DO NOTHING;
    IF FOUND THEN
        IF v_job.total_calls > v_most_calls THEN
            PERFORM fail('LJ016', format('calls_per_job: a job of team ''%s'' may make at most %s calls',
                                         v_team_id, v_most_calls));
        ELSIF v_job.open_calls > v_most_open THEN
            PERFORM fail('LJ015', format('open_calls_per_job: a job of team ''%s'' may have at most %s open calls',
                                         v_team_id, v_most_open), 1);
        ELSIF v_job.known_cost_usd >= v_most_cost
            OR v_job.known_cost_usd + v_job.expected_cost_usd > v_most_cost THEN
            PERFORM fail('LJ016', 'cost_usd_per_job: the job may not cost more');
        END IF;
        -- One call of an open job is in `most_open_calls` in any case.
        v_most_open := nullif(coalesce(v_call.limit_open_calls, (p_limits ->> 'open_calls')::bigint), 0);
        IF v_job.open_calls > 1 OR v_call.most_open_calls > v_most_open THEN
            PERFORM check_open_calls(v_team_id, v_job.open_calls, v_most_open);
        END IF;
        IF v_call.rpm_limit IS NOT NULL OR v_call.tpm_limit IS NOT NULL THEN
            PERFORM count_request(v_team_id, v_call.rpm_limit, v_call.tpm_limit);
        END IF;
    ELSE
        -- The call exists already and was counted when it was opened.
        UPDATE jobs SET total_calls = total_calls - 1, open_calls = open_calls - 1,
                        expected_cost_usd = expected_cost_usd - v_expected
        WHERE job_id = p_job_id;
    END IF;
    RETURN json_build_object(
        'job_id', p_job_id, 'call_id', v_call_id, 'deadline', v_call.deadline, 'team_id', v_team_id,
        'model_group', v_call.group_name, 'models', v_call.models,
        'litellm', CASE WHEN v_call.out_of_sync THEN litellm_desired_team(v_team_id) END);
END $$;
GRANT EXECUTE ON FUNCTION begin_call TO llm_jobs_application;

-- Creates a job and opens its only call. `p_team_id` NULL: the key's team.
CREATE OR REPLACE FUNCTION begin_job_with_call(
    p_actor text, p_team_id text, p_user_id text, p_job_type text, p_job_metadata json, p_lifetime_seconds integer,
    p_model_group text, p_purpose text, p_streamed boolean, p_metadata json, p_deadline_seconds integer,
    p_model_seconds integer DEFAULT 0, p_job_id uuid DEFAULT NULL, p_call_id uuid DEFAULT NULL,
    p_limits jsonb DEFAULT NULL
) RETURNS json LANGUAGE sql
SECURITY DEFINER SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan AS $$
    SELECT begin_call(p_actor, (job ->> 'job_id')::uuid, p_model_group, p_purpose, p_streamed, p_metadata,
                      p_deadline_seconds, p_model_seconds, p_call_id, p_limits)
    FROM create_job(p_actor, p_team_id, p_user_id, p_job_type, p_job_metadata, p_lifetime_seconds, p_job_id,
                    p_limits) AS job
$$;
GRANT EXECUTE ON FUNCTION begin_job_with_call TO llm_jobs_application;

-- Settles a call: records how it ended and what it used. Has no effect if the call is settled already; `settled` in the
-- answer says whether it had one.
-- A call that was closed before, by its job's end or by its deadline, keeps its status, and only its usage is added.
-- `p_final` false: the usage is provisional; the call stays unsettled, and another settling that is final will follow.
-- `p_delivered`: output reached the caller; NULL: it did if the call succeeded.
-- `p_implausible`: the model's numbers were out of bounds, and are unknown therefore.
CREATE OR REPLACE FUNCTION settle_call(
    p_job_id uuid, p_call_id uuid, p_status text,
    p_prompt_tokens bigint, p_completion_tokens bigint, p_total_tokens bigint,
    p_cost_usd numeric, p_latency_ms bigint, p_attempts json, p_error text, p_final boolean,
    p_delivered boolean DEFAULT NULL, p_implausible boolean DEFAULT false
) RETURNS json LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_settling settling := write_settling(p_job_id, p_call_id, p_status,
                                          p_prompt_tokens, p_completion_tokens, p_total_tokens,
                                          p_cost_usd, p_latency_ms, p_attempts, p_error, p_final,
                                          p_delivered, p_implausible);
BEGIN
    PERFORM count_settling(v_settling);
    RETURN json_build_object('settled', v_settling.job_id IS NOT NULL,
                             'lost', v_settling.job_id IS NULL AND is_lost(p_job_id, p_call_id, p_final));
END $$;
GRANT EXECUTE ON FUNCTION settle_call TO llm_jobs_application;

-- Whether there is no such call, as after its month was dropped. The last settling of it is counted.
CREATE OR REPLACE FUNCTION is_lost(p_job_id uuid, p_call_id uuid, p_final boolean)
RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM calls WHERE job_id = p_job_id AND call_id = p_call_id) THEN
        RETURN false;
    END IF;
    IF p_final THEN
        INSERT INTO job_totals AS t (shard, lost_settlements) VALUES (my_shard(), 1)
        ON CONFLICT (shard) DO UPDATE SET lost_settlements = t.lost_settlements + 1;
    END IF;
    RETURN true;
END $$;

-- Updates the rows of the call and its job, and charges a job that has ended what it costs now. Answers what changed,
-- for `count_settling`; NULL if the call was settled before.
-- `p_status` NULL: LiteLLM has told the cost of a call that ended without one, or it won't be asked again.
CREATE OR REPLACE FUNCTION write_settling(
    p_job_id uuid, p_call_id uuid, p_status text,
    p_prompt_tokens bigint, p_completion_tokens bigint, p_total_tokens bigint,
    p_cost_usd numeric, p_latency_ms bigint, p_attempts json, p_error text, p_final boolean,
    p_delivered boolean, p_implausible boolean
) RETURNS settling LANGUAGE plpgsql AS $$
DECLARE
    v_old record;
    v_ends boolean;
    -- Numbers out of bounds are unknown as a whole.
    v_known boolean := NOT p_implausible
        AND p_prompt_tokens BETWEEN 0 AND 1000000000 AND p_completion_tokens BETWEEN 0 AND 1000000000
        AND p_total_tokens BETWEEN 0 AND 1000000000 AND coalesce(p_cost_usd BETWEEN 0 AND 1000000, true);
    v_tokens bigint := CASE WHEN v_known THEN p_total_tokens ELSE 0 END;
    v_cost numeric := CASE WHEN v_known THEN trim_scale(round(p_cost_usd, 12)) END;
    v_cost_change numeric;
    v_delivered boolean := coalesce(p_delivered, p_status = 'succeeded', false);
    v_new settling;
    v_change record;
    v_job jobs;
    v_extra bigint;
BEGIN
    -- The job is locked before the call, since that is their order in this query.
    SELECT j.team_id, j.job_type, j.status AS job_status, j.open_calls, j.delivered AS job_delivered,
           c.status, c.model_group, c.total_tokens, c.cost_usd, c.latency_ms, c.expected_cost_usd,
           c.settled_at IS NOT NULL AS settled, c.settlements, c.attempts, c.counts_tokens
    INTO v_old
    FROM jobs j JOIN calls c ON c.job_id = j.job_id
    WHERE j.job_id = p_job_id AND c.job_id = p_job_id AND c.call_id = p_call_id
      AND (c.settled_at IS NULL OR (p_status IS NULL AND c.cost_check_at IS NOT NULL))
    FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    v_ends := v_old.status = 'open';
    v_cost_change := coalesce(v_cost, 0) - coalesce(v_old.cost_usd, 0);
    UPDATE calls
    SET status = CASE WHEN v_ends THEN p_status ELSE status END,
        error = CASE WHEN v_ends THEN p_error ELSE error END,
        ended_at = coalesce(ended_at, now()),
        settled_at = CASE WHEN p_final THEN coalesce(settled_at, now()) END,
        prompt_tokens = CASE WHEN v_known THEN p_prompt_tokens ELSE 0 END,
        completion_tokens = CASE WHEN v_known THEN p_completion_tokens ELSE 0 END,
        total_tokens = v_tokens, cost_usd = v_cost, latency_ms = coalesce(p_latency_ms, latency_ms),
        attempts = coalesce(p_attempts, attempts),
        delivered = delivered OR v_delivered,
        implausible_usage = NOT v_known,
        expected_cost_usd = CASE WHEN p_final THEN 0 ELSE expected_cost_usd END,
        settlements = settlements + 1,
        -- When LiteLLM is asked for the cost (again).
        cost_check_at = CASE
            WHEN NOT p_final THEN deadline
            WHEN v_cost IS NULL AND v_known AND p_status IS NOT NULL THEN now() END
    WHERE job_id = p_job_id AND call_id = p_call_id;

    UPDATE jobs
    SET successful_calls = successful_calls + (v_ends AND p_status = 'succeeded')::integer,
        failed_calls = failed_calls + (v_ends AND p_status = 'failed')::integer,
        refused_calls = refused_calls + (v_ends AND p_status = 'refused')::integer,
        open_calls = open_calls - v_ends::integer,
        priced_calls = priced_calls + (v_cost IS NOT NULL)::integer - (v_old.cost_usd IS NOT NULL)::integer,
        timed_calls = timed_calls + (v_old.latency_ms IS NULL AND p_latency_ms IS NOT NULL)::integer,
        total_tokens = total_tokens + v_tokens - v_old.total_tokens,
        unpriced_tokens = unpriced_tokens + CASE WHEN p_final AND v_cost IS NULL THEN v_tokens ELSE 0 END
            - CASE WHEN v_old.settled THEN v_old.total_tokens ELSE 0 END,
        known_cost_usd = known_cost_usd + v_cost_change,
        expected_cost_usd = expected_cost_usd - CASE WHEN p_final THEN v_old.expected_cost_usd ELSE 0 END,
        total_latency_ms = total_latency_ms + coalesce(p_latency_ms - coalesce(v_old.latency_ms, 0), 0),
        delivered = delivered OR v_delivered
    WHERE job_id = p_job_id
    RETURNING open_calls, completed_at INTO v_change;
    IF v_ends AND v_old.open_calls > 1 OR v_change.completed_at IS NOT NULL THEN
        v_extra := extra_calls(v_old.job_status, v_change.open_calls)
            - extra_calls(v_old.job_status, v_old.open_calls);
        UPDATE credit_accounts SET extra_calls = extra_calls + v_extra WHERE team_id = v_old.team_id AND v_extra <> 0;
    END IF;

    -- Only what is final is counted.
    v_new := ROW(
        v_old.team_id, p_job_id, v_old.job_type, v_old.model_group,
        coalesce(coalesce(p_attempts, v_old.attempts) -> -1 ->> 'model', 'unknown'),
        CASE WHEN v_ends THEN p_status END,
        v_old.latency_ms IS NULL AND p_latency_ms IS NOT NULL,
        p_final AND NOT v_old.settled, p_final AND NOT v_old.settled AND v_cost IS NULL AND v_tokens > 0,
        (p_final AND v_cost IS NOT NULL)::integer,
        CASE WHEN p_final THEN v_tokens ELSE 0 END - CASE WHEN v_old.settled THEN v_old.total_tokens ELSE 0 END,
        CASE WHEN p_final THEN coalesce(v_cost, 0) ELSE 0 END,
        0, 0, 0, 0, p_latency_ms, v_old.counts_tokens)::settling;
    IF v_change.completed_at IS NOT NULL THEN
        SELECT * INTO STRICT v_job FROM jobs WHERE job_id = p_job_id;
        v_new := charge_late(v_job, v_new, v_cost_change, p_call_id, v_old.settlements + 1);
        v_new.free_jobs := (v_job.delivered AND NOT v_old.job_delivered AND NOT v_job.credit_applied
                            AND v_new.charged_jobs = 0)::integer;
    END IF;
    RETURN v_new;
END $$;

CREATE OR REPLACE FUNCTION count_settling(p settling) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_today date := today();
    v_shard integer;
    -- The number of the first bound that is not exceeded; one more than there are bounds if all are.
    v_bucket integer := coalesce(1 + width_bucket(p.latency_ms - 1, latency_bounds()), 1);
    v_unpriced bigint;
BEGIN
    IF p.job_id IS NULL THEN
        RETURN;
    END IF;
    INSERT INTO usage_days AS u (team_id, day, job_type, calls, refused_calls, priced_calls, tokens, cost_usd,
                                 revenue_usd, credits_charged, charged_jobs, free_jobs_with_output)
    VALUES (p.team_id, v_today, p.job_type, (p.ended_as IS NOT NULL)::integer,
            (p.ended_as IS NOT DISTINCT FROM 'refused')::integer, p.priced, p.tokens, p.cost_usd, p.revenue_usd,
            p.credits, p.charged_jobs, p.free_jobs)
    ON CONFLICT (team_id, day, job_type) DO UPDATE SET
        calls = u.calls + excluded.calls, refused_calls = u.refused_calls + excluded.refused_calls,
        priced_calls = u.priced_calls + excluded.priced_calls, tokens = u.tokens + excluded.tokens,
        cost_usd = u.cost_usd + excluded.cost_usd, revenue_usd = u.revenue_usd + excluded.revenue_usd,
        credits_charged = u.credits_charged + excluded.credits_charged,
        charged_jobs = u.charged_jobs + excluded.charged_jobs,
        free_jobs_with_output = u.free_jobs_with_output + excluded.free_jobs_with_output;
    IF p.free_jobs > 0 THEN
        PERFORM add_to_job_totals(0, 0, 0, 0, 0, p.free_jobs);
    END IF;
    IF p.final OR p.tokens <> 0 OR p.cost_usd <> 0 THEN
        INSERT INTO usage_models AS u (team_id, day, model, requests, unpriced_requests, tokens, cost_usd)
        VALUES (p.team_id, v_today, p.model, p.final::integer, p.unpriced::integer, p.tokens, p.cost_usd)
        ON CONFLICT (team_id, day, model) DO UPDATE SET
            requests = u.requests + excluded.requests,
            unpriced_requests = u.unpriced_requests + excluded.unpriced_requests,
            tokens = u.tokens + excluded.tokens, cost_usd = u.cost_usd + excluded.cost_usd
        RETURNING unpriced_requests INTO v_unpriced;
        IF p.unpriced AND v_unpriced = 1 THEN
            PERFORM alert_of_unpriced_model(p.team_id, p.job_id, p.model);
        END IF;
    END IF;
    -- The latency is counted only the first time, since a provisional settling may come before the final one.
    v_shard := my_shard();
    LOOP
        UPDATE call_totals
        SET succeeded = succeeded + (p.ended_as IS NOT DISTINCT FROM 'succeeded')::integer,
            failed = failed + (p.ended_as IS NOT DISTINCT FROM 'failed')::integer,
            refused = refused + (p.ended_as IS NOT DISTINCT FROM 'refused')::integer,
            cancelled = cancelled + (p.ended_as IS NOT DISTINCT FROM 'cancelled')::integer,
            priced = priced + p.priced, tokens = tokens + p.tokens, cost_usd = cost_usd + p.cost_usd,
            latency_ms = latency_ms + CASE WHEN p.first THEN p.latency_ms ELSE 0 END,
            latency_counts[v_bucket] = latency_counts[v_bucket] + p.first::integer
        WHERE model_group = p.model_group AND shard = v_shard;
        EXIT WHEN FOUND;
        INSERT INTO call_totals (model_group, shard) VALUES (p.model_group, v_shard) ON CONFLICT DO NOTHING;
    END LOOP;
    IF p.counts_tokens AND p.tokens > 0 THEN
        PERFORM count_tokens(p.team_id, p.tokens);
    END IF;
END $$;

-- Settles the only call of a job that was created for it, and ends the job.
CREATE OR REPLACE FUNCTION settle_job_with_call(
    p_job_id uuid, p_call_id uuid, p_status text,
    p_prompt_tokens bigint, p_completion_tokens bigint, p_total_tokens bigint,
    p_cost_usd numeric, p_latency_ms bigint, p_attempts json, p_error text, p_final boolean,
    p_delivered boolean DEFAULT NULL, p_implausible boolean DEFAULT false
) RETURNS json LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    -- A client that hung up has had what it read, so the job counts as completed.
    v_job_status text := CASE WHEN p_status IN ('failed', 'refused') THEN 'failed' ELSE 'completed' END;
    v_settling settling := write_settling(p_job_id, p_call_id, p_status,
                                          p_prompt_tokens, p_completion_tokens, p_total_tokens,
                                          p_cost_usd, p_latency_ms, p_attempts, p_error, p_final,
                                          p_delivered, p_implausible);
    v_completion json;
BEGIN
    -- Not if the job has been ended otherwise, or its deadline has passed.
    IF EXISTS (SELECT FROM jobs WHERE job_id = p_job_id
               AND (status = v_job_status OR (status IN ('pending', 'in_progress') AND expires_at > now()))) THEN
        v_completion := complete_job('system', p_job_id, v_job_status, '{}', p_error);
    END IF;
    PERFORM count_settling(v_settling);
    RETURN json_build_object('settled', v_settling.job_id IS NOT NULL, 'completion', v_completion,
                             'lost', v_settling.job_id IS NULL AND is_lost(p_job_id, p_call_id, p_final));
END $$;
GRANT EXECUTE ON FUNCTION settle_job_with_call TO llm_jobs_application;

-- Takes up to `p_limit` calls that ended without a cost, to ask LiteLLM for it: [{job_id, call_id, last}]. The next
-- time comes when a call is twice as old as now, at most a day later. `last`: there is no next time. Calls that are
-- settled are not asked about after seven days.
CREATE OR REPLACE FUNCTION take_unpriced_calls(p_limit bigint) RETURNS json LANGUAGE sql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
    WITH due AS (
        SELECT job_id, call_id FROM calls
        WHERE cost_check_at <= now() AND NOT (settled_at IS NOT NULL AND created_at < now() - interval '7 days')
        ORDER BY cost_check_at LIMIT p_limit FOR NO KEY UPDATE SKIP LOCKED
    ), taken AS (
        UPDATE calls c
        SET cost_check_at = now() + greatest(interval '1 minute', least(now() - c.created_at, interval '1 day'))
        FROM due WHERE c.job_id = due.job_id AND c.call_id = due.call_id
        RETURNING c.job_id, c.call_id, c.created_at < now() - interval '7 days' AS last
    ), too_old AS (
        SELECT job_id, call_id FROM calls
        WHERE cost_check_at <= now() AND settled_at IS NOT NULL AND created_at < now() - interval '7 days'
        LIMIT 10000 FOR NO KEY UPDATE SKIP LOCKED
    ), given_up AS (
        UPDATE calls c SET cost_check_at = NULL
        FROM too_old o WHERE c.job_id = o.job_id AND c.call_id = o.call_id)
    SELECT coalesce(json_agg(taken), '[]') FROM taken
$$;
GRANT EXECUTE ON FUNCTION take_unpriced_calls TO llm_jobs_application;

-- Writes the usage of a call that LiteLLM has told later. `p_cost_usd` NULL: LiteLLM has no price for the model;
-- `p_total_tokens` NULL: it has no record of the call. `p_last`: it is not asked again.
CREATE OR REPLACE FUNCTION price_call(
    p_job_id uuid, p_call_id uuid, p_prompt_tokens bigint, p_completion_tokens bigint, p_total_tokens bigint,
    p_cost_usd numeric, p_implausible boolean, p_last boolean DEFAULT true
) RETURNS json LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    v_call calls;
    v_settling settling;
BEGIN
    PERFORM FROM jobs WHERE job_id = p_job_id FOR NO KEY UPDATE;
    SELECT * INTO v_call FROM calls
    WHERE job_id = p_job_id AND call_id = p_call_id AND status <> 'open' FOR NO KEY UPDATE;
    IF v_call.call_id IS NOT NULL AND (v_call.settled_at IS NULL OR p_cost_usd IS NOT NULL) THEN
        v_settling := write_settling(
            p_job_id, p_call_id, NULL, coalesce(p_prompt_tokens, v_call.prompt_tokens),
            coalesce(p_completion_tokens, v_call.completion_tokens), coalesce(p_total_tokens, v_call.total_tokens),
            p_cost_usd, NULL, NULL, NULL, true, NULL, p_implausible);
        PERFORM count_settling(v_settling);
    END IF;
    IF p_cost_usd IS NULL THEN
        UPDATE calls SET cost_check_at = CASE WHEN NOT p_last THEN v_call.cost_check_at END
        WHERE job_id = p_job_id AND call_id = p_call_id AND status <> 'open';
    END IF;
    RETURN json_build_object('settled', v_settling.job_id IS NOT NULL);
END $$;
GRANT EXECUTE ON FUNCTION price_call TO llm_jobs_application;

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
