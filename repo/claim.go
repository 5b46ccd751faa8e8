package repo

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"syncer/internal/pg"
)

// ErrGone says that a worker no longer owns what it works on: its run was
// closed, or another worker took the range over. It must write nothing.
var ErrGone = errors.New("the run is closed or the range has another owner")

// ErrHeld says that another worker holds the range and gives signs of life.
var ErrHeld = errors.New("the range is held by another worker")

// Enqueue puts the work on a range into the queue, within the transaction, and
// returns the queue's job.
type Enqueue func(tx pgx.Tx, run Run, rangeNo int) (int64, error)

// PlanRange is the number that Enqueue gets for the planning of a run; real
// ranges count from 1.
const PlanRange = 0

// claim names a claim on a range or, with PlanRange, on the planning of a run. The
// random token identifies it: run id and attempt can repeat themselves when the
// database has lost its last transactions, in a failover or the restore of a backup.
// Programs before schema version 13 set no token, so attempt is compared too.
type claim struct {
	runID            int64
	rangeNo, attempt int
	token            pgtype.UUID
}

func (c claim) args(more ...any) []any {
	return append([]any{c.runID, c.rangeNo, c.attempt, c.token}, more...)
}

// heldSQL is true of the range that the claim holds. $1 to $4 are claim.args.
const heldSQL = `run_id = $1 AND range_no = $2 AND attempt = $3 AND claim = $4 AND status = 'running'`

// The database can forget progress under a claim that it still knows. Then the
// range's position, $5, is not where the claim's owner is.
const fenceRangeSQL = `
SELECT true
FROM syncer.sync_range
WHERE ` + heldSQL + `
  AND coalesce(cursor_key, lower_key) IS NOT DISTINCT FROM $5
FOR UPDATE`

// queueFence adds to a batch the statement that locks r until the end of the
// transaction, so that no other worker can claim it. The batch fails with ErrGone
// if r's claim is not the newest, or the range is not where its worker left it.
// The run must be locked before; see runLock.
func (s *Store) queueFence(batch *pgx.Batch, r *Range) {
	batch.Queue(fenceRangeSQL, r.claim.args(r.position)...).QueryRow(func(row pgx.Row) error {
		var held bool
		return goneIfNone(row.Scan(&held))
	})
}

// fence locks the open run of r with the given lock, and then r, in one round
// trip. It reports whether the run is planned to its end.
func (s *Store) fence(ctx context.Context, tx *pg.Tx, r *Range, lock runLock) (planned bool, err error) {
	var batch pgx.Batch
	s.queueRunLock(&batch, r.Run.ID, lock, &planned)
	s.queueFence(&batch, r)
	return planned, tx.RunBatch(ctx, &batch)
}

func goneIfNone(err error) error {
	if errors.Is(err, pgx.ErrNoRows) {
		return ErrGone
	}
	return err
}

// hold takes note of a claim, so that Beat speaks for it.
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
