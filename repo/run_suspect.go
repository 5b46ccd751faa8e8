package repo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"syncer/internal/pg"
	"syncer/repo/userstable"
)

// SuspectPage is a page that is not written, because its answers are suspect. It becomes
// a range of its own, so that no other page waits for it: its recheck or, with a Reason,
// a range that is done, with its answers rejected.
type SuspectPage struct {
	After        *string // the key before the page; nil: it is the first page
	LastKey      string
	Answers      int // suspect answers in a row, this one included
	RecheckAfter time.Time

	// Reason is why the answers are rejected; "": they are not. The page's users then
	// count as Rejected, and among Users and Failed.
	Reason   string
	Rejected int64
	Counters // Calls and Retries of the page; Changed is ignored
}

const numberSuspectSQL = `
UPDATE syncer.sync_run
SET plan_ranges = plan_ranges + 1, suspect = true
WHERE run_id = $1
RETURNING plan_ranges`

const addRecheckSQL = `
INSERT INTO syncer.sync_range (run_id, range_no, lower_key, upper_key, suspect_answers, recheck_after, job_id)
VALUES ($1, $2, $3, $4, $5, $6, $7)`

const addRejectedSQL = `
INSERT INTO syncer.sync_range (run_id, range_no, status, lower_key, upper_key, cursor_key, suspect_answers, rejected_answers, users, failed, error)
VALUES ($1, $2, 'done', $3, $4, $4, $5, $6, $7, $8, $9)`

// A page counts as suspect once, however often it is rechecked.
const passSuspectSQL = `
UPDATE syncer.sync_range
SET cursor_key = $3, calls = calls + $4, retries = retries + $5,
    suspect_pages = suspect_pages + CASE WHEN suspect_answers = 0 THEN 1 ELSE 0 END, beat_at = $6
WHERE run_id = $1 AND range_no = $2`

// SaveSuspect makes a range of a suspect page and moves the cursor of its old range past
// it, in one transaction. It returns the new range's number, or ErrGone as SavePage.
func (s *Store) SaveSuspect(ctx context.Context, r *Range, p SuspectPage, enqueue Enqueue) (no int, err error) {
	err = s.InTx(ctx, func(tx *pg.Tx) error {
		var batch pgx.Batch
		fence(&batch, r, forProgress, new(bool))
		batch.Queue(numberSuspectSQL, r.Run.ID).QueryRow(func(row pgx.Row) error { return row.Scan(&no) })
		if err := tx.RunBatch(ctx, &batch); err != nil {
			return err
		}
		if err := s.addSuspect(ctx, tx, r.Run, no, p, enqueue); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, passSuspectSQL, r.Run.ID, r.No, p.LastKey, p.Calls, p.Retries, s.Now())
		return err
	})
	if errors.Is(err, ErrGone) {
		return 0, ErrGone
	}
	if err != nil {
		return 0, fmt.Errorf("set aside the suspect page up to key %s of range %d of run %d: %w", userstable.ShownKey(p.LastKey), r.No, r.Run.ID, err)
	}
	r.position = &p.LastKey
	return no, nil
}

func (s *Store) addSuspect(ctx context.Context, tx *pg.Tx, run Run, no int, p SuspectPage, enqueue Enqueue) error {
	if p.Reason != "" {
		_, err := tx.Exec(ctx, addRejectedSQL, run.ID, no, p.After, p.LastKey, p.Answers, p.Rejected, p.Users, p.Failed, p.Reason)
		return err
	}
	jobID, err := enqueue(tx, run, no)
	if err != nil {
		return fmt.Errorf("enqueue: %w", err)
	}
	_, err = tx.Exec(ctx, addRecheckSQL, run.ID, no, p.After, p.LastKey, p.Answers, p.RecheckAfter, jobID)
	return err
}

// EarlyError reports that a recheck may not begin yet.
type EarlyError struct{ RecheckAfter time.Time }

// Error returns the time from which the recheck may begin.
func (e *EarlyError) Error() string {
	return fmt.Sprintf("the recheck is not to begin before %s", e.RecheckAfter.Format(time.RFC3339Nano))
}

const unclaimedSQL = `
SELECT r.status = 'running', r.recheck_after, a.app_id, a.name, a.provider, coalesce(a.tenant, '')
FROM syncer.sync_range AS r
JOIN syncer.sync_run AS u USING (run_id)
JOIN syncer.app AS a USING (app_id)
WHERE r.run_id = $1 AND r.range_no = $2 AND r.job_id = $3
  AND r.status IN ('pending', 'running') AND u.status = 'running'`

// unclaimed returns why a range could not be claimed.
func (s *Store) unclaimed(ctx context.Context, runID int64, rangeNo int, jobID int64) error {
	var held bool
	var recheckAfter *time.Time
	var app App
	err := s.QueryRow(ctx, unclaimedSQL, runID, rangeNo, jobID).Scan(&held, &recheckAfter, &app.ID, &app.Name, &app.Provider, &app.Tenant)
	if err == nil {
		err = s.recognise(app)
	}
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return ErrGone
	case errors.Is(err, ErrMoved) || errors.Is(err, ErrAppLost):
		return err
	case err != nil:
		return fmt.Errorf("look who holds range %d of run %d: %w", rangeNo, runID, err)
	case !held && recheckAfter != nil:
		return &EarlyError{RecheckAfter: *recheckAfter}
	default:
		return ErrHeld
	}
}

const settleSuspectSQL = `
UPDATE syncer.sync_run
SET suspect = EXISTS (
    SELECT FROM syncer.sync_range
    WHERE run_id = $1 AND suspect_answers > 0 AND status IN ('pending', 'running'))
WHERE run_id = $1`

// settleSuspect updates sync_run.suspect after a recheck was added or ended. The caller has
// locked the run.
func (s *Store) settleSuspect(ctx context.Context, tx *pg.Tx, runID int64) error {
	_, err := tx.Exec(ctx, settleSuspectSQL, runID)
	return err
}

const rejectedSQL = `
SELECT coalesce(sum(rejected_answers), 0)::bigint, coalesce((array_agg(error ORDER BY range_no))[1:3], '{}'), count(*)
FROM syncer.sync_range
WHERE run_id = $1 AND rejected_answers > 0`

// rejection describes the answers that a run rejected, "" if none.
func (s *Store) rejection(ctx context.Context, tx *pg.Tx, runID int64) (string, error) {
	var users int64
	var reasons []string
	var pages int
	if err := tx.QueryRow(ctx, rejectedSQL, runID).Scan(&users, &reasons, &pages); err != nil {
		return "", fmt.Errorf("sum up which answers were rejected: %w", err)
	}
	if pages == 0 {
		return "", nil
	}
	text := fmt.Sprintf("suspect answers about %d users were rejected: %s", users, strings.Join(reasons, "; "))
	if more := pages - len(reasons); more > 0 {
		text += fmt.Sprintf("; and %d pages more", more)
	}
	return text + "; the users keep their last known value", nil
}
