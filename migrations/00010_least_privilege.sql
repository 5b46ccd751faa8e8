-- A worker that owns nothing: making and dropping partitions, the only thing that
-- takes the owner of the histories, is done with the owner's rights by whom the
-- owner lets do it.

-- +goose Up

-- Whoever calls a function that has another's rights must not be able to lead it
-- to tables of his own: pg_temp, which otherwise comes first, comes last. That
-- holds for the functions that it is made of, too.
-- +goose StatementBegin
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY[
        'history_partitions', 'history_has_rows', 'add_history_partition', 'drop_unfit_history_partitions',
        'make_history_partitions', 'drop_history_partitions'
    ] LOOP
        EXECUTE format('ALTER FUNCTION %I SET search_path = %I, pg_temp', name, current_schema());
    END LOOP;
END
$$;
-- +goose StatementEnd
ALTER FUNCTION make_history_partitions SECURITY DEFINER;
ALTER FUNCTION drop_history_partitions SECURITY DEFINER;

-- Everybody may call a new function, unless told otherwise.
REVOKE EXECUTE ON FUNCTION make_history_partitions FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION drop_history_partitions FROM PUBLIC;

-- +goose Down

GRANT EXECUTE ON FUNCTION drop_history_partitions TO PUBLIC;
GRANT EXECUTE ON FUNCTION make_history_partitions TO PUBLIC;
ALTER FUNCTION drop_history_partitions SECURITY INVOKER;
ALTER FUNCTION make_history_partitions SECURITY INVOKER;
ALTER FUNCTION drop_history_partitions SET search_path FROM CURRENT;
ALTER FUNCTION make_history_partitions SET search_path FROM CURRENT;
ALTER FUNCTION drop_unfit_history_partitions SET search_path FROM CURRENT;
ALTER FUNCTION add_history_partition SET search_path FROM CURRENT;
ALTER FUNCTION history_has_rows SET search_path FROM CURRENT;
ALTER FUNCTION history_partitions SET search_path FROM CURRENT;
