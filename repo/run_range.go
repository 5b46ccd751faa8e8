package repo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"syncer/internal/pg"
)

// Range is a claim on a range. Not safe for concurrent use.
type Range struct {
	Run            Run
	No             int
	Lower          *string // exclusive bound, the last key written if there is one; nil: from the start
	Upper          *string // inclusive bound; nil: to the end
	Counts         []byte  // a RangeCounts of the users so far, as JSON
	SuspectAnswers int     // suspect answers in a row about its page; 0: not a recheck
	store          *Store
	claim          claim
	erasures       int                 // of the run, when the range was claimed
	excluded       map[string]struct{} // hashes of the users whom sweeps skip
	saltIDs        [][]byte            // of the salts that made them
	position       *string             // the last key dealt with by this worker or the one before it; nil: none
	pageAt         time.Time           // when this worker wrote its last page; zero: none yet
}

// Done ends the heartbeat of the range. The worker must call it however the work ended, or
// no other process can take the range over while this one lives.
func (r *Range) Done() { r.store.letGo(r.claim) }

const claimRangeSQL = `
UPDATE syncer.sync_range AS r
SET status = 'running', attempt = attempt + 1, claim = gen_random_uuid(), owner = $7, beat_at = $5, error = NULL
FROM syncer.sync_run AS u
WHERE r.run_id = $1 AND r.range_no = $2 AND r.job_id = $3
  AND (r.status = 'pending' OR r.status = 'running' AND r.beat_at < $6)
  AND (r.recheck_after IS NULL OR r.recheck_after <= $5)
  AND u.run_id = r.run_id AND u.status = 'running'
  AND EXISTS (SELECT FROM syncer.app AS a WHERE a.app_id = u.app_id AND ` + sameAppSQL + `)
RETURNING ` + runColumns + `, r.range_no, coalesce(r.cursor_key, r.lower_key), r.upper_key, r.counts, r.suspect_answers, r.attempt, r.claim, u.erasures,
    ARRAY(SELECT e.user_hash FROM syncer.erasure AS e WHERE e.app_id = u.app_id AND e.excluded),
    ARRAY(SELECT DISTINCT e.salt_id FROM syncer.erasure AS e WHERE e.app_id = u.app_id AND e.excluded)`

// ClaimRange claims a range for the queue's job. It returns ErrHeld if another worker has
// it, with a heartbeat since staleBefore; ErrGone if it is done, its run is closed, or it
// has another job; an EarlyError if it is a recheck whose time has not come; ErrMoved if
// its app has moved to another tenant; ErrAppLost if its app is not the one that this
// process knows under that number.
func (s *Store) ClaimRange(ctx context.Context, runID int64, rangeNo int, jobID int64, staleBefore time.Time) (*Range, error) {
	rows, err := s.Query(ctx, claimRangeSQL, runID, rangeNo, jobID, s.knownIdentities(), s.Now(), staleBefore, s.Process())
	var claimed Range
	if err == nil {
		claimed, err = pgx.CollectExactlyOneRow(rows, func(row pgx.CollectableRow) (Range, error) {
			var c Range
			var excluded [][]byte
			err := row.Scan(c.Run.fields(&c.No, &c.Lower, &c.Upper, &c.Counts, &c.SuspectAnswers, &c.claim.attempt, &c.claim.token, &c.erasures, &excluded, &c.saltIDs)...)
			c.excluded = setOf(excluded)
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

// ReleaseRange gives back an unfinished range, for the same job of the queue to claim again.
// reason is why it failed, or "". unsaved counts the calls for pages that were not
// written. It returns ErrGone if the range has another owner.
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

// AddCalls counts the calls for pages that will not be written, before a range is given
// up.
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

// FinishRange ends a range as done or, if there is a reason, as failed, and with the last
// range closes the run. It reports whether it did. complete runs in the same transaction.
// It returns ErrGone if the range has another owner, and ErrUnreconciled, having changed
// nothing, if it is the last range and the caller has to Reconcile first.
func (s *Store) FinishRange(ctx context.Context, r *Range, reason string, complete func(pgx.Tx) error) (closed bool, err error) {
	status := rangeDone
	if reason != "" {
		status = rangeFailed
	}
	err = s.InTx(ctx, func(tx *pg.Tx) error {
		// A range that is done has no page in flight, so closing the run waits for none.
		var batch pgx.Batch
		var planned bool
		fence(&batch, r, forProgress, &planned)
		batch.Queue(endRangeSQL, r.Run.ID, r.No, status, reason)
		if err := tx.RunBatch(ctx, &batch); err != nil {
			return err
		}
		if r.SuspectAnswers > 0 {
			if err := s.settleSuspect(ctx, tx, r.Run.ID); err != nil {
				return err
			}
		}
		var err error
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
