-- What the functions of the other files share.
--
-- Domain failures leave SQL as these SQLSTATEs; the message is written for the caller. `shared/src/error.rs` maps them to answers.
--   LJ001 unauthenticated        LJ006 not_found                LJ011 in_use
--   LJ002 wrong_team             LJ007 already_exists           LJ012 idempotency_mismatch
--   LJ003 team_suspended         LJ008 job_finished             LJ013 idempotency_in_progress
--   LJ004 model_group_denied     LJ009 in_progress              LJ000 a defect of ours
--   LJ005 insufficient_credits   LJ010 invalid_request
--
-- Locks are taken in this order, so that no two functions can wait for each other: idempotency key, virtual key, job, call,
-- account, team, then what is counted: usage_days, job_totals, usage_models, call_totals. What is overdue is skipped where
-- another has it.

-- What every request runs is in PL/pgSQL, whose plans each connection keeps; those of SQL functions are made anew by every call.
CREATE OR REPLACE FUNCTION fail(p_sqlstate text, p_message text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = p_sqlstate, MESSAGE = p_message;
END $$;

-- RFC 3339 in UTC with microseconds, as every time in the API.
CREATE OR REPLACE FUNCTION rfc3339(p_time timestamptz) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT to_char(p_time AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
$$;

-- A UUID of version 7 (RFC 9562): 48 bits of milliseconds, then random bits. PostgreSQL has its own from version 18 on.
CREATE OR REPLACE FUNCTION uuid_v7() RETURNS uuid LANGUAGE sql VOLATILE AS $$
    SELECT encode(
        set_bit(set_bit(
            overlay(uuid_send(gen_random_uuid())
                PLACING substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3)
                FROM 1 FOR 6),
            52, 1), 53, 1),
        'hex')::uuid
$$;

-- An id that the application chose, so that a statement whose answer got lost can be sent again without being another one. The
-- moment that an id begins with counts, so one by a clock that is far from this server's is replaced by a new one, as NULL is.
CREATE OR REPLACE FUNCTION id_or_new(p_id uuid) RETURNS uuid LANGUAGE plpgsql AS $$
BEGIN
    IF p_id BETWEEN uuid_v7_floor(now() - interval '5 minutes') AND uuid_v7_floor(now() + interval '5 minutes') THEN
        RETURN p_id;
    END IF;
    RETURN uuid_v7();
END $$;

-- The smallest UUIDv7 of a moment: jobs created from then on have greater ids.
CREATE OR REPLACE FUNCTION uuid_v7_floor(p_time timestamptz) RETURNS uuid LANGUAGE sql STABLE AS $$
    SELECT encode(substring(int8send((extract(epoch FROM p_time) * 1000)::bigint) FROM 3) || '\x70008000000000000000'::bytea, 'hex')::uuid
$$;

-- The two objects as one; where both have a member, the second's counts. An object to which nothing is added keeps its text.
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
