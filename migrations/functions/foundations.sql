-- What the functions of the other files share.
--
-- Expected failures leave SQL as these SQLSTATEs; the message is written for the caller. `shared/src/error.rs` maps
-- them to answers.
--   LJ001 unauthenticated        LJ006 not_found                LJ011 in_use
--   LJ002 wrong_team             LJ007 already_exists           LJ012 idempotency_mismatch
--   LJ003 team_suspended         LJ008 job_finished             LJ013 idempotency_in_progress
--   LJ004 model_group_denied     LJ009 in_progress              LJ000 a defect of this application
--   LJ005 insufficient_credits   LJ010 invalid_request          LJ014 rate_limited
--   LJ015 too_many_calls         LJ016 job_limit                LJ017 refund_exceeds_charge
--
-- All functions take locks in this order, so that they can't deadlock: idempotency key, virtual key, job, call,
-- account, team, and then the counters: usage_days, job_totals, usage_models, call_totals, team_rates. Sweeping skips
-- overdue jobs and calls that another transaction has locked.

-- Functions that every request runs are in PL/pgSQL, whose plans are cached by each connection; SQL functions that are
-- not inlined are planned at every call.
CREATE OR REPLACE FUNCTION fail(p_sqlstate text, p_message text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = p_sqlstate, MESSAGE = p_message;
END $$;

-- Like `fail`, and says after how many seconds a retry may succeed.
CREATE OR REPLACE FUNCTION fail(p_sqlstate text, p_message text, p_seconds integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = p_sqlstate, MESSAGE = p_message, DETAIL = p_seconds;
END $$;

-- The day (UTC) on which what this transaction does counts.
CREATE OR REPLACE FUNCTION today() RETURNS date LANGUAGE sql STABLE AS $$
    SELECT (now() AT TIME ZONE 'UTC')::date
$$;

-- RFC 3339 in UTC with microseconds, like every time in the API.
CREATE OR REPLACE FUNCTION rfc3339(p_time timestamptz) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT to_char(p_time AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
$$;

-- A UUIDv7 (RFC 9562): 48 bits of milliseconds, then random bits. PostgreSQL has its own function from version 18 on.
CREATE OR REPLACE FUNCTION uuid_v7() RETURNS uuid LANGUAGE sql VOLATILE AS $$
    SELECT encode(
        set_bit(set_bit(
            overlay(uuid_send(gen_random_uuid())
                PLACING substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3)
                FROM 1 FOR 6),
            52, 1), 53, 1),
        'hex')::uuid
$$;

-- `p_id`, which the application chose so that it can send a statement again without creating a second row. An id counts
-- by the moment that it begins with, so one that is more than five minutes off this server's clock is replaced by a new
-- one, and so is NULL.
CREATE OR REPLACE FUNCTION id_or_new(p_id uuid) RETURNS uuid LANGUAGE plpgsql AS $$
BEGIN
    IF p_id BETWEEN uuid_v7_floor(now() - interval '5 minutes') AND uuid_v7_floor(now() + interval '5 minutes') THEN
        RETURN p_id;
    END IF;
    RETURN uuid_v7();
END $$;

-- The smallest UUIDv7 of a moment: jobs created from that moment on have greater ids.
CREATE OR REPLACE FUNCTION uuid_v7_floor(p_time timestamptz) RETURNS uuid LANGUAGE sql STABLE AS $$
    SELECT encode(
        substring(int8send((extract(epoch FROM p_time) * 1000)::bigint) FROM 3) || '\x70008000000000000000'::bytea,
        'hex')::uuid
$$;

-- The two objects merged; a member that both have is taken from the second. If one of them is empty, the text of the
-- other is unchanged.
CREATE OR REPLACE FUNCTION merged(p_first json, p_second json) RETURNS json LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN NOT EXISTS (SELECT FROM json_object_keys(p_second)) THEN p_first
        WHEN NOT EXISTS (SELECT FROM json_object_keys(p_first)) THEN p_second
        ELSE (SELECT json_object_agg(key, value)
              FROM (SELECT key, value FROM json_each(p_first) WHERE key NOT IN (SELECT json_object_keys(p_second))
                    UNION ALL
                    SELECT key, value FROM json_each(p_second)) AS members)
    END
$$;
