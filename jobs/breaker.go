package jobs

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"syncer/imclient"
)

// A breaker opens after so many failures in a row, and lets a probe through after
// a time that is drawn anew each time, from a span that doubles up to longestOpen.
const (
	breakAfter  = 5
	firstOpen   = time.Second
	longestOpen = time.Minute
)

// breaker keeps calls from an API that does not answer. While it is open callers
// wait, and one at a time goes through as the probe: the first answer, whatever it
// says, lets all go on, at the pace of the quota. It knows what this process has
// met; other processes have their own. Safe for concurrent use.
type breaker struct {
	hold     time.Duration   // how long a batch is held, from its beginning
	longest  time.Duration   // that it stays open without a probe
	stopping <-chan struct{} // closed: nobody waits any more
	// What is done with each answer, and when it opens and closes. The breaker is
	// locked meanwhile.
	answered func()
	opened   func(err error)
	closed   func(open time.Duration, probes int)

	mu           sync.Mutex
	turns        int       // openings and closings: tells calls of before from those since
	failures     int       // in a row
	failingSince time.Time // the first of them ended
	last         error     // that of the newest one
	openedAt     time.Time // zero: closed
	probeAt      time.Time // the next probe may go
	probing      bool
	probes       int           // since openedAt
	moved        chan struct{} // closed when it closes, or a probe is over
}

func newBreaker(hold time.Duration, stopping <-chan struct{}) *breaker {
	return &breaker{
		hold: hold, longest: longestOpen, stopping: stopping,
		answered: func() {}, opened: func(error) {}, closed: func(time.Duration, int) {},
		moved: make(chan struct{}),
	}
}

// passage is a call that was let through.
type passage struct {
	turn  int
	probe bool
}

// heldBackError says that a call was not made, because the API gives no answer.
type heldBackError struct {
	err error // of the newest call that failed
}

func (e *heldBackError) Error() string { return "held back: " + e.err.Error() }

// Unwrap gives the newest failure, whose class and code are those of the outage.
func (e *heldBackError) Unwrap() error { return e.err }

// pass lets a call of a batch through, which then has to be told to over. While
// the breaker is open it waits for its turn as the probe, or for another's
// success: until the context ends, the engine stops (errStopped), or the batch,
// which began at begun, was held for long enough (heldBackError).
func (b *breaker) pass(ctx context.Context, begun time.Time) (passage, error) {
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
		case <-b.stopping:
			return p, errStopped
		case <-ctx.Done():
			return p, ctx.Err()
		}
	}
}

// tryPass lets a call through now, says that it was held for long enough, or
// gives what to wait for before the next try: not nil.
func (b *breaker) tryPass(begun time.Time) (p passage, wait time.Duration, moved <-chan struct{}, held error) {
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
	left := begun.Add(b.hold).Sub(now)
	if left <= 0 {
		return p, 0, nil, &heldBackError{b.last}
	}
	if b.probing {
		return p, left, b.moved, nil
	}
	return p, min(left, b.probeAt.Sub(now)), b.moved, nil
}

// over tells how a call that was let through ended: calls counts the requests
// that were sent. What tells nothing of the API, because the caller gave up or the
// database failed, leaves all as it is; the next probe may go at once.
func (b *breaker) over(p passage, calls int, err error) {
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

// answer closes it: also when it is that of a call from before it opened.
func (b *breaker) answer() {
	b.answered()
	b.failures = 0
	if b.openedAt.IsZero() {
		return
	}
	b.closed(time.Since(b.openedAt), b.probes)
	b.turns++
	b.openedAt, b.probing, b.probes = time.Time{}, false, 0
	b.wake()
}

// fail counts a failure. One of a call from before it opened or closed is no news.
func (b *breaker) fail(p passage, err error) {
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
		b.probeAt = time.Now().Add(jitter(b.openSpan()))
	case b.failures >= breakAfter:
		b.turns++
		b.openedAt = time.Now()
		b.probeAt = b.openedAt.Add(jitter(b.openSpan()))
		b.opened(err)
	}
}

func (b *breaker) wake() {
	close(b.moved)
	b.moved = make(chan struct{})
}

// openSpan is the longest that it stays open now, after so many probes.
func (b *breaker) openSpan() time.Duration {
	return min(firstOpen<<min(b.probes, 16), b.longest)
}

// jitter draws a time from (0, most], each as likely as any other: those who fail
// together do not come back together.
func jitter(most time.Duration) time.Duration { return rand.N(most) + 1 }

// outage tells whether it is open, and since when no call has been answered.
func (b *breaker) outage() (since time.Time, open bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failingSince, !b.openedAt.IsZero()
}

// asked asks behind the breaker; nil: there is none.
func (b *breaker) asked(ctx context.Context, begun time.Time, ask func() (calls int, err error)) error {
	if b == nil {
		_, err := ask()
		return err
	}
	p, err := b.pass(ctx, begun)
	if err != nil {
		return err
	}
	var calls int
	defer func() { b.over(p, calls, err) }() // also when it panics
	calls, err = ask()
	return err
}
