-- Archives: which months of the histories, runs and gaps are in files outside of Postgres,
-- and dropping of the partitions that are.

-- +goose Up

CREATE TABLE history_archive (
    relation       text        NOT NULL CHECK (relation IN ('presence_history', 'account_history', 'sync_run', 'observation_gap')),
    app_id         smallint    NOT NULL REFERENCES app,
    month          date        NOT NULL,
    schema_version int         NOT NULL,
    rows           bigint      NOT NULL,
    first_at       timestamptz,
    last_at        timestamptz,
    bytes          bigint      NOT NULL,
    sha256         bytea,
    archived_at    timestamptz NOT NULL,
    PRIMARY KEY (relation, app_id, month),
    CHECK ((rows = 0) = (sha256 IS NULL))
);
COMMENT ON TABLE history_archive IS 'The months that are archived, each in one file, which was read back and compared before the row was written.';
COMMENT ON COLUMN history_archive.relation IS 'The table that the rows come from.';
COMMENT ON COLUMN history_archive.app_id IS 'The app.';
COMMENT ON COLUMN history_archive.month IS 'First day of the month, in UTC.';
COMMENT ON COLUMN history_archive.schema_version IS 'Version of the columns of the file.';
COMMENT ON COLUMN history_archive.rows IS 'Rows in the file; 0: there were none, and there is no file.';
COMMENT ON COLUMN history_archive.first_at IS 'observed_at, or started_at, of the first row.';
COMMENT ON COLUMN history_archive.last_at IS 'The same of the last row.';
COMMENT ON COLUMN history_archive.bytes IS 'Size of the file.';
COMMENT ON COLUMN history_archive.sha256 IS 'SHA-256 of the file.';
COMMENT ON COLUMN history_archive.archived_at IS 'When the file was last written.';

CREATE TABLE history_archive_day (
    relation text     NOT NULL,
    app_id   smallint NOT NULL REFERENCES app,
    day      date     NOT NULL,
    rows     bigint   NOT NULL,
    keys     numeric  NOT NULL,
    dropped  boolean  NOT NULL DEFAULT false,
    PRIMARY KEY (relation, app_id, day)
);
COMMENT ON TABLE history_archive_day IS 'What the database had of each archived day when its month was last archived. It shows rows that came later.';
COMMENT ON COLUMN history_archive_day.relation IS 'The table.';
COMMENT ON COLUMN history_archive_day.app_id IS 'The app.';
COMMENT ON COLUMN history_archive_day.day IS 'The day in UTC; of runs and gaps the first of the month.';
COMMENT ON COLUMN history_archive_day.rows IS 'Rows in the database; 0 after they were dropped.';
COMMENT ON COLUMN history_archive_day.keys IS 'Sum of the hashes of their keys.';
COMMENT ON COLUMN history_archive_day.dropped IS 'Rows of the day were dropped from the database, so that the file has rows that the database has not.';

-- +goose StatementBegin
CREATE FUNCTION history_days(of_relation regclass, of_app smallint, since timestamptz, until timestamptz)
RETURNS TABLE (app_id smallint, day date, rows bigint, keys numeric)
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
AS $$
BEGIN
    RETURN QUERY EXECUTE format($q$
        SELECT h.app_id, (h.observed_at AT TIME ZONE 'UTC')::date, count(*),
               sum(hashtextextended(h.user_id, (extract(epoch FROM h.observed_at) * 1000000)::bigint)::numeric)
        FROM %s AS h
        WHERE (%L::smallint IS NULL OR h.app_id = %L::smallint) AND h.observed_at >= %L AND h.observed_at < %L
        GROUP BY 1, 2$q$, of_relation, of_app, of_app, since, until);
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION history_days IS 'The rows of a history, or of one of its partitions, from since on and before until: by app (all, if of_app is null) and day in UTC their number, and the sum of the hashes of their keys.';

-- +goose StatementBegin
CREATE FUNCTION history_months(of_history text, before timestamptz) RETURNS SETOF date
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
SET timezone = 'UTC'
AS $$
BEGIN
    RETURN QUERY
        SELECT generate_series(date_trunc('month', p.lower_end), p.upper_end - interval '1 microsecond', interval '1 month')::date
        FROM history_partitions(of_history::regclass) AS p
        WHERE p.upper_end <= before AND isfinite(p.lower_end)
        UNION
        SELECT o.month FROM outside_history_partitions(of_history, before) AS o (month);
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION history_months IS 'The months, in UTC, of which the partitions of a history that end at or before the given time can have rows, or the default partition has rows before it.';

-- +goose StatementBegin
CREATE FUNCTION outside_history_partitions(of_history text, before timestamptz) RETURNS SETOF date
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
SET timezone = 'UTC'
AS $$
BEGIN
    RETURN QUERY EXECUTE format('SELECT DISTINCT date_trunc(''month'', observed_at)::date FROM %I WHERE observed_at < %L', of_history || '_default', before);
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION outside_history_partitions IS 'The months of the rows before a time in the default partition of a history.';

-- +goose StatementBegin
CREATE FUNCTION drop_archived_history_partitions(before timestamptz) RETURNS int
LANGUAGE plpgsql
SET search_path FROM CURRENT
SET timezone = 'UTC'
SET lock_timeout = '800ms'
AS $$
DECLARE
    history  text;
    fallback text;
    old      record;
    left_out bigint;
    dropped  int := 0;
    gave_way boolean := false;
BEGIN
    IF NOT lock_for_maintenance('presence_history') THEN
        RETURN NULL;
    END IF;
    FOREACH history IN ARRAY ARRAY['presence_history', 'account_history'] LOOP
        FOR old IN
            SELECT p.relation, p.lower_end, p.upper_end
            FROM history_partitions(history::regclass) AS p
            WHERE p.upper_end <= before
            ORDER BY p.lower_end
            LIMIT 50 -- see make_history_partitions
        LOOP
            BEGIN
                -- Late rows wait, and go to the default partition afterwards. Nobody else
                -- writes here, and reading goes on.
                EXECUTE format('LOCK TABLE %s IN SHARE MODE', old.relation);
                SELECT count(*) INTO left_out
                FROM history_days(old.relation, NULL, old.lower_end, old.upper_end) AS d
                LEFT JOIN history_archive_day AS a
                    ON a.relation = history AND a.app_id = d.app_id AND a.day = d.day AND a.rows = d.rows AND a.keys = d.keys
                WHERE a.day IS NULL;
                CONTINUE WHEN left_out > 0;
                EXECUTE format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE', history);
                EXECUTE format('DROP TABLE %s', old.relation);
                UPDATE history_archive_day AS a SET rows = 0, keys = 0, dropped = true
                WHERE a.relation = history AND a.day >= old.lower_end::date AND a.day < old.upper_end AND a.rows > 0;
                dropped := dropped + 1;
            EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
                RAISE WARNING 'partition % was not dropped: others use it', old.relation;
                gave_way := true;
                EXIT;
            END;
        END LOOP;
        BEGIN
            fallback := history || '_default';
            EXECUTE format('LOCK TABLE %I IN SHARE ROW EXCLUSIVE MODE', fallback);
            FOR old IN
                SELECT d.app_id, d.day
                FROM history_days(fallback::regclass, NULL, '-infinity', before) AS d
                JOIN history_archive_day AS a
                    ON a.relation = history AND a.app_id = d.app_id AND a.day = d.day AND a.rows = d.rows AND a.keys = d.keys
                WHERE d.day + 1 <= before
            LOOP
                EXECUTE format('DELETE FROM %I WHERE app_id = %L AND observed_at >= %L AND observed_at < %L', fallback, old.app_id, old.day::timestamptz, (old.day + 1)::timestamptz);
                UPDATE history_archive_day AS a SET rows = 0, keys = 0, dropped = true
                WHERE a.relation = history AND a.app_id = old.app_id AND a.day = old.day;
            END LOOP;
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            RAISE WARNING 'archived rows of % stay: others use it', fallback;
            gave_way := true;
        END;
    END LOOP;
    RETURN CASE WHEN NOT gave_way THEN dropped END;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION drop_archived_history_partitions IS 'As drop_history_partitions, but drops only partitions, and removes only days from the default ones, whose rows are archived as they are. Others stay until they are archived.';

-- +goose StatementBegin
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['history_days', 'history_months', 'outside_history_partitions', 'drop_archived_history_partitions'] LOOP
        EXECUTE format('ALTER FUNCTION %I SET search_path = %I, pg_temp', name, current_schema());
    END LOOP;
END
$$;
-- +goose StatementEnd
ALTER FUNCTION drop_archived_history_partitions SECURITY DEFINER;
REVOKE EXECUTE ON FUNCTION drop_archived_history_partitions FROM PUBLIC;

-- +goose Down

DROP FUNCTION drop_archived_history_partitions;
DROP FUNCTION outside_history_partitions;
DROP FUNCTION history_months;
DROP FUNCTION history_days;
DROP TABLE history_archive_day;
DROP TABLE history_archive;
