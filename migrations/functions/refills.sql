-- Automatic refills.

-- The time at which the `p_number`-th refill after `p_start` is due. Months are counted from the start, so a refill on
-- the 31st is on the 31st again after February.
CREATE OR REPLACE FUNCTION refill_time(p_start timestamptz, p_period text, p_number bigint)
RETURNS timestamptz LANGUAGE sql STABLE AS $$
    SELECT (p_start AT TIME ZONE 'UTC' + p_number * CASE p_period
        WHEN 'daily' THEN interval '1 day' WHEN 'weekly' THEN interval '7 days' ELSE interval '1 month' END)
        AT TIME ZONE 'UTC'
$$;

-- Makes the refills that are due, each once, and raises the team's budget in LiteLLM, which is synchronized before the
-- team's next call.
CREATE OR REPLACE FUNCTION refill(p_team_id text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_account credit_accounts;
BEGIN
    LOOP
        SELECT * INTO v_account FROM credit_accounts
        WHERE team_id = p_team_id AND refill_due <= now() FOR NO KEY UPDATE;
        EXIT WHEN NOT FOUND;
        PERFORM post_transaction(p_team_id, 'refill', v_account.refill_amount,
                                 format('Automatic %s refill', v_account.refill_period),
                                 NULL, json_build_object('due', rfc3339(v_account.refill_due)));
        UPDATE credit_accounts
        SET refills = refills + 1, refill_due = refill_time(refill_start, refill_period, refills + 2)
        WHERE team_id = p_team_id;
        UPDATE teams
        SET litellm_max_budget = litellm_max_budget + v_account.refill_amount * v_account.refill_usd_per_credit,
            litellm_version = litellm_version + 1
        WHERE team_id = p_team_id;
    END LOOP;
END $$;

-- Setting the same period again leaves the schedule as it is; another period, or enabling refills, starts a new
-- schedule now.
CREATE OR REPLACE FUNCTION configure_auto_refill(
    p_team_id text, p_enabled boolean, p_amount bigint, p_period text, p_usd_per_credit numeric
) RETURNS json LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    v_account credit_accounts;
BEGIN
    PERFORM existing_team(p_team_id);
    PERFORM sweep_team(p_team_id);
    SELECT * INTO v_account FROM credit_accounts WHERE team_id = p_team_id FOR NO KEY UPDATE;
    IF NOT p_enabled THEN
        UPDATE credit_accounts
        SET refill_amount = coalesce(p_amount, refill_amount), refill_period = coalesce(p_period, refill_period),
            refill_due = NULL
        WHERE team_id = p_team_id RETURNING * INTO v_account;
    ELSIF v_account.refill_due IS NOT NULL AND v_account.refill_period = p_period THEN
        UPDATE credit_accounts SET refill_amount = p_amount, refill_usd_per_credit = p_usd_per_credit
        WHERE team_id = p_team_id RETURNING * INTO v_account;
    ELSE
        UPDATE credit_accounts
        SET refill_amount = p_amount, refill_period = p_period, refill_start = now(), refills = 0,
            refill_due = refill_time(now(), p_period, 1), refill_usd_per_credit = p_usd_per_credit
        WHERE team_id = p_team_id RETURNING * INTO v_account;
    END IF;
    RETURN refill_json(v_account);
END $$;
GRANT EXECUTE ON FUNCTION configure_auto_refill TO llm_jobs_application;

CREATE OR REPLACE FUNCTION refill_json(a credit_accounts) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT json_build_object(
        'team_id', a.team_id, 'auto_refill_enabled', a.refill_due IS NOT NULL, 'refill_amount', a.refill_amount,
        'refill_period', a.refill_period, 'next_refill_at', rfc3339(a.refill_due),
        'message', CASE WHEN a.refill_due IS NULL THEN 'Auto-refill disabled successfully'
                        ELSE 'Auto-refill enabled successfully' END)
$$;
