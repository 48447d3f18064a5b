-- Credits: the ledger, the account that projects it, and the holds of open jobs.

CREATE FUNCTION transaction_json(x credit_transactions) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT json_build_object(
        'transaction_id', x.transaction_id, 'team_id', x.team_id, 'transaction_type', x.transaction_type,
        -- The type gives the direction, as in the guides; an adjustment goes both ways and keeps its sign.
        'credits_amount', CASE x.transaction_type WHEN 'adjustment' THEN x.change ELSE abs(x.change) END,
        'balance_before', x.balance_after - x.change, 'balance_after', x.balance_after,
        'reason', x.reason, 'job_id', x.job_id, 'metadata', x.metadata, 'created_at', rfc3339(x.created_at))
$$;

-- Writes one ledger row and its effect on the account. The only place where a balance changes.
CREATE FUNCTION post_transaction(
    p_team_id text, p_type text, p_change bigint, p_reason text, p_job_id uuid, p_metadata json
) RETURNS credit_transactions LANGUAGE plpgsql AS $$
DECLARE
    v_account credit_accounts;
    v_row credit_transactions;
BEGIN
    UPDATE credit_accounts
    SET allocated = allocated + CASE p_type WHEN 'deduction' THEN 0 ELSE p_change END,
        used = used - CASE p_type WHEN 'deduction' THEN p_change ELSE 0 END,
        -- A deduction is what the hold of its job was for.
        held = held - CASE p_type WHEN 'deduction' THEN 1 ELSE 0 END,
        entries = entries + 1
    WHERE team_id = p_team_id
    RETURNING * INTO STRICT v_account;
    INSERT INTO credit_transactions
        (team_id, entry, transaction_id, transaction_type, change, balance_after, reason, job_id, metadata)
    VALUES (p_team_id, v_account.entries, uuid_v7(), p_type, p_change, v_account.allocated - v_account.used,
            p_reason, p_job_id, p_metadata)
    RETURNING * INTO v_row;
    RETURN v_row;
END $$;

-- Ends what is overdue in a team: jobs past their deadline expire and give back their hold, calls past theirs are abandoned.
-- Everything that shows or uses a team's credits begins with it. Costs two index look-ups when nothing is due.
CREATE FUNCTION sweep_team(p_team_id text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_expired bigint;
BEGIN
    UPDATE calls SET status = 'abandoned', ended_at = deadline
    WHERE call_id IN (SELECT call_id FROM calls WHERE team_id = p_team_id AND status = 'open' AND deadline <= now()
                      FOR UPDATE SKIP LOCKED);
    UPDATE jobs SET status = 'expired', completed_at = expires_at
    WHERE job_id IN (SELECT job_id FROM jobs
                     WHERE team_id = p_team_id AND status IN ('pending', 'in_progress') AND expires_at <= now()
                     FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS v_expired = ROW_COUNT;
    IF v_expired > 0 THEN
        UPDATE credit_accounts SET held = held - v_expired WHERE team_id = p_team_id;
    END IF;
END $$;

-- Adds credits, and raises LiteLLM's budget by `p_usd_per_credit` for each; a team without a budget there keeps none.
CREATE FUNCTION add_credits(p_team_id text, p_amount bigint, p_reason text, p_metadata json, p_usd_per_credit numeric)
RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    v_row credit_transactions;
BEGIN
    PERFORM existing_team(p_team_id);
    v_row := post_transaction(p_team_id, 'allocation', p_amount, p_reason, NULL, p_metadata);
    UPDATE teams SET litellm_max_budget = litellm_max_budget + p_amount * p_usd_per_credit,
                     litellm_version = litellm_version + 1
    WHERE team_id = p_team_id;
    RETURN json_build_object(
        'added', json_build_object('team_id', p_team_id, 'credits_added', p_amount, 'credits_remaining', v_row.balance_after,
                                   'transaction', transaction_json(v_row)),
        'litellm', litellm_wanted(p_team_id));
END $$;

CREATE FUNCTION get_balance(p_team_id text) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    v_balance json;
BEGIN
    PERFORM existing_team(p_team_id);
    PERFORM sweep_team(p_team_id);
    SELECT json_build_object(
        'team_id', team_id, 'credits_allocated', allocated, 'credits_used', used, 'credits_remaining', allocated - used,
        'credits_reserved', held, 'credits_available', allocated - used - held,
        'budget_mode', budget_mode, 'credit_limit', credit_limit, 'auto_refill', false)
    INTO v_balance
    FROM credit_accounts WHERE team_id = p_team_id;
    RETURN v_balance;
END $$;

-- Whether `p_required` credits could be held now, by the rule that creating a job goes by.
CREATE FUNCTION check_credits(p_team_id text, p_required bigint) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    v_answer json;
BEGIN
    PERFORM existing_team(p_team_id);
    PERFORM sweep_team(p_team_id);
    SELECT json_build_object(
        'team_id', team_id, 'available', enough, 'has_credits', enough, 'credits_required', p_required,
        'credits_remaining', allocated - used, 'credits_available', allocated - used - held)
    INTO v_answer
    FROM (SELECT *, coalesce(allocated - used - held - p_required >= floor, true) AS enough FROM credit_accounts) AS account
    WHERE team_id = p_team_id;
    RETURN v_answer;
END $$;

-- Newest first.
CREATE FUNCTION list_transactions(p_team_id text, p_limit bigint, p_offset bigint) RETURNS json LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_total bigint;
BEGIN
    PERFORM existing_team(p_team_id);
    SELECT entries INTO v_total FROM credit_accounts WHERE team_id = p_team_id;
    RETURN json_build_object(
        'team_id', p_team_id, 'total', v_total, 'total_transactions', v_total,
        'transactions', (SELECT coalesce(json_agg(transaction_json(x) ORDER BY x.entry DESC), '[]')
                         FROM credit_transactions x
                         -- Entries are numbered without gaps, so a page is a range of numbers.
                         WHERE x.team_id = p_team_id AND x.entry <= v_total - p_offset
                           AND x.entry > v_total - p_offset - p_limit));
END $$;
