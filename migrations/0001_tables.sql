-- Tables. What they guarantee by themselves is in the named constraints; everything else is kept by the functions
-- of the next files, which are the only writers.
--
-- Times are timestamptz. Money is numeric; NULL means unknown, never 0. Metadata is `json`, not `jsonb`: it goes back to its
-- owner exactly as it came.

CREATE TABLE organizations (
    organization_id text PRIMARY KEY,
    name text NOT NULL,
    status text NOT NULL DEFAULT 'active',
    litellm_organization_id text,
    metadata json NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT organization_id_valid CHECK (organization_id ~ '^[A-Za-z0-9_.-]{1,128}$'),
    CONSTRAINT organization_status_valid CHECK (status IN ('active'))
);

-- A model group is what teams see in place of models.
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

-- The models of a group, tried in order of priority, lowest first. `config`: default call parameters for that model.
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

-- `creating`: LiteLLM is being told; nobody sees the team yet, and a repeat of the request redoes it.
-- `creation_attempt` and `creation_lease` say which request is (or was) at it, and until when no other may take over.
-- `litellm_marker` is in the metadata of the team in LiteLLM: only what carries it was made for this row.
--
-- The `litellm_*` columns say what LiteLLM is to know. `litellm_version` counts changes of that, `litellm_synced_version` is the
-- newest one that LiteLLM is known to have been told: where they differ, it has to be told again.
CREATE TABLE teams (
    team_id text PRIMARY KEY,
    organization_id text NOT NULL REFERENCES organizations,
    team_alias text NOT NULL,
    status text NOT NULL DEFAULT 'creating',
    creation_attempt uuid,
    creation_lease timestamptz,
    litellm_marker uuid NOT NULL,
    default_model_group_id uuid REFERENCES model_groups,
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
    CONSTRAINT team_status_valid CHECK (status IN ('creating', 'active', 'suspended')),
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

-- Virtual keys, by SHA-256. The key itself is kept nowhere; `hint` is its last four characters.
CREATE TABLE virtual_keys (
    key_id uuid PRIMARY KEY,
    team_id text NOT NULL REFERENCES teams ON DELETE CASCADE,
    key_hash bytea NOT NULL,
    hint text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    last_used_at timestamptz,
    revoked_at timestamptz,
    CONSTRAINT key_hash_unique UNIQUE (key_hash),
    CONSTRAINT key_hash_is_sha256 CHECK (octet_length(key_hash) = 32)
);
CREATE INDEX virtual_keys_by_team ON virtual_keys (team_id);

-- One row a team, the projection of its ledger and of the holds of its open jobs, changed in the same statement as they are.
--   remaining = allocated - used;  available = remaining - held
-- `floor` is how far `available` may fall: 0 in hard mode; -credit_limit, or without end (NULL), in soft mode.
CREATE TABLE credit_accounts (
    team_id text PRIMARY KEY REFERENCES teams ON DELETE CASCADE,
    allocated bigint NOT NULL DEFAULT 0,
    used bigint NOT NULL DEFAULT 0,
    held bigint NOT NULL DEFAULT 0,
    entries bigint NOT NULL DEFAULT 0,
    budget_mode text NOT NULL,
    credit_limit bigint,
    floor bigint GENERATED ALWAYS AS (CASE budget_mode WHEN 'hard' THEN 0 ELSE -credit_limit END) STORED,
    CONSTRAINT credits_not_negative CHECK (allocated - used - held >= floor),
    CONSTRAINT held_not_negative CHECK (held >= 0),
    CONSTRAINT used_not_negative CHECK (used >= 0),
    CONSTRAINT credit_limit_not_negative CHECK (credit_limit >= 0),
    CONSTRAINT budget_mode_valid CHECK (budget_mode IN ('hard', 'soft'))
);

CREATE TABLE jobs (
    job_id uuid PRIMARY KEY,
    team_id text NOT NULL REFERENCES teams,
    user_id text,
    job_type text NOT NULL,
    status text NOT NULL DEFAULT 'pending',
    metadata json NOT NULL,
    error_message text,
    credit_applied boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    completed_at timestamptz,
    expires_at timestamptz NOT NULL,
    -- What completing answered, so that the same request again gets the same answer.
    completion json,
    CONSTRAINT job_status_valid CHECK (status IN ('pending', 'in_progress', 'completed', 'failed', 'cancelled', 'expired')),
    CONSTRAINT job_end_is_dated CHECK ((completed_at IS NULL) = (status IN ('pending', 'in_progress'))),
    CONSTRAINT only_completed_jobs_are_charged CHECK (status = 'completed' OR NOT credit_applied)
);
-- UUIDv7 sorts by time of creation, so this is also the order of the list.
CREATE INDEX jobs_by_team ON jobs (team_id, job_id);
CREATE INDEX open_jobs_by_deadline ON jobs (team_id, expires_at) WHERE status IN ('pending', 'in_progress');

-- Every change of a balance, append-only. `entry` counts 1, 2, 3 … within a team and is the order in which they happened.
CREATE TABLE credit_transactions (
    team_id text NOT NULL REFERENCES credit_accounts,
    entry bigint NOT NULL,
    transaction_id uuid NOT NULL,
    transaction_type text NOT NULL,
    change bigint NOT NULL,
    balance_after bigint NOT NULL,
    reason text,
    job_id uuid REFERENCES jobs,
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
-- A call ends once (`ended_at`) and is settled once (`settled_at`: what it used is written). A call that its job's end or its deadline
-- closed may still be settled later; then only what it used is added.
CREATE TABLE calls (
    call_id uuid PRIMARY KEY,
    job_id uuid NOT NULL REFERENCES jobs,
    team_id text NOT NULL REFERENCES teams,
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
    -- What was tried, in order: [{model, outcome, status?, reason?, latency_ms}]. The last one answered, if any did.
    attempts json NOT NULL DEFAULT '[]',
    error text,
    CONSTRAINT call_status_valid CHECK (status IN ('open', 'succeeded', 'failed', 'cancelled', 'abandoned')),
    CONSTRAINT call_end_is_dated CHECK ((ended_at IS NULL) = (status = 'open')),
    CONSTRAINT call_usage_not_negative
        CHECK (prompt_tokens >= 0 AND completion_tokens >= 0 AND total_tokens >= 0 AND cost_usd >= 0 AND latency_ms >= 0)
);
CREATE INDEX calls_by_job ON calls (job_id, call_id);
CREATE INDEX open_calls_by_deadline ON calls (team_id, deadline) WHERE status = 'open';
