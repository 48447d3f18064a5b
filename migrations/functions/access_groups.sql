-- Access groups: named sets of model groups.

CREATE OR REPLACE FUNCTION access_group_json(a model_access_groups) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT json_build_object(
        'access_group_id', a.access_group_id, 'group_name', a.group_name, 'display_name', a.display_name,
        'description', a.description, 'status', a.status,
        'model_groups', (SELECT coalesce(json_agg(g.group_name ORDER BY m.position), '[]')
                         FROM model_access_group_members m JOIN model_groups g USING (model_group_id)
                         WHERE m.access_group_id = a.access_group_id),
        'created_at', rfc3339(a.created_at), 'updated_at', rfc3339(a.updated_at))
$$;

-- The ids of the named model groups, in the order of the names. Fails where a name does not exist; a repeated name
-- counts once.
CREATE OR REPLACE FUNCTION model_group_ids(p_names text[])
RETURNS TABLE (model_group_id uuid, place integer) LANGUAGE plpgsql STABLE AS $$
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

-- If `p_models` is not NULL, a model group of the same name is created with these models, in order, and becomes the
-- only member of the access group.
CREATE OR REPLACE FUNCTION create_model_access_group(
    p_access_group_name text, p_display_name text, p_description text, p_model_groups text[], p_models json
) RETURNS json LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    v_row model_access_groups;
BEGIN
    INSERT INTO model_access_groups (access_group_id, group_name, display_name, description)
    VALUES (uuid_v7(), p_access_group_name, p_display_name, p_description)
    ON CONFLICT DO NOTHING
    RETURNING * INTO v_row;
    IF NOT FOUND THEN
        PERFORM fail('LJ007', format('Model access group ''%s'' already exists', p_access_group_name));
    END IF;
    IF p_models IS NOT NULL THEN
        PERFORM create_model_group(p_access_group_name, p_display_name, p_description, p_models, '{}');
    END IF;
    INSERT INTO model_access_group_members (access_group_id, model_group_id, position)
    SELECT v_row.access_group_id, g.model_group_id, g.place
    FROM model_group_ids(CASE WHEN p_models IS NULL THEN p_model_groups ELSE ARRAY[p_access_group_name] END) g;
    RETURN access_group_json(v_row);
END $$;
GRANT EXECUTE ON FUNCTION create_model_access_group TO llm_jobs_application;

CREATE OR REPLACE FUNCTION named_access_group(p_access_group_name text)
RETURNS model_access_groups LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_row model_access_groups;
BEGIN
    SELECT * INTO v_row FROM model_access_groups WHERE group_name = p_access_group_name;
    IF NOT FOUND THEN
        PERFORM fail('LJ006', format('Model access group ''%s'' not found', p_access_group_name));
    END IF;
    RETURN v_row;
END $$;

CREATE OR REPLACE FUNCTION get_model_access_group(p_access_group_name text) RETURNS json LANGUAGE sql STABLE
SECURITY DEFINER SET search_path FROM CURRENT AS $$
    SELECT access_group_json(named_access_group(p_access_group_name))
$$;
GRANT EXECUTE ON FUNCTION get_model_access_group TO llm_jobs_application;

CREATE OR REPLACE FUNCTION list_model_access_groups(p_limit bigint, p_offset bigint) RETURNS json LANGUAGE sql STABLE
SECURITY DEFINER SET search_path FROM CURRENT AS $$
    SELECT json_build_object(
        'total', (SELECT count(*) FROM model_access_groups),
        'model_access_groups', (SELECT coalesce(json_agg(access_group_json(a) ORDER BY a.group_name), '[]')
            FROM (SELECT access_group_id FROM model_access_groups
                  ORDER BY group_name LIMIT p_limit OFFSET p_offset) AS page
            JOIN model_access_groups a USING (access_group_id)))
$$;
GRANT EXECUTE ON FUNCTION list_model_access_groups TO llm_jobs_application;

-- `p_fields` holds the changes: {display_name, description, model_groups}. `litellm` in the answer: the teams to
-- synchronize with LiteLLM (see `litellm_changed`).
CREATE OR REPLACE FUNCTION update_model_access_group(p_access_group_name text, p_fields json)
RETURNS json LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    v_row model_access_groups := named_access_group(p_access_group_name);
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
    RETURN json_build_object('group', access_group_json(v_row), 'litellm', litellm_changed(ARRAY(
        SELECT team_id FROM team_access_groups WHERE access_group_id = v_row.access_group_id)));
END $$;
GRANT EXECUTE ON FUNCTION update_model_access_group TO llm_jobs_application;

CREATE OR REPLACE FUNCTION delete_model_access_group(p_access_group_name text) RETURNS json LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    v_id uuid := (named_access_group(p_access_group_name)).access_group_id;
BEGIN
    PERFORM FROM model_access_groups WHERE access_group_id = v_id FOR UPDATE;
    IF EXISTS (SELECT FROM team_access_groups WHERE access_group_id = v_id) THEN
        PERFORM fail('LJ011', format('Model access group ''%s'' is still assigned to teams', p_access_group_name));
    END IF;
    DELETE FROM model_access_groups WHERE access_group_id = v_id;
    RETURN json_build_object('group_name', p_access_group_name, 'deleted', true);
END $$;
GRANT EXECUTE ON FUNCTION delete_model_access_group TO llm_jobs_application;
