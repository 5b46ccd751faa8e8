-- The newest complete run saw a user in the state of the snapshot only if the snapshot
-- was there when the run began: an answer that came later may have overtaken the run's
-- own. Then the user was last seen in it when the snapshot's own question was sent. The
-- program's not_before follows the same rule.

-- +goose Up

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

CREATE OR REPLACE VIEW presence_current AS
SELECT s.app_id, a.app, s.user_id, s.state, s.platforms, s.since_after, s.since,
       greatest(s.asked_at, CASE WHEN f.user_id IS NOT NULL THEN f.known_at WHEN s.changed_at <= o.seen_since THEN o.seen_since END) AS last_checked_at,
       f.user_id IS NOT NULL OR g.app_id IS NOT NULL OR o.app_id IS NULL AND s.asked_at + a.max_gap < as_of() AS stale
FROM presence_snapshot AS s
JOIN app_patience AS a ON a.app_id = s.app_id AND a.kind = 'presence'
LEFT JOIN sync_observed AS o ON o.app_id = s.app_id AND o.kind = 'presence'
LEFT JOIN user_failure AS f ON f.app_id = s.app_id AND f.kind = 'presence' AND f.user_id = s.user_id
LEFT JOIN sync_gap AS g ON g.app_id = s.app_id AND g.kind = 'presence' AND g.ended_at IS NULL;

CREATE OR REPLACE VIEW account_current AS
SELECT s.app_id, a.app, s.user_id, s.status, s.changed_at AS since,
       greatest(s.asked_at, CASE WHEN f.user_id IS NOT NULL THEN f.known_at WHEN s.changed_at <= o.seen_since THEN o.seen_since END) AS last_checked_at,
       f.user_id IS NOT NULL OR g.app_id IS NOT NULL OR o.app_id IS NULL AND s.asked_at + a.max_gap < as_of() AS stale
FROM account_snapshot AS s
JOIN app_patience AS a ON a.app_id = s.app_id AND a.kind = 'accounts'
LEFT JOIN sync_observed AS o ON o.app_id = s.app_id AND o.kind = 'accounts'
LEFT JOIN user_failure AS f ON f.app_id = s.app_id AND f.kind = 'accounts' AND f.user_id = s.user_id
LEFT JOIN sync_gap AS g ON g.app_id = s.app_id AND g.kind = 'accounts' AND g.ended_at IS NULL;

-- +goose Down

CREATE OR REPLACE VIEW account_current AS
SELECT s.app_id, a.app, s.user_id, s.status, s.changed_at AS since,
       greatest(s.asked_at, CASE WHEN f.user_id IS NULL THEN o.seen_since ELSE f.known_at END) AS last_checked_at,
       f.user_id IS NOT NULL OR g.app_id IS NOT NULL OR o.app_id IS NULL AND s.asked_at + a.max_gap < as_of() AS stale
FROM account_snapshot AS s
JOIN app_patience AS a ON a.app_id = s.app_id AND a.kind = 'accounts'
LEFT JOIN sync_observed AS o ON o.app_id = s.app_id AND o.kind = 'accounts'
LEFT JOIN user_failure AS f ON f.app_id = s.app_id AND f.kind = 'accounts' AND f.user_id = s.user_id
LEFT JOIN sync_gap AS g ON g.app_id = s.app_id AND g.kind = 'accounts' AND g.ended_at IS NULL;

CREATE OR REPLACE VIEW presence_current AS
SELECT s.app_id, a.app, s.user_id, s.state, s.platforms, s.since_after, s.since,
       greatest(s.asked_at, CASE WHEN f.user_id IS NULL THEN o.seen_since ELSE f.known_at END) AS last_checked_at,
       f.user_id IS NOT NULL OR g.app_id IS NOT NULL OR o.app_id IS NULL AND s.asked_at + a.max_gap < as_of() AS stale
FROM presence_snapshot AS s
JOIN app_patience AS a ON a.app_id = s.app_id AND a.kind = 'presence'
LEFT JOIN sync_observed AS o ON o.app_id = s.app_id AND o.kind = 'presence'
LEFT JOIN user_failure AS f ON f.app_id = s.app_id AND f.kind = 'presence' AND f.user_id = s.user_id
LEFT JOIN sync_gap AS g ON g.app_id = s.app_id AND g.kind = 'presence' AND g.ended_at IS NULL;

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
