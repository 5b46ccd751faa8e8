package jobs

import (
	"context"
	"errors"
	"time"

	"github.com/riverqueue/river"
	"github.com/rs/zerolog"

	"syncer/imclient"
	"syncer/jobs/ask"
	"syncer/repo"
)

// workers is what the workers of the queue share: those that plan runs and those
// that sweep ranges.
type workers struct {
	*shared
	queue      *queue
	yielded    yielded
	firstRetry time.Duration
}

// maxAttempts is how often a range, or the planning of a run, is tried: with
// retryDelay about five minutes in all, besides the retries of each batch. During
// an outage of the API attempts are not counted.
const maxAttempts = 7

// firstRetry is how long a range waits on average after its first failure.
const firstRetry = 5 * time.Second

// retryDelay returns how long a failed range waits: on average 5, 10, 20, … 160
// seconds, with full jitter, so that ranges that failed together are not retried
// together.
func (w *workers) retryDelay(attempt int) time.Duration {
	return ask.Jitter(2 * w.firstRetry << min(max(attempt-1, 0), 5))
}

// nextRetry returns when a failed range is due again, by the queue's clock.
func (w *workers) nextRetry(attempt int) time.Time {
	return w.store.ServerNow().Add(w.retryDelay(attempt))
}

// snooze puts a job off; if d is not positive, it is due at once.
func snooze(d time.Duration) error { return river.JobSnooze(max(d, 0)) }

// claimFailed logs that a range, or the planning of a run, could not be claimed;
// the queue retries it.
func (w *workers) claimFailed(ctx context.Context, runID int64, rangeNo int, err error) error {
	if ctx.Err() == nil {
		w.warnings.warn("", "could not begin with a range; it will be retried", err, func(event *zerolog.Event) {
			event.Int64("run_id", runID).Int("range", rangeNo)
		})
	}
	return err
}

// endRun closes a run as failed and logs it, unless another worker was first.
func (w *workers) endRun(ctx context.Context, run repo.Run, reason string) error {
	err := w.store.EndRun(ctx, run.ID, repo.RunFailed, reason)
	if errors.Is(err, repo.ErrGone) {
		return nil
	}
	if err != nil {
		return err
	}
	w.logClosed(ctx, run.ID)
	return nil
}

// logClosed logs a run and wakes WaitRun, once, when this process has closed it.
func (w *workers) logClosed(ctx context.Context, runID int64) {
	defer w.closed.ring()
	run, err := w.store.FindRun(ctx, runID)
	if err != nil {
		w.log.Warn().Err(err).Int64("run_id", runID).Msg("run closed")
		return
	}
	app := w.apps[run.AppID].Name
	w.config.Metrics.closed(app, run.Job, run.Kind, run.Status)
	event := w.log.Info()
	switch {
	case run.Status == repo.RunFailed:
		event = w.log.Error().Str("error", run.Error)
	case run.RejectedAnswers > 0 || run.HeldBack > 0:
		event = w.log.Warn().Str("error", run.Error)
	}
	if id := w.traceRun(run); id != "" {
		event = event.Str("trace_id", id)
	}
	event.Str("app", app).Str("job", run.Job).Str("kind", string(run.Kind)).
		Str("trigger", string(run.Trigger)).Int64("run_id", run.ID).Str("status", string(run.Status)).
		Int64("users", run.Users).Int64("changed", run.Changed).Int64("failed", run.Failed).
		Int64("calls", run.Calls).Int64("retries", run.Retries).
		Dur("dur_ms", run.Duration(w.store.Now())).Msg("run closed")
}

// guard returns f with its panics as errors: the range is retried, and the other
// work of the process continues.
func guard(f func() error) func() error {
	return func() error { return imclient.Guard(f) }
}
