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
	"syncer/repo/userstable"
)

// outcome is how the work on a range, or the planning of a run, ended.
type outcome struct {
	run     repo.Run
	rangeNo int
	begun   time.Time // when the range was claimed; zero for planning
	err     error
	last    bool                                           // the queue grants no further attempt
	release func(ctx context.Context, reason string) error // returns the claim
	giveUp  func(ctx context.Context, reason string) error // records the failure for good
}

// action is what becomes of the work after an outcome.
type action string

const (
	done       action = "done"         // it is finished, or another worker's
	giveBack   action = "give back"    // it continues at once: elsewhere if the process stops, or without a user who was erased
	throttled  action = "throttled"    // it waits as long as the provider asks
	waitForAPI action = "wait for API" // it waits for the end of an outage, at no attempt
	failRun    action = "fail run"     // no retry mends it
	giveUp     action = "give up"      // that was the last attempt
	retry      action = "retry"
)

// outage is what this process knows about an outage of the run's API.
type outage struct {
	open  bool
	since time.Time
}

// decide returns what becomes of the work.
//
// An outage that began before the attempt is not held against it: the attempts of
// others would be used up too. One that began within it is: a batch that fails
// whenever it is sent, among others that are answered, must come to an end.
func decide(o outcome, cancelled bool, now outage) action {
	apiErr, answered := errors.AsType[*imclient.Error](o.err)
	_, usersMistake := errors.AsType[*userstable.Error](o.err)
	class := imclient.ClassOf(o.err)
	switch {
	case o.err == nil || errors.Is(o.err, repo.ErrGone):
		return done
	case cancelled || errors.Is(o.err, ask.ErrStopped) || errors.Is(o.err, repo.ErrErased):
		return giveBack
	case answered && apiErr.Class == imclient.ClassThrottled:
		return throttled
	case answered && class == imclient.ClassTransient && now.open && now.since.Before(o.begun):
		return waitForAPI
	case usersMistake || errors.Is(o.err, repo.ErrSalt) || class == imclient.ClassFatal || class == imclient.ClassUnauthorised:
		return failRun
	case o.last:
		return giveUp
	default:
		return retry
	}
}

// settle acts on the outcome and returns what the queue needs: nil, an error to
// retry after, or a snooze.
func (w *workers) settle(ctx context.Context, o outcome) error {
	since, open := w.lane(o.run).breaker.Outage()
	act := decide(o, ctx.Err() != nil, outage{open, since})
	if act == done {
		return nil
	}
	// What is left to write is written although the work was cancelled.
	const settleTimeout = 4 * time.Second
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	if act == giveBack {
		w.release(ctx, o, "")
		return river.JobSnooze(0)
	}
	_, usersMistake := errors.AsType[*userstable.Error](o.err)
	w.config.Metrics.gaveBack(w.apps[o.run.AppID].Name, o.run.Kind, imclient.ClassOf(o.err), usersMistake)
	reason := o.err.Error()
	switch act {
	case throttled:
		apiErr, _ := errors.AsType[*imclient.Error](o.err)
		wait := max(apiErr.RetryAfter, w.retryDelay(1))
		w.release(ctx, o, reason)
		w.warnOf(o, "throttled; the range waits", o.err, wait)
		return snooze(wait)
	case waitForAPI:
		w.release(ctx, o, reason)
		return w.waitForAPI(ctx, o, since)
	case failRun:
		// A worker whose claim is lost does not end the run. After a failover that
		// lost the run, another one may have its number.
		if !w.release(ctx, o, reason) {
			return nil
		}
		if err := w.endRun(ctx, o.run, reason); err != nil {
			return err
		}
		return river.JobCancel(o.err)
	case giveUp:
		w.warnOf(o, "given up", o.err, 0)
		if err := o.giveUp(ctx, reason); err != nil && !errors.Is(err, repo.ErrGone) {
			return err
		}
		return river.JobCancel(o.err)
	default:
		w.warnOf(o, "failed; it will be retried", o.err, 0)
		w.release(ctx, o, reason)
		return o.err
	}
}

// release returns a claim, and reports whether it was still held. If that fails,
// the range is found later by its missing signs of life.
func (w *workers) release(ctx context.Context, o outcome, reason string) (held bool) {
	err := o.release(ctx, reason)
	if errors.Is(err, repo.ErrGone) {
		return false
	}
	if err != nil {
		w.warnOf(o, "could not give the range back", err, 0)
	}
	return true
}

func (w *workers) warnOf(o outcome, message string, err error, wait time.Duration) {
	w.warnings.warn(w.apps[o.run.AppID].Name, message, err, func(event *zerolog.Event) {
		event.Str("job", o.run.Job).Int64("run_id", o.run.ID).Int("range", o.rangeNo).Str("class", imclient.ClassOf(o.err).String())
		if apiErr, ok := errors.AsType[*imclient.Error](o.err); ok {
			event.Str("code", apiErr.Code).Str("operation_id", apiErr.OpID)
		}
		if wait > 0 {
			event.Dur("wait_ms", wait)
		}
	})
}
