-- Reports. They read counters, never jobs and calls themselves. Date ranges are half-open: `p_from` is included, `p_to`
-- is not.

-- The usage of a team. What only the admin may see is NULL for others.
CREATE OR REPLACE FUNCTION team_usage(p_actor text, p_team_id text, p_from date, p_to date)
RETURNS json LANGUAGE plpgsql STABLE
SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    v_admin boolean := reading_team(p_actor) IS NULL;
BEGIN
    PERFORM existing_team(p_team_id, p_deleted => true);
    RETURN json_build_object('usage', usage_json(ARRAY[p_team_id], p_from, p_to, v_admin),
                             'remaining_budget', CASE WHEN v_admin THEN remaining_budget(p_team_id) END);
END $$;
GRANT EXECUTE ON FUNCTION team_usage TO llm_jobs_application;

-- Answers {summary, job_types}, and for the admin also {total_spend, request_count, revenue_usd, margin_usd,
-- models_used}.
CREATE OR REPLACE FUNCTION usage_json(p_teams text[], p_from date, p_to date, p_admin boolean)
RETURNS json LANGUAGE sql STABLE AS $$
    WITH days AS (
        SELECT job_type,
               sum(opened_jobs) AS jobs, sum(completed) AS completed, sum(failed) AS failed,
               sum(cancelled) AS cancelled, sum(expired) AS expired, sum(charged_jobs) AS charged,
               sum(free_jobs_with_output) AS free, sum(credits_charged) AS credits, sum(revenue_usd) AS revenue,
               sum(calls) AS calls, sum(refused_calls) AS refused, sum(priced_calls) AS priced,
               sum(tokens) AS tokens, sum(cost_usd) AS cost
        FROM usage_days WHERE team_id = ANY (p_teams) AND day >= p_from AND day < p_to
        GROUP BY job_type
    ), total AS (
        SELECT coalesce(sum(jobs), 0) AS jobs, coalesce(sum(completed), 0) AS completed,
               coalesce(sum(failed), 0) AS failed, coalesce(sum(cancelled), 0) AS cancelled,
               coalesce(sum(expired), 0) AS expired, coalesce(sum(charged), 0) AS charged,
               coalesce(sum(free), 0) AS free, coalesce(sum(credits), 0) AS credits,
               coalesce(sum(revenue), 0) AS revenue, coalesce(sum(calls), 0) AS calls,
               coalesce(sum(refused), 0) AS refused, coalesce(sum(priced), 0) AS priced,
               coalesce(sum(tokens), 0) AS tokens, coalesce(sum(cost), 0) AS cost
        FROM days
    )
    SELECT json_build_object(
        'summary', json_build_object(
            'total_jobs', t.jobs, 'successful_jobs', t.completed, 'failed_jobs', t.failed,
            'cancelled_jobs', t.cancelled, 'expired_jobs', t.expired,
            'charged_jobs', t.charged, 'free_jobs_with_output', t.free,
            'total_calls', t.calls, 'refused_calls', t.refused,
            -- Calls that ended before the range may have been priced in it.
            'unpriced_calls', greatest(0, t.calls - t.priced),
            'total_tokens', t.tokens, 'total_cost_usd', t.cost, 'credits_used', t.credits,
            'avg_cost_per_job', CASE WHEN t.jobs = 0 THEN 0 ELSE round(t.cost / t.jobs, 10) END),
        'job_types', (SELECT coalesce(json_object_agg(job_type, json_build_object('count', jobs, 'cost_usd', cost)
                                                      ORDER BY job_type), '{}')
                      FROM days),
        'total_spend', CASE WHEN p_admin THEN t.cost END, 'request_count', CASE WHEN p_admin THEN t.calls END,
        'revenue_usd', CASE WHEN p_admin THEN t.revenue END,
        'margin_usd', CASE WHEN p_admin THEN t.revenue - t.cost END,
        'models_used', CASE WHEN p_admin THEN (
            SELECT coalesce(json_object_agg(model, json_build_object('requests', requests, 'cost', cost)
                                            ORDER BY model), '{}')
            FROM (SELECT model, sum(requests) AS requests, sum(cost_usd) AS cost
                  FROM usage_models WHERE team_id = ANY (p_teams) AND day >= p_from AND day < p_to
                  GROUP BY model) AS models) END)
    FROM total t
$$;

-- A team's budget in LiteLLM less the cost of all its calls to date; NULL if it has no budget, or one that LiteLLM
-- resets, for only LiteLLM knows what has been spent of that.
CREATE OR REPLACE FUNCTION remaining_budget(p_team_id text) RETURNS numeric LANGUAGE sql STABLE AS $$
    SELECT litellm_budget(t, a.budget_mode, a.credit_limit, a.allocated)
        - (SELECT coalesce(sum(cost_usd), 0) FROM usage_days WHERE team_id = p_team_id)
    FROM teams t JOIN credit_accounts a USING (team_id)
    WHERE t.team_id = p_team_id AND t.litellm_budget_duration IS NULL
$$;

-- The usage of all teams of an organization, in total and for each team, including deleted ones.
CREATE OR REPLACE FUNCTION organization_usage(p_organization_id text, p_from date, p_to date)
RETURNS json LANGUAGE plpgsql STABLE
SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    v_teams text[] := ARRAY(SELECT team_id FROM teams
                            WHERE organization_id = p_organization_id AND status <> 'creating');
BEGIN
    PERFORM get_organization(p_organization_id);
    RETURN json_build_object(
        'usage', usage_json(v_teams, p_from, p_to, true),
        'teams', (SELECT coalesce(json_object_agg(team_id, usage_json(ARRAY[team_id], p_from, p_to, true)
                                                  ORDER BY team_id), '{}')
                  FROM unnest(v_teams) AS team_id));
END $$;
GRANT EXECUTE ON FUNCTION organization_usage TO llm_jobs_application;

-- One row for each team, day and job type, for tables, in this order: at most `p_limit` rows after the one that the
-- parameters `p_after_…` name; NULL: from the first, and all of them.
CREATE OR REPLACE FUNCTION usage_rows(
    p_organization_id text, p_team_id text, p_from date, p_to date,
    p_limit bigint DEFAULT NULL, p_after_team text DEFAULT NULL, p_after_day date DEFAULT NULL,
    p_after_job_type text DEFAULT NULL
) RETURNS json LANGUAGE plpgsql STABLE
SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    v_team_id text;
    v_rows json[] := '{}';
BEGIN
    IF p_team_id IS NULL THEN
        PERFORM get_organization(p_organization_id);
    ELSE
        PERFORM existing_team(p_team_id, p_deleted => true);
    END IF;
    -- Team by team, so that a page reads no more than its rows, whatever else there is.
    FOR v_team_id IN
        SELECT team_id FROM teams
        WHERE (team_id = p_team_id OR p_team_id IS NULL AND organization_id = p_organization_id)
          AND team_id >= coalesce(p_after_team, '') ORDER BY team_id
    LOOP
        EXIT WHEN cardinality(v_rows) >= p_limit;
        v_rows := v_rows || ARRAY(
            SELECT json_build_object(
                'day', day, 'team_id', team_id, 'job_type', job_type,
                'jobs', opened_jobs, 'successful_jobs', completed, 'failed_jobs', failed,
                'charged_jobs', charged_jobs, 'free_jobs_with_output', free_jobs_with_output,
                'credits_used', credits_charged, 'calls', calls, 'refused_calls', refused_calls,
                'tokens', tokens, 'cost_usd', cost_usd, 'revenue_usd', revenue_usd)
            FROM usage_days
            WHERE team_id = v_team_id AND day < p_to
              AND (day, job_type) > (CASE WHEN v_team_id = p_after_team THEN p_after_day ELSE p_from END,
                                     CASE WHEN v_team_id = p_after_team THEN p_after_job_type ELSE '' END)
            ORDER BY day, job_type LIMIT p_limit - cardinality(v_rows));
    END LOOP;
    RETURN array_to_json(v_rows);
END $$;
GRANT EXECUTE ON FUNCTION usage_rows TO llm_jobs_application;

-- The figures that /metrics prints.
CREATE OR REPLACE FUNCTION metrics() RETURNS json LANGUAGE sql STABLE
SECURITY DEFINER SET search_path FROM CURRENT AS $$
    SELECT json_build_object(
        'jobs', (SELECT json_build_object('created', coalesce(sum(created), 0),
                                          'completed', coalesce(sum(completed), 0),
                                          'failed', coalesce(sum(failed), 0), 'cancelled', coalesce(sum(cancelled), 0),
                                          'expired', coalesce(sum(expired), 0),
                                          'free_with_output', coalesce(sum(free_with_output), 0),
                                          'lost_settlements', coalesce(sum(lost_settlements), 0)) FROM job_totals),
        'credits', (SELECT json_build_object('allocated', coalesce(sum(allocated), 0), 'used', coalesce(sum(used), 0),
                                             'reserved', coalesce(sum(held), 0)) FROM credit_accounts),
        'latency_bounds', latency_bounds(),
        'upkeep', (SELECT coalesce(json_agg(json_build_object('step', step, 'succeeded_at', seconds)
                                            ORDER BY step), '[]')
                   FROM upkeep_steps, floor(extract(epoch FROM succeeded_at)) AS seconds),
        'calls', (SELECT coalesce(json_agg(json_build_object(
                'model_group', model_group, 'succeeded', succeeded, 'failed', failed, 'refused', refused,
                'cancelled', cancelled, 'abandoned', abandoned, 'tokens', tokens, 'cost_usd', cost_usd,
                'latency_ms', latency_ms, 'latency_counts', latency_counts) ORDER BY model_group), '[]')
            FROM (
                SELECT model_group, sum(succeeded) AS succeeded, sum(failed) AS failed, sum(refused) AS refused,
                       sum(cancelled) AS cancelled, sum(abandoned) AS abandoned, sum(tokens) AS tokens,
                       sum(cost_usd) AS cost_usd, sum(latency_ms) AS latency_ms,
                       (SELECT array_agg(total ORDER BY place) FROM (
                            SELECT place, sum(number) AS total
                            FROM call_totals s, unnest(s.latency_counts) WITH ORDINALITY AS counts (number, place)
                            WHERE s.model_group = t.model_group GROUP BY place) AS places) AS latency_counts
                FROM call_totals t GROUP BY model_group) AS groups))
$$;
GRANT EXECUTE ON FUNCTION metrics TO llm_jobs_application;
