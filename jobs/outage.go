package jobs

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"syncer/imclient"
	"syncer/repo"
)

// newBreaker makes the breaker of an app's API: what it does is logged, and shown
// by metrics, and its answers are told to the other processes with the quota's
// next reservation.
func (e *Engine) newBreaker(app *App, kind imclient.Kind) *breaker {
	b := newBreaker(batchBudget, e.stopping)
	b.longest = min(longestOpen, e.config.Outage/5) // no run ends without a few probes
	open := e.config.Metrics.breakerOpen.WithLabelValues(app.Name, string(kind))
	b.opened = func(err error) {
		open.Set(1)
		// Of each kind, be it the login that both need.
		e.again.repeat(repeated{app.Name, "the API gives no answer; calls are held back", string(kind) + " " + reasonOf(err)}, err, func(event *zerolog.Event) {
			event.Str("kind", string(kind)).Str("class", imclient.ClassOf(err).String()).Str("error", err.Error())
		})
	}
	b.closed = func(d time.Duration, probes int) {
		open.Set(0)
		e.log.Info().Str("app", app.Name).Str("kind", string(kind)).Dur("dur_ms", d).Int("probes", probes).Msg("the API answers again")
	}
	for _, quota := range app.Quotas {
		if quota.Kind() == kind {
			b.answered = func() { quota.Answered(e.store.Now()) }
		}
	}
	return b
}

func (e *Engine) breaker(run repo.Run) *breaker { return e.breakers[queueName(run.AppID, run.Kind)] }

// outage tells whether this process gets no answer from the API of a run, and
// since when.
func (e *Engine) outage(run repo.Run) (since time.Time, open bool) { return e.breaker(run).outage() }

// left are the ranges that this process has just given back because it gets no
// answer. For a while they are for the others, whose network may be better: of two
// idle processes the one that is cut off could otherwise take a run's last range
// again and again. Safe for concurrent use.
type left struct {
	mu    sync.Mutex
	until map[rangeArgs]time.Time
}

// leave notes a range, and forgets those that are for everybody again.
func (l *left) leave(r rangeArgs, d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	maps.DeleteFunc(l.until, func(_ rangeArgs, until time.Time) bool { return !until.After(now) })
	l.until[r] = now.Add(d)
}

// rest is how long a range is still for the others.
func (l *left) rest(r rangeArgs) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Until(l.until[r])
}

// offerEvery is how often a range that is left to the others is offered to all.
const offerEvery = time.Second

// waitForAPI gives a range to the others that this process gets no answer about. The
// time for which it is left to them is short, since its batches were held for long
// already. A run that nobody has got on with for Outage is over.
func (e *Engine) waitForAPI(ctx context.Context, o outcome, since time.Time, cause error) error {
	if away := time.Since(since); away >= e.config.Outage {
		ended, err := e.store.EndSilentRun(ctx, o.run.ID, e.config.Outage, func(lastAnswer time.Time) string {
			return fmt.Sprintf("no answer since %s: %v", later(lastAnswer, e.store.Now().Add(-away)).UTC().Format("2006-01-02 15:04:05 UTC"), cause)
		})
		if err != nil {
			return err
		}
		if ended {
			e.logClosed(ctx, o.run.ID)
			return nil
		}
	}
	wait := e.retryDelay(1)
	e.left.leave(rangeArgs{o.run.ID, o.rangeNo}, wait)
	e.log.Debug().Str("app", e.apps[o.run.AppID].Name).Str("job", o.run.Job).Int64("run_id", o.run.ID).Int("range", o.rangeNo).
		Err(o.err).Dur("wait_ms", wait).Msg("no answer; the range waits")
	return snooze(min(wait, offerEvery))
}
