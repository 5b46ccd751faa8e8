package jobs

import (
	"context"
	"sync/atomic"
	"time"
)

// rounds knows when the last round of something that is repeated was over.
type rounds struct {
	last atomic.Pointer[time.Time]
}

// of gives do, and remembers when it returns, with an error or without.
func (r *rounds) of(do func(context.Context) error) func(context.Context) error {
	r.over()
	return func(ctx context.Context) error {
		defer r.over()
		return do(ctx)
	}
}

func (r *rounds) over() {
	now := time.Now() // with its monotonic reading: a clock that is set does not matter
	r.last.Store(&now)
}

// within reports whether a round was over in the last d.
func (r *rounds) within(d time.Duration) bool {
	last := r.last.Load()
	return last != nil && time.Since(*last) <= d
}

// Alive reports whether the engine, once started, goes on: a round of its
// housekeeping, of which six fall into RescueAfter, was over within that time. A
// database that is away makes rounds fail, not hang, and does not count. An engine
// that is not alive has lost its ranges to others.
func (e *Engine) Alive() bool { return e.rounds.within(e.config.RescueAfter) }
