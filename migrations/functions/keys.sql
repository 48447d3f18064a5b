-- Virtual keys.

-- The key with this digest and its team: {key_id, team_id, status, costs_visible, models_visible, seconds_left}; NULL
-- if there is no such key or it is revoked. `seconds_left` is how long a replaced key still works; for other keys it is
-- NULL.
CREATE OR REPLACE FUNCTION lookup_key(p_key_hash bytea) RETURNS json LANGUAGE sql STABLE
SECURITY DEFINER SET search_path FROM CURRENT AS $$
    SELECT json_build_object('key_id', k.key_id, 'team_id', k.team_id, 'status', t.status,
                             'costs_visible', t.costs_visible, 'models_visible', t.models_visible,
                             'seconds_left', floor(extract(epoch FROM k.revoked_at - now()))::bigint)
    FROM virtual_keys k JOIN teams t USING (team_id)
    WHERE k.key_hash = p_key_hash AND coalesce(k.revoked_at > now(), true) AND t.status NOT IN ('creating', 'deleted')
$$;
GRANT EXECUTE ON FUNCTION lookup_key TO llm_jobs_application;

-- The team that a key may act for now. Every function that changes a team's state on behalf of a key calls this first,
-- so that a key which is still cached as valid changes nothing once it is revoked or its team suspended.
CREATE OR REPLACE FUNCTION team_of_key(p_key_id uuid) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v_team_id text;
    v_status text;
    v_last_used_at timestamptz;
BEGIN
    SELECT k.team_id, t.status, k.last_used_at INTO v_team_id, v_status, v_last_used_at
    FROM virtual_keys k JOIN teams t USING (team_id)
    WHERE k.key_id = p_key_id AND coalesce(k.revoked_at > now(), true) AND t.status NOT IN ('creating', 'deleted');
    IF NOT FOUND THEN
        PERFORM fail('LJ001', 'Invalid API key');
    ELSIF v_status = 'suspended' THEN
        PERFORM fail('LJ003', format('Team ''%s'' is suspended', v_team_id));
    END IF;
    -- Accurate to the minute, so that most calls write nothing here.
    IF v_last_used_at IS NULL OR v_last_used_at < now() - interval '1 minute' THEN
        UPDATE virtual_keys SET last_used_at = now()
        WHERE key_id = p_key_id AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute');
    END IF;
    RETURN v_team_id;
END $$;

CREATE OR REPLACE FUNCTION key_json(k virtual_keys) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT json_build_object(
        'key_id', k.key_id, 'alias', k.alias, 'hint', k.hint, 'created_at', rfc3339(k.created_at),
        'last_used_at', rfc3339(k.last_used_at), 'revoked_at', rfc3339(k.revoked_at))
$$;

-- The newest key of a team that has not been replaced or revoked; NULL if there is none.
CREATE OR REPLACE FUNCTION newest_key(p_team_id text) RETURNS uuid LANGUAGE sql STABLE AS $$
    SELECT key_id FROM virtual_keys WHERE team_id = p_team_id AND key_hash IS NOT NULL AND revoked_at IS NULL
    ORDER BY key_id DESC LIMIT 1
$$;

CREATE OR REPLACE FUNCTION list_keys(p_team_id text) RETURNS json LANGUAGE plpgsql STABLE
SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM existing_team(p_team_id);
    RETURN json_build_object('team_id', p_team_id, 'keys', (
        SELECT coalesce(json_agg(key_json(k) ORDER BY k.key_id DESC), '[]')
        FROM virtual_keys k WHERE k.team_id = p_team_id AND k.key_hash IS NOT NULL));
END $$;
GRANT EXECUTE ON FUNCTION list_keys TO llm_jobs_application;

-- First half of making a key: records it before LiteLLM is asked for it. `p_replaced` is the key that it replaces, if
-- any; with `p_rotate` and no `p_replaced`, it replaces the newest key. `leftovers` in the answer: aliases under which
-- LiteLLM may hold keys of requests that died half-way; nobody ever received those keys. For `p_lease_seconds` no
-- repeat of the request takes over.
CREATE OR REPLACE FUNCTION begin_key(
    p_team_id text, p_key_id uuid, p_alias text, p_rotate boolean, p_replaced uuid, p_lease_seconds integer
) RETURNS json LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    v_team teams := existing_team(p_team_id);
    v_replaced uuid := CASE WHEN p_rotate THEN coalesce(p_replaced, newest_key(p_team_id)) END;
    v_leftovers json;
BEGIN
    IF p_replaced IS NOT NULL
        AND NOT EXISTS (SELECT FROM virtual_keys
                        WHERE key_id = p_replaced AND team_id = p_team_id
                          AND key_hash IS NOT NULL AND revoked_at IS NULL) THEN
        PERFORM fail('LJ006', format('Key ''%s'' not found', p_replaced));
    END IF;
    SELECT coalesce(json_agg(litellm_alias), '[]') INTO v_leftovers FROM virtual_keys
    WHERE team_id = p_team_id AND key_hash IS NULL AND created_at < now() - interval '2 minutes';
    INSERT INTO virtual_keys (key_id, team_id, alias, litellm_alias)
    VALUES (p_key_id, p_team_id,
            coalesce(p_alias, (SELECT alias FROM virtual_keys WHERE key_id = v_replaced), 'default'),
            format('%s-%s', p_team_id, p_key_id));
    RETURN json_build_object(
        'deadline', now() + make_interval(secs => p_lease_seconds), 'replaced', v_replaced, 'leftovers', v_leftovers,
        'litellm_alias', format('%s-%s', p_team_id, p_key_id),
        'litellm', litellm_desired_team(p_team_id));
END $$;
GRANT EXECUTE ON FUNCTION begin_key TO llm_jobs_application;

-- Second half: LiteLLM has made the key. The replaced key works for `p_grace_seconds` more. `litellm` in the answer:
-- the team's desired state, to synchronize with LiteLLM.
CREATE OR REPLACE FUNCTION activate_key(
    p_key_id uuid, p_key_hash bytea, p_hint text, p_replaced uuid, p_grace_seconds integer
) RETURNS json LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    v_row virtual_keys;
BEGIN
    PERFORM FROM virtual_keys WHERE key_id IN (p_key_id, p_replaced) ORDER BY key_id FOR NO KEY UPDATE;
    UPDATE virtual_keys SET key_hash = p_key_hash, hint = p_hint WHERE key_id = p_key_id RETURNING * INTO v_row;
    IF NOT FOUND THEN
        PERFORM fail('LJ009', 'The key is being cleared away by another request');
    END IF;
    -- Fails if the team has been deleted since.
    PERFORM locked_team(v_row.team_id);
    UPDATE virtual_keys SET revoked_at = now() + make_interval(secs => p_grace_seconds)
    WHERE key_id = p_replaced AND revoked_at IS NULL;
    UPDATE teams SET litellm_version = litellm_version + 1 WHERE team_id = v_row.team_id;
    RETURN json_build_object('key', key_json(v_row), 'litellm', litellm_desired_team(v_row.team_id));
END $$;
GRANT EXECUTE ON FUNCTION activate_key TO llm_jobs_application;

-- Deletes keys that were never activated, after LiteLLM has deleted what it held under these aliases.
CREATE OR REPLACE FUNCTION forget_keys(p_litellm_aliases text[]) RETURNS boolean LANGUAGE sql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
    DELETE FROM virtual_keys WHERE key_hash IS NULL AND litellm_alias = ANY (p_litellm_aliases);
    SELECT true;
$$;
GRANT EXECUTE ON FUNCTION forget_keys TO llm_jobs_application;

-- Revokes a key at once. Revoking it again answers the same, so that LiteLLM can be synchronized again.
CREATE OR REPLACE FUNCTION revoke_key(p_team_id text, p_key_id uuid) RETURNS json LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    v_row virtual_keys;
BEGIN
    PERFORM existing_team(p_team_id);
    UPDATE virtual_keys SET revoked_at = least(revoked_at, now())
    WHERE key_id = p_key_id AND team_id = p_team_id AND key_hash IS NOT NULL
    RETURNING * INTO v_row;
    IF NOT FOUND THEN
        PERFORM fail('LJ006', format('Key ''%s'' not found', p_key_id));
    END IF;
    UPDATE teams SET litellm_version = litellm_version + 1 WHERE team_id = p_team_id;
    RETURN json_build_object('key', key_json(v_row), 'litellm', litellm_desired_team(p_team_id));
END $$;
GRANT EXECUTE ON FUNCTION revoke_key TO llm_jobs_application;
