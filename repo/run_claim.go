package repo

import (
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// ErrGone reports that a worker no longer owns what it works on, because the run was
// closed or another worker took over. It must write nothing.
var ErrGone = errors.New("the run is closed or the range has another owner")

// ErrErased reports that a user was erased since a worker claimed what it works on, which may
// hold that user. The worker must write nothing, give the work back, and claim it again.
var ErrErased = errors.New("a user was erased meanwhile")

// ErrHeld reports that another worker holds the range, and its heartbeat is recent.
var ErrHeld = errors.New("the range is held by another worker")

// Enqueue puts the work on a range into the queue, within the transaction, and returns the
// queue's job.
type Enqueue func(tx pgx.Tx, run Run, rangeNo int) (int64, error)

// PlanRange is the number that Enqueue gets for the planning of a run. Ranges count from
// 1.
const PlanRange = 0

// claim is a claim on a range or, with PlanRange, on the planning of a run. Its random
// token identifies it: run id and attempt can occur again after a failover or the restore of
// a backup in which the database lost its last transactions. Programs before schema
// version 13 set no token, so attempt is compared too.
type claim struct {
	runID            int64
	rangeNo, attempt int
	token            pgtype.UUID
}

func (c claim) args(more ...any) []any {
	return append([]any{c.runID, c.rangeNo, c.attempt, c.token}, more...)
}

// heldSQL is the condition that the claim holds the range. $1 to $4 are claim.args.
const heldSQL = `run_id = $1 AND range_no = $2 AND attempt = $3 AND claim = $4 AND status = 'running'`

// The database can lose progress under a claim that it still knows. Then the range's
// position is not $5, where the claim's owner is.
const fenceRangeSQL = `
SELECT true
FROM syncer.sync_range
WHERE ` + heldSQL + `
  AND coalesce(cursor_key, lower_key) IS NOT DISTINCT FROM $5
FOR UPDATE`

// fence adds to a batch the statements that lock the run of r, and then r, until the end
// of the transaction. The batch returns an error, and the transaction must be rolled back:
// ErrGone if the run is not open, r's claim is not the newest, or r is not where its worker
// left it; ErrErased if a user of the app was erased since r was claimed. planned reports
// whether the run is planned to its end. Locks are always taken in the order run, range.
func fence(batch *pgx.Batch, r *Range, lock runLock, planned *bool) {
	batch.Queue(lockRunSQL+string(lock), r.Run.ID).QueryRow(func(row pgx.Row) error {
		var erasures int
		if err := row.Scan(planned, &erasures); err != nil {
			return goneIfNone(err)
		}
		if erasures != r.erasures {
			return ErrErased
		}
		return nil
	})
	batch.Queue(fenceRangeSQL, r.claim.args(r.position)...).QueryRow(func(row pgx.Row) error { return goneIfNone(row.Scan(new(bool))) })
}

func goneIfNone(err error) error {
	if errors.Is(err, pgx.ErrNoRows) {
		return ErrGone
	}
	return err
}

// hold adds a claim to those of which Beat sends the heartbeat.
func (s *Store) hold(c claim) {
	s.heldMu.Lock()
	defer s.heldMu.Unlock()
	s.held[c] = struct{}{}
}

func (s *Store) letGo(c claim) {
	s.heldMu.Lock()
	defer s.heldMu.Unlock()
	delete(s.held, c)
}
