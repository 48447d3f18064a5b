-- The version of the schema.

-- The newest release whose functions are installed, such as `0.2.0`.
CREATE OR REPLACE FUNCTION schema_version() RETURNS text LANGUAGE sql STABLE
SECURITY DEFINER SET search_path FROM CURRENT AS $$
    SELECT release FROM schema_functions
$$;
GRANT EXECUTE ON FUNCTION schema_version TO llm_jobs_application;
