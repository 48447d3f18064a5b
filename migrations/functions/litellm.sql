-- What LiteLLM is to know of teams, and whether it does.

-- The models of these teams' keys have changed: LiteLLM is to be told. Answers what, team by team. A team that is being created is told
-- by its first call.
CREATE OR REPLACE FUNCTION litellm_changed(p_teams text[]) RETURNS json LANGUAGE plpgsql AS $$
BEGIN
    -- In the order of their ids, so that two changes don't wait for each other.
    PERFORM FROM teams WHERE team_id = ANY (p_teams) AND status <> 'deleted' ORDER BY team_id FOR NO KEY UPDATE;
    UPDATE teams t SET litellm_version = litellm_version + 1,
        -- A default that the team may use no more is none.
        default_model_group_id = (SELECT g.model_group_id FROM team_groups(t.team_id) g WHERE g.model_group_id = t.default_model_group_id)
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

-- The models of all groups that a team may use, each once, best first.
CREATE OR REPLACE FUNCTION allowed_models(p_team_id text) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT coalesce(json_agg(model_name ORDER BY place), '[]')
    FROM (
        SELECT m.model_name, min(ARRAY[t.rank, m.priority]) AS place
        FROM team_groups(p_team_id) t JOIN model_group_models m USING (model_group_id)
        GROUP BY m.model_name
    ) AS models
$$;

-- Whether LiteLLM has something to be told of a team.
CREATE OR REPLACE FUNCTION litellm_is_out_of_sync(t teams) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT t.litellm_synced_version < t.litellm_version
$$;

-- What LiteLLM is to know of a team, and which version of it this is.
CREATE OR REPLACE FUNCTION litellm_desired_team(p_team_id text) RETURNS json LANGUAGE sql STABLE
SECURITY DEFINER SET search_path FROM CURRENT AS $$
    SELECT json_build_object(
        'version', t.litellm_version,
        'team_id', t.team_id, 'team_alias', t.team_alias,
        'models', allowed_models(t.team_id),
        'max_budget', t.litellm_max_budget, 'budget_duration', t.litellm_budget_duration,
        'rpm_limit', t.litellm_rpm_limit, 'tpm_limit', t.litellm_tpm_limit,
        'blocked', t.status = 'suspended',
        'keys', (SELECT coalesce(json_agg(json_build_object(
                            'hash', encode(key_hash, 'hex'),
                            'seconds_left', ceil(extract(epoch FROM revoked_at - now()))::bigint) ORDER BY key_id), '[]')
                 FROM virtual_keys k
                 WHERE k.team_id = t.team_id AND k.key_hash IS NOT NULL AND coalesce(k.revoked_at > now(), true)),
        'revoked', (SELECT coalesce(json_agg(encode(key_hash, 'hex') ORDER BY key_id), '[]')
                    FROM virtual_keys k
                    WHERE k.team_id = t.team_id AND k.key_hash IS NOT NULL AND k.revoked_at <= now() AND NOT k.litellm_deleted))
    FROM teams t WHERE t.team_id = p_team_id
$$;
GRANT EXECUTE ON FUNCTION litellm_desired_team TO llm_jobs_application;

-- The same, if LiteLLM does not know it yet; NULL if it does, or the team is gone.
CREATE OR REPLACE FUNCTION litellm_pending_sync(p_team_id text) RETURNS json LANGUAGE sql STABLE
SECURITY DEFINER SET search_path FROM CURRENT AS $$
    SELECT litellm_desired_team(t.team_id) FROM teams t
    WHERE t.team_id = p_team_id AND t.status NOT IN ('creating', 'deleted') AND litellm_is_out_of_sync(t)
    UNION ALL SELECT NULL LIMIT 1
$$;
GRANT EXECUTE ON FUNCTION litellm_pending_sync TO llm_jobs_application;

-- LiteLLM has been told version `p_version`, and the keys with these digests are gone there. Answers the newest version: if it is
-- another one, it must be told again, and whoever told it last sees that, in whatever order the tellings arrived there.
CREATE OR REPLACE FUNCTION litellm_synced(p_team_id text, p_version bigint, p_revoked text[]) RETURNS bigint LANGUAGE sql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
    UPDATE virtual_keys SET litellm_deleted = true
    WHERE key_id IN (SELECT key_id FROM virtual_keys
                     WHERE team_id = p_team_id AND key_hash = ANY (SELECT decode(hash, 'hex') FROM unnest(p_revoked) AS hash)
                     ORDER BY key_id FOR NO KEY UPDATE);
    UPDATE teams SET litellm_synced_version = greatest(litellm_synced_version, p_version)
    WHERE team_id = p_team_id RETURNING litellm_version
$$;
GRANT EXECUTE ON FUNCTION litellm_synced TO llm_jobs_application;
