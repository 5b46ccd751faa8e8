package jobs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"syncer/imclient"
)

// yielded holds the ranges that this process has given back because it gets no
// answer. For a while they are for other processes, whose network may be better: of
// two idle processes the one that is cut off could otherwise take a run's last
// range again and again. It is safe for concurrent use.
type yielded struct {
	mu    sync.Mutex
	until map[rangeArgs]time.Time
}

// add yields a range for d, and forgets those whose time is over.
func (y *yielded) add(r rangeArgs, d time.Duration) {
	y.mu.Lock()
	defer y.mu.Unlock()
	now := time.Now()
	maps.DeleteFunc(y.until, func(_ rangeArgs, until time.Time) bool { return !until.After(now) })
	y.until[r] = now.Add(d)
}

// rest returns for how long a range is still yielded.
func (y *yielded) rest(r rangeArgs) time.Duration {
	y.mu.Lock()
	defer y.mu.Unlock()
	return time.Until(y.until[r])
}

// offerEvery is how often a yielded range is offered to all processes.
const offerEvery = time.Second

// waitForAPI yields a range whose API gives this process no answer. The time is
// short, since the batches were held for long already. A run on which no process
// has made progress for Outage is ended as failed.
func (w *workers) waitForAPI(ctx context.Context, o outcome, since time.Time) error {
	if away := time.Since(since); away >= w.config.Outage {
		ended, err := w.store.EndSilentRun(ctx, o.run.ID, w.config.Outage, func(lastAnswer time.Time) string {
			return fmt.Sprintf("no answer since %s: %v", later(lastAnswer, w.store.Now().Add(-away)).UTC().Format("2006-01-02 15:04:05 UTC"), causeOf(o.err))
		})
		if err != nil {
			return err
		}
		if ended {
			w.logClosed(ctx, o.run.ID)
			return nil
		}
	}
	wait := w.retryDelay(1)
	w.yielded.add(rangeArgs{o.run.ID, o.rangeNo}, wait)
	w.log.Debug().Str("app", w.apps[o.run.AppID].Name).Str("job", o.run.Job).Int64("run_id", o.run.ID).Int("range", o.rangeNo).
		Err(o.err).Dur("wait_ms", wait).Msg("no answer; the range waits")
	return snooze(min(wait, offerEvery))
}

// causeOf returns the API's part of an error.
func causeOf(err error) error {
	if apiErr, ok := errors.AsType[*imclient.Error](err); ok {
		return apiErr
	}
	return err
}
