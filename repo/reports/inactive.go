package reports

import (
	"context"
	"time"
)

// InactiveRow is a user who was not online in a span that ends now, as far as it was
// observed.
type InactiveRow struct {
	App             string     `json:"app"`
	UserID          string     `json:"user_id"`
	State           string     `json:"state"`             // offline or push_online
	LastOnlineAfter *time.Time `json:"last_online_after"` // the bracket of the end of being online; nil: not seen online since first seen
	LastOnlineAt    *time.Time `json:"last_online_at"`
	AccountStatus   *string    `json:"account_status"` // nil: never checked
	AccountSince    *time.Time `json:"account_since"`
	ObservedFrom    time.Time  `json:"observed_from"` // the beginning of the span, or when the user was first seen
	ObservedUntil   time.Time  `json:"observed_until"`
	ObservedSeconds float64    `json:"observed_seconds"` // from observed_from to observed_until, without gaps
	ObservedShare   float64    `json:"observed_share"`   // of the span
}

// A user who was online before the span was known then. One who was never online has been
// known since the state began, if it was first seen in it; else the history may know, or its
// beginning was dropped. Gaps are computed once, and are few.
const inactiveSQL = `
WITH gap AS MATERIALIZED (
    SELECT g.app_id, g.started_at, coalesce(g.ended_at, 'infinity') AS ended_at
    FROM syncer.sync_gap AS g
    WHERE g.kind = 'presence' AND coalesce(g.ended_at, 'infinity') > $2::timestamptz
)
SELECT c.app, c.user_id, c.state::text, c.last_online_after, c.last_online_at, a.status::text, a.since,
       k.observed_from, k.observed_until, o.seconds, o.seconds / extract(epoch FROM $3::timestamptz - $2::timestamptz)::float8
FROM syncer.presence_current AS c
LEFT JOIN syncer.account_current AS a ON a.app_id = c.app_id AND a.user_id = c.user_id
CROSS JOIN LATERAL (
    SELECT CASE
               WHEN c.last_online_after IS NOT NULL OR c.since_after <= $2::timestamptz THEN $2::timestamptz
               WHEN c.since_after IS NULL THEN c.since
               ELSE coalesce((
                   SELECT max(h.observed_at)
                   FROM syncer.presence_history AS h
                   WHERE h.app_id = c.app_id AND h.user_id = c.user_id AND h.prev_state IS NULL
               ), $2::timestamptz)
           END AS known_since
) AS f
CROSS JOIN LATERAL (
    SELECT greatest(f.known_since, $2::timestamptz) AS observed_from, greatest(c.last_checked_at, f.known_since, $2::timestamptz) AS observed_until
) AS k
CROSS JOIN LATERAL (
    SELECT extract(epoch FROM k.observed_until - k.observed_from - coalesce(sum(least(g.ended_at, k.observed_until) - greatest(g.started_at, k.observed_from)), '0'))::float8 AS seconds
    FROM gap AS g
    WHERE g.app_id = c.app_id AND g.started_at < k.observed_until AND g.ended_at > k.observed_from
) AS o
WHERE ($1::text IS NULL OR c.app = $1)
  AND c.state <> 'online' AND (c.last_online_after IS NULL OR c.last_online_at < $2::timestamptz)
ORDER BY c.app, c.last_online_at NULLS FIRST, c.user_id`

// Inactive returns the users who were surely not online in a span, or never, with how much
// of it was observed. The span ends at the present.
func (r *Reader) Inactive(ctx context.Context, s Span) ([]InactiveRow, error) {
	return read[InactiveRow](ctx, r, "the inactive users", inactiveSQL, s.App, s.From, s.To)
}
