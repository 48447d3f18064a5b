-- Organizations, model groups, access groups and teams.

CREATE FUNCTION organization_json(o organizations) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT json_build_object(
        'organization_id', o.organization_id, 'name', o.name, 'status', o.status,
        'litellm_organization_id', o.litellm_organization_id, 'metadata', o.metadata,
        'created_at', rfc3339(o.created_at), 'updated_at', rfc3339(o.updated_at))
$$;

-- `p_made_from_name`: the id is our own invention, so a taken one gets a suffix instead of being refused.
CREATE FUNCTION create_organization(
    p_organization_id text, p_made_from_name boolean, p_name text, p_metadata json, p_litellm_organization_id text
) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    v_id text := p_organization_id;
    v_row organizations;
BEGIN
    LOOP
        INSERT INTO organizations (organization_id, name, metadata, litellm_organization_id)
        VALUES (v_id, p_name, p_metadata, p_litellm_organization_id)
        ON CONFLICT DO NOTHING
        RETURNING * INTO v_row;
        EXIT WHEN FOUND;
        IF NOT p_made_from_name THEN
            PERFORM fail('LJ007', format('Organization ''%s'' already exists', p_organization_id));
        END IF;
        v_id := p_organization_id || '-' || substr(gen_random_uuid()::text, 1, 8);
    END LOOP;
    RETURN organization_json(v_row);
END $$;

CREATE FUNCTION get_organization(p_organization_id text) RETURNS json LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_row organizations;
BEGIN
    SELECT * INTO v_row FROM organizations WHERE organization_id = p_organization_id AND status <> 'deleted';
    IF NOT FOUND THEN
        PERFORM fail('LJ006', format('Organization ''%s'' not found', p_organization_id));
    END IF;
    RETURN organization_json(v_row);
END $$;

CREATE FUNCTION list_organizations(p_limit bigint, p_offset bigint) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT json_build_object(
        'total', (SELECT count(*) FROM organizations WHERE status <> 'deleted'),
        'organizations', (SELECT coalesce(json_agg(organization_json(o) ORDER BY o.organization_id), '[]')
            FROM (SELECT organization_id FROM organizations WHERE status <> 'deleted'
                  ORDER BY organization_id LIMIT p_limit OFFSET p_offset) AS page
            JOIN organizations o USING (organization_id)))
$$;

-- `p_fields` holds what changes: {name, metadata, litellm_organization_id}.
CREATE FUNCTION update_organization(p_organization_id text, p_fields json) RETURNS json LANGUAGE plpgsql AS $$
BEGIN
    PERFORM get_organization(p_organization_id);
    UPDATE organizations
    SET name = coalesce(p_fields ->> 'name', name),
        metadata = coalesce(p_fields -> 'metadata', metadata),
        litellm_organization_id = CASE WHEN p_fields -> 'litellm_organization_id' IS NULL THEN litellm_organization_id
                                       ELSE p_fields ->> 'litellm_organization_id' END,
        updated_at = now()
    WHERE organization_id = p_organization_id;
    RETURN get_organization(p_organization_id);
END $$;

-- Its id stays taken, since what its teams used goes on counting there.
CREATE FUNCTION delete_organization(p_organization_id text) RETURNS json LANGUAGE plpgsql AS $$
BEGIN
    PERFORM get_organization(p_organization_id);
    -- No team can be made in it meanwhile: that takes the row's key share.
    PERFORM FROM organizations WHERE organization_id = p_organization_id FOR UPDATE;
    IF EXISTS (SELECT FROM teams WHERE organization_id = p_organization_id AND status <> 'deleted') THEN
        PERFORM fail('LJ011', format('Organization ''%s'' still has teams', p_organization_id));
    END IF;
    UPDATE organizations SET status = 'deleted', updated_at = now() WHERE organization_id = p_organization_id;
    RETURN json_build_object('organization_id', p_organization_id, 'deleted', true);
END $$;

CREATE FUNCTION organization_teams(p_organization_id text) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    v_teams text[] := ARRAY(SELECT team_id FROM teams WHERE organization_id = p_organization_id
                            AND status NOT IN ('creating', 'deleted') ORDER BY team_id);
BEGIN
    PERFORM get_organization(p_organization_id);
    PERFORM sweep_teams(v_teams);
    RETURN json_build_object(
        'organization_id', p_organization_id, 'team_count', cardinality(v_teams),
        'teams', (SELECT coalesce(json_agg(team_json(t) ORDER BY t.team_id), '[]')
                  FROM teams t WHERE t.team_id = ANY (v_teams)));
END $$;

-- Model groups

CREATE FUNCTION model_group_json(g model_groups) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT json_build_object(
        'model_group_id', g.model_group_id, 'group_name', g.group_name, 'display_name', g.display_name,
        'description', g.description, 'status', g.status,
        'models', (SELECT json_agg(json_build_object('model_name', model_name, 'priority', priority, 'config', config)
                                   ORDER BY priority)
                   FROM model_group_models WHERE model_group_id = g.model_group_id),
        'metadata', g.metadata, 'created_at', rfc3339(g.created_at), 'updated_at', rfc3339(g.updated_at))
$$;

CREATE FUNCTION team_model_group_json(g model_groups) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT json_build_object('group_name', g.group_name, 'display_name', g.display_name, 'description', g.description,
                             'status', g.status)
$$;

-- `p_models`: [{model_name, priority, config}], at least one, priorities unique.
CREATE FUNCTION create_model_group(
    p_group_name text, p_display_name text, p_description text, p_models json, p_metadata json
) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    v_row model_groups;
BEGIN
    INSERT INTO model_groups (model_group_id, group_name, display_name, description, metadata)
    VALUES (uuid_v7(), p_group_name, p_display_name, p_description, p_metadata)
    ON CONFLICT DO NOTHING
    RETURNING * INTO v_row;
    IF NOT FOUND THEN
        PERFORM fail('LJ007', format('Model group ''%s'' already exists', p_group_name));
    END IF;
    PERFORM put_models(v_row.model_group_id, p_models);
    RETURN model_group_json(v_row);
END $$;

CREATE FUNCTION put_models(p_model_group_id uuid, p_models json) RETURNS void LANGUAGE sql AS $$
    DELETE FROM model_group_models WHERE model_group_id = p_model_group_id;
    INSERT INTO model_group_models (model_group_id, priority, model_name, config)
    SELECT p_model_group_id, (m ->> 'priority')::integer, m ->> 'model_name', m -> 'config'
    FROM json_array_elements(p_models) AS m;
$$;

CREATE FUNCTION named_model_group(p_group_name text) RETURNS model_groups LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_row model_groups;
BEGIN
    SELECT * INTO v_row FROM model_groups WHERE group_name = p_group_name;
    IF NOT FOUND THEN
        PERFORM fail('LJ006', format('Model group ''%s'' not found', p_group_name));
    END IF;
    RETURN v_row;
END $$;

-- The model groups that a team may use, best first: its own in the order of assignment, then those of its access groups.
CREATE FUNCTION team_groups(p_team_id text) RETURNS TABLE (model_group_id uuid, rank bigint) LANGUAGE sql STABLE AS $$
    SELECT g.model_group_id, row_number() OVER (ORDER BY min(g.place))
    FROM (
        SELECT t.model_group_id, ARRAY[0, t.position, 0] AS place FROM team_model_groups t WHERE t.team_id = p_team_id
        UNION ALL
        SELECT m.model_group_id, ARRAY[1, a.position, m.position]
        FROM team_access_groups a JOIN model_access_group_members m USING (access_group_id)
        WHERE a.team_id = p_team_id
    ) AS g
    GROUP BY g.model_group_id
$$;

-- The models of these teams' keys have changed: LiteLLM is to be told. Answers what, team by team. A team that is being created is told
-- by its first call.
CREATE FUNCTION litellm_to_tell(p_teams text[]) RETURNS json LANGUAGE plpgsql AS $$
BEGIN
    -- In the order of their ids, so that two changes don't wait for each other.
    PERFORM FROM teams WHERE team_id = ANY (p_teams) AND status <> 'deleted' ORDER BY team_id FOR NO KEY UPDATE;
    UPDATE teams t SET litellm_version = litellm_version + 1,
        -- A default that the team may use no more is none.
        default_model_group_id = (SELECT g.model_group_id FROM team_groups(t.team_id) g WHERE g.model_group_id = t.default_model_group_id)
    WHERE team_id = ANY (p_teams) AND status <> 'deleted';
    RETURN (SELECT coalesce(json_agg(litellm_wanted(team_id) ORDER BY team_id), '[]')
            FROM teams WHERE team_id = ANY (p_teams) AND status NOT IN ('creating', 'deleted'));
END $$;

-- The teams that may use a model group, directly or through an access group.
CREATE FUNCTION teams_with_group(p_model_group_id uuid) RETURNS text[] LANGUAGE sql STABLE AS $$
    SELECT ARRAY(
        SELECT team_id FROM team_model_groups WHERE model_group_id = p_model_group_id
        UNION
        SELECT a.team_id FROM model_access_group_members m JOIN team_access_groups a USING (access_group_id)
        WHERE m.model_group_id = p_model_group_id)
$$;

-- `p_fields` holds what changes: {display_name, description, metadata, models}. The answer says what LiteLLM is to be told.
CREATE FUNCTION update_model_group(p_group_name text, p_fields json) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    v_row model_groups := named_model_group(p_group_name);
BEGIN
    UPDATE model_groups
    SET display_name = coalesce(p_fields ->> 'display_name', display_name),
        description = CASE WHEN p_fields -> 'description' IS NULL THEN description ELSE p_fields ->> 'description' END,
        metadata = coalesce(p_fields -> 'metadata', metadata),
        updated_at = now()
    WHERE model_group_id = v_row.model_group_id
    RETURNING * INTO v_row;
    IF p_fields -> 'models' IS NULL THEN
        RETURN json_build_object('group', model_group_json(v_row), 'litellm', '[]'::json);
    END IF;
    PERFORM put_models(v_row.model_group_id, p_fields -> 'models');
    RETURN json_build_object('group', model_group_json(v_row),
                             'litellm', litellm_to_tell(teams_with_group(v_row.model_group_id)));
END $$;

CREATE FUNCTION delete_model_group(p_group_name text) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    v_id uuid := (named_model_group(p_group_name)).model_group_id;
BEGIN
    PERFORM FROM model_groups WHERE model_group_id = v_id FOR UPDATE;
    IF EXISTS (SELECT FROM team_model_groups WHERE model_group_id = v_id)
        OR EXISTS (SELECT FROM model_access_group_members WHERE model_group_id = v_id) THEN
        PERFORM fail('LJ011', format('Model group ''%s'' is still assigned to teams or access groups', p_group_name));
    END IF;
    UPDATE teams SET default_model_group_id = NULL WHERE default_model_group_id = v_id;
    DELETE FROM model_groups WHERE model_group_id = v_id;
    RETURN json_build_object('group_name', p_group_name, 'deleted', true);
END $$;

-- The groups that a team may use, without their models: what a team sees of a model group.
CREATE FUNCTION list_team_model_groups(p_team_id text, p_limit bigint, p_offset bigint) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT json_build_object(
        'total', (SELECT count(*) FROM team_groups(p_team_id)),
        'model_groups', (SELECT coalesce(json_agg(team_model_group_json(g) ORDER BY page.rank), '[]')
            FROM (SELECT * FROM team_groups(p_team_id) ORDER BY rank LIMIT p_limit OFFSET p_offset) AS page
            JOIN model_groups g USING (model_group_id)))
$$;

CREATE FUNCTION get_team_model_group(p_team_id text, p_group_name text) RETURNS json LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_row model_groups;
BEGIN
    SELECT g.* INTO v_row FROM team_groups(p_team_id) t JOIN model_groups g USING (model_group_id)
    WHERE g.group_name = p_group_name;
    IF NOT FOUND THEN
        PERFORM fail('LJ006', format('Model group ''%s'' not found', p_group_name));
    END IF;
    RETURN team_model_group_json(v_row);
END $$;

-- The same as OpenAI's models: {group_name, created}.
CREATE FUNCTION openai_model_json(g model_groups) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT json_build_object('group_name', g.group_name, 'created', floor(extract(epoch FROM g.created_at))::bigint)
$$;

CREATE FUNCTION list_openai_models(p_team_id text) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT coalesce(json_agg(openai_model_json(g) ORDER BY t.rank), '[]')
    FROM team_groups(p_team_id) t JOIN model_groups g USING (model_group_id)
$$;

CREATE FUNCTION get_openai_model(p_team_id text, p_group_name text) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT openai_model_json(named_model_group(get_team_model_group(p_team_id, p_group_name) ->> 'group_name'))
$$;

CREATE FUNCTION list_model_groups(p_limit bigint, p_offset bigint) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT json_build_object(
        'total', (SELECT count(*) FROM model_groups),
        'model_groups', (SELECT coalesce(json_agg(model_group_json(g) ORDER BY g.group_name), '[]')
            FROM (SELECT * FROM model_groups ORDER BY group_name LIMIT p_limit OFFSET p_offset) AS page
            JOIN model_groups g USING (model_group_id)))
$$;

CREATE FUNCTION get_model_group(p_group_name text) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT model_group_json(named_model_group(p_group_name))
$$;

-- What a team's call to a group would use. Models are shown only to those who may use them.
CREATE FUNCTION resolve_model_group(p_group_name text, p_team_id text) RETURNS json LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_group model_groups := named_model_group(p_group_name);
    v_models text[];
BEGIN
    PERFORM existing_team(p_team_id);
    IF EXISTS (SELECT FROM team_groups(p_team_id) t WHERE t.model_group_id = v_group.model_group_id) THEN
        SELECT array_agg(model_name ORDER BY priority) INTO v_models
        FROM model_group_models WHERE model_group_id = v_group.model_group_id;
    END IF;
    RETURN json_build_object(
        'group_name', p_group_name, 'primary_model', v_models[1],
        'fallback_models', coalesce(v_models[2:], '{}'), 'team_has_access', v_models IS NOT NULL);
END $$;

-- Access groups

CREATE FUNCTION access_group_json(a model_access_groups) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT json_build_object(
        'access_group_id', a.access_group_id, 'group_name', a.group_name, 'display_name', a.display_name,
        'description', a.description, 'status', a.status,
        'model_groups', (SELECT coalesce(json_agg(g.group_name ORDER BY m.position), '[]')
                         FROM model_access_group_members m JOIN model_groups g USING (model_group_id)
                         WHERE m.access_group_id = a.access_group_id),
        'created_at', rfc3339(a.created_at), 'updated_at', rfc3339(a.updated_at))
$$;

-- The ids of the named model groups in the order of the names. A name that does not exist is refused; a repeated one counts once.
CREATE FUNCTION model_group_ids(p_names text[]) RETURNS TABLE (model_group_id uuid, place integer) LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_name text;
BEGIN
    FOREACH v_name IN ARRAY p_names LOOP
        PERFORM named_model_group(v_name);
    END LOOP;
    RETURN QUERY
        SELECT g.model_group_id, min(n.ordinality)::integer
        FROM unnest(p_names) WITH ORDINALITY AS n (name, ordinality) JOIN model_groups g ON g.group_name = n.name
        GROUP BY g.model_group_id;
END $$;

-- `p_models`, when not NULL: a model group of the same name is made of these models, in order, and is the set's only member.
CREATE FUNCTION create_model_access_group(
    p_group_name text, p_display_name text, p_description text, p_model_groups text[], p_models json
) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    v_row model_access_groups;
BEGIN
    INSERT INTO model_access_groups (access_group_id, group_name, display_name, description)
    VALUES (uuid_v7(), p_group_name, p_display_name, p_description)
    ON CONFLICT DO NOTHING
    RETURNING * INTO v_row;
    IF NOT FOUND THEN
        PERFORM fail('LJ007', format('Model access group ''%s'' already exists', p_group_name));
    END IF;
    IF p_models IS NOT NULL THEN
        PERFORM create_model_group(p_group_name, p_display_name, p_description, p_models, '{}');
    END IF;
    INSERT INTO model_access_group_members (access_group_id, model_group_id, position)
    SELECT v_row.access_group_id, g.model_group_id, g.place
    FROM model_group_ids(CASE WHEN p_models IS NULL THEN p_model_groups ELSE ARRAY[p_group_name] END) g;
    RETURN access_group_json(v_row);
END $$;

CREATE FUNCTION named_access_group(p_group_name text) RETURNS model_access_groups LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_row model_access_groups;
BEGIN
    SELECT * INTO v_row FROM model_access_groups WHERE group_name = p_group_name;
    IF NOT FOUND THEN
        PERFORM fail('LJ006', format('Model access group ''%s'' not found', p_group_name));
    END IF;
    RETURN v_row;
END $$;

CREATE FUNCTION get_model_access_group(p_group_name text) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT access_group_json(named_access_group(p_group_name))
$$;

CREATE FUNCTION list_model_access_groups(p_limit bigint, p_offset bigint) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT json_build_object(
        'total', (SELECT count(*) FROM model_access_groups),
        'model_access_groups', (SELECT coalesce(json_agg(access_group_json(a) ORDER BY a.group_name), '[]')
            FROM (SELECT access_group_id FROM model_access_groups ORDER BY group_name LIMIT p_limit OFFSET p_offset) AS page
            JOIN model_access_groups a USING (access_group_id)))
$$;

-- `p_fields` holds what changes: {display_name, description, model_groups}. The answer says what LiteLLM is to be told.
CREATE FUNCTION update_model_access_group(p_group_name text, p_fields json) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    v_row model_access_groups := named_access_group(p_group_name);
BEGIN
    UPDATE model_access_groups
    SET display_name = coalesce(p_fields ->> 'display_name', display_name),
        description = CASE WHEN p_fields -> 'description' IS NULL THEN description ELSE p_fields ->> 'description' END,
        updated_at = now()
    WHERE access_group_id = v_row.access_group_id
    RETURNING * INTO v_row;
    IF p_fields -> 'model_groups' IS NULL THEN
        RETURN json_build_object('group', access_group_json(v_row), 'litellm', '[]'::json);
    END IF;
    DELETE FROM model_access_group_members WHERE access_group_id = v_row.access_group_id;
    INSERT INTO model_access_group_members (access_group_id, model_group_id, position)
    SELECT v_row.access_group_id, g.model_group_id, g.place
    FROM model_group_ids(ARRAY(SELECT json_array_elements_text(p_fields -> 'model_groups'))) g;
    RETURN json_build_object('group', access_group_json(v_row), 'litellm', litellm_to_tell(ARRAY(
        SELECT team_id FROM team_access_groups WHERE access_group_id = v_row.access_group_id)));
END $$;

CREATE FUNCTION delete_model_access_group(p_group_name text) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    v_id uuid := (named_access_group(p_group_name)).access_group_id;
BEGIN
    PERFORM FROM model_access_groups WHERE access_group_id = v_id FOR UPDATE;
    IF EXISTS (SELECT FROM team_access_groups WHERE access_group_id = v_id) THEN
        PERFORM fail('LJ011', format('Model access group ''%s'' is still assigned to teams', p_group_name));
    END IF;
    DELETE FROM model_access_groups WHERE access_group_id = v_id;
    RETURN json_build_object('group_name', p_group_name, 'deleted', true);
END $$;

-- Teams

CREATE FUNCTION existing_team(p_team_id text) RETURNS teams LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_row teams;
BEGIN
    SELECT * INTO v_row FROM teams WHERE team_id = p_team_id AND status NOT IN ('creating', 'deleted');
    IF NOT FOUND THEN
        PERFORM fail('LJ006', format('Team ''%s'' not found', p_team_id));
    END IF;
    RETURN v_row;
END $$;

-- The same, and nobody else changes it meanwhile.
CREATE FUNCTION locked_team(p_team_id text) RETURNS teams LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM teams WHERE team_id = p_team_id FOR NO KEY UPDATE;
    RETURN existing_team(p_team_id);
END $$;

-- The models of all groups that a team may use, each once, best first.
CREATE FUNCTION allowed_models(p_team_id text) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT coalesce(json_agg(model_name ORDER BY place), '[]')
    FROM (
        SELECT m.model_name, min(ARRAY[t.rank, m.priority]) AS place
        FROM team_groups(p_team_id) t JOIN model_group_models m USING (model_group_id)
        GROUP BY m.model_name
    ) AS models
$$;

-- Whether LiteLLM has something to be told of a team.
CREATE FUNCTION litellm_is_behind(t teams) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT t.litellm_synced_version < t.litellm_version
$$;

-- What LiteLLM is to know of a team, and which version of it this is.
CREATE FUNCTION litellm_wanted(p_team_id text) RETURNS json LANGUAGE sql STABLE AS $$
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

-- The same, if LiteLLM does not know it yet; NULL if it does, or the team is gone.
CREATE FUNCTION litellm_untold(p_team_id text) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT litellm_wanted(t.team_id) FROM teams t
    WHERE t.team_id = p_team_id AND t.status NOT IN ('creating', 'deleted') AND litellm_is_behind(t)
    UNION ALL SELECT NULL LIMIT 1
$$;

-- LiteLLM has been told version `p_version`, and the keys with these digests are gone there. Answers the newest version: if it is
-- another one, it must be told again, and whoever told it last sees that, in whatever order the tellings arrived there.
CREATE FUNCTION litellm_told(p_team_id text, p_version bigint, p_revoked text[]) RETURNS bigint LANGUAGE sql AS $$
    UPDATE virtual_keys SET litellm_deleted = true
    WHERE key_id IN (SELECT key_id FROM virtual_keys
                     WHERE team_id = p_team_id AND key_hash = ANY (SELECT decode(hash, 'hex') FROM unnest(p_revoked) AS hash)
                     ORDER BY key_id FOR NO KEY UPDATE);
    UPDATE teams SET litellm_synced_version = greatest(litellm_synced_version, p_version)
    WHERE team_id = p_team_id RETURNING litellm_version
$$;

CREATE FUNCTION key_json(k virtual_keys) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT json_build_object(
        'key_id', k.key_id, 'alias', k.alias, 'hint', k.hint, 'created_at', rfc3339(k.created_at),
        'last_used_at', rfc3339(k.last_used_at), 'revoked_at', rfc3339(k.revoked_at))
$$;

-- The newest key of a team that is not replaced; where all are, NULL.
CREATE FUNCTION newest_key(p_team_id text) RETURNS uuid LANGUAGE sql STABLE AS $$
    SELECT key_id FROM virtual_keys WHERE team_id = p_team_id AND key_hash IS NOT NULL AND revoked_at IS NULL
    ORDER BY key_id DESC LIMIT 1
$$;

CREATE FUNCTION team_json(t teams) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT json_build_object(
        'team_id', t.team_id, 'organization_id', t.organization_id, 'team_alias', t.team_alias, 'status', t.status,
        'credits', json_build_object(
            'credits_allocated', c.allocated, 'credits_used', c.used, 'credits_remaining', c.allocated - c.used,
            'credits_reserved', c.held, 'credits_available', c.allocated - c.used - c.held),
        'model_groups', (SELECT coalesce(json_agg(g.group_name ORDER BY a.position), '[]')
                         FROM team_model_groups a JOIN model_groups g USING (model_group_id) WHERE a.team_id = t.team_id),
        'access_groups', (SELECT coalesce(json_agg(g.group_name ORDER BY a.position), '[]')
                          FROM team_access_groups a JOIN model_access_groups g USING (access_group_id)
                          WHERE a.team_id = t.team_id),
        'allowed_models', allowed_models(t.team_id),
        'default_model_group', (SELECT group_name FROM model_groups g WHERE g.model_group_id = t.default_model_group_id),
        'budget_mode', c.budget_mode, 'credit_limit', c.credit_limit,
        'billing_mode', e.billing_mode, 'credits_per_dollar', e.credits_per_dollar, 'tokens_per_credit', e.tokens_per_credit,
        'pricing', e.pricing, 'webhook_url', t.webhook_url,
        'max_budget', t.litellm_max_budget, 'budget_duration', t.litellm_budget_duration,
        'rpm_limit', t.litellm_rpm_limit, 'tpm_limit', t.litellm_tpm_limit,
        'key', (SELECT key_json(k) FROM virtual_keys k WHERE k.key_id = newest_key(t.team_id)),
        'metadata', t.metadata, 'created_at', rfc3339(t.created_at), 'updated_at', rfc3339(t.updated_at))
    FROM credit_accounts c JOIN terms e ON e.terms_id = t.terms_id WHERE c.team_id = t.team_id
$$;

CREATE FUNCTION get_team(p_team_id text) RETURNS json LANGUAGE plpgsql AS $$
BEGIN
    PERFORM existing_team(p_team_id);
    PERFORM sweep_team(p_team_id);
    RETURN team_json(existing_team(p_team_id));
END $$;

CREATE FUNCTION list_teams(p_limit bigint, p_offset bigint) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    v_page text[] := ARRAY(SELECT team_id FROM teams WHERE status NOT IN ('creating', 'deleted') ORDER BY team_id LIMIT p_limit OFFSET p_offset);
BEGIN
    PERFORM sweep_teams(v_page);
    RETURN json_build_object(
        'total', (SELECT count(*) FROM teams WHERE status NOT IN ('creating', 'deleted')),
        'teams', (SELECT coalesce(json_agg(team_json(t) ORDER BY t.team_id), '[]')
                  FROM teams t WHERE t.team_id = ANY (v_page)));
END $$;

-- Before groups are assigned: from here on nobody changes what is in them, until LiteLLM's part of it is settled. Before the team's row.
CREATE FUNCTION hold_groups(p_model_groups text[], p_access_groups text[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM model_access_groups WHERE group_name = ANY (p_access_groups) ORDER BY access_group_id FOR SHARE;
    PERFORM FROM model_groups
    WHERE group_name = ANY (p_model_groups)
       OR model_group_id IN (SELECT m.model_group_id FROM model_access_group_members m JOIN model_access_groups a USING (access_group_id)
                             WHERE a.group_name = ANY (p_access_groups))
    ORDER BY model_group_id FOR SHARE;
END $$;

CREATE FUNCTION assign_model_groups(p_team_id text, p_names text[]) RETURNS void LANGUAGE sql AS $$
    DELETE FROM team_model_groups WHERE team_id = p_team_id;
    INSERT INTO team_model_groups (team_id, model_group_id, position)
    SELECT p_team_id, model_group_id, place FROM model_group_ids(p_names);
$$;

CREATE FUNCTION assign_access_groups(p_team_id text, p_names text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_name text;
BEGIN
    FOREACH v_name IN ARRAY p_names LOOP
        PERFORM named_access_group(v_name);
    END LOOP;
    DELETE FROM team_access_groups WHERE team_id = p_team_id;
    INSERT INTO team_access_groups (team_id, access_group_id, position)
    SELECT p_team_id, a.access_group_id, min(n.ordinality)
    FROM unnest(p_names) WITH ORDINALITY AS n (name, ordinality) JOIN model_access_groups a ON a.group_name = n.name
    GROUP BY a.access_group_id;
END $$;

-- The terms with these values, made where they are new.
CREATE FUNCTION terms_of(p_billing_mode text, p_credits_per_dollar numeric, p_tokens_per_credit bigint, p_pricing jsonb)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    v_id bigint;
BEGIN
    LOOP
        SELECT terms_id INTO v_id FROM terms
        WHERE billing_mode = p_billing_mode AND credits_per_dollar = p_credits_per_dollar
          AND tokens_per_credit = p_tokens_per_credit AND pricing IS NOT DISTINCT FROM p_pricing;
        EXIT WHEN FOUND;
        INSERT INTO terms (billing_mode, credits_per_dollar, tokens_per_credit, pricing)
        VALUES (p_billing_mode, p_credits_per_dollar, p_tokens_per_credit, p_pricing)
        ON CONFLICT DO NOTHING;
    END LOOP;
    RETURN v_id;
END $$;

-- First half of creating a team: everything but the key and the credits, invisible (`creating`) until `activate_team`.
-- `p_attempt` names the request; for `p_lease_seconds` no other may take over. `p_spec` is the request with its defaults filled in:
-- {organization_id, team_id, team_alias, model_groups, access_groups, default_model_group, budget_mode, credit_limit,
--  max_budget, budget_duration, rpm_limit, tpm_limit, billing_mode, credits_per_dollar, tokens_per_credit, pricing, webhook_url}.
-- `resumed` in the answer: an earlier attempt got stuck here, and LiteLLM may hold leftovers of it under the same marker.
CREATE FUNCTION begin_team(p_attempt uuid, p_lease_seconds integer, p_spec json, p_metadata json)
RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    v_team_id text := p_spec ->> 'team_id';
    v_marker uuid := uuid_v7();
    v_default uuid;
    v_old teams;
    v_resumed boolean := false;
BEGIN
    PERFORM get_organization(p_spec ->> 'organization_id');
    -- Waits for a deletion of the organization that is under way.
    PERFORM FROM organizations WHERE organization_id = p_spec ->> 'organization_id' AND status <> 'deleted' FOR KEY SHARE;
    IF NOT FOUND THEN
        PERFORM get_organization(p_spec ->> 'organization_id');
    END IF;
    PERFORM hold_groups(ARRAY(SELECT json_array_elements_text(p_spec -> 'model_groups')),
                        ARRAY(SELECT json_array_elements_text(p_spec -> 'access_groups')));
    SELECT * INTO v_old FROM teams WHERE team_id = v_team_id FOR UPDATE;
    IF FOUND THEN
        IF v_old.status <> 'creating' THEN
            PERFORM fail('LJ007', format('Team ''%s'' already exists', v_team_id));
        ELSIF v_old.creation_lease > now() THEN
            PERFORM fail('LJ009', format('Team ''%s'' is being created by another request', v_team_id));
        END IF;
        DELETE FROM teams WHERE team_id = v_team_id;
        v_marker := v_old.litellm_marker;
        v_resumed := true;
    END IF;
    IF p_spec ->> 'default_model_group' IS NOT NULL THEN
        v_default := (named_model_group(p_spec ->> 'default_model_group')).model_group_id;
    END IF;
    INSERT INTO teams (team_id, organization_id, team_alias, creation_attempt, creation_lease, litellm_marker,
                       default_model_group_id, terms_id, webhook_url, litellm_max_budget, litellm_budget_duration, litellm_rpm_limit,
                       litellm_tpm_limit, metadata)
    VALUES (v_team_id, p_spec ->> 'organization_id', p_spec ->> 'team_alias', p_attempt,
            now() + make_interval(secs => p_lease_seconds), v_marker, v_default,
            terms_of(p_spec ->> 'billing_mode', (p_spec ->> 'credits_per_dollar')::numeric,
                     (p_spec ->> 'tokens_per_credit')::bigint, nullif((p_spec -> 'pricing')::jsonb, 'null')),
            p_spec ->> 'webhook_url',
            (p_spec ->> 'max_budget')::numeric, p_spec ->> 'budget_duration',
            (p_spec ->> 'rpm_limit')::bigint, (p_spec ->> 'tpm_limit')::bigint, p_metadata)
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        PERFORM fail('LJ009', format('Team ''%s'' is being created by another request', v_team_id));
    END IF;
    INSERT INTO credit_accounts (team_id, budget_mode, credit_limit)
    VALUES (v_team_id, p_spec ->> 'budget_mode', (p_spec ->> 'credit_limit')::bigint);
    PERFORM assign_model_groups(v_team_id, ARRAY(SELECT json_array_elements_text(p_spec -> 'model_groups')));
    PERFORM assign_access_groups(v_team_id, ARRAY(SELECT json_array_elements_text(p_spec -> 'access_groups')));
    IF v_default IS NOT NULL AND v_default NOT IN (SELECT model_group_id FROM team_groups(v_team_id)) THEN
        PERFORM fail('LJ010', format('default_model_group: ''%s'' is not among the team''s model groups',
                                     p_spec ->> 'default_model_group'));
    END IF;
    RETURN json_build_object('resumed', v_resumed, 'marker', v_marker, 'litellm', litellm_wanted(v_team_id));
END $$;

-- Second half: LiteLLM has the team as `begin_team` answered it (`p_version`), and made the key. The credits are allocated, and the ledger gets its first row.
-- The same attempt again gets the same answer, in case the first one was lost on its way.
CREATE FUNCTION activate_team(
    p_attempt uuid, p_team_id text, p_version bigint, p_litellm_alias text, p_key_hash bytea, p_hint text, p_credits bigint
) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    v_row teams;
BEGIN
    SELECT * INTO v_row FROM teams WHERE team_id = p_team_id AND creation_attempt = p_attempt FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        PERFORM fail('LJ009', format('Team ''%s'' is being created by another request', p_team_id));
    ELSIF v_row.status = 'creating' THEN
        UPDATE teams SET status = 'active', litellm_synced_version = p_version WHERE team_id = p_team_id
        RETURNING * INTO v_row;
        INSERT INTO virtual_keys (key_id, team_id, alias, litellm_alias, key_hash, hint)
        VALUES (uuid_v7(), p_team_id, 'default', p_litellm_alias, p_key_hash, p_hint);
        IF p_credits > 0 THEN
            PERFORM post_transaction(p_team_id, 'allocation', p_credits, 'Initial allocation', NULL, '{}');
        END IF;
    END IF;
    RETURN team_json(v_row);
END $$;

-- The attempt failed before its second half. `p_clean`: LiteLLM holds nothing of it, so it never was; otherwise a repeat may take
-- over at once. Answers whether the attempt was still the one at it.
CREATE FUNCTION abandon_team(p_attempt uuid, p_team_id text, p_clean boolean) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF p_clean THEN
        DELETE FROM teams WHERE team_id = p_team_id AND status = 'creating' AND creation_attempt = p_attempt;
    ELSE
        UPDATE teams SET creation_lease = NULL
        WHERE team_id = p_team_id AND status = 'creating' AND creation_attempt = p_attempt;
    END IF;
    RETURN FOUND;
END $$;

-- What a change of a team answers: the team, and what LiteLLM is to be told of it.
CREATE FUNCTION changed_team(p_team_id text) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    v_litellm json := litellm_to_tell(ARRAY[p_team_id]) -> 0;
    v_row teams;
BEGIN
    UPDATE teams SET updated_at = now() WHERE team_id = p_team_id RETURNING * INTO v_row;
    RETURN json_build_object('team', team_json(v_row), 'litellm', v_litellm);
END $$;

CREATE FUNCTION set_team_model_groups(p_team_id text, p_names text[]) RETURNS json LANGUAGE plpgsql AS $$
BEGIN
    PERFORM hold_groups(p_names, '{}');
    PERFORM locked_team(p_team_id);
    PERFORM assign_model_groups(p_team_id, p_names);
    RETURN changed_team(p_team_id);
END $$;

CREATE FUNCTION set_team_access_groups(p_team_id text, p_names text[]) RETURNS json LANGUAGE plpgsql AS $$
BEGIN
    PERFORM hold_groups('{}', p_names);
    PERFORM locked_team(p_team_id);
    PERFORM assign_access_groups(p_team_id, p_names);
    RETURN changed_team(p_team_id);
END $$;

-- `p_fields` holds what changes, of what `begin_team` takes, and `metadata`. Jobs that exist keep their terms.
CREATE FUNCTION update_team(p_team_id text, p_fields json) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    v_team teams;
    v_terms terms;
    v_default uuid;
BEGIN
    PERFORM FROM credit_accounts WHERE team_id = p_team_id FOR NO KEY UPDATE;
    v_team := locked_team(p_team_id);
    v_default := v_team.default_model_group_id;
    UPDATE credit_accounts
    SET budget_mode = coalesce(p_fields ->> 'budget_mode', budget_mode),
        credit_limit = CASE WHEN p_fields -> 'credit_limit' IS NULL THEN credit_limit ELSE (p_fields ->> 'credit_limit')::bigint END,
        -- Where the new limit is already passed, nothing new starts until it is topped up.
        overdraft = 9000000000000000000
    WHERE team_id = p_team_id;
    UPDATE credit_accounts SET overdraft = greatest(0, floor - (allocated - used - held)) WHERE team_id = p_team_id;

    SELECT * INTO STRICT v_terms FROM terms WHERE terms_id = v_team.terms_id;
    IF p_fields ->> 'default_model_group' IS NOT NULL THEN
        v_default := (named_model_group(p_fields ->> 'default_model_group')).model_group_id;
        IF v_default NOT IN (SELECT model_group_id FROM team_groups(p_team_id)) THEN
            PERFORM fail('LJ010', format('default_model_group: ''%s'' is not among the team''s model groups',
                                         p_fields ->> 'default_model_group'));
        END IF;
    ELSIF p_fields -> 'default_model_group' IS NOT NULL THEN
        v_default := NULL;
    END IF;
    UPDATE teams
    SET team_alias = coalesce(p_fields ->> 'team_alias', team_alias),
        metadata = coalesce(p_fields -> 'metadata', metadata),
        default_model_group_id = v_default,
        terms_id = terms_of(
            coalesce(p_fields ->> 'billing_mode', v_terms.billing_mode),
            coalesce((p_fields ->> 'credits_per_dollar')::numeric, v_terms.credits_per_dollar),
            coalesce((p_fields ->> 'tokens_per_credit')::bigint, v_terms.tokens_per_credit),
            CASE WHEN p_fields -> 'pricing' IS NULL THEN v_terms.pricing ELSE nullif((p_fields -> 'pricing')::jsonb, 'null') END),
        webhook_url = CASE WHEN p_fields -> 'webhook_url' IS NULL THEN webhook_url ELSE p_fields ->> 'webhook_url' END,
        litellm_max_budget = CASE WHEN p_fields -> 'max_budget' IS NULL THEN litellm_max_budget
                                  ELSE (p_fields ->> 'max_budget')::numeric END,
        litellm_budget_duration = CASE WHEN p_fields -> 'budget_duration' IS NULL THEN litellm_budget_duration
                                       ELSE p_fields ->> 'budget_duration' END,
        litellm_rpm_limit = CASE WHEN p_fields -> 'rpm_limit' IS NULL THEN litellm_rpm_limit
                                 ELSE (p_fields ->> 'rpm_limit')::bigint END,
        litellm_tpm_limit = CASE WHEN p_fields -> 'tpm_limit' IS NULL THEN litellm_tpm_limit
                                 ELSE (p_fields ->> 'tpm_limit')::bigint END
    WHERE team_id = p_team_id;
    RETURN changed_team(p_team_id);
END $$;

CREATE FUNCTION set_team_status(p_team_id text, p_status text) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    v_team teams := locked_team(p_team_id);
BEGIN
    UPDATE teams SET status = p_status WHERE team_id = p_team_id AND status <> p_status;
    IF FOUND AND p_status = 'suspended' THEN
        PERFORM raise_alert(p_team_id, 'team_suspended', format('Team ''%s'' is suspended', p_team_id), '{}');
    END IF;
    RETURN changed_team(p_team_id);
END $$;

-- The team goes out of sight with its keys; its ledger and what it used stay, and its id stays taken. What it has open is cancelled by
-- `cancel_open_jobs` then, when nothing new can be opened any more. Until LiteLLM is known to have deleted it, too (`litellm_told`), the
-- same request again goes on where this one ended.
CREATE FUNCTION delete_team(p_team_id text) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    v_row teams;
    v_hashes json;
BEGIN
    SELECT * INTO v_row FROM teams WHERE team_id = p_team_id;
    IF NOT FOUND OR v_row.status = 'creating' OR (v_row.status = 'deleted' AND NOT litellm_is_behind(v_row)) THEN
        PERFORM fail('LJ006', format('Team ''%s'' not found', p_team_id));
    END IF;
    PERFORM FROM virtual_keys WHERE team_id = p_team_id ORDER BY key_id FOR NO KEY UPDATE;
    WITH revoked AS (
        UPDATE virtual_keys SET revoked_at = least(revoked_at, now()) WHERE team_id = p_team_id AND key_hash IS NOT NULL
        RETURNING key_hash)
    SELECT coalesce(json_agg(encode(key_hash, 'hex')), '[]') INTO v_hashes FROM revoked;
    UPDATE teams SET status = 'deleted', updated_at = now(), default_model_group_id = NULL,
                     litellm_version = litellm_version + (status <> 'deleted')::integer
    WHERE team_id = p_team_id RETURNING * INTO v_row;
    DELETE FROM team_model_groups WHERE team_id = p_team_id;
    DELETE FROM team_access_groups WHERE team_id = p_team_id;
    RETURN json_build_object(
        'team_id', p_team_id, 'marker', v_row.litellm_marker, 'key_hashes', v_hashes, 'version', v_row.litellm_version);
END $$;

-- Cancels all that a deleted team has open, and ends its refills. Answers how many jobs that were.
CREATE FUNCTION cancel_open_jobs(p_team_id text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    v_cancelled bigint;
BEGIN
    -- The jobs before the account, as everywhere.
    PERFORM FROM jobs WHERE team_id = p_team_id AND status IN ('pending', 'in_progress') ORDER BY job_id FOR NO KEY UPDATE;
    PERFORM sweep_team(p_team_id);
    -- Waits for whoever still creates a job.
    UPDATE credit_accounts SET refill_due = NULL WHERE team_id = p_team_id;
    SELECT count(complete_job(NULL, job_id, 'cancelled', '{}', 'The team was deleted')) INTO v_cancelled
    FROM (SELECT job_id FROM jobs WHERE team_id = p_team_id AND status IN ('pending', 'in_progress')
          -- One that was only just created can be in nobody's hands but those of who completes it at this moment.
          ORDER BY job_id FOR NO KEY UPDATE SKIP LOCKED) AS open_jobs;
    RETURN v_cancelled;
END $$;

-- Keys

CREATE FUNCTION list_keys(p_team_id text) RETURNS json LANGUAGE plpgsql STABLE AS $$
BEGIN
    PERFORM existing_team(p_team_id);
    RETURN json_build_object('team_id', p_team_id, 'keys', (
        SELECT coalesce(json_agg(key_json(k) ORDER BY k.key_id DESC), '[]')
        FROM virtual_keys k WHERE k.team_id = p_team_id AND k.key_hash IS NOT NULL));
END $$;

-- First half of making a key: names it, before LiteLLM is asked for it. `p_replaced` is the key whose place it takes, if it takes one's;
-- `p_rotate` without one: that of the newest. `leftovers` are the aliases under which LiteLLM may hold keys that requests which died
-- half way left there; nobody has ever seen those.
CREATE FUNCTION begin_key(p_team_id text, p_key_id uuid, p_alias text, p_rotate boolean, p_replaced uuid) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    v_team teams := existing_team(p_team_id);
    v_replaced uuid := CASE WHEN p_rotate THEN coalesce(p_replaced, newest_key(p_team_id)) END;
    v_leftovers json;
BEGIN
    IF p_replaced IS NOT NULL
        AND NOT EXISTS (SELECT FROM virtual_keys
                        WHERE key_id = p_replaced AND team_id = p_team_id AND key_hash IS NOT NULL AND revoked_at IS NULL) THEN
        PERFORM fail('LJ006', format('Key ''%s'' not found', p_replaced));
    END IF;
    SELECT coalesce(json_agg(litellm_alias), '[]') INTO v_leftovers FROM virtual_keys
    WHERE team_id = p_team_id AND key_hash IS NULL AND created_at < now() - interval '2 minutes';
    INSERT INTO virtual_keys (key_id, team_id, alias, litellm_alias)
    VALUES (p_key_id, p_team_id,
            coalesce(p_alias, (SELECT alias FROM virtual_keys WHERE key_id = v_replaced), 'default'),
            format('%s-%s', p_team_id, p_key_id));
    RETURN json_build_object('replaced', v_replaced, 'leftovers', v_leftovers, 'litellm_alias', format('%s-%s', p_team_id, p_key_id),
                             'litellm', litellm_wanted(p_team_id));
END $$;

-- Second half: LiteLLM has made the key. The replaced one works for `p_grace_seconds` more. The answer says what LiteLLM is to be told.
CREATE FUNCTION activate_key(p_key_id uuid, p_key_hash bytea, p_hint text, p_replaced uuid, p_grace_seconds integer)
RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    v_row virtual_keys;
BEGIN
    PERFORM FROM virtual_keys WHERE key_id IN (p_key_id, p_replaced) ORDER BY key_id FOR NO KEY UPDATE;
    UPDATE virtual_keys SET key_hash = p_key_hash, hint = p_hint WHERE key_id = p_key_id RETURNING * INTO v_row;
    IF NOT FOUND THEN
        PERFORM fail('LJ009', 'The key is being cleared away by another request');
    END IF;
    -- It may have been deleted since.
    PERFORM locked_team(v_row.team_id);
    UPDATE virtual_keys SET revoked_at = now() + make_interval(secs => p_grace_seconds)
    WHERE key_id = p_replaced AND revoked_at IS NULL;
    UPDATE teams SET litellm_version = litellm_version + 1 WHERE team_id = v_row.team_id;
    RETURN json_build_object('key', key_json(v_row), 'litellm', litellm_wanted(v_row.team_id));
END $$;

-- LiteLLM holds nothing under these aliases any more.
CREATE FUNCTION forget_keys(p_litellm_aliases text[]) RETURNS boolean LANGUAGE sql AS $$
    DELETE FROM virtual_keys WHERE key_hash IS NULL AND litellm_alias = ANY (p_litellm_aliases);
    SELECT true;
$$;

-- The key stops at once. Revoking it again changes nothing, so that LiteLLM can be told again.
CREATE FUNCTION revoke_key(p_team_id text, p_key_id uuid) RETURNS json LANGUAGE plpgsql AS $$
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
    RETURN json_build_object('key', key_json(v_row), 'litellm', litellm_wanted(p_team_id));
END $$;

-- Alerts

CREATE FUNCTION raise_alert(p_team_id text, p_kind text, p_message text, p_details json) RETURNS void LANGUAGE sql AS $$
    INSERT INTO alerts (alert_id, team_id, kind, message, details, webhook_url)
    SELECT uuid_v7(), p_team_id, p_kind, p_message, p_details, webhook_url FROM teams WHERE team_id = p_team_id
$$;

CREATE FUNCTION alert_json(a alerts) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT json_build_object(
        'alert_id', a.alert_id, 'team_id', a.team_id, 'kind', a.kind, 'message', a.message, 'details', a.details,
        'created_at', rfc3339(a.created_at))
$$;

-- Newest first.
CREATE FUNCTION list_alerts(p_team_id text, p_limit bigint, p_offset bigint) RETURNS json LANGUAGE plpgsql STABLE AS $$
BEGIN
    PERFORM existing_team(p_team_id);
    RETURN json_build_object(
        'team_id', p_team_id,
        'total', (SELECT count(*) FROM alerts WHERE team_id = p_team_id),
        'alerts', (SELECT coalesce(json_agg(json_build_object(
                       'alert_id', alert_id, 'kind', kind, 'message', message, 'details', details, 'created_at', rfc3339(created_at),
                       'webhook_url', webhook_url, 'delivery_attempts', attempts, 'delivered_at', rfc3339(delivered_at))
                       ORDER BY entry DESC), '[]')
                   FROM (SELECT * FROM alerts WHERE team_id = p_team_id ORDER BY entry DESC LIMIT p_limit OFFSET p_offset) AS page));
END $$;

CREATE FUNCTION alerts_are_due(p_team_id text) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN EXISTS (SELECT FROM alerts WHERE team_id = p_team_id AND delivered_at IS NULL AND webhook_url IS NOT NULL
                   AND next_attempt_at <= now());
END $$;

-- Takes up to 10 alerts that a webhook is due to hear of, of one team or (NULL) of all. Each is then due again later, at growing intervals,
-- until `alert_delivered` says that it arrived: so somebody who dies with one in his hands loses none.
CREATE FUNCTION take_alerts(p_team_id text) RETURNS json LANGUAGE sql AS $$
    WITH due AS (
        SELECT alert_id FROM alerts
        WHERE delivered_at IS NULL AND webhook_url IS NOT NULL AND next_attempt_at <= now()
          AND (p_team_id IS NULL OR team_id = p_team_id) AND attempts < 20
        ORDER BY next_attempt_at LIMIT 10 FOR UPDATE SKIP LOCKED
    ), taken AS (
        UPDATE alerts a
        SET attempts = attempts + 1, next_attempt_at = now() + least(interval '1 minute' * power(2, attempts), interval '6 hours')
        FROM due WHERE a.alert_id = due.alert_id
        RETURNING a.*
    )
    SELECT coalesce(json_agg(json_build_object('alert_id', t.alert_id, 'team_id', t.team_id, 'url', t.webhook_url, 'body', alert_json(a))), '[]')
    FROM taken t JOIN alerts a USING (alert_id)
$$;

CREATE FUNCTION alert_delivered(p_alert_id uuid) RETURNS boolean LANGUAGE sql AS $$
    UPDATE alerts SET delivered_at = now() WHERE alert_id = p_alert_id AND delivered_at IS NULL;
    SELECT true;
$$;
