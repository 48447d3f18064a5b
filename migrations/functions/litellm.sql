-- Synchronization with LiteLLM: the desired state of each team there, and which version of it LiteLLM has.

-- Records that the models of these teams have changed. Answers the desired states to synchronize with LiteLLM, one for
-- each team. A team that is being created is synchronized by its first call.
CREATE OR REPLACE FUNCTION litellm_changed(p_teams text[]) RETURNS json LANGUAGE plpgsql AS $$
BEGIN
    -- In the order of their ids, so that two changes can't deadlock.
    PERFORM FROM teams WHERE team_id = ANY (p_teams) AND status <> 'deleted' ORDER BY team_id FOR NO KEY UPDATE;
    UPDATE teams t SET litellm_version = litellm_version + 1,
        -- A default group that the team may no longer use is removed.
        default_model_group_id = (SELECT g.model_group_id FROM team_groups(t.team_id) g
                                  WHERE g.model_group_id = t.default_model_group_id)
    WHERE team_id = ANY (p_teams) AND status <> 'deleted';
    RETURN (SELECT coalesce(json_agg(litellm_desired_team(team_id) ORDER BY team_id), '[]')
            FROM teams WHERE team_id = ANY (p_teams) AND status NOT IN ('creating', 'deleted'));
END $$;

-- The teams that may use a model group, directly or through an access group.
CREATE OR REPLACE FUNCTION teams_with_group(p_model_group_id uuid) RETURNS text[] LANGUAGE sql STABLE AS $$
    SELECT ARRAY(
        SELECT team_id FROM team_model_groups WHERE model_group_id = p_model_group_id
        UNION
        SELECT a.team_id FROM model_access_group_members m JOIN team_access_groups a USING (access_group_id)
        WHERE m.model_group_id = p_model_group_id)
$$;

-- The models of all groups that a team may use, each once, in order of preference.
CREATE OR REPLACE FUNCTION allowed_models(p_team_id text) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT coalesce(json_agg(model_name ORDER BY place), '[]')
    FROM (
        SELECT m.model_name, min(ARRAY[t.rank, m.priority]) AS place
        FROM team_groups(p_team_id) t JOIN model_group_models m USING (model_group_id)
        GROUP BY m.model_name
    ) AS models
$$;

CREATE OR REPLACE FUNCTION litellm_is_out_of_sync(t teams) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT t.litellm_synced_version < t.litellm_version
$$;

-- The budget of a team in LiteLLM, in US dollars; NULL is none. What the admin has set counts; otherwise it is what the
-- credits are worth that the team may use.
CREATE OR REPLACE FUNCTION litellm_budget(t teams, p_budget_mode text, p_credit_limit bigint, p_allocated bigint)
RETURNS numeric LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(t.max_budget, t.usd_per_credit * CASE
        WHEN p_budget_mode = 'hard' THEN greatest(0, p_allocated)
        WHEN p_credit_limit IS NOT NULL THEN greatest(0, p_allocated::numeric + p_credit_limit) END)
$$;

-- Records what a credit is worth now.
CREATE OR REPLACE FUNCTION set_usd_per_credit(p_team_id text, p_usd_per_credit numeric) RETURNS void LANGUAGE sql AS $$
    UPDATE teams
    SET usd_per_credit = p_usd_per_credit, litellm_version = litellm_version + (max_budget IS NULL)::integer
    WHERE team_id = p_team_id AND usd_per_credit <> p_usd_per_credit
$$;

-- The desired state of a team in LiteLLM, with its version. `p_allocated`: the credits of a team that is being created.
-- `max_parallel_requests` NULL is the deployment's limit of open calls, 0 is none.
CREATE OR REPLACE FUNCTION litellm_desired_team(p_team_id text, p_allocated bigint DEFAULT NULL)
RETURNS json LANGUAGE sql STABLE
SECURITY DEFINER SET search_path FROM CURRENT AS $$
    SELECT json_build_object(
        'version', t.litellm_version,
        'team_id', t.team_id, 'team_alias', t.team_alias,
        'models', allowed_models(t.team_id),
        'max_budget', litellm_budget(t, a.budget_mode, a.credit_limit, coalesce(p_allocated, a.allocated)),
        'budget_duration', t.litellm_budget_duration,
        'rpm_limit', t.litellm_rpm_limit, 'tpm_limit', t.litellm_tpm_limit,
        'max_parallel_requests', t.limit_open_calls,
        'blocked', t.status = 'suspended',
        'keys', (SELECT coalesce(json_agg(json_build_object(
                            'hash', encode(key_hash, 'hex'),
                            'seconds_left', ceil(extract(epoch FROM revoked_at - now()))::bigint)
                            ORDER BY key_id), '[]')
                 FROM virtual_keys k
                 WHERE k.team_id = t.team_id AND k.key_hash IS NOT NULL AND coalesce(k.revoked_at > now(), true)),
        'revoked', (SELECT coalesce(json_agg(encode(key_hash, 'hex') ORDER BY key_id), '[]')
                    FROM virtual_keys k
                    WHERE k.team_id = t.team_id AND k.key_hash IS NOT NULL
                      AND k.revoked_at <= now() AND NOT k.litellm_deleted))
    FROM teams t JOIN credit_accounts a USING (team_id) WHERE t.team_id = p_team_id
$$;
GRANT EXECUTE ON FUNCTION litellm_desired_team TO llm_jobs_application;

-- The desired state if LiteLLM has to be synchronized; NULL if it is up to date, or there is no such team.
CREATE OR REPLACE FUNCTION litellm_pending_sync(p_team_id text) RETURNS json LANGUAGE sql STABLE
SECURITY DEFINER SET search_path FROM CURRENT AS $$
    SELECT litellm_desired_team(t.team_id) FROM teams t
    WHERE t.team_id = p_team_id AND t.status NOT IN ('creating', 'deleted') AND litellm_is_out_of_sync(t)
    UNION ALL SELECT NULL LIMIT 1
$$;
GRANT EXECUTE ON FUNCTION litellm_pending_sync TO llm_jobs_application;

-- Records that LiteLLM has version `p_version` of the team, and has deleted the keys with the digests `p_revoked`.
-- Answers the newest version: if that is a different one, the caller must synchronize again. So the last caller ends
-- with the newest version, in whatever order the updates arrived at LiteLLM.
CREATE OR REPLACE FUNCTION litellm_synced(p_team_id text, p_version bigint, p_revoked text[])
RETURNS bigint LANGUAGE sql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
    UPDATE virtual_keys SET litellm_deleted = true
    WHERE key_id IN (SELECT key_id FROM virtual_keys
                     WHERE team_id = p_team_id
                       AND key_hash = ANY (SELECT decode(hash, 'hex') FROM unnest(p_revoked) AS hash)
                     ORDER BY key_id FOR NO KEY UPDATE);
    UPDATE teams SET litellm_synced_version = greatest(litellm_synced_version, p_version)
    WHERE team_id = p_team_id RETURNING litellm_version
$$;
GRANT EXECUTE ON FUNCTION litellm_synced TO llm_jobs_application;

-- For putting LiteLLM right: {deadline, marker, keys: [{key_id, hash}], litellm}. Until LiteLLM is known to have all of
-- it, the team's calls synchronize it, too. Keys that were revoked are deleted there again.
CREATE OR REPLACE FUNCTION begin_resync(p_team_id text) RETURNS json LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    v_team teams;
BEGIN
    PERFORM existing_team(p_team_id);
    PERFORM FROM virtual_keys WHERE team_id = p_team_id ORDER BY key_id FOR NO KEY UPDATE;
    UPDATE virtual_keys SET litellm_deleted = false WHERE team_id = p_team_id AND revoked_at <= now();
    v_team := locked_team(p_team_id);
    UPDATE teams SET litellm_version = litellm_version + 1 WHERE team_id = p_team_id;
    RETURN json_build_object(
        'deadline', now() + interval '2 minutes', 'marker', v_team.litellm_marker,
        'keys', (SELECT coalesce(json_agg(json_build_object('key_id', key_id, 'hash', encode(key_hash, 'hex'))
                                          ORDER BY key_id), '[]')
                 FROM virtual_keys
                 WHERE team_id = p_team_id AND key_hash IS NOT NULL AND coalesce(revoked_at > now(), true)),
        'litellm', litellm_desired_team(p_team_id));
END $$;
GRANT EXECUTE ON FUNCTION begin_resync TO llm_jobs_application;
