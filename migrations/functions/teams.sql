-- Teams.

-- A team; with `p_deleted`, which is for the admin's reading, also one that is deleted.
CREATE OR REPLACE FUNCTION existing_team(p_team_id text, p_deleted boolean DEFAULT false)
RETURNS teams LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_row teams;
BEGIN
    SELECT * INTO v_row FROM teams
    WHERE team_id = p_team_id AND status <> 'creating' AND (p_deleted OR status <> 'deleted');
    IF NOT FOUND THEN
        PERFORM fail('LJ006', format('Team ''%s'' not found', p_team_id));
    END IF;
    RETURN v_row;
END $$;

-- Like `existing_team`, and locks the team against concurrent changes.
CREATE OR REPLACE FUNCTION locked_team(p_team_id text) RETURNS teams LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM teams WHERE team_id = p_team_id FOR NO KEY UPDATE;
    RETURN existing_team(p_team_id);
END $$;

CREATE OR REPLACE FUNCTION team_json(t teams) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT json_build_object(
        'team_id', t.team_id, 'organization_id', t.organization_id, 'team_alias', t.team_alias,
        'status', CASE WHEN t.status = 'deleted' AND litellm_is_out_of_sync(t) THEN 'deleting' ELSE t.status END,
        'credits', json_build_object(
            'credits_allocated', c.allocated, 'credits_used', c.used, 'credits_remaining', c.allocated - c.used,
            'credits_reserved', c.held, 'credits_available', c.allocated - c.used - c.held),
        'model_groups', (SELECT coalesce(json_agg(g.group_name ORDER BY a.position), '[]')
                         FROM team_model_groups a JOIN model_groups g USING (model_group_id)
                         WHERE a.team_id = t.team_id),
        'access_groups', (SELECT coalesce(json_agg(g.group_name ORDER BY a.position), '[]')
                          FROM team_access_groups a JOIN model_access_groups g USING (access_group_id)
                          WHERE a.team_id = t.team_id),
        'allowed_models', allowed_models(t.team_id),
        'default_model_group', (SELECT group_name FROM model_groups g
                                WHERE g.model_group_id = t.default_model_group_id),
        'budget_mode', c.budget_mode, 'credit_limit', c.credit_limit,
        'billing_mode', e.billing_mode, 'credits_per_dollar', e.credits_per_dollar,
        'tokens_per_credit', e.tokens_per_credit,
        'credits_per_1k_tokens_unpriced', e.credits_per_1k_tokens_unpriced, 'charge_when', e.charge_when,
        'pricing', e.pricing, 'webhook_url', t.webhook_url,
        'limits', json_build_object(
            'calls_per_job', t.limit_calls_per_job, 'open_calls_per_job', t.limit_open_calls_per_job,
            'open_calls', t.limit_open_calls, 'open_jobs', t.limit_open_jobs,
            'cost_usd_per_job', t.limit_cost_usd_per_job),
        'costs_visible_to_teams', t.costs_visible, 'models_visible_to_teams', t.models_visible,
        'max_budget', litellm_budget(t, c.budget_mode, c.credit_limit, c.allocated),
        'budget_duration', t.litellm_budget_duration,
        'rpm_limit', t.litellm_rpm_limit, 'tpm_limit', t.litellm_tpm_limit,
        'key', (SELECT key_json(k) FROM virtual_keys k WHERE k.key_id = newest_key(t.team_id)),
        'metadata', t.metadata, 'created_at', rfc3339(t.created_at), 'updated_at', rfc3339(t.updated_at))
    FROM credit_accounts c JOIN terms e ON e.terms_id = t.terms_id WHERE c.team_id = t.team_id
$$;

CREATE OR REPLACE FUNCTION get_team(p_team_id text) RETURNS json LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM existing_team(p_team_id, p_deleted => true);
    PERFORM sweep_team(p_team_id);
    RETURN team_json(existing_team(p_team_id, p_deleted => true));
END $$;
GRANT EXECUTE ON FUNCTION get_team TO llm_jobs_application;

CREATE OR REPLACE FUNCTION list_teams(p_limit bigint, p_offset bigint) RETURNS json LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    v_page text[] := ARRAY(SELECT team_id FROM teams WHERE status NOT IN ('creating', 'deleted')
                           ORDER BY team_id LIMIT p_limit OFFSET p_offset);
BEGIN
    PERFORM sweep_teams(v_page);
    RETURN json_build_object(
        'total', (SELECT count(*) FROM teams WHERE status NOT IN ('creating', 'deleted')),
        'teams', (SELECT coalesce(json_agg(team_json(t) ORDER BY t.team_id), '[]')
                  FROM teams t WHERE t.team_id = ANY (v_page)));
END $$;
GRANT EXECUTE ON FUNCTION list_teams TO llm_jobs_application;

-- Locks the groups that are about to be assigned, so that their members don't change until LiteLLM's desired state is
-- recorded. To be called before the team's row is locked.
CREATE OR REPLACE FUNCTION hold_groups(p_model_groups text[], p_access_groups text[])
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM model_access_groups WHERE group_name = ANY (p_access_groups) ORDER BY access_group_id FOR SHARE;
    PERFORM FROM model_groups
    WHERE group_name = ANY (p_model_groups)
       OR model_group_id IN (SELECT m.model_group_id FROM model_access_group_members m
                             JOIN model_access_groups a USING (access_group_id)
                             WHERE a.group_name = ANY (p_access_groups))
    ORDER BY model_group_id FOR SHARE;
END $$;

CREATE OR REPLACE FUNCTION assign_model_groups(p_team_id text, p_names text[]) RETURNS void LANGUAGE sql AS $$
    DELETE FROM team_model_groups WHERE team_id = p_team_id;
    INSERT INTO team_model_groups (team_id, model_group_id, position)
    SELECT p_team_id, model_group_id, place FROM model_group_ids(p_names);
$$;

CREATE OR REPLACE FUNCTION assign_access_groups(p_team_id text, p_names text[]) RETURNS void LANGUAGE plpgsql AS $$
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

-- The id of the terms with these values, which are created if they are new.
CREATE OR REPLACE FUNCTION terms_of(
    p_billing_mode text, p_credits_per_dollar numeric, p_tokens_per_credit bigint,
    p_credits_per_1k_tokens_unpriced numeric, p_charge_when text, p_pricing jsonb
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    v_id bigint;
BEGIN
    LOOP
        SELECT terms_id INTO v_id FROM terms
        WHERE billing_mode = p_billing_mode AND credits_per_dollar = p_credits_per_dollar
          AND tokens_per_credit = p_tokens_per_credit
          AND credits_per_1k_tokens_unpriced = p_credits_per_1k_tokens_unpriced
          AND charge_when = p_charge_when AND pricing IS NOT DISTINCT FROM p_pricing;
        EXIT WHEN FOUND;
        INSERT INTO terms (billing_mode, credits_per_dollar, tokens_per_credit, credits_per_1k_tokens_unpriced,
                           charge_when, pricing)
        VALUES (p_billing_mode, p_credits_per_dollar, p_tokens_per_credit, p_credits_per_1k_tokens_unpriced,
                p_charge_when, p_pricing)
        ON CONFLICT DO NOTHING;
    END LOOP;
    RETURN v_id;
END $$;

-- First half of creating a team: everything but the key and the credits. The team is invisible (status `creating`)
-- until `activate_team`.
-- `p_attempt` identifies the request; for `p_lease_seconds` no other may take over. `p_spec` is the request with its
-- defaults filled in:
--   {organization_id, team_id, team_alias, model_groups, access_groups, default_model_group, budget_mode, credit_limit,
--   max_budget, budget_duration, rpm_limit, tpm_limit, billing_mode, credits_per_dollar, tokens_per_credit,
--   credits_per_1k_tokens_unpriced, charge_when, pricing, webhook_url, limits, costs_visible_to_teams,
--   models_visible_to_teams, credits_allocated, usd_per_credit}
-- `resumed` in the answer: an earlier attempt got stuck here, and LiteLLM may hold leftovers of it under the same
-- marker.
CREATE OR REPLACE FUNCTION begin_team(p_attempt uuid, p_lease_seconds integer, p_spec json, p_metadata json)
RETURNS json LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    v_team_id text := p_spec ->> 'team_id';
    v_marker uuid := uuid_v7();
    v_default uuid;
    v_old teams;
    v_resumed boolean := false;
BEGIN
    PERFORM get_organization(p_spec ->> 'organization_id');
    -- Waits for a concurrent deletion of the organization.
    PERFORM FROM organizations
    WHERE organization_id = p_spec ->> 'organization_id' AND status <> 'deleted' FOR KEY SHARE;
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
                       default_model_group_id, terms_id, webhook_url, max_budget, litellm_budget_duration,
                       litellm_rpm_limit, litellm_tpm_limit, usd_per_credit, costs_visible, models_visible, metadata)
    VALUES (v_team_id, p_spec ->> 'organization_id', p_spec ->> 'team_alias', p_attempt,
            now() + make_interval(secs => p_lease_seconds), v_marker, v_default,
            terms_of(p_spec ->> 'billing_mode', (p_spec ->> 'credits_per_dollar')::numeric,
                     (p_spec ->> 'tokens_per_credit')::bigint,
                     coalesce((p_spec ->> 'credits_per_1k_tokens_unpriced')::numeric, 1),
                     coalesce(p_spec ->> 'charge_when', 'completed'), nullif((p_spec -> 'pricing')::jsonb, 'null')),
            p_spec ->> 'webhook_url',
            (p_spec ->> 'max_budget')::numeric, p_spec ->> 'budget_duration',
            (p_spec ->> 'rpm_limit')::bigint, (p_spec ->> 'tpm_limit')::bigint,
            coalesce((p_spec ->> 'usd_per_credit')::numeric, 0.1), (p_spec ->> 'costs_visible_to_teams')::boolean,
            (p_spec ->> 'models_visible_to_teams')::boolean, p_metadata)
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        PERFORM fail('LJ009', format('Team ''%s'' is being created by another request', v_team_id));
    END IF;
    INSERT INTO credit_accounts (team_id, budget_mode, credit_limit)
    VALUES (v_team_id, p_spec ->> 'budget_mode', (p_spec ->> 'credit_limit')::bigint);
    PERFORM set_limits(v_team_id, p_spec -> 'limits');
    PERFORM check_budget(v_team_id);
    PERFORM assign_model_groups(v_team_id, ARRAY(SELECT json_array_elements_text(p_spec -> 'model_groups')));
    PERFORM assign_access_groups(v_team_id, ARRAY(SELECT json_array_elements_text(p_spec -> 'access_groups')));
    IF v_default IS NOT NULL AND v_default NOT IN (SELECT model_group_id FROM team_groups(v_team_id)) THEN
        PERFORM fail('LJ010', format('default_model_group: ''%s'' is not among the team''s model groups',
                                     p_spec ->> 'default_model_group'));
    END IF;
    RETURN json_build_object(
        'deadline', now() + make_interval(secs => p_lease_seconds), 'resumed', v_resumed, 'marker', v_marker,
        'litellm', litellm_desired_team(v_team_id, (p_spec ->> 'credits_allocated')::bigint));
END $$;
GRANT EXECUTE ON FUNCTION begin_team TO llm_jobs_application;

-- Second half: LiteLLM has version `p_version` of the team and has made its key. Allocates the credits, which is the
-- first row of the ledger. Repeating the same attempt gets the same answer, in case the first answer was lost.
CREATE OR REPLACE FUNCTION activate_team(
    p_attempt uuid, p_team_id text, p_version bigint, p_litellm_alias text, p_key_hash bytea, p_hint text,
    p_credits bigint
) RETURNS json LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    v_row teams;
BEGIN
    SELECT * INTO v_row FROM teams WHERE team_id = p_team_id AND creation_attempt = p_attempt FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        PERFORM fail('LJ009', format('Team ''%s'' is being created by another request', p_team_id));
    ELSIF v_row.status = 'creating' THEN
        INSERT INTO virtual_keys (key_id, team_id, alias, litellm_alias, key_hash, hint)
        VALUES (uuid_v7(), p_team_id, 'default', p_litellm_alias, p_key_hash, p_hint);
        IF p_credits > 0 THEN
            PERFORM post_transaction(p_team_id, 'allocation', p_credits, 'Initial allocation', NULL, '{}');
        END IF;
        -- LiteLLM has the budget that these credits are worth.
        UPDATE teams SET status = 'active', litellm_synced_version = p_version + litellm_version - v_row.litellm_version
        WHERE team_id = p_team_id RETURNING * INTO v_row;
    END IF;
    RETURN team_json(v_row);
END $$;
GRANT EXECUTE ON FUNCTION activate_team TO llm_jobs_application;

-- The attempt failed before its second half. `p_clean`: LiteLLM holds nothing of it, so the team is deleted; otherwise
-- another attempt may take over at once. Answers whether the attempt was still the current one.
CREATE OR REPLACE FUNCTION abandon_team(p_attempt uuid, p_team_id text, p_clean boolean)
RETURNS boolean LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF p_clean THEN
        DELETE FROM teams WHERE team_id = p_team_id AND status = 'creating' AND creation_attempt = p_attempt;
    ELSE
        UPDATE teams SET creation_lease = NULL
        WHERE team_id = p_team_id AND status = 'creating' AND creation_attempt = p_attempt;
    END IF;
    RETURN FOUND;
END $$;
GRANT EXECUTE ON FUNCTION abandon_team TO llm_jobs_application;

-- The answer to a change of a team: the team and its desired state in LiteLLM.
CREATE OR REPLACE FUNCTION changed_team(p_team_id text) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    v_litellm json := litellm_changed(ARRAY[p_team_id]) -> 0;
    v_row teams;
BEGIN
    UPDATE teams SET updated_at = now() WHERE team_id = p_team_id RETURNING * INTO v_row;
    RETURN json_build_object('team', team_json(v_row), 'litellm', v_litellm);
END $$;

CREATE OR REPLACE FUNCTION set_team_model_groups(p_team_id text, p_model_groups text[]) RETURNS json LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM hold_groups(p_model_groups, '{}');
    PERFORM locked_team(p_team_id);
    PERFORM assign_model_groups(p_team_id, p_model_groups);
    RETURN changed_team(p_team_id);
END $$;
GRANT EXECUTE ON FUNCTION set_team_model_groups TO llm_jobs_application;

CREATE OR REPLACE FUNCTION set_team_access_groups(p_team_id text, p_access_groups text[]) RETURNS json LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM hold_groups('{}', p_access_groups);
    PERFORM locked_team(p_team_id);
    PERFORM assign_access_groups(p_team_id, p_access_groups);
    RETURN changed_team(p_team_id);
END $$;
GRANT EXECUTE ON FUNCTION set_team_access_groups TO llm_jobs_application;

-- Sets the members that `p_limits` has; null is the deployment's default, 0 no limit.
CREATE OR REPLACE FUNCTION set_limits(p_team_id text, p_limits json) RETURNS void LANGUAGE sql AS $$
    UPDATE teams SET
        limit_calls_per_job = CASE WHEN p_limits -> 'calls_per_job' IS NULL THEN limit_calls_per_job
                                   ELSE (p_limits ->> 'calls_per_job')::bigint END,
        limit_open_calls_per_job = CASE WHEN p_limits -> 'open_calls_per_job' IS NULL THEN limit_open_calls_per_job
                                        ELSE (p_limits ->> 'open_calls_per_job')::bigint END,
        limit_open_calls = CASE WHEN p_limits -> 'open_calls' IS NULL THEN limit_open_calls
                                ELSE (p_limits ->> 'open_calls')::bigint END,
        limit_open_jobs = CASE WHEN p_limits -> 'open_jobs' IS NULL THEN limit_open_jobs
                               ELSE (p_limits ->> 'open_jobs')::bigint END,
        limit_cost_usd_per_job = CASE WHEN p_limits -> 'cost_usd_per_job' IS NULL THEN limit_cost_usd_per_job
                                      ELSE (p_limits ->> 'cost_usd_per_job')::numeric END
    WHERE team_id = p_team_id AND p_limits IS NOT NULL
$$;

-- A budget that LiteLLM resets can't be what the credits are worth.
CREATE OR REPLACE FUNCTION check_budget(p_team_id text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM teams
               WHERE team_id = p_team_id AND litellm_budget_duration IS NOT NULL AND max_budget IS NULL) THEN
        PERFORM fail('LJ010', 'budget_duration: needs max_budget, the US dollars for each duration');
    END IF;
END $$;

-- `p_fields` holds the changes: `metadata` and the members that `begin_team` takes. Existing jobs keep their terms.
CREATE OR REPLACE FUNCTION update_team(p_team_id text, p_fields json, p_usd_per_credit numeric DEFAULT NULL)
RETURNS json LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
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
        credit_limit = CASE WHEN p_fields -> 'credit_limit' IS NULL THEN credit_limit
                            ELSE (p_fields ->> 'credit_limit')::bigint END,
        -- If the balance is already below the new limit, this lets the change pass; no job can be opened until it is
        -- topped up.
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
            coalesce((p_fields ->> 'credits_per_1k_tokens_unpriced')::numeric, v_terms.credits_per_1k_tokens_unpriced),
            coalesce(p_fields ->> 'charge_when', v_terms.charge_when),
            CASE WHEN p_fields -> 'pricing' IS NULL THEN v_terms.pricing
                 ELSE nullif((p_fields -> 'pricing')::jsonb, 'null') END),
        webhook_url = CASE WHEN p_fields -> 'webhook_url' IS NULL THEN webhook_url ELSE p_fields ->> 'webhook_url' END,
        max_budget = CASE WHEN p_fields -> 'max_budget' IS NULL THEN max_budget
                          ELSE (p_fields ->> 'max_budget')::numeric END,
        usd_per_credit = coalesce(p_usd_per_credit, usd_per_credit),
        costs_visible = CASE WHEN p_fields -> 'costs_visible_to_teams' IS NULL THEN costs_visible
                             ELSE (p_fields ->> 'costs_visible_to_teams')::boolean END,
        models_visible = CASE WHEN p_fields -> 'models_visible_to_teams' IS NULL THEN models_visible
                              ELSE (p_fields ->> 'models_visible_to_teams')::boolean END,
        litellm_budget_duration = CASE WHEN p_fields -> 'budget_duration' IS NULL THEN litellm_budget_duration
                                       ELSE p_fields ->> 'budget_duration' END,
        litellm_rpm_limit = CASE WHEN p_fields -> 'rpm_limit' IS NULL THEN litellm_rpm_limit
                                 ELSE (p_fields ->> 'rpm_limit')::bigint END,
        litellm_tpm_limit = CASE WHEN p_fields -> 'tpm_limit' IS NULL THEN litellm_tpm_limit
                                 ELSE (p_fields ->> 'tpm_limit')::bigint END
    WHERE team_id = p_team_id;
    PERFORM set_limits(p_team_id, p_fields -> 'limits');
    PERFORM check_budget(p_team_id);
    RETURN changed_team(p_team_id);
END $$;
GRANT EXECUTE ON FUNCTION update_team TO llm_jobs_application;

CREATE OR REPLACE FUNCTION set_team_status(p_team_id text, p_status text) RETURNS json LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM existing_team(p_team_id);
    -- What was due before; while the team is suspended, nothing is.
    PERFORM sweep_team(p_team_id);
    PERFORM FROM credit_accounts WHERE team_id = p_team_id FOR NO KEY UPDATE;
    PERFORM locked_team(p_team_id);
    UPDATE teams SET status = p_status WHERE team_id = p_team_id AND status <> p_status;
    IF FOUND AND p_status = 'suspended' THEN
        PERFORM raise_alert(p_team_id, 'team_suspended', format('Team ''%s'' is suspended', p_team_id), '{}');
    END IF;
    RETURN changed_team(p_team_id);
END $$;
GRANT EXECUTE ON FUNCTION set_team_status TO llm_jobs_application;

-- Deletes a team here: its keys are revoked, and its id stays taken. Its ledger and usage are kept. Then its keys have
-- to be deleted in LiteLLM, and its jobs ended (`end_jobs_of_deleted_team`), and that it was done recorded
-- (`litellm_synced`). Until then the team shows as `deleting`, and repeating the request, or upkeep, goes on.
CREATE OR REPLACE FUNCTION delete_team(p_team_id text) RETURNS json LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    v_row teams;
    v_hashes json;
BEGIN
    SELECT * INTO v_row FROM teams WHERE team_id = p_team_id;
    IF NOT FOUND OR v_row.status = 'creating' OR (v_row.status = 'deleted' AND NOT litellm_is_out_of_sync(v_row)) THEN
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
GRANT EXECUTE ON FUNCTION delete_team TO llm_jobs_application;

-- Ends up to 200 open jobs of a deleted team, and its refills: {done, more}.
CREATE OR REPLACE FUNCTION end_jobs_of_deleted_team(p_team_id text) RETURNS json LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    -- Jobs are locked before the account, as everywhere. Those that are overdue expire.
    v_jobs uuid[] := ARRAY(
        SELECT job_id FROM jobs
        WHERE team_id = p_team_id AND status IN ('pending', 'in_progress') AND expires_at > now()
        ORDER BY job_id LIMIT 200 FOR NO KEY UPDATE);
BEGIN
    -- Waits for transactions that are still creating a job.
    UPDATE credit_accounts SET refill_due = NULL WHERE team_id = p_team_id;
    PERFORM sweep_team(p_team_id, 200);
    PERFORM complete_job('system', job_id, 'cancelled', '{}', 'The team was deleted') FROM unnest(v_jobs) AS job_id;
    RETURN json_build_object(
        'done', cardinality(v_jobs),
        'more', EXISTS (SELECT FROM jobs WHERE team_id = p_team_id AND status IN ('pending', 'in_progress')));
END $$;
GRANT EXECUTE ON FUNCTION end_jobs_of_deleted_team TO llm_jobs_application;

-- What release 0.3.0 calls: ends all of them, but for jobs that are locked, which upkeep ends.
CREATE OR REPLACE FUNCTION cancel_open_jobs(p_team_id text) RETURNS bigint LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    v_ended json;
    v_cancelled bigint := 0;
BEGIN
    LOOP
        v_ended := end_jobs_of_deleted_team(p_team_id);
        v_cancelled := v_cancelled + (v_ended ->> 'done')::bigint;
        EXIT WHEN (v_ended ->> 'done')::bigint = 0;
    END LOOP;
    RETURN v_cancelled;
END $$;
GRANT EXECUTE ON FUNCTION cancel_open_jobs TO llm_jobs_application;

-- Up to 20 teams whose deletion is not finished: [{team_id, marker, key_hashes, version}], in no order, so that none
-- that fails is in the way of others for ever.
CREATE OR REPLACE FUNCTION unfinished_deletions() RETURNS json LANGUAGE sql STABLE
SECURITY DEFINER SET search_path FROM CURRENT AS $$
    SELECT coalesce(json_agg(json_build_object(
        'team_id', team_id, 'marker', litellm_marker, 'version', litellm_version,
        'key_hashes', (SELECT coalesce(json_agg(encode(key_hash, 'hex')), '[]') FROM virtual_keys k
                       WHERE k.team_id = due.team_id AND key_hash IS NOT NULL))), '[]')
    FROM (SELECT * FROM teams t WHERE status = 'deleted' AND litellm_is_out_of_sync(t) ORDER BY random() LIMIT 20)
        AS due
$$;
GRANT EXECUTE ON FUNCTION unfinished_deletions TO llm_jobs_application;
