-- Days of the history that active_users needs are planned with their dates, and none is
-- read before it is known to be needed: it took minutes for 50,000 users and a month.

-- +goose Up

-- +goose StatementBegin
CREATE FUNCTION presence_daily_planned(from_day date, to_day date, tz text, beyond_rollup boolean, of_any_zone boolean) RETURNS SETOF presence_day
LANGUAGE plpgsql STABLE PARALLEL SAFE ROWS 100000
SET search_path FROM CURRENT
SET plan_cache_mode = force_custom_plan
AS $$
BEGIN
    RETURN QUERY
    SELECT p.app_id, p.user_id, p.day, p.online_seconds, p.sessions, p.first_online, p.last_online
    FROM presence_daily_from_history(from_day, to_day, tz, beyond_rollup, of_any_zone) AS p;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION presence_daily_planned IS 'presence_daily_from_history, planned for the days given. The plan of a function in SQL knows no arguments: it would compute when the days begin for each row of the history.';

-- +goose StatementBegin
DO $do$
DECLARE
    change record;
    body   text := pg_get_functiondef(format('%I.active_users_within', current_schema())::regproc);
BEGIN
    FOR change IN
        SELECT * FROM (VALUES
            ($before$            SELECT p.app_id, p.user_id, m.no, m.no
            FROM presence_rollup AS r
            CROSS JOIN generate_series(1, to_day - from_day + 30) AS m (no)
            CROSS JOIN LATERAL (SELECT from_day - 30 + m.no AS day) AS d
            CROSS JOIN LATERAL (SELECT (day_start(d.day, tz) AT TIME ZONE r.zone)::date AS day) AS rolled
            CROSS JOIN LATERAL presence_daily_from_history(d.day, d.day, tz, false, false) AS p
            WHERE r.zone <> tz AND p.app_id = r.app_id
              AND day_start(rolled.day, r.zone) < day_start(d.day, tz) AND day_start(d.day + 1, tz) < day_start(rolled.day + 1, r.zone)
$before$,
             $after$            SELECT p.app_id, p.user_id, m.no, m.no
            FROM middle AS m
            CROSS JOIN LATERAL presence_daily_planned(m.day, m.day, tz, false, false) AS p
            WHERE p.app_id = m.app_id
$after$),
            ($before$    ), mask AS (
$before$,
             $after$    ), middle AS MATERIALIZED ( -- before anything is read of the history
        SELECT r.app_id, m.no, d.day
        FROM presence_rollup AS r
        CROSS JOIN generate_series(1, to_day - from_day + 30) AS m (no)
        CROSS JOIN LATERAL (SELECT from_day - 30 + m.no AS day) AS d
        CROSS JOIN LATERAL (SELECT (day_start(d.day, tz) AT TIME ZONE r.zone)::date AS day) AS rolled
        WHERE r.zone <> tz
          AND day_start(rolled.day, r.zone) < day_start(d.day, tz) AND day_start(d.day + 1, tz) < day_start(rolled.day + 1, r.zone)
    ), mask AS (
$after$),
            ($before$presence_daily_from_history(from_day - 29, to_day, tz, true, true)$before$,
             $after$presence_daily_planned(from_day - 29, to_day, tz, true, true)$after$)
        ) AS c (before, after)
    LOOP
        IF strpos(body, change.before) = 0 THEN
            RAISE EXCEPTION 'function active_users_within is not as the migrations before left it';
        END IF;
        body := replace(body, change.before, change.after);
    END LOOP;
    EXECUTE body;
END
$do$;
-- +goose StatementEnd

-- +goose Down

-- +goose StatementBegin
DO $do$
DECLARE
    change record;
    body   text := pg_get_functiondef(format('%I.active_users_within', current_schema())::regproc);
BEGIN
    FOR change IN
        SELECT * FROM (VALUES
            ($before$            SELECT p.app_id, p.user_id, m.no, m.no
            FROM middle AS m
            CROSS JOIN LATERAL presence_daily_planned(m.day, m.day, tz, false, false) AS p
            WHERE p.app_id = m.app_id
$before$,
             $after$            SELECT p.app_id, p.user_id, m.no, m.no
            FROM presence_rollup AS r
            CROSS JOIN generate_series(1, to_day - from_day + 30) AS m (no)
            CROSS JOIN LATERAL (SELECT from_day - 30 + m.no AS day) AS d
            CROSS JOIN LATERAL (SELECT (day_start(d.day, tz) AT TIME ZONE r.zone)::date AS day) AS rolled
            CROSS JOIN LATERAL presence_daily_from_history(d.day, d.day, tz, false, false) AS p
            WHERE r.zone <> tz AND p.app_id = r.app_id
              AND day_start(rolled.day, r.zone) < day_start(d.day, tz) AND day_start(d.day + 1, tz) < day_start(rolled.day + 1, r.zone)
$after$),
            ($before$    ), middle AS MATERIALIZED ( -- before anything is read of the history
        SELECT r.app_id, m.no, d.day
        FROM presence_rollup AS r
        CROSS JOIN generate_series(1, to_day - from_day + 30) AS m (no)
        CROSS JOIN LATERAL (SELECT from_day - 30 + m.no AS day) AS d
        CROSS JOIN LATERAL (SELECT (day_start(d.day, tz) AT TIME ZONE r.zone)::date AS day) AS rolled
        WHERE r.zone <> tz
          AND day_start(rolled.day, r.zone) < day_start(d.day, tz) AND day_start(d.day + 1, tz) < day_start(rolled.day + 1, r.zone)
    ), mask AS (
$before$,
             $after$    ), mask AS (
$after$),
            ($before$presence_daily_planned(from_day - 29, to_day, tz, true, true)$before$,
             $after$presence_daily_from_history(from_day - 29, to_day, tz, true, true)$after$)
        ) AS c (before, after)
    LOOP
        IF strpos(body, change.before) = 0 THEN
            RAISE EXCEPTION 'function active_users_within is not as the migrations before left it';
        END IF;
        body := replace(body, change.before, change.after);
    END LOOP;
    EXECUTE body;
END
$do$;
-- +goose StatementEnd
DROP FUNCTION presence_daily_planned;
