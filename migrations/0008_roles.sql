-- Who may do what: the application's role may call the functions of the API, and nothing else.
--
-- `llm_jobs_application` can't log in; the role with which the components do is a member of it. It has no right to any table, to any
-- function that is not listed here, or to make anything. The functions listed run as their owner, who made them by these migrations and
-- with whose rights nobody serves requests. So a defect in a component can call the API's functions with other values, but not write
-- a balance, change the ledger, or read the keys' digests.
--
-- Roles belong to the whole server, and whoever migrates may lack the right to make one. Then make the role beforehand, or run this
-- file again (`psql -1 -f`) once it is there, which may be done at any time. Without it only the owner can serve requests.

DO $$ BEGIN
    CREATE ROLE llm_jobs_application NOLOGIN;
EXCEPTION
    -- The latter: another database of this server is being migrated at the same time.
    WHEN duplicate_object OR unique_violation THEN NULL;
    WHEN insufficient_privilege THEN RAISE NOTICE 'the role llm_jobs_application does not exist, and % may not make it', current_user;
END $$;

DO $$
DECLARE
    v_functions text[] := ARRAY[
        -- requests
        'lookup_key', 'claim', 'lease', 'keep', 'release', 'keep_or_release', 'list_audit_log', 'keep_months',
        -- tenancy
        'create_organization', 'get_organization', 'list_organizations', 'update_organization', 'delete_organization',
        'organization_teams', 'create_model_group', 'get_model_group', 'list_model_groups', 'update_model_group',
        'delete_model_group', 'list_team_model_groups', 'get_team_model_group', 'list_openai_models', 'get_openai_model',
        'resolve_model_group', 'create_model_access_group', 'get_model_access_group', 'list_model_access_groups',
        'update_model_access_group', 'delete_model_access_group', 'begin_team', 'activate_team', 'abandon_team', 'get_team',
        'list_teams', 'update_team', 'set_team_model_groups', 'set_team_access_groups', 'set_team_status', 'delete_team',
        'cancel_open_jobs', 'list_keys', 'begin_key', 'activate_key', 'forget_keys', 'revoke_key', 'list_alerts', 'take_alerts',
        'alert_delivered', 'litellm_untold', 'litellm_wanted', 'litellm_told',
        -- credits
        'get_balance', 'check_credits', 'add_credits', 'adjust_credits', 'configure_auto_refill', 'list_transactions',
        -- jobs
        'create_job', 'complete_job', 'get_job', 'get_job_costs', 'merge_job_metadata', 'list_jobs', 'expire_jobs',
        -- calls
        'open_call', 'open_job_with_call', 'settle_call', 'settle_job_with_call', 'keep_messages',
        -- reports
        'team_usage', 'organization_usage', 'usage_rows', 'metrics'];
    -- Each of their statements finds one or a few rows by their keys, so one plan is as good as another. Left to itself PostgreSQL plans
    -- those that change jobs and calls anew every time, since it hopes to leave out the tables of other months, which running them
    -- does as well: half of the time of a call.
    v_planned_once text[] := ARRAY[
        'get_balance', 'check_credits', 'create_job', 'complete_job', 'get_job', 'get_job_costs', 'merge_job_metadata',
        'open_call', 'open_job_with_call', 'settle_call', 'settle_job_with_call'];
    v_can_grant boolean := EXISTS (SELECT FROM pg_roles WHERE rolname = 'llm_jobs_application');
    v_name text;
    v_function regprocedure;
BEGIN
    FOR v_function IN
        SELECT p.oid::regprocedure FROM pg_proc p
        WHERE pronamespace = current_schema()::regnamespace AND proowner = current_user::regrole
          AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = p.oid AND deptype = 'e')
    LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', v_function);
    END LOOP;
    IF v_can_grant THEN
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO llm_jobs_application', current_schema());
    END IF;
    FOREACH v_name IN ARRAY v_functions LOOP
        v_function := v_name::regproc::regprocedure;
        -- `pg_temp` last: otherwise it comes first, and what a caller makes there would take the place of what is meant.
        EXECUTE format('ALTER FUNCTION %s SECURITY DEFINER SET search_path = %I, pg_temp', v_function, current_schema());
        IF v_name = ANY (v_planned_once) THEN
            EXECUTE format('ALTER FUNCTION %s SET plan_cache_mode = force_generic_plan', v_function);
        END IF;
        IF v_can_grant THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO llm_jobs_application', v_function);
        END IF;
    END LOOP;
END $$;
