-- Requests that must not take effect twice, and the audit log of what the admin changed.
--
-- Every statement that changes something on behalf of a caller claims its request before the change and keeps the
-- answer after it, in the same transaction. `p_request` is NULL where there is nothing to claim or to keep; otherwise
-- it has
--   caller, request_id
--   action, path, body   of the admin's requests, for the audit log
--   key_id               of a team's requests
--   key, digest          with an Idempotency-Key: its SHA-256 and that of the request, in hex
--   attempt              with an Idempotency-Key: an id that stays the same when one request sends a statement again

-- Claims a request. NULL: the caller goes on with the change. Otherwise this is the answer that the same request got
-- before.
-- Of two identical requests at once, one waits here until the other's statement is done. If the work takes more than
-- that statement, `lease` sets until when it may take, and a repeat before then is refused.
-- A team's key is checked here only where the result of this function is the answer; otherwise the change checks it.
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
            -- Each new row also deletes some expired ones.
            DELETE FROM idempotency_keys WHERE (caller, key_hash) IN (
                SELECT caller, key_hash FROM idempotency_keys WHERE created_at < now() - interval '24 hours'
                LIMIT 10 FOR UPDATE SKIP LOCKED);
            RETURN NULL;
        END IF;
        SELECT * INTO v_row FROM idempotency_keys WHERE caller = v_caller AND key_hash = v_key FOR UPDATE;
        -- If the row is gone, the request has been released meanwhile: try again.
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
    -- The row has expired, or the attempt that claimed it is gone: take it over.
    UPDATE idempotency_keys
    SET request_digest = v_digest, attempt = v_attempt, claimed_until = now(), answer = NULL, created_at = now()
    WHERE caller = v_caller AND key_hash = v_key;
    RETURN NULL;
END $$;
GRANT EXECUTE ON FUNCTION claim TO llm_jobs_application;

-- Keeps the answer of a claimed request, writes the admin's change to the audit log, and returns the answer.
CREATE OR REPLACE FUNCTION keep(p_request json, p_answer json) RETURNS json LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF p_request ->> 'key' IS NOT NULL THEN
        -- Not if a repeat has taken over, because this attempt took too long.
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

-- For a claimed request whose work goes on after this statement: extends the claim to the `deadline` of what was begun.
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

-- Releases a claimed request that has no answer worth keeping, so that a repeat starts over.
CREATE OR REPLACE FUNCTION release(p_request json) RETURNS void LANGUAGE sql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
    DELETE FROM idempotency_keys
    WHERE caller = p_request ->> 'caller' AND key_hash = decode(p_request ->> 'key', 'hex') AND answer IS NULL
      AND attempt IS NOT DISTINCT FROM (p_request ->> 'attempt')::uuid
$$;
GRANT EXECUTE ON FUNCTION release TO llm_jobs_application;

-- For a claimed request whose work ends with this statement: keeps the answer, including its sealed part. With an
-- Idempotency-Key but no sealed part, a repeat could not be answered, so the request is released instead.
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
