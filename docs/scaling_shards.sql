-- From now on both histories go to other databases, the shards, by user: what
-- was written so far stays where it is. scaling.md says when and how to run this.
-- A test runs this file and then lives with it.
--
-- It needs a foreign server for each shard, history_0, history_1 and so on, with
-- syncer's schema in it, migrated. Run it as the owner of the schema, with the
-- schema as search_path; it is one transaction, and can be run again if it fails.

DO $$
DECLARE
    shards   CONSTANT int := (SELECT count(*) FROM pg_foreign_server WHERE srvname ~ '^history_\d+$');
    history  text;
    part     record;
    parts    text[];
    moves_at timestamptz;
    key      text;
BEGIN
    IF shards = 0 THEN
        RAISE EXCEPTION 'there is no foreign server history_0';
    END IF;
    LOCK TABLE presence_history, account_history IN ACCESS EXCLUSIVE MODE;
    -- No row is later than this: nobody can write until the transaction ends.
    moves_at := coalesce(nullif(current_setting('syncer.moves_at', true), '')::timestamptz, clock_timestamp());
    FOREACH history IN ARRAY ARRAY['presence_history', 'account_history'] LOOP
        -- A table with a unique index takes no foreign partition, because Postgres
        -- could not see to it. Each shard has the primary key, and all rows of a
        -- user are on one shard. The partitions here keep theirs: they leave,
        -- and come back once the table has none.
        parts := '{}';
        FOR part IN SELECT p.relation, p.lower_end, p.upper_end FROM history_partitions(history::regclass) AS p LOOP
            EXECUTE format('ALTER TABLE %I DETACH PARTITION %s', history, part.relation);
            IF part.lower_end >= moves_at THEN
                EXECUTE format('DROP TABLE %s', part.relation); -- made ahead, and empty
            ELSE
                parts := parts || format('ALTER TABLE %I ATTACH PARTITION %s FOR VALUES FROM (%L) TO (%L)',
                    history, part.relation, part.lower_end, least(part.upper_end, moves_at));
            END IF;
        END LOOP;
        EXECUTE format('ALTER TABLE %I DETACH PARTITION %I', history, history || '_default');
        SELECT conname INTO STRICT key FROM pg_constraint WHERE conrelid = history::regclass AND contype = 'p';
        EXECUTE format('ALTER TABLE %I DROP CONSTRAINT %I', history, key);
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I DEFAULT', history, history || '_default');
        FOR n IN 1 .. cardinality(parts) LOOP
            EXECUTE parts[n];
        END LOOP;

        -- By time first, then by user: the last stretch of time has no end.
        EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%L) TO (MAXVALUE) PARTITION BY HASH (user_id)',
            history || '_shards', history, moves_at);
        FOR n IN 0 .. shards - 1 LOOP
            EXECUTE format('CREATE FOREIGN TABLE %I PARTITION OF %I FOR VALUES WITH (MODULUS %s, REMAINDER %s) SERVER %I OPTIONS (schema_name %L, table_name %L)',
                history || '_shard_' || n, history || '_shards', shards, n, 'history_' || n, current_schema(), history);
        END LOOP;
    END LOOP;
END
$$;
