-- Sessions: the stretches online of snapshot and history, cut at gaps.
--
-- The gaps, and the end of the last observation, come from functions that Postgres does
-- not inline. There are few gaps, and many queries use them. A CTE or a lateral subquery
-- in their place would keep Postgres from using parallel workers.

-- +goose Up

-- +goose StatementBegin
CREATE FUNCTION presence_observed()
RETURNS TABLE (app_id smallint, seen_since timestamptz, observed_until timestamptz)
LANGUAGE sql STABLE PARALLEL SAFE ROWS 10
SET search_path FROM CURRENT
AS $$
    SELECT o.app_id, o.seen_since, o.observed_until
    FROM sync_observed AS o
    WHERE o.kind = 'presence'
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION presence_observed IS 'Until when complete presence runs have observed users: sync_observed as a function, so that queries can run in parallel workers.';

-- +goose StatementBegin
CREATE FUNCTION presence_gaps()
RETURNS TABLE (app_id smallint, started_at timestamptz, ended_at timestamptz, last_seen_from timestamptz, next_seen_by timestamptz,
               prev_started_at timestamptz, prev_ended_at timestamptz, prev_next_seen_by timestamptz, next_started_at timestamptz)
LANGUAGE sql STABLE PARALLEL SAFE ROWS 10
SET search_path FROM CURRENT
AS $$
    WITH gap AS (
        SELECT g.app_id, g.started_at, coalesce(g.ended_at, 'infinity') AS ended_at, g.last_seen_from, coalesce(g.next_seen_by, 'infinity') AS next_seen_by
        FROM sync_gap AS g
        WHERE g.kind = 'presence'
    ), merged AS (
        SELECT g.app_id, unnest(range_agg(tstzrange(g.started_at, g.ended_at))) AS span
        FROM gap AS g
        GROUP BY g.app_id
    ), apart AS (
        SELECT m.app_id, lower(m.span) AS started_at, upper(m.span) AS ended_at, min(g.last_seen_from) AS last_seen_from, max(g.next_seen_by) AS next_seen_by
        FROM merged AS m
        JOIN gap AS g ON g.app_id = m.app_id AND m.span @> g.started_at
        GROUP BY m.app_id, m.span
    )
    SELECT a.app_id, a.started_at, a.ended_at, a.last_seen_from, a.next_seen_by,
           lag(a.started_at) OVER neighbours, lag(a.ended_at) OVER neighbours, lag(a.next_seen_by) OVER neighbours,
           lead(a.started_at) OVER neighbours
    FROM apart AS a
    WINDOW neighbours AS (PARTITION BY a.app_id ORDER BY a.started_at)
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION presence_gaps IS 'The gaps of sync_gap in presence, those that touch made one: what cuts stretches. A gap holds its started_at and not its ended_at; infinity: it is open. Every user was seen between last_seen_from and started_at, and again between ended_at and next_seen_by. prev_ and next_ are of the app''s gaps before and after.';

-- +goose StatementBegin
CREATE FUNCTION presence_gap_bounds()
RETURNS TABLE (app_id smallint, app text, gaps_begin timestamptz[], gaps_end timestamptz[])
LANGUAGE sql STABLE PARALLEL SAFE ROWS 10
SET search_path FROM CURRENT
AS $$
    SELECT a.app_id, a.name,
           coalesce(array_agg(g.started_at ORDER BY g.started_at) FILTER (WHERE g.app_id IS NOT NULL), '{}'),
           coalesce(array_agg(g.ended_at ORDER BY g.started_at) FILTER (WHERE g.app_id IS NOT NULL), '{}')
    FROM app AS a
    LEFT JOIN presence_gaps() AS g ON g.app_id = a.app_id
    GROUP BY a.app_id, a.name
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION presence_gap_bounds IS 'When the gaps of presence_gaps begin and end, in order: one row per app, also if it has no gap.';

-- Stretches come from two tables: the history has those that ended, the snapshot the open
-- ones. Each has a view of its own that is joined separately, because the planner cannot
-- look up single rows behind a UNION ALL. The middle of a bracket is its beginning plus a
-- number of seconds: with an interval of days the sum would depend on the session's time
-- zone.
CREATE VIEW presence_ended_stretch AS
SELECT h.app_id, h.user_id, h.prev_since_after AS begun_after, h.prev_since AS begun_by,
       h.not_before AS ended_after, h.observed_at AS ended_by,
       coalesce(h.prev_since_after, h.prev_since) AS begun_from,
       e.begun, greatest(e.begun, e.ended) AS ended,
       CASE WHEN h.state = 'rejected' THEN 'rejected' ELSE 'observed' END AS how,
       greatest(date_part('epoch', e.ended - e.begun), 0) AS lasted
FROM presence_history AS h
CROSS JOIN LATERAL (
    SELECT coalesce(h.prev_since_after + make_interval(secs => date_part('epoch', h.prev_since - h.prev_since_after) / 2), h.prev_since) AS begun,
           -- Where the API rejected the user, nothing is known after not_before.
           CASE WHEN h.state = 'rejected' THEN h.not_before
                ELSE h.not_before + make_interval(secs => date_part('epoch', h.observed_at - h.not_before) / 2) END AS ended
) AS e
WHERE h.prev_state = 'online' AND h.state <> 'online';
COMMENT ON VIEW presence_ended_stretch IS 'Stretches online that have ended, as the history has them, not yet cut at gaps: one row per stretch. presence_session is what reports want.';
COMMENT ON COLUMN presence_ended_stretch.app_id IS 'The app.';
COMMENT ON COLUMN presence_ended_stretch.user_id IS 'IM user id.';
COMMENT ON COLUMN presence_ended_stretch.begun_after IS 'It began after this time; null: the user was first seen online.';
COMMENT ON COLUMN presence_ended_stretch.begun_by IS 'It began no later than this.';
COMMENT ON COLUMN presence_ended_stretch.ended_after IS 'It lasted at least until then.';
COMMENT ON COLUMN presence_ended_stretch.ended_by IS 'It ended no later than this.';
COMMENT ON COLUMN presence_ended_stretch.begun_from IS 'begun_after, or begun_by where that is null: it did not begin earlier. By this and ended_by the history finds the stretches of a span.';
COMMENT ON COLUMN presence_ended_stretch.begun IS 'Estimated beginning: the middle of the bracket, its upper end when it has no lower one.';
COMMENT ON COLUMN presence_ended_stretch.ended IS 'Estimated end: the middle of the bracket, its lower end where the API rejected the user.';
COMMENT ON COLUMN presence_ended_stretch.how IS 'observed: the user was seen in another state, or left the users table; rejected: the API rejected the user for longer than max_gap.';
COMMENT ON COLUMN presence_ended_stretch.lasted IS 'From begun to ended, in seconds.';

CREATE VIEW presence_open_stretch AS
SELECT s.app_id, s.user_id, s.since_after AS begun_after, s.since AS begun_by,
       k.ended_after, timestamptz 'infinity' AS ended_by,
       coalesce(s.since_after, s.since) AS begun_from,
       k.begun, greatest(k.begun, least(greatest(o.observed_until, k.ended_after), as_of())) AS ended
FROM presence_snapshot AS s
LEFT JOIN presence_observed() AS o ON o.app_id = s.app_id
LEFT JOIN user_failure AS f ON f.app_id = s.app_id AND f.kind = 'presence' AND f.user_id = s.user_id
CROSS JOIN LATERAL (
    SELECT least(greatest(s.asked_at, CASE WHEN f.user_id IS NOT NULL THEN f.known_at WHEN s.changed_at <= o.seen_since THEN o.seen_since END), as_of()) AS ended_after,
           coalesce(s.since_after + make_interval(secs => date_part('epoch', s.since - s.since_after) / 2), s.since) AS begun
) AS k
WHERE s.state = 'online';
COMMENT ON VIEW presence_open_stretch IS 'Stretches online of which no end is known, not yet cut at gaps: one row per user who is online. presence_session is what reports want.';
COMMENT ON COLUMN presence_open_stretch.app_id IS 'The app.';
COMMENT ON COLUMN presence_open_stretch.user_id IS 'IM user id.';
COMMENT ON COLUMN presence_open_stretch.begun_after IS 'It began after this time; null: the user was first seen online.';
COMMENT ON COLUMN presence_open_stretch.begun_by IS 'It began no later than this.';
COMMENT ON COLUMN presence_open_stretch.ended_after IS 'It lasted at least until then.';
COMMENT ON COLUMN presence_open_stretch.ended_by IS 'infinity, as in presence_ended_stretch no time is.';
COMMENT ON COLUMN presence_open_stretch.begun_from IS 'begun_after, or begun_by where that is null: it did not begin earlier.';
COMMENT ON COLUMN presence_open_stretch.begun IS 'Estimated beginning: the middle of the bracket, its upper end when it has no lower one.';
COMMENT ON COLUMN presence_open_stretch.ended IS 'Estimated end: when the last look ended, at most as_of().';

CREATE VIEW presence_session AS
-- A stretch touches no gap if as many gaps have ended when it begins as have begun
-- when it ends. Most stretches touch none with their brackets included, which costs
-- less to compute than the estimates. CASE, because the planner would take two
-- equalities for one row in a hundred.
SELECT s.app_id, a.app, s.user_id, s.begun_after AS started_after, s.begun_by AS started_at,
       s.ended_after, s.ended_by AS ended_at,
       greatest(date_part('epoch', s.ended_after - s.begun_by), 0) AS known_seconds,
       s.lasted AS estimated_seconds,
       s.how AS ended_by
FROM presence_gap_bounds() AS a
JOIN presence_ended_stretch AS s USING (app_id)
WHERE CASE WHEN width_bucket(s.begun_from, a.gaps_end) = width_bucket(s.ended_by, a.gaps_begin) THEN true
           ELSE width_bucket(s.begun, a.gaps_end) = width_bucket(s.ended, a.gaps_begin) END
UNION ALL
SELECT s.app_id, a.app, s.user_id, s.begun_after, s.begun_by, s.ended_after, NULL,
       greatest(date_part('epoch', s.ended_after - s.begun_by), 0), date_part('epoch', s.ended - s.begun), 'open'
FROM presence_gap_bounds() AS a
JOIN presence_open_stretch AS s USING (app_id)
WHERE width_bucket(s.begun, a.gaps_end) = width_bucket(s.ended, a.gaps_begin)
UNION ALL
-- Each gap that a stretch touches ends the piece before it; the last one is
-- followed by the piece up to the stretch's own end.
SELECT t.app_id, t.app, t.user_id, p.started_after, p.started_at,
       CASE WHEN p.ended_by = 'gap' AND p.ended_at < 'infinity' THEN greatest(p.ended_after, p.started_at) ELSE p.ended_after END,
       nullif(p.ended_at, 'infinity'),
       greatest(date_part('epoch', p.ended_after - p.started_at), 0), date_part('epoch', p.ended - p.begun), p.ended_by
FROM (
    SELECT a.app, s.user_id, s.how, s.begun_after, s.begun_by, s.ended_after, s.ended_by, s.begun, s.ended,
           g.app_id, g.started_at, g.ended_at, g.last_seen_from, g.next_seen_by, g.prev_started_at, g.prev_ended_at, g.prev_next_seen_by, g.next_started_at
    FROM presence_gaps() AS g
    JOIN app AS a (app_id, app) USING (app_id)
    JOIN presence_ended_stretch AS s ON s.app_id = g.app_id
        -- For the index. The last one always holds: with it the planner takes this
        -- for a range, and not for a third of the history.
        AND s.ended_by >= g.started_at AND s.begun_from < g.ended_at AND s.ended_by < 'infinity'
        AND s.ended >= g.started_at AND s.begun < g.ended_at
    UNION ALL
    SELECT a.app, s.user_id, 'open', s.begun_after, s.begun_by, s.ended_after, s.ended_by, s.begun, s.ended,
           g.app_id, g.started_at, g.ended_at, g.last_seen_from, g.next_seen_by, g.prev_started_at, g.prev_ended_at, g.prev_next_seen_by, g.next_started_at
    FROM presence_gaps() AS g
    JOIN app AS a (app_id, app) USING (app_id)
    JOIN presence_open_stretch AS s ON s.app_id = g.app_id AND s.ended >= g.started_at AND s.begun < g.ended_at
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
COMMENT ON VIEW presence_session IS 'Stretches online, cut at gaps: one row per app, user and session. A session began after started_after and no later than started_at, and lasted at least until ended_after and no longer than ended_at.';
COMMENT ON COLUMN presence_session.app_id IS 'The app.';
COMMENT ON COLUMN presence_session.app IS 'Its name.';
COMMENT ON COLUMN presence_session.user_id IS 'IM user id.';
COMMENT ON COLUMN presence_session.started_after IS 'It began after this time; null: the user was first seen online.';
COMMENT ON COLUMN presence_session.started_at IS 'It began no later than this: the first look that saw the user online, or the one by which all users had been seen after a gap.';
COMMENT ON COLUMN presence_session.ended_after IS 'The user was last known to be online at this time.';
COMMENT ON COLUMN presence_session.ended_at IS 'It ended no later than this; when ended_by is gap or rejected, nothing is known of the time between ended_after and this. Null: it has not ended as far as is known.';
COMMENT ON COLUMN presence_session.known_seconds IS 'How long the user was online for sure, in seconds.';
COMMENT ON COLUMN presence_session.estimated_seconds IS 'How long the user was online as estimated, in seconds without gaps: from the middle of the first bracket (started_at when started_after is null) to the middle of the last, or to the end of the last look.';
COMMENT ON COLUMN presence_session.ended_by IS 'observed: the user was seen in another state, or had left the users table; rejected: the API rejected the user for longer than max_gap, so that the end is not known, and by estimate it goes no further than ended_after; gap: if it ended, it did so while no run observed users, and by estimate it goes no further than the beginning of the gap; open: online as far as is known.';

-- +goose Down

DROP VIEW presence_session;
DROP VIEW presence_open_stretch;
DROP VIEW presence_ended_stretch;
DROP FUNCTION presence_gap_bounds;
DROP FUNCTION presence_gaps;
DROP FUNCTION presence_observed;
