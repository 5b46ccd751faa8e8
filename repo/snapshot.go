package repo

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"syncer/imclient"
	"syncer/internal/pg"
	"syncer/repo/userstable"
)

// Change is a user whose value is new or differs from the snapshot.
type Change[V comparable] struct {
	UserID     string
	Value      V
	Prev       *Snapshot[V] // the snapshot it was compared with; nil: first seen
	NotBefore  time.Time    // ignored when Prev is nil
	AskedAt    time.Time
	ObservedAt time.Time
}

// Failure is a user without a value.
type Failure struct {
	imclient.UserError
	// KnownAt is when the user was last known to have the value of the snapshot;
	// zero when there is none. Of a user who failed before it changes nothing.
	KnownAt time.Time
}

// Lapse is a user whose snapshot is given up, because the API has rejected the
// user for too long.
type Lapse struct {
	UserID     string
	ChangedAt  time.Time // of the snapshot
	NotBefore  time.Time
	AskedAt    time.Time
	ObservedAt time.Time
}

// Recovery is a user who had a user_failure row and has a value now.
type Recovery struct {
	UserID  string
	AskedAt time.Time
}

// Page is all that one page of a range leads to; SavePage writes it at once.
type Page[V comparable] struct {
	LastKey   string      // the range goes on after this key
	Changes   []Change[V] // sorted by user id, each user once
	Failures  []Failure
	Lapses    []Lapse
	Recovered []Recovery
	Counters              // Changed is ignored: what was written counts
	Counts    RangeCounts // of the whole range so far
	Kept      Population  // the page's users who had a snapshot before
	Known     Population  // the page's users who have one after
}

// RangeCounts counts the users of a range by state and platform; the platform
// "all" counts each user once.
type RangeCounts map[string]map[string]int64

// Values reads and writes the snapshots and history of one kind. Those of a range
// should be of its own: they learn how its users lie in the tables.
type Values[V comparable] struct {
	store      *Store
	kind       imclient.Kind
	loadSQL    string
	findSQL    string
	saveSQL    string
	lapseSQL   string
	removeSQL  string
	leaversSQL string
	countSQL   string
	// scanner makes a function that reads a row of loadSQL or findSQL.
	scanner func() func(pgx.Rows) (userID pg.RawText, s Snapshot[V], err error)
	// columns gives the arguments of saveSQL after the common ones.
	columns func(changes []Change[V]) []any
	// firstSeen says how users who are new are copied.
	firstSeen []copyTo[V]
	// scattered: see Load.
	scattered atomic.Bool
}

// Writes find their rows by the primary key, for the same reason for which
// loadPresenceSQL is written as it is.
const byKeySQL = `
SELECT set_config('enable_hashjoin', 'off', true),
       set_config('enable_mergejoin', 'off', true),
       set_config('enable_seqscan', 'off', true)`

const saveFailuresSQL = `
INSERT INTO syncer.user_failure AS f (app_id, kind, user_id, code, message, first_at, last_at, times, known_at)
SELECT $1, $2, n.user_id, n.code, n.message, $3, $3, 1, n.known_at
FROM unnest($4::text[], $5::text[], $6::text[], $7::timestamptz[]) AS n (user_id, code, message, known_at)
ORDER BY n.user_id
ON CONFLICT (app_id, kind, user_id) DO UPDATE
SET code = excluded.code, message = excluded.message, last_at = excluded.last_at,
    first_at = CASE WHEN f.code = excluded.code THEN f.first_at ELSE excluded.first_at END,
    times = CASE WHEN f.code = excluded.code THEN f.times ELSE 0 END + 1`

// A failure that was recorded after the question was sent is the newer one, and stays.
const dropFailuresSQL = `
DELETE FROM syncer.user_failure AS f
USING unnest($3::text[], $4::timestamptz[]) AS n (user_id, asked_at)
WHERE f.app_id = $1 AND f.kind = $2 AND f.user_id = n.user_id AND f.last_at <= n.asked_at`

const moveRangeSQL = `
UPDATE syncer.sync_range
SET cursor_key = $3, users = users + $4, changed = changed + $5, failed = failed + $6,
    calls = calls + $7, retries = retries + $8, counts = $9, beat_at = $10, page_at = $10,
    kept_users = kept_users + $11, kept_hash = (kept_hash + $12) & 4611686018427387903,
    known_users = known_users + $13, known_hash = (known_hash + $14) & 4611686018427387903
WHERE run_id = $1 AND range_no = $2`

// SavePage writes a page and moves the range's cursor past it, in one
// transaction, or nothing at all. It returns how many users were changed: a
// change whose snapshot is no longer the one it was compared with, or is newer
// than its question (the same user on two pages), is left out. ErrGone: the range has another owner, or the
// run is closed.
func (v *Values[V]) SavePage(ctx context.Context, r *Range, p Page[V]) (int64, error) {
	counts, err := json.Marshal(p.Counts)
	if err != nil {
		return 0, fmt.Errorf("write counts: %w", err)
	}
	var changed int64
	now := v.store.Now()
	save := func(changes, copied []Change[V]) error {
		return v.store.InTx(ctx, func(tx *pg.Tx) error {
			changed = 0
			if err := v.savePage(ctx, tx, r, p, changes, now, &changed); err != nil {
				return err
			}
			n, err := v.copy(ctx, tx, r, copied)
			if err != nil {
				return err
			}
			changed += n
			_, err = tx.Exec(ctx, moveRangeSQL, r.Run.ID, r.No, p.LastKey,
				p.Users, changed, p.Failed, p.Calls, p.Retries, counts, now,
				p.Kept.Users, p.Kept.Hash, p.Known.Users, p.Known.Hash)
			return err
		})
	}
	err = save(apart(p.Changes))
	if pg.SQLState(err) == pg.UniqueViolation {
		err = save(p.Changes, nil) // another page has a user of this one
	}
	if errors.Is(err, ErrGone) {
		return 0, ErrGone
	}
	if err != nil {
		return 0, fmt.Errorf("save the page up to key %s of range %d of run %d: %w", userstable.ShownKey(p.LastKey), r.No, r.Run.ID, err)
	}
	r.pageAt, r.position = now, &p.LastKey
	return changed, nil
}

// A run that wrote no page for longer than its max_gap was not looking in the
// meantime: whoever killed or froze the processes, or kept the API from them.
const standstillSQL = `
UPDATE syncer.sync_run
SET observed_from = $2::timestamptz
WHERE run_id = $1
  AND $2::timestamptz - max_gap > greatest(observed_from, (
    SELECT max(page_at)
    FROM syncer.sync_range
    WHERE run_id = $1))`

// savePage sends fence and writes in one round trip; when the fence holds no
// row, the writes after it are rolled back with it.
func (v *Values[V]) savePage(ctx context.Context, tx *pg.Tx, r *Range, p Page[V], changes []Change[V], now time.Time, changed *int64) error {
	var batch pgx.Batch
	var planned bool
	v.store.queueRunLock(&batch, r.Run.ID, forPage, &planned)
	// While this worker goes on, the run does.
	if now.Sub(r.pageAt) > r.Run.MaxGap {
		batch.Queue(standstillSQL, r.Run.ID, now)
	}
	v.store.queueFence(&batch, r)
	batch.Queue(byKeySQL)
	if len(changes) > 0 {
		args := append([]any{r.Run.AppID, r.Run.ID}, changeColumns(changes)...)
		batch.Queue(v.saveSQL, append(args, v.columns(changes)...)...).QueryRow(func(row pgx.Row) error {
			return row.Scan(changed)
		})
	}
	if len(p.Lapses) > 0 {
		args := append([]any{r.Run.AppID, r.Run.ID}, lapseColumns(p.Lapses)...)
		batch.Queue(v.lapseSQL, args...)
	}
	if len(p.Failures) > 0 {
		batch.Queue(saveFailuresSQL, append([]any{r.Run.AppID, v.kind, now}, failureColumns(p.Failures)...)...)
	}
	if len(p.Recovered) > 0 {
		batch.Queue(dropFailuresSQL, append([]any{r.Run.AppID, v.kind}, recoveredColumns(p.Recovered)...)...)
	}
	return tx.RunBatch(ctx, &batch)
}

// maxFailureID is the longest id, in bytes, that is recorded as it is. An index
// holds keys of up to 2,700; a wrong expression can yield ids of any length.
const maxFailureID = 1000

// failureID is the id under which a user's failure is recorded: of an overlong
// one the beginning, and a hash that tells it from others.
func failureID(id string) string {
	if len(id) <= maxFailureID {
		return id
	}
	return fmt.Sprintf("%s… (sha256 %x)", strings.ToValidUTF8(id[:maxFailureID], ""), sha256.Sum256([]byte(id)))
}

// failureColumns are $4 user_id, $5 code, $6 message, $7 known_at.
func failureColumns(failures []Failure) []any {
	n := len(failures)
	ids, codes, messages, knownAt := make([]string, n), make([]string, n), make([]string, n), make([]*time.Time, n)
	for i := range failures {
		f := &failures[i]
		ids[i], codes[i], messages[i] = failureID(f.UserID), f.Code, f.Text
		if !f.KnownAt.IsZero() {
			knownAt[i] = &f.KnownAt
		}
	}
	return []any{ids, codes, messages, knownAt}
}

// recoveredColumns are $3 user_id, $4 asked_at.
func recoveredColumns(recovered []Recovery) []any {
	ids, askedAt := make([]string, len(recovered)), make([]time.Time, len(recovered))
	for i, r := range recovered {
		ids[i], askedAt[i] = r.UserID, r.AskedAt
	}
	return []any{ids, askedAt}
}

// lapseColumns are $3 user_id, $4 prev_changed_at, $5 not_before, $6 asked_at,
// $7 observed_at.
func lapseColumns(lapses []Lapse) []any {
	n := len(lapses)
	ids := make([]string, n)
	changedAt, notBefore := make([]time.Time, n), make([]time.Time, n)
	askedAt, observedAt := make([]time.Time, n), make([]time.Time, n)
	for i, l := range lapses {
		ids[i], changedAt[i], notBefore[i] = l.UserID, l.ChangedAt, earlier(l.NotBefore, l.ObservedAt)
		askedAt[i], observedAt[i] = l.AskedAt, l.ObservedAt
	}
	return []any{ids, changedAt, notBefore, askedAt, observedAt}
}

// changeColumns are the columns that every kind has: $3 user_id,
// $4 prev_changed_at, $5 not_before, $6 asked_at, $7 observed_at. No bracket
// ends before it begins, although the database's clock may have been set back
// in between: the tables would refuse the page, and every one after it.
func changeColumns[V comparable](changes []Change[V]) []any {
	n := len(changes)
	ids := make([]string, n)
	prevChangedAt, notBefore := make([]*time.Time, n), make([]*time.Time, n)
	askedAt, observedAt := make([]time.Time, n), make([]time.Time, n)
	for i := range changes {
		c := &changes[i]
		ids[i], askedAt[i], observedAt[i] = c.UserID, earlier(c.AskedAt, c.ObservedAt), c.ObservedAt
		if c.Prev != nil {
			bracket := earlier(c.NotBefore, c.ObservedAt)
			prevChangedAt[i], notBefore[i] = &c.Prev.ChangedAt, &bracket
		}
	}
	return []any{ids, prevChangedAt, notBefore, askedAt, observedAt}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
