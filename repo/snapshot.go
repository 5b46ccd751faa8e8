package repo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"syncer/imclient"
)

// Snapshot is the newest known value of one user.
type Snapshot[V comparable] struct {
	Value     V
	ChangedAt time.Time // when the answer with this value arrived
	AskedAt   time.Time // when its question was sent
}

// Known is what the tables say about the users of a page.
type Known[V comparable] struct {
	Snapshots map[string]Snapshot[V]
	// Failing are the users with a user_failure row.
	Failing map[string]bool
}

// Change is a user whose value is new or differs from the snapshot.
type Change[V comparable] struct {
	UserID     string
	Value      V
	Prev       *Snapshot[V] // the snapshot it was compared with; nil: first seen
	NotBefore  time.Time    // ignored when Prev is nil
	AskedAt    time.Time
	ObservedAt time.Time
}

// Page is all that one page of a range leads to; SavePage writes it at once.
type Page[V comparable] struct {
	LastKey  string      // the range goes on after this key
	Changes  []Change[V] // sorted by user id, each user once
	Failures []imclient.UserError
	// Recovered are users of the page that had a user_failure row and have a
	// value now.
	Recovered []string
	Counters              // Changed is ignored: what was written counts
	Counts    RangeCounts // of the whole range so far
}

// RangeCounts counts the users of a range by state and platform; the platform
// "all" counts each user once.
type RangeCounts map[string]map[string]int64

// Values reads and writes the snapshots and history of one kind.
type Values[V comparable] struct {
	store   *Store
	kind    imclient.Kind
	loadSQL string
	saveSQL string
	// scan reads the value columns of loadSQL.
	scan func(row pgx.CollectableRow, userID *string, snapshot *Snapshot[V]) error
	// columns gives the arguments of saveSQL after the common ones.
	columns func(changes []Change[V]) []any
}

const failingSQL = `
SELECT user_id
FROM syncer.user_failure
WHERE app_id = $1 AND kind = $2 AND user_id = ANY ($3)`

// Load gives what is known about users, in one round trip.
func (v *Values[V]) Load(ctx context.Context, appID int16, ids []string) (Known[V], error) {
	known := Known[V]{Snapshots: make(map[string]Snapshot[V], len(ids))}
	var batch pgx.Batch
	batch.Queue(v.store.sql(v.loadSQL), appID, ids).Query(func(rows pgx.Rows) error {
		defer rows.Close()
		for rows.Next() {
			var id string
			var snapshot Snapshot[V]
			if err := v.scan(rows, &id, &snapshot); err != nil {
				return err
			}
			known.Snapshots[id] = snapshot
		}
		return rows.Err()
	})
	batch.Queue(v.store.sql(failingSQL), appID, v.kind, ids).Query(func(rows pgx.Rows) error {
		failing, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if len(failing) > 0 {
			known.Failing = make(map[string]bool, len(failing))
			for _, id := range failing {
				known.Failing[id] = true
			}
		}
		return err
	})
	if err := v.store.pool.SendBatch(ctx, &batch).Close(); err != nil {
		return Known[V]{}, fmt.Errorf("load %d %s snapshots: %w", len(ids), v.kind, err)
	}
	return known, nil
}

// The fence. The run is locked against being closed, the range against being
// claimed by another worker, until the page is committed.
const fenceRunSQL = `
SELECT true
FROM syncer.sync_run
WHERE run_id = $1 AND status = 'running'
FOR SHARE`

const fenceRangeSQL = `
SELECT true
FROM syncer.sync_range
WHERE run_id = $1 AND range_no = $2 AND attempt = $3 AND status = 'running'
FOR UPDATE`

const saveFailuresSQL = `
INSERT INTO syncer.user_failure AS f (app_id, kind, user_id, code, message, first_at, last_at, times)
SELECT $1, $2, n.user_id, n.code, n.message, $3, $3, 1
FROM unnest($4::text[], $5::text[], $6::text[]) AS n (user_id, code, message)
ORDER BY n.user_id
ON CONFLICT (app_id, kind, user_id) DO UPDATE
SET code = excluded.code, message = excluded.message, last_at = excluded.last_at, times = f.times + 1`

const dropFailuresSQL = `
DELETE FROM syncer.user_failure
WHERE app_id = $1 AND kind = $2 AND user_id = ANY ($3)`

const moveRangeSQL = `
UPDATE syncer.sync_range
SET cursor_key = $4, users = users + $5, changed = changed + $6, failed = failed + $7,
    calls = calls + $8, retries = retries + $9, counts = $10, beat_at = $11
WHERE run_id = $1 AND range_no = $2 AND attempt = $3`

// SavePage writes a page and moves the range's cursor past it, in one
// transaction, or nothing at all. It returns how many users were changed: a
// change whose snapshot is no longer the one it was compared with (the same
// user on two pages) is left out. ErrGone: the range has another owner, or the
// run is closed.
func (v *Values[V]) SavePage(ctx context.Context, r *Range, p Page[V]) (int64, error) {
	counts, err := json.Marshal(p.Counts)
	if err != nil {
		return 0, fmt.Errorf("write counts: %w", err)
	}
	var changed int64
	err = v.store.inTx(ctx, func(tx pgx.Tx) error {
		changed = 0
		if err := v.savePage(ctx, tx, r, p, &changed); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, v.store.sql(moveRangeSQL), r.Run.ID, r.No, r.attempt, p.LastKey,
			p.Users, changed, p.Failed, p.Calls, p.Retries, counts, v.store.Now())
		return err
	})
	if errors.Is(err, ErrGone) {
		return 0, ErrGone
	}
	if err != nil {
		return 0, fmt.Errorf("save the page up to key %s of range %d of run %d: %w", p.LastKey, r.No, r.Run.ID, err)
	}
	return changed, nil
}

// savePage sends fence and writes in one round trip; when the fence holds no
// row, the writes after it are rolled back with it.
func (v *Values[V]) savePage(ctx context.Context, tx pgx.Tx, r *Range, p Page[V], changed *int64) error {
	fence := func(row pgx.Row) error {
		var owned bool
		err := row.Scan(&owned)
		if errors.Is(err, pgx.ErrNoRows) {
			return ErrGone
		}
		return err
	}
	var batch pgx.Batch
	batch.Queue(v.store.sql(fenceRunSQL), r.Run.ID).QueryRow(fence)
	batch.Queue(v.store.sql(fenceRangeSQL), r.Run.ID, r.No, r.attempt).QueryRow(fence)
	if len(p.Changes) > 0 {
		args := append([]any{r.Run.AppID, r.Run.ID}, changeColumns(p.Changes)...)
		batch.Queue(v.store.sql(v.saveSQL), append(args, v.columns(p.Changes)...)...).QueryRow(func(row pgx.Row) error {
			return row.Scan(changed)
		})
	}
	if len(p.Failures) > 0 {
		ids, codes, messages := make([]string, len(p.Failures)), make([]string, len(p.Failures)), make([]string, len(p.Failures))
		for i, f := range p.Failures {
			ids[i], codes[i], messages[i] = f.UserID, f.Code, f.Text
		}
		batch.Queue(v.store.sql(saveFailuresSQL), r.Run.AppID, v.kind, v.store.Now(), ids, codes, messages)
	}
	if len(p.Recovered) > 0 {
		batch.Queue(v.store.sql(dropFailuresSQL), r.Run.AppID, v.kind, p.Recovered)
	}
	return tx.SendBatch(ctx, &batch).Close()
}

// changeColumns are the columns that every kind has: $3 user_id,
// $4 prev_changed_at, $5 not_before, $6 asked_at, $7 observed_at.
func changeColumns[V comparable](changes []Change[V]) []any {
	n := len(changes)
	ids := make([]string, n)
	prevChangedAt, notBefore := make([]*time.Time, n), make([]*time.Time, n)
	askedAt, observedAt := make([]time.Time, n), make([]time.Time, n)
	for i := range changes {
		c := &changes[i]
		ids[i], askedAt[i], observedAt[i] = c.UserID, c.AskedAt, c.ObservedAt
		if c.Prev != nil {
			prevChangedAt[i], notBefore[i] = &c.Prev.ChangedAt, &c.NotBefore
		}
	}
	return []any{ids, prevChangedAt, notBefore, askedAt, observedAt}
}
