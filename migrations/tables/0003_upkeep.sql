-- The changes of version 0.4.0: upkeep, deletion and growth.

-- Upkeep.

-- Deletion.

-- Bounded answers.

-- Webhooks.
