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
    SELECT * INTO v_row FROM organizations WHERE organization_id = p_organization_id;
    IF NOT FOUND THEN
        PERFORM fail('LJ006', format('Organization ''%s'' not found', p_organization_id));
    END IF;
    RETURN organization_json(v_row);
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
    INSERT INTO model_group_models (model_group_id, priority, model_name, config)
    SELECT v_row.model_group_id, (m ->> 'priority')::integer, m ->> 'model_name', m -> 'config'
    FROM json_array_elements(p_models) AS m;
    RETURN model_group_json(v_row);
END $$;

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

CREATE FUNCTION get_model_access_group(p_group_name text) RETURNS json LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_row model_access_groups;
BEGIN
    SELECT * INTO v_row FROM model_access_groups WHERE group_name = p_group_name;
    IF NOT FOUND THEN
        PERFORM fail('LJ006', format('Model access group ''%s'' not found', p_group_name));
    END IF;
    RETURN access_group_json(v_row);
END $$;

-- Teams

CREATE FUNCTION existing_team(p_team_id text) RETURNS teams LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_row teams;
BEGIN
    SELECT * INTO v_row FROM teams WHERE team_id = p_team_id AND status <> 'creating';
    IF NOT FOUND THEN
        PERFORM fail('LJ006', format('Team ''%s'' not found', p_team_id));
    END IF;
    RETURN v_row;
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

-- What LiteLLM is to know of a team, and which version of it this is.
CREATE FUNCTION litellm_wanted(p_team_id text) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT json_build_object(
        'version', t.litellm_version,
        'team_id', t.team_id, 'team_alias', t.team_alias,
        'models', allowed_models(t.team_id),
        'max_budget', t.litellm_max_budget, 'budget_duration', t.litellm_budget_duration,
        'rpm_limit', t.litellm_rpm_limit, 'tpm_limit', t.litellm_tpm_limit,
        'blocked', t.status = 'suspended',
        'key_hashes', (SELECT coalesce(json_agg(encode(key_hash, 'hex') ORDER BY key_id), '[]')
                       FROM virtual_keys k WHERE k.team_id = t.team_id AND k.revoked_at IS NULL))
    FROM teams t WHERE t.team_id = p_team_id
$$;

-- LiteLLM has been told version `p_version`. Answers the newest version: if it is another one, it must be told again, and whoever
-- told it last sees that, in whatever order the tellings arrived there.
CREATE FUNCTION litellm_told(p_team_id text, p_version bigint) RETURNS bigint LANGUAGE sql AS $$
    UPDATE teams SET litellm_synced_version = greatest(litellm_synced_version, p_version)
    WHERE team_id = p_team_id RETURNING litellm_version
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
        'max_budget', t.litellm_max_budget, 'budget_duration', t.litellm_budget_duration,
        'rpm_limit', t.litellm_rpm_limit, 'tpm_limit', t.litellm_tpm_limit,
        'key', (SELECT json_build_object('hint', k.hint, 'created_at', rfc3339(k.created_at),
                                         'last_used_at', rfc3339(k.last_used_at))
                FROM virtual_keys k WHERE k.team_id = t.team_id AND k.revoked_at IS NULL
                ORDER BY k.key_id DESC LIMIT 1),
        'metadata', t.metadata, 'created_at', rfc3339(t.created_at), 'updated_at', rfc3339(t.updated_at))
    FROM credit_accounts c WHERE c.team_id = t.team_id
$$;

CREATE FUNCTION get_team(p_team_id text) RETURNS json LANGUAGE plpgsql AS $$
BEGIN
    PERFORM existing_team(p_team_id);
    PERFORM sweep_team(p_team_id);
    RETURN team_json(existing_team(p_team_id));
END $$;

CREATE FUNCTION list_teams(p_limit bigint, p_offset bigint) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    v_page text[] := ARRAY(SELECT team_id FROM teams WHERE status <> 'creating' ORDER BY team_id LIMIT p_limit OFFSET p_offset);
BEGIN
    PERFORM sweep_team(team_id) FROM unnest(v_page) AS team_id;
    RETURN json_build_object(
        'total', (SELECT count(*) FROM teams WHERE status <> 'creating'),
        'teams', (SELECT coalesce(json_agg(team_json(t) ORDER BY t.team_id), '[]')
                  FROM teams t WHERE t.team_id = ANY (v_page)));
END $$;

CREATE FUNCTION assign_model_groups(p_team_id text, p_names text[]) RETURNS void LANGUAGE sql AS $$
    DELETE FROM team_model_groups WHERE team_id = p_team_id;
    INSERT INTO team_model_groups (team_id, model_group_id, position)
    SELECT p_team_id, model_group_id, place FROM model_group_ids(p_names);
$$;

-- First half of creating a team: everything but the key and the credits, invisible (`creating`) until `activate_team`.
-- `p_attempt` names the request; for `p_lease_seconds` no other may take over. `p_spec` is the request with its defaults filled in:
-- {organization_id, team_id, team_alias, model_groups, access_groups, default_model_group, budget_mode, credit_limit,
--  max_budget, budget_duration, rpm_limit, tpm_limit}.
-- `resumed` in the answer: an earlier attempt got stuck here, and LiteLLM may hold leftovers of it under the same marker.
CREATE FUNCTION begin_team(p_attempt uuid, p_lease_seconds integer, p_spec json, p_metadata json)
RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    v_team_id text := p_spec ->> 'team_id';
    v_marker uuid := uuid_v7();
    v_default uuid;
    v_access_group text;
    v_old teams;
    v_resumed boolean := false;
BEGIN
    PERFORM get_organization(p_spec ->> 'organization_id');
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
                       default_model_group_id, litellm_max_budget, litellm_budget_duration, litellm_rpm_limit,
                       litellm_tpm_limit, metadata)
    VALUES (v_team_id, p_spec ->> 'organization_id', p_spec ->> 'team_alias', p_attempt,
            now() + make_interval(secs => p_lease_seconds), v_marker, v_default,
            (p_spec ->> 'max_budget')::numeric, p_spec ->> 'budget_duration',
            (p_spec ->> 'rpm_limit')::bigint, (p_spec ->> 'tpm_limit')::bigint, p_metadata)
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        PERFORM fail('LJ009', format('Team ''%s'' is being created by another request', v_team_id));
    END IF;
    INSERT INTO credit_accounts (team_id, budget_mode, credit_limit)
    VALUES (v_team_id, p_spec ->> 'budget_mode', (p_spec ->> 'credit_limit')::bigint);
    PERFORM assign_model_groups(v_team_id, ARRAY(SELECT json_array_elements_text(p_spec -> 'model_groups')));
    FOR v_access_group IN SELECT json_array_elements_text(p_spec -> 'access_groups') LOOP
        PERFORM get_model_access_group(v_access_group);
    END LOOP;
    INSERT INTO team_access_groups (team_id, access_group_id, position)
    SELECT v_team_id, a.access_group_id, min(n.ordinality)
    FROM json_array_elements_text(p_spec -> 'access_groups') WITH ORDINALITY AS n (name, ordinality)
    JOIN model_access_groups a ON a.group_name = n.name
    GROUP BY a.access_group_id;
    IF v_default IS NOT NULL AND v_default NOT IN (SELECT model_group_id FROM team_groups(v_team_id)) THEN
        PERFORM fail('LJ010', format('default_model_group: ''%s'' is not among the team''s model groups',
                                     p_spec ->> 'default_model_group'));
    END IF;
    RETURN json_build_object('resumed', v_resumed, 'marker', v_marker, 'litellm', litellm_wanted(v_team_id));
END $$;

-- Second half: LiteLLM has the team and made the key. The credits are allocated, and the ledger gets its first row.
-- The same attempt again gets the same answer, in case the first one was lost on its way.
CREATE FUNCTION activate_team(p_attempt uuid, p_team_id text, p_key_hash bytea, p_hint text, p_credits bigint)
RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    v_row teams;
BEGIN
    SELECT * INTO v_row FROM teams WHERE team_id = p_team_id AND creation_attempt = p_attempt FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        PERFORM fail('LJ009', format('Team ''%s'' is being created by another request', p_team_id));
    ELSIF v_row.status = 'creating' THEN
        UPDATE teams SET status = 'active', litellm_synced_version = litellm_version WHERE team_id = p_team_id
        RETURNING * INTO v_row;
        INSERT INTO virtual_keys (key_id, team_id, key_hash, hint) VALUES (uuid_v7(), p_team_id, p_key_hash, p_hint);
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

CREATE FUNCTION set_team_model_groups(p_team_id text, p_names text[]) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    v_row teams;
BEGIN
    PERFORM existing_team(p_team_id);
    UPDATE teams SET litellm_version = litellm_version + 1, updated_at = now() WHERE team_id = p_team_id
    RETURNING * INTO v_row;
    PERFORM assign_model_groups(p_team_id, p_names);
    RETURN json_build_object('team', team_json(v_row), 'litellm', litellm_wanted(p_team_id));
END $$;

CREATE FUNCTION set_team_status(p_team_id text, p_status text) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    v_row teams;
BEGIN
    PERFORM existing_team(p_team_id);
    UPDATE teams SET status = p_status, litellm_version = litellm_version + 1, updated_at = now() WHERE team_id = p_team_id
    RETURNING * INTO v_row;
    RETURN json_build_object('team', team_json(v_row), 'litellm', litellm_wanted(p_team_id));
END $$;
