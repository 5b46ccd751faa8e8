package ask

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"syncer/imclient"
)

// LongestOpen is the longest time between two probes of an open breaker.
const LongestOpen = time.Minute

// A breaker opens after breakAfter failures in a row. The time until a probe is
// drawn anew each time, from a span that begins at firstOpen and doubles.
const (
	breakAfter = 5
	firstOpen  = time.Second
)

// Breaker is a circuit breaker: it keeps calls from an API that does not answer.
// While it is open, callers wait, and one at a time goes through as the probe. The
// first answer, whatever it says, closes it, and the callers go on at the pace of
// the quota. It knows what this process has met; other processes have their own.
// The exported fields are set before the first call. A Breaker is safe for
// concurrent use.
type Breaker struct {
	Hold     time.Duration   // how long a batch is held, from its beginning
	Longest  time.Duration   // the longest time between two probes
	Stopping <-chan struct{} // once closed, no caller waits
	// Answered is called with each answer, Opened and Closed when the breaker opens
	// and closes. The Breaker is locked meanwhile.
	Answered func()
	Opened   func(err error)
	Closed   func(open time.Duration, probes int)

	mu           sync.Mutex
	turns        int       // openings and closings; distinguishes earlier calls from later ones
	failures     int       // in a row
	failingSince time.Time // when the first of them ended
	last         error     // of the newest one
	openedAt     time.Time // zero if closed
	probeAt      time.Time // the next probe may go
	probing      bool
	probes       int           // since openedAt
	moved        chan struct{} // closed when the breaker closes or a probe ends
}

// NewBreaker returns a closed breaker with the defaults for all fields but Stopping.
func NewBreaker() *Breaker {
	return &Breaker{
		Hold: BatchBudget, Longest: LongestOpen,
		Answered: func() {}, Opened: func(error) {}, Closed: func(time.Duration, int) {},
		moved: make(chan struct{}),
	}
}

// passage is a call that goes through.
type passage struct {
	turn  int
	probe bool
}

// heldBackError reports that a call was not made because the API does not answer.
type heldBackError struct {
	err error // of the newest failed call
}

func (e *heldBackError) Error() string { return "held back: " + e.err.Error() }

// Unwrap returns the newest failure, whose class and code are those of the outage.
func (e *heldBackError) Unwrap() error { return e.err }

// pass waits until a call of a batch may be made; the caller ends the passage with
// over. While the breaker is open, the call waits to be the probe or for the probe
// of another to be answered. It returns ErrStopped if the process stops, and a
// heldBackError if the batch, which began at begun, was held for Hold.
func (b *Breaker) pass(ctx context.Context, begun time.Time) (passage, error) {
	for {
		p, wait, moved, held := b.tryPass(begun)
		switch {
		case held != nil:
			return p, held
		case moved == nil:
			return p, nil
		}
		select {
		case <-time.After(wait):
		case <-moved:
		case <-b.Stopping:
			return p, ErrStopped
		case <-ctx.Done():
			return p, ctx.Err()
		}
	}
}

// tryPass is one try of pass. If moved is not nil, the caller tries again after
// wait or once moved is closed.
func (b *Breaker) tryPass(begun time.Time) (p passage, wait time.Duration, moved <-chan struct{}, held error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.openedAt.IsZero() {
		return passage{turn: b.turns}, 0, nil, nil
	}
	now := time.Now()
	if !b.probing && !now.Before(b.probeAt) {
		b.probing = true
		b.probes++
		return passage{turn: b.turns, probe: true}, 0, nil, nil
	}
	left := begun.Add(b.Hold).Sub(now)
	if left <= 0 {
		return p, 0, nil, &heldBackError{b.last}
	}
	if b.probing {
		return p, left, b.moved, nil
	}
	return p, min(left, b.probeAt.Sub(now)), b.moved, nil
}

// over ends a passage; calls counts the requests that were sent. An error that says
// nothing about the API, because the caller gave up or the database failed, changes
// nothing; the next probe may go at once.
func (b *Breaker) over(p passage, calls int, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	apiErr, ok := errors.AsType[*imclient.Error](err)
	switch {
	case ok && apiErr.Class == imclient.ClassTransient:
		b.fail(p, apiErr)
	case calls > 0 && (ok || err == nil):
		b.answer()
	}
	if p.probe && p.turn == b.turns {
		b.probing = false
		b.wake()
	}
}

// answer closes the breaker, also if the call was made before it opened.
func (b *Breaker) answer() {
	b.Answered()
	b.failures = 0
	if b.openedAt.IsZero() {
		return
	}
	b.Closed(time.Since(b.openedAt), b.probes)
	b.turns++
	b.openedAt, b.probing, b.probes = time.Time{}, false, 0
	b.wake()
}

// fail counts a failure, unless the call was made before the breaker opened or closed.
func (b *Breaker) fail(p passage, err error) {
	if p.turn != b.turns {
		return
	}
	if b.failures == 0 {
		b.failingSince = time.Now()
	}
	b.failures++
	b.last = err
	switch {
	case p.probe:
		b.probeAt = time.Now().Add(Jitter(b.openSpan()))
	case b.failures >= breakAfter:
		b.turns++
		b.openedAt = time.Now()
		b.probeAt = b.openedAt.Add(Jitter(b.openSpan()))
		b.Opened(err)
	}
}

func (b *Breaker) wake() {
	close(b.moved)
	b.moved = make(chan struct{})
}

// openSpan returns the span from which the time until the next probe is drawn.
func (b *Breaker) openSpan() time.Duration {
	return min(firstOpen<<min(b.probes, 16), b.Longest)
}

// Jitter returns a random time from (0, most], uniformly distributed (full jitter):
// what fails together is not retried together.
func Jitter(most time.Duration) time.Duration { return rand.N(most) + 1 }

// Outage reports whether the breaker is open, and since when no call was answered.
func (b *Breaker) Outage() (since time.Time, open bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failingSince, !b.openedAt.IsZero()
}

// Failing returns since when the API has not answered, and the newest failure; nil
// while the breaker is closed.
func (b *Breaker) Failing() (since time.Time, newest error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.openedAt.IsZero() {
		return time.Time{}, nil
	}
	return b.failingSince, b.last
}

// call makes a call once it may be made. A nil Breaker lets every call through.
func (b *Breaker) call(ctx context.Context, begun time.Time, ask func() (calls int, err error)) error {
	if b == nil {
		_, err := ask()
		return err
	}
	p, err := b.pass(ctx, begun)
	if err != nil {
		return err
	}
	var calls int
	defer func() { b.over(p, calls, err) }() // also when ask panics
	calls, err = ask()
	return err
}
