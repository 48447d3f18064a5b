-- Requests that must not take effect twice, and what the admin changed.
--
-- Every statement that changes something on behalf of a caller claims its request before the change and keeps its answer after
-- it, in the same transaction. `p_request`, NULL where there is nothing to claim or keep:
--   {caller, request_id}, and of the admin {action, path, body}, of a team {key_id}, and with an Idempotency-Key {key, digest}
--   (SHA-256, hex) and {attempt}, an id by which the same request sends a statement again.

-- NULL: go on. Otherwise the answer that the same request got before. Of twins, one waits here until the other's statement is done;
-- where that is not all of its work, `lease` says until when it may be at it, and a repeat before that is refused.
-- A team's key is checked here only where this decides the answer; otherwise the change does it.
CREATE OR REPLACE FUNCTION claim(p_request json) RETURNS json LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    v_caller text := p_request ->> 'caller';
    v_key bytea := decode(p_request ->> 'key', 'hex');
    v_digest bytea := decode(p_request ->> 'digest', 'hex');
    v_attempt uuid := p_request ->> 'attempt';
    v_row idempotency_keys;
BEGIN
    IF v_key IS NULL THEN
        RETURN NULL;
    END IF;
    LOOP
        INSERT INTO idempotency_keys (caller, key_hash, request_digest, attempt, claimed_until)
        VALUES (v_caller, v_key, v_digest, v_attempt, now())
        ON CONFLICT DO NOTHING;
        IF FOUND THEN
            -- Each new one takes some of the old ones away.
            DELETE FROM idempotency_keys WHERE (caller, key_hash) IN (
                SELECT caller, key_hash FROM idempotency_keys WHERE created_at < now() - interval '24 hours'
                LIMIT 10 FOR UPDATE SKIP LOCKED);
            RETURN NULL;
        END IF;
        SELECT * INTO v_row FROM idempotency_keys WHERE caller = v_caller AND key_hash = v_key FOR UPDATE;
        -- It may have been released while this waited.
        EXIT WHEN FOUND;
    END LOOP;
    IF p_request ->> 'key_id' IS NOT NULL THEN
        PERFORM team_of_key((p_request ->> 'key_id')::uuid);
    END IF;
    IF v_row.created_at >= now() - interval '24 hours' THEN
        IF v_row.request_digest <> v_digest THEN
            PERFORM fail('LJ012', 'Idempotency-Key: it was used with another request');
        ELSIF v_row.answer IS NOT NULL THEN
            RETURN v_row.answer;
        ELSIF v_row.attempt = v_attempt THEN
            RETURN NULL;
        ELSIF v_row.claimed_until > now() THEN
            PERFORM fail('LJ013', 'Idempotency-Key: the request with this key is still under way');
        END IF;
    END IF;
    -- It is over a day old, or whoever had claimed it is gone.
    UPDATE idempotency_keys
    SET request_digest = v_digest, attempt = v_attempt, claimed_until = now(), answer = NULL, created_at = now()
    WHERE caller = v_caller AND key_hash = v_key;
    RETURN NULL;
END $$;
GRANT EXECUTE ON FUNCTION claim TO llm_jobs_application;

-- Keeps the answer of a claimed request, writes down what the admin did, and gives the answer back.
CREATE OR REPLACE FUNCTION keep(p_request json, p_answer json) RETURNS json LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF p_request ->> 'key' IS NOT NULL THEN
        -- Not of a repeat that has taken over, since this took too long.
        UPDATE idempotency_keys SET answer = p_answer
        WHERE caller = p_request ->> 'caller' AND key_hash = decode(p_request ->> 'key', 'hex')
          AND attempt IS NOT DISTINCT FROM (p_request ->> 'attempt')::uuid;
    END IF;
    IF p_request ->> 'action' IS NOT NULL THEN
        INSERT INTO audit_log (actor, action, path, body, request_id)
        VALUES (p_request ->> 'caller', p_request ->> 'action', p_request ->> 'path', p_request -> 'body',
                p_request ->> 'request_id');
    END IF;
    RETURN p_answer;
END $$;
GRANT EXECUTE ON FUNCTION keep TO llm_jobs_application;

-- Of a claimed request whose work this statement only begins: until when it may be at it, which is the `deadline` of what is begun.
CREATE OR REPLACE FUNCTION lease(p_request json, p_begun json) RETURNS json LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF p_request ->> 'key' IS NOT NULL THEN
        UPDATE idempotency_keys SET claimed_until = (p_begun ->> 'deadline')::timestamptz
        WHERE caller = p_request ->> 'caller' AND key_hash = decode(p_request ->> 'key', 'hex');
    END IF;
    RETURN p_begun;
END $$;
GRANT EXECUTE ON FUNCTION lease TO llm_jobs_application;

-- A claimed request came to nothing that is worth keeping: a repeat begins anew.
CREATE OR REPLACE FUNCTION release(p_request json) RETURNS void LANGUAGE sql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
    DELETE FROM idempotency_keys
    WHERE caller = p_request ->> 'caller' AND key_hash = decode(p_request ->> 'key', 'hex') AND answer IS NULL
      AND attempt IS NOT DISTINCT FROM (p_request ->> 'attempt')::uuid
$$;
GRANT EXECUTE ON FUNCTION release TO llm_jobs_application;

-- Of a claimed request whose work this statement ends: keeps the answer, with what of it is sealed. With an Idempotency-Key and nothing
-- sealed there is nothing that a repeat could be given, so that the request is released.
CREATE OR REPLACE FUNCTION finish(p_request json, p_sealed text, p_answer json) RETURNS void LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF p_request ->> 'key' IS NOT NULL AND p_sealed IS NULL THEN
        PERFORM release(p_request);
    ELSE
        PERFORM keep(p_request, json_build_object('answer', p_answer, 'sealed', p_sealed));
    END IF;
END $$;
GRANT EXECUTE ON FUNCTION finish TO llm_jobs_application;
