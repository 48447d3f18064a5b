-- Alerts to the seller, delivered to the team's webhook where it has one.

CREATE OR REPLACE FUNCTION raise_alert(p_team_id text, p_kind text, p_message text, p_details json)
RETURNS void LANGUAGE sql AS $$
    INSERT INTO alerts (alert_id, team_id, kind, message, details, webhook_url)
    SELECT uuid_v7(), p_team_id, p_kind, p_message, p_details, webhook_url FROM teams WHERE team_id = p_team_id
$$;

-- Tells the seller, once a day for each team and model, of calls by whose cost jobs are charged, and whose cost LiteLLM
-- does not know.
CREATE OR REPLACE FUNCTION alert_of_unpriced_model(p_team_id text, p_job_id uuid, p_model text)
RETURNS void LANGUAGE sql AS $$
    SELECT raise_alert(p_team_id, 'unpriced_model',
        format('LiteLLM has no price for the model ''%s'', which team ''%s'' uses; its tokens are charged instead',
               p_model, p_team_id),
        json_build_object('model', p_model, 'job_id', p_job_id))
    FROM jobs j JOIN terms t USING (terms_id)
    WHERE j.job_id = p_job_id AND t.billing_mode = 'consumption_usd'
$$;

CREATE OR REPLACE FUNCTION alert_json(a alerts) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT json_build_object(
        'alert_id', a.alert_id, 'team_id', a.team_id, 'kind', a.kind, 'message', a.message, 'details', a.details,
        'created_at', rfc3339(a.created_at))
$$;

-- Where an alert's delivery stands. After 20 attempts it is given up.
CREATE OR REPLACE FUNCTION alert_status(a alerts) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN a.webhook_url IS NULL THEN 'none'
                WHEN a.delivered_at IS NOT NULL THEN 'delivered'
                WHEN a.attempts >= 20 THEN 'undelivered'
                ELSE 'due' END
$$;

-- An alert with its delivery.
CREATE OR REPLACE FUNCTION listed_alert(a alerts) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT json_build_object(
        'alert_id', a.alert_id, 'team_id', a.team_id, 'kind', a.kind, 'message', a.message, 'details', a.details,
        'created_at', rfc3339(a.created_at), 'webhook_url', a.webhook_url, 'status', alert_status(a),
        'delivery_attempts', a.attempts, 'delivered_at', rfc3339(a.delivered_at))
$$;

-- Newest first. Only the admin sees alerts about models.
CREATE OR REPLACE FUNCTION list_alerts(
    p_team_id text, p_limit bigint, p_offset bigint, p_actor text DEFAULT NULL, p_status text DEFAULT NULL
) RETURNS json LANGUAGE plpgsql STABLE
SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    v_hidden text := CASE WHEN p_actor IS DISTINCT FROM 'admin' THEN 'unpriced_model' ELSE '' END;
BEGIN
    PERFORM existing_team(p_team_id, p_deleted => true);
    RETURN json_build_object(
        'team_id', p_team_id,
        'total', (SELECT count(*) FROM alerts a
                  WHERE team_id = p_team_id AND kind <> v_hidden AND (p_status IS NULL OR alert_status(a) = p_status)),
        'alerts', (SELECT coalesce(json_agg(listed_alert(page) ORDER BY entry DESC), '[]')
                   FROM (SELECT a.* FROM alerts a
                         WHERE team_id = p_team_id AND kind <> v_hidden
                           AND (p_status IS NULL OR alert_status(a) = p_status)
                         ORDER BY entry DESC LIMIT p_limit OFFSET p_offset) AS page));
END $$;
GRANT EXECUTE ON FUNCTION list_alerts TO llm_jobs_application;

CREATE OR REPLACE FUNCTION alerts_are_due(p_team_id text) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN EXISTS (SELECT FROM alerts WHERE team_id = p_team_id AND delivered_at IS NULL AND webhook_url IS NOT NULL
                   AND attempts < 20 AND next_attempt_at <= now());
END $$;

-- Takes up to `p_limit` alerts that are due for delivery to a webhook: at most 4 of a team, and every team's first
-- before any team's second, so that no team keeps others waiting. Each becomes due again later, at growing intervals,
-- until `alert_delivered` confirms the delivery. So no alert is lost when the process that took it dies.
-- `salts`: for each of the team's secrets that are valid now, the newest first, the salt that it is derived with; null:
-- the deployment's secret itself.
CREATE OR REPLACE FUNCTION take_alerts(p_limit bigint DEFAULT 10) RETURNS json LANGUAGE sql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
    WITH ranked AS (
        SELECT alert_id, row_number() OVER (PARTITION BY team_id ORDER BY next_attempt_at, entry) AS place
        FROM alerts
        WHERE delivered_at IS NULL AND webhook_url IS NOT NULL AND attempts < 20 AND next_attempt_at <= now()
    ), due AS (
        -- The conditions again, for alerts that another transaction has taken meanwhile.
        SELECT a.alert_id FROM alerts a JOIN ranked r USING (alert_id)
        WHERE r.place <= 4
          AND a.delivered_at IS NULL AND a.webhook_url IS NOT NULL AND a.attempts < 20 AND a.next_attempt_at <= now()
        ORDER BY r.place, a.next_attempt_at LIMIT p_limit FOR UPDATE OF a SKIP LOCKED
    ), taken AS (
        UPDATE alerts a
        SET attempts = attempts + 1,
            next_attempt_at = now() + least(interval '1 minute' * power(2, attempts), interval '6 hours')
        FROM due WHERE a.alert_id = due.alert_id
        RETURNING a.*
    )
    SELECT coalesce(json_agg(json_build_object(
        'alert_id', t.alert_id, 'team_id', t.team_id, 'url', t.webhook_url, 'body', alert_json(a),
        'salts', CASE WHEN s.previous_until > now()
                      THEN json_build_array(encode(s.salt, 'hex'), encode(s.previous_salt, 'hex'))
                      ELSE json_build_array(encode(s.salt, 'hex')) END)), '[]')
    FROM taken t JOIN alerts a USING (alert_id) LEFT JOIN webhook_secrets s ON s.team_id = t.team_id
$$;
GRANT EXECUTE ON FUNCTION take_alerts TO llm_jobs_application;

-- Writes down that the receiver at this URL accepted the alert. Not if the alert is to be sent again since then.
CREATE OR REPLACE FUNCTION alert_delivered(p_alert_id uuid, p_url text DEFAULT NULL) RETURNS boolean LANGUAGE sql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
    UPDATE alerts SET delivered_at = now()
    WHERE alert_id = p_alert_id AND delivered_at IS NULL AND attempts > 0
      AND webhook_url = coalesce(p_url, webhook_url);
    SELECT true;
$$;
GRANT EXECUTE ON FUNCTION alert_delivered TO llm_jobs_application;

-- Makes an alert due now, delivered or not, with all attempts before it, for its team's present webhook.
CREATE OR REPLACE FUNCTION send_alert_again(p_alert_id uuid) RETURNS json LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    v_alert alerts;
BEGIN
    UPDATE alerts a SET webhook_url = t.webhook_url, attempts = 0, next_attempt_at = now(), delivered_at = NULL
    FROM teams t WHERE a.alert_id = p_alert_id AND t.team_id = a.team_id
    RETURNING a.* INTO v_alert;
    IF NOT FOUND THEN
        PERFORM fail('LJ006', format('Alert ''%s'' not found', p_alert_id));
    ELSIF v_alert.webhook_url IS NULL THEN
        PERFORM fail('LJ010', format('webhook_url: team ''%s'' has none; give it one first', v_alert.team_id));
    END IF;
    RETURN listed_alert(v_alert);
END $$;
GRANT EXECUTE ON FUNCTION send_alert_again TO llm_jobs_application;

-- Gives a team a secret that is derived with this salt. The one before it holds for `p_grace_seconds` more; any earlier
-- one ends.
CREATE OR REPLACE FUNCTION rotate_webhook_secret(p_team_id text, p_salt bytea, p_grace_seconds integer)
RETURNS json LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    v_until timestamptz := CASE WHEN p_grace_seconds > 0 THEN now() + make_interval(secs => p_grace_seconds) END;
BEGIN
    PERFORM existing_team(p_team_id);
    INSERT INTO webhook_secrets AS s (team_id, salt, previous_until) VALUES (p_team_id, p_salt, v_until)
    ON CONFLICT (team_id) DO UPDATE
    SET salt = excluded.salt, previous_salt = s.salt, previous_until = excluded.previous_until;
    RETURN json_build_object('salt', encode(p_salt, 'hex'), 'previous_valid_until', rfc3339(v_until));
END $$;
GRANT EXECUTE ON FUNCTION rotate_webhook_secret TO llm_jobs_application;
