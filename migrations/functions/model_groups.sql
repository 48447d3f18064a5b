-- Model groups.

CREATE OR REPLACE FUNCTION model_group_json(g model_groups) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT json_build_object(
        'model_group_id', g.model_group_id, 'group_name', g.group_name, 'display_name', g.display_name,
        'description', g.description, 'status', g.status,
        'models', (SELECT json_agg(json_build_object('model_name', model_name, 'priority', priority, 'config', config)
                                   ORDER BY priority)
                   FROM model_group_models WHERE model_group_id = g.model_group_id),
        'metadata', g.metadata, 'created_at', rfc3339(g.created_at), 'updated_at', rfc3339(g.updated_at))
$$;

CREATE OR REPLACE FUNCTION team_model_group_json(g model_groups) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT json_build_object('group_name', g.group_name, 'display_name', g.display_name, 'description', g.description,
                             'status', g.status)
$$;

-- `p_models`: [{model_name, priority, config}], at least one, priorities unique.
CREATE OR REPLACE FUNCTION create_model_group(
    p_group_name text, p_display_name text, p_description text, p_models json, p_metadata json
) RETURNS json LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
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
GRANT EXECUTE ON FUNCTION create_model_group TO llm_jobs_application;

CREATE OR REPLACE FUNCTION put_models(p_model_group_id uuid, p_models json) RETURNS void LANGUAGE sql AS $$
    DELETE FROM model_group_models WHERE model_group_id = p_model_group_id;
    INSERT INTO model_group_models (model_group_id, priority, model_name, config)
    SELECT p_model_group_id, (m ->> 'priority')::integer, m ->> 'model_name', m -> 'config'
    FROM json_array_elements(p_models) AS m;
$$;

CREATE OR REPLACE FUNCTION named_model_group(p_group_name text) RETURNS model_groups LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_row model_groups;
BEGIN
    SELECT * INTO v_row FROM model_groups WHERE group_name = p_group_name;
    IF NOT FOUND THEN
        PERFORM fail('LJ006', format('Model group ''%s'' not found', p_group_name));
    END IF;
    RETURN v_row;
END $$;

-- The model groups that a team may use, in order of preference: its own in the order of assignment, then those of its
-- access groups.
CREATE OR REPLACE FUNCTION team_groups(p_team_id text)
RETURNS TABLE (model_group_id uuid, rank bigint) LANGUAGE sql STABLE AS $$
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

-- `p_fields` holds the changes: {display_name, description, metadata, models}. `litellm` in the answer: the teams to
-- synchronize with LiteLLM (see `litellm_changed`).
CREATE OR REPLACE FUNCTION update_model_group(p_group_name text, p_fields json) RETURNS json LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
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
                             'litellm', litellm_changed(teams_with_group(v_row.model_group_id)));
END $$;
GRANT EXECUTE ON FUNCTION update_model_group TO llm_jobs_application;

CREATE OR REPLACE FUNCTION delete_model_group(p_group_name text) RETURNS json LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
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
GRANT EXECUTE ON FUNCTION delete_model_group TO llm_jobs_application;

-- The groups that a team may use, as teams see them: without models.
CREATE OR REPLACE FUNCTION list_team_model_groups(p_team_id text, p_limit bigint, p_offset bigint)
RETURNS json LANGUAGE sql STABLE
SECURITY DEFINER SET search_path FROM CURRENT AS $$
    SELECT json_build_object(
        'total', (SELECT count(*) FROM team_groups(p_team_id)),
        'model_groups', (SELECT coalesce(json_agg(team_model_group_json(g) ORDER BY page.rank), '[]')
            FROM (SELECT * FROM team_groups(p_team_id) ORDER BY rank LIMIT p_limit OFFSET p_offset) AS page
            JOIN model_groups g USING (model_group_id)))
$$;
GRANT EXECUTE ON FUNCTION list_team_model_groups TO llm_jobs_application;

CREATE OR REPLACE FUNCTION get_team_model_group(p_team_id text, p_group_name text) RETURNS json LANGUAGE plpgsql STABLE
SECURITY DEFINER SET search_path FROM CURRENT AS $$
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
GRANT EXECUTE ON FUNCTION get_team_model_group TO llm_jobs_application;

-- A model group as a model of OpenAI's API: {group_name, created}.
CREATE OR REPLACE FUNCTION openai_model_json(g model_groups) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT json_build_object('group_name', g.group_name, 'created', floor(extract(epoch FROM g.created_at))::bigint)
$$;

CREATE OR REPLACE FUNCTION list_openai_models(p_team_id text) RETURNS json LANGUAGE sql STABLE
SECURITY DEFINER SET search_path FROM CURRENT AS $$
    SELECT coalesce(json_agg(openai_model_json(g) ORDER BY t.rank), '[]')
    FROM team_groups(p_team_id) t JOIN model_groups g USING (model_group_id)
$$;
GRANT EXECUTE ON FUNCTION list_openai_models TO llm_jobs_application;

CREATE OR REPLACE FUNCTION get_openai_model(p_team_id text, p_group_name text) RETURNS json LANGUAGE sql STABLE
SECURITY DEFINER SET search_path FROM CURRENT AS $$
    SELECT openai_model_json(named_model_group(get_team_model_group(p_team_id, p_group_name) ->> 'group_name'))
$$;
GRANT EXECUTE ON FUNCTION get_openai_model TO llm_jobs_application;

CREATE OR REPLACE FUNCTION list_model_groups(p_limit bigint, p_offset bigint) RETURNS json LANGUAGE sql STABLE
SECURITY DEFINER SET search_path FROM CURRENT AS $$
    SELECT json_build_object(
        'total', (SELECT count(*) FROM model_groups),
        'model_groups', (SELECT coalesce(json_agg(model_group_json(g) ORDER BY g.group_name), '[]')
            FROM (SELECT * FROM model_groups ORDER BY group_name LIMIT p_limit OFFSET p_offset) AS page
            JOIN model_groups g USING (model_group_id)))
$$;
GRANT EXECUTE ON FUNCTION list_model_groups TO llm_jobs_application;

CREATE OR REPLACE FUNCTION get_model_group(p_group_name text) RETURNS json LANGUAGE sql STABLE
SECURITY DEFINER SET search_path FROM CURRENT AS $$
    SELECT model_group_json(named_model_group(p_group_name))
$$;
GRANT EXECUTE ON FUNCTION get_model_group TO llm_jobs_application;

-- The models that a team's call to a group would use. They are shown only for a team that may use the group.
CREATE OR REPLACE FUNCTION resolve_model_group(p_group_name text, p_team_id text) RETURNS json LANGUAGE plpgsql STABLE
SECURITY DEFINER SET search_path FROM CURRENT AS $$
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
GRANT EXECUTE ON FUNCTION resolve_model_group TO llm_jobs_application;
