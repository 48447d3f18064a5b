-- Access control. `p_actor` says on whose behalf a function acts. It is always spelled out, so that a missing value
-- never grants anything:
--   admin        the admin, who may do everything
--   key:<uuid>   the team of a virtual key, which is checked here, whatever a cache says
--   team:<id>    a team whose key was looked up before; only for functions that only read
--   system       this application, for a request that was authorized before

-- The team whose data the actor may change; NULL means every team.
CREATE OR REPLACE FUNCTION acting_team(p_actor text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    IF p_actor LIKE 'key:%' THEN
        RETURN team_of_key(substr(p_actor, 5)::uuid);
    ELSIF p_actor IN ('admin', 'system') THEN
        RETURN NULL;
    END IF;
    PERFORM fail('LJ000', format('no actor that may change anything: %s', coalesce(p_actor, 'NULL')));
END $$;

-- The team whose data the actor may read; NULL means every team.
CREATE OR REPLACE FUNCTION reading_team(p_actor text) RETURNS text LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF p_actor LIKE 'team:%' THEN
        RETURN substr(p_actor, 6);
    ELSIF p_actor = 'admin' THEN
        RETURN NULL;
    END IF;
    PERFORM fail('LJ000', format('no actor that may read: %s', coalesce(p_actor, 'NULL')));
END $$;
