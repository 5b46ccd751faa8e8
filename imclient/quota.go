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
	// ReserveCalls takes n consecutive call times, which no other instance gets. late
	// is how late the latest of the caller's calls was since its last reservation.
	ReserveCalls(ctx context.Context, n int, late time.Duration) (CallTimes, error)
	// PutOff moves the call times that are not reserved yet by d.
	PutOff(ctx context.Context, d time.Duration) error
	// Throttle halves the rate of all instances, at most once per burst of rate-limit
	// answers, and hands out no call time within pause.
	Throttle(ctx context.Context, pause time.Duration) error
}

// CallTimes are consecutive call times: First, First + Interval, ….
type CallTimes struct {
	First    time.Time
	Interval time.Duration
	// Margin is how late a call may reach the provider: call times are at least
	// (1s + Margin) / rate apart, so that no second holds more than rate calls if none
	// of them is later than another by more than Margin.
	Margin time.Duration
}

// CallTime is the time at which one call may be sent.
type CallTime struct {
	At               time.Time
	interval, margin time.Duration // see CallTimes
}

// MaxMargin is the longest Margin of call times. It follows the calls that were
// measured, but no call counts as later than that.
const MaxMargin = 20 * time.Millisecond

// The parts of a call's lateness. A call starts at most maxStart after its call time. Of
// what it takes on its way, up to maxWay counts, or what makes maxLate with the start:
// the way cannot be distinguished from the provider's time to answer, which may differ by
// more from call to call.
const (
	maxStart = 8 * time.Millisecond
	maxWay   = MaxMargin - maxStart
	maxLate  = MaxMargin - time.Millisecond // what CallTimes.Margin is at most, since margins shrink
)

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
	// turn is a lock that a caller can wait for with a context. Of the callers that are not
	// urgent only the one that has the line waits for it.
	turn chan struct{}
	line chan struct{}

	mu     sync.Mutex
	slab   CallTimes     // First is the next one to use
	left   int           // call times left in the slab
	size   int           // of the slab
	ahead  *reservation  // of the next slab; nil: none yet
	slowed int           // counts the rate-limit answers: call times from before are void
	late   time.Duration // of the latest call since the last reservation
	trip   quickest
	owed   time.Duration // by which call times are yet to be put off
	paying bool          // a goroutine puts them off
}

// reservation is a slab of call times on its way.
type reservation struct {
	done   chan struct{} // closed when slab and err are set
	slab   CallTimes
	err    error
	size   int
	late   time.Duration // that the store was given
	slowed int           // what Gate.slowed was
}

// NewGate returns a gate. now is the clock of the store's call times: the database's, read
// locally.
func NewGate(store CallStore, now func() time.Time) *Gate {
	return &Gate{store: store, now: now, turn: make(chan struct{}, 1), line: make(chan struct{}, 1)}
}

// slabTime is the time that one reservation covers: long compared with a round trip to the
// store, and short compared with a second, so that an instance that stops wastes little.
const slabTime = 100 * time.Millisecond

type urgentKey struct{}

// Urgent returns a context whose calls pass the others that wait at a gate. The caller
// must bound their rate: others wait as long as there are any.
func Urgent(ctx context.Context) context.Context { return context.WithValue(ctx, urgentKey{}, true) }

// Wait waits until a call may be sent, at once, and returns its call time. Its
// errors are the context's, the store's, or a ClassThrottled *Error whose
// RetryAfter says when the next call time comes, if that is far away.
func (g *Gate) Wait(ctx context.Context) (CallTime, error) {
	locks := []chan struct{}{g.line, g.turn}
	if ctx.Value(urgentKey{}) != nil {
		locks = locks[1:]
	}
	for _, lock := range locks {
		select {
		case lock <- struct{}{}:
			defer func() { <-lock }()
		case <-ctx.Done():
			return CallTime{}, ctx.Err()
		}
	}
	for {
		call, slowed, err := g.take(ctx)
		if err != nil {
			return CallTime{}, err
		}
		if g.isDear(call) { // the store took its time
			if call, err = g.putOff(ctx, call); err != nil {
				return CallTime{}, err
			}
		}
		if wait := call.At.Sub(g.now()); wait > 0 {
			timer := time.NewTimer(wait)
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
				return CallTime{}, ctx.Err()
			}
		}
		if !g.Missed(call) && !g.slowedSince(slowed) {
			return call, nil
		}
	}
}

// Missed reports whether it is too late to start a call.
func (g *Gate) Missed(call CallTime) bool { return g.now().Sub(call.At) > maxStart }

// Again returns another call time for a call that missed its own.
func (g *Gate) Again(ctx context.Context, missed CallTime) (CallTime, error) {
	if g.isDear(missed) {
		return g.putOff(ctx, missed)
	}
	return g.Wait(ctx)
}

// isDear reports whether a call time was missed by less than the interval, at an interval so
// long that losing the call time is expensive. All later ones are then delayed instead.
func (g *Gate) isDear(call CallTime) bool {
	return call.interval > slabTime && g.Missed(call) && g.now().Sub(call.At) < call.interval
}

// putOff returns the present as the call time of a late call. All later ones come as
// much later, so that no second holds more of them.
func (g *Gate) putOff(ctx context.Context, call CallTime) (CallTime, error) {
	for g.Missed(call) {
		by := g.now().Sub(call.At)
		if err := g.store.PutOff(ctx, by); err != nil {
			return CallTime{}, fmt.Errorf("put off call times: %w", err)
		}
		call.At = call.At.Add(by)
	}
	return call, nil
}

// Sent must be called when the request of a call time is written. A call that starts late
// may be in one second with those whose call times come after its own, so these are put off.
func (g *Gate) Sent(call CallTime) {
	late := g.now().Sub(call.At)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.late = max(g.late, late)
	g.owe(call.price(late))
}

// Answered must be called when the answer to a call, sent at the given time, begins to
// arrive. It does what Sent does, for calls that were late on their way.
func (g *Gate) Answered(call CallTime, sent time.Time) {
	now := g.now()
	g.mu.Lock()
	defer g.mu.Unlock()
	start := sent.Sub(call.At)
	late := start + min(g.trip.excess(now.Sub(sent), now), max(maxWay, maxLate-start))
	g.late = max(g.late, late)
	g.owe(call.price(late) - call.price(start))
}

// price returns by how much a call that is late puts off the others: by as much as it is
// later than its margin. If that is more than an interval, one is enough, because one
// call more is all that a second can hold for it.
func (c CallTime) price(late time.Duration) time.Duration {
	return min(max(late-c.margin, 0), c.interval)
}

// owe puts call times off.
func (g *Gate) owe(by time.Duration) {
	if g.owed += by; g.owed == 0 || g.paying {
		return
	}
	g.paying = true
	go func() {
		for {
			g.mu.Lock()
			by := g.owed
			g.owed = 0
			g.paying = by > 0
			g.mu.Unlock()
			if by == 0 {
				return
			}
			ctx, cancel := context.WithTimeout(context.Background(), reserveTimeout)
			// If it fails, nothing can be done: the call was made.
			_ = Guard(func() error { return g.store.PutOff(ctx, by) })
			cancel()
		}
	}()
}

// quickest keeps the quickest round trip of the last quickestFor to twice as long.
type quickest struct {
	now, before time.Duration // of the present and the previous stretch; 0: none
	began       time.Time
}

const quickestFor = 30 * time.Second

// excess returns by how much a round trip that ends at the given time took longer
// than the quickest.
func (q *quickest) excess(trip time.Duration, at time.Time) time.Duration {
	if at.Sub(q.began) > quickestFor {
		q.now, q.before, q.began = 0, q.now, at
	}
	if q.now == 0 || trip < q.now {
		q.now = trip
	}
	least := q.now
	if q.before > 0 {
		least = min(least, q.before)
	}
	return trip - least
}

// slowedSince reports whether a rate-limit answer came since slowed was read.
func (g *Gate) slowedSince(slowed int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.slowed != slowed
}

// take returns the next call time that is not missed yet, and the count of
// rate-limit answers so far. Only the caller that has the turn calls it.
func (g *Gate) take(ctx context.Context) (call CallTime, slowed int, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.skipMissed(); g.left == 0; g.skipMissed() {
		if err := g.refill(ctx); err != nil {
			return CallTime{}, 0, err
		}
	}
	call = CallTime{g.slab.First, g.slab.Interval, g.slab.Margin}
	if wait := call.At.Sub(g.now()); wait > patience {
		return CallTime{}, 0, &Error{Class: ClassThrottled, Text: "calls are put off for long: the provider asked for a pause, or the database's clock was set back", RetryAfter: wait}
	}
	g.skip(1)
	if g.ahead == nil && g.size > 1 && g.left <= g.size/2 {
		g.reserve(ctx)
	}
	return call, g.slowed, nil
}

func (g *Gate) skip(n int) {
	g.slab.First = g.slab.First.Add(time.Duration(n) * g.slab.Interval)
	g.left -= n
}

// skipMissed leaves out the call times that a stall missed, in one step.
func (g *Gate) skipMissed() {
	if g.left == 0 {
		return
	}
	next := CallTime{g.slab.First, g.slab.Interval, g.slab.Margin}
	if g.Missed(next) && !g.isDear(next) {
		late := g.now().Sub(next.At) - maxStart
		g.skip(min(int(late/next.interval)+1, g.left))
	}
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
	if r.err != nil {
		g.late = max(g.late, r.late)
	}
	switch {
	case r.slowed != g.slowed:
		return nil // void: reserved before the rate-limit answer
	case r.err != nil:
		return fmt.Errorf("reserve call times: %w", r.err)
	case r.slab.Interval <= 0 || r.slab.Margin <= 0:
		return fmt.Errorf("reserve call times: interval %s or margin %s is not positive", r.slab.Interval, r.slab.Margin)
	}
	g.slab, g.left, g.size = r.slab, r.size, r.size
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
	r := &reservation{done: make(chan struct{}), size: 1, late: g.late, slowed: g.slowed}
	if g.slab.Interval > 0 {
		r.size = max(1, int(slabTime/g.slab.Interval))
	}
	g.ahead, g.late = r, 0
	go func() {
		defer close(r.done)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reserveTimeout)
		defer cancel()
		r.err = Guard(func() (err error) {
			r.slab, err = g.store.ReserveCalls(ctx, r.size, r.late)
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
