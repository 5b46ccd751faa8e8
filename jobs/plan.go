package jobs

import (
	"context"
	"errors"
	"time"

	"github.com/riverqueue/river"

	"syncer/imclient"
	"syncer/jobs/ask"
	"syncer/repo"
	"syncer/repo/userstable"
)

// planArgs and rangeArgs are stored in the database: their kinds never change.
type planArgs struct {
	RunID int64 `json:"run_id"`
}

// Kind names the job in the queue.
func (planArgs) Kind() string { return "syncer_plan" }

// InsertOpts: planning goes before ranges, so that ranges never run out.
func (planArgs) InsertOpts() river.InsertOpts {
	return river.InsertOpts{Priority: 1, MaxAttempts: maxAttempts}
}

// userSource is where the users of a run come from, by keyset pagination: the users
// table, or the list of a run that is limited to one.
type userSource interface {
	Cut(ctx context.Context, after *string, n int) (key string, ok bool, err error)
	Page(ctx context.Context, after, upto *string, limit int) (userstable.Page, error)
	// Order names the order of the keys, once Cut has returned one.
	Order() string
}

func (s *shared) source(app *App, run repo.Run) userSource {
	if run.Listed {
		return s.store.Listed(run.ID)
	}
	return app.Users.Walk(run.KeyOrder)
}

// planWorker cuts the users of a run into ranges. Ranges are worked on as soon
// as they are cut.
type planWorker struct {
	river.WorkerDefaults[planArgs]
	*workers
}

// NextRetry returns when a failed attempt is repeated.
func (w *planWorker) NextRetry(job *river.Job[planArgs]) time.Time { return w.nextRetry(job.Attempt) }

// Work plans a run to its end, from where an earlier attempt ended.
func (w *planWorker) Work(ctx context.Context, job *river.Job[planArgs]) error {
	lane := w.lanes[job.Queue]
	defer lane.begin()()
	if !w.awaitClock(ctx) {
		return snooze(0)
	}
	plan, err := w.store.ClaimPlan(ctx, job.Args.RunID, job.ID)
	switch {
	case errors.Is(err, repo.ErrGone):
		return nil
	case isOtherApp(err):
		return w.leaveToOthers(ctx, job.Args.RunID, repo.PlanRange, err)
	case err != nil:
		return w.claimFailed(ctx, job.Args.RunID, repo.PlanRange, err)
	}
	defer plan.Done()
	lane.claims.Add(1)
	ctx, span := w.beginWork(ctx, plan.Run, "plan")
	err = imclient.Guard(func() error { return w.plan(ctx, plan) })
	end(span, err)
	return w.settle(ctx, outcome{
		run: plan.Run, err: err, last: job.Attempt >= job.MaxAttempts,
		release: func(ctx context.Context, _ string) error { return w.store.ReleasePlan(ctx, plan) },
		giveUp: func(ctx context.Context, reason string) error {
			if err := w.store.ReleasePlan(ctx, plan); err != nil {
				return err
			}
			return w.endRun(ctx, plan.Run, reason)
		},
	})
}

func (w *workers) plan(ctx context.Context, plan *repo.Plan) error {
	source := w.source(w.apps[plan.Run.AppID], plan.Run)
	for !w.isStopping() {
		key, more, err := source.Cut(ctx, plan.Cursor(), w.config.RangeUsers)
		if err != nil {
			return ofUsers(err)
		}
		plan.Run.KeyOrder = source.Order()
		upper := &key
		if !more {
			upper = nil
		}
		if err := w.store.AddRange(ctx, plan, upper, w.queue.enqueue(ctx)); err != nil {
			return err
		}
		if !more {
			return nil
		}
	}
	return ask.ErrStopped
}
