package jobs

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivertype"
	"go.opentelemetry.io/otel/attribute"

	"syncer/imclient"
	"syncer/repo"
)

type rangeArgs struct {
	RunID   int64 `json:"run_id"`
	RangeNo int   `json:"range_no"`
}

// Kind names the job in the queue.
func (rangeArgs) Kind() string { return "syncer_range" }

// InsertOpts: see planArgs.
func (rangeArgs) InsertOpts() river.InsertOpts {
	return river.InsertOpts{Priority: 2, MaxAttempts: maxAttempts}
}

// rangeWorker sweeps one range.
type rangeWorker struct {
	river.WorkerDefaults[rangeArgs]
	*workers
}

// NextRetry returns when a failed attempt is repeated.
func (w *rangeWorker) NextRetry(job *river.Job[rangeArgs]) time.Time { return w.nextRetry(job.Attempt) }

// Work sweeps the range to its end, from after the last written page.
func (w *rangeWorker) Work(ctx context.Context, job *river.Job[rangeArgs]) error {
	lane := w.lanes[job.Queue]
	defer lane.begin()()
	if !w.awaitClock(ctx) {
		return snooze(0)
	}
	if rest := w.yielded.rest(job.Args); rest > 0 {
		return snooze(min(rest, offerEvery))
	}
	claimed, err := w.claim(ctx, job)
	if claimed == nil {
		return err
	}
	defer claimed.Done()
	lane.claims.Add(1)
	begun := time.Now()
	ctx, span := w.beginWork(ctx, claimed.Run, "range")
	defer span.End()
	finish := func(ctx context.Context, reason string) error { return w.finish(ctx, job, claimed, reason) }
	var unsaved tally
	var written repo.Counters
	err = imclient.Guard(func() (err error) {
		written, err = lane.kind.sweep(ctx, w.workers, claimed, &unsaved)
		if err == nil {
			err = finish(ctx, "")
		}
		if errors.Is(err, repo.ErrUnreconciled) {
			if err = w.reconcile(ctx, claimed); err == nil {
				err = finish(ctx, "")
			}
		}
		return err
	})
	if span.IsRecording() {
		span.SetAttributes(attribute.Int("range", claimed.No), attribute.Int("attempt", job.Attempt))
		span.SetAttributes(counted(written)...)
		if err != nil {
			fail(span, err)
		}
	}
	if err == nil {
		w.log.Debug().Str("app", lane.app.Name).Str("job", claimed.Run.Job).Int64("run_id", claimed.Run.ID).Int("range", claimed.No).
			Int64("users", written.Users).Int64("changed", written.Changed).Int64("failed", written.Failed).
			Int64("calls", written.Calls).Int64("retries", written.Retries).Dur("dur_ms", time.Since(begun)).Msg("range done")
	}
	return w.settle(ctx, outcome{
		run: claimed.Run, rangeNo: claimed.No, begun: begun, err: err, last: job.Attempt >= job.MaxAttempts,
		release: func(ctx context.Context, reason string) error {
			return w.store.ReleaseRange(ctx, claimed, reason, unsaved.made)
		},
		giveUp: func(ctx context.Context, reason string) error {
			if err := w.store.AddCalls(ctx, claimed, unsaved.made); err != nil {
				return err
			}
			return finish(ctx, reason)
		},
	})
}

// claim claims the range of a job. If the range is nil, the error is what the queue
// needs.
func (w *rangeWorker) claim(ctx context.Context, job *river.Job[rangeArgs]) (*repo.Range, error) {
	claimed, err := w.store.ClaimRange(ctx, job.Args.RunID, job.Args.RangeNo, job.ID, w.staleBefore())
	early, tooEarly := errors.AsType[*repo.EarlyError](err)
	switch {
	case err == nil:
		return claimed, nil
	case tooEarly:
		return nil, snooze(early.RecheckAfter.Sub(w.store.Now()))
	case errors.Is(err, repo.ErrGone):
		return nil, nil
	case errors.Is(err, repo.ErrHeld):
		return nil, snooze(w.config.RescueAfter / 2)
	case isOtherApp(err):
		return nil, w.leaveToOthers(ctx, job.Args.RunID, job.Args.RangeNo, err)
	default:
		return nil, w.claimFailed(ctx, job.Args.RunID, job.Args.RangeNo, err)
	}
}

// isOtherApp reports whether a claim was refused because the app is not, or is no longer,
// the one that this process knows.
func isOtherApp(err error) bool {
	return errors.Is(err, repo.ErrMoved) || errors.Is(err, repo.ErrAppLost)
}

// leaveToOthers returns work to the queue for a process that knows its app.
func (w *workers) leaveToOthers(ctx context.Context, runID int64, rangeNo int, err error) error {
	w.recent.note("claim a range", err)
	_ = w.claimFailed(ctx, runID, rangeNo, err)
	return snooze(offerEvery)
}

// finish ends the range, and its job, in one transaction. If it was the run's last,
// the run is closed.
func (w *workers) finish(ctx context.Context, job *river.Job[rangeArgs], claimed *repo.Range, reason string) error {
	closed, err := w.store.FinishRange(ctx, claimed, reason, func(tx pgx.Tx) error {
		_, err := river.JobCompleteTx[*riverpgxv5.Driver](ctx, tx, job)
		if errors.Is(err, rivertype.ErrNotFound) {
			return nil // the job was removed from the queue; the range is claimed all the same
		}
		return err
	})
	if closed {
		w.logClosed(ctx, claimed.Run.ID)
	}
	return err
}
