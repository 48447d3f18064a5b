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

-- Newest first. Only the admin sees alerts about models.
CREATE OR REPLACE FUNCTION list_alerts(p_team_id text, p_limit bigint, p_offset bigint, p_actor text DEFAULT NULL)
RETURNS json LANGUAGE plpgsql STABLE
SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    v_hidden text := CASE WHEN p_actor IS DISTINCT FROM 'admin' THEN 'unpriced_model' ELSE '' END;
BEGIN
    PERFORM readable_team(p_team_id);
    RETURN json_build_object(
        'team_id', p_team_id,
        'total', (SELECT count(*) FROM alerts WHERE team_id = p_team_id AND kind <> v_hidden),
        'alerts', (SELECT coalesce(json_agg(json_build_object(
                       'alert_id', alert_id, 'kind', kind, 'message', message, 'details', details,
                       'created_at', rfc3339(created_at),
                       'webhook_url', webhook_url, 'delivery_attempts', attempts, 'delivered_at', rfc3339(delivered_at))
                       ORDER BY entry DESC), '[]')
                   FROM (SELECT * FROM alerts WHERE team_id = p_team_id AND kind <> v_hidden
                         ORDER BY entry DESC LIMIT p_limit OFFSET p_offset) AS page));
END $$;
GRANT EXECUTE ON FUNCTION list_alerts TO llm_jobs_application;

CREATE OR REPLACE FUNCTION alerts_are_due(p_team_id text) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN EXISTS (SELECT FROM alerts WHERE team_id = p_team_id AND delivered_at IS NULL AND webhook_url IS NOT NULL
                   AND next_attempt_at <= now());
END $$;

-- Takes up to 10 alerts that are due for delivery to a webhook. Each becomes due again later, at growing intervals,
-- until `alert_delivered` confirms the delivery. So no alert is lost when the process that took it dies.
CREATE OR REPLACE FUNCTION take_alerts() RETURNS json LANGUAGE sql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
    WITH due AS (
        SELECT alert_id FROM alerts
        WHERE delivered_at IS NULL AND webhook_url IS NOT NULL AND next_attempt_at <= now() AND attempts < 20
        ORDER BY next_attempt_at LIMIT 10 FOR UPDATE SKIP LOCKED
    ), taken AS (
        UPDATE alerts a
        SET attempts = attempts + 1,
            next_attempt_at = now() + least(interval '1 minute' * power(2, attempts), interval '6 hours')
        FROM due WHERE a.alert_id = due.alert_id
        RETURNING a.*
    )
    SELECT coalesce(json_agg(json_build_object(
        'alert_id', t.alert_id, 'team_id', t.team_id, 'url', t.webhook_url, 'body', alert_json(a))), '[]')
    FROM taken t JOIN alerts a USING (alert_id)
$$;
GRANT EXECUTE ON FUNCTION take_alerts TO llm_jobs_application;

CREATE OR REPLACE FUNCTION alert_delivered(p_alert_id uuid) RETURNS boolean LANGUAGE sql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
    UPDATE alerts SET delivered_at = now() WHERE alert_id = p_alert_id AND delivered_at IS NULL;
    SELECT true;
$$;
GRANT EXECUTE ON FUNCTION alert_delivered TO llm_jobs_application;
