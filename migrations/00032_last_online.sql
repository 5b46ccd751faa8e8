-- When each user was last seen online, kept in the snapshot: since is the start of the
-- state, so going from push_online to offline resets it, and the history takes long to ask.

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

-- +goose Down

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
