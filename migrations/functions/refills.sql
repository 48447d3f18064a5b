-- Automatic refills.

-- The time at which the `p_number`-th refill after `p_start` is due. Months are counted from the start, so a refill on
-- the 31st is on the 31st again after February.
CREATE OR REPLACE FUNCTION refill_time(p_start timestamptz, p_period text, p_number bigint)
RETURNS timestamptz LANGUAGE sql STABLE AS $$
    SELECT (p_start AT TIME ZONE 'UTC' + p_number * CASE p_period
        WHEN 'daily' THEN interval '1 day' WHEN 'weekly' THEN interval '7 days' ELSE interval '1 month' END)
        AT TIME ZONE 'UTC'
$$;

-- Makes the refills that are due, each once. Those that fall due while the team is suspended are skipped.
CREATE OR REPLACE FUNCTION refill(p_team_id text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_account credit_accounts;
    v_suspended boolean;
    v_change bigint;
BEGIN
    LOOP
        SELECT * INTO v_account FROM credit_accounts
        WHERE team_id = p_team_id AND refill_due <= now() FOR NO KEY UPDATE;
        EXIT WHEN NOT FOUND;
        -- The status changes only while the account is locked.
        SELECT status = 'suspended' INTO v_suspended FROM teams WHERE team_id = p_team_id;
        v_change := CASE WHEN v_suspended THEN 0 ELSE refill_change(v_account) END;
        IF v_change <> 0 THEN
            PERFORM post_transaction(
                p_team_id, CASE WHEN v_change > 0 THEN 'refill' ELSE 'expiry' END, v_change,
                format('Automatic %s refill', v_account.refill_period), NULL,
                json_build_object('due', rfc3339(v_account.refill_due)));
        END IF;
        UPDATE credit_accounts
        SET refills = refills + 1, refill_due = refill_time(refill_start, refill_period, refills + 2)
        WHERE team_id = p_team_id;
    END LOOP;
END $$;

-- What the next refill changes: it adds the amount, up to a remaining of the cap, or makes the amount the remaining.
CREATE OR REPLACE FUNCTION refill_change(a credit_accounts) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN a.refill_mode = 'reset_to' THEN a.refill_amount - (a.allocated - a.used)
        WHEN a.refill_cap IS NULL THEN a.refill_amount
        ELSE least(a.refill_amount, greatest(0, a.refill_cap - (a.allocated - a.used))) END
$$;

-- Setting the same period again leaves the schedule as it is; another period, or enabling refills, starts a new
-- schedule now. Disabling keeps the values that are not given.
CREATE OR REPLACE FUNCTION configure_auto_refill(
    p_team_id text, p_enabled boolean, p_amount bigint, p_period text, p_usd_per_credit numeric,
    p_mode text DEFAULT 'add', p_cap bigint DEFAULT NULL
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
    ELSE
        UPDATE credit_accounts
        SET refill_amount = p_amount, refill_mode = p_mode, refill_cap = p_cap
        WHERE team_id = p_team_id RETURNING * INTO v_account;
        IF v_account.refill_due IS NULL OR v_account.refill_period <> p_period THEN
            UPDATE credit_accounts
            SET refill_period = p_period, refill_start = now(), refills = 0,
                refill_due = refill_time(now(), p_period, 1)
            WHERE team_id = p_team_id RETURNING * INTO v_account;
        END IF;
    END IF;
    PERFORM set_usd_per_credit(p_team_id, p_usd_per_credit);
    RETURN refill_json(v_account);
END $$;
GRANT EXECUTE ON FUNCTION configure_auto_refill TO llm_jobs_application;

CREATE OR REPLACE FUNCTION refill_json(a credit_accounts) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT json_build_object(
        'team_id', a.team_id, 'auto_refill_enabled', a.refill_due IS NOT NULL, 'refill_amount', a.refill_amount,
        'refill_period', a.refill_period, 'refill_mode', a.refill_mode, 'refill_cap', a.refill_cap,
        'next_refill_at', rfc3339(a.refill_due),
        'message', CASE WHEN a.refill_due IS NULL THEN 'Auto-refill disabled successfully'
                        ELSE 'Auto-refill enabled successfully' END)
$$;
