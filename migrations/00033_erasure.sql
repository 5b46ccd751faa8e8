-- Erasure of a user on request: which users were erased, which of them sweeps skip, and a
-- function that removes a user's id from every table.

-- +goose Up

CREATE TABLE erasure (
    app_id    smallint    NOT NULL REFERENCES app,
    user_hash bytea       NOT NULL,
    salt_id   bytea       NOT NULL,
    erased_at timestamptz NOT NULL,
    excluded  boolean     NOT NULL DEFAULT false,
    PRIMARY KEY (app_id, user_hash)
);
CREATE INDEX erasure_excluded ON erasure (app_id) WHERE excluded;
COMMENT ON TABLE erasure IS 'The users that syncer forget erased. It holds no user ids.';
COMMENT ON COLUMN erasure.app_id IS 'The app.';
COMMENT ON COLUMN erasure.user_hash IS 'HMAC-SHA256 of the user id, keyed with [history] erasure_salt.';
COMMENT ON COLUMN erasure.salt_id IS 'Identifies the salt: the beginning of an HMAC-SHA256 of a fixed text, keyed with it.';
COMMENT ON COLUMN erasure.erased_at IS 'When the user was last erased.';
COMMENT ON COLUMN erasure.excluded IS 'Sweeps skip the user (syncer forget --exclude).';

ALTER TABLE sync_run ADD COLUMN erasures int NOT NULL DEFAULT 0;
COMMENT ON COLUMN sync_run.erasures IS 'Users of the app who were erased while the run was running. Work that was claimed before the newest of these erasures is not written, but repeated.';

-- +goose StatementBegin
CREATE FUNCTION user_tables() RETURNS TABLE (relation regclass, columns name[])
LANGUAGE sql STABLE
SET search_path FROM CURRENT
AS $$
    SELECT c.oid::regclass, array_agg(a.attname ORDER BY a.attnum)
    FROM pg_class AS c
    JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p', 'f')
      -- A partition whose detaching has begun is not reached through its parent.
      AND (NOT c.relispartition OR EXISTS (SELECT FROM pg_inherits AS i WHERE i.inhrelid = c.oid AND i.inhdetachpending))
    GROUP BY c.oid
    HAVING array_agg(a.attname) @> '{app_id, user_id}'
    ORDER BY c.relname
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION user_tables IS 'The tables with rows of users, with their columns: also former partitions that were detached, and foreign tables. Partitions are reached through their parents.';

-- +goose StatementBegin
CREATE FUNCTION stored_users(of_app smallint) RETURNS SETOF text
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
AS $$
DECLARE
    held record;
BEGIN
    FOR held IN SELECT t.relation FROM user_tables() AS t LOOP
        RETURN QUERY EXECUTE format('SELECT DISTINCT user_id FROM %s WHERE app_id = $1', held.relation) USING of_app;
    END LOOP;
    RETURN QUERY SELECT DISTINCT l.user_id FROM sync_run_user AS l JOIN sync_run AS u USING (run_id) WHERE u.app_id = of_app;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION stored_users IS 'The ids of the users of an app in all tables with rows of users. An id is returned once for each table.';

-- +goose StatementBegin
CREATE FUNCTION without_names(message text, names text[]) RETURNS text
LANGUAGE plpgsql IMMUTABLE
SET search_path FROM CURRENT
AS $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY names LOOP
        IF strpos(message, name) > 0 THEN
            message := regexp_replace(message,
                '(?<![[:alnum:]_])' || regexp_replace(name, '([]!-/:-@[^`{-~\\])' COLLATE "C", '\\\1', 'g') || '(?![[:alnum:]_])',
                '(erased)', 'g');
        END IF;
    END LOOP;
    RETURN message;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION without_names IS 'A message with (erased) in place of each of the names that is a word of it.';

-- +goose StatementBegin
CREATE FUNCTION erase_user(of_app smallint, names text[]) RETURNS TABLE (place text, changed bigint)
LANGUAGE plpgsql
SET search_path FROM CURRENT
-- By index wherever there is one: presence_day is looked up day by day.
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET jit = off
AS $$
DECLARE
    held      record;
    condition text;
BEGIN
    FOR held IN SELECT t.relation, t.columns FROM user_tables() AS t LOOP
        condition := 'app_id = $1 AND user_id = ANY ($2)';
        IF 'kind' = ANY (held.columns) THEN
            condition := condition || $c$ AND kind IN ('presence', 'accounts')$c$;
        END IF;
        IF 'day' = ANY (held.columns) THEN
            condition := condition || format(' AND day IN (
                SELECT generate_series(min(b.day), max(b.day), interval %L)::date FROM %s AS b WHERE b.app_id = $1)', '1 day', held.relation);
        END IF;
        EXECUTE format('DELETE FROM %s WHERE %s', held.relation, condition) USING of_app, names;
        GET DIAGNOSTICS changed = ROW_COUNT;
        place := (SELECT c.relname FROM pg_class AS c WHERE c.oid = held.relation);
        RETURN NEXT;
    END LOOP;

    DELETE FROM sync_run_user AS l USING sync_run AS u WHERE u.run_id = l.run_id AND u.app_id = of_app AND l.user_id = ANY (names);
    GET DIAGNOSTICS changed = ROW_COUNT;
    place := 'sync_run_user';
    RETURN NEXT;

    -- Messages name users and keys, and a key can be the user id.
    UPDATE sync_run AS u SET error = without_names(u.error, names)
    WHERE u.app_id = of_app AND u.error <> without_names(u.error, names);
    GET DIAGNOSTICS changed = ROW_COUNT;
    place := 'sync_run.error';
    RETURN NEXT;

    UPDATE sync_range AS r SET error = without_names(r.error, names)
    FROM sync_run AS u
    WHERE u.run_id = r.run_id AND u.app_id = of_app AND r.error <> without_names(r.error, names);
    GET DIAGNOSTICS changed = ROW_COUNT;
    place := 'sync_range.error';
    RETURN NEXT;

    UPDATE user_failure AS f SET message = without_names(f.message, names)
    WHERE f.app_id = of_app AND f.message <> without_names(f.message, names);
    GET DIAGNOSTICS changed = ROW_COUNT;
    place := 'user_failure.message';
    RETURN NEXT;

    UPDATE api_quota AS q SET failing_error = without_names(q.failing_error, names)
    WHERE q.app_id = of_app AND q.failing_error <> without_names(q.failing_error, names);
    GET DIAGNOSTICS changed = ROW_COUNT;
    place := 'api_quota.failing_error';
    RETURN NEXT;

    UPDATE river_job AS j SET errors = ARRAY(
        SELECT e.error || jsonb_build_object(
            'error', without_names(e.error ->> 'error', names), 'trace', without_names(e.error ->> 'trace', names))
        FROM unnest(j.errors) WITH ORDINALITY AS e (error, n)
        ORDER BY e.n)
    WHERE EXISTS (
        SELECT FROM unnest(j.errors) AS e (error)
        WHERE e.error ->> 'error' <> without_names(e.error ->> 'error', names) OR e.error ->> 'trace' <> without_names(e.error ->> 'trace', names));
    GET DIAGNOSTICS changed = ROW_COUNT;
    place := 'river_job.errors';
    RETURN NEXT;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION erase_user IS 'Deletes the rows of the user of an app whose id is one of names, and replaces these names in messages. Returns what it changed, where, by number of rows. Not the bounds of ranges: syncer forget ends the runs that have the id there.';

-- They have the owner's rights, as those that make partitions: detached partitions have
-- no other.
-- +goose StatementBegin
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['user_tables', 'stored_users', 'without_names', 'erase_user'] LOOP
        EXECUTE format('ALTER FUNCTION %I SET search_path = %I, pg_temp', name, current_schema());
    END LOOP;
END
$$;
-- +goose StatementEnd
ALTER FUNCTION stored_users SECURITY DEFINER;
ALTER FUNCTION erase_user SECURITY DEFINER;
REVOKE EXECUTE ON FUNCTION stored_users FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION erase_user FROM PUBLIC;

-- +goose Down

DROP FUNCTION erase_user;
DROP FUNCTION without_names;
DROP FUNCTION stored_users;
DROP FUNCTION user_tables;
ALTER TABLE sync_run DROP COLUMN erasures;
DROP TABLE erasure;
