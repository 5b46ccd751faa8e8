package repo

import (
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"syncer/imclient"
	"syncer/internal/pg"
)

const loadPresenceSQL = `
SELECT user_id, state::text, platforms::text, changed_at, asked_at
FROM syncer.presence_snapshot
WHERE app_id = $1 AND user_id BETWEEN $2 AND $3
ORDER BY user_id
LIMIT $4`

// LATERAL with LIMIT makes the planner look up each id by the primary key. Without
// statistics, in a table that has just been filled, it would read the whole table for
// each page.
const findPresenceSQL = `
SELECT s.user_id, s.state::text, s.platforms::text, s.changed_at, s.asked_at
FROM unnest($2::text[]) AS asked (user_id)
CROSS JOIN LATERAL (
    SELECT *
    FROM syncer.presence_snapshot
    WHERE app_id = $1 AND user_id = asked.user_id
    LIMIT 1
) AS s
ORDER BY s.user_id`

// One statement writes snapshot and history of what changed. A snapshot is updated only if
// it is still the one that the change was compared with, and its answer arrived before the
// question of the change was sent: which of two overlapping questions was answered first,
// only the backend knows. Only users whose snapshot was written get a row of the history,
// so replaying a page writes nothing. That row has the start of the previous state, and so
// describes a whole stretch, whatever retention has dropped. The snapshot keeps the end of
// the last stretch online; a user without a snapshot, also in firstSeen, has none. The
// provider's own time counts only within the bracket: it is evidence, not a bound.
const savePresenceSQL = `
WITH changed AS (
    SELECT c.user_id, c.prev_changed_at, c.not_before, c.asked_at, c.observed_at,
           c.state::syncer.presence_state AS state, c.platforms::jsonb AS platforms,
           c.prev_state::syncer.presence_state AS prev_state,
           CASE WHEN c.told_at > c.not_before AND c.told_at <= c.observed_at THEN c.told_at END AS told_at
    FROM unnest($3::text[], $4::timestamptz[], $5::timestamptz[], $6::timestamptz[], $7::timestamptz[],
                $8::text[], $9::text[], $10::text[], $11::timestamptz[])
        AS c (user_id, prev_changed_at, not_before, asked_at, observed_at, state, platforms, prev_state, told_at)
), updated AS (
    UPDATE syncer.presence_snapshot AS s
    SET state = c.state, platforms = c.platforms, changed_at = c.observed_at, asked_at = c.asked_at, run_id = $2,
        since = CASE WHEN s.state = c.state THEN s.since ELSE c.observed_at END,
        since_after = CASE WHEN s.state = c.state THEN s.since_after ELSE c.not_before END,
        told_at = CASE WHEN s.state = c.state THEN s.told_at ELSE c.told_at END,
        last_online_after = CASE WHEN c.state = 'online' THEN NULL WHEN s.state = 'online' THEN c.not_before ELSE s.last_online_after END,
        last_online_at = CASE WHEN c.state = 'online' THEN NULL WHEN s.state = 'online' THEN c.observed_at ELSE s.last_online_at END
    FROM changed AS c
    CROSS JOIN LATERAL (
        SELECT since, since_after, told_at
        FROM syncer.presence_snapshot
        WHERE app_id = $1 AND user_id = c.user_id
        LIMIT 1
    ) AS prev
    WHERE s.app_id = $1 AND s.user_id = c.user_id
      AND s.changed_at = c.prev_changed_at AND s.changed_at <= c.asked_at AND s.changed_at < c.observed_at
    RETURNING c.user_id, c.prev_state, prev.since AS prev_since, prev.since_after AS prev_since_after, prev.told_at AS prev_told_at,
              c.state, c.platforms, c.not_before, c.observed_at, c.told_at
), inserted AS (
    INSERT INTO syncer.presence_snapshot (app_id, user_id, state, platforms, changed_at, asked_at, run_id, since)
    SELECT $1, user_id, state, platforms, observed_at, asked_at, $2, observed_at
    FROM changed
    WHERE prev_changed_at IS NULL
    ORDER BY user_id
    ON CONFLICT DO NOTHING
    RETURNING user_id, state, platforms, changed_at
), recorded AS (
    INSERT INTO syncer.presence_history (app_id, user_id, prev_state, prev_since, prev_since_after, prev_told_at, state, platforms, not_before, observed_at, told_at, run_id)
    SELECT $1, user_id, prev_state, prev_since, prev_since_after, prev_told_at, state, platforms, not_before, observed_at, told_at, $2
    FROM (
        SELECT user_id, prev_state, prev_since, prev_since_after, prev_told_at, state, platforms, not_before, observed_at, told_at FROM updated
        UNION ALL
        SELECT user_id, NULL, NULL, NULL, NULL, state, platforms, NULL, changed_at, NULL FROM inserted
    ) AS written
    ORDER BY user_id
)
SELECT (SELECT count(*) FROM updated) + (SELECT count(*) FROM inserted)`

// The snapshot of a user who lapses or leaves is deleted, with a row of the history. A user
// answered since, on another page, has no user_failure any more and does not lapse.
const lapsePresenceSQL = `
WITH gone AS (
    DELETE FROM syncer.presence_snapshot AS s
    USING ` + lapsesSQL + `
    WHERE s.app_id = $1 AND s.user_id = l.user_id
      AND s.changed_at = l.prev_changed_at AND s.changed_at <= l.asked_at AND s.changed_at < l.observed_at
      AND EXISTS (SELECT FROM syncer.user_failure AS f WHERE f.app_id = $1 AND f.kind = 'presence' AND f.user_id = l.user_id)
    RETURNING s.user_id, s.state AS prev_state, s.since AS prev_since, s.since_after AS prev_since_after, s.told_at AS prev_told_at,
              'rejected'::syncer.presence_state AS state, l.not_before, l.observed_at
)` + leavePresenceSQL

const removePresenceSQL = `
WITH gone AS (
    DELETE FROM syncer.presence_snapshot AS s
    WHERE ` + leftUsersTableSQL + `
    RETURNING s.user_id, s.state AS prev_state, s.since AS prev_since, s.since_after AS prev_since_after, s.told_at AS prev_told_at,
              'removed'::syncer.presence_state AS state, ` + lastKnownSQL + ` AS not_before, $6::timestamptz AS observed_at
)` + leavePresenceSQL

// Users who left, and users known before: see Leavers.
const leaversPresenceSQL = `
SELECT gone.users, greatest(gone.users, least(snapshots.users, ` + prevKnownSQL + `))
FROM (
    SELECT count(*) AS users
    FROM syncer.presence_snapshot
    WHERE app_id = $1
) AS snapshots
CROSS JOIN (
    SELECT count(*) AS users
    FROM syncer.presence_snapshot AS s
    WHERE ` + leftUsersTableSQL + `
) AS gone`

// The rows of the users table whose user has a snapshot, as a Population; NULL if a user has
// a snapshot and no row.
const countPresenceSQL = `
SELECT CASE WHEN count(*) = count(u.user_id) THEN count(*) END, (coalesce(sum(u.hash), 0) % 4611686018427387904)::bigint
FROM syncer.presence_snapshot AS s
LEFT JOIN pg_temp.sync_users AS u USING (user_id)
WHERE s.app_id = $1`

const leavePresenceSQL = `
INSERT INTO syncer.presence_history (app_id, user_id, prev_state, prev_since, prev_since_after, prev_told_at, state, platforms, not_before, observed_at, run_id)
SELECT $1, user_id, prev_state, prev_since, prev_since_after, prev_told_at, state, '{}', not_before, observed_at, $2
FROM gone
ORDER BY user_id`

// Presence returns access to the presence snapshots and their history.
func (s *Store) Presence() *Values[imclient.Presence] {
	return &Values[imclient.Presence]{
		store:      s,
		kind:       imclient.KindPresence,
		loadSQL:    loadPresenceSQL,
		findSQL:    findPresenceSQL,
		saveSQL:    savePresenceSQL,
		lapseSQL:   lapsePresenceSQL,
		removeSQL:  removePresenceSQL,
		leaversSQL: leaversPresenceSQL,
		countSQL:   countPresenceSQL,
		scanner:    presenceScanner,
		columns:    presenceColumns,
		firstSeen: []copyTo[imclient.Presence]{
			{"presence_snapshot", []string{"state", "platforms", "changed_at", "asked_at", "since"}, func(c *Change[imclient.Presence]) []any {
				return []any{c.Value.State.String(), c.Value.Platforms.String(), c.ObservedAt, earlier(c.AskedAt, c.ObservedAt), c.ObservedAt}
			}},
			{"presence_history", []string{"state", "platforms", "observed_at"}, func(c *Change[imclient.Presence]) []any {
				return []any{c.Value.State.String(), c.Value.Platforms.String(), c.ObservedAt}
			}},
		},
	}
}

// presenceScanner caches the values that it has read: there are few different ones.
func presenceScanner() func(pgx.Rows) (pg.RawText, Snapshot[imclient.Presence], error) {
	read := make(map[string]imclient.Presence)
	var id, state, platforms pg.RawText
	var s Snapshot[imclient.Presence]
	columns := []any{&id, &state, &platforms, &s.ChangedAt, &s.AskedAt}
	var both []byte
	return func(rows pgx.Rows) (pg.RawText, Snapshot[imclient.Presence], error) {
		if err := rows.Scan(columns...); err != nil {
			return nil, s, err
		}
		both = append(append(both[:0], state...), platforms...)
		value, ok := read[string(both)]
		if !ok {
			var err error
			if value, err = parsePresence(string(state), platforms); err != nil {
				return nil, s, fmt.Errorf("presence of user %s: %w", id, err)
			}
			read[string(both)] = value
		}
		s.Value = value
		return id, s, nil
	}
}

func parsePresence(state string, platforms []byte) (p imclient.Presence, err error) {
	if p.State, err = imclient.ParseState(state); err != nil {
		return p, err
	}
	p.Platforms, err = imclient.ParsePlatforms(platforms)
	return p, err
}

// presenceColumns are $8 state, $9 platforms, $10 prev_state, $11 told_at.
func presenceColumns(changes []Change[imclient.Presence]) []any {
	states, platforms := make([]string, len(changes)), make([]string, len(changes))
	prevStates, toldAt := make([]*string, len(changes)), make([]*time.Time, len(changes))
	for i := range changes {
		c := &changes[i]
		states[i], platforms[i] = c.Value.State.String(), c.Value.Platforms.String()
		if c.Prev != nil {
			prev := c.Prev.Value.State.String()
			prevStates[i] = &prev
		}
		if !c.ToldAt.IsZero() {
			toldAt[i] = &c.ToldAt
		}
	}
	return []any{states, platforms, prevStates, toldAt}
}
