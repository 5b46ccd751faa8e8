package repo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Aside is a page of a range that is not written, because its answers are in
// doubt. It becomes a range of its own, so that nothing else waits for it: to be
// asked again after AskAfter or, when Reason is given, done for good.
type Aside struct {
	After     *string // the key before the page; nil: it is the first
	LastKey   string
	Suspicion int // doubtful answers in a row, this one included
	AskAfter  time.Time

	// Reason says why the page is given up. Its users then count as Disbelieved,
	// and among Users and Failed.
	Reason      string
	Disbelieved int64
	Counters    // Calls and Retries of the page; Changed is ignored
}

const numberAsideSQL = `
UPDATE syncer.sync_run
SET plan_ranges = plan_ranges + 1, suspect = true
WHERE run_id = $1
RETURNING plan_ranges`

const addAsideSQL = `
INSERT INTO syncer.sync_range (run_id, range_no, lower_key, upper_key, suspicion, ask_after, job_id)
VALUES ($1, $2, $3, $4, $5, $6, $7)`

const addDisbelievedSQL = `
INSERT INTO syncer.sync_range (run_id, range_no, status, lower_key, upper_key, cursor_key, suspicion, disbelieved, users, failed, error)
VALUES ($1, $2, 'done', $3, $4, $4, $5, $6, $7, $8, $9)`

// A page counts as suspected once, however often it is asked again.
const passAsideSQL = `
UPDATE syncer.sync_range
SET cursor_key = $3, calls = calls + $4, retries = retries + $5,
    suspected = suspected + CASE WHEN suspicion = 0 THEN 1 ELSE 0 END, beat_at = $6
WHERE run_id = $1 AND range_no = $2`

// SetAside makes a range of a page in doubt and moves the cursor of its old
// range past it, in one transaction, or does nothing at all. It returns the new
// range's number. ErrGone: as for SavePage.
func (s *Store) SetAside(ctx context.Context, r *Range, a Aside, enqueue Enqueue) (no int, err error) {
	err = s.inTx(ctx, func(tx pgx.Tx) error {
		if _, err := s.fence(ctx, tx, r, forProgress); err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, s.sql(numberAsideSQL), r.Run.ID).Scan(&no); err != nil {
			return err
		}
		if err := s.addAside(ctx, tx, r.Run, no, a, enqueue); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, s.sql(passAsideSQL), r.Run.ID, r.No, a.LastKey, a.Calls, a.Retries, s.Now())
		return err
	})
	if errors.Is(err, ErrGone) {
		return 0, ErrGone
	}
	if err != nil {
		return 0, fmt.Errorf("set aside the page up to key %s of range %d of run %d: %w", shown([]byte(a.LastKey), shownKey), r.No, r.Run.ID, err)
	}
	r.position = &a.LastKey
	return no, nil
}

func (s *Store) addAside(ctx context.Context, tx pgx.Tx, run Run, no int, a Aside, enqueue Enqueue) error {
	if a.Reason != "" {
		_, err := tx.Exec(ctx, s.sql(addDisbelievedSQL), run.ID, no, a.After, a.LastKey, a.Suspicion, a.Disbelieved, a.Users, a.Failed, a.Reason)
		return err
	}
	jobID, err := enqueue(tx, run, no)
	if err != nil {
		return fmt.Errorf("enqueue: %w", err)
	}
	_, err = tx.Exec(ctx, s.sql(addAsideSQL), run.ID, no, a.After, a.LastKey, a.Suspicion, a.AskAfter, jobID)
	return err
}

// EarlyError says that a range in doubt may not be asked again yet.
type EarlyError struct{ AskAfter time.Time }

// Error says until when.
func (e *EarlyError) Error() string {
	return fmt.Sprintf("the range is not to be asked again before %s", e.AskAfter.Format(time.RFC3339Nano))
}

const unclaimedSQL = `
SELECT NOT (` + sameTenantSQL + `), r.status = 'running', r.ask_after
FROM syncer.sync_range AS r
JOIN syncer.sync_run AS u USING (run_id)
JOIN syncer.app AS a USING (app_id)
WHERE r.run_id = $1 AND r.range_no = $2 AND r.job_id = $3
  AND r.status IN ('pending', 'running') AND u.status = 'running'`

// unclaimed says why a range could not be claimed.
func (s *Store) unclaimed(ctx context.Context, runID int64, rangeNo int, jobID int64) error {
	var moved, held bool
	var askAfter *time.Time
	err := s.pool.QueryRow(ctx, s.sql(unclaimedSQL), runID, rangeNo, jobID, s.knownTenants()).Scan(&moved, &held, &askAfter)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return ErrGone
	case err != nil:
		return fmt.Errorf("look who holds range %d of run %d: %w", rangeNo, runID, err)
	case moved:
		return ErrMoved
	case !held && askAfter != nil:
		return &EarlyError{AskAfter: *askAfter}
	default:
		return ErrHeld
	}
}

const settleSuspectSQL = `
UPDATE syncer.sync_run
SET suspect = EXISTS (
    SELECT FROM syncer.sync_range
    WHERE run_id = $1 AND suspicion > 0 AND status IN ('pending', 'running'))
WHERE run_id = $1`

// settleSuspect takes note, in sync_run.suspect, that a range in doubt came or
// went. The caller has locked the run.
func (s *Store) settleSuspect(ctx context.Context, tx pgx.Tx, runID int64) error {
	_, err := tx.Exec(ctx, s.sql(settleSuspectSQL), runID)
	return err
}

const disbelievedSQL = `
SELECT coalesce(sum(disbelieved), 0)::bigint, coalesce((array_agg(error ORDER BY range_no))[1:3], '{}'), count(*)
FROM syncer.sync_range
WHERE run_id = $1 AND disbelieved > 0`

// disbelief says in words what a run did not believe; "" when it believed all.
func (s *Store) disbelief(ctx context.Context, tx pgx.Tx, runID int64) (string, error) {
	var users int64
	var reasons []string
	var pages int
	if err := tx.QueryRow(ctx, s.sql(disbelievedSQL), runID).Scan(&users, &reasons, &pages); err != nil {
		return "", fmt.Errorf("sum up what was not believed: %w", err)
	}
	if pages == 0 {
		return "", nil
	}
	text := fmt.Sprintf("answers about %d users were not believed: %s", users, strings.Join(reasons, "; "))
	if more := pages - len(reasons); more > 0 {
		text += fmt.Sprintf("; and %d pages more", more)
	}
	return text + "; they keep their last known value", nil
}
