package repo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
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

// Plan is a claim on the planning of a run: where to go on cutting.
type Plan struct {
	Run     Run
	store   *Store
	attempt int
	cursor  *string
	ranges  int
}

func (p *Plan) claim() claim { return claim{p.Run.ID, PlanRange, p.attempt} }

// Done says that this process works on the planning no more, however it ended:
// Beat gives no further sign of life for it. Call it always.
func (p *Plan) Done() { p.store.letGo(p.claim()) }

// Cursor is the key up to which ranges have been cut; nil at the start.
func (p *Plan) Cursor() *string { return p.cursor }

const claimPlanSQL = `
UPDATE syncer.sync_run AS u
SET plan_attempt = plan_attempt + 1, plan_owner = $3, plan_beat_at = $4
WHERE u.run_id = $1 AND u.plan_job_id = $2 AND u.status = 'running' AND NOT u.planned
RETURNING ` + runColumns + `, u.plan_attempt, u.plan_cursor, u.plan_ranges`

// ClaimPlan takes over the planning of a run for the queue's job. ErrGone: the
// run is closed or planned, or the planning was given to another job.
func (s *Store) ClaimPlan(ctx context.Context, runID, jobID int64) (*Plan, error) {
	var p Plan
	rows, err := s.pool.Query(ctx, s.sql(claimPlanSQL), runID, jobID, s.process, s.Now())
	if err == nil {
		p, err = pgx.CollectExactlyOneRow(rows, func(row pgx.CollectableRow) (Plan, error) {
			var p Plan
			err := row.Scan(p.Run.fields(&p.attempt, &p.cursor, &p.ranges)...)
			return p, err
		})
	}
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, ErrGone
	}
	if err != nil {
		return nil, fmt.Errorf("claim the planning of run %d: %w", runID, err)
	}
	p.store = s
	s.hold(p.claim())
	return &p, nil
}

const releasePlanSQL = `
UPDATE syncer.sync_run
SET plan_beat_at = NULL
WHERE run_id = $1 AND plan_attempt = $2`

// ReleasePlan gives the planning back unfinished, to be claimed again by the
// same job of the queue.
func (s *Store) ReleasePlan(ctx context.Context, p *Plan) error {
	if _, err := s.pool.Exec(ctx, s.sql(releasePlanSQL), p.Run.ID, p.attempt); err != nil {
		return fmt.Errorf("release the planning of run %d: %w", p.Run.ID, err)
	}
	return nil
}

const addRangeSQL = `
INSERT INTO syncer.sync_range (run_id, range_no, lower_key, upper_key, job_id)
VALUES ($1, $2, $3, $4, $5)`

const movePlanSQL = `
UPDATE syncer.sync_run
SET plan_cursor = $3, plan_ranges = $4, planned = $5, plan_beat_at = $6
WHERE run_id = $1 AND plan_attempt = $2`

const planOwnedSQL = `
SELECT plan_attempt = $2 AND NOT planned
FROM syncer.sync_run
WHERE run_id = $1`

// AddRange adds the range after the plan's cursor, up to and with key upper
// (nil: to the end of the table, which ends the planning), and enqueues it. A
// plan that has been taken over is ErrGone.
func (s *Store) AddRange(ctx context.Context, p *Plan, upper *string, enqueue Enqueue) error {
	err := s.inTx(ctx, func(tx pgx.Tx) error {
		if _, err := s.lockRun(ctx, tx, p.Run.ID, forProgress); err != nil {
			return err
		}
		var owned bool
		if err := tx.QueryRow(ctx, s.sql(planOwnedSQL), p.Run.ID, p.attempt).Scan(&owned); err != nil {
			return err
		}
		if !owned {
			return ErrGone
		}
		jobID, err := enqueue(tx, p.Run, p.ranges+1)
		if err != nil {
			return fmt.Errorf("enqueue: %w", err)
		}
		if _, err := tx.Exec(ctx, s.sql(addRangeSQL), p.Run.ID, p.ranges+1, p.cursor, upper, jobID); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, s.sql(movePlanSQL), p.Run.ID, p.attempt, upper, p.ranges+1, upper == nil, s.Now())
		return err
	})
	if errors.Is(err, ErrGone) {
		return ErrGone
	}
	if err != nil {
		return fmt.Errorf("add range %d of run %d: %w", p.ranges+1, p.Run.ID, err)
	}
	p.cursor = upper
	p.ranges++
	return nil
}

// Range is a claim on a range.
type Range struct {
	Run     Run
	No      int
	Lower   *string // keys above it; nil: from the start. After a resumption: the last key written
	Upper   *string // keys up to and with it; nil: to the end
	Counts  []byte  // JSON: users so far by state and platform
	store   *Store
	attempt int
}

func (r *Range) claim() claim { return claim{r.Run.ID, r.No, r.attempt} }

// Done says that this process works on the range no more, however it ended:
// Beat gives no further sign of life for it. Call it always, or a range that
// could not be given back is kept from everybody as long as the process lives.
func (r *Range) Done() { r.store.letGo(r.claim()) }

const claimRangeSQL = `
UPDATE syncer.sync_range AS r
SET status = 'running', attempt = attempt + 1, owner = $4, beat_at = $5, error = NULL
FROM syncer.sync_run AS u
WHERE r.run_id = $1 AND r.range_no = $2 AND r.job_id = $3
  AND (r.status = 'pending' OR r.status = 'running' AND r.beat_at < $6)
  AND u.run_id = r.run_id AND u.status = 'running'
RETURNING ` + runColumns + `, r.range_no, coalesce(r.cursor_key, r.lower_key), r.upper_key, r.counts, r.attempt`

const rangeHeldSQL = `
SELECT EXISTS (
    SELECT FROM syncer.sync_range AS r
    JOIN syncer.sync_run AS u USING (run_id)
    WHERE r.run_id = $1 AND r.range_no = $2 AND r.job_id = $3
      AND r.status = 'running' AND u.status = 'running'
)`

// ClaimRange takes a range for the queue's job. ErrHeld: another worker has it
// and gave a sign of life since staleBefore. ErrGone: it is done, its run is
// closed, or it was given to another job.
func (s *Store) ClaimRange(ctx context.Context, runID int64, rangeNo int, jobID int64, staleBefore time.Time) (*Range, error) {
	rows, err := s.pool.Query(ctx, s.sql(claimRangeSQL), runID, rangeNo, jobID, s.process, s.Now(), staleBefore)
	var claimed Range
	if err == nil {
		claimed, err = pgx.CollectExactlyOneRow(rows, func(row pgx.CollectableRow) (Range, error) {
			var c Range
			err := row.Scan(c.Run.fields(&c.No, &c.Lower, &c.Upper, &c.Counts, &c.attempt)...)
			return c, err
		})
	}
	if errors.Is(err, pgx.ErrNoRows) {
		var held bool
		if err := s.pool.QueryRow(ctx, s.sql(rangeHeldSQL), runID, rangeNo, jobID).Scan(&held); err != nil {
			return nil, fmt.Errorf("look who holds range %d of run %d: %w", rangeNo, runID, err)
		}
		if held {
			return nil, ErrHeld
		}
		return nil, ErrGone
	}
	if err != nil {
		return nil, fmt.Errorf("claim range %d of run %d: %w", rangeNo, runID, err)
	}
	claimed.store = s
	s.hold(claimed.claim())
	return &claimed, nil
}

const releaseRangeSQL = `
UPDATE syncer.sync_range
SET status = 'pending', beat_at = NULL, error = nullif($4, ''), calls = calls + $5, retries = retries + $6
WHERE run_id = $1 AND range_no = $2 AND attempt = $3 AND status = 'running'`

// ReleaseRange gives a range back unfinished, to be claimed again by the same
// job of the queue. reason says why when it failed; unsaved are the calls made
// for pages that were not written.
func (s *Store) ReleaseRange(ctx context.Context, r *Range, reason string, unsaved Counters) error {
	_, err := s.pool.Exec(ctx, s.sql(releaseRangeSQL), r.Run.ID, r.No, r.attempt, reason, unsaved.Calls, unsaved.Retries)
	if err != nil {
		return fmt.Errorf("release range %d of run %d: %w", r.No, r.Run.ID, err)
	}
	return nil
}

const addCallsSQL = `
UPDATE syncer.sync_range
SET calls = calls + $4, retries = retries + $5
WHERE run_id = $1 AND range_no = $2 AND attempt = $3 AND status = 'running'`

// AddCalls counts calls made for pages that will not be written, before a range
// is given up.
func (s *Store) AddCalls(ctx context.Context, r *Range, unsaved Counters) error {
	if _, err := s.pool.Exec(ctx, s.sql(addCallsSQL), r.Run.ID, r.No, r.attempt, unsaved.Calls, unsaved.Retries); err != nil {
		return fmt.Errorf("count the calls of range %d of run %d: %w", r.No, r.Run.ID, err)
	}
	return nil
}

const endRangeSQL = `
UPDATE syncer.sync_range
SET status = $4, beat_at = NULL, error = nullif($5, '')
WHERE run_id = $1 AND range_no = $2 AND attempt = $3 AND status = 'running'`

// FinishRange ends a range as done, or as failed when reason is given, and with
// the last one closes the run. complete runs in the same transaction.
func (s *Store) FinishRange(ctx context.Context, r *Range, reason string, complete func(pgx.Tx) error) (closed bool, err error) {
	status := "done"
	if reason != "" {
		status = "failed"
	}
	err = s.inTx(ctx, func(tx pgx.Tx) error {
		// No page in flight can be of a range that is done, so the run is closed
		// without waiting for any.
		planned, err := s.lockRun(ctx, tx, r.Run.ID, forProgress)
		if err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, s.sql(endRangeSQL), r.Run.ID, r.No, r.attempt, status, reason)
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return ErrGone
		}
		if closed, err = s.closeIfDone(ctx, tx, r.Run.ID, planned); err != nil {
			return err
		}
		return complete(tx)
	})
	if errors.Is(err, ErrGone) {
		return false, ErrGone
	}
	if err != nil {
		return false, fmt.Errorf("finish range %d of run %d: %w", r.No, r.Run.ID, err)
	}
	return closed, nil
}

// A range that is locked has a page in flight, which is its sign of life: one
// slow page must not silence all other ranges of the process.
const beatRangesSQL = `
UPDATE syncer.sync_range AS r
SET beat_at = $1
FROM (
    SELECT run_id, range_no
    FROM syncer.sync_range
    JOIN unnest($2::bigint[], $3::int[], $4::int[]) AS held (run_id, range_no, attempt) USING (run_id, range_no, attempt)
    WHERE status = 'running'
    FOR UPDATE OF sync_range SKIP LOCKED
) AS alive
WHERE r.run_id = alive.run_id AND r.range_no = alive.range_no`

const beatPlansSQL = `
UPDATE syncer.sync_run AS u
SET plan_beat_at = $1
FROM unnest($2::bigint[], $3::int[], $4::int[]) AS held (run_id, range_no, attempt)
WHERE u.run_id = held.run_id AND held.range_no = 0 AND u.plan_attempt = held.attempt
  AND u.status = 'running' AND NOT u.planned AND u.plan_beat_at IS NOT NULL`

// Beat gives a sign of life for all that this process works on: what it claimed
// and has not called Done for. Two transactions: one that held ranges while it
// waits for a run could deadlock with a page.
func (s *Store) Beat(ctx context.Context) error {
	var runIDs []int64
	var rangeNos, attempts []int
	s.heldMu.Lock()
	for c := range s.held {
		runIDs, rangeNos, attempts = append(runIDs, c.runID), append(rangeNos, c.rangeNo), append(attempts, c.attempt)
	}
	s.heldMu.Unlock()
	if len(runIDs) == 0 {
		return nil
	}
	for _, statement := range []string{beatRangesSQL, beatPlansSQL} {
		if _, err := s.pool.Exec(ctx, s.sql(statement), s.Now(), runIDs, rangeNos, attempts); err != nil {
			return fmt.Errorf("give a sign of life: %w", err)
		}
	}
	return nil
}

// A range is lost when its worker gave no sign of life, or when it waits for a
// job that the queue no longer has (discarded, deleted by hand) or that a worker
// took long ago without claiming the range, because it died in between. The same
// goes for the planning of a run.
const lostSQL = `
SELECT ` + runColumns + `, r.range_no
FROM syncer.sync_range AS r
JOIN syncer.sync_run AS u USING (run_id)
WHERE u.status = 'running'
  AND u.app_id = ANY ($1)
  AND (r.status = 'running' AND r.beat_at < $2
    OR r.status = 'pending' AND NOT EXISTS (
        SELECT FROM syncer.river_job AS j
        WHERE j.id = r.job_id AND j.state NOT IN ('completed', 'cancelled', 'discarded')
          AND (j.state <> 'running' OR j.attempted_at >= $2)))
FOR UPDATE OF r SKIP LOCKED`

const lostPlanSQL = `
SELECT ` + runColumns + `, 0
FROM syncer.sync_run AS u
WHERE u.status = 'running' AND NOT u.planned
  AND u.app_id = ANY ($1)
  AND (u.plan_beat_at < $2
    OR u.plan_beat_at IS NULL AND NOT EXISTS (
        SELECT FROM syncer.river_job AS j
        WHERE j.id = u.plan_job_id AND j.state NOT IN ('completed', 'cancelled', 'discarded')
          AND (j.state <> 'running' OR j.attempted_at >= $2)))
FOR NO KEY UPDATE OF u SKIP LOCKED`

const requeueRangeSQL = `
UPDATE syncer.sync_range
SET status = 'pending', beat_at = NULL, job_id = $3
WHERE run_id = $1 AND range_no = $2`

const requeuePlanSQL = `
UPDATE syncer.sync_run
SET plan_beat_at = NULL, plan_job_id = $2, plan_attempt = plan_attempt + 1
WHERE run_id = $1`

type lostWork struct {
	run     Run
	rangeNo int
}

func scanLost(row pgx.CollectableRow) (lostWork, error) {
	var l lostWork
	err := row.Scan(l.run.fields(&l.rangeNo)...)
	return l, err
}

// Rescue gives the lost work of the given apps to new jobs of the queue and
// returns how much there was. A worker that wakes up later finds that its job
// owns nothing any more.
func (s *Store) Rescue(ctx context.Context, appIDs []int16, staleBefore time.Time, enqueue Enqueue) (int, error) {
	var lost []lostWork
	err := s.inTx(ctx, func(tx pgx.Tx) error {
		lost = nil
		for _, statement := range []string{lostPlanSQL, lostSQL} {
			rows, err := tx.Query(ctx, s.sql(statement), appIDs, staleBefore)
			if err != nil {
				return err
			}
			found, err := pgx.CollectRows(rows, scanLost)
			if err != nil {
				return err
			}
			lost = append(lost, found...)
		}
		for _, l := range lost {
			if err := s.requeue(ctx, tx, l.run, l.rangeNo, enqueue); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("rescue lost ranges: %w", err)
	}
	return len(lost), nil
}

func (s *Store) requeue(ctx context.Context, tx pgx.Tx, run Run, rangeNo int, enqueue Enqueue) error {
	jobID, err := enqueue(tx, run, rangeNo)
	if err != nil {
		return fmt.Errorf("enqueue: %w", err)
	}
	var tag pgconn.CommandTag
	if rangeNo == PlanRange {
		tag, err = tx.Exec(ctx, s.sql(requeuePlanSQL), run.ID, jobID)
	} else {
		tag, err = tx.Exec(ctx, s.sql(requeueRangeSQL), run.ID, rangeNo, jobID)
	}
	if err == nil && tag.RowsAffected() == 0 {
		return ErrGone // dropped at this very moment
	}
	return err
}

const reopenRunSQL = `
UPDATE syncer.sync_run
SET status = 'running', finished_at = NULL, complete = false, error = NULL
WHERE run_id = $1 AND status IN ('failed', 'cancelled')
  AND NOT EXISTS (
    SELECT FROM syncer.sync_run AS other
    WHERE other.app_id = sync_run.app_id AND other.kind = sync_run.kind AND other.status = 'running')`

// What is old is dropped; what is left of such a run must not pass for all of it.
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

// ResumeRun opens a failed or cancelled run again and enqueues what is left of
// it. ErrBusy: another run of the app and kind is going. ErrGone: it was closed
// so long ago that its ranges have been dropped; start a new one.
func (s *Store) ResumeRun(ctx context.Context, run Run, enqueue Enqueue) error {
	err := s.inTx(ctx, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, s.sql(reopenRunSQL), run.ID)
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return ErrBusy
		}
		var left bool
		if err := tx.QueryRow(ctx, s.sql(leftSQL), run.ID).Scan(&left); err != nil {
			return err
		}
		if !left {
			return ErrGone
		}
		rows, err := tx.Query(ctx, s.sql(undoneSQL), run.ID)
		if err != nil {
			return err
		}
		undone, err := pgx.CollectRows(rows, pgx.RowTo[int])
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
		_, err = s.closeIfDone(ctx, tx, run.ID, run.Planned)
		return err
	})
	const uniqueViolation = "23505"
	if errors.Is(err, ErrBusy) || sqlState(err) == uniqueViolation {
		return ErrBusy
	}
	if errors.Is(err, ErrGone) {
		return ErrGone
	}
	if err != nil {
		return fmt.Errorf("resume run %d: %w", run.ID, err)
	}
	return nil
}
