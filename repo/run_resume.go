package repo

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"syncer/internal/pg"
)

const reopenRunSQL = `
UPDATE syncer.sync_run
SET status = 'running', finished_at = NULL, complete = false, error = NULL, observed_from = $2, observed_until = NULL,
    reconciled = reconciled AND held_back = 0, held_back = 0
WHERE run_id = $1 AND status IN ('failed', 'cancelled')
  AND NOT EXISTS (
    SELECT FROM syncer.sync_run AS other
    WHERE other.app_id = sync_run.app_id AND other.kind = sync_run.kind AND other.status = 'running')`

// The ranges of an old run are deleted. Those left must not pass for all of it.
const leftSQL = `
SELECT u.plan_ranges = (SELECT count(*) FROM syncer.sync_range AS r WHERE r.run_id = u.run_id)
   AND (NOT u.listed OR EXISTS (SELECT FROM syncer.sync_run_user AS l WHERE l.run_id = u.run_id))
FROM syncer.sync_run AS u
WHERE u.run_id = $1`

const undoneSQL = `
SELECT range_no
FROM syncer.sync_range
WHERE run_id = $1 AND status <> 'done'
ORDER BY range_no`

const lastRangeSQL = `
SELECT max(range_no)
FROM syncer.sync_range
WHERE run_id = $1`

// ResumeRun reopens a failed or cancelled run and enqueues the rest of it. It returns
// ErrBusy if another run of the app and kind is running, and ErrGone if the run's ranges
// have been deleted: a new run is needed.
func (s *Store) ResumeRun(ctx context.Context, run Run, enqueue Enqueue) error {
	err := s.InTx(ctx, func(tx *pg.Tx) error {
		if err := s.reopen(ctx, tx, run); err != nil {
			return err
		}
		undone, err := pg.Collect(ctx, tx, pgx.RowTo[int], undoneSQL, run.ID)
		if err != nil {
			return err
		}
		if !run.Planned {
			undone = append([]int{PlanRange}, undone...)
		}
		for _, rangeNo := range undone {
			if err := s.requeue(ctx, tx, run, rangeNo, enqueue); err != nil {
				return err
			}
		}
		if err := s.settleSuspect(ctx, tx, run.ID); err != nil {
			return err
		}
		_, err = s.closeIfDone(ctx, tx, run.ID, run.Planned)
		if !errors.Is(err, ErrUnreconciled) {
			return err
		}
		// The worker that finishes its last range will reconcile.
		var last int
		if err := tx.QueryRow(ctx, lastRangeSQL, run.ID).Scan(&last); err != nil {
			return err
		}
		return s.requeue(ctx, tx, run, last, enqueue)
	})
	switch {
	case errors.Is(err, ErrBusy) || pg.SQLState(err) == pg.UniqueViolation:
		return ErrBusy
	case errors.Is(err, ErrGone):
		return ErrGone
	case err != nil:
		return fmt.Errorf("resume run %d: %w", run.ID, err)
	}
	return nil
}

// reopen makes a closed run running, if no other one is and none of its ranges is deleted.
func (s *Store) reopen(ctx context.Context, tx *pg.Tx, run Run) error {
	if err := s.keepApp(ctx, tx, run.AppID); err != nil {
		return err
	}
	tag, err := tx.Exec(ctx, reopenRunSQL, run.ID, s.Now())
	if err != nil {
		return err
	}
	if tag.RowsAffected() == 0 {
		return ErrBusy
	}
	var left bool
	if err := tx.QueryRow(ctx, leftSQL, run.ID).Scan(&left); err != nil {
		return err
	}
	if !left {
		return ErrGone
	}
	return nil
}
