-- Limits of what a team may have open and call in a minute. NULL is no limit.

-- How many more calls of a job are open than the one that its reservation stands for.
CREATE OR REPLACE FUNCTION extra_calls(p_status text, p_open_calls bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN p_status IN ('pending', 'in_progress') THEN greatest(p_open_calls - 1, 0) ELSE p_open_calls END
$$;

-- `p_open_of_job`: the open calls of the job to which a call was added, including that one. The open calls of the team
-- are only counted where there may be too many: `held + extra_calls` is never less than their number. Those who count
-- wait for each other. The account is only changed where a job has several open calls, so that other calls of a team
-- don't wait.
CREATE OR REPLACE FUNCTION check_open_calls(p_team_id text, p_open_of_job bigint, p_open_calls bigint)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_most bigint;
    v_open bigint;
BEGIN
    IF p_open_of_job > 1 THEN
        UPDATE credit_accounts SET extra_calls = extra_calls + 1
        WHERE team_id = p_team_id RETURNING held + extra_calls INTO v_most;
    ELSE
        SELECT held + extra_calls INTO v_most FROM credit_accounts WHERE team_id = p_team_id;
    END IF;
    IF v_most > p_open_calls THEN
        PERFORM FROM credit_accounts WHERE team_id = p_team_id FOR NO KEY UPDATE;
        -- No job is open for longer than 30 days, so older months need not be searched.
        SELECT count(*) INTO v_open FROM calls
        WHERE team_id = p_team_id AND status = 'open' AND deadline > now()
          AND job_id >= uuid_v7_floor(now() - interval '32 days');
        IF v_open > p_open_calls THEN
            PERFORM fail('LJ015', format('open_calls: team ''%s'' may have at most %s open calls',
                                         p_team_id, p_open_calls), 1);
        END IF;
    END IF;
END $$;

-- Counts a call against the limits of the team's calls and tokens in a minute of the clock. Tokens count when a call is
-- settled, so the calls that are open then are not limited by each other's.
CREATE OR REPLACE FUNCTION count_request(p_team_id text, p_calls bigint, p_tokens bigint)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_row team_rates;
    v_seconds integer;
BEGIN
    INSERT INTO team_rates AS r (team_id, minute, calls, tokens)
    VALUES (p_team_id, date_trunc('minute', clock_timestamp()), 1, 0)
    ON CONFLICT (team_id) DO UPDATE SET
        minute = greatest(r.minute, excluded.minute),
        calls = CASE WHEN r.minute < excluded.minute THEN 0 ELSE r.calls END + 1,
        tokens = CASE WHEN r.minute < excluded.minute THEN 0 ELSE r.tokens END
    RETURNING * INTO v_row;
    v_seconds := greatest(1, ceil(extract(epoch FROM v_row.minute + interval '1 minute' - clock_timestamp())));
    IF v_row.calls > p_calls THEN
        PERFORM fail('LJ014', format('rpm_limit: team ''%s'' may make at most %s calls a minute', p_team_id, p_calls),
                     v_seconds);
    ELSIF v_row.tokens >= p_tokens THEN
        PERFORM fail('LJ014', format('tpm_limit: team ''%s'' may use at most %s tokens a minute', p_team_id, p_tokens),
                     v_seconds);
    END IF;
END $$;

CREATE OR REPLACE FUNCTION count_tokens(p_team_id text, p_tokens bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_minute timestamptz := date_trunc('minute', clock_timestamp());
BEGIN
    -- Only teams with a limit have a row.
    UPDATE team_rates
    SET minute = greatest(minute, v_minute),
        calls = CASE WHEN minute < v_minute THEN 0 ELSE calls END,
        tokens = CASE WHEN minute < v_minute THEN 0 ELSE tokens END + p_tokens
    WHERE team_id = p_team_id;
END $$;

-- What a call of a model group costs on the average now; 0 if none has had a cost yet. `p_known` is what was counted
-- before; NULL: nothing. Only one transaction at a time counts for all, and nobody waits for it: meanwhile the others
-- take what is known, and count for themselves if that is nothing.
CREATE OR REPLACE FUNCTION count_mean_cost(p_model_group text, p_known numeric) RETURNS numeric LANGUAGE plpgsql AS $$
DECLARE
    v_for_all boolean := pg_try_advisory_xact_lock(hashtext('group_costs'), hashtext(p_model_group));
    v_mean numeric;
BEGIN
    IF p_known > 0 AND NOT v_for_all THEN
        RETURN p_known;
    END IF;
    SELECT coalesce(round(sum(cost_usd) / nullif(sum(priced), 0), 12), 0) INTO v_mean
    FROM call_totals WHERE model_group = p_model_group;
    IF v_for_all THEN
        INSERT INTO group_costs (model_group, mean_cost_usd, counted_at) VALUES (p_model_group, v_mean, now())
        ON CONFLICT (model_group) DO UPDATE SET
            mean_cost_usd = excluded.mean_cost_usd, counted_at = excluded.counted_at;
    END IF;
    RETURN v_mean;
END $$;
