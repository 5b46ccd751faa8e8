-- What analysts ask for: when each user was last seen online, kept in the snapshot (since is
-- the start of the state, so going from push_online to offline resets it, and the history
-- takes long to ask); stretches online by platform; and an error for an app that is not there.

-- +goose Up

ALTER TABLE presence_snapshot
    ADD COLUMN last_online_after timestamptz,
    ADD COLUMN last_online_at timestamptz,
    ADD CHECK ((last_online_after IS NULL) = (last_online_at IS NULL)),
    ADD CHECK (last_online_after <= last_online_at);
COMMENT ON COLUMN presence_snapshot.last_online_after IS 'The user was last known to be online at this time: the last stretch online ended after it and no later than last_online_at. Null while the user is online, and if not seen online since first seen; a user who was rejected or removed is first seen again.';
COMMENT ON COLUMN presence_snapshot.last_online_at IS 'The last stretch online ended no later than this: when the first answer with another state arrived. Null if last_online_after is.';

-- The newest row that ends a stretch online, unless the user was first seen after it.
UPDATE presence_snapshot AS s
SET last_online_after = h.not_before, last_online_at = h.observed_at
FROM (
    SELECT DISTINCT ON (app_id, user_id) app_id, user_id, not_before, observed_at
    FROM presence_history
    WHERE prev_state IS NULL OR prev_state = 'online' AND state <> 'online'
    ORDER BY app_id, user_id, observed_at DESC
) AS h
WHERE h.app_id = s.app_id AND h.user_id = s.user_id AND h.not_before IS NOT NULL AND s.state <> 'online';

CREATE OR REPLACE VIEW presence_current AS
SELECT s.app_id, a.app, s.user_id, s.state, s.platforms, s.since_after, s.since,
       c.last_checked_at,
       f.user_id IS NOT NULL OR g.app_id IS NOT NULL OR o.app_id IS NULL AND s.asked_at + a.max_gap < as_of() AS stale,
       CASE WHEN s.state = 'online' THEN c.last_checked_at ELSE s.last_online_after END AS last_online_after,
       CASE WHEN s.state <> 'online' THEN s.last_online_at END AS last_online_at
FROM presence_snapshot AS s
JOIN app_patience AS a ON a.app_id = s.app_id AND a.kind = 'presence'
LEFT JOIN sync_observed AS o ON o.app_id = s.app_id AND o.kind = 'presence'
LEFT JOIN user_failure AS f ON f.app_id = s.app_id AND f.kind = 'presence' AND f.user_id = s.user_id
LEFT JOIN sync_gap AS g ON g.app_id = s.app_id AND g.kind = 'presence' AND g.ended_at IS NULL
CROSS JOIN LATERAL (
    SELECT greatest(s.asked_at, CASE WHEN f.user_id IS NOT NULL THEN f.known_at WHEN s.changed_at <= o.seen_since THEN o.seen_since END) AS last_checked_at
) AS c;
COMMENT ON COLUMN presence_current.last_online_after IS 'The user was last known to be online at this time; last_checked_at while online. Null: not seen online since first seen; a user who was rejected or removed is first seen again.';
COMMENT ON COLUMN presence_current.last_online_at IS 'The user stopped being online no later than this. Null while online, and if last_online_after is null.';

-- +goose StatementBegin
CREATE FUNCTION app_named(name text) RETURNS smallint
LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
SET search_path FROM CURRENT
AS $$
DECLARE
    found_id smallint;
BEGIN
    SELECT a.app_id INTO found_id FROM app AS a WHERE a.name = app_named.name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no app %', quote_literal(name)
            USING ERRCODE = 'undefined_object', HINT = 'Apps: ' || coalesce((SELECT string_agg(a.name, ', ' ORDER BY a.name) FROM app AS a), 'none yet') || '.';
    END IF;
    RETURN found_id;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION app_named IS 'The app_id of the app of a name; an error if there is no such app, where a comparison with the name would find no rows. Null if the name is null. In a query write (SELECT app_named(...)), so that it is called once.';

-- A stretch online is cut where the set of platforms changes, and the pieces with a platform
-- are put together again. The subquery reads the rows of one stretch by the primary key;
-- online_from and online_until are those of the stretch, so that a span of time leaves out
-- stretches before their rows are read.
CREATE VIEW presence_platform_stretch AS
SELECT s.app_id, s.user_id, p.platform, s.begun_from AS online_from, s.ended_by AS online_until,
       p.begun_after, p.begun_by, p.ended_after, p.ended_by, coalesce(p.begun_after, p.begun_by) AS begun_from,
       e.begun, greatest(e.begun, e.ended) AS ended, p.how
FROM (
    -- Joined with app for the primary key: the planner looks up no single rows behind a UNION ALL.
    SELECT a.app_id, s.user_id, s.begun_by, s.ended_after, s.ended_by, s.begun_from, s.ended, s.how
    FROM app AS a
    JOIN presence_ended_stretch AS s USING (app_id)
    UNION ALL
    SELECT a.app_id, s.user_id, s.begun_by, s.ended_after, s.ended_by, s.begun_from, s.ended, 'open'
    FROM app AS a
    JOIN presence_open_stretch AS s USING (app_id)
) AS s
CROSS JOIN LATERAL (
    SELECT i.platform, CASE WHEN bool_and(i.begun_after IS NOT NULL) THEN min(i.begun_after) END AS begun_after, min(i.begun_by) AS begun_by,
           CASE WHEN bool_or(i.next_by IS NULL) THEN s.ended_after ELSE max(i.next_after) END AS ended_after,
           CASE WHEN bool_or(i.next_by IS NULL) THEN s.ended_by ELSE max(i.next_by) END AS ended_by,
           CASE WHEN bool_or(i.next_by IS NULL) THEN s.how ELSE 'observed' END AS how
    FROM (
        SELECT m.platform, r.no - row_number() OVER (PARTITION BY m.platform ORDER BY r.no) AS island, r.next_after, r.next_by,
               -- What came before the first row is known only if it is the stretch's own.
               CASE WHEN r.no = 1 AND r.observed_at > s.begun_by THEN NULL ELSE r.not_before END AS begun_after, r.observed_at AS begun_by
        FROM (
            SELECT h.platforms, h.not_before, h.observed_at, row_number() OVER w AS no, lead(h.not_before) OVER w AS next_after, lead(h.observed_at) OVER w AS next_by
            FROM (
                SELECT h.platforms, h.not_before, h.observed_at
                FROM presence_history AS h
                WHERE h.app_id = s.app_id AND h.user_id = s.user_id AND h.observed_at >= s.begun_by AND h.observed_at < s.ended_by AND h.state = 'online'
                UNION ALL
                -- The newest row may have been dropped.
                SELECT n.platforms, NULL, n.changed_at
                FROM presence_snapshot AS n
                WHERE s.how = 'open' AND n.app_id = s.app_id AND n.user_id = s.user_id
                  AND NOT EXISTS (SELECT FROM presence_history AS h WHERE h.app_id = s.app_id AND h.user_id = s.user_id AND h.observed_at = n.changed_at)
            ) AS h
            WINDOW w AS (ORDER BY h.observed_at)
        ) AS r
        CROSS JOIN LATERAL jsonb_each_text(r.platforms) AS m (platform, mode)
        WHERE m.mode <> 'push_online'
    ) AS i
    GROUP BY i.platform, i.island
) AS p
CROSS JOIN LATERAL (
    SELECT coalesce(p.begun_after + make_interval(secs => date_part('epoch', p.begun_by - p.begun_after) / 2), p.begun_by) AS begun,
           CASE WHEN p.ended_by = s.ended_by THEN s.ended
                ELSE p.ended_after + make_interval(secs => date_part('epoch', p.ended_by - p.ended_after) / 2) END AS ended
) AS e;
COMMENT ON VIEW presence_platform_stretch IS 'Stretches of being online on a platform, not yet cut at gaps: one row per app, user, platform and stretch. presence_platform_session is what reports want.';
COMMENT ON COLUMN presence_platform_stretch.app_id IS 'The app.';
COMMENT ON COLUMN presence_platform_stretch.user_id IS 'IM user id.';
COMMENT ON COLUMN presence_platform_stretch.platform IS 'The platform; being reachable on it by push is not online.';
COMMENT ON COLUMN presence_platform_stretch.online_from IS 'The stretch online, on whatever platforms, that this one is part of did not begin earlier.';
COMMENT ON COLUMN presence_platform_stretch.online_until IS 'That stretch ended no later than this; infinity: it has not ended.';
COMMENT ON COLUMN presence_platform_stretch.begun_after IS 'It began after this time; null: the user was first seen on the platform, or the history before was dropped.';
COMMENT ON COLUMN presence_platform_stretch.begun_by IS 'It began no later than this.';
COMMENT ON COLUMN presence_platform_stretch.ended_after IS 'It lasted at least until then.';
COMMENT ON COLUMN presence_platform_stretch.ended_by IS 'It ended no later than this; infinity: it has not ended.';
COMMENT ON COLUMN presence_platform_stretch.begun_from IS 'begun_after, or begun_by where that is null: it did not begin earlier.';
COMMENT ON COLUMN presence_platform_stretch.begun IS 'Estimated beginning, as in presence_ended_stretch.';
COMMENT ON COLUMN presence_platform_stretch.ended IS 'Estimated end, as in presence_ended_stretch and presence_open_stretch.';
COMMENT ON COLUMN presence_platform_stretch.how IS 'observed, rejected or open, as ended_by in presence_session.';

-- The rules for gaps are those of presence_session.
CREATE VIEW presence_platform_session AS
SELECT s.app_id, a.app, s.user_id, s.platform, s.begun_after AS started_after, s.begun_by AS started_at,
       s.ended_after, nullif(s.ended_by, 'infinity') AS ended_at,
       greatest(date_part('epoch', s.ended_after - s.begun_by), 0) AS known_seconds,
       date_part('epoch', s.ended - s.begun) AS estimated_seconds,
       s.how AS ended_by, s.online_from, s.online_until
FROM presence_gap_bounds() AS a
JOIN presence_platform_stretch AS s USING (app_id)
WHERE width_bucket(s.begun, a.gaps_end) = width_bucket(s.ended, a.gaps_begin)
UNION ALL
SELECT t.app_id, t.app, t.user_id, t.platform, p.started_after, p.started_at,
       CASE WHEN p.ended_by = 'gap' AND p.ended_at < 'infinity' THEN greatest(p.ended_after, p.started_at) ELSE p.ended_after END,
       nullif(p.ended_at, 'infinity'),
       greatest(date_part('epoch', p.ended_after - p.started_at), 0), date_part('epoch', p.ended - p.begun), p.ended_by, t.online_from, t.online_until
FROM (
    SELECT a.app, s.user_id, s.platform, s.how, s.begun_after, s.begun_by, s.ended_after, s.ended_by, s.begun, s.ended, s.online_from, s.online_until,
           g.app_id, g.started_at, g.ended_at, g.last_seen_from, g.next_seen_by, g.prev_started_at, g.prev_ended_at, g.prev_next_seen_by, g.next_started_at
    FROM presence_gaps() AS g
    JOIN app AS a (app_id, app) USING (app_id)
    JOIN presence_platform_stretch AS s ON s.app_id = g.app_id
        AND s.online_until >= g.started_at AND s.online_from < g.ended_at -- for the index
        AND s.ended >= g.started_at AND s.begun < g.ended_at
) AS t
CROSS JOIN (VALUES (false), (true)) AS piece (is_last)
CROSS JOIN LATERAL (
    SELECT CASE WHEN is_last THEN t.ended_at ELSE greatest(t.begun, t.prev_ended_at) END AS begun,
           CASE WHEN is_last THEN t.ended ELSE t.started_at END AS ended,
           CASE WHEN is_last THEN CASE WHEN t.begun < t.started_at THEN t.started_at ELSE t.begun_after END
                ELSE CASE WHEN t.begun < t.prev_started_at THEN t.prev_started_at ELSE t.begun_after END END AS started_after,
           CASE WHEN is_last THEN CASE WHEN t.begun_by < t.ended_at THEN least(t.ended_by, t.next_seen_by) ELSE t.begun_by END
                ELSE least(CASE WHEN t.begun_by < t.prev_ended_at THEN t.prev_next_seen_by ELSE t.begun_by END,
                           t.ended_by, CASE WHEN t.ended > t.ended_at THEN t.ended_at END) END AS started_at,
           CASE WHEN NOT is_last AND (t.ended > t.ended_at OR t.ended_after > t.started_at) THEN least(t.last_seen_from, t.ended_after)
                ELSE t.ended_after END AS ended_after,
           CASE WHEN NOT is_last AND t.ended > t.ended_at THEN t.ended_at ELSE t.ended_by END AS ended_at,
           CASE WHEN is_last THEN t.how ELSE 'gap' END AS ended_by
) AS p
WHERE p.begun < p.ended
  AND (NOT is_last OR t.ended > t.ended_at AND (t.next_started_at IS NULL OR t.ended < t.next_started_at));
COMMENT ON VIEW presence_platform_session IS 'Stretches of being online on a platform, cut at gaps: one row per app, user, platform and session, with brackets as in presence_session. Quick for a user; for a span of time give online_from and online_until too.';
COMMENT ON COLUMN presence_platform_session.app_id IS 'The app.';
COMMENT ON COLUMN presence_platform_session.app IS 'Its name.';
COMMENT ON COLUMN presence_platform_session.user_id IS 'IM user id.';
COMMENT ON COLUMN presence_platform_session.platform IS 'The platform; being reachable on it by push is not online.';
COMMENT ON COLUMN presence_platform_session.started_after IS 'It began after this time; null: the user was first seen on the platform, or the history before was dropped.';
COMMENT ON COLUMN presence_platform_session.started_at IS 'It began no later than this.';
COMMENT ON COLUMN presence_platform_session.ended_after IS 'The user was last known to be online on the platform at this time.';
COMMENT ON COLUMN presence_platform_session.ended_at IS 'It ended no later than this. Null: it has not ended as far as is known.';
COMMENT ON COLUMN presence_platform_session.known_seconds IS 'How long the user was online on the platform for sure, in seconds.';
COMMENT ON COLUMN presence_platform_session.estimated_seconds IS 'How long the user was online on the platform as estimated, in seconds without gaps.';
COMMENT ON COLUMN presence_platform_session.ended_by IS 'observed, rejected, gap or open, as in presence_session.';
COMMENT ON COLUMN presence_platform_session.online_from IS 'The stretch online, on whatever platforms, that this one is part of did not begin earlier.';
COMMENT ON COLUMN presence_platform_session.online_until IS 'That stretch ended no later than this; infinity: it has not ended.';

CREATE TYPE presence_platform_daily_row AS (
    app_id         smallint,
    app            text,
    user_id        text COLLATE "C",
    platform       text,
    day            date,
    online_seconds double precision,
    sessions       bigint
);
COMMENT ON TYPE presence_platform_daily_row IS 'A row of presence_platform_daily.';
COMMENT ON COLUMN presence_platform_daily_row.app_id IS 'The app.';
COMMENT ON COLUMN presence_platform_daily_row.app IS 'Its name.';
COMMENT ON COLUMN presence_platform_daily_row.user_id IS 'IM user id.';
COMMENT ON COLUMN presence_platform_daily_row.platform IS 'The platform; being reachable on it by push is not online.';
COMMENT ON COLUMN presence_platform_daily_row.day IS 'The local day.';
COMMENT ON COLUMN presence_platform_daily_row.online_seconds IS 'Estimated time online on the platform, in seconds, outside of gaps.';
COMMENT ON COLUMN presence_platform_daily_row.sessions IS 'Sessions on the platform that touch the day.';

-- +goose StatementBegin
CREATE FUNCTION presence_platform_daily(from_day date, to_day date, tz text) RETURNS SETOF presence_platform_daily_row
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT t.app_id, a.name, t.user_id, t.platform, t.day,
           date_part('epoch', sum(least(t.ended, t.ends) - greatest(t.begun, t.begins))), count(*)
    FROM (
        SELECT e.app_id, e.user_id, e.platform, e.begun, e.ended, b.days[slot] AS day, b.bounds[slot] AS begins, b.bounds[slot + 1] AS ends
        FROM presence_slots(from_day, to_day, tz, false, false) AS b
        JOIN presence_platform_stretch AS e USING (app_id)
        CROSS JOIN LATERAL generate_series(greatest(width_bucket(e.begun, b.bounds), 1), least(width_bucket(e.ended, b.bounds), cardinality(b.days) - 1)) AS slot
        WHERE e.online_until >= day_start(from_day, tz) AND e.online_from < day_start(to_day + 1, tz) -- for the index
    ) AS t
    JOIN app AS a USING (app_id)
    WHERE t.day < 'infinity' AND (greatest(t.begun, t.begins) < least(t.ended, t.ends) OR t.begun = t.ended)
    GROUP BY t.app_id, a.name, t.user_id, t.platform, t.day;
END;
-- +goose StatementEnd
COMMENT ON FUNCTION presence_platform_daily IS 'Users'' days by platform from from_day to to_day, both included, local to the time zone tz: one row per app, user, platform and day with a session. A user on two platforms at once counts on both. Computed from the history: ask about few days, or a user.';

-- +goose Down

DROP FUNCTION presence_platform_daily;
DROP TYPE presence_platform_daily_row;
DROP VIEW presence_platform_session;
DROP VIEW presence_platform_stretch;
DROP FUNCTION app_named;
DROP VIEW presence_current;
CREATE VIEW presence_current AS
SELECT s.app_id, a.app, s.user_id, s.state, s.platforms, s.since_after, s.since,
       greatest(s.asked_at, CASE WHEN f.user_id IS NOT NULL THEN f.known_at WHEN s.changed_at <= o.seen_since THEN o.seen_since END) AS last_checked_at,
       f.user_id IS NOT NULL OR g.app_id IS NOT NULL OR o.app_id IS NULL AND s.asked_at + a.max_gap < as_of() AS stale
FROM presence_snapshot AS s
JOIN app_patience AS a ON a.app_id = s.app_id AND a.kind = 'presence'
LEFT JOIN sync_observed AS o ON o.app_id = s.app_id AND o.kind = 'presence'
LEFT JOIN user_failure AS f ON f.app_id = s.app_id AND f.kind = 'presence' AND f.user_id = s.user_id
LEFT JOIN sync_gap AS g ON g.app_id = s.app_id AND g.kind = 'presence' AND g.ended_at IS NULL;
COMMENT ON VIEW presence_current IS 'The newest known presence: one row per app and user.';
COMMENT ON COLUMN presence_current.app_id IS 'The app.';
COMMENT ON COLUMN presence_current.app IS 'Its name.';
COMMENT ON COLUMN presence_current.user_id IS 'IM user id.';
COMMENT ON COLUMN presence_current.state IS 'online, push_online (disconnected, reachable by push) or offline.';
COMMENT ON COLUMN presence_current.platforms IS 'How the user is reachable on each platform, e.g. {"ios": "online"}.';
COMMENT ON COLUMN presence_current.since_after IS 'The state began after this time; null: the user was first seen in it.';
COMMENT ON COLUMN presence_current.since IS 'The state began no later than this.';
COMMENT ON COLUMN presence_current.last_checked_at IS 'The user was seen in this state at this time or later.';
COMMENT ON COLUMN presence_current.stale IS 'Nothing is sure since last_checked_at: the API rejects the user, two APIs contradict each other about the user, or no run has looked at the app for longer than max_gap.';
ALTER TABLE presence_snapshot
    DROP COLUMN last_online_after,
    DROP COLUMN last_online_at;
