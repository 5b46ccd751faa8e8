-- Queries of sessions run in parallel workers and compute less for each stretch. Time
-- between complete runs, and the gaps, come from functions that are not inlined: the
-- LIMIT in sync_observed and the CTE in presence_session kept Postgres from using
-- workers, as does a lateral subquery that is not inlined.

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
COMMENT ON FUNCTION presence_observed IS 'Until when complete presence runs have looked: sync_observed as a function, so that queries can run in parallel workers.';

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

CREATE OR REPLACE VIEW presence_ended_stretch AS
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

CREATE OR REPLACE VIEW presence_open_stretch AS
SELECT s.app_id, s.user_id, s.since_after AS begun_after, s.since AS begun_by,
       k.ended_after, timestamptz 'infinity' AS ended_by,
       coalesce(s.since_after, s.since) AS begun_from,
       k.begun, greatest(k.begun, least(greatest(o.observed_until, k.ended_after), as_of())) AS ended
FROM presence_snapshot AS s
LEFT JOIN presence_observed() AS o ON o.app_id = s.app_id
LEFT JOIN user_failure AS f ON f.app_id = s.app_id AND f.kind = 'presence' AND f.user_id = s.user_id
CROSS JOIN LATERAL (
    SELECT least(greatest(s.asked_at, CASE WHEN f.user_id IS NULL THEN o.seen_since ELSE f.known_at END), as_of()) AS ended_after,
           coalesce(s.since_after + make_interval(secs => date_part('epoch', s.since - s.since_after) / 2), s.since) AS begun
) AS k
WHERE s.state = 'online';
COMMENT ON COLUMN presence_ended_stretch.lasted IS 'From begun to ended, in seconds.';

CREATE OR REPLACE VIEW presence_session AS
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

-- +goose Down

-- presence_ended_stretch keeps its new column: functions depend on the view.

CREATE OR REPLACE VIEW presence_open_stretch AS
SELECT s.app_id, s.user_id, s.since_after AS begun_after, s.since AS begun_by,
       k.ended_after, timestamptz 'infinity' AS ended_by,
       coalesce(s.since_after, s.since) AS begun_from,
       k.begun, greatest(k.begun, least(greatest(o.observed_until, k.ended_after), as_of())) AS ended
FROM presence_snapshot AS s
LEFT JOIN sync_observed AS o ON o.app_id = s.app_id AND o.kind = 'presence'
LEFT JOIN user_failure AS f ON f.app_id = s.app_id AND f.kind = 'presence' AND f.user_id = s.user_id
CROSS JOIN LATERAL (
    SELECT least(greatest(s.asked_at, CASE WHEN f.user_id IS NULL THEN o.seen_since ELSE f.known_at END), as_of()) AS ended_after,
           coalesce(s.since_after + make_interval(secs => date_part('epoch', s.since - s.since_after) / 2), s.since) AS begun
) AS k
WHERE s.state = 'online';

CREATE OR REPLACE VIEW presence_session AS
WITH app_gaps AS MATERIALIZED (
    SELECT a.app_id, a.name AS app,
           coalesce((SELECT array_agg(b.at ORDER BY b.at)
                     FROM presence_gaps() AS g
                     CROSS JOIN LATERAL (VALUES (g.started_at), (g.ended_at)) AS b (at)
                     WHERE g.app_id = a.app_id), '{}') AS bounds
    FROM app AS a
)
-- Most stretches touch no gap: beginning and end lie between the same two bounds.
SELECT s.app_id, a.app, s.user_id, s.begun_after AS started_after, s.begun_by AS started_at,
       s.ended_after, s.ended_by AS ended_at,
       greatest(date_part('epoch', s.ended_after - s.begun_by), 0) AS known_seconds,
       date_part('epoch', s.ended - s.begun) AS estimated_seconds,
       s.how AS ended_by
FROM presence_ended_stretch AS s
JOIN app_gaps AS a USING (app_id)
WHERE width_bucket(s.begun, a.bounds) = width_bucket(s.ended, a.bounds) AND width_bucket(s.begun, a.bounds) % 2 = 0
UNION ALL
SELECT s.app_id, a.app, s.user_id, s.begun_after, s.begun_by, s.ended_after, NULL,
       greatest(date_part('epoch', s.ended_after - s.begun_by), 0), date_part('epoch', s.ended - s.begun), 'open'
FROM presence_open_stretch AS s
JOIN app_gaps AS a USING (app_id)
WHERE width_bucket(s.begun, a.bounds) = width_bucket(s.ended, a.bounds) AND width_bucket(s.begun, a.bounds) % 2 = 0
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
CROSS JOIN LATERAL (
    SELECT greatest(t.begun, t.prev_ended_at) AS begun, t.started_at AS ended,
           CASE WHEN t.begun < t.prev_started_at THEN t.prev_started_at ELSE t.begun_after END AS started_after,
           least(CASE WHEN t.begun_by < t.prev_ended_at THEN t.prev_next_seen_by ELSE t.begun_by END,
                 t.ended_by, CASE WHEN t.ended > t.ended_at THEN t.ended_at END) AS started_at,
           CASE WHEN t.ended > t.ended_at OR t.ended_after > t.started_at THEN least(t.last_seen_from, t.ended_after) ELSE t.ended_after END AS ended_after,
           CASE WHEN t.ended > t.ended_at THEN t.ended_at ELSE t.ended_by END AS ended_at,
           'gap' AS ended_by
    UNION ALL
    SELECT t.ended_at, t.ended,
           CASE WHEN t.begun < t.started_at THEN t.started_at ELSE t.begun_after END,
           CASE WHEN t.begun_by < t.ended_at THEN least(t.ended_by, t.next_seen_by) ELSE t.begun_by END,
           t.ended_after, t.ended_by,
           t.how
    WHERE t.ended > t.ended_at AND (t.next_started_at IS NULL OR t.ended < t.next_started_at)
) AS p
WHERE p.begun < p.ended;
DROP FUNCTION presence_gap_bounds;
DROP FUNCTION presence_observed;
