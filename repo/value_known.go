package repo

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"syncer/internal/pg"
)

// Snapshot is the newest known value of one user. The zero Snapshot means that there is
// none.
type Snapshot[V comparable] struct {
	Value     V
	ChangedAt time.Time // when the answer with this value arrived
	AskedAt   time.Time // when its question was sent
}

// Exists reports whether there is one.
func (s *Snapshot[V]) Exists() bool { return s != nil && !s.ChangedAt.IsZero() }

// Known is what the tables have of the users of a page.
type Known[V comparable] struct {
	Snapshots []Snapshot[V] // of the users, in their order; nil: none has one
	// Failing are the users with a user_failure row.
	Failing map[string]KnownFailure
}

// Snapshot returns the snapshot of the user at a place among those asked about. It may be
// nil, which does not exist.
func (k *Known[V]) Snapshot(at int) *Snapshot[V] {
	if k.Snapshots == nil {
		return nil
	}
	return &k.Snapshots[at]
}

// KnownFailure is a user_failure row.
type KnownFailure struct {
	Code string
	// KnownAt is when the user was last known to have the value of the snapshot, zero if
	// there was none.
	KnownAt time.Time
	LastAt  time.Time // when it was last recorded
}

// Snapshots and failures are read in the order of their keys up to a limit. Without
// statistics the planner would sort.
const inOrderSQL = `
SELECT set_config('enable_bitmapscan', 'off', true),
       set_config('enable_seqscan', 'off', true),
       set_config('enable_sort', 'off', true)`

const loadFailingSQL = `
SELECT user_id, code, known_at, last_at
FROM syncer.user_failure
WHERE app_id = $1 AND kind = $2 AND user_id BETWEEN $3 AND $4
ORDER BY user_id
LIMIT $5`

const findFailingSQL = `
SELECT f.user_id, f.code, f.known_at, f.last_at
FROM unnest($3::text[]) AS asked (user_id)
CROSS JOIN LATERAL (
    SELECT user_id, code, known_at, last_at
    FROM syncer.user_failure
    WHERE app_id = $1 AND kind = $2 AND user_id = asked.user_id
    LIMIT 1
) AS f
ORDER BY f.user_id`

// Load returns what is known about users, whose ids must be distinct and ascending. It reads
// all rows from the first id to the last, which is several times as fast as looking up
// each: the users of a page are usually neighbours in our tables too. If many others lie
// between them, it looks up each, now and in later calls.
func (v *Values[V]) Load(ctx context.Context, appID int16, ids []string) (Known[V], error) {
	if len(ids) == 0 {
		return Known[V]{}, nil
	}
	if !v.scattered.Load() {
		known, whole, err := v.load(ctx, appID, ids)
		if whole || err != nil {
			return known, err
		}
		v.scattered.Store(true)
	}
	return v.find(ctx, appID, ids)
}

// load reads all rows from the first id to the last. It reports false if there are too many.
func (v *Values[V]) load(ctx context.Context, appID int16, ids []string) (known Known[V], whole bool, err error) {
	limit := 2*len(ids) + 100
	first, last := ids[0], ids[len(ids)-1]
	var batch pgx.Batch
	batch.Queue(inOrderSQL)
	found := v.collect(ids, &known)
	snapshots, failures := 0, 0
	batch.Queue(v.loadSQL, appID, first, last, limit).Query(found.snapshots(&snapshots))
	batch.Queue(loadFailingSQL, appID, v.kind, first, last, limit).Query(found.failures(&failures))
	if err := v.store.RunBatch(ctx, &batch); err != nil {
		return Known[V]{}, false, fmt.Errorf("load %d %s snapshots: %w", len(ids), v.kind, err)
	}
	return known, snapshots < limit && failures < limit, nil
}

// find looks up each id.
func (v *Values[V]) find(ctx context.Context, appID int16, ids []string) (known Known[V], err error) {
	var batch pgx.Batch
	found := v.collect(ids, &known)
	var n int
	batch.Queue(v.findSQL, appID, ids).Query(found.snapshots(&n))
	batch.Queue(findFailingSQL, appID, v.kind, ids).Query(found.failures(&n))
	if err := v.store.RunBatch(ctx, &batch); err != nil {
		return Known[V]{}, fmt.Errorf("find %d %s snapshots: %w", len(ids), v.kind, err)
	}
	return known, nil
}

// collector assigns rows, which are in the order of their user ids, to ids.
type collector[V comparable] struct {
	values *Values[V]
	ids    []string
	known  *Known[V]
}

func (v *Values[V]) collect(ids []string, known *Known[V]) collector[V] {
	return collector[V]{v, ids, known}
}

// upTo skips the ids before id, and reports whether id is the next.
func upTo(ids []string, at *int, id pg.RawText) bool {
	for *at < len(ids) && ids[*at] < string(id) {
		*at++
	}
	return *at < len(ids) && ids[*at] == string(id)
}

func (c collector[V]) snapshots(n *int) func(pgx.Rows) error {
	return func(rows pgx.Rows) error {
		defer rows.Close()
		scan := c.values.scanner()
		at := 0
		for rows.Next() {
			*n++
			id, snapshot, err := scan(rows)
			if err != nil {
				return err
			}
			if !upTo(c.ids, &at, id) {
				continue
			}
			if c.known.Snapshots == nil {
				// In a first load there are none, and many pages wait to be written.
				c.known.Snapshots = make([]Snapshot[V], len(c.ids))
			}
			c.known.Snapshots[at] = snapshot
		}
		return rows.Err()
	}
}

func (c collector[V]) failures(n *int) func(pgx.Rows) error {
	return func(rows pgx.Rows) error {
		defer rows.Close()
		var id, code pg.RawText
		var knownAt *time.Time
		var lastAt time.Time
		columns := []any{&id, &code, &knownAt, &lastAt}
		at := 0
		for rows.Next() {
			*n++
			if err := rows.Scan(columns...); err != nil {
				return err
			}
			if !upTo(c.ids, &at, id) {
				continue
			}
			if c.known.Failing == nil {
				c.known.Failing = make(map[string]KnownFailure)
			}
			failure := KnownFailure{Code: string(code), LastAt: lastAt}
			if knownAt != nil {
				failure.KnownAt = *knownAt
			}
			c.known.Failing[c.ids[at]] = failure
		}
		return rows.Err()
	}
}
