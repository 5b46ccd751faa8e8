-- Partitions of the histories are made and dropped by functions, so that all
-- instances, and whoever does it by hand, do it alike and one at a time. They run
-- with the caller's rights: the caller must own the histories.

-- +goose Up

-- +goose StatementBegin
CREATE FUNCTION make_history_partitions(period text, since timestamptz, until timestamptz) RETURNS int
LANGUAGE plpgsql
SET search_path FROM CURRENT
SET timezone = 'UTC'
AS $$
DECLARE
    parent    text;
    lower_end timestamptz;
    upper_end timestamptz;
    step      interval;
    made      int := 0;
BEGIN
    IF period NOT IN ('day', 'week', 'month') THEN
        RAISE EXCEPTION 'period % is not one of day, week, month', period;
    END IF;
    step := ('1 ' || period)::interval;
    -- Any number of instances may call this at once.
    PERFORM pg_advisory_xact_lock('presence_history'::regclass::oid::bigint);
    FOREACH parent IN ARRAY ARRAY['presence_history', 'account_history'] LOOP
        -- Go on where the newest partition ends, so that a changed period makes
        -- no overlap: the first new partition is then a short one.
        SELECT max(substring(pg_get_expr(c.relpartbound, c.oid) FROM $re$TO \('([^']+)'\)$re$)::timestamptz)
        INTO lower_end
        FROM pg_inherits AS i
        JOIN pg_class AS c ON c.oid = i.inhrelid
        WHERE i.inhparent = parent::regclass;
        lower_end := coalesce(lower_end, date_trunc(period, since));
        WHILE lower_end < until LOOP
            upper_end := date_trunc(period, lower_end) + step;
            BEGIN
                EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)',
                    parent || '_' || to_char(lower_end, 'YYYYMMDD'), parent, lower_end, upper_end);
                made := made + 1;
            EXCEPTION WHEN check_violation THEN
                -- The default partition holds rows of that time already. They
                -- stay there, and are found there.
                RAISE WARNING 'no partition of % from % to %: the default partition holds rows of that time', parent, lower_end, upper_end;
            END;
            lower_end := upper_end;
        END LOOP;
    END LOOP;
    RETURN made;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION make_history_partitions IS 'Makes the missing partitions of both histories, day, week or month long, from where the newest ends (at first: from since) to until. Returns how many it made.';

-- +goose StatementBegin
CREATE FUNCTION drop_history_partitions(before timestamptz) RETURNS int
LANGUAGE plpgsql
SET search_path FROM CURRENT
SET timezone = 'UTC'
AS $$
DECLARE
    old_partition regclass;
    dropped       int := 0;
BEGIN
    PERFORM pg_advisory_xact_lock('presence_history'::regclass::oid::bigint);
    FOR old_partition IN
        SELECT c.oid::regclass
        FROM pg_inherits AS i
        JOIN pg_class AS c ON c.oid = i.inhrelid
        WHERE i.inhparent IN ('presence_history'::regclass, 'account_history'::regclass)
          AND substring(pg_get_expr(c.relpartbound, c.oid) FROM $re$TO \('([^']+)'\)$re$)::timestamptz <= before
    LOOP
        EXECUTE format('DROP TABLE %s', old_partition);
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION drop_history_partitions IS 'Drops the partitions of both histories that end at or before the given time. Returns how many it dropped.';

-- +goose Down

DROP FUNCTION drop_history_partitions;
DROP FUNCTION make_history_partitions;
