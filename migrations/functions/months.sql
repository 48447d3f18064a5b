-- Monthly partitions of jobs and calls.
--
-- Each month's jobs have a table of their own, and so have the calls of those jobs. Rows for which there is no month's
-- table go to `*_other` and stay there, so that nothing fails if a table was not made in time.

-- Makes the missing tables of this month and the next `p_ahead` months. Answers for how many months it made them. Must
-- be a statement of its own, since it locks both parent tables for a moment. If it can't get the locks at once it fails
-- (55P03) rather than make others wait.
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
        CONTINUE WHEN to_regclass('jobs_' || v_name) IS NOT NULL;
        LOCK TABLE jobs, calls IN ACCESS EXCLUSIVE MODE;
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

-- Drops the tables of all months that ended `p_months` months ago or earlier. Answers how many months it dropped. The
-- ledger and the usage are kept. At least one whole month is kept, since a job can be open for up to 30 days.
CREATE OR REPLACE FUNCTION drop_months(p_months integer)
RETURNS integer LANGUAGE plpgsql SET lock_timeout = '200ms' AS $$
DECLARE
    v_name text;
    v_dropped integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('months'));
    FOR v_name IN
        SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
        WHERE inhparent = 'jobs'::regclass AND relname ~ '^jobs_\d{4}_\d\d$'
          AND to_date(substr(relname, 6), 'YYYY_MM')
              < date_trunc('month', now() AT TIME ZONE 'UTC') - make_interval(months => greatest(p_months, 1))
    LOOP
        LOCK TABLE jobs, calls IN ACCESS EXCLUSIVE MODE;
        EXECUTE format('DROP TABLE %I', replace(v_name, 'jobs_', 'calls_'));
        EXECUTE format('DROP TABLE %I', v_name);
        v_dropped := v_dropped + 1;
    END LOOP;
    RETURN v_dropped;
END $$;

-- Makes the tables of the coming months, and drops those of months older than `p_months` unless that is 0.
CREATE OR REPLACE FUNCTION keep_months(p_months integer) RETURNS json LANGUAGE sql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
    SELECT json_build_object(
        'months_made', make_months(2), 'months_dropped', CASE WHEN p_months > 0 THEN drop_months(p_months) ELSE 0 END)
$$;
GRANT EXECUTE ON FUNCTION keep_months TO llm_jobs_application;
