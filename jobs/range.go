package jobs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivertype"
	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel/attribute"

	"syncer/imclient"
	"syncer/repo"
	"syncer/repo/userstable"
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

// maxAttempts is how often a range, or the planning, is tried before it is
// given up: with retryDelay about five minutes in all, besides the retries of
// each batch. While an API gives no answer nobody counts.
const maxAttempts = 7

// firstRetry is how long a range waits that failed for the first time, on average.
const firstRetry = 5 * time.Second

// retryDelay is how long a failed range waits: with full jitter, so that ranges
// that failed together do not come back together. That is 5, 10, 20, … 160 seconds
// on average, and at most twice as long.
func (e *Engine) retryDelay(attempt int) time.Duration {
	return jitter(2 * e.firstRetry << min(max(attempt-1, 0), 5))
}

// nextRetry is when a failed range is due again; see queueClock.
func (e *Engine) nextRetry(attempt int) time.Time {
	return e.store.ServerNow().Add(e.retryDelay(attempt))
}

// snooze puts a job off; one whose time has come already is due at once.
func snooze(d time.Duration) error { return river.JobSnooze(max(d, 0)) }

// errStopped says that the engine is stopping; what is left goes back to the queue.
var errStopped = errors.New("the engine is stopping")

// rangeWorker sweeps one range.
type rangeWorker struct {
	river.WorkerDefaults[rangeArgs]
	engine *Engine
}

// NextRetry spaces the attempts.
func (w *rangeWorker) NextRetry(job *river.Job[rangeArgs]) time.Time {
	return w.engine.nextRetry(job.Attempt)
}

// Work sweeps the range to its end, going on after the last page written.
func (w *rangeWorker) Work(ctx context.Context, job *river.Job[rangeArgs]) error {
	e := w.engine
	load := e.loads[job.Queue]
	defer load.begin()()
	if !e.awaitClock(ctx) {
		return snooze(0)
	}
	if rest := e.left.rest(job.Args); rest > 0 {
		return snooze(min(rest, offerEvery))
	}
	claimed, err := e.store.ClaimRange(ctx, job.Args.RunID, job.Args.RangeNo, job.ID, e.staleBefore())
	early, tooEarly := errors.AsType[*repo.EarlyError](err)
	switch {
	case tooEarly:
		return snooze(early.RecheckAfter.Sub(e.store.Now()))
	case errors.Is(err, repo.ErrGone):
		return nil
	case errors.Is(err, repo.ErrHeld):
		return snooze(e.config.RescueAfter / 2)
	case errors.Is(err, repo.ErrMoved):
		e.troubles.note("claim a range", err)
		_ = e.unclaimed(ctx, job.Args.RunID, job.Args.RangeNo, err)
		return snooze(offerEvery) // for a process that knows the present address
	case err != nil:
		return e.unclaimed(ctx, job.Args.RunID, job.Args.RangeNo, err)
	}
	defer claimed.Done()
	load.claims.Add(1)
	begun := time.Now()
	ctx, span := e.beginWork(ctx, claimed.Run, "range")
	defer span.End()
	finish := func(ctx context.Context, reason string) error {
		closed, err := e.store.FinishRange(ctx, claimed, reason, func(tx pgx.Tx) error {
			_, err := river.JobCompleteTx[*riverpgxv5.Driver](ctx, tx, job)
			if errors.Is(err, rivertype.ErrNotFound) {
				return nil // somebody removed the job from the queue; the range is ours all the same
			}
			return err
		})
		if closed {
			e.logClosed(ctx, claimed.Run.ID)
		}
		return err
	}
	var written, unsaved repo.Counters
	err = imclient.Guard(func() (err error) {
		if written, unsaved, err = e.sweepRange(ctx, claimed); err == nil {
			err = finish(ctx, "")
		}
		if errors.Is(err, repo.ErrUnreconciled) {
			if err = e.reconcile(ctx, claimed); err == nil {
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
		e.log.Debug().Str("app", e.apps[claimed.Run.AppID].Name).Str("job", claimed.Run.Job).Int64("run_id", claimed.Run.ID).Int("range", claimed.No).
			Int64("users", written.Users).Int64("changed", written.Changed).Int64("failed", written.Failed).
			Int64("calls", written.Calls).Int64("retries", written.Retries).Dur("dur_ms", time.Since(begun)).Msg("range done")
	}
	return e.settle(ctx, outcome{
		run: claimed.Run, rangeNo: claimed.No, begun: begun, err: err, last: job.Attempt >= job.MaxAttempts,
		release: func(ctx context.Context, reason string) error {
			return e.store.ReleaseRange(ctx, claimed, reason, unsaved)
		},
		giveUp: func(ctx context.Context, reason string) error {
			if err := e.store.AddCalls(ctx, claimed, unsaved); err != nil {
				return err
			}
			return finish(ctx, reason)
		},
	})
}

// unclaimed logs that a range, or the planning of a run, could not be claimed; the
// queue tries again.
func (e *Engine) unclaimed(ctx context.Context, runID int64, rangeNo int, err error) error {
	if ctx.Err() == nil {
		e.again.warn("", "could not begin with a range; it will be retried", err, func(event *zerolog.Event) {
			event.Int64("run_id", runID).Int("range", rangeNo)
		})
	}
	return err
}

// sweepRange sweeps with the client and the tables of the run's kind. It returns
// what was written, and the calls made for pages that were not.
func (e *Engine) sweepRange(ctx context.Context, r *repo.Range) (written, unsaved repo.Counters, err error) {
	app, unsavedCalls, spans := e.apps[r.Run.AppID], &tally{}, e.spansOf(r.Run)
	retries := e.config.Metrics.retries.WithLabelValues(app.Name, string(r.Run.Kind))
	switch r.Run.Kind {
	case imclient.KindPresence:
		judge := &reviewer{engine: e, app: app, second: e.opinions[app.ID], unsaved: unsavedCalls, retries: retries, spans: spans}
		s := &sweep[imclient.Presence]{
			asker:  asker[imclient.Presence]{tracedAsk(spans, app.Presence.QueryPresence), app.Presence.MaxPresenceBatch(), e.breaker(r.Run), unsavedCalls, retries},
			engine: e, source: e.source(app, r.Run), values: e.store.Presence(), count: countPresence, review: judge.review, spans: spans,
		}
		return s.run(ctx, r)
	case imclient.KindAccounts:
		s := &sweep[imclient.AccountStatus]{
			asker:  asker[imclient.AccountStatus]{tracedAsk(spans, app.Accounts.CheckAccounts), app.Accounts.MaxAccountsBatch(), e.breaker(r.Run), unsavedCalls, retries},
			engine: e, source: e.source(app, r.Run), values: e.store.Accounts(), count: countAccount, spans: spans,
		}
		return s.run(ctx, r)
	default:
		return written, unsaved, fmt.Errorf("unknown kind %q of run %d", r.Run.Kind, r.Run.ID)
	}
}

// guard gives f with its panics as errors: the range is retried, and the process
// and its other work go on.
func guard(f func() error) func() error {
	return func() error { return imclient.Guard(f) }
}

// outcome is how the work on a range, or the planning of a run, ended.
type outcome struct {
	run     repo.Run
	rangeNo int
	begun   time.Time // when the range was claimed; zero: it is the planning
	err     error
	last    bool                                           // the queue grants no further attempt
	release func(ctx context.Context, reason string) error // give it back
	giveUp  func(ctx context.Context, reason string) error // record that it failed for good
}

// settle turns the outcome into what the queue is told. Here the error's class
// decides, and here it is logged.
func (e *Engine) settle(ctx context.Context, o outcome) error {
	if o.err == nil || errors.Is(o.err, repo.ErrGone) {
		return nil
	}
	// What is left to write must be written although the work was cancelled.
	const settleTimeout = 4 * time.Second
	settleCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	class := imclient.ClassOf(o.err)
	apiErr, answered := errors.AsType[*imclient.Error](o.err)
	warn := func(message string, err error, wait time.Duration) {
		e.again.warn(e.apps[o.run.AppID].Name, message, err, func(event *zerolog.Event) {
			event.Str("job", o.run.Job).Int64("run_id", o.run.ID).Int("range", o.rangeNo).Str("class", class.String())
			if answered {
				event.Str("code", apiErr.Code).Str("operation_id", apiErr.OpID)
			}
			if wait > 0 {
				event.Dur("wait_ms", wait)
			}
		})
	}
	release := func(reason string) (held bool) {
		err := o.release(settleCtx, reason)
		if held = !errors.Is(err, repo.ErrGone); held && err != nil {
			// It will be found without a sign of life.
			warn("could not give the range back", err, 0)
		}
		return held
	}
	if errors.Is(o.err, errStopped) || ctx.Err() != nil {
		release("")
		return river.JobSnooze(0)
	}
	reason := o.err.Error()
	_, usersMistake := errors.AsType[*userstable.Error](o.err)
	e.config.Metrics.gaveBack(e.apps[o.run.AppID].Name, o.run.Kind, class, usersMistake)
	if class == imclient.ClassThrottled {
		wait := max(apiErr.RetryAfter, e.retryDelay(1))
		release(reason)
		warn("throttled; the range waits", o.err, wait)
		return snooze(wait)
	}
	// An outage that was there before this attempt is none of its own, and uses it
	// up no more than the attempts of others. One that began in it does: a batch that
	// fails whenever it is sent, among others that are answered, must come to an end.
	if since, open := e.outage(o.run); open && answered && class == imclient.ClassTransient && since.Before(o.begun) {
		release(reason)
		return e.waitForAPI(settleCtx, o, since, apiErr)
	}
	switch {
	case usersMistake || class == imclient.ClassFatal || class == imclient.ClassUnauthorised:
		// A worker whose claim is lost does not end the run. After a failover that
		// lost the run, another one may have its number.
		if !release(reason) {
			return nil
		}
		if err := e.endRun(settleCtx, o.run, reason); err != nil {
			return err
		}
		return river.JobCancel(o.err)
	case o.last:
		warn("given up", o.err, 0)
		if err := o.giveUp(settleCtx, reason); err != nil && !errors.Is(err, repo.ErrGone) {
			return err
		}
		return river.JobCancel(o.err)
	default:
		warn("failed; it will be retried", o.err, 0)
		release(reason)
		return o.err
	}
}

// endRun closes a run as failed, and says so, unless another worker was first.
func (e *Engine) endRun(ctx context.Context, run repo.Run, reason string) error {
	err := e.store.EndRun(ctx, run.ID, repo.RunFailed, reason)
	if errors.Is(err, repo.ErrGone) {
		return nil
	}
	if err != nil {
		return err
	}
	e.logClosed(ctx, run.ID)
	return nil
}

// logClosed wakes WaitRun and logs a run, once, when this engine has closed it.
func (e *Engine) logClosed(ctx context.Context, runID int64) {
	e.closed.ring()
	run, err := e.store.FindRun(ctx, runID)
	if err != nil {
		e.log.Warn().Err(err).Int64("run_id", runID).Msg("run closed")
		return
	}
	e.config.Metrics.closed(e.apps[run.AppID].Name, run.Job, run.Kind, run.Status)
	event := e.log.Info()
	switch {
	case run.Status == repo.RunFailed:
		event = e.log.Error().Str("error", run.Error)
	case run.RejectedAnswers > 0 || run.HeldBack > 0:
		event = e.log.Warn().Str("error", run.Error)
	}
	if id := e.traceRun(run); id != "" {
		event = event.Str("trace_id", id)
	}
	event.Str("app", e.apps[run.AppID].Name).Str("job", run.Job).Str("kind", string(run.Kind)).
		Str("trigger", string(run.Trigger)).Int64("run_id", run.ID).Str("status", string(run.Status)).
		Int64("users", run.Users).Int64("changed", run.Changed).Int64("failed", run.Failed).
		Int64("calls", run.Calls).Int64("retries", run.Retries).
		Dur("dur_ms", run.Duration(e.store.Now())).Msg("run closed")
}
