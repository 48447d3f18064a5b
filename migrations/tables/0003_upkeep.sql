-- The changes of version 0.4.0: upkeep, deletion and growth.

-- Upkeep.

-- When each step of the upkeep last succeeded.
CREATE TABLE upkeep_steps (
    step text PRIMARY KEY,
    succeeded_at timestamptz NOT NULL
) WITH (fillfactor = 50);

-- `lost_settlements`: the usages of calls that were not there any more.
ALTER TABLE job_totals ADD COLUMN lost_settlements bigint NOT NULL DEFAULT 0;

-- Deletion.

-- Bounded answers.

-- With two functions of one name, a grant would not know which is meant.
DROP FUNCTION IF EXISTS usage_rows(text, text, date, date);

-- Webhooks.

-- The functions with grants that take more from now on.
DROP FUNCTION IF EXISTS alert_delivered(uuid), list_alerts(text, bigint, bigint, text), take_alerts();

-- What the secrets of a team that has secrets of its own are derived from, together with the deployment's secret.
-- `previous_salt` is that of the secret before the present one, which holds until `previous_until` (NULL: no longer);
-- NULL: that is the deployment's secret itself.
CREATE TABLE webhook_secrets (
    team_id text PRIMARY KEY REFERENCES teams ON DELETE CASCADE,
    salt bytea NOT NULL,
    previous_salt bytea,
    previous_until timestamptz,
    CONSTRAINT salts_of_32_bytes CHECK (length(salt) = 32 AND length(previous_salt) = 32)
);

-- Without those for which no attempt is left.
DROP INDEX undelivered_alerts;
CREATE INDEX due_alerts ON alerts (team_id, next_attempt_at)
    WHERE delivered_at IS NULL AND webhook_url IS NOT NULL AND attempts < 20;
