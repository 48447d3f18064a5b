-- Monthly partitions of jobs and calls.
--
-- Each month's jobs have a table of their own, and so have the calls of those jobs. Rows for which there is no month's
-- table go to `*_other`, so that nothing fails if a table was not made in time; upkeep makes a month's table of that.
-- These functions lock both parent tables for a moment, so each must be a statement of its own. If one can't get the
-- locks at once it fails (55P03) rather than make others wait.

-- The tables of months: how their names end, such as `2026_11`, their first id, and the first id after them.
CREATE OR REPLACE FUNCTION month_tables() RETURNS TABLE (name text, first uuid, past uuid) LANGUAGE sql STABLE AS $$
    SELECT substr(relname, 6), bounds[1]::uuid, bounds[2]::uuid
    FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid,
         regexp_match(pg_get_expr(relpartbound, c.oid), $re$FROM \('(.+)'\) TO \('(.+)'\)$re$) AS bounds
    WHERE inhparent = 'jobs'::regclass AND bounds IS NOT NULL
$$;

-- The month (UTC) in which an id was made. Its first 48 bits are milliseconds.
CREATE OR REPLACE FUNCTION month_of(p_id uuid) RETURNS timestamp LANGUAGE sql IMMUTABLE AS $$
    SELECT date_trunc('month', to_timestamp(('x' || left(replace(p_id::text, '-', ''), 12))::bit(48)::bigint / 1000.0)
                               AT TIME ZONE 'UTC')
$$;

-- Makes the missing tables of this month and the next `p_ahead` months. Answers for how many months it made them.
CREATE OR REPLACE FUNCTION make_months(p_ahead integer)
RETURNS integer LANGUAGE plpgsql SET lock_timeout = '200ms' AS $$
DECLARE
    v_month timestamp;
    v_name text;
    v_from uuid;
    v_to uuid;
    v_made integer := 0;
BEGIN
    -- Only one transaction makes or drops months at a time.
    PERFORM pg_advisory_xact_lock(hashtext('months'));
    FOR v_month IN
        SELECT date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => ahead)
        FROM generate_series(0, p_ahead) AS ahead
    LOOP
        v_name := to_char(v_month, 'YYYY_MM');
        v_from := uuid_v7_floor(v_month AT TIME ZONE 'UTC');
        v_to := uuid_v7_floor((v_month + interval '1 month') AT TIME ZONE 'UTC');
        CONTINUE WHEN EXISTS (SELECT FROM month_tables() WHERE first < v_to AND past > v_from);
        LOCK TABLE jobs, calls IN ACCESS EXCLUSIVE MODE;
        -- `adopt_other_months` makes these.
        CONTINUE WHEN EXISTS (SELECT FROM jobs_other WHERE job_id >= v_from AND job_id < v_to)
            OR EXISTS (SELECT FROM calls_other WHERE job_id >= v_from AND job_id < v_to);
        EXECUTE format('CREATE TABLE %I PARTITION OF calls FOR VALUES FROM (%L) TO (%L)',
                       'calls_' || v_name, v_from, v_to);
        EXECUTE format('CREATE TABLE %I PARTITION OF jobs FOR VALUES FROM (%L) TO (%L)',
                       'jobs_' || v_name, v_from, v_to);
        v_made := v_made + 1;
    END LOOP;
    RETURN v_made;
END $$;

-- The first months of a new database. `keep_months` makes the later ones.
SELECT make_months(2) WHERE NOT EXISTS (
    SELECT FROM pg_inherits WHERE inhparent = 'jobs'::regclass AND inhrelid <> 'jobs_other'::regclass);

-- Makes the rows for which there was no month's table those of a table of their month: {done, more}. `done` is the
-- number of tables. Rows are not copied: `*_other` becomes the table of the months from the oldest row to the next
-- table or the newest row, and an empty one takes its place, with the rows of later months, which the next call is for.
CREATE OR REPLACE FUNCTION adopt_other_months() RETURNS json LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '200ms' AS $$
DECLARE
    c_ids constant text := '(SELECT job_id FROM jobs_other %1$s ORDER BY job_id %2$s LIMIT 1) UNION ALL
                            (SELECT job_id FROM calls_other %1$s ORDER BY job_id %2$s LIMIT 1) ORDER BY 1 %2$s LIMIT 1';
    v_oldest uuid;
    v_newest uuid;
    v_next uuid;
    v_name text;
    v_from uuid;
    v_to uuid;
    v_table text;
    v_constraint text;
BEGIN
    IF NOT EXISTS (SELECT FROM jobs_other) AND NOT EXISTS (SELECT FROM calls_other) THEN
        RETURN json_build_object('done', 0, 'more', false);
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('months'));
    LOCK TABLE jobs, calls IN ACCESS EXCLUSIVE MODE;
    EXECUTE format(c_ids, '', 'ASC') INTO v_oldest;
    IF v_oldest IS NULL THEN
        RETURN json_build_object('done', 0, 'more', false);
    END IF;
    SELECT first INTO v_next FROM month_tables() WHERE first > v_oldest ORDER BY first LIMIT 1;
    v_next := coalesce(v_next, 'ffffffff-ffff-ffff-ffff-ffffffffffff');
    EXECUTE format(c_ids, format('WHERE job_id < %L', v_next), 'DESC') INTO v_newest;
    v_from := uuid_v7_floor(month_of(v_oldest) AT TIME ZONE 'UTC');
    v_to := uuid_v7_floor((month_of(v_newest) + interval '1 month') AT TIME ZONE 'UTC');
    v_name := to_char(month_of(v_oldest), 'YYYY_MM')
        || CASE WHEN month_of(v_newest) > month_of(v_oldest)
                THEN '_to_' || to_char(month_of(v_newest), 'YYYY_MM') ELSE '' END;
    FOREACH v_table IN ARRAY ARRAY['calls', 'jobs'] LOOP
        EXECUTE format('ALTER TABLE %I DETACH PARTITION %I', v_table, v_table || '_other');
        EXECUTE format('ALTER TABLE %I RENAME TO %I', v_table || '_other', v_table || '_' || v_name);
        EXECUTE format('CREATE TABLE %I PARTITION OF %I DEFAULT', v_table || '_other', v_table);
        EXECUTE format('WITH later AS (DELETE FROM %I WHERE job_id >= %L RETURNING *)
                        INSERT INTO %I SELECT * FROM later',
                       v_table || '_' || v_name, v_to, v_table || '_other');
        -- A table is not attached with a constraint that its rows were not checked for.
        FOR v_constraint IN
            SELECT conname FROM pg_constraint
            WHERE conrelid = (v_table || '_' || v_name)::regclass AND NOT convalidated
        LOOP
            EXECUTE format('ALTER TABLE %I VALIDATE CONSTRAINT %I', v_table || '_' || v_name, v_constraint);
        END LOOP;
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                       v_table, v_table || '_' || v_name, v_from, v_to);
    END LOOP;
    RETURN json_build_object(
        'done', 1, 'more', EXISTS (SELECT FROM jobs_other) OR EXISTS (SELECT FROM calls_other));
END $$;
GRANT EXECUTE ON FUNCTION adopt_other_months TO llm_jobs_application;

-- Drops the tables of the oldest month that ended `p_months` months ago or earlier: {done, more}. The ledger and the
-- usage are kept. At least one whole month is kept, since a job can be open for up to 30 days. What is still open in
-- the month is ended first, as far as one statement should.
CREATE OR REPLACE FUNCTION drop_month(p_months integer)
RETURNS json LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '200ms' AS $$
DECLARE
    v_before uuid := uuid_v7_floor((date_trunc('month', now() AT TIME ZONE 'UTC')
                                    - make_interval(months => greatest(p_months, 1))) AT TIME ZONE 'UTC');
    v_month record;
    v_team_id text;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('months'));
    SELECT * INTO v_month FROM month_tables() WHERE past <= v_before ORDER BY first LIMIT 1;
    IF NOT FOUND OR p_months = 0 THEN
        RETURN json_build_object('done', 0, 'more', false);
    END IF;
    SELECT team_id INTO v_team_id FROM (
        (SELECT team_id FROM jobs WHERE status IN ('pending', 'in_progress')
            AND job_id >= v_month.first AND job_id < v_month.past LIMIT 1)
        UNION ALL
        (SELECT team_id FROM calls WHERE status = 'open'
            AND job_id >= v_month.first AND job_id < v_month.past LIMIT 1)) AS open;
    IF FOUND THEN
        RETURN json_build_object('done', 0, 'more', (sweep_team(v_team_id, 200)).ended > 0);
    END IF;
    LOCK TABLE jobs, calls IN ACCESS EXCLUSIVE MODE;
    EXECUTE format('DROP TABLE %I, %I', 'calls_' || v_month.name, 'jobs_' || v_month.name);
    RETURN json_build_object('done', 1, 'more', EXISTS (SELECT FROM month_tables() WHERE past <= v_before));
END $$;
GRANT EXECUTE ON FUNCTION drop_month TO llm_jobs_application;

-- Makes the tables of the coming months: {done, more}. `months_made`, `months_dropped` and `p_months` are for
-- release 0.3.0; `drop_month` drops.
CREATE OR REPLACE FUNCTION keep_months(p_months integer DEFAULT 0) RETURNS json LANGUAGE sql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
    SELECT json_build_object('done', made, 'more', false, 'months_made', made, 'months_dropped', 0)
    FROM make_months(2) AS made
$$;
GRANT EXECUTE ON FUNCTION keep_months TO llm_jobs_application;
