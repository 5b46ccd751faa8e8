package repo

import (
	"errors"

	"github.com/jackc/pgx/v5"
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

// claim names a claim on a range or, with PlanRange, on the planning of a run.
type claim struct {
	runID            int64
	rangeNo, attempt int
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
