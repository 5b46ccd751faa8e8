package jobs

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// heartbeat is when the last round of the housekeeping ended.
type heartbeat struct {
	last atomic.Pointer[time.Time]
}

// of returns do with a beat after each call, failed or not.
func (h *heartbeat) of(do func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		defer h.beat()
		return do(ctx)
	}
}

func (h *heartbeat) beat() {
	now := time.Now() // with its monotonic reading: a clock that is set does not matter
	h.last.Store(&now)
}

func (h *heartbeat) within(d time.Duration) bool {
	last := h.last.Load()
	return last != nil && time.Since(*last) <= d
}

// Alive reports whether a round of the engine's housekeeping, of which six fall
// into RescueAfter, ended within that time. A database that is away makes rounds
// fail, not hang. An engine that is not alive has lost its ranges to others.
func (e *Engine) Alive() bool { return e.keeper.heartbeat.within(e.config.RescueAfter) }

// ErrTrouble reports that the database answers, and does not let the engine do its
// work: no space is left, for instance.
var ErrTrouble = errors.New("the database does not let the work go on")

// recentErrors holds, for each part of the engine's own work with the database, the
// error of the last attempt. It is safe for concurrent use.
type recentErrors struct {
	mu   sync.Mutex
	last map[string]recentError // by what was tried
}

type recentError struct {
	err error
	at  time.Time
}

// note records how an attempt ended.
func (r *recentErrors) note(what string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		delete(r.last, what)
		return
	}
	if r.last == nil {
		r.last = make(map[string]recentError)
	}
	r.last[what] = recentError{err, time.Now()}
}

// newest returns the newest error, nil if it is older than within.
func (r *recentErrors) newest(within time.Duration) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var what string
	var newest recentError
	for w, last := range r.last {
		if last.at.After(newest.at) {
			what, newest = w, last
		}
	}
	if newest.err == nil || time.Since(newest.at) > within {
		return nil
	}
	return fmt.Errorf("%w: %s: %w", ErrTrouble, what, newest.err)
}

// Trouble returns ErrTrouble, and why, if the last attempt to write a page, to
// start the run of a tick or to do the housekeeping failed for the database, and
// ErrStalled if work is due that is not taken up. It returns nil if all went well,
// or if nothing was tried within RescueAfter.
func (e *Engine) Trouble() error {
	if err := e.recent.newest(e.config.RescueAfter); err != nil {
		return err
	}
	if stalled := e.keeper.stalls.found.Load(); stalled != nil {
		return *stalled
	}
	return nil
}
