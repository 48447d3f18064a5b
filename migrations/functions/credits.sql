-- Credits: the ledger, and the account, which is a projection of the ledger and of the open jobs' reservations (column
-- `held`).

CREATE OR REPLACE FUNCTION transaction_json(x credit_transactions) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT json_build_object(
        'transaction_id', x.transaction_id, 'team_id', x.team_id, 'transaction_type', x.transaction_type,
        -- The type determines the sign, except that of an adjustment, which goes both ways.
        'credits_amount', CASE x.transaction_type WHEN 'adjustment' THEN x.change ELSE abs(x.change) END,
        'balance_before', x.balance_after - x.change, 'balance_after', x.balance_after,
        'reason', x.reason, 'job_id', x.job_id, 'metadata', x.metadata, 'created_at', rfc3339(x.created_at))
$$;

-- Writes one ledger row and updates the account. The only place where a balance changes. A job's rows change what is
-- used, all others what is allocated.
-- `p_released`: how many reserved credits this uses up, 1 for a job that ends with it. `p_call_id` and `p_settlement`:
-- the settling of a call that this charges for.
CREATE OR REPLACE FUNCTION post_transaction(
    p_team_id text, p_type text, p_change bigint, p_reason text, p_job_id uuid, p_metadata json,
    p_released bigint DEFAULT 0, p_call_id uuid DEFAULT NULL, p_settlement integer DEFAULT NULL
) RETURNS credit_transactions LANGUAGE plpgsql AS $$
DECLARE
    v_used bigint := CASE WHEN p_type IN ('deduction', 'refund') THEN -p_change ELSE 0 END;
    v_allocated bigint := p_change + v_used;
    v_account credit_accounts;
    v_row credit_transactions;
    v_percent integer;
BEGIN
    UPDATE credit_accounts
    SET allocated = allocated + v_allocated, used = used + v_used, held = held - p_released,
        -- Consumption is charged in full, even below the limit. A negative adjustment must stay above it.
        overdraft = CASE WHEN p_type = 'adjustment' AND p_change < 0 THEN overdraft
                         ELSE greatest(0, floor - (allocated - used - held) - p_change - p_released) END,
        entries = entries + 1
    WHERE team_id = p_team_id
    RETURNING * INTO STRICT v_account;
    INSERT INTO credit_transactions
        (team_id, entry, transaction_id, transaction_type, change, balance_after, reason, job_id, metadata,
         call_id, settlement)
    VALUES (p_team_id, v_account.entries, uuid_v7(), p_type, p_change, v_account.allocated - v_account.used,
            p_reason, p_job_id, p_metadata, p_call_id, p_settlement)
    RETURNING * INTO v_row;
    IF v_allocated <> 0 THEN
        -- LiteLLM's budget may depend on what is allocated.
        UPDATE teams t SET litellm_version = litellm_version + 1
        WHERE team_id = p_team_id
          AND litellm_budget(t, v_account.budget_mode, v_account.credit_limit, v_account.allocated)
              IS DISTINCT FROM
              litellm_budget(t, v_account.budget_mode, v_account.credit_limit, v_account.allocated - v_allocated);
    END IF;
    FOREACH v_percent IN ARRAY ARRAY[80, 100] LOOP
        -- Numeric, because the products could overflow.
        IF v_account.used * 100.0 >= v_account.allocated * v_percent::numeric
            AND (v_account.used - v_used) * 100.0 < (v_account.allocated - v_allocated) * v_percent::numeric THEN
            PERFORM raise_alert(p_team_id, format('credits_%s_percent', v_percent),
                format('Team ''%s'' has used %s of its %s credits', p_team_id, v_account.used, v_account.allocated),
                json_build_object('percent', v_percent, 'credits_allocated', v_account.allocated,
                                  'credits_used', v_account.used));
        END IF;
    END LOOP;
    RETURN v_row;
END $$;

-- Adds credits. `p_usd_per_credit` is what a credit is worth in the team's budget in LiteLLM.
CREATE OR REPLACE FUNCTION add_credits(
    p_team_id text, p_amount bigint, p_reason text, p_metadata json, p_usd_per_credit numeric
) RETURNS json LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    v_row credit_transactions;
BEGIN
    PERFORM existing_team(p_team_id);
    v_row := post_transaction(p_team_id, 'allocation', p_amount, p_reason, NULL, p_metadata);
    PERFORM set_usd_per_credit(p_team_id, p_usd_per_credit);
    RETURN json_build_object(
        'added', json_build_object('team_id', p_team_id, 'credits_added', p_amount,
                                   'credits_remaining', v_row.balance_after,
                                   'transaction', transaction_json(v_row)),
        'litellm', litellm_desired_team(p_team_id));
END $$;
GRANT EXECUTE ON FUNCTION add_credits TO llm_jobs_application;

-- Corrects a balance. Fails if it would take more than is available.
CREATE OR REPLACE FUNCTION adjust_credits(
    p_team_id text, p_change bigint, p_reason text, p_metadata json, p_usd_per_credit numeric
) RETURNS json LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    v_row credit_transactions;
    v_available bigint;
    v_floor bigint;
BEGIN
    PERFORM existing_team(p_team_id);
    PERFORM sweep_team(p_team_id);
    SELECT allocated - used - held, floor INTO v_available, v_floor
    FROM credit_accounts WHERE team_id = p_team_id FOR NO KEY UPDATE;
    IF p_change < 0 AND v_available + p_change < v_floor THEN
        PERFORM fail('LJ005', format('Insufficient credits. Required: %s, Available: %s', -p_change, v_available));
    END IF;
    v_row := post_transaction(p_team_id, 'adjustment', p_change, p_reason, NULL, p_metadata);
    PERFORM set_usd_per_credit(p_team_id, p_usd_per_credit);
    RETURN json_build_object(
        'adjusted', json_build_object('team_id', p_team_id, 'credits_adjusted', p_change,
                                      'credits_remaining', v_row.balance_after,
                                      'transaction', transaction_json(v_row)),
        'litellm', litellm_desired_team(p_team_id));
END $$;
GRANT EXECUTE ON FUNCTION adjust_credits TO llm_jobs_application;

CREATE OR REPLACE FUNCTION get_balance(p_team_id text) RETURNS json LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_balance json;
BEGIN
    PERFORM existing_team(p_team_id, p_deleted => true);
    PERFORM sweep_team(p_team_id);
    SELECT json_build_object(
        'team_id', team_id, 'credits_allocated', allocated, 'credits_used', used, 'credits_remaining', allocated - used,
        'credits_reserved', held, 'credits_available', allocated - used - held,
        'budget_mode', budget_mode, 'credit_limit', credit_limit, 'auto_refill', refill_due IS NOT NULL,
        'refill_amount', refill_amount, 'refill_period', refill_period, 'refill_mode', refill_mode,
        'refill_cap', refill_cap, 'next_refill_at', rfc3339(refill_due))
    INTO v_balance
    FROM credit_accounts WHERE team_id = p_team_id;
    RETURN v_balance;
END $$;
GRANT EXECUTE ON FUNCTION get_balance TO llm_jobs_application;

-- Whether `p_required` credits could be reserved now, by the same rule as in `create_job`.
CREATE OR REPLACE FUNCTION check_credits(p_actor text, p_team_id text, p_required bigint) RETURNS json LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_answer json;
BEGIN
    PERFORM acting_team(p_actor);
    PERFORM existing_team(p_team_id);
    PERFORM sweep_team(p_team_id);
    SELECT json_build_object(
        'team_id', team_id, 'available', enough, 'has_credits', enough, 'credits_required', p_required,
        'credits_remaining', allocated - used, 'credits_available', allocated - used - held)
    INTO v_answer
    FROM (SELECT *, coalesce(allocated - used - held - p_required >= floor, true) AS enough
          FROM credit_accounts) AS account
    WHERE team_id = p_team_id;
    RETURN v_answer;
END $$;
GRANT EXECUTE ON FUNCTION check_credits TO llm_jobs_application;

-- Newest first: `p_limit` entries, either after the first `p_offset` or, if `p_before` is given, below that entry.
CREATE OR REPLACE FUNCTION list_transactions(p_team_id text, p_limit bigint, p_offset bigint, p_before bigint)
RETURNS json LANGUAGE plpgsql STABLE
SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    v_total bigint;
    v_first bigint;
BEGIN
    PERFORM existing_team(p_team_id, p_deleted => true);
    SELECT entries INTO v_total FROM credit_accounts WHERE team_id = p_team_id;
    -- Entries are numbered without gaps, so a page is a range of numbers.
    v_first := least(v_total - p_offset, p_before - 1);
    RETURN json_build_object(
        'team_id', p_team_id, 'total', v_total, 'total_transactions', v_total,
        'next_cursor', CASE WHEN v_first > p_limit THEN v_first - p_limit + 1 END,
        'transactions', (SELECT coalesce(json_agg(transaction_json(x) ORDER BY x.entry DESC), '[]')
                         FROM credit_transactions x
                         WHERE x.team_id = p_team_id AND x.entry <= v_first AND x.entry > v_first - p_limit));
END $$;
GRANT EXECUTE ON FUNCTION list_transactions TO llm_jobs_application;
