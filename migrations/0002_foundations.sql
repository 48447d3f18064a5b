-- What the functions of the next files share.
--
-- Domain failures leave SQL as these SQLSTATEs; the message is written for the caller. `shared/src/error.rs` maps them to answers.
--   LJ001 unauthenticated        LJ006 not_found                LJ011 in_use
--   LJ002 wrong_team             LJ007 already_exists           LJ012 idempotency_mismatch
--   LJ003 team_suspended         LJ008 job_finished             LJ013 idempotency_in_progress
--   LJ004 model_group_denied     LJ009 in_progress              LJ000 a defect of ours
--   LJ005 insufficient_credits   LJ010 invalid_request
--
-- Locks are taken in this order, so that no two functions can wait for each other: idempotency key, virtual key, job, call, account,
-- team, then what is counted: usage_days, job_totals, usage_models, call_totals. What is overdue is skipped where another has it.

-- What every request runs is in PL/pgSQL, whose plans each connection keeps; those of SQL functions are made anew by every call.
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

-- An id that the application chose, so that a statement whose answer got lost can be sent again without being another one. The
-- moment that an id begins with counts, so one by a clock that is far from this server's is replaced by a new one, as NULL is.
CREATE FUNCTION id_or_new(p_id uuid) RETURNS uuid LANGUAGE plpgsql AS $$
BEGIN
    IF p_id BETWEEN uuid_v7_floor(now() - interval '5 minutes') AND uuid_v7_floor(now() + interval '5 minutes') THEN
        RETURN p_id;
    END IF;
    RETURN uuid_v7();
END $$;

-- The smallest UUIDv7 of a moment: jobs created from then on have greater ids.
CREATE FUNCTION uuid_v7_floor(p_time timestamptz) RETURNS uuid LANGUAGE sql STABLE AS $$
    SELECT encode(substring(int8send((extract(epoch FROM p_time) * 1000)::bigint) FROM 3) || '\x70008000000000000000'::bytea, 'hex')::uuid
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

-- The key with this digest and its team: {key_id, team_id, status, seconds_left}, the last for a key that was replaced and works on for
-- a while. NULL when there is no such key, or it is revoked.
CREATE FUNCTION lookup_key(p_key_hash bytea) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT json_build_object('key_id', k.key_id, 'team_id', k.team_id, 'status', t.status,
                             'seconds_left', floor(extract(epoch FROM k.revoked_at - now()))::bigint)
    FROM virtual_keys k JOIN teams t USING (team_id)
    WHERE k.key_hash = p_key_hash AND coalesce(k.revoked_at > now(), true) AND t.status NOT IN ('creating', 'deleted')
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
    WHERE k.key_id = p_key_id AND coalesce(k.revoked_at > now(), true) AND t.status NOT IN ('creating', 'deleted');
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

-- Requests that must not take effect twice, and what the admin changed
--
-- Every statement that changes something on behalf of a caller claims its request before the change and keeps its answer after it, in
-- the same transaction. `p_request`, NULL where there is nothing to claim or keep:
--   {caller, request_id}, and of the admin {action, path, body}, and with an Idempotency-Key {key, digest} (SHA-256, hex) and
--   {attempt}, an id by which the same request sends a statement again.

-- NULL: go on. Otherwise the answer that the same request got before. Of twins, one waits here until the other's statement is done;
-- where that is not all of its work, `p_seconds` says until when it may be at it, and a repeat before that is refused.
CREATE FUNCTION claim(p_request json, p_seconds integer) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    v_caller text := p_request ->> 'caller';
    v_key bytea := decode(p_request ->> 'key', 'hex');
    v_digest bytea := decode(p_request ->> 'digest', 'hex');
    v_attempt uuid := p_request ->> 'attempt';
    v_until timestamptz := now() + make_interval(secs => p_seconds);
    v_row idempotency_keys;
BEGIN
    IF v_key IS NULL THEN
        RETURN NULL;
    END IF;
    LOOP
        INSERT INTO idempotency_keys (caller, key_hash, request_digest, attempt, claimed_until)
        VALUES (v_caller, v_key, v_digest, v_attempt, v_until)
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
    SET request_digest = v_digest, attempt = v_attempt, claimed_until = v_until, answer = NULL, created_at = now()
    WHERE caller = v_caller AND key_hash = v_key;
    RETURN NULL;
END $$;

-- Keeps the answer of a claimed request, writes down what the admin did, and gives the answer back.
CREATE FUNCTION keep(p_request json, p_answer json) RETURNS json LANGUAGE plpgsql AS $$
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

-- Of a claimed request whose work this statement only begins: until when it may be at it, which is the `deadline` of what is begun.
CREATE FUNCTION lease(p_request json, p_begun json) RETURNS json LANGUAGE plpgsql AS $$
BEGIN
    IF p_request ->> 'key' IS NOT NULL THEN
        UPDATE idempotency_keys SET claimed_until = (p_begun ->> 'deadline')::timestamptz
        WHERE caller = p_request ->> 'caller' AND key_hash = decode(p_request ->> 'key', 'hex');
    END IF;
    RETURN p_begun;
END $$;

-- A claimed request came to nothing that is worth keeping: a repeat begins anew.
CREATE FUNCTION release(p_request json) RETURNS void LANGUAGE sql AS $$
    DELETE FROM idempotency_keys
    WHERE caller = p_request ->> 'caller' AND key_hash = decode(p_request ->> 'key', 'hex') AND answer IS NULL
      AND attempt IS NOT DISTINCT FROM (p_request ->> 'attempt')::uuid
$$;

-- Of a call that is settled: keeps its outcome, or, where there is none to keep, releases its request.
CREATE FUNCTION keep_or_release(p_request json, p_sealed text, p_settled json DEFAULT '{}') RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF p_request IS NULL THEN
        RETURN false;
    ELSIF p_sealed IS NULL THEN
        PERFORM release(p_request);
    ELSE
        PERFORM keep(p_request, json_build_object('settled', p_settled, 'sealed', p_sealed));
    END IF;
    RETURN true;
END $$;

-- Newest first, below entry `p_before` when that is given.
CREATE FUNCTION list_audit_log(p_limit bigint, p_before bigint) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT json_build_object(
        'entries', coalesce(json_agg(json_build_object(
            'entry', entry, 'created_at', rfc3339(created_at), 'actor', actor, 'action', action, 'path', path,
            'body', body, 'request_id', request_id) ORDER BY entry DESC), '[]'),
        'next', CASE WHEN EXISTS (SELECT FROM audit_log WHERE entry < min(page.entry)) THEN min(page.entry) END)
    FROM (SELECT * FROM audit_log WHERE entry < coalesce(p_before, 9223372036854775807) ORDER BY entry DESC LIMIT p_limit) AS page
$$;

-- Months of jobs and calls
--
-- Each month's jobs are a table of their own, and so are the calls of those jobs. What has no month's table goes to `*_other`, so that
-- nothing fails where nobody made one in time; those rows then stay there.

CREATE TABLE jobs_other PARTITION OF jobs DEFAULT;
CREATE TABLE calls_other PARTITION OF calls DEFAULT;

-- Makes the tables of this month and the next `p_ahead` ones, where they are missing. Answers how many months it made. A statement of its
-- own, since it locks both tables for a moment. Where that is not to be had at once it gives up (55P03), rather than let others wait.
CREATE FUNCTION make_months(p_ahead integer) RETURNS integer LANGUAGE plpgsql SET lock_timeout = '200ms' AS $$
DECLARE
    v_month timestamp;
    v_name text;
    v_from uuid;
    v_to uuid;
    v_made integer := 0;
BEGIN
    -- One at a time.
    PERFORM pg_advisory_xact_lock(hashtext('months'));
    FOR v_month IN
        SELECT date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => ahead) FROM generate_series(0, p_ahead) AS ahead
    LOOP
        v_name := to_char(v_month, 'YYYY_MM');
        v_from := uuid_v7_floor(v_month AT TIME ZONE 'UTC');
        v_to := uuid_v7_floor((v_month + interval '1 month') AT TIME ZONE 'UTC');
        CONTINUE WHEN to_regclass('jobs_' || v_name) IS NOT NULL;
        LOCK TABLE jobs, calls IN ACCESS EXCLUSIVE MODE;
        CONTINUE WHEN EXISTS (SELECT FROM jobs_other WHERE job_id >= v_from AND job_id < v_to)
            OR EXISTS (SELECT FROM calls_other WHERE job_id >= v_from AND job_id < v_to);
        EXECUTE format('CREATE TABLE %I PARTITION OF calls FOR VALUES FROM (%L) TO (%L)', 'calls_' || v_name, v_from, v_to);
        EXECUTE format('CREATE TABLE %I PARTITION OF jobs FOR VALUES FROM (%L) TO (%L)', 'jobs_' || v_name, v_from, v_to);
        v_made := v_made + 1;
    END LOOP;
    RETURN v_made;
END $$;

SELECT make_months(2);

-- Drops the tables of all months that ended `p_months` months ago or earlier. Answers how many it dropped. The ledger and the usage stay.
-- No job can be open for more than 30 days, so at the least one whole month is kept.
CREATE FUNCTION drop_months(p_months integer) RETURNS integer LANGUAGE plpgsql SET lock_timeout = '200ms' AS $$
DECLARE
    v_name text;
    v_dropped integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('months'));
    FOR v_name IN
        SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
        WHERE inhparent = 'jobs'::regclass AND relname ~ '^jobs_\d{4}_\d\d$'
          AND to_date(substr(relname, 6), 'YYYY_MM')
              < date_trunc('month', now() AT TIME ZONE 'UTC') - make_interval(months => greatest(p_months, 1))
    LOOP
        LOCK TABLE jobs, calls IN ACCESS EXCLUSIVE MODE;
        EXECUTE format('DROP TABLE %I', replace(v_name, 'jobs_', 'calls_'));
        EXECUTE format('DROP TABLE %I', v_name);
        v_dropped := v_dropped + 1;
    END LOOP;
    RETURN v_dropped;
END $$;

-- Counting
--
-- Called by the functions that change jobs and calls, last of all that they lock.

-- The day on which everything of a job counts.
CREATE FUNCTION job_day(p_job_id uuid) RETURNS date LANGUAGE sql IMMUTABLE AS $$
    SELECT (timestamp '1970-01-01'
            + make_interval(secs => ('x' || translate(left(p_job_id::text, 13), '-', ''))::bit(48)::bigint / 1000.0::double precision))::date
$$;

-- Transactions that are at work at the same time never share one, so none waits for another because of what it counts.
CREATE FUNCTION my_shard() RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    v_shard integer;
BEGIN
    FOR i IN 0..1023 LOOP
        v_shard := (pg_backend_pid() + i) % 1024;
        IF pg_try_advisory_xact_lock(hashtext('shard'), v_shard) THEN
            RETURN v_shard;
        END IF;
    END LOOP;
    RETURN v_shard;
END $$;

CREATE FUNCTION add_to_job_totals(p_created bigint, p_completed bigint, p_failed bigint, p_cancelled bigint, p_expired bigint)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO job_totals AS t (shard, created, completed, failed, cancelled, expired)
    VALUES (my_shard(), p_created, p_completed, p_failed, p_cancelled, p_expired)
    ON CONFLICT (shard) DO UPDATE SET
        created = t.created + excluded.created, completed = t.completed + excluded.completed, failed = t.failed + excluded.failed,
        cancelled = t.cancelled + excluded.cancelled, expired = t.expired + excluded.expired;
END $$;

CREATE FUNCTION count_new_job(p_team_id text, p_job_id uuid, p_job_type text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO usage_days AS u (team_id, day, job_type, open_jobs) VALUES (p_team_id, job_day(p_job_id), p_job_type, 1)
    ON CONFLICT (team_id, day, job_type) DO UPDATE SET open_jobs = u.open_jobs + 1;
    PERFORM add_to_job_totals(1, 0, 0, 0, 0);
END $$;

-- `p_closed_calls`: calls that ended with it.
CREATE FUNCTION count_ended_job(
    p_team_id text, p_job_id uuid, p_job_type text, p_status text, p_credits bigint, p_revenue_usd numeric, p_closed_calls bigint
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE usage_days SET
        open_jobs = open_jobs - 1,
        completed = completed + (p_status = 'completed')::integer,
        failed = failed + (p_status = 'failed')::integer,
        cancelled = cancelled + (p_status = 'cancelled')::integer,
        calls = calls + p_closed_calls,
        charged_jobs = charged_jobs + (p_credits > 0)::integer,
        credits_charged = credits_charged + p_credits,
        revenue_usd = revenue_usd + coalesce(p_revenue_usd, 0)
    WHERE team_id = p_team_id AND day = job_day(p_job_id) AND job_type = p_job_type;
    PERFORM add_to_job_totals(0, (p_status = 'completed')::integer, (p_status = 'failed')::integer, (p_status = 'cancelled')::integer, 0);
END $$;

-- These jobs have expired, and in those of `p_of_calls` (one entry for each) calls were abandoned; no job is older than `p_oldest`.
CREATE FUNCTION count_overdue(p_team_id text, p_jobs uuid[], p_of_calls uuid[], p_oldest uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE usage_days u
    SET open_jobs = u.open_jobs - o.jobs, expired = u.expired + o.jobs, calls = u.calls + o.calls
    FROM (SELECT job_day(j.job_id) AS day, j.job_type, sum(one.job) AS jobs, sum(one.call) AS calls
          FROM (SELECT unnest(p_jobs) AS job_id, 1 AS job, 0 AS call UNION ALL SELECT unnest(p_of_calls), 0, 1) AS one
          JOIN jobs j ON j.job_id = one.job_id AND j.job_id >= p_oldest
          GROUP BY 1, 2) AS o
    WHERE u.team_id = p_team_id AND u.day = o.day AND u.job_type = o.job_type;
    IF p_jobs IS NOT NULL THEN
        PERFORM add_to_job_totals(0, 0, 0, 0, cardinality(p_jobs));
    END IF;
END $$;

-- So many calls of these groups, one entry for each, were abandoned or cancelled.
CREATE FUNCTION count_closed_calls(p_model_groups text[], p_abandoned boolean) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO call_totals AS t (model_group, shard, abandoned, cancelled)
    SELECT model_group, my_shard(), CASE WHEN p_abandoned THEN count(*) ELSE 0 END, CASE WHEN p_abandoned THEN 0 ELSE count(*) END
    FROM unnest(p_model_groups) AS model_group GROUP BY model_group ORDER BY model_group
    ON CONFLICT (model_group, shard) DO UPDATE SET
        abandoned = t.abandoned + excluded.abandoned, cancelled = t.cancelled + excluded.cancelled;
END $$;

-- Upper bounds of the latency histogram, in milliseconds.
CREATE FUNCTION latency_bounds() RETURNS bigint[] LANGUAGE sql IMMUTABLE AS $$
    SELECT ARRAY[50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 120000]::bigint[]
$$;
