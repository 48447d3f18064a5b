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
    v_percent integer;
BEGIN
    UPDATE credit_accounts
    SET allocated = allocated + CASE p_type WHEN 'deduction' THEN 0 ELSE p_change END,
        used = used - CASE p_type WHEN 'deduction' THEN p_change ELSE 0 END,
        -- A deduction is what the hold of its job was for.
        held = held - CASE p_type WHEN 'deduction' THEN 1 ELSE 0 END,
        -- A consumption is charged in full, however little is left. An adjustment has to fit in.
        overdraft = CASE WHEN p_type = 'adjustment' AND p_change < 0 THEN overdraft ELSE greatest(0, floor - (allocated - used - held)
            - p_change - CASE p_type WHEN 'deduction' THEN 1 ELSE 0 END) END,
        entries = entries + 1
    WHERE team_id = p_team_id
    RETURNING * INTO STRICT v_account;
    INSERT INTO credit_transactions
        (team_id, entry, transaction_id, transaction_type, change, balance_after, reason, job_id, metadata)
    VALUES (p_team_id, v_account.entries, uuid_v7(), p_type, p_change, v_account.allocated - v_account.used,
            p_reason, p_job_id, p_metadata)
    RETURNING * INTO v_row;
    FOREACH v_percent IN ARRAY ARRAY[80, 100] LOOP
        IF v_account.used * 100 >= v_account.allocated * v_percent
            AND (v_account.used + CASE p_type WHEN 'deduction' THEN p_change ELSE 0 END) * 100
                < (v_account.allocated - CASE p_type WHEN 'deduction' THEN 0 ELSE p_change END) * v_percent THEN
            PERFORM raise_alert(p_team_id, format('credits_%s_percent', v_percent),
                format('Team ''%s'' has used %s of its %s credits', p_team_id, v_account.used, v_account.allocated),
                json_build_object('percent', v_percent, 'credits_allocated', v_account.allocated, 'credits_used', v_account.used));
        END IF;
    END LOOP;
    RETURN v_row;
END $$;

-- Ends what is overdue in a team: jobs past their deadline expire and give back their hold, calls past theirs are abandoned, and
-- automatic refills that are due are made, one for each period. Everything that shows or uses a team's credits begins with it.
-- Costs three index look-ups when nothing is due. Answers how many jobs expired.
CREATE FUNCTION sweep_team(p_team_id text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    -- No job is open for longer than 30 days: older months need no look.
    v_oldest uuid := uuid_v7_floor(now() - interval '32 days');
    v_groups text[];
    v_of_calls uuid[];
    v_jobs uuid[];
BEGIN
    IF NOT something_is_overdue(p_team_id, v_oldest) THEN
        RETURN 0;
    END IF;
    -- Before anything that is counted, which others do while they have the account.
    PERFORM FROM credit_accounts WHERE team_id = p_team_id FOR NO KEY UPDATE;
    WITH overdue AS (
        SELECT job_id, call_id FROM calls
        WHERE team_id = p_team_id AND status = 'open' AND deadline <= now() AND job_id >= v_oldest
        FOR UPDATE SKIP LOCKED
    ), ended AS (
        UPDATE calls c SET status = 'abandoned', ended_at = c.deadline
        FROM overdue o WHERE c.job_id = o.job_id AND c.call_id = o.call_id AND c.job_id >= v_oldest
        RETURNING c.model_group, c.job_id
    )
    SELECT array_agg(model_group), array_agg(job_id) INTO v_groups, v_of_calls FROM ended;

    WITH overdue AS (
        SELECT job_id FROM jobs
        WHERE team_id = p_team_id AND status IN ('pending', 'in_progress') AND expires_at <= now() AND job_id >= v_oldest
        FOR UPDATE SKIP LOCKED
    ), ended AS (
        UPDATE jobs j SET status = 'expired', completed_at = j.expires_at
        FROM overdue o WHERE j.job_id = o.job_id AND j.job_id >= v_oldest
        RETURNING j.job_id
    )
    SELECT array_agg(job_id) INTO v_jobs FROM ended;
    IF v_jobs IS NOT NULL THEN
        UPDATE credit_accounts SET held = held - cardinality(v_jobs),
            overdraft = greatest(0, floor - (allocated - used - held) - cardinality(v_jobs))
        WHERE team_id = p_team_id;
    END IF;
    PERFORM refill(p_team_id) FROM credit_accounts WHERE team_id = p_team_id AND refill_due <= now();
    IF v_jobs IS NOT NULL OR v_of_calls IS NOT NULL THEN
        PERFORM count_overdue(p_team_id, v_jobs, v_of_calls, v_oldest);
    END IF;
    IF v_groups IS NOT NULL THEN
        PERFORM count_closed_calls(v_groups, true);
    END IF;
    RETURN coalesce(cardinality(v_jobs), 0);
END $$;

CREATE FUNCTION something_is_overdue(p_team_id text, p_oldest uuid) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN EXISTS (SELECT FROM jobs WHERE team_id = p_team_id AND status IN ('pending', 'in_progress') AND expires_at <= now()
                   AND job_id >= p_oldest)
        OR EXISTS (SELECT FROM calls WHERE team_id = p_team_id AND status = 'open' AND deadline <= now() AND job_id >= p_oldest)
        OR EXISTS (SELECT FROM credit_accounts WHERE team_id = p_team_id AND refill_due <= now());
END $$;

-- The same for several teams. Their accounts are locked first, so that nobody waits for one who waits for the next.
CREATE FUNCTION sweep_teams(p_teams text[]) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    v_oldest uuid := uuid_v7_floor(now() - interval '32 days');
    v_due text[] := ARRAY(SELECT team_id FROM unnest(p_teams) AS team_id WHERE something_is_overdue(team_id, v_oldest));
BEGIN
    PERFORM FROM credit_accounts WHERE team_id = ANY (v_due) ORDER BY team_id FOR NO KEY UPDATE;
    RETURN (SELECT coalesce(sum(sweep_team(team_id)), 0) FROM (SELECT unnest(v_due) AS team_id ORDER BY 1) AS due);
END $$;

-- When the `p_number`-th refill after `p_start` is due. Months are counted from the start, so a 31st comes back after February.
CREATE FUNCTION refill_time(p_start timestamptz, p_period text, p_number bigint) RETURNS timestamptz LANGUAGE sql STABLE AS $$
    SELECT (p_start AT TIME ZONE 'UTC' + p_number * CASE p_period
        WHEN 'daily' THEN interval '1 day' WHEN 'weekly' THEN interval '7 days' ELSE interval '1 month' END) AT TIME ZONE 'UTC'
$$;

-- Makes the refills that are due, each once, and raises LiteLLM's budget by them: told with the team's next call.
CREATE FUNCTION refill(p_team_id text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_account credit_accounts;
BEGIN
    LOOP
        SELECT * INTO v_account FROM credit_accounts WHERE team_id = p_team_id AND refill_due <= now() FOR NO KEY UPDATE;
        EXIT WHEN NOT FOUND;
        PERFORM post_transaction(p_team_id, 'refill', v_account.refill_amount, format('Automatic %s refill', v_account.refill_period),
                                 NULL, json_build_object('due', rfc3339(v_account.refill_due)));
        UPDATE credit_accounts
        SET refills = refills + 1, refill_due = refill_time(refill_start, refill_period, refills + 2)
        WHERE team_id = p_team_id;
        UPDATE teams SET litellm_max_budget = litellm_max_budget + v_account.refill_amount * v_account.refill_usd_per_credit,
                         litellm_version = litellm_version + 1
        WHERE team_id = p_team_id;
    END LOOP;
END $$;

-- The same settings again leave the schedule as it is; another period, or enabling, begins one now.
CREATE FUNCTION configure_auto_refill(
    p_team_id text, p_enabled boolean, p_amount bigint, p_period text, p_usd_per_credit numeric
) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    v_account credit_accounts;
BEGIN
    PERFORM existing_team(p_team_id);
    PERFORM sweep_team(p_team_id);
    SELECT * INTO v_account FROM credit_accounts WHERE team_id = p_team_id FOR NO KEY UPDATE;
    IF NOT p_enabled THEN
        UPDATE credit_accounts
        SET refill_amount = coalesce(p_amount, refill_amount), refill_period = coalesce(p_period, refill_period), refill_due = NULL
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

CREATE FUNCTION refill_json(a credit_accounts) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT json_build_object(
        'team_id', a.team_id, 'auto_refill_enabled', a.refill_due IS NOT NULL, 'refill_amount', a.refill_amount,
        'refill_period', a.refill_period, 'next_refill_at', rfc3339(a.refill_due),
        'message', CASE WHEN a.refill_due IS NULL THEN 'Auto-refill disabled successfully' ELSE 'Auto-refill enabled successfully' END)
$$;

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

-- Corrects a balance, LiteLLM's budget with it. It may not take more than is there to take.
CREATE FUNCTION adjust_credits(p_team_id text, p_change bigint, p_reason text, p_metadata json, p_usd_per_credit numeric)
RETURNS json LANGUAGE plpgsql AS $$
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
    UPDATE teams SET litellm_max_budget = CASE WHEN litellm_max_budget IS NOT NULL
                                             THEN greatest(0, litellm_max_budget + p_change * p_usd_per_credit) END,
                     litellm_version = litellm_version + 1
    WHERE team_id = p_team_id;
    RETURN json_build_object(
        'adjusted', json_build_object('team_id', p_team_id, 'credits_adjusted', p_change, 'credits_remaining', v_row.balance_after,
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
        'budget_mode', budget_mode, 'credit_limit', credit_limit, 'auto_refill', refill_due IS NOT NULL,
        'refill_amount', refill_amount, 'refill_period', refill_period, 'next_refill_at', rfc3339(refill_due))
    INTO v_balance
    FROM credit_accounts WHERE team_id = p_team_id;
    RETURN v_balance;
END $$;

-- Whether `p_required` credits could be held now, by the rule that creating a job goes by. `p_key_id` NULL: the admin asks.
CREATE FUNCTION check_credits(p_team_id text, p_required bigint, p_key_id uuid DEFAULT NULL) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    v_answer json;
BEGIN
    IF p_key_id IS NOT NULL THEN
        PERFORM acting_team(p_key_id);
    END IF;
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

-- Newest first: `p_limit` entries after the first `p_offset`, or below entry `p_before` when that is given.
CREATE FUNCTION list_transactions(p_team_id text, p_limit bigint, p_offset bigint, p_before bigint)
RETURNS json LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_total bigint;
    v_first bigint;
BEGIN
    PERFORM existing_team(p_team_id);
    SELECT entries INTO v_total FROM credit_accounts WHERE team_id = p_team_id;
    -- Entries are numbered without gaps, so a page is a range of numbers.
    v_first := least(v_total - p_offset, p_before - 1);
    RETURN json_build_object(
        'team_id', p_team_id, 'total', v_total, 'total_transactions', v_total,
        'next', CASE WHEN v_first > p_limit THEN v_first - p_limit + 1 END,
        'transactions', (SELECT coalesce(json_agg(transaction_json(x) ORDER BY x.entry DESC), '[]')
                         FROM credit_transactions x
                         WHERE x.team_id = p_team_id AND x.entry <= v_first AND x.entry > v_first - p_limit));
END $$;
