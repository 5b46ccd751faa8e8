package jobs

import (
	"context"
	"errors"
	"time"

	"github.com/riverqueue/river"

	"syncer/imclient"
	"syncer/repo"
	"syncer/repo/userstable"
)

// planArgs and rangeArgs stand in the database: never change their kinds.
type planArgs struct {
	RunID int64 `json:"run_id"`
}

// Kind names the job in the queue.
func (planArgs) Kind() string { return "syncer_plan" }

// InsertOpts: planning goes before ranges, so that ranges never run out.
func (planArgs) InsertOpts() river.InsertOpts {
	return river.InsertOpts{Priority: 1, MaxAttempts: maxAttempts}
}

// userSource is where the users of a run come from, read by keyset: the users
// table, or the list of a run that is limited to one.
type userSource interface {
	Cut(ctx context.Context, after *string, n int) (key string, ok bool, err error)
	Page(ctx context.Context, after, upto *string, limit int) (userstable.Page, error)
	// Order names the order of the keys, once one has been cut.
	Order() string
}

func (e *Engine) source(app *App, run repo.Run) userSource {
	if run.Listed {
		return e.store.Listed(run.ID)
	}
	return app.Users.Walk(run.KeyOrder)
}

// planWorker cuts the users of a run into ranges. Ranges are worked on as soon
// as they are cut.
type planWorker struct {
	river.WorkerDefaults[planArgs]
	engine *Engine
}

// NextRetry spaces the attempts.
func (w *planWorker) NextRetry(job *river.Job[planArgs]) time.Time {
	return w.engine.nextRetry(job.Attempt)
}

// Work plans a run to its end, going on where an earlier attempt came to.
func (w *planWorker) Work(ctx context.Context, job *river.Job[planArgs]) error {
	e := w.engine
	load := e.loads[job.Queue]
	defer load.begin()()
	if !e.awaitClock(ctx) {
		return snooze(0)
	}
	plan, err := e.store.ClaimPlan(ctx, job.Args.RunID, job.ID)
	if errors.Is(err, repo.ErrGone) {
		return nil
	}
	if err != nil {
		return e.unclaimed(ctx, job.Args.RunID, repo.PlanRange, err)
	}
	defer plan.Done()
	load.claims.Add(1)
	ctx, span := e.beginWork(ctx, plan.Run, "plan")
	err = imclient.Guard(func() error { return e.plan(ctx, plan) })
	end(span, err)
	return e.settle(ctx, outcome{
		run: plan.Run, err: err, last: job.Attempt >= job.MaxAttempts,
		release: func(ctx context.Context, _ string) error { return e.store.ReleasePlan(ctx, plan) },
		giveUp: func(ctx context.Context, reason string) error {
			if err := e.store.ReleasePlan(ctx, plan); err != nil {
				return err
			}
			return e.endRun(ctx, plan.Run, reason)
		},
	})
}

func (e *Engine) plan(ctx context.Context, plan *repo.Plan) error {
	source := e.source(e.apps[plan.Run.AppID], plan.Run)
	for !e.isStopping() {
		key, more, err := source.Cut(ctx, plan.Cursor(), e.config.RangeUsers)
		if err != nil {
			return err
		}
		plan.Run.KeyOrder = source.Order()
		upper := &key
		if !more {
			upper = nil
		}
		if err := e.store.AddRange(ctx, plan, upper, e.enqueue(ctx)); err != nil {
			return err
		}
		if !more {
			return nil
		}
	}
	return errStopped
}
