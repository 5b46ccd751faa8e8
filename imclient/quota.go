package imclient

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// CallStore is where the call times of one (app, API) are handed out to all
// instances; repo implements it on one row in Postgres.
type CallStore interface {
	// ReserveCalls takes n consecutive call times: first, first+interval, ….
	// They are given out once only, to whichever instance asks.
	ReserveCalls(ctx context.Context, n int) (first time.Time, interval time.Duration, err error)
	// Throttle halves the rate for all instances, at most once for one burst of
	// rate-limit answers, and hands out no call time within the next pause.
	Throttle(ctx context.Context, pause time.Duration) error
}

// Lateness is how long after its call time a call may still start. A call time
// missed by more is given up, because calls that bunch up behind a stall could
// exceed the limit in some one-second window. CallStore spaces call times at
// (1s+Lateness)/rate, so that lateness included no one-second window holds more
// than rate calls.
const Lateness = 10 * time.Millisecond

// patience is the longest that a caller is kept waiting for its call time.
// Beyond it (a provider told us to stay away for a minute or an hour) the
// caller gets a throttled error and can give its worker slot away meanwhile.
const patience = 30 * time.Second

// Gate lets calls of one (app, API) through at the times that its CallStore
// hands out. It reserves a slab of call times at once, so that an instance at
// full speed asks the store about ten times a second, not once a call. Safe for
// concurrent use; callers pass in the order in which they came.
type Gate struct {
	store CallStore
	now   func() time.Time
	// turn is a lock that can be waited for with a context.
	turn chan struct{}

	mu       sync.Mutex
	next     time.Time
	interval time.Duration
	left     int // call times left in the slab, the first of them at next
	slowed   int // counts the rate-limit answers: call times from before are void
}

// NewGate makes a gate. now is the clock in which the store's call times are
// meant: the database's, read locally.
func NewGate(store CallStore, now func() time.Time) *Gate {
	return &Gate{store: store, now: now, turn: make(chan struct{}, 1)}
}

// slabTime is how much of the future one reservation covers: long against the
// round trip to the store, short against a second, so that an instance that
// stops wastes little.
const slabTime = 100 * time.Millisecond

// Wait returns when one call may be sent, at once, and gives its call time. Its
// errors are the context's, the store's, or a ClassThrottled *Error whose
// RetryAfter says when the next call time comes, if that is far away.
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

// Missed reports whether it is too late to start the call of a call time.
func (g *Gate) Missed(at time.Time) bool { return g.now().Sub(at) > Lateness }

// slowedSince reports whether a rate-limit answer came since the call time was
// taken.
func (g *Gate) slowedSince(slowed int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.slowed != slowed
}

// take gives the next call time that is not missed yet, and the count of
// rate-limit answers so far.
func (g *Gate) take(ctx context.Context) (at time.Time, slowed int, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.left > 0 {
		// Call times missed by a stall are lost; skip them in one step.
		if late := g.now().Sub(g.next) - Lateness; late > 0 {
			missed := min(int(late/g.interval)+1, g.left)
			g.next = g.next.Add(time.Duration(missed) * g.interval)
			g.left -= missed
		}
	}
	if g.left == 0 {
		slab := 1
		if g.interval > 0 {
			slab = max(1, int(slabTime/g.interval))
		}
		first, interval, err := g.store.ReserveCalls(ctx, slab)
		if err != nil {
			return time.Time{}, 0, fmt.Errorf("reserve call times: %w", err)
		}
		if interval <= 0 {
			return time.Time{}, 0, fmt.Errorf("reserve call times: interval %s is not positive", interval)
		}
		g.next, g.interval, g.left = first, interval, slab
	}
	at = g.next
	if wait := at.Sub(g.now()); wait > patience {
		return time.Time{}, 0, &Error{Class: ClassThrottled, Text: "the provider asked for a pause", RetryAfter: wait}
	}
	g.next = g.next.Add(g.interval)
	g.left--
	return at, g.slowed, nil
}

// Throttled tells all instances that the provider answered with its rate-limit
// code and wants us to stay away for pause (0: it did not say). Call times
// reserved before are given back unused.
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
