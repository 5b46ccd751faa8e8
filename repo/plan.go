package repo

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

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
