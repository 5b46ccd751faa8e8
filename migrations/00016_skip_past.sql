-- Times that nobody observed get no partitions: after an absence, or under a clock that
-- is ahead, there would be hundreds of empty ones.

-- +goose Up

-- +goose StatementBegin
DO $$
DECLARE
    before CONSTANT text := $old$AND made < most LOOP
$old$;
    after  CONSTANT text := $new$AND made < most LOOP
                    -- Only rows that wait in the default partition are older than since.
                    EXECUTE format('SELECT min(observed_at) FROM %I WHERE observed_at >= %L AND observed_at < %L',
                        history || '_default', lower_end, least(next.lower_end, since)) INTO oldest;
                    lower_end := greatest(lower_end, date_trunc(period, least(oldest, since)));
                    EXIT WHEN lower_end >= least(next.lower_end, until);
$new$;
    body   text := pg_get_functiondef(format('%I.make_history_partitions', current_schema())::regproc);
BEGIN
    IF strpos(body, before) = 0 THEN
        RAISE EXCEPTION 'function make_history_partitions is not as the migrations before left it';
    END IF;
    EXECUTE replace(body, before, after);
END
$$;
-- +goose StatementEnd

-- +goose Down

-- +goose StatementBegin
DO $$
DECLARE
    before CONSTANT text := $old$AND made < most LOOP
$old$;
    after  CONSTANT text := $new$AND made < most LOOP
                    -- Only rows that wait in the default partition are older than since.
                    EXECUTE format('SELECT min(observed_at) FROM %I WHERE observed_at >= %L AND observed_at < %L',
                        history || '_default', lower_end, least(next.lower_end, since)) INTO oldest;
                    lower_end := greatest(lower_end, date_trunc(period, least(oldest, since)));
                    EXIT WHEN lower_end >= least(next.lower_end, until);
$new$;
    body   text := pg_get_functiondef(format('%I.make_history_partitions', current_schema())::regproc);
BEGIN
    IF strpos(body, after) = 0 THEN
        RAISE EXCEPTION 'function make_history_partitions is not as the migrations before left it';
    END IF;
    EXECUTE replace(body, after, before);
END
$$;
-- +goose StatementEnd
