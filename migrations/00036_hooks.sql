-- Hooks are hints to look at a user now. A hint changes neither what is written nor the
-- bracket that syncer saw; the provider's own time of the event is kept beside it.

-- +goose Up

ALTER TABLE presence_snapshot
    ADD COLUMN told_at timestamptz,
    ADD CHECK (told_at > since_after AND told_at <= since);
ALTER TABLE presence_history
    ADD COLUMN told_at timestamptz,
    ADD COLUMN prev_told_at timestamptz,
    ADD CHECK (told_at > not_before AND told_at <= observed_at),
    ADD CHECK (prev_told_at > prev_since_after AND prev_told_at <= prev_since);
COMMENT ON COLUMN presence_snapshot.told_at IS 'When the present state began, by the provider''s own time from a hook: evidence, later than since_after and no later than since. Null: no hook reported it.';
COMMENT ON COLUMN presence_history.told_at IS 'When the transition happened, by the provider''s own time from a hook: evidence, later than not_before and no later than observed_at. Null: no hook reported it.';
COMMENT ON COLUMN presence_history.prev_told_at IS 'The same for the beginning of the previous state, from the snapshot. Null: no hook reported it.';

ALTER TABLE sync_run
    DROP CONSTRAINT sync_run_trigger_check,
    ADD CONSTRAINT sync_run_trigger_check CHECK (trigger IN ('cron', 'catch_up', 'backfill', 'hint')),
    ADD CONSTRAINT sync_run_hint_check CHECK (trigger <> 'hint' OR status <> 'running' AND NOT complete AND observed_until IS NULL);
COMMENT ON COLUMN sync_run.trigger IS 'cron: its tick came; catch_up: its tick fell while no process ran; backfill: an operator started it; hint: the work of one hour on hints, of all processes. A hint run is never running and never complete: finished_at is its last write so far.';
COMMENT ON COLUMN sync_run.tick IS 'The scheduled instant; for a hint run the beginning of its hour; null for a backfill.';
COMMENT ON COLUMN sync_run.observed_until IS 'When its last page was written; null while running, and for hint runs, which never observe all users.';

-- Hint runs have no max_gap.
CREATE OR REPLACE VIEW app_patience AS
SELECT a.app_id, a.name AS app, kinds.kind, coalesce(newest.max_gap, '0') AS max_gap
FROM app AS a
CROSS JOIN (VALUES ('presence'), ('accounts')) AS kinds (kind)
LEFT JOIN LATERAL (
    SELECT u.max_gap
    FROM sync_run AS u
    WHERE u.app_id = a.app_id AND u.kind = kinds.kind AND u.status <> 'skipped' AND u.trigger <> 'hint'
    ORDER BY u.started_at DESC
    LIMIT 1
) AS newest ON true;

-- The provider's time is the estimate in place of the middle of the bracket.
CREATE OR REPLACE VIEW presence_ended_stretch AS
SELECT h.app_id, h.user_id, h.prev_since_after AS begun_after, h.prev_since AS begun_by,
       h.not_before AS ended_after, h.observed_at AS ended_by,
       coalesce(h.prev_since_after, h.prev_since) AS begun_from,
       e.begun, greatest(e.begun, e.ended) AS ended,
       CASE WHEN h.state = 'rejected' THEN 'rejected' ELSE 'observed' END AS how,
       greatest(date_part('epoch', e.ended - e.begun), 0) AS lasted
FROM presence_history AS h
CROSS JOIN LATERAL (
    SELECT coalesce(h.prev_told_at, h.prev_since_after + make_interval(secs => date_part('epoch', h.prev_since - h.prev_since_after) / 2), h.prev_since) AS begun,
           -- Where the API rejected the user, nothing is known after not_before.
           CASE WHEN h.state = 'rejected' THEN h.not_before
                ELSE coalesce(h.told_at, h.not_before + make_interval(secs => date_part('epoch', h.observed_at - h.not_before) / 2)) END AS ended
) AS e
WHERE h.prev_state = 'online' AND h.state <> 'online';
COMMENT ON COLUMN presence_ended_stretch.begun IS 'Estimated beginning: the provider''s time from a hook, else the middle of the bracket, its upper end when it has no lower one.';
COMMENT ON COLUMN presence_ended_stretch.ended IS 'Estimated end: the provider''s time from a hook, else the middle of the bracket, its lower end where the API rejected the user.';

CREATE OR REPLACE VIEW presence_open_stretch AS
SELECT s.app_id, s.user_id, s.since_after AS begun_after, s.since AS begun_by,
       k.ended_after, timestamptz 'infinity' AS ended_by,
       coalesce(s.since_after, s.since) AS begun_from,
       k.begun, greatest(k.begun, least(greatest(o.observed_until, k.ended_after), as_of())) AS ended
FROM presence_snapshot AS s
LEFT JOIN presence_observed() AS o ON o.app_id = s.app_id
LEFT JOIN user_failure AS f ON f.app_id = s.app_id AND f.kind = 'presence' AND f.user_id = s.user_id
CROSS JOIN LATERAL (
    SELECT least(greatest(s.asked_at, CASE WHEN f.user_id IS NOT NULL THEN f.known_at WHEN s.changed_at <= o.seen_since THEN o.seen_since END), as_of()) AS ended_after,
           coalesce(s.told_at, s.since_after + make_interval(secs => date_part('epoch', s.since - s.since_after) / 2), s.since) AS begun
) AS k
WHERE s.state = 'online';
COMMENT ON COLUMN presence_open_stretch.begun IS 'Estimated beginning: the provider''s time from a hook, else the middle of the bracket, its upper end when it has no lower one.';

CREATE OR REPLACE VIEW presence_platform_stretch AS
SELECT s.app_id, s.user_id, p.platform, s.begun_from AS online_from, s.ended_by AS online_until,
       p.begun_after, p.begun_by, p.ended_after, p.ended_by, coalesce(p.begun_after, p.begun_by) AS begun_from,
       e.begun, greatest(e.begun, e.ended) AS ended, p.how
FROM (
    -- Joined with app for the primary key: the planner looks up no single rows behind a UNION ALL.
    SELECT a.app_id, s.user_id, s.begun_by, s.begun, s.ended_after, s.ended_by, s.begun_from, s.ended, s.how
    FROM app AS a
    JOIN presence_ended_stretch AS s USING (app_id)
    UNION ALL
    SELECT a.app_id, s.user_id, s.begun_by, s.begun, s.ended_after, s.ended_by, s.begun_from, s.ended, 'open'
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
    SELECT CASE WHEN p.begun_by = s.begun_by THEN s.begun
                ELSE coalesce(p.begun_after + make_interval(secs => date_part('epoch', p.begun_by - p.begun_after) / 2), p.begun_by) END AS begun,
           CASE WHEN p.ended_by = s.ended_by THEN s.ended
                ELSE p.ended_after + make_interval(secs => date_part('epoch', p.ended_by - p.ended_after) / 2) END AS ended
) AS e;

CREATE OR REPLACE VIEW presence_session AS
-- A stretch touches no gap if as many gaps have ended when it begins as have begun
-- when it ends. Most stretches touch none with their brackets included, which costs
-- less to compute than the estimates. CASE, because the planner would take two
-- equalities for one row in a hundred.
SELECT s.app_id, a.app, s.user_id, s.begun_after AS started_after, s.begun_by AS started_at,
       s.ended_after, s.ended_by AS ended_at,
       greatest(date_part('epoch', s.ended_after - s.begun_by), 0) AS known_seconds,
       s.lasted AS estimated_seconds,
       s.how AS ended_by,
       s.begun AS estimated_start, s.ended AS estimated_end
FROM presence_gap_bounds() AS a
JOIN presence_ended_stretch AS s USING (app_id)
WHERE CASE WHEN width_bucket(s.begun_from, a.gaps_end) = width_bucket(s.ended_by, a.gaps_begin) THEN true
           ELSE width_bucket(s.begun, a.gaps_end) = width_bucket(s.ended, a.gaps_begin) END
UNION ALL
SELECT s.app_id, a.app, s.user_id, s.begun_after, s.begun_by, s.ended_after, NULL,
       greatest(date_part('epoch', s.ended_after - s.begun_by), 0), date_part('epoch', s.ended - s.begun), 'open',
       s.begun, s.ended
FROM presence_gap_bounds() AS a
JOIN presence_open_stretch AS s USING (app_id)
WHERE width_bucket(s.begun, a.gaps_end) = width_bucket(s.ended, a.gaps_begin)
UNION ALL
-- Each gap that a stretch touches ends the piece before it; the last one is
-- followed by the piece up to the stretch's own end.
SELECT t.app_id, t.app, t.user_id, p.started_after, p.started_at,
       CASE WHEN p.ended_by = 'gap' AND p.ended_at < 'infinity' THEN greatest(p.ended_after, p.started_at) ELSE p.ended_after END,
       nullif(p.ended_at, 'infinity'),
       greatest(date_part('epoch', p.ended_after - p.started_at), 0), date_part('epoch', p.ended - p.begun), p.ended_by,
       p.begun, p.ended
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
COMMENT ON COLUMN presence_session.estimated_seconds IS 'How long the user was online as estimated, in seconds without gaps: from estimated_start to estimated_end.';
COMMENT ON COLUMN presence_session.estimated_start IS 'Estimated beginning, between started_after and started_at: the provider''s time from a hook, else the middle of the bracket (started_at when started_after is null); after a gap its end.';
COMMENT ON COLUMN presence_session.estimated_end IS 'Estimated end, between ended_after and ended_at: the provider''s time from a hook, else the middle of the bracket; before a gap its start; ended_after where the API rejected the user; the end of the last look while the user is online.';

CREATE OR REPLACE VIEW presence_current AS
SELECT s.app_id, a.app, s.user_id, s.state, s.platforms, s.since_after, s.since,
       c.last_checked_at,
       f.user_id IS NOT NULL OR g.app_id IS NOT NULL OR o.app_id IS NULL AND s.asked_at + a.max_gap < as_of() AS stale,
       CASE WHEN s.state = 'online' THEN c.last_checked_at ELSE s.last_online_after END AS last_online_after,
       CASE WHEN s.state <> 'online' THEN s.last_online_at END AS last_online_at,
       s.told_at
FROM presence_snapshot AS s
JOIN app_patience AS a ON a.app_id = s.app_id AND a.kind = 'presence'
LEFT JOIN sync_observed AS o ON o.app_id = s.app_id AND o.kind = 'presence'
LEFT JOIN user_failure AS f ON f.app_id = s.app_id AND f.kind = 'presence' AND f.user_id = s.user_id
LEFT JOIN sync_gap AS g ON g.app_id = s.app_id AND g.kind = 'presence' AND g.ended_at IS NULL
CROSS JOIN LATERAL (
    SELECT greatest(s.asked_at, CASE WHEN f.user_id IS NOT NULL THEN f.known_at WHEN s.changed_at <= o.seen_since THEN o.seen_since END) AS last_checked_at
) AS c;
COMMENT ON COLUMN presence_current.told_at IS 'When the state began by the provider''s own time, from a hook: between since_after and since. Null: no hook reported it.';

-- +goose Down

DROP VIEW presence_current;
CREATE VIEW presence_current AS
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
COMMENT ON COLUMN presence_current.last_online_after IS 'The user was last known to be online at this time; last_checked_at while online. Null: not seen online since first seen; a user who was rejected or removed is first seen again.';
COMMENT ON COLUMN presence_current.last_online_at IS 'The user stopped being online no later than this. Null while online, and if last_online_after is null.';

DROP VIEW presence_session;
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

CREATE OR REPLACE VIEW presence_platform_stretch AS
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

CREATE OR REPLACE VIEW presence_open_stretch AS
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

CREATE OR REPLACE VIEW app_patience AS
SELECT a.app_id, a.name AS app, kinds.kind, coalesce(newest.max_gap, '0') AS max_gap
FROM app AS a
CROSS JOIN (VALUES ('presence'), ('accounts')) AS kinds (kind)
LEFT JOIN LATERAL (
    SELECT u.max_gap
    FROM sync_run AS u
    WHERE u.app_id = a.app_id AND u.kind = kinds.kind AND u.status <> 'skipped'
    ORDER BY u.started_at DESC
    LIMIT 1
) AS newest ON true;

DELETE FROM sync_run WHERE trigger = 'hint';
ALTER TABLE sync_run
    DROP CONSTRAINT sync_run_hint_check,
    DROP CONSTRAINT sync_run_trigger_check,
    ADD CONSTRAINT sync_run_trigger_check CHECK (trigger IN ('cron', 'catch_up', 'backfill'));
ALTER TABLE presence_history DROP COLUMN told_at, DROP COLUMN prev_told_at;
ALTER TABLE presence_snapshot DROP COLUMN told_at;
