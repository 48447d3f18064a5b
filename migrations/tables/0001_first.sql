-- The tables of version 0.2.0. Named constraints state what the tables guarantee by themselves; the functions, which
-- are the only writers, ensure everything else.
--
-- This file is frozen with that version: to change a table, add another file beside this one.
--
-- Times are timestamptz. Money is numeric; NULL means unknown, never 0. Metadata is `json`, not `jsonb`, so that
-- callers get it back exactly as they sent it.

-- The application connects as a member of this role, which may call the functions that are granted to it and nothing
-- else. Roles belong to the whole server, so it may exist already.
DO $$ BEGIN
    CREATE ROLE llm_jobs_application NOLOGIN;
EXCEPTION
    -- unique_violation: another database of this server is being migrated at the same time.
    WHEN duplicate_object OR unique_violation THEN NULL;
    WHEN insufficient_privilege THEN
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'llm_jobs_application') THEN
            RAISE EXCEPTION 'the role llm_jobs_application does not exist, and % may not create it', current_user
                USING HINT =
                    'Let a role that may do so run CREATE ROLE llm_jobs_application NOLOGIN, then migrate again.';
        END IF;
END $$;

CREATE TABLE organizations (
    organization_id text PRIMARY KEY,
    name text NOT NULL,
    status text NOT NULL DEFAULT 'active',
    litellm_organization_id text,
    metadata json NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT organization_id_valid CHECK (organization_id ~ '^[A-Za-z0-9_.-]{1,128}$'),
    CONSTRAINT organization_status_valid CHECK (status IN ('active', 'deleted'))
);

-- A model group is what teams see instead of models.
CREATE TABLE model_groups (
    model_group_id uuid PRIMARY KEY,
    group_name text NOT NULL,
    display_name text NOT NULL,
    description text,
    status text NOT NULL DEFAULT 'active',
    metadata json NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT model_group_name_unique UNIQUE (group_name),
    CONSTRAINT model_group_name_valid CHECK (group_name ~ '^[A-Za-z0-9_.-]{1,128}$'),
    CONSTRAINT model_group_status_valid CHECK (status IN ('active'))
);

-- The models of a group, tried in order of priority, lowest first. `config` holds default call parameters for the
-- model.
CREATE TABLE model_group_models (
    model_group_id uuid NOT NULL REFERENCES model_groups ON DELETE CASCADE,
    priority integer NOT NULL,
    model_name text NOT NULL,
    config json NOT NULL DEFAULT '{}',
    CONSTRAINT model_group_priority_unique PRIMARY KEY (model_group_id, priority),
    CONSTRAINT model_group_priority_valid CHECK (priority >= 0)
);

-- An access group is a named set of model groups.
CREATE TABLE model_access_groups (
    access_group_id uuid PRIMARY KEY,
    group_name text NOT NULL,
    display_name text NOT NULL,
    description text,
    status text NOT NULL DEFAULT 'active',
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT model_access_group_name_unique UNIQUE (group_name),
    CONSTRAINT model_access_group_name_valid CHECK (group_name ~ '^[A-Za-z0-9_.-]{1,128}$'),
    CONSTRAINT model_access_group_status_valid CHECK (status IN ('active'))
);

CREATE TABLE model_access_group_members (
    access_group_id uuid NOT NULL REFERENCES model_access_groups ON DELETE CASCADE,
    model_group_id uuid NOT NULL REFERENCES model_groups,
    position integer NOT NULL,
    PRIMARY KEY (access_group_id, model_group_id)
);
CREATE INDEX model_access_group_members_by_group ON model_access_group_members (model_group_id);

-- What a job costs its customer: credits, and the revenue that the seller books in addition to them. Rows never change
-- and are shared by all teams with the same terms; a job keeps the terms that its team had when the job was created.
--   job_based: 1 credit for each job
--   consumption_usd: `credits_per_dollar` credits for each dollar that LiteLLM charged
--   consumption_tokens: 1 credit for each `tokens_per_credit` tokens
-- `pricing` is NULL or one of
--   {mode: flat, price_per_job_usd}
--   {mode: markup, markup_percent}
--   {mode: tiered, tiers: [{up_to, price_per_job_usd}]}, with ascending tiers, the last `up_to` being null
CREATE TABLE terms (
    terms_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    billing_mode text NOT NULL,
    credits_per_dollar numeric NOT NULL,
    tokens_per_credit bigint NOT NULL,
    pricing jsonb,
    CONSTRAINT terms_unique UNIQUE NULLS NOT DISTINCT (billing_mode, credits_per_dollar, tokens_per_credit, pricing),
    CONSTRAINT billing_mode_valid CHECK (billing_mode IN ('job_based', 'consumption_usd', 'consumption_tokens')),
    CONSTRAINT conversion_positive CHECK (credits_per_dollar > 0 AND tokens_per_credit > 0)
);

-- While its status is `creating`, a team is being created in LiteLLM. It is not visible yet, and repeating the request
-- starts over.
-- `creation_attempt` is the request that creates (or created) the team; until `creation_lease` no other request may
-- take over.
-- `litellm_marker` is stored in the metadata of the team in LiteLLM and identifies what was made for this row.
--
-- The `litellm_*` columns are the desired state of the team in LiteLLM. `litellm_version` counts the changes of it, and
-- `litellm_synced_version` is the newest version that LiteLLM is known to have: while they differ, LiteLLM has to be
-- synchronized.
CREATE TABLE teams (
    team_id text PRIMARY KEY,
    organization_id text NOT NULL REFERENCES organizations,
    team_alias text NOT NULL,
    status text NOT NULL DEFAULT 'creating',
    creation_attempt uuid,
    creation_lease timestamptz,
    litellm_marker uuid NOT NULL,
    default_model_group_id uuid REFERENCES model_groups,
    terms_id bigint NOT NULL REFERENCES terms,
    webhook_url text,
    litellm_max_budget numeric,
    litellm_budget_duration text,
    litellm_rpm_limit bigint,
    litellm_tpm_limit bigint,
    litellm_version bigint NOT NULL DEFAULT 1,
    litellm_synced_version bigint NOT NULL DEFAULT 0,
    metadata json NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT team_id_valid CHECK (team_id ~ '^[A-Za-z0-9_.-]{1,128}$'),
    CONSTRAINT team_status_valid CHECK (status IN ('creating', 'active', 'suspended', 'deleted')),
    CONSTRAINT team_max_budget_not_negative CHECK (litellm_max_budget >= 0)
);
CREATE INDEX teams_by_organization ON teams (organization_id, team_id);

CREATE TABLE team_model_groups (
    team_id text NOT NULL REFERENCES teams ON DELETE CASCADE,
    model_group_id uuid NOT NULL REFERENCES model_groups,
    position integer NOT NULL,
    PRIMARY KEY (team_id, model_group_id)
);
CREATE INDEX team_model_groups_by_group ON team_model_groups (model_group_id);

CREATE TABLE team_access_groups (
    team_id text NOT NULL REFERENCES teams ON DELETE CASCADE,
    access_group_id uuid NOT NULL REFERENCES model_access_groups,
    position integer NOT NULL,
    PRIMARY KEY (team_id, access_group_id)
);
CREATE INDEX team_access_groups_by_group ON team_access_groups (access_group_id);

-- Virtual keys, identified by their SHA-256. The key itself is stored nowhere; `hint` is its last four characters.
-- A key without `key_hash` is being made: LiteLLM is asked for it under the alias `litellm_alias`, by which leftovers
-- of a request that died half-way can be found there.
-- `revoked_at` may lie in the future: until then a replaced key still works. `litellm_deleted`: LiteLLM is known to
-- have deleted the key, too.
CREATE TABLE virtual_keys (
    key_id uuid PRIMARY KEY,
    team_id text NOT NULL REFERENCES teams ON DELETE CASCADE,
    alias text NOT NULL,
    litellm_alias text NOT NULL,
    key_hash bytea,
    hint text,
    created_at timestamptz NOT NULL DEFAULT now(),
    last_used_at timestamptz,
    revoked_at timestamptz,
    litellm_deleted boolean NOT NULL DEFAULT false,
    CONSTRAINT key_hash_unique UNIQUE (key_hash),
    CONSTRAINT key_hash_is_sha256 CHECK (octet_length(key_hash) = 32)
);
CREATE INDEX virtual_keys_by_team ON virtual_keys (team_id);

-- One row for each team: a projection of its ledger and of the reservations of its open jobs, updated in the same
-- statement as they are. `held` is the number of reserved credits.
--   remaining = allocated - used;  available = remaining - held
-- `floor` is how far `available` may fall: 0 in hard mode; in soft mode -credit_limit, or NULL for no limit.
-- `overdraft` is how far `available` is below `floor`, after consumption that was charged in full; reservations never
-- use it.
-- Automatic refills are due 1, 2, 3 … periods after `refill_start`. `refills` counts those made since then;
-- `refill_due` is when the next one is due (NULL: never).
CREATE TABLE credit_accounts (
    team_id text PRIMARY KEY REFERENCES teams ON DELETE CASCADE,
    allocated bigint NOT NULL DEFAULT 0,
    used bigint NOT NULL DEFAULT 0,
    held bigint NOT NULL DEFAULT 0,
    overdraft bigint NOT NULL DEFAULT 0,
    entries bigint NOT NULL DEFAULT 0,
    budget_mode text NOT NULL,
    credit_limit bigint,
    floor bigint GENERATED ALWAYS AS (CASE budget_mode WHEN 'hard' THEN 0 ELSE -credit_limit END) STORED,
    refill_amount bigint,
    refill_period text,
    refill_start timestamptz,
    refills bigint NOT NULL DEFAULT 0,
    refill_due timestamptz,
    refill_usd_per_credit numeric,
    CONSTRAINT credits_not_negative CHECK (allocated - used - held >= floor - overdraft),
    CONSTRAINT overdraft_not_negative CHECK (overdraft >= 0),
    CONSTRAINT held_not_negative CHECK (held >= 0),
    CONSTRAINT used_not_negative CHECK (used >= 0),
    CONSTRAINT credit_limit_not_negative CHECK (credit_limit >= 0),
    CONSTRAINT budget_mode_valid CHECK (budget_mode IN ('hard', 'soft')),
    CONSTRAINT refill_period_valid CHECK (refill_period IN ('daily', 'weekly', 'monthly'))
);

-- Partitioned by month of creation, which a UUIDv7 begins with, so that an old month is deleted by dropping its tables.
-- Each job carries the sums over its calls.
CREATE TABLE jobs (
    job_id uuid PRIMARY KEY,
    team_id text NOT NULL REFERENCES teams,
    -- No foreign key: rows of `terms` never change or disappear, and checking it would lock a row that all teams share.
    terms_id bigint NOT NULL,
    user_id text,
    job_type text NOT NULL,
    status text NOT NULL DEFAULT 'pending',
    metadata json NOT NULL,
    error_message text,
    credit_applied boolean NOT NULL DEFAULT false,
    -- What the customer is charged in addition to credits; NULL where the terms have no pricing.
    revenue_usd numeric,
    total_calls bigint NOT NULL DEFAULT 0,
    successful_calls bigint NOT NULL DEFAULT 0,
    failed_calls bigint NOT NULL DEFAULT 0,
    priced_calls bigint NOT NULL DEFAULT 0,
    timed_calls bigint NOT NULL DEFAULT 0,
    total_tokens bigint NOT NULL DEFAULT 0,
    known_cost_usd numeric NOT NULL DEFAULT 0,
    total_latency_ms bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    completed_at timestamptz,
    expires_at timestamptz NOT NULL,
    -- The answer to completing the job, so that repeating the request gets the same answer.
    completion json,
    CONSTRAINT job_status_valid
        CHECK (status IN ('pending', 'in_progress', 'completed', 'failed', 'cancelled', 'expired')),
    CONSTRAINT job_end_is_dated CHECK ((completed_at IS NULL) = (status IN ('pending', 'in_progress'))),
    CONSTRAINT only_completed_jobs_are_charged CHECK (status = 'completed' OR NOT credit_applied)
) PARTITION BY RANGE (job_id);
-- UUIDv7 sorts by time of creation, so this is also the order of lists.
CREATE INDEX jobs_by_team ON jobs (team_id, job_id);
CREATE INDEX jobs_by_user ON jobs (team_id, user_id, job_id) WHERE user_id IS NOT NULL;
CREATE INDEX open_jobs_by_deadline ON jobs (team_id, expires_at) WHERE status IN ('pending', 'in_progress');

-- Every change of a balance, append-only. `entry` counts 1, 2, 3 … within a team, in the order of the changes.
CREATE TABLE credit_transactions (
    team_id text NOT NULL REFERENCES credit_accounts,
    entry bigint NOT NULL,
    transaction_id uuid NOT NULL,
    transaction_type text NOT NULL,
    change bigint NOT NULL,
    balance_after bigint NOT NULL,
    reason text,
    -- No foreign key: the ledger outlives the jobs.
    job_id uuid,
    metadata json NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (team_id, entry),
    CONSTRAINT transaction_id_unique UNIQUE (transaction_id),
    CONSTRAINT transaction_type_valid
        CHECK (transaction_type IN ('allocation', 'deduction', 'refund', 'adjustment', 'refill', 'expiry'))
);
CREATE UNIQUE INDEX one_deduction_per_job ON credit_transactions (job_id) WHERE transaction_type = 'deduction';

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'LJ000';
END $$;

CREATE TRIGGER ledger_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON credit_transactions
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- `open` → `succeeded | failed | cancelled | abandoned`.
-- A call ends once (`ended_at`) and is settled once (`settled_at`: its usage is recorded). A call that was closed by
-- its job's end or by its deadline may still be settled later; that only adds its usage.
-- Partitioned by the month of its job.
CREATE TABLE calls (
    call_id uuid NOT NULL,
    job_id uuid NOT NULL,
    -- The team of the job. No foreign key: checking it would make every call lock the row of the team.
    team_id text NOT NULL,
    model_group text NOT NULL,
    purpose text,
    streamed boolean NOT NULL,
    metadata json NOT NULL DEFAULT '{}',
    status text NOT NULL DEFAULT 'open',
    created_at timestamptz NOT NULL DEFAULT now(),
    deadline timestamptz NOT NULL,
    ended_at timestamptz,
    settled_at timestamptz,
    prompt_tokens bigint NOT NULL DEFAULT 0,
    completion_tokens bigint NOT NULL DEFAULT 0,
    total_tokens bigint NOT NULL DEFAULT 0,
    cost_usd numeric,
    latency_ms bigint,
    -- The attempts in order: [{model, outcome, status?, reason?, latency_ms}]. If any model answered, it is the last
    -- one.
    attempts json NOT NULL DEFAULT '[]',
    error text,
    CONSTRAINT call_status_valid CHECK (status IN ('open', 'succeeded', 'failed', 'cancelled', 'abandoned')),
    CONSTRAINT call_end_is_dated CHECK ((ended_at IS NULL) = (status = 'open')),
    CONSTRAINT call_usage_not_negative
        CHECK (prompt_tokens >= 0 AND completion_tokens >= 0 AND total_tokens >= 0
               AND cost_usd >= 0 AND latency_ms >= 0),
    PRIMARY KEY (job_id, call_id)
) PARTITION BY RANGE (job_id);
CREATE INDEX open_calls_by_deadline ON calls (team_id, deadline) WHERE status = 'open';

-- Rows for which there is no month's table.
CREATE TABLE jobs_other PARTITION OF jobs DEFAULT;
CREATE TABLE calls_other PARTITION OF calls DEFAULT;

-- What the settling of a call changed, for the functions that update the counters.
CREATE TYPE settling AS (
    team_id text, job_id uuid, job_type text, model_group text, model text, ended_as text, first boolean,
    priced integer, tokens bigint, cost_usd numeric, revenue_usd numeric, latency_ms bigint
);

-- The messages and responses of calls, where the deployment stores them, until `expires_at`.
CREATE TABLE call_messages (
    job_id uuid NOT NULL,
    call_id uuid NOT NULL,
    messages json NOT NULL,
    response json,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (job_id, call_id)
);
CREATE INDEX call_messages_by_age ON call_messages (expires_at);

-- The usage of teams by the day (UTC) on which a job was created: whatever happens to the job later counts on that day.
-- Updated in the statements that change jobs and calls, so that reports never scan those.
CREATE TABLE usage_days (
    team_id text NOT NULL REFERENCES teams ON DELETE CASCADE,
    day date NOT NULL,
    job_type text NOT NULL,
    -- Jobs that are open, and ended jobs by their status.
    open_jobs bigint NOT NULL DEFAULT 0,
    completed bigint NOT NULL DEFAULT 0,
    failed bigint NOT NULL DEFAULT 0,
    cancelled bigint NOT NULL DEFAULT 0,
    expired bigint NOT NULL DEFAULT 0,
    charged_jobs bigint NOT NULL DEFAULT 0,
    credits_charged bigint NOT NULL DEFAULT 0,
    revenue_usd numeric NOT NULL DEFAULT 0,
    -- Calls that have ended.
    calls bigint NOT NULL DEFAULT 0,
    priced_calls bigint NOT NULL DEFAULT 0,
    tokens bigint NOT NULL DEFAULT 0,
    cost_usd numeric NOT NULL DEFAULT 0,
    PRIMARY KEY (team_id, day, job_type)
) WITH (fillfactor = 70);

-- The same by the model that answered or, if none did, was tried last.
CREATE TABLE usage_models (
    team_id text NOT NULL REFERENCES teams ON DELETE CASCADE,
    day date NOT NULL,
    model text NOT NULL,
    requests bigint NOT NULL DEFAULT 0,
    tokens bigint NOT NULL DEFAULT 0,
    cost_usd numeric NOT NULL DEFAULT 0,
    PRIMARY KEY (team_id, day, model)
) WITH (fillfactor = 70);

-- All-time totals for the metrics. Each is spread over several rows (see `my_shard`), so that concurrent calls don't
-- wait for each other.
CREATE TABLE job_totals (
    shard integer PRIMARY KEY,
    created bigint NOT NULL DEFAULT 0,
    completed bigint NOT NULL DEFAULT 0,
    failed bigint NOT NULL DEFAULT 0,
    cancelled bigint NOT NULL DEFAULT 0,
    expired bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

-- `latency_counts[i]`: the calls that took longer than bound i - 1 of `latency_bounds()`, and no longer than bound i.
-- The last entry counts those that took longer than the last bound.
CREATE TABLE call_totals (
    model_group text NOT NULL,
    shard integer NOT NULL,
    succeeded bigint NOT NULL DEFAULT 0,
    failed bigint NOT NULL DEFAULT 0,
    cancelled bigint NOT NULL DEFAULT 0,
    abandoned bigint NOT NULL DEFAULT 0,
    tokens bigint NOT NULL DEFAULT 0,
    cost_usd numeric NOT NULL DEFAULT 0,
    latency_ms bigint NOT NULL DEFAULT 0,
    latency_counts bigint[] NOT NULL DEFAULT array_fill(0::bigint, ARRAY[12]),
    PRIMARY KEY (model_group, shard)
) WITH (fillfactor = 50);

-- What the seller should know about a team. Alerts with a webhook are delivered at least once; `delivered_at` is when
-- the receiver accepted the alert.
CREATE TABLE alerts (
    alert_id uuid PRIMARY KEY,
    -- The order in which alerts were raised, which ids made in the same millisecond don't give.
    entry bigint GENERATED ALWAYS AS IDENTITY,
    team_id text NOT NULL REFERENCES teams ON DELETE CASCADE,
    kind text NOT NULL,
    message text NOT NULL,
    details json NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    webhook_url text,
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT now(),
    delivered_at timestamptz,
    CONSTRAINT alert_kind_valid CHECK (kind IN ('credits_80_percent', 'credits_100_percent', 'team_suspended'))
);
CREATE INDEX alerts_by_team ON alerts (team_id, entry);
CREATE INDEX undelivered_alerts ON alerts (team_id, next_attempt_at)
    WHERE delivered_at IS NULL AND webhook_url IS NOT NULL;

-- Requests with an Idempotency-Key, kept for 24 hours: the caller, digests of the key (which is not stored itself) and
-- of the request, and the answer once there is one. Until then `attempt` is the attempt that works on it, and
-- `claimed_until` is when a repeat may take over.
CREATE TABLE idempotency_keys (
    caller text NOT NULL,
    key_hash bytea NOT NULL,
    request_digest bytea NOT NULL,
    attempt uuid,
    claimed_until timestamptz NOT NULL,
    answer json,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (caller, key_hash)
);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);

-- What the admin changed, append-only.
CREATE TABLE audit_log (
    entry bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    created_at timestamptz NOT NULL DEFAULT now(),
    actor text NOT NULL,
    action text NOT NULL,
    path text NOT NULL,
    body json,
    request_id text NOT NULL
);
CREATE TRIGGER audit_log_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
