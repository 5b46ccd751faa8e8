-- Local days of users, computed from sessions' stretches or rolled up, and the reports
-- made from them.
--
-- Functions written BEGIN ATOMIC or RETURN bind their names when they are created,
-- whatever the caller's search_path is. Unlike functions that SET search_path they can be
-- inlined by the planner.

-- +goose Up

CREATE FUNCTION day_start(day date, tz text) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN NOT isfinite(day) THEN day::timestamp AT TIME ZONE tz ELSE (
    -- Postgres takes the second of two midnights, and the end of the time left out
    -- for a missing one. The first is the midnight by the offset of half a day before.
    SELECT CASE WHEN first.at AT TIME ZONE tz = day::timestamp THEN first.at ELSE second.at END
    FROM (SELECT day::timestamp AT TIME ZONE tz AS at) AS second
    CROSS JOIN LATERAL (SELECT second.at - interval '12 hours' AS at) AS before
    CROSS JOIN LATERAL (
        SELECT (day::timestamp - (before.at AT TIME ZONE tz - before.at AT TIME ZONE 'UTC')) AT TIME ZONE 'UTC' AS at
    ) AS first
) END;
COMMENT ON FUNCTION day_start IS 'When a local day of the time zone tz begins: its first midnight where clocks that are set back repeat it, and the end of the time left out where clocks that are set forward skip it.';

CREATE TABLE presence_day (
    app_id         smallint         NOT NULL REFERENCES app,
    user_id        text COLLATE "C" NOT NULL,
    day            date             NOT NULL,
    online_seconds double precision NOT NULL,
    sessions       bigint           NOT NULL,
    first_online   timestamptz      NOT NULL,
    last_online    timestamptz      NOT NULL,
    PRIMARY KEY (app_id, day, user_id)
);
COMMENT ON TABLE presence_day IS 'The rows of presence_daily of closed days in one time zone, kept so that reports need not go through the history. Rows later than presence_rollup.until_day do not count.';
COMMENT ON COLUMN presence_day.app_id IS 'The app.';
COMMENT ON COLUMN presence_day.user_id IS 'IM user id.';
COMMENT ON COLUMN presence_day.day IS 'Local day in the zone of presence_rollup.';
COMMENT ON COLUMN presence_day.online_seconds IS 'Estimated time online, in seconds, outside of gaps.';
COMMENT ON COLUMN presence_day.sessions IS 'Sessions that touch the day.';
COMMENT ON COLUMN presence_day.first_online IS 'Estimated beginning of the first of them, not before the day''s.';
COMMENT ON COLUMN presence_day.last_online IS 'Estimated end of the last of them, not after the day''s.';

CREATE TABLE presence_rollup (
    app_id     smallint       PRIMARY KEY REFERENCES app,
    zone       text           NOT NULL,
    until_day  date           NOT NULL,
    kept_from  timestamptz    NOT NULL,
    seen_until timestamptz    NOT NULL,
    gaps       tstzmultirange NOT NULL,
    first_at   timestamptz    NOT NULL
);
COMMENT ON TABLE presence_rollup IS 'How far presence_day goes: one row per app.';
COMMENT ON COLUMN presence_rollup.app_id IS 'The app.';
COMMENT ON COLUMN presence_rollup.zone IS 'Time zone of the days: report.timezone of the configuration.';
COMMENT ON COLUMN presence_rollup.until_day IS 'The last day rolled up.';
COMMENT ON COLUMN presence_rollup.kept_from IS 'Earlier history may have been dropped: days that began before stay as they are, in the zone that they were made in.';
COMMENT ON COLUMN presence_rollup.seen_until IS 'All history observed before it is rolled up; later rows are read again, in case they reach back into days that are rolled up.';
COMMENT ON COLUMN presence_rollup.gaps IS 'The gaps that have been taken into account.';
COMMENT ON COLUMN presence_rollup.first_at IS 'When the app''s first complete presence run was started, known beyond retention.';

-- A slot is a day, a part of a day between gaps, or a gap. Binary search finds the slots
-- of a stretch; nearly always it has only one. The function returns one row per app, so
-- that no rows have to be joined to each stretch and the planner does not underestimate
-- the number of stretches.
-- +goose StatementBegin
CREATE FUNCTION presence_slots(from_day date, to_day date, tz text, beyond_rollup boolean, of_any_zone boolean)
RETURNS TABLE (app_id smallint, begins timestamptz, bounds timestamptz[], days date[])
LANGUAGE sql STABLE PARALLEL SAFE ROWS 10 -- of one, each app would read the history
SET search_path FROM CURRENT
AS $$
    WITH span AS (
        SELECT a.app_id, d.first_day, day_start(d.first_day, tz) AS begins, day_start(to_day + 1, tz) AS ends
        FROM app AS a
        LEFT JOIN presence_rollup AS r ON r.app_id = a.app_id AND beyond_rollup AND (r.zone = tz OR of_any_zone)
        CROSS JOIN LATERAL (
            -- The day of tz in which the first day begins that is not rolled up.
            SELECT greatest(from_day, CASE
                WHEN r.zone = tz THEN least(r.until_day + 1, (as_of() AT TIME ZONE tz)::date)
                WHEN r.zone IS NOT NULL THEN (day_start(least(r.until_day + 1, (as_of() AT TIME ZONE r.zone)::date), r.zone) AT TIME ZONE tz)::date
            END) AS first_day
        ) AS d
        WHERE d.first_day <= to_day
    ), bound AS (
        SELECT s.app_id, day_start(d.day, tz) AS at
        FROM span AS s
        CROSS JOIN LATERAL (SELECT s.first_day + n AS day FROM generate_series(0, to_day + 1 - s.first_day) AS n) AS d
        UNION
        SELECT s.app_id, b.at
        FROM span AS s
        JOIN presence_gaps() AS g ON g.app_id = s.app_id
        CROSS JOIN LATERAL (VALUES (g.started_at), (g.ended_at)) AS b (at)
        WHERE b.at > s.begins AND b.at < s.ends
    )
    SELECT b.app_id, min(b.at), array_agg(b.at ORDER BY b.at),
           array_agg(CASE WHEN g.app_id IS NULL THEN (b.at AT TIME ZONE tz)::date ELSE 'infinity' END ORDER BY b.at)
    FROM bound AS b
    LEFT JOIN presence_gaps() AS g ON g.app_id = b.app_id AND b.at >= g.started_at AND b.at < g.ended_at
    GROUP BY b.app_id
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION presence_slots IS 'The local days from from_day to to_day, cut at gaps: one row per app. Part n lies from bounds[n] to bounds[n + 1] and belongs to days[n], which is infinity in a gap; there is a bound more than parts. begins is the first bound. With beyond_rollup only days that presence_day does not cover in tz; with of_any_zone also if it has days of another zone.';

-- +goose StatementBegin
CREATE FUNCTION presence_daily_from_history(from_day date, to_day date, tz text, beyond_rollup boolean, of_any_zone boolean) RETURNS SETOF presence_day
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    -- Intervals are summed up, not seconds: exact in whatever order.
    SELECT t.app_id, t.user_id, t.day,
           date_part('epoch', sum(least(t.ended, t.ends) - greatest(t.begun, t.begins))), count(*),
           min(greatest(t.begun, t.begins)), max(least(t.ended, t.ends))
    FROM (
        SELECT e.app_id, e.user_id, e.begun, e.ended, b.days[slot] AS day, b.bounds[slot] AS begins, b.bounds[slot + 1] AS ends
        FROM presence_slots(from_day, to_day, tz, beyond_rollup, of_any_zone) AS b
        JOIN presence_ended_stretch AS e USING (app_id)
        CROSS JOIN LATERAL generate_series(greatest(width_bucket(e.begun, b.bounds), 1), least(width_bucket(e.ended, b.bounds), cardinality(b.days) - 1)) AS slot
        -- For the index, and to leave out partitions.
        WHERE e.ended_by >= day_start(from_day, tz) AND e.begun_from < day_start(to_day + 1, tz)
          AND e.ended_by >= (SELECT min(f.begins) FROM presence_slots(from_day, to_day, tz, beyond_rollup, of_any_zone) AS f)
        UNION ALL
        SELECT o.app_id, o.user_id, o.begun, o.ended, b.days[slot] AS day, b.bounds[slot] AS begins, b.bounds[slot + 1] AS ends
        FROM presence_slots(from_day, to_day, tz, beyond_rollup, of_any_zone) AS b
        JOIN presence_open_stretch AS o USING (app_id)
        CROSS JOIN LATERAL generate_series(greatest(width_bucket(o.begun, b.bounds), 1), least(width_bucket(o.ended, b.bounds), cardinality(b.days) - 1)) AS slot
    ) AS t
    WHERE t.day < 'infinity'
      AND (greatest(t.begun, t.begins) < least(t.ended, t.ends) OR t.begun = t.ended)
    GROUP BY t.app_id, t.user_id, t.day;
END;
-- +goose StatementEnd
COMMENT ON FUNCTION presence_daily_from_history IS 'The rows of presence_daily computed from the history. With beyond_rollup only of days that presence_day does not cover in tz; with of_any_zone also if it has days of another zone.';

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

-- A type of its own, because the result columns of a function have no collation: an index
-- on user_id could not be used.
CREATE TYPE presence_daily_row AS (
    app_id         smallint,
    app            text,
    user_id        text COLLATE "C",
    day            date,
    online_seconds double precision,
    sessions       bigint,
    first_online   timestamptz,
    last_online    timestamptz
);
COMMENT ON TYPE presence_daily_row IS 'A row of presence_daily.';
COMMENT ON COLUMN presence_daily_row.app_id IS 'The app.';
COMMENT ON COLUMN presence_daily_row.app IS 'Its name.';
COMMENT ON COLUMN presence_daily_row.user_id IS 'IM user id.';
COMMENT ON COLUMN presence_daily_row.day IS 'The local day.';
COMMENT ON COLUMN presence_daily_row.online_seconds IS 'Estimated time online, in seconds, outside of gaps.';
COMMENT ON COLUMN presence_daily_row.sessions IS 'Sessions that touch the day.';
COMMENT ON COLUMN presence_daily_row.first_online IS 'Estimated beginning of the first of them, not before the day''s.';
COMMENT ON COLUMN presence_daily_row.last_online IS 'Estimated end of the last of them, not after the day''s.';

-- +goose StatementBegin
CREATE FUNCTION presence_daily(from_day date, to_day date, tz text) RETURNS SETOF presence_daily_row
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT d.app_id, a.name, d.user_id, d.day, d.online_seconds, d.sessions, d.first_online, d.last_online
    FROM (
        SELECT p.app_id, p.user_id, p.day, p.online_seconds, p.sessions, p.first_online, p.last_online
        FROM presence_day AS p
        JOIN presence_rollup AS r USING (app_id)
        WHERE r.zone = tz AND p.day BETWEEN from_day AND to_day
          AND p.day <= r.until_day AND p.day < (as_of() AT TIME ZONE tz)::date
        UNION ALL
        SELECT p.app_id, p.user_id, p.day, p.online_seconds, p.sessions, p.first_online, p.last_online
        FROM presence_daily_from_history(from_day, to_day, tz, true, false) AS p
    ) AS d
    JOIN app AS a USING (app_id);
END;
-- +goose StatementEnd
COMMENT ON FUNCTION presence_daily IS 'Users'' days from from_day to to_day, both included, local to the time zone tz: one row per app, user and day with a session. online_seconds: estimated time online of the day, without gaps; sessions: how many touch the day; first_online, last_online: estimated beginning and end of the first and last, within the day. Quick when tz is report.timezone of the configuration, else computed from the history.';

-- A user's days are the bits of a mask that begins 29 days before from_day. The days on
-- which the user counts for the last 7 or 30 days are the same mask, shifted and combined.
-- This needs no sort of all users' days, and counts bits at the end.
--
-- A day that is rolled up in another zone touches two days of tz. The user was online at
-- its first_online and just before its last_online, which shows in which of the two. Where
-- it touches three days, because it has 25 hours, the history decides about the middle
-- one. The bits before the first day and after the last catch what lies outside.
-- +goose StatementBegin
CREATE FUNCTION active_users_within(from_day date, to_day date, tz text)
RETURNS TABLE (app_id smallint, app text, day date, daily bigint, weekly bigint, monthly bigint, observed_seconds double precision)
LANGUAGE sql STABLE PARALLEL SAFE
SET search_path FROM CURRENT
SET jit = off -- it takes longer than the query
SET enable_sort = off -- the planner takes the rows for few, and sorting them for cheap
SET work_mem = '64MB' -- for hashing
AS $$
    WITH bound AS MATERIALIZED (
        SELECT array_agg(day_start(from_day - 29 + n, tz) ORDER BY n) AS starts
        FROM generate_series(0, to_day - from_day + 30) AS n
    ), middle AS MATERIALIZED ( -- before anything is read of the history
        SELECT r.app_id, m.no, d.day
        FROM presence_rollup AS r
        CROSS JOIN generate_series(1, to_day - from_day + 30) AS m (no)
        CROSS JOIN LATERAL (SELECT from_day - 30 + m.no AS day) AS d
        CROSS JOIN LATERAL (SELECT (day_start(d.day, tz) AT TIME ZONE r.zone)::date AS day) AS rolled
        WHERE r.zone <> tz
          AND day_start(rolled.day, r.zone) < day_start(d.day, tz) AND day_start(d.day + 1, tz) < day_start(rolled.day + 1, r.zone)
    ), mask AS (
        SELECT u.app_id, bit_or(set_bit(set_bit(none.days, u.first_no, 1), u.last_no, 1)) AS days
        FROM (
            SELECT p.app_id, p.user_id, p.day - from_day + 30 AS first_no, p.day - from_day + 30 AS last_no
            FROM presence_day AS p
            JOIN presence_rollup AS r USING (app_id)
            WHERE r.zone = tz AND p.day BETWEEN from_day - 29 AND to_day
              AND p.day <= r.until_day AND p.day < (as_of() AT TIME ZONE tz)::date
            UNION ALL
            SELECT p.app_id, p.user_id, width_bucket(p.first_online, b.starts),
                   width_bucket(greatest(p.first_online, p.last_online - interval '1 microsecond'), b.starts)
            FROM presence_day AS p
            JOIN presence_rollup AS r USING (app_id)
            CROSS JOIN bound AS b
            WHERE r.zone <> tz AND p.day BETWEEN from_day - 31 AND to_day + 2
              AND p.day <= r.until_day AND p.day < (as_of() AT TIME ZONE r.zone)::date
            UNION ALL
            SELECT p.app_id, p.user_id, m.no, m.no
            FROM middle AS m
            CROSS JOIN LATERAL presence_daily_planned(m.day, m.day, tz, false, false) AS p
            WHERE p.app_id = m.app_id
            UNION ALL
            SELECT p.app_id, p.user_id, p.day - from_day + 30, p.day - from_day + 30
            FROM presence_daily_planned(from_day - 29, to_day, tz, true, true) AS p
        ) AS u
        CROSS JOIN (SELECT repeat('0', to_day - from_day + 32)::varbit AS days) AS none
        GROUP BY u.app_id, u.user_id
    ), active AS MATERIALIZED (
        SELECT m.app_id, m.days, d4.days | (d4.days >> 3) AS days7, d16.days | (d16.days >> 14) AS days30
        FROM mask AS m
        CROSS JOIN LATERAL (SELECT m.days | (m.days >> 1) AS days OFFSET 0) AS d2
        CROSS JOIN LATERAL (SELECT d2.days | (d2.days >> 2) AS days OFFSET 0) AS d4
        CROSS JOIN LATERAL (SELECT d4.days | (d4.days >> 4) AS days OFFSET 0) AS d8
        CROSS JOIN LATERAL (SELECT d8.days | (d8.days >> 8) AS days OFFSET 0) AS d16
    ), users AS (
        SELECT a.app_id, n, sum(get_bit(a.days, n + 30)) AS daily, sum(get_bit(a.days7, n + 30)) AS weekly, sum(get_bit(a.days30, n + 30)) AS monthly
        FROM active AS a
        CROSS JOIN generate_series(0, to_day - from_day) AS n
        GROUP BY a.app_id, n
    ), day AS (
        SELECT o.app_id, o.app, from_day + n AS day, n,
               greatest(day_start(from_day + n, tz), f.first_at) AS begins,
               least(day_start(from_day + n + 1, tz), o.observed_until) AS ends
        FROM sync_observed AS o
        LEFT JOIN presence_rollup AS r USING (app_id)
        CROSS JOIN LATERAL (SELECT least(r.first_at, o.first_started_at) AS first_at) AS f
        CROSS JOIN generate_series(0, to_day - from_day) AS n
        WHERE o.kind = 'presence'
          AND from_day + n BETWEEN (f.first_at AT TIME ZONE tz)::date AND (as_of() AT TIME ZONE tz)::date
    )
    SELECT d.app_id, d.app, d.day, coalesce(u.daily, 0), coalesce(u.weekly, 0), coalesce(u.monthly, 0),
           greatest(date_part('epoch', d.ends - d.begins), 0) - g.seconds
    FROM day AS d
    LEFT JOIN users AS u USING (app_id, n)
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(greatest(date_part('epoch', least(g.ended_at, d.ends) - greatest(g.started_at, d.begins)), 0)), 0) AS seconds
        FROM presence_gaps() AS g
        WHERE g.app_id = d.app_id AND g.started_at < d.ends AND g.ended_at > d.begins
    ) AS g
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION active_users_within IS 'active_users of days of which something can be known: it costs as much for each day.';

-- +goose StatementBegin
CREATE FUNCTION active_users(from_day date, to_day date, tz text)
RETURNS TABLE (app_id smallint, app text, day date, daily bigint, weekly bigint, monthly bigint, observed_seconds double precision)
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT a.app_id, a.app, a.day, a.daily, a.weekly, a.monthly, a.observed_seconds
    FROM (
        SELECT greatest(from_day, (min(least(r.first_at, o.first_started_at)) AT TIME ZONE tz)::date) AS first_day,
               least(to_day, (as_of() AT TIME ZONE tz)::date) AS last_day
        FROM sync_observed AS o
        LEFT JOIN presence_rollup AS r USING (app_id)
        WHERE o.kind = 'presence'
    ) AS known
    CROSS JOIN LATERAL active_users_within(known.first_day, known.last_day, tz) AS a
    WHERE known.first_day <= known.last_day;
END;
-- +goose StatementEnd
COMMENT ON FUNCTION active_users IS 'Active users from from_day to to_day, both included, days local to the time zone tz: one row per app and day, from the app''s first complete run until as_of(), days without users included. daily, weekly, monthly: distinct users who were online in the day, in the 7 days and in the 30 days that end with it; observed_seconds: how much of the day was observed, outside of gaps. Quick when tz is report.timezone of the configuration, else computed from the history.';

-- +goose StatementBegin
CREATE FUNCTION roll_up_presence(of_app smallint, in_zone text, history_from timestamptz) RETURNS boolean
LANGUAGE plpgsql
SET search_path FROM CURRENT
SET plan_cache_mode = force_custom_plan
SET jit = off
SET work_mem = '64MB'
AS $$
DECLARE
    most_days CONSTANT int := 7; -- in one transaction
    done       presence_rollup;
    observed   sync_observed;
    first_day  date; -- of the app
    kept_day   date; -- the first whose history is all there
    closed_day date; -- the last that no later run can put into a gap
    until_time timestamptz; -- end of the last day rolled up
    look_again timestamptz;
    gaps_now   tstzmultirange;
    changed    tstzmultirange;
    late_users text[];
    late_day   date;
    last_day   date;
    as_of_then CONSTANT text := coalesce(current_setting('syncer.as_of', true), '');
BEGIN
    -- One session at a time; a second one has nothing to do.
    IF NOT lock_for_maintenance('presence_rollup') THEN
        RETURN false;
    END IF;
    SELECT o.* INTO observed FROM sync_observed AS o WHERE o.app_id = of_app AND o.kind = 'presence';
    IF NOT FOUND THEN
        RETURN false; -- no complete run yet
    END IF;
    -- Closed days are the same whatever the present is. (SET in the function's head
    -- would take a superuser to make it.)
    PERFORM set_config('syncer.as_of', '9999-12-31 00:00:00+00', true);
    SELECT r.* INTO done FROM presence_rollup AS r WHERE r.app_id = of_app;
    done.first_at := least(done.first_at, observed.first_started_at);
    done.kept_from := greatest(done.kept_from, history_from);
    SELECT (least(a.created_at, done.first_at, min(u.started_at)) AT TIME ZONE in_zone)::date INTO first_day
    FROM app AS a
    JOIN sync_run AS u USING (app_id)
    WHERE a.app_id = of_app
    GROUP BY a.app_id;
    kept_day := ((done.kept_from - interval '1 microsecond') AT TIME ZONE in_zone)::date + 1;

    -- All that is read further down is read after this: what is written meanwhile
    -- is found the next time, because its run is still going or comes later. The
    -- minute is for clocks that do not agree.
    SELECT coalesce(min(u.started_at), observed.observed_until) - interval '1 minute' INTO look_again
    FROM sync_run AS u
    WHERE u.app_id = of_app AND u.kind = 'presence' AND u.status = 'running';
    SELECT (max(u.observed_from) AT TIME ZONE in_zone)::date - 1 INTO closed_day
    FROM sync_run AS u
    WHERE u.app_id = of_app AND u.kind = 'presence' AND u.complete;
    SELECT coalesce(range_agg(tstzrange(g.started_at, g.ended_at)), '{}') INTO gaps_now
    FROM observation_gap AS g
    WHERE g.app_id = of_app AND g.kind = 'presence';

    IF done.app_id IS NULL THEN
        done.app_id := of_app;
        done.zone := in_zone;
        done.until_day := first_day - 1;
    ELSE
        -- A changed gap, or another zone: everything from there on is done again,
        -- as far as its history is there.
        until_time := day_start(done.until_day + 1, done.zone);
        changed := ((done.gaps + gaps_now) - (done.gaps * gaps_now)) * tstzmultirange(tstzrange(NULL, until_time));
        IF done.zone <> in_zone THEN
            changed := tstzmultirange(tstzrange(NULL, NULL));
            done.zone := in_zone;
        END IF;
        changed := changed * tstzmultirange(tstzrange(day_start(kept_day, in_zone), NULL));
        IF NOT isempty(changed) THEN
            done.until_day := least(done.until_day, greatest((lower(changed) AT TIME ZONE in_zone)::date, kept_day, first_day) - 1);
        END IF;

        -- Users of whom something came to light that happened on a day rolled up:
        -- mostly users who had failed, or of a run that was resumed.
        until_time := day_start(done.until_day + 1, in_zone);
        SELECT array_agg(DISTINCT h.user_id), (min(coalesce(h.not_before, h.observed_at)) AT TIME ZONE in_zone)::date INTO late_users, late_day
        FROM presence_history AS h
        WHERE h.app_id = of_app AND h.observed_at >= done.seen_until AND coalesce(h.not_before, h.observed_at) < until_time
          AND (h.prev_state IS NOT DISTINCT FROM 'online') <> (h.state = 'online');
        IF late_users IS NOT NULL THEN
            late_day := greatest(late_day, kept_day);
            DELETE FROM presence_day AS p
            USING unnest(late_users) AS l (user_id), generate_series(0, done.until_day - late_day) AS n
            WHERE p.app_id = of_app AND p.day = late_day + n AND p.user_id = l.user_id;
            INSERT INTO presence_day (app_id, user_id, day, online_seconds, sessions, first_online, last_online)
            SELECT p.app_id, p.user_id, p.day, p.online_seconds, p.sessions, p.first_online, p.last_online
            FROM presence_daily_from_history(late_day, done.until_day, in_zone, false, false) AS p
            WHERE p.app_id = of_app AND p.user_id = ANY (late_users);
        END IF;
    END IF;

    last_day := least(done.until_day + most_days, closed_day);
    IF last_day > done.until_day THEN
        DELETE FROM presence_day AS p
        WHERE p.app_id = of_app AND p.day > done.until_day AND p.day <= last_day;
        INSERT INTO presence_day (app_id, user_id, day, online_seconds, sessions, first_online, last_online)
        SELECT p.app_id, p.user_id, p.day, p.online_seconds, p.sessions, p.first_online, p.last_online
        FROM presence_daily_from_history(done.until_day + 1, last_day, in_zone, false, false) AS p
        WHERE p.app_id = of_app
        ORDER BY p.day, p.user_id;
        done.until_day := last_day;
    END IF;

    INSERT INTO presence_rollup (app_id, zone, until_day, kept_from, seen_until, gaps, first_at)
    VALUES (done.app_id, done.zone, done.until_day, done.kept_from, look_again, gaps_now, done.first_at)
    ON CONFLICT (app_id) DO UPDATE
    SET zone = excluded.zone, until_day = excluded.until_day, kept_from = excluded.kept_from,
        seen_until = excluded.seen_until, gaps = excluded.gaps, first_at = excluded.first_at;
    PERFORM set_config('syncer.as_of', as_of_then, true);
    RETURN closed_day > done.until_day;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION roll_up_presence IS 'Brings presence_day of an app up to the last closed day, a week at most, days in the given zone, and does those again of which something new has come to light. Days that began before history_from stay as they are. Returns whether there is more to do.';

-- +goose Down

DROP FUNCTION roll_up_presence;
DROP FUNCTION active_users;
DROP FUNCTION active_users_within;
DROP FUNCTION presence_daily;
DROP TYPE presence_daily_row;
DROP FUNCTION presence_daily_planned;
DROP FUNCTION presence_daily_from_history;
DROP FUNCTION presence_slots;
DROP TABLE presence_rollup;
DROP TABLE presence_day;
DROP FUNCTION day_start;
