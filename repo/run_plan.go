package repo

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"syncer/internal/pg"
)

// Plan is a claim on the planning of a run. Not safe for concurrent use.
type Plan struct {
	Run    Run
	store  *Store
	claim  claim
	cursor *string
	// erasures are those of the run when the planning was claimed.
	erasures int
}

// Done ends the heartbeat of the planning. The worker must call it however the work ended.
func (p *Plan) Done() { p.store.letGo(p.claim) }

// Cursor returns the key up to which ranges have been cut, nil at the start.
func (p *Plan) Cursor() *string { return p.cursor }

const claimPlanSQL = `
UPDATE syncer.sync_run AS u
SET plan_attempt = plan_attempt + 1, plan_claim = gen_random_uuid(), plan_owner = $3, plan_beat_at = $5
FROM syncer.app AS a
WHERE u.run_id = $1 AND u.plan_job_id = $2 AND u.status = 'running' AND NOT u.planned
  AND a.app_id = u.app_id AND ` + sameAppSQL + `
RETURNING ` + runColumns + `, u.plan_attempt, u.plan_claim, u.plan_cursor, u.erasures`

const unclaimedPlanSQL = `
SELECT a.app_id, a.name, a.provider, coalesce(a.tenant, '')
FROM syncer.sync_run AS u
JOIN syncer.app AS a USING (app_id)
WHERE u.run_id = $1 AND u.plan_job_id = $2 AND u.status = 'running' AND NOT u.planned`

// ClaimPlan claims the planning of a run for the queue's job. It returns ErrGone if the
// run is closed or planned, or the planning has another job; ErrMoved and ErrAppLost as
// ClaimRange does.
func (s *Store) ClaimPlan(ctx context.Context, runID, jobID int64) (*Plan, error) {
	var p Plan
	rows, err := s.Query(ctx, claimPlanSQL, runID, jobID, s.Process(), s.knownIdentities(), s.Now())
	if err == nil {
		p, err = pgx.CollectExactlyOneRow(rows, func(row pgx.CollectableRow) (Plan, error) {
			var p Plan
			err := row.Scan(p.Run.fields(&p.claim.attempt, &p.claim.token, &p.cursor, &p.erasures)...)
			p.claim.runID, p.claim.rangeNo = p.Run.ID, PlanRange
			return p, err
		})
	}
	if errors.Is(err, pgx.ErrNoRows) {
		var app App
		err = goneIfNone(s.QueryRow(ctx, unclaimedPlanSQL, runID, jobID).Scan(&app.ID, &app.Name, &app.Provider, &app.Tenant))
		if err == nil {
			err = cmp.Or(s.recognise(app), ErrGone)
		}
		if errors.Is(err, ErrGone) || errors.Is(err, ErrMoved) || errors.Is(err, ErrAppLost) {
			return nil, err
		}
	}
	if err != nil {
		return nil, fmt.Errorf("claim the planning of run %d: %w", runID, err)
	}
	p.store = s
	s.hold(p.claim)
	return &p, nil
}

// planHeldSQL is the condition that the claim holds the planning. $1 to $3 are Plan.args.
const planHeldSQL = `run_id = $1 AND plan_attempt = $2 AND plan_claim = $3 AND status = 'running' AND NOT planned`

func (p *Plan) args(more ...any) []any {
	return append([]any{p.claim.runID, p.claim.attempt, p.claim.token}, more...)
}

const releasePlanSQL = `
UPDATE syncer.sync_run
SET plan_beat_at = NULL
WHERE ` + planHeldSQL

// ReleasePlan gives back unfinished planning, for the same job of the queue to claim again.
// It returns ErrGone if it has another owner or the run is closed.
func (s *Store) ReleasePlan(ctx context.Context, p *Plan) error {
	tag, err := s.Exec(ctx, releasePlanSQL, p.args()...)
	if err != nil {
		return fmt.Errorf("release the planning of run %d: %w", p.Run.ID, err)
	}
	if tag.RowsAffected() == 0 {
		return ErrGone
	}
	return nil
}

const addRangeSQL = `
INSERT INTO syncer.sync_range (run_id, range_no, lower_key, upper_key, job_id)
VALUES ($1, $2, $3, $4, $5)`

// The run numbers its ranges, of which suspect pages are some, under the lock of this
// UPDATE, which is that of forProgress.
const movePlanSQL = `
UPDATE syncer.sync_run
SET plan_ranges = plan_ranges + 1, plan_cursor = $5, planned = $5::text IS NULL, plan_beat_at = $6, key_order = nullif($7, '')
WHERE ` + planHeldSQL + ` AND plan_cursor IS NOT DISTINCT FROM $4
RETURNING plan_ranges, erasures`

// AddRange adds and enqueues the range after the plan's cursor up to and including key
// upper; nil means the end of the table, which ends the planning. The run's KeyOrder must
// be that of upper. It returns ErrGone if the planning was taken over, or is not where p
// left it, and ErrErased if a user of the app was erased since it was claimed: upper may be
// that user's key.
func (s *Store) AddRange(ctx context.Context, p *Plan, upper *string, enqueue Enqueue) error {
	err := s.InTx(ctx, func(tx *pg.Tx) error {
		var no, erasures int
		err := tx.QueryRow(ctx, movePlanSQL, p.args(p.cursor, upper, s.Now(), p.Run.KeyOrder)...).Scan(&no, &erasures)
		if err != nil {
			return goneIfNone(err)
		}
		if erasures != p.erasures {
			return ErrErased
		}
		jobID, err := enqueue(tx, p.Run, no)
		if err != nil {
			return fmt.Errorf("enqueue: %w", err)
		}
		_, err = tx.Exec(ctx, addRangeSQL, p.Run.ID, no, p.cursor, upper, jobID)
		return err
	})
	if errors.Is(err, ErrGone) {
		return ErrGone
	}
	if err != nil {
		return fmt.Errorf("add a range of run %d: %w", p.Run.ID, err)
	}
	p.cursor = upper
	return nil
}
