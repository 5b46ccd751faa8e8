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
	Prev       *Snapshot[V] // the snapshot it was compared with; nil: there is none
	NotBefore  time.Time    // ignored when Prev is nil
	AskedAt    time.Time
	ObservedAt time.Time
	// ToldAt is when the presence changed by the provider's own time, from a hook. It is
	// stored if it lies within the bracket. Zero: no hook reported it.
	ToldAt time.Time
}

// Failure is a user without a value.
type Failure struct {
	imclient.UserError
	// KnownAt is when the user was last known to have the value of the snapshot, zero if
	// there is none. It is ignored if the user has failed before.
	KnownAt time.Time
}

// Lapse is a user whose snapshot is deleted, because the API has rejected the user for
// longer than max_gap.
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

// Page is everything that follows from one page of a range.
type Page[V comparable] struct {
	LastKey   string      // the range continues after this key
	Changes   []Change[V] // sorted by user id, each user once
	Failures  []Failure
	Lapses    []Lapse
	Recovered []Recovery
	Counters              // Changed is ignored
	Counts    RangeCounts // of the whole range so far
	Kept      Population  // the page's users who had a snapshot before
	Known     Population  // the page's users who have one after
}

// FirstSeen returns the number of changes of users without a snapshot.
func (p *Page[V]) FirstSeen() (n int64) {
	for i := range p.Changes {
		if p.Changes[i].Prev == nil {
			n++
		}
	}
	return n
}

// RangeCounts counts the users of a range by state and platform. The platform "all" counts
// each user once.
type RangeCounts map[string]map[string]int64

// Values reads and writes the snapshots and history of one kind. Each range should use its
// own: Values learns where its users are in the tables.
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
	// scanner returns a function that reads a row of loadSQL or findSQL.
	scanner func() func(pgx.Rows) (userID pg.RawText, s Snapshot[V], err error)
	// columns returns the arguments of saveSQL after the common ones.
	columns func(changes []Change[V]) []any
	// firstSeen are the copies of users without a snapshot.
	firstSeen []copyTo[V]
	// scattered: see Load.
	scattered atomic.Bool
}

// Writes find their rows by the primary key: see findPresenceSQL.
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

// A failure that was recorded after the question was sent is newer, and stays.
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

// SavePage writes a page and moves the range's cursor past it, in one transaction. It
// returns the number of users changed. It leaves out a change if the snapshot is not the
// one that the change was compared with, or is newer than the change's question: another
// page has the same user. It returns ErrGone, having written nothing, if the range has
// another owner or the run is closed.
func (v *Values[V]) SavePage(ctx context.Context, r *Range, p Page[V]) (int64, error) {
	counts, err := json.Marshal(p.Counts)
	if err != nil {
		return 0, fmt.Errorf("write counts: %w", err)
	}
	w := pageWriter[V]{v, r, p, counts, v.store.Now()}
	changed, err := w.save(ctx, apart(p.Changes))
	if pg.SQLState(err) == pg.UniqueViolation { // another page has a user of this one
		changed, err = w.save(ctx, split[V]{update: p.Changes})
	}
	if errors.Is(err, ErrGone) {
		return 0, ErrGone
	}
	if err != nil {
		return 0, fmt.Errorf("save the page up to key %s of range %d of run %d: %w", userstable.ShownKey(p.LastKey), r.No, r.Run.ID, err)
	}
	r.pageAt, r.position = w.now, &p.LastKey
	return changed, nil
}

// A run that wrote no page for longer than its max_gap observed nothing meanwhile: its
// processes were killed or frozen, or the API was away.
const standstillSQL = `
UPDATE syncer.sync_run
SET observed_from = $2::timestamptz
WHERE run_id = $1
  AND $2::timestamptz - max_gap > greatest(observed_from, (
    SELECT max(page_at)
    FROM syncer.sync_range
    WHERE run_id = $1))`

// pageWriter writes one page.
type pageWriter[V comparable] struct {
	*Values[V]
	r      *Range
	p      Page[V]
	counts []byte
	now    time.Time
}

// save writes the page in one transaction. It returns the number of users changed.
func (w pageWriter[V]) save(ctx context.Context, changes split[V]) (changed int64, err error) {
	err = w.store.InTx(ctx, func(tx *pg.Tx) error {
		updated, err := w.write(ctx, tx, changes.update)
		if err != nil {
			return err
		}
		copied, err := w.copy(ctx, tx, w.r, changes.copy)
		if err != nil {
			return err
		}
		changed = updated + copied
		p := w.p
		_, err = tx.Exec(ctx, moveRangeSQL, w.r.Run.ID, w.r.No, p.LastKey,
			p.Users, changed, p.Failed, p.Calls, p.Retries, w.counts, w.now,
			p.Kept.Users, p.Kept.Hash, p.Known.Users, p.Known.Hash)
		return err
	})
	return changed, err
}

// write sends the fence and all that is not copied in one round trip. If the fence fails,
// the writes after it are rolled back.
func (w pageWriter[V]) write(ctx context.Context, tx *pg.Tx, changes []Change[V]) (changed int64, err error) {
	var batch pgx.Batch
	app, run := w.r.Run.AppID, w.r.Run
	// While this worker writes pages, the run goes on. The statement locks the run, so it
	// comes before the range is locked.
	if w.now.Sub(w.r.pageAt) > run.MaxGap {
		batch.Queue(standstillSQL, run.ID, w.now)
	}
	fence(&batch, w.r, forPage, new(bool))
	batch.Queue(byKeySQL)
	if len(changes) > 0 {
		args := append([]any{app, run.ID}, changeColumns(changes)...)
		batch.Queue(w.saveSQL, append(args, w.columns(changes)...)...).QueryRow(func(row pgx.Row) error { return row.Scan(&changed) })
	}
	if len(w.p.Lapses) > 0 {
		batch.Queue(w.lapseSQL, append([]any{app, run.ID}, lapseColumns(w.p.Lapses)...)...)
	}
	if len(w.p.Failures) > 0 {
		batch.Queue(saveFailuresSQL, append([]any{app, w.kind, w.now}, failureColumns(w.p.Failures)...)...)
	}
	if len(w.p.Recovered) > 0 {
		batch.Queue(dropFailuresSQL, append([]any{app, w.kind}, recoveredColumns(w.p.Recovered)...)...)
	}
	return changed, tx.RunBatch(ctx, &batch)
}

// maxFailureID is the longest id, in bytes, that is recorded as it is. An index holds keys
// of up to 2,700 bytes; a wrong expression can yield ids of any length.
const maxFailureID = 1000

// failureID returns the id under which a user's failure is recorded: a longer one as its
// beginning and a hash.
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

// changeColumns are the columns that every kind has: $3 user_id, $4 prev_changed_at,
// $5 not_before, $6 asked_at, $7 observed_at. No bracket ends before it begins, even if
// the database's clock was set back: the tables would refuse the page, and all later ones.
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
