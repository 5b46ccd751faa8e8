package repo

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"syncer/internal/pg"
)

// A locked range has a page in flight, and needs no heartbeat: one slow page must not
// delay those of the process's other ranges.
const beatRangesSQL = `
UPDATE syncer.sync_range AS r
SET beat_at = $1
FROM (
    SELECT run_id, range_no
    FROM syncer.sync_range
    JOIN unnest($2::bigint[], $3::int[], $4::int[], $5::uuid[]) AS held (run_id, range_no, attempt, claim) USING (run_id, range_no, attempt, claim)
    WHERE status = 'running'
    FOR UPDATE OF sync_range SKIP LOCKED
) AS alive
WHERE r.run_id = alive.run_id AND r.range_no = alive.range_no`

const beatPlansSQL = `
UPDATE syncer.sync_run AS u
SET plan_beat_at = $1
FROM unnest($2::bigint[], $3::int[], $4::int[], $5::uuid[]) AS held (run_id, range_no, attempt, claim)
WHERE u.run_id = held.run_id AND held.range_no = 0 AND u.plan_attempt = held.attempt AND u.plan_claim = held.claim
  AND u.status = 'running' AND NOT u.planned AND u.plan_beat_at IS NOT NULL`

// Beat sends the heartbeat of all claims of this process whose Done was not called. It
// uses two transactions: one that held ranges while it waits for a run could deadlock
// with a page.
func (s *Store) Beat(ctx context.Context) error {
	var runIDs []int64
	var rangeNos, attempts []int
	var tokens []pgtype.UUID
	s.heldMu.Lock()
	for c := range s.held {
		runIDs, rangeNos, attempts, tokens = append(runIDs, c.runID), append(rangeNos, c.rangeNo), append(attempts, c.attempt), append(tokens, c.token)
	}
	s.heldMu.Unlock()
	if len(runIDs) == 0 {
		return nil
	}
	for _, statement := range []string{beatRangesSQL, beatPlansSQL} {
		if _, err := s.Exec(ctx, statement, s.Now(), runIDs, rangeNos, attempts, tokens); err != nil {
			return fmt.Errorf("give a sign of life: %w", err)
		}
	}
	return nil
}

// A range is lost if its heartbeat stopped, or if it waits for a job that the queue no
// longer has (discarded, deleted by hand), or that a worker took long ago and died before it
// claimed the range. The same holds for the planning of a run.
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
SET status = 'pending', beat_at = NULL, job_id = $3, claim = NULL
WHERE run_id = $1 AND range_no = $2`

const requeuePlanSQL = `
UPDATE syncer.sync_run
SET plan_beat_at = NULL, plan_job_id = $2, plan_attempt = plan_attempt + 1, plan_claim = NULL
WHERE run_id = $1`

// A process that froze while sending a page keeps the page's locks, and Postgres waits for
// the rest without a limit: the session is not idle. The session is ended if its process
// sent no heartbeat and has kept Postgres waiting for $3, by the database's own clock.
const endSilentSQL = `
SELECT count(pg_terminate_backend(a.pid))
FROM syncer.sync_range AS r
JOIN syncer.sync_run AS u USING (run_id)
JOIN pg_stat_activity AS a ON a.application_name = left('syncer ' || r.owner, 63)
WHERE u.app_id = ANY ($1) AND u.status = 'running'
  AND r.status = 'running' AND r.beat_at < $2
  AND a.datname = current_database() AND a.wait_event_type = 'Client'
  AND a.xact_start < clock_timestamp() - $3::interval`

type lostWork struct {
	run     Run
	rangeNo int
}

func scanLost(row pgx.CollectableRow) (lostWork, error) {
	var l lostWork
	err := row.Scan(l.run.fields(&l.rangeNo)...)
	return l, err
}

// Rescue gives the lost ranges and planning of some apps to new jobs of the queue. Lost is
// what has no heartbeat since staleBefore, or no job. It returns their number. A worker
// that wakes up later gets ErrGone.
func (s *Store) Rescue(ctx context.Context, appIDs []int16, staleBefore time.Time, enqueue Enqueue) (int, error) {
	if _, err := s.Exec(ctx, endSilentSQL, appIDs, staleBefore, s.Now().Sub(staleBefore)); err != nil {
		return 0, fmt.Errorf("end the sessions of silent processes: %w", err)
	}
	var lost []lostWork
	err := s.InTx(ctx, func(tx *pg.Tx) error {
		lost = nil
		for _, statement := range []string{lostPlanSQL, lostSQL} {
			found, err := pg.Collect(ctx, tx, scanLost, statement, appIDs, staleBefore)
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

func (s *Store) requeue(ctx context.Context, tx *pg.Tx, run Run, rangeNo int, enqueue Enqueue) error {
	jobID, err := enqueue(tx, run, rangeNo)
	if err != nil {
		return fmt.Errorf("enqueue: %w", err)
	}
	var tag pgconn.CommandTag
	if rangeNo == PlanRange {
		tag, err = tx.Exec(ctx, requeuePlanSQL, run.ID, jobID)
	} else {
		tag, err = tx.Exec(ctx, requeueRangeSQL, run.ID, rangeNo, jobID)
	}
	if err == nil && tag.RowsAffected() == 0 {
		return ErrGone // deleted meanwhile
	}
	return err
}
