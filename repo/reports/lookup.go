package reports

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"syncer/internal/pg"
)

// AppRow is an app.
type AppRow struct {
	AppID    int16
	Name     string
	Provider string
}

const appsSQL = `
SELECT app_id, name, provider
FROM syncer.app
ORDER BY name`

// Apps returns all apps, by name.
func (r *Reader) Apps(ctx context.Context) ([]AppRow, error) {
	return read[AppRow](ctx, r, "the apps", appsSQL)
}

// Observed is what has to be known of an app to look its users up.
type Observed struct {
	AppID int16
	Name  string
	// SeenSince is when the newest complete presence run began, nil if there is none.
	SeenSince *time.Time
	// Gap means that users have not been observed since.
	Gap bool
	// Patience is how long after a look a value is not stale yet; nil if there was a
	// complete run.
	Patience *time.Duration
}

const observedSQL = `
SELECT a.app_id, a.name, o.seen_since, g.app_id IS NOT NULL, CASE WHEN o.app_id IS NULL THEN p.max_gap END
FROM syncer.app AS a
JOIN syncer.app_patience AS p ON p.app_id = a.app_id AND p.kind = 'presence'
LEFT JOIN syncer.sync_observed AS o ON o.app_id = a.app_id AND o.kind = 'presence'
LEFT JOIN syncer.sync_gap AS g ON g.app_id = a.app_id AND g.kind = 'presence' AND g.ended_at IS NULL`

// ReadObserved returns what has to be known of all apps to look users up.
func ReadObserved(ctx context.Context, q pg.Querier) ([]Observed, error) {
	rows, err := pg.Collect(ctx, q, pgx.RowToStructByPos[Observed], observedSQL)
	if err != nil {
		return nil, fmt.Errorf("read the apps: %w", err)
	}
	return rows, nil
}

// PresenceRow is the newest known presence of a user.
type PresenceRow struct {
	UserID     string
	State      string
	Platforms  json.RawMessage
	SinceAfter *time.Time
	Since      time.Time
	// The user was last online after the first and no later than the second. The latter
	// is nil while the user is online, and both if the user was not seen online.
	LastOnlineAfter, LastOnlineAt *time.Time
	LastCheckedAt                 time.Time
	Stale                         bool
}

// It is presence_current by primary key, with what is the same for all users of an app in
// parameters: $3 seen_since, $4 whether there is an open gap, $5 patience.
const presenceSQL = `
SELECT s.user_id, s.state::text, s.platforms, s.since_after, s.since,
       CASE WHEN s.state = 'online' THEN seen.last_checked_at ELSE s.last_online_after END,
       CASE WHEN s.state <> 'online' THEN s.last_online_at END,
       seen.last_checked_at,
       f.user_id IS NOT NULL OR $4 OR coalesce(s.asked_at + $5::interval < syncer.as_of(), false)
FROM syncer.presence_snapshot AS s
LEFT JOIN syncer.user_failure AS f ON f.app_id = s.app_id AND f.kind = 'presence' AND f.user_id = s.user_id
CROSS JOIN LATERAL (
    SELECT greatest(s.asked_at, CASE WHEN f.user_id IS NOT NULL THEN f.known_at WHEN s.changed_at <= $3 THEN $3 END) AS last_checked_at
) AS seen
WHERE s.app_id = $1 AND s.user_id = ANY ($2)`

// Presence returns the newest known presence of some users of an app, in no order.
// Users of whom nothing is known have no row. What is known of the app may be older than
// the rows: they are then as of its time.
func Presence(ctx context.Context, q pg.Querier, app Observed, users []string) ([]PresenceRow, error) {
	rows, err := q.Query(ctx, presenceSQL, app.AppID, users, app.SeenSince, app.Gap, app.Patience)
	if err != nil {
		return nil, fmt.Errorf("read the presence: %w", err)
	}
	defer rows.Close()
	all := make([]PresenceRow, 0, len(users))
	for rows.Next() {
		var r PresenceRow
		if err := rows.Scan(&r.UserID, &r.State, (*[]byte)(&r.Platforms), &r.SinceAfter, &r.Since, &r.LastOnlineAfter, &r.LastOnlineAt, &r.LastCheckedAt, &r.Stale); err != nil {
			return nil, fmt.Errorf("read the presence: %w", err)
		}
		all = append(all, r)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read the presence: %w", err)
	}
	return all, nil
}

// TransitionRow is a row of the history of presence.
type TransitionRow struct {
	PrevState  *string         `json:"prev_state"` // nil: first seen
	State      string          `json:"state"`
	Platforms  json.RawMessage `json:"platforms"`
	NotBefore  *time.Time      `json:"not_before"`
	ObservedAt time.Time       `json:"observed_at"`
	RunID      int64           `json:"run_id"`
}

const transitionsSQL = `
SELECT prev_state::text, state::text, platforms, not_before, observed_at, run_id
FROM syncer.presence_history
WHERE app_id = $1 AND user_id = $2 AND observed_at >= $3 AND observed_at < $4 AND observed_at > $5
ORDER BY observed_at
LIMIT $6`

// Transitions returns the transitions of a user that were observed from a time on,
// before another and after a third, the oldest first, at most limit.
func Transitions(ctx context.Context, q pg.Querier, appID int16, userID string, from, to, after time.Time, limit int) ([]TransitionRow, error) {
	rows, err := pg.Collect(ctx, q, pgx.RowToStructByPos[TransitionRow], transitionsSQL, appID, userID, from, to, after, limit)
	if err != nil {
		return nil, fmt.Errorf("read the user's history: %w", err)
	}
	return rows, nil
}

// The transition before the first one of the span tells the state at its beginning.
const timelineSQL = `
SELECT prev_state::text, state::text, platforms, not_before, observed_at, run_id
FROM (
    SELECT *
    FROM syncer.presence_history
    WHERE app_id = $1 AND user_id = $2
      AND observed_at >= coalesce((
          SELECT max(observed_at)
          FROM syncer.presence_history
          WHERE app_id = $1 AND user_id = $2 AND observed_at < $3), $3)
    ORDER BY observed_at DESC
    LIMIT $4
) AS newest
ORDER BY observed_at`

// Timeline returns the transitions of a user since a time and the one before it, the
// oldest first; the newest if there are more than limit.
func (r *Reader) Timeline(ctx context.Context, appID int16, userID string, since time.Time, limit int) ([]TransitionRow, error) {
	return read[TransitionRow](ctx, r, "the user's history", timelineSQL, appID, userID, since, limit)
}

// OnlineRow counts the users of an app as its newest complete presence run found them.
// The counts are nil if that run had no answer about any user.
type OnlineRow struct {
	App        string           `json:"app"`
	RunID      int64            `json:"run_id"`
	ObservedAt time.Time        `json:"observed_at"` // when the run ended
	Users      int64            `json:"users"`
	Online     *int64           `json:"online"`
	PushOnline *int64           `json:"push_online"`
	Offline    *int64           `json:"offline"`
	Platforms  map[string]int64 `json:"platforms"` // of the users online; one on two counts for both
	GapSince   *time.Time       `json:"gap_since"` // users have not been observed since
}

const onlineSQL = `
SELECT c.app, c.run_id, c.observed_at, c.users, c.online, c.push_online, c.offline, c.platforms, g.started_at
FROM syncer.app AS a
CROSS JOIN LATERAL (
    SELECT run_id
    FROM syncer.presence_count
    WHERE app_id = a.app_id
    ORDER BY observed_at DESC
    LIMIT 1
) AS newest
JOIN syncer.presence_concurrency AS c ON c.app_id = a.app_id AND c.run_id = newest.run_id
LEFT JOIN syncer.sync_gap AS g ON g.app_id = a.app_id AND g.kind = 'presence' AND g.ended_at IS NULL
ORDER BY c.app`

// OnlineNow returns how many users are online, of apps with a complete presence run.
func (r *Reader) OnlineNow(ctx context.Context) ([]OnlineRow, error) {
	return read[OnlineRow](ctx, r, "how many are online", onlineSQL)
}
