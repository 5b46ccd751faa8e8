package repo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"syncer/internal/pg"
)

// Range is a claim on a range.
type Range struct {
	Run    Run
	No     int
	Lower  *string // keys above it; nil: from the start. After a resumption: the last key written
	Upper  *string // keys up to and with it; nil: to the end
	Counts []byte  // JSON: users so far by state and platform
	// SuspectAnswers is how many answers in a row about its page have been suspect;
	// 0: an ordinary range, more: a recheck.
	SuspectAnswers int
	store          *Store
	claim          claim
	position       *string   // the last key that this worker, or the one before it, has dealt with; nil: none
	pageAt         time.Time // when this worker wrote its last page of it; zero: none yet
}

// Done says that this process works on the range no more, however it ended:
// Beat gives no further sign of life for it. Call it always, or a range that
// could not be given back is kept from everybody as long as the process lives.
func (r *Range) Done() { r.store.letGo(r.claim) }

// App a is still the tenant's with which this store knows it, by $4, if it does.
const sameTenantSQL = `coalesce($4::jsonb ->> a.app_id::text, a.tenant) IS NOT DISTINCT FROM a.tenant`

const claimRangeSQL = `
UPDATE syncer.sync_range AS r
SET status = 'running', attempt = attempt + 1, claim = gen_random_uuid(), owner = $7, beat_at = $5, error = NULL
FROM syncer.sync_run AS u
WHERE r.run_id = $1 AND r.range_no = $2 AND r.job_id = $3
  AND (r.status = 'pending' OR r.status = 'running' AND r.beat_at < $6)
  AND (r.recheck_after IS NULL OR r.recheck_after <= $5)
  AND u.run_id = r.run_id AND u.status = 'running'
  AND EXISTS (SELECT FROM syncer.app AS a WHERE a.app_id = u.app_id AND ` + sameTenantSQL + `)
RETURNING ` + runColumns + `, r.range_no, coalesce(r.cursor_key, r.lower_key), r.upper_key, r.counts, r.suspect_answers, r.attempt, r.claim`

// ClaimRange takes a range for the queue's job. ErrHeld: another worker has it
// and gave a sign of life since staleBefore. ErrGone: it is done, its run is
// closed, or it was given to another job. EarlyError: it is a recheck, and its
// time has not come. ErrMoved: its app is another tenant's now.
func (s *Store) ClaimRange(ctx context.Context, runID int64, rangeNo int, jobID int64, staleBefore time.Time) (*Range, error) {
	rows, err := s.Query(ctx, claimRangeSQL, runID, rangeNo, jobID, s.knownTenants(), s.Now(), staleBefore, s.Process())
	var claimed Range
	if err == nil {
		claimed, err = pgx.CollectExactlyOneRow(rows, func(row pgx.CollectableRow) (Range, error) {
			var c Range
			err := row.Scan(c.Run.fields(&c.No, &c.Lower, &c.Upper, &c.Counts, &c.SuspectAnswers, &c.claim.attempt, &c.claim.token)...)
			c.claim.runID, c.claim.rangeNo, c.position = c.Run.ID, c.No, c.Lower
			return c, err
		})
	}
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, s.unclaimed(ctx, runID, rangeNo, jobID)
	}
	if err != nil {
		return nil, fmt.Errorf("claim range %d of run %d: %w", rangeNo, runID, err)
	}
	claimed.store = s
	s.hold(claimed.claim)
	return &claimed, nil
}

const releaseRangeSQL = `
UPDATE syncer.sync_range
SET status = 'pending', beat_at = NULL, error = nullif($5, ''), calls = calls + $6, retries = retries + $7
WHERE ` + heldSQL

// ReleaseRange gives a range back unfinished, to be claimed again by the same
// job of the queue. reason says why when it failed; unsaved are the calls made
// for pages that were not written. ErrGone: it has another owner.
func (s *Store) ReleaseRange(ctx context.Context, r *Range, reason string, unsaved Counters) error {
	tag, err := s.Exec(ctx, releaseRangeSQL, r.claim.args(reason, unsaved.Calls, unsaved.Retries)...)
	if err != nil {
		return fmt.Errorf("release range %d of run %d: %w", r.No, r.Run.ID, err)
	}
	if tag.RowsAffected() == 0 {
		return ErrGone
	}
	return nil
}

const addCallsSQL = `
UPDATE syncer.sync_range
SET calls = calls + $5, retries = retries + $6
WHERE ` + heldSQL

// AddCalls counts calls made for pages that will not be written, before a range
// is given up.
func (s *Store) AddCalls(ctx context.Context, r *Range, unsaved Counters) error {
	if _, err := s.Exec(ctx, addCallsSQL, r.claim.args(unsaved.Calls, unsaved.Retries)...); err != nil {
		return fmt.Errorf("count the calls of range %d of run %d: %w", r.No, r.Run.ID, err)
	}
	return nil
}

const endRangeSQL = `
UPDATE syncer.sync_range
SET status = $3, beat_at = NULL, error = nullif($4, '')
WHERE run_id = $1 AND range_no = $2`

// FinishRange ends a range as done, or as failed when reason is given, and with
// the last one closes the run. complete runs in the same transaction. With
// ErrUnreconciled nothing has happened: it is the last one, and must Reconcile
// the run first.
func (s *Store) FinishRange(ctx context.Context, r *Range, reason string, complete func(pgx.Tx) error) (closed bool, err error) {
	status := "done"
	if reason != "" {
		status = "failed"
	}
	err = s.InTx(ctx, func(tx *pg.Tx) error {
		// No page in flight can be of a range that is done, so the run is closed
		// without waiting for any.
		planned, err := s.fence(ctx, tx, r, forProgress)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, endRangeSQL, r.Run.ID, r.No, status, reason); err != nil {
			return err
		}
		if r.SuspectAnswers > 0 {
			if err := s.settleSuspect(ctx, tx, r.Run.ID); err != nil {
				return err
			}
		}
		if closed, err = s.closeIfDone(ctx, tx, r.Run.ID, planned); err != nil {
			return err
		}
		return complete(tx)
	})
	if errors.Is(err, ErrGone) || errors.Is(err, ErrUnreconciled) {
		return false, err
	}
	if err != nil {
		return false, fmt.Errorf("finish range %d of run %d: %w", r.No, r.Run.ID, err)
	}
	return closed, nil
}
