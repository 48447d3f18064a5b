-- What the functions of the next files share.
--
-- Domain failures leave SQL as these SQLSTATEs; the message is written for the caller. `shared/src/error.rs` maps them to answers.
--   LJ001 unauthenticated        LJ005 insufficient_credits     LJ009 in_progress
--   LJ002 wrong_team             LJ006 not_found                LJ010 invalid_request
--   LJ003 team_suspended         LJ007 already_exists           LJ000 a defect of ours
--   LJ004 model_group_denied     LJ008 job_finished
--
-- Locks are taken in this order, so that no two functions can wait for each other: virtual key, job, account.
-- Calls are locked one at a time, or skipped where another has them.

CREATE FUNCTION fail(p_sqlstate text, p_message text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = p_sqlstate, MESSAGE = p_message;
END $$;

-- RFC 3339 in UTC with microseconds, as every time in the API.
CREATE FUNCTION rfc3339(p_time timestamptz) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT to_char(p_time AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
$$;

-- A UUID of version 7 (RFC 9562): 48 bits of milliseconds, then random bits. PostgreSQL has its own from version 18 on.
CREATE FUNCTION uuid_v7() RETURNS uuid LANGUAGE sql VOLATILE AS $$
    SELECT encode(
        set_bit(set_bit(
            overlay(uuid_send(gen_random_uuid())
                PLACING substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3)
                FROM 1 FOR 6),
            52, 1), 53, 1),
        'hex')::uuid
$$;

-- The two objects as one; where both have a member, the second's counts. An object to which nothing is added keeps its text.
CREATE FUNCTION merged(p_first json, p_second json) RETURNS json LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN NOT EXISTS (SELECT FROM json_object_keys(p_second)) THEN p_first
        WHEN NOT EXISTS (SELECT FROM json_object_keys(p_first)) THEN p_second
        ELSE (SELECT json_object_agg(key, value)
              FROM (SELECT key, value FROM json_each(p_first) WHERE key NOT IN (SELECT json_object_keys(p_second))
                    UNION ALL
                    SELECT key, value FROM json_each(p_second)) AS members)
    END
$$;

-- The key with this digest and its team: {key_id, team_id, status}. NULL when there is no such key, or it is revoked.
CREATE FUNCTION lookup_key(p_key_hash bytea) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT json_build_object('key_id', k.key_id, 'team_id', k.team_id, 'status', t.status)
    FROM virtual_keys k JOIN teams t USING (team_id)
    WHERE k.key_hash = p_key_hash AND k.revoked_at IS NULL AND t.status <> 'creating'
$$;

-- The team that a key may act for now. Every function that changes a team's state on behalf of a key begins with it, so that
-- a key which a cache still believes in changes nothing once it is revoked or its team suspended.
CREATE FUNCTION acting_team(p_key_id uuid) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v_team_id text;
    v_status text;
    v_used timestamptz;
BEGIN
    SELECT k.team_id, t.status, k.last_used_at INTO v_team_id, v_status, v_used
    FROM virtual_keys k JOIN teams t USING (team_id)
    WHERE k.key_id = p_key_id AND k.revoked_at IS NULL AND t.status <> 'creating';
    IF NOT FOUND THEN
        PERFORM fail('LJ001', 'Invalid API key');
    ELSIF v_status = 'suspended' THEN
        PERFORM fail('LJ003', format('Team ''%s'' is suspended', v_team_id));
    END IF;
    -- To the minute is enough, and keeps most calls from writing here.
    IF v_used IS NULL OR v_used < now() - interval '1 minute' THEN
        UPDATE virtual_keys SET last_used_at = now()
        WHERE key_id = p_key_id AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute');
    END IF;
    RETURN v_team_id;
END $$;
