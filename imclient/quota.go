package imclient

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// CallStore hands out the call times of one (app, API) to all instances. Package repo
// implements it on one row in Postgres.
type CallStore interface {
	// ReserveCalls reserves n consecutive call times: first, first+interval, …. Each is
	// handed out once.
	ReserveCalls(ctx context.Context, n int) (first time.Time, interval time.Duration, err error)
	// PutOff delays the call times that are not reserved yet by d.
	PutOff(ctx context.Context, d time.Duration) error
	// Throttle halves the rate of all instances, at most once per burst of rate-limit
	// answers, and hands out no call time within pause.
	Throttle(ctx context.Context, pause time.Duration) error
}

// Slack is the difference of the calls' delays, until the provider counts them, that does
// not exceed the limit: CallStore spaces call times at (1s+Slack)/rate, so that no second
// has more than rate calls if their delays differ by at most Slack.
const Slack = 20 * time.Millisecond

// Lateness is how long after its call time a call may start; the rest of Slack is for the
// network. A call time missed by more is not used, because calls that bunch up after a
// stall could exceed the limit.
const Lateness = 8 * time.Millisecond

// patience is the longest wait for a call time. If the next one is further away, because
// the provider asked for a pause, the caller gets a throttled error and can free its worker.
const patience = 30 * time.Second

// Gate delays calls of one (app, API) until the call times that its CallStore hands out. It
// reserves a slab of them at once, so that an instance at full speed queries the store about
// ten times a second instead of once a call, and reserves the next slab ahead, so that no
// call waits for the store. Safe for concurrent use; callers pass in the order of arrival.
type Gate struct {
	store CallStore
	now   func() time.Time
	// turn is a lock that a caller can wait for with a context.
	turn chan struct{}

	mu       sync.Mutex
	next     time.Time
	interval time.Duration
	left     int          // call times left in the slab, the first of them at next
	size     int          // of the slab
	ahead    *reservation // of the next slab; nil if there is none
	slowed   int          // number of rate-limit answers: earlier call times are void
	// owed is the number of calls that started too late, the last one at lateAt.
	owed   int
	lateAt time.Time
}

// reservation is a slab of call times on its way.
type reservation struct {
	done     chan struct{} // closed when the other fields are set
	first    time.Time
	interval time.Duration
	size     int
	err      error
	slowed   int // Gate.slowed at the time of the request
}

// NewGate returns a gate. now is the clock of the store's call times: the database's, read
// locally.
func NewGate(store CallStore, now func() time.Time) *Gate {
	return &Gate{store: store, now: now, turn: make(chan struct{}, 1)}
}

// slabTime is the time that one reservation covers: long compared with a round trip to the
// store, and short compared with a second, so that an instance that stops wastes little.
const slabTime = 100 * time.Millisecond

// Wait waits until one call may be sent and returns its call time. Errors are the context's,
// the store's, or a ClassThrottled *Error if the next call time is more than 30s away, which
// is its RetryAfter.
func (g *Gate) Wait(ctx context.Context) (at time.Time, err error) {
	select {
	case g.turn <- struct{}{}:
		defer func() { <-g.turn }()
	case <-ctx.Done():
		return time.Time{}, ctx.Err()
	}
	for {
		at, slowed, err := g.take(ctx)
		if err != nil {
			return time.Time{}, err
		}
		if g.isLate(at) { // the store was slow
			if at, err = g.putOff(ctx, at); err != nil {
				return time.Time{}, err
			}
		}
		if wait := at.Sub(g.now()); wait > 0 {
			timer := time.NewTimer(wait)
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
				return time.Time{}, ctx.Err()
			}
		}
		if !g.Missed(at) && !g.slowedSince(slowed) {
			return at, nil
		}
	}
}

// Missed reports whether a call time is too old to start its call.
func (g *Gate) Missed(at time.Time) bool { return g.now().Sub(at) > Lateness }

// Again waits for another call time for a call that missed its own. Errors are those of
// Wait.
func (g *Gate) Again(ctx context.Context, missed time.Time) (at time.Time, err error) {
	if g.isLate(missed) {
		return g.putOff(ctx, missed)
	}
	return g.Wait(ctx)
}

// isLate reports whether a call time was missed by less than the interval, at an interval so
// long that losing the call time is expensive. All later ones are then delayed instead.
func (g *Gate) isLate(at time.Time) bool {
	g.mu.Lock()
	interval := g.interval
	g.mu.Unlock()
	late := g.now().Sub(at)
	return interval > slabTime && late > Lateness && late < interval
}

// putOff replaces a late call time by the present and delays all later ones as much, so that
// no second has more of them.
func (g *Gate) putOff(ctx context.Context, late time.Time) (at time.Time, err error) {
	for at = late; g.Missed(at); {
		by := g.now().Sub(at)
		if err := g.store.PutOff(ctx, by); err != nil {
			return time.Time{}, fmt.Errorf("put off call times: %w", err)
		}
		at = at.Add(by)
	}
	return at, nil
}

// Sent must be called when the request of a call time is written. If that took too long,
// the gate skips another call time for it, or delays all later ones: the call may be in one
// second with those.
func (g *Gate) Sent(at time.Time) {
	now := g.now()
	if now.Sub(at) <= Lateness {
		return
	}
	if g.isLate(at) {
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), reserveTimeout)
			defer cancel()
			// Best effort: the call is made already.
			_ = Guard(func() error { return g.store.PutOff(ctx, now.Sub(at)) })
		}()
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.owed++
	g.lateAt = now
}

// slowedSince reports whether a rate-limit answer came since slowed was read.
func (g *Gate) slowedSince(slowed int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.slowed != slowed
}

// take returns the next call time that is not missed, and the number of rate-limit answers.
// The caller must hold turn.
func (g *Gate) take(ctx context.Context) (at time.Time, slowed int, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.skipLost(); g.left == 0; g.skipLost() {
		if err := g.refill(ctx); err != nil {
			return time.Time{}, 0, err
		}
	}
	at = g.next
	if wait := at.Sub(g.now()); wait > patience {
		return time.Time{}, 0, &Error{Class: ClassThrottled, Text: "calls are put off for long: the provider asked for a pause, or the database's clock was set back", RetryAfter: wait}
	}
	g.skip(1)
	if g.ahead == nil && g.size > 1 && g.left <= g.size/2 {
		g.reserve(ctx)
	}
	return at, g.slowed, nil
}

func (g *Gate) skip(n int) {
	g.next = g.next.Add(time.Duration(n) * g.interval)
	g.left -= n
}

// skipLost skips the call times missed in a stall, and those owed for late calls of the
// last second.
func (g *Gate) skipLost() {
	now := g.now()
	if late := now.Sub(g.next) - Lateness; g.left > 0 && late > 0 && (g.interval <= slabTime || late >= g.interval) {
		g.skip(min(int(late/g.interval)+1, g.left))
	}
	if now.Sub(g.lateAt) > time.Second {
		g.owed = 0
	}
	n := min(g.owed, g.left)
	g.skip(n)
	g.owed -= n
}

// refill waits for the next slab, without the gate's lock.
func (g *Gate) refill(ctx context.Context) error {
	if g.ahead == nil || g.ahead.hasFailed() { // a failed one is worth another attempt
		g.reserve(ctx)
	}
	r := g.ahead
	g.mu.Unlock()
	select {
	case <-r.done:
	case <-ctx.Done():
	}
	g.mu.Lock()
	select {
	case <-r.done:
	default:
		return ctx.Err()
	}
	g.ahead = nil
	switch {
	case r.slowed != g.slowed:
		return nil // void: reserved before the rate-limit answer
	case r.err != nil:
		return fmt.Errorf("reserve call times: %w", r.err)
	case r.interval <= 0:
		return fmt.Errorf("reserve call times: interval %s is not positive", r.interval)
	}
	g.next, g.interval, g.left, g.size = r.first, r.interval, r.size, r.size
	return nil
}

// hasFailed reports whether the reservation is known to have failed.
func (r *reservation) hasFailed() bool {
	select {
	case <-r.done:
		return r.err != nil
	default:
		return false
	}
}

// reserveTimeout limits a reservation, which outlives the call that started it.
const reserveTimeout = 10 * time.Second

// reserve starts the reservation of the next slab.
func (g *Gate) reserve(ctx context.Context) {
	r := &reservation{done: make(chan struct{}), size: 1, slowed: g.slowed}
	if g.interval > 0 {
		r.size = max(1, int(slabTime/g.interval))
	}
	g.ahead = r
	go func() {
		defer close(r.done)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reserveTimeout)
		defer cancel()
		r.err = Guard(func() (err error) {
			r.first, r.interval, err = g.store.ReserveCalls(ctx, r.size)
			return err
		})
	}()
}

// Throttled lowers the rate of all instances after a rate-limit answer. pause is how long
// the provider asked to wait, 0 if it did not. Call times reserved before are void. Errors
// are the store's.
func (g *Gate) Throttled(ctx context.Context, pause time.Duration) error {
	g.mu.Lock()
	g.left = 0
	g.slowed++
	g.mu.Unlock()
	if err := g.store.Throttle(ctx, pause); err != nil {
		return fmt.Errorf("lower the call rate: %w", err)
	}
	return nil
}
