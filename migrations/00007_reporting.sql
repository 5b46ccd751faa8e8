-- What reports are made of, straight from snapshots and histories. Bodies of
-- functions are written BEGIN ATOMIC or RETURN: their names are bound here and
-- now, whatever the caller's search_path is, and the planner can still inline
-- them, which SET search_path would keep it from.

-- +goose Up

CREATE FUNCTION as_of() RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE
RETURN coalesce(nullif(current_setting('syncer.as_of', true), '')::timestamptz, now());
COMMENT ON FUNCTION as_of IS 'The present, for all reports: now(), or the setting syncer.as_of, which makes a report repeatable. It does not undo what was recorded later.';

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

-- Reports ask for the stretches online that touch a span of time. Rows lie in the
-- order of observed_at, and most stretches are short, so that both bounds skip
-- nearly all blocks of other times; a B-tree would cost every transition.
CREATE INDEX presence_history_stretch ON presence_history
    USING brin (observed_at, prev_since, (coalesce(prev_since_after, prev_since)))
    WITH (pages_per_range = 32, autosummarize = on)
    WHERE prev_state = 'online' AND state <> 'online';
CREATE INDEX presence_history_observed ON presence_history
    USING brin (observed_at) WITH (pages_per_range = 32, autosummarize = on);
CREATE INDEX account_history_observed ON account_history
    USING brin (observed_at) WITH (pages_per_range = 32, autosummarize = on);
CREATE INDEX presence_count_observed ON presence_count (app_id, observed_at);

CREATE VIEW sync_observed AS
SELECT a.app_id, a.name AS app, kinds.kind, first_run.started_at AS first_started_at,
       last_started.started_at AS seen_since, newest.observed_until, newest.max_gap
FROM app AS a
CROSS JOIN (VALUES ('presence'), ('accounts')) AS kinds (kind)
CROSS JOIN LATERAL (
    SELECT u.started_at
    FROM sync_run AS u
    WHERE u.app_id = a.app_id AND u.kind = kinds.kind AND u.complete
    ORDER BY u.started_at
    LIMIT 1
) AS first_run
CROSS JOIN LATERAL (
    SELECT u.started_at
    FROM sync_run AS u
    WHERE u.app_id = a.app_id AND u.kind = kinds.kind AND u.complete
    ORDER BY u.started_at DESC
    LIMIT 1
) AS last_started
CROSS JOIN LATERAL (
    -- A run that was resumed can have looked later than one that was started later.
    SELECT u.observed_until, u.max_gap
    FROM sync_run AS u
    WHERE u.app_id = a.app_id AND u.kind = kinds.kind AND u.complete AND u.observed_until IS NOT NULL
    ORDER BY u.observed_until DESC
    LIMIT 1
) AS newest;
COMMENT ON VIEW sync_observed IS 'Until when complete runs have looked: one row per app and kind of which there is a complete run.';
COMMENT ON COLUMN sync_observed.app_id IS 'The app.';
COMMENT ON COLUMN sync_observed.app IS 'Its name.';
COMMENT ON COLUMN sync_observed.kind IS 'presence or accounts.';
COMMENT ON COLUMN sync_observed.first_started_at IS 'When the oldest complete run that is still recorded was started.';
COMMENT ON COLUMN sync_observed.seen_since IS 'When the newest complete run was started: every user who does not fail was seen since.';
COMMENT ON COLUMN sync_observed.observed_until IS 'When the last look of any complete run ended: nobody has looked since, but for runs that are not complete.';
COMMENT ON COLUMN sync_observed.max_gap IS 'How long after observed_until the time begins to count as not observed, from the run that looked last. Null: at once.';

CREATE VIEW sync_gap AS
SELECT g.app_id, a.name AS app, g.kind, g.started_at, g.ended_at,
       extract(epoch FROM g.ended_at - g.started_at)::double precision AS seconds,
       g.last_seen_from, g.next_seen_by
FROM observation_gap AS g
JOIN app AS a USING (app_id)
UNION ALL
SELECT o.app_id, o.app, o.kind, o.observed_until, NULL,
       extract(epoch FROM as_of() - o.observed_until)::double precision,
       least(o.seen_since, o.observed_until), NULL
FROM sync_observed AS o
WHERE o.observed_until + coalesce(o.max_gap, '0') < as_of();
COMMENT ON VIEW sync_gap IS 'Times in which nobody looked at an app''s users: one row per app, kind and gap, the open one included. Such time counts as neither online nor offline.';
COMMENT ON COLUMN sync_gap.app_id IS 'The app.';
COMMENT ON COLUMN sync_gap.app IS 'Its name.';
COMMENT ON COLUMN sync_gap.kind IS 'presence or accounts.';
COMMENT ON COLUMN sync_gap.started_at IS 'When the last complete run before it had ended to look.';
COMMENT ON COLUMN sync_gap.ended_at IS 'When the next complete run began to look; null: none has yet.';
COMMENT ON COLUMN sync_gap.seconds IS 'Its length; of an open one until as_of().';
COMMENT ON COLUMN sync_gap.last_seen_from IS 'Every user was seen at some time from here to started_at.';
COMMENT ON COLUMN sync_gap.next_seen_by IS 'Every user was seen again at some time from ended_at to here; null while the gap is open.';

-- The gaps are few, and asked for in many places: a function that is not inlined
-- keeps them out of the plans of everything else.
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

-- Stretches online come from two tables: those that ended, and the open ones. They
-- are two views, and each is joined for itself, because the planner cannot look up
-- single rows behind a UNION ALL. The middle of a bracket is its beginning and a
-- time of seconds: an interval with days in it would make the sum depend on the
-- session's time zone.
CREATE VIEW presence_ended_stretch AS
SELECT h.app_id, h.user_id, h.prev_since_after AS begun_after, h.prev_since AS begun_by,
       h.not_before AS ended_after, h.observed_at AS ended_by,
       coalesce(h.prev_since_after, h.prev_since) AS begun_from,
       e.begun, greatest(e.begun, e.ended) AS ended,
       CASE WHEN h.state = 'rejected' THEN 'rejected' ELSE 'observed' END AS how
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

CREATE VIEW presence_open_stretch AS
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
COMMENT ON COLUMN presence_session.ended_by IS 'observed: the user was seen in another state, or had left the users table; rejected: the API rejected the user for longer than max_gap, so that the end is not known, and by estimate it goes no further than ended_after; gap: it ended, if it did, when nobody looked, and by estimate it goes no further than the beginning of the gap; open: online as far as is known.';

CREATE VIEW app_patience AS
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
COMMENT ON VIEW app_patience IS 'How long after a look a value is not stale yet, where no run has completed: one row per app and kind.';
COMMENT ON COLUMN app_patience.app_id IS 'The app.';
COMMENT ON COLUMN app_patience.app IS 'Its name.';
COMMENT ON COLUMN app_patience.kind IS 'presence or accounts.';
COMMENT ON COLUMN app_patience.max_gap IS 'max_gap of the newest run; 0 where it has none.';

CREATE VIEW presence_current AS
SELECT s.app_id, a.app, s.user_id, s.state, s.platforms, s.since_after, s.since,
       greatest(s.asked_at, CASE WHEN f.user_id IS NULL THEN o.seen_since ELSE f.known_at END) AS last_checked_at,
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
COMMENT ON COLUMN presence_current.stale IS 'Nothing is known since last_checked_at: the API rejects the user, or no run has looked at the app for longer than max_gap.';

CREATE VIEW presence_concurrency AS
SELECT c.app_id, a.name AS app, c.run_id, c.observed_at,
       coalesce(sum(c.users) FILTER (WHERE c.platform = 'all' AND c.state <> 'rejected'), 0)::bigint AS users,
       -- A run that has no answer about any of its users says nothing of them.
       CASE WHEN bool_or(c.state = 'rejected') THEN NULL
            ELSE coalesce(sum(c.users) FILTER (WHERE c.platform = 'all' AND c.state = 'online'), 0)::bigint END AS online,
       CASE WHEN bool_or(c.state = 'rejected') THEN NULL
            ELSE coalesce(sum(c.users) FILTER (WHERE c.platform = 'all' AND c.state = 'push_online'), 0)::bigint END AS push_online,
       CASE WHEN bool_or(c.state = 'rejected') THEN NULL
            ELSE coalesce(sum(c.users) FILTER (WHERE c.platform = 'all' AND c.state = 'offline'), 0)::bigint END AS offline,
       coalesce(jsonb_object_agg(c.platform, c.users) FILTER (WHERE c.platform <> 'all' AND c.state = 'online'), '{}') AS platforms
FROM presence_count AS c
JOIN app AS a USING (app_id)
GROUP BY c.app_id, a.name, c.run_id, c.observed_at;
COMMENT ON VIEW presence_concurrency IS 'How many users were in which state: one row per app and complete presence run.';
COMMENT ON COLUMN presence_concurrency.app_id IS 'The app.';
COMMENT ON COLUMN presence_concurrency.app IS 'Its name.';
COMMENT ON COLUMN presence_concurrency.run_id IS 'The run.';
COMMENT ON COLUMN presence_concurrency.observed_at IS 'When the run was closed.';
COMMENT ON COLUMN presence_concurrency.users IS 'Users it had an answer about.';
COMMENT ON COLUMN presence_concurrency.online IS 'How many of them were online; null when the run had no answer about any user.';
COMMENT ON COLUMN presence_concurrency.push_online IS 'How many were disconnected, but reachable by push; null as online.';
COMMENT ON COLUMN presence_concurrency.offline IS 'How many were offline; null as online.';
COMMENT ON COLUMN presence_concurrency.platforms IS 'Users connected by platform, e.g. {"ios": 12}; a user on two counts under both. A platform on which the user is reachable by push alone does not count.';

CREATE VIEW account_current AS
SELECT s.app_id, a.app, s.user_id, s.status, s.changed_at AS since,
       greatest(s.asked_at, CASE WHEN f.user_id IS NULL THEN o.seen_since ELSE f.known_at END) AS last_checked_at,
       f.user_id IS NOT NULL OR g.app_id IS NOT NULL OR o.app_id IS NULL AND s.asked_at + a.max_gap < as_of() AS stale
FROM account_snapshot AS s
JOIN app_patience AS a ON a.app_id = s.app_id AND a.kind = 'accounts'
LEFT JOIN sync_observed AS o ON o.app_id = s.app_id AND o.kind = 'accounts'
LEFT JOIN user_failure AS f ON f.app_id = s.app_id AND f.kind = 'accounts' AND f.user_id = s.user_id
LEFT JOIN sync_gap AS g ON g.app_id = s.app_id AND g.kind = 'accounts' AND g.ended_at IS NULL;
COMMENT ON VIEW account_current IS 'The newest known import status: one row per app and user.';
COMMENT ON COLUMN account_current.app_id IS 'The app.';
COMMENT ON COLUMN account_current.app IS 'Its name.';
COMMENT ON COLUMN account_current.user_id IS 'IM user id.';
COMMENT ON COLUMN account_current.status IS 'imported or not_imported.';
COMMENT ON COLUMN account_current.since IS 'The user has had this status since this time at the latest.';
COMMENT ON COLUMN account_current.last_checked_at IS 'The user was seen with this status at this time or later.';
COMMENT ON COLUMN account_current.stale IS 'Nothing is known since last_checked_at: the API rejects the user, or no run has looked at the app for longer than max_gap.';

CREATE VIEW account_coverage AS
SELECT a.app_id, a.name AS app, coalesce(c.imported, 0) AS imported, coalesce(c.not_imported, 0) AS not_imported,
       coalesce(n.users, 0) AS never_checked, o.seen_since AS last_checked_at
FROM app AS a
LEFT JOIN (
    SELECT app_id, count(*) FILTER (WHERE status = 'imported') AS imported,
           count(*) FILTER (WHERE status = 'not_imported') AS not_imported
    FROM account_snapshot
    GROUP BY app_id
) AS c USING (app_id)
LEFT JOIN (
    SELECT k.app_id, count(*) AS users
    FROM (
        SELECT app_id, user_id FROM presence_snapshot
        UNION
        SELECT app_id, user_id FROM user_failure WHERE user_id <> ''
    ) AS k
    WHERE NOT EXISTS (SELECT FROM account_snapshot AS s WHERE s.app_id = k.app_id AND s.user_id = k.user_id)
    GROUP BY k.app_id
) AS n USING (app_id)
LEFT JOIN sync_observed AS o ON o.app_id = a.app_id AND o.kind = 'accounts';
COMMENT ON VIEW account_coverage IS 'Which users the IM backend knows: one row per app.';
COMMENT ON COLUMN account_coverage.app_id IS 'The app.';
COMMENT ON COLUMN account_coverage.app IS 'Its name.';
COMMENT ON COLUMN account_coverage.imported IS 'Users the backend knows.';
COMMENT ON COLUMN account_coverage.not_imported IS 'Users it does not know.';
COMMENT ON COLUMN account_coverage.never_checked IS 'Users known from presence, or failing, of whom no import status is known.';
COMMENT ON COLUMN account_coverage.last_checked_at IS 'When the newest complete run of kind accounts was started; null: there was none.';

-- +goose Down

DROP VIEW account_coverage;
DROP VIEW account_current;
DROP VIEW presence_concurrency;
DROP VIEW presence_current;
DROP VIEW app_patience;
DROP VIEW presence_session;
DROP VIEW presence_open_stretch;
DROP VIEW presence_ended_stretch;
DROP FUNCTION presence_gaps;
DROP VIEW sync_gap;
DROP VIEW sync_observed;
DROP INDEX presence_count_observed;
DROP INDEX account_history_observed;
DROP INDEX presence_history_observed;
DROP INDEX presence_history_stretch;
DROP FUNCTION day_start;
DROP FUNCTION as_of;
