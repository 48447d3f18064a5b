-- The changes of version 0.4.0: upkeep, deletion and growth.

-- Upkeep.

-- When each step of the upkeep last succeeded.
CREATE TABLE upkeep_steps (
    step text PRIMARY KEY,
    succeeded_at timestamptz NOT NULL
) WITH (fillfactor = 50);

-- Deletion.

-- Bounded answers.

-- Webhooks.
