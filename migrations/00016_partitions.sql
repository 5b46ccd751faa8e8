-- Maintenance of the histories' partitions, and its lock.
--
-- Only the owner of a table can attach and drop partitions. make_history_partitions and
-- drop_history_partitions therefore run with the rights of their owner, and only roles
-- with a grant may call them. pg_temp comes last in the search_path of all functions
-- here: otherwise a caller could lead them to temporary tables of its own.

-- +goose Up

SELECT set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true);

-- A table lock, because any role that may connect can hold advisory locks: only roles
-- that may write to the table can take this one.
-- +goose StatementBegin
CREATE FUNCTION lock_for_maintenance(of_table regclass) RETURNS boolean
LANGUAGE plpgsql
SET search_path FROM CURRENT
SET lock_timeout = '800ms'
AS $$
BEGIN
    -- It takes the right to write to the table. It conflicts with itself and with what
    -- changes the table's definition, not with reading and writing. ONLY, because
    -- partitions may be vacuumed meanwhile.
    EXECUTE format('LOCK TABLE ONLY %s IN SHARE UPDATE EXCLUSIVE MODE', of_table);
    RETURN true;
EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
    RETURN false;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION lock_for_maintenance IS 'Lets one transaction at a time maintain a table, without keeping others from reading or writing it. Returns whether the lock was granted; it is held until the end of the transaction.';

-- +goose StatementBegin
CREATE FUNCTION history_partitions(history regclass) RETURNS TABLE (relation regclass, lower_end timestamptz, upper_end timestamptz)
LANGUAGE sql
STABLE
SET search_path FROM CURRENT
AS $$
    SELECT c.oid::regclass,
           coalesce(substring(b.bounds FROM $re$FROM \('([^']+)'\)$re$)::timestamptz, '-infinity'),
           coalesce(substring(b.bounds FROM $re$TO \('([^']+)'\)$re$)::timestamptz, 'infinity')
    FROM pg_inherits AS i
    JOIN pg_class AS c ON c.oid = i.inhrelid
    CROSS JOIN LATERAL pg_get_expr(c.relpartbound, c.oid) AS b (bounds)
    WHERE i.inhparent = history AND b.bounds <> 'DEFAULT'
    ORDER BY 2
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION history_partitions IS 'The partitions of a history but the default one, oldest first: rows observed from lower_end on and before upper_end are in it.';

-- +goose StatementBegin
CREATE FUNCTION history_has_rows(history regclass, lower_end timestamptz, upper_end timestamptz) RETURNS boolean
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
    has_rows boolean;
BEGIN
    -- Literals, so that Postgres reads and locks only the partitions of that time.
    EXECUTE format('SELECT EXISTS (SELECT FROM %s WHERE observed_at >= %L AND observed_at < %L)', history, lower_end, upper_end) INTO has_rows;
    RETURN has_rows;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION history_has_rows IS 'Whether a history holds any row observed from lower_end on and before upper_end.';

-- +goose StatementBegin
CREATE FUNCTION add_history_partition(history text, lower_end timestamptz, upper_end timestamptz, since timestamptz) RETURNS void
LANGUAGE plpgsql
SET search_path FROM CURRENT
SET timezone = 'UTC'
AS $$
DECLARE
    added    text := history || '_' || to_char(lower_end, 'YYYYMMDD');
    fallback text := history || '_default';
    move     text;
    moved    bigint;
BEGIN
    -- With the check, ATTACH need not read the rows that are moved there.
    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL, CONSTRAINT bounds CHECK (observed_at >= %L AND observed_at < %L))',
        added, history, lower_end, upper_end);
    move := format('WITH moved AS (DELETE FROM %I WHERE observed_at >= %L AND observed_at < %L RETURNING *) INSERT INTO %I SELECT * FROM moved',
        fallback, lower_end, upper_end, added);
    -- Most rows are moved before other sessions are locked out. Readers find them in the
    -- default partition until all is committed.
    EXECUTE move;
    GET DIAGNOSTICS moved = ROW_COUNT;
    -- ATTACH takes these locks anyway. The stronger one keeps writers of that time from
    -- choosing the default partition, which would refuse their rows after the ATTACH.
    -- Readers pass both. The parent comes first, as in all other statements.
    EXECUTE format('LOCK TABLE %I IN %s MODE', history,
        CASE WHEN moved > 0 OR lower_end <= since + interval '1 hour' THEN 'SHARE ROW EXCLUSIVE' ELSE 'SHARE UPDATE EXCLUSIVE' END);
    EXECUTE format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE', fallback);
    EXECUTE move; -- what was written meanwhile
    -- ATTACH reads all of the default partition, which is short: what it catches
    -- is moved out again.
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', history, added, lower_end, upper_end);
    EXECUTE format('ALTER TABLE %I DROP CONSTRAINT bounds', added);
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION add_history_partition IS 'Makes one partition, and moves the rows of its time from the default one there. Part of make_history_partitions, which takes care that only one makes partitions at a time.';

-- +goose StatementBegin
CREATE FUNCTION drop_unfit_history_partitions(history text, period text, since timestamptz) RETURNS void
LANGUAGE plpgsql
SET search_path FROM CURRENT
SET timezone = 'UTC'
AS $$
DECLARE
    ahead        record;
    previous_end timestamptz;
    unfit        regclass[] := '{}';
    empty        record;
BEGIN
    -- What make_history_partitions would make between those that stay is fit.
    FOR ahead IN
        SELECT p.relation, p.lower_end, p.upper_end, s.stays,
               least(date_trunc(period, p.lower_end) + ('1 ' || period)::interval,
                     min(p.lower_end) FILTER (WHERE s.stays) OVER (ORDER BY p.lower_end ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING)) AS fit_end
        FROM history_partitions(history::regclass) AS p
        CROSS JOIN LATERAL (
            SELECT CASE WHEN p.lower_end <= since THEN true ELSE history_has_rows(history::regclass, p.lower_end, p.upper_end) END
        ) AS s (stays)
        ORDER BY p.lower_end
    LOOP
        IF ahead.stays OR (ahead.upper_end = ahead.fit_end
            AND ahead.lower_end IN (previous_end, date_trunc(period, ahead.lower_end)))
        THEN
            previous_end := ahead.upper_end;
        ELSE
            unfit := unfit || ahead.relation;
        END IF;
    END LOOP;
    IF unfit = '{}' THEN
        RETURN;
    END IF;
    -- DROP takes this lock anyway; from here on no session inserts rows there.
    EXECUTE format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE', history);
    FOR empty IN
        SELECT p.relation
        FROM history_partitions(history::regclass) AS p
        WHERE p.relation = ANY (unfit) AND NOT history_has_rows(history::regclass, p.lower_end, p.upper_end)
    LOOP
        EXECUTE format('DROP TABLE %s', empty.relation);
    END LOOP;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION drop_unfit_history_partitions IS 'Drops the partitions of one history that begin after since, hold no rows and do not fit the period. Part of make_history_partitions, which fills the holes in the same transaction.';

-- The lock timeout is shorter than deadlock_timeout (by default 1 s). In a deadlock,
-- maintenance gives way, never a page or a report; and statements that queue behind its
-- lock wait no longer than that.

-- +goose StatementBegin
CREATE FUNCTION make_history_partitions(period text, since timestamptz, until timestamptz) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT
SET timezone = 'UTC'
SET lock_timeout = '800ms'
AS $$
DECLARE
    most      CONSTANT int := 50; -- of one history at once: each takes some places in the table of locks
    step      interval;
    history   text;
    next      record;
    lower_end timestamptz;
    upper_end timestamptz;
    oldest    timestamptz;
    made      int;
    all_made  int := 0;
    gave_way  boolean := false;
BEGIN
    IF period NOT IN ('day', 'week', 'month') THEN
        RAISE EXCEPTION 'period % is not one of day, week, month', period;
    END IF;
    step := ('1 ' || period)::interval;
    -- Any number of instances may call this at once; one of them is enough.
    IF NOT lock_for_maintenance('presence_history') THEN
        RETURN NULL;
    END IF;
    FOREACH history IN ARRAY ARRAY['presence_history', 'account_history'] LOOP
        BEGIN
            made := 0;
            PERFORM drop_unfit_history_partitions(history, period, since);
            SELECT min(p.lower_end) INTO lower_end FROM history_partitions(history::regclass) AS p;
            IF lower_end IS NULL THEN
                EXECUTE format('SELECT min(observed_at) FROM %I', history || '_default') INTO oldest;
                lower_end := date_trunc(period, least(since, oldest));
            END IF;
            -- Each partition is made where the one before it ends, and as long as the
            -- calendar or the next one allows: after a change the first is a short one.
            FOR next IN
                SELECT p.lower_end, p.upper_end FROM history_partitions(history::regclass) AS p
                UNION ALL
                SELECT 'infinity', 'infinity'
                ORDER BY 1
            LOOP
                WHILE lower_end < least(next.lower_end, until) AND made < most LOOP
                    -- Only rows that wait in the default partition are older than since.
                    EXECUTE format('SELECT min(observed_at) FROM %I WHERE observed_at >= %L AND observed_at < %L',
                        history || '_default', lower_end, least(next.lower_end, since)) INTO oldest;
                    lower_end := greatest(lower_end, date_trunc(period, least(oldest, since)));
                    EXIT WHEN lower_end >= least(next.lower_end, until);
                    upper_end := least(date_trunc(period, lower_end) + step, next.lower_end);
                    PERFORM add_history_partition(history, lower_end, upper_end, since);
                    made := made + 1;
                    lower_end := upper_end;
                END LOOP;
                lower_end := next.upper_end;
            END LOOP;
            all_made := all_made + made;
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            -- All is as it was before this history, and its locks are gone.
            RAISE WARNING 'no partitions of % were made: others use it', history;
            gave_way := true;
        END;
    END LOOP;
    RETURN CASE WHEN NOT gave_way THEN all_made END;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION make_history_partitions IS 'Makes the missing partitions of both histories, day, week or month long, from the oldest to until; the first ever begins with the oldest row, or with since. Partitions made ahead of since for another period are made anew while they hold no rows, and rows are moved from the default partition to where they belong. Returns how many it made, at most 50 of each history (call it again until it makes none); null when it gave way to another session that uses a history (call it again later).';

-- +goose StatementBegin
CREATE FUNCTION drop_history_partitions(before timestamptz) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT
SET timezone = 'UTC'
SET lock_timeout = '800ms'
AS $$
DECLARE
    history  text;
    old      regclass[];
    relation regclass;
    dropped  int := 0;
    gave_way boolean := false;
BEGIN
    IF NOT lock_for_maintenance('presence_history') THEN
        RETURN NULL;
    END IF;
    FOREACH history IN ARRAY ARRAY['presence_history', 'account_history'] LOOP
        EXECUTE format('DELETE FROM %I WHERE observed_at < %L', history || '_default', before);
    END LOOP;
    FOREACH history IN ARRAY ARRAY['presence_history', 'account_history'] LOOP
        old := ARRAY(
            SELECT p.relation
            FROM history_partitions(history::regclass) AS p
            WHERE p.upper_end <= before
            ORDER BY p.lower_end
            LIMIT 50 -- see make_history_partitions
        );
        CONTINUE WHEN old = '{}';
        BEGIN
            -- DROP takes this lock anyway; here it comes before those on the
            -- partitions, as in all other statements.
            EXECUTE format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE', history);
            FOREACH relation IN ARRAY old LOOP
                EXECUTE format('DROP TABLE %s', relation);
            END LOOP;
            dropped := dropped + cardinality(old);
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            RAISE WARNING 'no partitions of % were dropped: others use it', history;
            gave_way := true;
        END;
    END LOOP;
    RETURN CASE WHEN NOT gave_way THEN dropped END;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION drop_history_partitions IS 'Drops the partitions of both histories that end at or before the given time, and removes what is older from the default ones. Returns how many partitions it dropped, at most 50 of each history (call it again until it drops none); null when it gave way to another session that uses a history (call it again later).';

-- By default every role may call a new function.
REVOKE EXECUTE ON FUNCTION make_history_partitions FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION drop_history_partitions FROM PUBLIC;

-- +goose Down

DROP FUNCTION drop_history_partitions;
DROP FUNCTION make_history_partitions;
DROP FUNCTION drop_unfit_history_partitions;
DROP FUNCTION add_history_partition;
DROP FUNCTION history_has_rows;
DROP FUNCTION history_partitions;
DROP FUNCTION lock_for_maintenance;
