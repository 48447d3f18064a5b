-- Organizations.

CREATE OR REPLACE FUNCTION organization_json(o organizations) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT json_build_object(
        'organization_id', o.organization_id, 'name', o.name, 'status', o.status,
        'litellm_organization_id', o.litellm_organization_id, 'metadata', o.metadata,
        'created_at', rfc3339(o.created_at), 'updated_at', rfc3339(o.updated_at))
$$;

-- `p_made_from_name`: the id was derived from the name, so if it is taken it gets a suffix instead of being refused.
CREATE OR REPLACE FUNCTION create_organization(
    p_organization_id text, p_made_from_name boolean, p_name text, p_metadata json, p_litellm_organization_id text
) RETURNS json LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
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
GRANT EXECUTE ON FUNCTION create_organization TO llm_jobs_application;

CREATE OR REPLACE FUNCTION get_organization(p_organization_id text) RETURNS json LANGUAGE plpgsql STABLE
SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    v_row organizations;
BEGIN
    SELECT * INTO v_row FROM organizations WHERE organization_id = p_organization_id AND status <> 'deleted';
    IF NOT FOUND THEN
        PERFORM fail('LJ006', format('Organization ''%s'' not found', p_organization_id));
    END IF;
    RETURN organization_json(v_row);
END $$;
GRANT EXECUTE ON FUNCTION get_organization TO llm_jobs_application;

CREATE OR REPLACE FUNCTION list_organizations(p_limit bigint, p_offset bigint) RETURNS json LANGUAGE sql STABLE
SECURITY DEFINER SET search_path FROM CURRENT AS $$
    SELECT json_build_object(
        'total', (SELECT count(*) FROM organizations WHERE status <> 'deleted'),
        'organizations', (SELECT coalesce(json_agg(organization_json(o) ORDER BY o.organization_id), '[]')
            FROM (SELECT organization_id FROM organizations WHERE status <> 'deleted'
                  ORDER BY organization_id LIMIT p_limit OFFSET p_offset) AS page
            JOIN organizations o USING (organization_id)))
$$;
GRANT EXECUTE ON FUNCTION list_organizations TO llm_jobs_application;

-- `p_fields` holds the changes: {name, metadata, litellm_organization_id}.
CREATE OR REPLACE FUNCTION update_organization(p_organization_id text, p_fields json) RETURNS json LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
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
GRANT EXECUTE ON FUNCTION update_organization TO llm_jobs_application;

-- The id stays taken, since the usage of its teams remains recorded under it.
CREATE OR REPLACE FUNCTION delete_organization(p_organization_id text) RETURNS json LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM get_organization(p_organization_id);
    -- Creating a team takes a key share lock on this row, so none can be created in the meantime.
    PERFORM FROM organizations WHERE organization_id = p_organization_id FOR UPDATE;
    -- Also one whose deletion is not finished.
    IF EXISTS (SELECT FROM teams t WHERE organization_id = p_organization_id
               AND (status <> 'deleted' OR litellm_is_out_of_sync(t))) THEN
        PERFORM fail('LJ011', format('Organization ''%s'' still has teams', p_organization_id));
    END IF;
    UPDATE organizations SET status = 'deleted', updated_at = now() WHERE organization_id = p_organization_id;
    RETURN json_build_object('organization_id', p_organization_id, 'deleted', true);
END $$;
GRANT EXECUTE ON FUNCTION delete_organization TO llm_jobs_application;

CREATE OR REPLACE FUNCTION organization_teams(p_organization_id text) RETURNS json LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
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
GRANT EXECUTE ON FUNCTION organization_teams TO llm_jobs_application;
