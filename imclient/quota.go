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
	// PutOff moves the call times that nobody has yet by d.
	PutOff(ctx context.Context, d time.Duration) error
	// Throttle halves the rate for all instances, at most once for one burst of
	// rate-limit answers, and hands out no call time within the next pause.
	Throttle(ctx context.Context, pause time.Duration) error
}

// Slack is how much calls may bunch up, between here and where the provider counts
// them, without exceeding the limit: CallStore spaces call times at
// (1s+Slack)/rate, so that no one-second window holds more than rate calls if none
// of them takes longer than another by more than Slack.
const Slack = 20 * time.Millisecond

// Lateness is how long after its call time a call may still start; the rest of
// Slack is for the way. A call time missed by more is given up, because calls that
// bunch up behind a stall could exceed the limit.
const Lateness = 8 * time.Millisecond

// patience is the longest that a caller is kept waiting for its call time.
// Beyond it (a provider told us to stay away for a minute or an hour) the
// caller gets a throttled error and can give its worker slot away meanwhile.
const patience = 30 * time.Second

// Gate lets calls of one (app, API) through at the times that its CallStore
// hands out. It reserves a slab of call times at once, so that an instance at
// full speed asks the store about ten times a second, not once a call; and it
// reserves the next one before the last is used up, so that no call waits for the
// store. Safe for concurrent use; callers pass in the order in which they came.
type Gate struct {
	store CallStore
	now   func() time.Time
	// turn is a lock that can be waited for with a context.
	turn chan struct{}

	mu       sync.Mutex
	next     time.Time
	interval time.Duration
	left     int          // call times left in the slab, the first of them at next
	size     int          // of the slab
	ahead    *reservation // of the next slab; nil: none yet
	slowed   int          // counts the rate-limit answers: call times from before are void
	// owed are the calls that started too late, the last of them at lateAt.
	owed   int
	lateAt time.Time
}

// reservation is a slab of call times on its way.
type reservation struct {
	done     chan struct{} // closed when the rest is set
	first    time.Time
	interval time.Duration
	size     int
	err      error
	slowed   int // what Gate.slowed was
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
		if g.isLate(at) { // the store took its time
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

// Missed reports whether it is too late to start the call of a call time.
func (g *Gate) Missed(at time.Time) bool { return g.now().Sub(at) > Lateness }

// Again gives a call time to a call that missed its own.
func (g *Gate) Again(ctx context.Context, missed time.Time) (at time.Time, err error) {
	if g.isLate(missed) {
		return g.putOff(ctx, missed)
	}
	return g.Wait(ctx)
}

// isLate reports whether a call time was missed, but by less than the time to the
// next, where that is so long that it is dear: then it is put off, with all that
// come after it.
func (g *Gate) isLate(at time.Time) bool {
	g.mu.Lock()
	interval := g.interval
	g.mu.Unlock()
	late := g.now().Sub(at)
	return interval > slabTime && late > Lateness && late < interval
}

// putOff gives the present as a late call time. All later ones come as much
// later, so that no second holds more of them.
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

// Sent is to be called when the request of a call time is on its way. When that
// took too long after all, another call time is given up for it, or all are put
// off: it may be in one second with those that were to come after its own.
func (g *Gate) Sent(at time.Time) {
	now := g.now()
	if now.Sub(at) <= Lateness {
		return
	}
	if g.isLate(at) {
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), reserveTimeout)
			defer cancel()
			// As good as can be: the call is made.
			_ = Guard(func() error { return g.store.PutOff(ctx, now.Sub(at)) })
		}()
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.owed++
	g.lateAt = now
}

// slowedSince reports whether a rate-limit answer came since the call time was
// taken.
func (g *Gate) slowedSince(slowed int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.slowed != slowed
}

// take gives the next call time that is not missed yet, and the count of
// rate-limit answers so far. Only who has the turn calls it.
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

// skipLost leaves out the call times that a stall missed, in one step, and those
// owed for late calls of the last second.
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

// refill waits for the next slab. The gate's lock is released meanwhile.
func (g *Gate) refill(ctx context.Context) error {
	if g.ahead == nil || g.ahead.hasFailed() { // what failed ahead of time may go well by now
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
		return nil // it was reserved before the rate-limit answer: void
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

// reserveTimeout bounds a reservation, which outlives the call that began it.
const reserveTimeout = 10 * time.Second

// reserve asks the store for the next slab.
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
