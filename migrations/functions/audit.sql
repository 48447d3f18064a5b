-- The audit log: what the admin changed.

-- Newest first; only entries below `p_before` if that is given.
CREATE OR REPLACE FUNCTION list_audit_log(p_limit bigint, p_before bigint) RETURNS json LANGUAGE sql STABLE
SECURITY DEFINER SET search_path FROM CURRENT AS $$
    SELECT json_build_object(
        'entries', coalesce(json_agg(json_build_object(
            'entry', entry, 'created_at', rfc3339(created_at), 'actor', actor, 'action', action, 'path', path,
            'body', body, 'request_id', request_id) ORDER BY entry DESC), '[]'),
        'next_cursor', CASE WHEN EXISTS (SELECT FROM audit_log WHERE entry < min(page.entry)) THEN min(page.entry) END)
    FROM (SELECT * FROM audit_log WHERE entry < coalesce(p_before, 9223372036854775807)
          ORDER BY entry DESC LIMIT p_limit) AS page
$$;
GRANT EXECUTE ON FUNCTION list_audit_log TO llm_jobs_application;
