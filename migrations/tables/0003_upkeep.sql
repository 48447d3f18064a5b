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
