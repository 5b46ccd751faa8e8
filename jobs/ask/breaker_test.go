package ask

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"syncer/imclient"
)

// away is what a call to an API ends with that is not there.
var away = &imclient.Error{Provider: imclient.ProviderOpenIM, API: "account_check", Class: imclient.ClassTransient, HTTPStatus: 503}

// testBreaker is a breaker that writes down what it does, and how many are asked.
type testBreaker struct {
	*Breaker
	did   []string
	calls atomic.Int64
}

func newTestBreaker() *testBreaker {
	b := &testBreaker{Breaker: NewBreaker()}
	b.Opened = func(err error) { b.did = append(b.did, "opened: "+err.Error()) }
	b.Closed = func(time.Duration, int) { b.did = append(b.did, "closed") }
	return b
}

// call asks through the breaker, once.
func (b *testBreaker) call(ctx context.Context, result error) error {
	return b.Breaker.call(ctx, time.Now(), func() (int, error) {
		b.calls.Add(1)
		return 1, result
	})
}

// open opens it.
func (b *testBreaker) open(t *testing.T) {
	t.Helper()
	for range breakAfter {
		if err := b.call(t.Context(), away); !errors.Is(err, away) {
			t.Fatalf("a call that fails gives %v", err)
		}
	}
	if _, open := b.Outage(); !open {
		t.Fatal("it is not open")
	}
}

// TestBreaker_counts: what counts as a failure, and what as an answer.
func TestBreaker_counts(t *testing.T) {
	t.Parallel()
	const failing, answered, neither = "failing", "answered", "neither"
	for name, tc := range map[string]struct {
		calls int
		err   error
		want  string
	}{
		"no answer":                   {1, away, failing},
		"no login":                    {0, away, failing},
		"an answer":                   {1, nil, answered},
		"nobody to ask about":         {0, nil, neither},
		"throttled":                   {1, &imclient.Error{Class: imclient.ClassThrottled}, answered},
		"not admin":                   {1, &imclient.Error{Class: imclient.ClassFatal}, answered},
		"a poisoned batch":            {1, &imclient.Error{Class: imclient.ClassBadBatch}, answered},
		"the gate: a pause":           {0, &imclient.Error{Class: imclient.ClassThrottled}, neither},
		"the gate: no database":       {0, errors.New("reserve call times: connection refused"), neither},
		"the page was given up":       {1, context.Canceled, neither},
		"no answer, a timeout inside": {1, &imclient.Error{Class: imclient.ClassTransient, Err: context.DeadlineExceeded}, failing},
	} {
		t.Run(name, func(t *testing.T) {
			b := newTestBreaker()
			answers := 0
			b.Answered = func() { answers++ }
			for range breakAfter - 1 {
				_ = b.call(t.Context(), away)
			}
			_ = b.Breaker.call(t.Context(), time.Now(), func() (int, error) { return tc.calls, tc.err })
			_, open := b.Outage()
			got := neither
			switch {
			case open:
				got = failing
			case b.failures == 0:
				got = answered
			}
			if got != tc.want || (answers > 0) != (got == answered) {
				t.Errorf("it counts as %s (%d answers), want %s", got, answers, tc.want)
			}
		})
	}
}

// TestBreaker_outage is one from beginning to end: it opens, one probe goes through
// at a time, and with the first that is answered all who wait go on.
func TestBreaker_outage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newTestBreaker()
		b.open(t)
		var back atomic.Bool
		var onTheWire, most atomic.Int64
		results := make(chan error, 20)
		for range cap(results) {
			go func() {
				results <- b.Breaker.call(t.Context(), time.Now(), func() (int, error) {
					b.calls.Add(1)
					if !back.Load() {
						most.Store(max(most.Load(), onTheWire.Add(1)))
						defer onTheWire.Add(-1)
					}
					time.Sleep(100 * time.Millisecond)
					if back.Load() {
						return 1, nil
					}
					return 1, away
				})
			}()
		}
		// Three probes take at most 1 + 2 + 4 seconds and their own time.
		for b.calls.Load() < breakAfter+3 {
			time.Sleep(time.Millisecond)
		}
		back.Store(true)
		failed := 0
		for range cap(results) {
			if err := <-results; errors.Is(err, away) {
				failed++
			} else if err != nil {
				t.Errorf("a caller who waited gets %v", err)
			}
		}
		if failed > 3 || most.Load() != 1 || b.calls.Load() != breakAfter+int64(cap(results)) {
			t.Errorf("%d callers failed, %d probes at once, %d calls", failed, most.Load(), b.calls.Load())
		}
		if diff := cmp.Diff([]string{"opened: " + away.Error(), "closed"}, b.did); diff != "" {
			t.Errorf("it did (-want +got):\n%s", diff)
		}
		// From then on it takes as many failures as before.
		for range breakAfter - 1 {
			_ = b.call(t.Context(), away)
		}
		if _, open := b.Outage(); open {
			t.Error("it opened too soon")
		}
	})
}

// TestBreaker_held: who waits for as long as a batch may take is told what the
// outage is, at no call; a stop and the end of a context end the wait too.
func TestBreaker_held(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		stopping := make(chan struct{})
		b := newTestBreaker()
		b.Stopping = stopping
		b.open(t)
		probe := make(chan struct{})
		var all sync.WaitGroup
		all.Go(func() {
			_ = b.Breaker.call(t.Context(), time.Now(), func() (int, error) {
				<-probe
				return 1, away
			})
		})
		time.Sleep(2 * firstOpen) // the probe is under way, and hangs
		began := time.Now()
		err := b.call(t.Context(), nil)
		_, held := errors.AsType[*heldBackError](err)
		if !held || !errors.Is(err, away) || imclient.ClassOf(err) != imclient.ClassTransient || time.Since(began) != BatchBudget {
			t.Errorf("after %s: %v, of class %s", time.Since(began), err, imclient.ClassOf(err))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := b.call(ctx, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a caller whose context ends gets %v", err)
		}
		all.Go(func() {
			if err := b.call(t.Context(), nil); !errors.Is(err, ErrStopped) {
				t.Errorf("a caller who is stopped gets %v", err)
			}
		})
		synctest.Wait()
		close(stopping)
		synctest.Wait()
		close(probe)
		all.Wait()
		if n := b.calls.Load(); n != breakAfter {
			t.Errorf("%d calls, want %d: those who waited made none", n, breakAfter)
		}
	})
}

// TestBreaker_lostProbe: a probe whose caller gives up, or panics, is no answer,
// and the next caller is the probe at once.
func TestBreaker_lostProbe(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(b *testBreaker){
		"cancelled": func(b *testBreaker) { _ = b.call(context.Background(), context.Canceled) },
		"panic": func(b *testBreaker) {
			_ = imclient.Guard(func() error {
				return b.Breaker.call(context.Background(), time.Now(), func() (int, error) { panic("lost") })
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newTestBreaker()
				b.open(t)
				time.Sleep(firstOpen)
				lose(b)
				if _, open := b.Outage(); !open {
					t.Error("it closed without an answer")
				}
				began := time.Now()
				if err := b.call(t.Context(), nil); err != nil || time.Since(began) != 0 {
					t.Errorf("the next probe: %v after %s", err, time.Since(began))
				}
				if _, open := b.Outage(); open {
					t.Error("it stays open after an answer")
				}
			})
		})
	}
}

// TestBreaker_lateResults: calls that were under way when it opened or closed. An
// answer is one whenever it comes; a failure of before is none of now.
func TestBreaker_lateResults(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newTestBreaker()
		early := make([]passage, 2*breakAfter)
		for i := range early {
			early[i], _ = b.pass(t.Context(), time.Now())
		}
		b.open(t)
		probeAt := b.probeAt
		for _, p := range early[:breakAfter] {
			b.over(p, 1, away)
		}
		if b.probeAt != probeAt || b.probes != 0 {
			t.Error("failures of calls that were under way put the probe off")
		}
		b.over(early[breakAfter], 1, nil)
		for _, p := range early[breakAfter+1:] {
			b.over(p, 1, away)
		}
		if _, open := b.Outage(); open || b.failures != 0 {
			t.Errorf("open %t, %d failures after an answer", open, b.failures)
		}
	})
}

// TestBreaker_jitter: the time until a probe is anything from nothing to all of its
// span, which doubles up to a minute.
func TestBreaker_jitter(t *testing.T) {
	t.Parallel()
	b := newTestBreaker()
	var spans []time.Duration
	for probes := range 8 {
		b.probes = probes
		span := b.openSpan()
		spans = append(spans, span)
		var short, long int
		for range 1000 {
			d := Jitter(span)
			if d <= 0 || d > span {
				t.Fatalf("%s of %s", d, span)
			}
			if d <= span/10 {
				short++
			}
			if d > span*9/10 {
				long++
			}
		}
		if short < 40 || long < 40 { // of the 100 to be expected
			t.Errorf("of %s, %d times of 1000 less than a tenth, %d times more than nine", span, short, long)
		}
	}
	want := []time.Duration{1, 2, 4, 8, 16, 32, 60, 60}
	for i := range want {
		want[i] *= time.Second
	}
	if diff := cmp.Diff(want, spans); diff != "" {
		t.Errorf("spans (-want +got):\n%s", diff)
	}
	if b.probes = 1 << 40; b.openSpan() != LongestOpen {
		t.Error("the span has no end")
	}
}

// TestBreaker_hours: six hours in which no call is answered, and 64 batches always
// wait to be asked about. A probe goes every half minute on average, 720 in all;
// nobody is left behind. It counts goroutines, so it runs alone.
func TestBreaker_hours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newTestBreaker()
		const hours, batches = 6 * time.Hour, 64
		var back atomic.Bool
		a := &API[imclient.Presence]{
			Breaker: b.Breaker, MaxBatch: 1, Count: func(Calls) {},
			Query: func(context.Context, []string) (imclient.Answer[imclient.Presence], error) {
				b.calls.Add(1)
				time.Sleep(time.Second) // the API takes its time to fail
				if back.Load() {
					return imclient.Answer[imclient.Presence]{Calls: 1}, nil
				}
				return imclient.Answer[imclient.Presence]{Calls: 1}, away
			},
		}
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for range batches {
			all.Go(func() {
				for ctx.Err() == nil {
					if _, _, err := a.retry(ctx, []string{"u"}); err == nil {
						return
					}
				}
			})
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		before := runtime.NumGoroutine()
		time.Sleep(hours - time.Hour)
		synctest.Wait()
		if now := runtime.NumGoroutine(); now > before+batches/4 {
			t.Errorf("%d goroutines after an hour, %d after six", before, now)
		}
		// At first each batch may have a call on the wire.
		if n := b.calls.Load(); n > batches+1000 {
			t.Errorf("%d calls in six hours", n)
		}
		back.Store(true)
		time.Sleep(2 * LongestOpen)
		all.Wait() // the probe is answered, and with it all go on
		cancel()
		if n := len(b.did); n != 2 {
			t.Errorf("it did %v", b.did)
		}
	})
}
