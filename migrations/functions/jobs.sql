-- Jobs. A job is one business operation and, by default, costs one credit.

-- Opens a job and reserves one credit for it until it ends or `p_lifetime_seconds` have passed. `p_team_id` NULL: the
-- actor's team. If a job with the id `p_job_id` (see `id_or_new`) exists already, it is returned. `p_limits`: see
-- `begin_call`.
CREATE OR REPLACE FUNCTION create_job(
    p_actor text, p_team_id text, p_user_id text, p_job_type text, p_metadata json, p_lifetime_seconds integer,
    p_job_id uuid DEFAULT NULL, p_limits jsonb DEFAULT NULL
) RETURNS json LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_actors_team text := acting_team(p_actor);
    v_team_id text := coalesce(p_team_id, v_actors_team);
    v_account record;
    v_row jobs;
BEGIN
    IF v_actors_team IS NULL THEN
        PERFORM existing_team(v_team_id);
    ELSIF v_actors_team <> v_team_id THEN
        PERFORM fail('LJ002', format('API key does not belong to team ''%s''', v_team_id));
    END IF;
    PERFORM sweep_team(v_team_id, p_recent => true);
    INSERT INTO jobs (job_id, team_id, terms_id, user_id, job_type, metadata, created_at, expires_at)
    SELECT id, v_team_id, terms_id, p_user_id, p_job_type, p_metadata,
           now(), now() + make_interval(secs => p_lifetime_seconds)
    FROM teams, id_or_new(p_job_id) AS id WHERE team_id = v_team_id AND status <> 'deleted'
    ON CONFLICT DO NOTHING
    RETURNING * INTO v_row;
    IF FOUND THEN
        -- Perhaps jobs are in the way that have been overdue for long.
        FOR attempt IN 1..5 LOOP
            SELECT a.allocated - a.used - a.held AS available, a.floor, a.held,
                   nullif(coalesce(t.limit_open_jobs, (p_limits ->> 'open_jobs')::bigint), 0) AS most_jobs
            INTO v_account
            FROM credit_accounts a JOIN teams t USING (team_id) WHERE a.team_id = v_team_id FOR NO KEY UPDATE OF a;
            EXIT WHEN v_account.available - 1 >= v_account.floor
                AND coalesce(v_account.held < v_account.most_jobs, true);
            EXIT WHEN (sweep_team(v_team_id)).ended = 0;
        END LOOP;
        IF v_account.available - 1 < v_account.floor THEN
            PERFORM fail('LJ005', format('Insufficient credits. Required: 1, Available: %s', v_account.available));
        ELSIF v_account.held >= v_account.most_jobs THEN
            -- Each open job holds one credit.
            PERFORM fail('LJ015', format('open_jobs: team ''%s'' may have at most %s open jobs',
                                         v_team_id, v_account.most_jobs), 1);
        END IF;
        UPDATE credit_accounts SET held = held + 1 WHERE team_id = v_team_id;
        PERFORM count_new_job(v_team_id, p_job_type);
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
        'refused_calls', j.refused_calls,
        'total_tokens', j.total_tokens, 'total_cost_usd', job_cost(j), 'unpriced_calls', j.total_calls - j.priced_calls,
        'avg_latency_ms', job_latency(j))
$$;

-- The members of `job_sums`, and what the job cost in credits.
CREATE OR REPLACE FUNCTION job_costs(j jobs, t terms, p_charged bigint, p_remaining bigint)
RETURNS json LANGUAGE sql STABLE AS $$
    SELECT json_build_object(
        'total_calls', j.total_calls, 'successful_calls', j.successful_calls, 'failed_calls', j.failed_calls,
        'refused_calls', j.refused_calls, 'total_tokens', j.total_tokens,
        'total_cost_usd', job_cost(j), 'unpriced_calls', j.total_calls - j.priced_calls,
        'avg_latency_ms', job_latency(j),
        'credit_applied', p_charged > 0, 'credits_charged', p_charged, 'credits_refunded', 0,
        'charge_is_final', charge_is_final(j, t), 'credits_remaining', p_remaining)
$$;

CREATE OR REPLACE FUNCTION job_is_over(p_job jobs) RETURNS void LANGUAGE plpgsql STABLE AS $$
BEGIN
    PERFORM fail('LJ008', format('Job ''%s'' is already %s', p_job.job_id,
        CASE WHEN p_job.status IN ('pending', 'in_progress') THEN 'expired' ELSE p_job.status END));
END $$;

-- Whether a job that has ended is charged: it was completed, none of its calls failed, and not all of them were
-- refused; or, by its terms, because a call delivered output.
CREATE OR REPLACE FUNCTION job_is_charged(j jobs, t terms) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT (j.status = 'completed' AND j.failed_calls = 0
            AND (j.refused_calls = 0 OR j.refused_calls < j.total_calls))
        OR (t.charge_when = 'delivered' AND j.delivered)
$$;

-- The credits that a job that has ended costs by its terms, as far as its costs are known: consumption is rounded up,
-- and at least 1 is charged.
CREATE OR REPLACE FUNCTION job_credits(j jobs, t terms) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN job_is_charged(j, t) THEN greatest(1, CASE t.billing_mode
        WHEN 'consumption_usd' THEN
            ceil(j.known_cost_usd * t.credits_per_dollar + j.unpriced_tokens * t.credits_per_1k_tokens_unpriced * 0.001)
        WHEN 'consumption_tokens' THEN ceil(j.total_tokens::numeric / t.tokens_per_credit)
        ELSE 1 END)::bigint ELSE 0 END
$$;

-- The sum of a job's deductions in the ledger.
CREATE OR REPLACE FUNCTION charged_credits(j jobs) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(j.credits_charged, (j.completion #>> '{costs,credits_charged}')::bigint, 0)
$$;

-- Whether what a job is charged can't change any more, but by a refund. LiteLLM is asked for costs for seven days.
CREATE OR REPLACE FUNCTION charge_is_final(j jobs, t terms) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF j.completed_at IS NULL THEN
        RETURN false;
    ELSIF t.charge_when = 'completed' AND (t.billing_mode = 'job_based' OR NOT job_is_charged(j, t))
        OR t.charge_when = 'delivered' AND t.billing_mode = 'job_based' AND job_is_charged(j, t) THEN
        RETURN true;
    END IF;
    RETURN NOT EXISTS (
        SELECT FROM calls
        WHERE job_id = j.job_id
          AND (settled_at IS NULL AND deadline > now() - interval '7 days'
               -- The tokens of a call that did not succeed may have been estimated.
               OR cost_check_at IS NOT NULL AND (t.billing_mode = 'consumption_usd' OR status <> 'succeeded')));
END $$;

-- Charges a job that has ended what it costs and was not charged yet, as a row of the job in the ledger: what the
-- settling of a call has changed, whose number `p_settlement` is, or all of it when the job expires. Answers `p` with
-- what was charged. `p_cost_usd`: the change of the job's cost. `p_uncounted`: see `revenue_of`.
CREATE OR REPLACE FUNCTION charge_late(
    p_job jobs, p settling, p_cost_usd numeric, p_call_id uuid, p_settlement integer, p_uncounted bigint DEFAULT 0
) RETURNS settling LANGUAGE plpgsql AS $$
DECLARE
    v_terms terms;
    v_before bigint := coalesce(p_job.credits_due, charged_credits(p_job));
    v_left bigint := charged_credits(p_job) - coalesce(p_job.credits_refunded, 0);
    v_due bigint;
BEGIN
    SELECT * INTO STRICT v_terms FROM terms WHERE terms_id = p_job.terms_id;
    v_due := job_credits(p_job, v_terms);
    -- What the admin has refunded already is not refunded once more.
    p.credits := greatest(v_due - v_before, -v_left);
    p.charged_jobs := (v_before = 0 AND v_due > 0)::integer;
    IF p.credits <> 0 THEN
        PERFORM post_transaction(
            p_job.team_id, CASE WHEN p.credits > 0 THEN 'deduction' ELSE 'refund' END, -p.credits,
            format('Job %s: %s', p_job.job_type, CASE WHEN v_before = 0 THEN 'delivered output' ELSE 'late cost' END),
            p_job.job_id, '{}', 0, p_call_id, p_settlement);
    END IF;
    IF p.charged_jobs > 0 THEN
        p.revenue_usd := coalesce(revenue_of(p_job, v_terms, p_uncounted), 0);
    ELSIF v_due > 0 AND v_terms.pricing ->> 'mode' = 'markup' THEN
        p.revenue_usd := p_cost_usd * (100 + (v_terms.pricing ->> 'markup_percent')::numeric) * 0.01;
    END IF;
    IF p.credits <> 0 OR p.revenue_usd <> 0 THEN
        UPDATE jobs
        SET credits_due = v_before + p.credits, credit_applied = credit_applied OR v_due > 0,
            credits_charged = charged_credits(p_job) + greatest(p.credits, 0),
            credits_refunded = coalesce(credits_refunded, 0) + greatest(-p.credits, 0),
            revenue_usd = CASE WHEN v_terms.pricing IS NOT NULL THEN coalesce(revenue_usd, 0) + p.revenue_usd END
        WHERE job_id = p_job.job_id;
    END IF;
    RETURN p;
END $$;

-- Refunds credits that a job was charged; `p_credits` NULL: all that is left of them.
CREATE OR REPLACE FUNCTION refund_credits(p_team_id text, p_job_id uuid, p_credits bigint, p_reason text)
RETURNS json LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    v_job jobs;
    v_charged bigint;
    v_refunded bigint;
    v_credits bigint;
    v_row credit_transactions;
BEGIN
    PERFORM existing_team(p_team_id, p_deleted => true);
    SELECT * INTO v_job FROM jobs WHERE job_id = p_job_id AND team_id = p_team_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        PERFORM fail('LJ006', 'Job not found');
    END IF;
    v_charged := charged_credits(v_job);
    v_refunded := coalesce(v_job.credits_refunded, 0);
    v_credits := coalesce(p_credits, v_charged - v_refunded);
    IF v_credits = 0 OR v_credits > v_charged - v_refunded THEN
        PERFORM fail('LJ017', format('credits: the job was charged %s credits, %s of which are refunded', v_charged,
                                     v_refunded));
    END IF;
    v_row := post_transaction(p_team_id, 'refund', v_credits, p_reason, p_job_id, '{}');
    UPDATE jobs SET credits_charged = v_charged, credits_refunded = v_refunded + v_credits WHERE job_id = p_job_id;
    INSERT INTO usage_days AS u (team_id, day, job_type, credits_charged)
    VALUES (p_team_id, today(), v_job.job_type, -v_credits)
    ON CONFLICT (team_id, day, job_type) DO UPDATE SET credits_charged = u.credits_charged - v_credits;
    RETURN json_build_object(
        'team_id', p_team_id, 'job_id', p_job_id, 'credits_refunded', v_credits,
        'credits_remaining', v_row.balance_after, 'transaction', transaction_json(v_row));
END $$;
GRANT EXECUTE ON FUNCTION refund_credits TO llm_jobs_application;

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

-- The number of jobs that were charged in this calendar month (UTC).
CREATE OR REPLACE FUNCTION charged_this_month(p_team_id text) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT coalesce(sum(charged_jobs), 0)::bigint FROM usage_days
    WHERE team_id = p_team_id AND day >= date_trunc('month', today()) AND day <= today()
$$;

-- `job_revenue` of a job that is being charged. Every charge to a team locks its account first, so the count is exact.
-- `p_uncounted`: the jobs that this transaction has charged and not counted yet.
CREATE OR REPLACE FUNCTION revenue_of(j jobs, t terms, p_uncounted bigint DEFAULT 0)
RETURNS numeric LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN job_revenue(j, t, CASE t.pricing ->> 'mode'
        WHEN 'tiered' THEN charged_this_month(j.team_id) + p_uncounted END);
END $$;

-- Ends a job. Its credits are deducted if it is to be charged (see `job_is_charged`), and its reservation is released.
-- Repeating the request gets the same answer, but for what the job is charged, which is as of now: {completion,
-- alerts}, where `alerts` says whether alerts are due for delivery.
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
        RETURN json_build_object('completion', completion_as_of_now(v_job), 'alerts', alerts_are_due(v_job.team_id));
    ELSIF v_job.status NOT IN ('pending', 'in_progress') OR v_job.expires_at <= now() THEN
        PERFORM job_is_over(v_job);
    END IF;
    IF v_job.open_calls > 0 THEN
        WITH cancelled AS (
            UPDATE calls SET status = 'cancelled', ended_at = now(), cost_check_at = deadline
            -- Those that are open, but not in words by which the index of all open calls would be searched.
            WHERE job_id = p_job_id AND ended_at IS NULL RETURNING model_group)
        SELECT array_agg(model_group) INTO v_cancelled_groups FROM cancelled;
    END IF;
    IF v_job.open_calls > 1 THEN
        UPDATE credit_accounts SET extra_calls = extra_calls - extra_calls(v_job.status, v_job.open_calls)
        WHERE team_id = v_job.team_id;
    END IF;
    SELECT * INTO STRICT v_terms FROM terms WHERE terms_id = v_job.terms_id;
    v_job.status := p_status;
    v_job.completed_at := now();
    v_credits := job_credits(v_job, v_terms);
    IF v_credits > 0 THEN
        v_remaining := (post_transaction(v_job.team_id, 'deduction', -v_credits,
            format(CASE p_status WHEN 'completed' THEN 'Job %s completed successfully'
                                 ELSE 'Job %s delivered output' END, v_job.job_type),
            p_job_id, '{}', 1)).balance_after;
        v_revenue := revenue_of(v_job, v_terms);
    ELSE
        UPDATE credit_accounts SET held = held - 1, overdraft = greatest(0, floor - (allocated - used - held) - 1)
        WHERE team_id = v_job.team_id RETURNING allocated - used INTO v_remaining;
    END IF;

    UPDATE jobs SET status = p_status, completed_at = now(), credit_applied = v_credits > 0, revenue_usd = v_revenue,
                    credits_due = v_credits, credits_charged = v_credits, credits_refunded = 0, open_calls = 0,
                    error_message = p_error_message, metadata = merged(v_job.metadata, p_metadata),
                    completion = json_build_object(
        'job_id', p_job_id, 'status', p_status, 'completed_at', rfc3339(now()),
        'costs', job_costs(v_job, v_terms, v_credits, v_remaining),
        'calls', (SELECT coalesce(json_agg(json_build_object(
                      'call_id', call_id, 'purpose', purpose, 'model_group', model_group, 'tokens', total_tokens,
                      'latency_ms', latency_ms, 'error', error) ORDER BY call_id), '[]')
                  FROM (SELECT * FROM calls WHERE job_id = p_job_id ORDER BY call_id DESC LIMIT 100) AS newest),
        'more_calls', v_job.total_calls > 100)
    WHERE job_id = p_job_id
    RETURNING * INTO v_job;
    PERFORM count_ended_job(v_job.team_id, v_job.job_type, p_status, v_credits, v_revenue,
                            coalesce(cardinality(v_cancelled_groups), 0), v_job.delivered AND v_credits = 0);
    IF v_cancelled_groups IS NOT NULL THEN
        PERFORM count_closed_calls(v_cancelled_groups, false);
    END IF;
    RETURN json_build_object('completion', v_job.completion, 'alerts', alerts_are_due(v_job.team_id));
END $$;
GRANT EXECUTE ON FUNCTION complete_job TO llm_jobs_application;

-- The answer to completing a job, with what it is charged as of now.
CREATE OR REPLACE FUNCTION completion_as_of_now(j jobs) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT (j.completion::jsonb || jsonb_build_object('costs', j.completion::jsonb -> 'costs' || jsonb_build_object(
        'credits_charged', charged_credits(j), 'credits_refunded', coalesce(j.credits_refunded, 0),
        'charge_is_final', charge_is_final(j, t))))::json
    FROM terms t WHERE t.terms_id = j.terms_id
$$;

CREATE OR REPLACE FUNCTION job_json(j jobs) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT json_build_object(
        'job_id', j.job_id, 'team_id', j.team_id, 'user_id', j.user_id, 'job_type', j.job_type, 'status', j.status,
        'metadata', j.metadata, 'error_message', j.error_message,
        'created_at', rfc3339(j.created_at), 'started_at', rfc3339(j.started_at),
        'completed_at', rfc3339(j.completed_at), 'expires_at', rfc3339(j.expires_at),
        'total_calls', j.total_calls, 'successful_calls', j.successful_calls, 'failed_calls', j.failed_calls,
        'refused_calls', j.refused_calls, 'total_tokens', j.total_tokens,
        'total_cost_usd', job_cost(j), 'unpriced_calls', j.total_calls - j.priced_calls,
        'avg_latency_ms', job_latency(j), 'credit_applied', j.credit_applied,
        'credits_charged', charged_credits(j), 'credits_refunded', coalesce(j.credits_refunded, 0),
        'charge_is_final', (SELECT charge_is_final(j, t) FROM terms t WHERE t.terms_id = j.terms_id))
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
CREATE OR REPLACE FUNCTION call_json(c calls, m call_messages, p_actor text) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT json_build_object(
        'messages', m.messages, 'response', m.response,
        'call_id', c.call_id, 'purpose', c.purpose, 'model_group', c.model_group,
        'status', c.status, 'streamed', c.streamed,
        'tokens', c.total_tokens, 'prompt_tokens', c.prompt_tokens, 'completion_tokens', c.completion_tokens,
        'cost_usd', c.cost_usd, 'latency_ms', c.latency_ms, 'error', c.error, 'metadata', c.metadata,
        'implausible_usage', c.implausible_usage, 'created_at', rfc3339(c.created_at),
        'attempts', CASE WHEN p_actor = 'admin' THEN c.attempts END)
$$;

-- A job with its newest 100 calls, oldest first.
CREATE OR REPLACE FUNCTION get_job(p_job_id uuid, p_actor text) RETURNS json LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_row jobs := current_job(p_job_id, p_actor);
BEGIN
    RETURN json_build_object('job', job_json(v_row), 'more_calls', v_row.total_calls > 100, 'calls', (
        SELECT coalesce(json_agg(json ORDER BY call_id), '[]')
        FROM (SELECT c.call_id, call_json(c, m, p_actor) AS json
              FROM calls c LEFT JOIN call_messages m
                  ON m.job_id = c.job_id AND m.call_id = c.call_id AND m.expires_at > now()
              WHERE c.job_id = p_job_id ORDER BY c.call_id DESC LIMIT 100) AS newest));
END $$;
GRANT EXECUTE ON FUNCTION get_job TO llm_jobs_application;

-- The calls of a job, newest first: `p_limit` of them, below the id `p_before_call` if it is given.
CREATE OR REPLACE FUNCTION list_calls(p_job_id uuid, p_actor text, p_limit bigint, p_before_call uuid)
RETURNS json LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_row jobs := current_job(p_job_id, p_actor);
    v_page uuid[] := ARRAY(
        SELECT call_id FROM calls WHERE job_id = p_job_id AND (p_before_call IS NULL OR call_id < p_before_call)
        -- One more than asked for, to know whether another page follows.
        ORDER BY call_id DESC LIMIT p_limit + 1);
BEGIN
    RETURN json_build_object(
        'job_id', p_job_id, 'total', v_row.total_calls,
        'next_cursor', CASE WHEN cardinality(v_page) > p_limit THEN v_page[p_limit] END,
        'calls', (SELECT coalesce(json_agg(call_json(c, m, p_actor) ORDER BY c.call_id DESC), '[]')
                  FROM unnest(v_page[:p_limit]) AS page (call_id)
                      JOIN calls c ON c.job_id = p_job_id AND c.call_id = page.call_id
                      LEFT JOIN call_messages m
                          ON m.job_id = c.job_id AND m.call_id = c.call_id AND m.expires_at > now()));
END $$;
GRANT EXECUTE ON FUNCTION list_calls TO llm_jobs_application;

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
            FROM (SELECT * FROM calls WHERE job_id = p_job_id ORDER BY call_id DESC LIMIT 100) AS newest),
        'more_calls', v_row.total_calls > 100);
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
    PERFORM existing_team(p_team_id, p_deleted => true);
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
            ELSE opened_jobs END), 0)
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

-- Erases a user from up to 200 of a team's jobs: {jobs, messages, more}. `p_erased` takes the place of the user's id.
-- What the caller has said of the jobs and their calls goes, and so do kept answers that name one of these jobs; sums
-- stay.
CREATE OR REPLACE FUNCTION erase_user(p_team_id text, p_user_id text, p_erased text) RETURNS json LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    v_jobs uuid[];
    v_messages bigint;
BEGIN
    PERFORM existing_team(p_team_id, p_deleted => true);
    v_jobs := ARRAY(
        SELECT job_id FROM jobs WHERE team_id = p_team_id AND user_id = p_user_id
        ORDER BY job_id LIMIT 200 FOR NO KEY UPDATE);
    DELETE FROM call_messages WHERE job_id = ANY (v_jobs);
    GET DIAGNOSTICS v_messages = ROW_COUNT;
    UPDATE calls SET metadata = '{}', purpose = NULL, error = NULL, attempts = without(attempts, ARRAY['reason'])
    WHERE job_id = ANY (v_jobs);
    UPDATE jobs
    SET user_id = p_erased, metadata = '{}', error_message = NULL,
        completion = (completion::jsonb || jsonb_build_object(
            'calls', without(completion -> 'calls', ARRAY['purpose', 'error'])))::json
    WHERE job_id = ANY (v_jobs);
    DELETE FROM idempotency_keys
    WHERE caller IN ('admin', 'team:' || p_team_id)
      AND substring(answer::text FROM '"job_id" ?: ?"([0-9a-f-]{36})"') = ANY (v_jobs::text[]);
    RETURN json_build_object(
        'jobs', cardinality(v_jobs), 'messages', v_messages, 'more', cardinality(v_jobs) = 200);
END $$;
GRANT EXECUTE ON FUNCTION erase_user TO llm_jobs_application;

-- A list of objects in which these members are null.
CREATE OR REPLACE FUNCTION without(p_objects json, p_members text[]) RETURNS json LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(json_agg((
        SELECT json_object_agg(key, CASE WHEN key = ANY (p_members) THEN json 'null' ELSE value END)
        FROM json_each(object))), '[]')
    FROM json_array_elements(p_objects) AS object
$$;
