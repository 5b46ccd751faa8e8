-- What any role that may connect can do must not stop the work. It can hold advisory
-- locks, so maintenance takes locks that only the owner and workers can take. It can
-- send notifications on channels whose names it knows, so new work is announced on one
-- that only they can know.

-- +goose Up

CREATE TABLE queue_channel (
    name text NOT NULL
);
COMMENT ON TABLE queue_channel IS 'One row: the channel on which workers announce new work to each other. Roles that are no workers must not read it: who knows the name can flood it.';
COMMENT ON COLUMN queue_channel.name IS 'The name of the channel after the schema and a dot; random.';
INSERT INTO queue_channel VALUES ('work_' || replace(gen_random_uuid()::text, '-', ''));

-- +goose StatementBegin
CREATE FUNCTION lock_for_maintenance(of_table regclass) RETURNS boolean
LANGUAGE plpgsql
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
DO $$
DECLARE
    change record;
    body   text;
BEGIN
    EXECUTE format('ALTER FUNCTION lock_for_maintenance SET search_path = %I, pg_temp', current_schema());
    FOR change IN
        SELECT * FROM (VALUES
            ('make_history_partitions',
             $old$IF NOT pg_try_advisory_xact_lock('presence_history'::regclass::oid::bigint) THEN
        RETURN 0;$old$,
             $new$IF NOT lock_for_maintenance('presence_history') THEN
        RETURN NULL;$new$),
            ('drop_history_partitions',
             $old$IF NOT pg_try_advisory_xact_lock('presence_history'::regclass::oid::bigint) THEN
        RETURN 0;$old$,
             $new$IF NOT lock_for_maintenance('presence_history') THEN
        RETURN NULL;$new$),
            ('roll_up_presence',
             $old$IF NOT pg_try_advisory_xact_lock(('presence_rollup'::regclass::oid::bigint << 16) + of_app) THEN$old$,
             $new$IF NOT lock_for_maintenance('presence_rollup') THEN$new$)
        ) AS c (name, before, after)
    LOOP
        body := pg_get_functiondef(format('%I.%I', current_schema(), change.name)::regproc);
        IF strpos(body, change.before) = 0 THEN
            RAISE EXCEPTION 'function % is not as the migrations before left it', change.name;
        END IF;
        EXECUTE replace(body, change.before, change.after);
    END LOOP;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION make_history_partitions IS 'Makes the missing partitions of both histories, day, week or month long, from the oldest to until; the first ever begins with the oldest row, or with since. Partitions made ahead of since for another period are made anew while they hold no rows, and rows are moved from the default partition to where they belong. Returns how many it made, at most 50 of each history (call it again until it makes none); null when it gave way to another session that uses a history (call it again later).';
COMMENT ON FUNCTION drop_history_partitions IS 'Drops the partitions of both histories that end at or before the given time, and removes what is older from the default ones. Returns how many partitions it dropped, at most 50 of each history (call it again until it drops none); null when it gave way to another session that uses a history (call it again later).';

-- +goose Down

-- +goose StatementBegin
DO $$
DECLARE
    change record;
    body   text;
BEGIN
    FOR change IN
        SELECT * FROM (VALUES
            ('make_history_partitions',
             $new$IF NOT lock_for_maintenance('presence_history') THEN
        RETURN NULL;$new$,
             $old$IF NOT pg_try_advisory_xact_lock('presence_history'::regclass::oid::bigint) THEN
        RETURN 0;$old$),
            ('drop_history_partitions',
             $new$IF NOT lock_for_maintenance('presence_history') THEN
        RETURN NULL;$new$,
             $old$IF NOT pg_try_advisory_xact_lock('presence_history'::regclass::oid::bigint) THEN
        RETURN 0;$old$),
            ('roll_up_presence',
             $new$IF NOT lock_for_maintenance('presence_rollup') THEN$new$,
             $old$IF NOT pg_try_advisory_xact_lock(('presence_rollup'::regclass::oid::bigint << 16) + of_app) THEN$old$)
        ) AS c (name, before, after)
    LOOP
        body := pg_get_functiondef(format('%I.%I', current_schema(), change.name)::regproc);
        IF strpos(body, change.before) = 0 THEN
            RAISE EXCEPTION 'function % is not as the migrations before left it', change.name;
        END IF;
        EXECUTE replace(body, change.before, change.after);
    END LOOP;
END
$$;
-- +goose StatementEnd
DROP FUNCTION lock_for_maintenance;
DROP TABLE queue_channel;
COMMENT ON FUNCTION make_history_partitions IS 'Makes the missing partitions of both histories, day, week or month long, from the oldest to until; the first ever begins with the oldest row, or with since. Partitions made ahead of since for another period are made anew while they hold no rows, and rows are moved from the default partition to where they belong. Returns how many it made, at most 50 of each history (call it again until it makes none); 0 also while another session is at it; null when it gave way to somebody who uses a history (call it again later).';
COMMENT ON FUNCTION drop_history_partitions IS 'Drops the partitions of both histories that end at or before the given time, and removes what is older from the default ones. Returns how many partitions it dropped, at most 50 of each history (call it again until it drops none); 0 also while another session is at it; null when it gave way to somebody who uses a history (call it again later).';
