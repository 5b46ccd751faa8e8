package imclient

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fakeStore hands out call times as a row in Postgres would.
type fakeStore struct {
	mu        sync.Mutex
	next      time.Time
	interval  time.Duration
	err       error
	reserved  []int
	throttled []time.Duration
	takes     time.Duration // how long a reservation takes
}

func (s *fakeStore) reservations() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.reserved)
}

func (s *fakeStore) ReserveCalls(_ context.Context, n int) (time.Time, time.Duration, error) {
	time.Sleep(s.takes)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return time.Time{}, 0, s.err
	}
	s.reserved = append(s.reserved, n)
	first := s.next
	if now := time.Now(); first.Before(now) {
		first = now
	}
	s.next = first.Add(time.Duration(n) * s.interval)
	return first, s.interval, nil
}

func (s *fakeStore) PutOff(_ context.Context, d time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next = s.next.Add(d)
	return s.err
}

func (s *fakeStore) Throttle(_ context.Context, pause time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.throttled = append(s.throttled, pause)
	s.next = time.Now().Add(pause)
	return s.err
}

func TestGate_spacing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const calls = 50
		store := &fakeStore{interval: 5 * time.Millisecond}
		gate := NewGate(store, time.Now)
		var mu sync.Mutex
		var at []time.Time
		var all sync.WaitGroup
		for range calls {
			all.Go(func() {
				if _, err := gate.Wait(t.Context()); err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				at = append(at, time.Now())
			})
		}
		all.Wait()
		slices.SortFunc(at, time.Time.Compare)
		for i := 1; i < len(at); i++ {
			if gap := at[i].Sub(at[i-1]); gap != store.interval {
				t.Errorf("calls %d and %d are %s apart, want %s", i-1, i, gap, store.interval)
			}
		}
		// The first reservation learns the interval, the others cover 100 ms each.
		// 1 + 20 + 20 + 9 were used: the next slab is not due before half of the last is.
		if got, want := store.reservations(), []int{1, 20, 20, 20}; !slices.Equal(got, want) {
			t.Errorf("reserved %v, want %v", got, want)
		}
	})
}

func TestGate_lateness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &fakeStore{interval: 20 * time.Millisecond}
		gate := NewGate(store, time.Now)
		wait := func() {
			t.Helper()
			if _, err := gate.Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		wait() // learns the interval
		wait() // takes the first of a slab of 5: 20, 40, 60, 80, 100 ms
		// A stall of 44 ms, to 64 ms: the time 40 is missed by far, 60 by 4 ms only.
		time.Sleep(44 * time.Millisecond)
		before := time.Now()
		wait()
		if took := time.Since(before); took != 0 {
			t.Errorf("a call time 4 ms ago was not used at once, but after %s", took)
		}
		wait()
		if took := time.Since(before); took != 16*time.Millisecond {
			t.Errorf("the next call came after %s, want 16ms: the missed times must not bunch up", took)
		}
		// A stall beyond the whole slab.
		time.Sleep(time.Second)
		before = time.Now()
		wait()
		if took := time.Since(before); took != 0 {
			t.Errorf("after a long stall the call waited %s", took)
		}
	})
}

// A database that takes half as long as a slab lasts holds up no call.
func TestGate_reservesAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &fakeStore{interval: 5 * time.Millisecond}
		gate := NewGate(store, time.Now)
		wait := func() {
			t.Helper()
			if _, err := gate.Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		wait()
		wait() // the first of a slab
		store.takes = 45 * time.Millisecond
		begin := time.Now()
		const calls = 100
		for range calls {
			wait()
		}
		if took, want := time.Since(begin), calls*store.interval; took != want {
			t.Errorf("%d calls took %s, want %s", calls, took, want)
		}
	})
}

// A reservation that failed ahead of time fails no call when the store is well
// again.
func TestGate_storeFailedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &fakeStore{interval: 10 * time.Millisecond}
		gate := NewGate(store, time.Now)
		fail := func(err error) {
			store.mu.Lock()
			defer store.mu.Unlock()
			store.err = err
		}
		for call := range 12 { // the first, a slab of ten, one more
			switch call {
			case 2:
				fail(errors.New("database down"))
			case 9:
				fail(nil)
			}
			if _, err := gate.Wait(t.Context()); err != nil {
				t.Fatalf("call %d: %v", call, err)
			}
			synctest.Wait()
		}
		if got, want := store.reservations(), []int{1, 10, 10}; !slices.Equal(got, want) {
			t.Errorf("reserved %v, want %v", got, want)
		}
	})
}

// Calls that were late on their way would share a second with those of later
// call times: as many of these are given up.
func TestGate_Sent_late(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &fakeStore{interval: 5 * time.Millisecond}
		gate := NewGate(store, time.Now)
		wait := func() time.Time {
			t.Helper()
			at, err := gate.Wait(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return at
		}
		wait()
		first, second := wait(), wait()
		time.Sleep(Lateness)
		gate.Sent(second) // late by Lateness: in time
		third := wait()
		if got, want := third.Sub(second), store.interval; got != want {
			t.Errorf("after a call in time the next call time is %s later, want %s", got, want)
		}
		time.Sleep(Lateness)
		gate.Sent(first)
		gate.Sent(second)
		fourth := wait()
		if got, want := fourth.Sub(third), 3*store.interval; got != want {
			t.Errorf("after two late calls the next call time is %s later, want %s", got, want)
		}
		if got, want := wait().Sub(fourth), store.interval; got != want {
			t.Errorf("the one after it comes %s later, want %s", got, want)
		}
		// A second later nothing is owed any more.
		gate.Sent(first)
		time.Sleep(2 * time.Second)
		begin := time.Now()
		if at := wait(); !at.Equal(begin) {
			t.Errorf("after two seconds the next call time is %s later, want none", at.Sub(begin))
		}
	})
}

// At a low rate a call that is late costs its lateness, not a call time: all later
// ones come as much later.
func TestGate_late(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &fakeStore{interval: 250 * time.Millisecond}
		gate := NewGate(store, time.Now)
		begin := time.Now()
		var at []time.Duration
		note := func(when time.Time, err error) time.Time {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			at = append(at, when.Sub(begin))
			return when
		}
		note(gate.Wait(t.Context()))
		missed := note(gate.Wait(t.Context()))
		time.Sleep(40 * time.Millisecond) // for a connection
		note(gate.Again(t.Context(), missed))
		sent := note(gate.Wait(t.Context()))
		time.Sleep(30 * time.Millisecond) // for the writing
		gate.Sent(sent)
		synctest.Wait()
		note(gate.Wait(t.Context()))
		store.takes = 100 * time.Millisecond // the database is slow, once
		time.Sleep(250 * time.Millisecond)
		note(gate.Wait(t.Context()))
		store.takes = 0
		note(gate.Wait(t.Context()))
		time.Sleep(10 * time.Second) // nothing to do
		missed = note(gate.Wait(t.Context()))
		time.Sleep(time.Second) // far too late: another one
		note(gate.Again(t.Context(), missed))
		note(gate.Wait(t.Context()))
		ms := time.Millisecond
		want := []time.Duration{0, 250 * ms, 290 * ms, 540 * ms, 820 * ms}
		if !slices.Equal(at[:5], want) {
			t.Errorf("call times %v, want %v", at[:5], want)
		}
		for i, gap := range map[int]time.Duration{6: 250 * ms, 9: 250 * ms} {
			if got := at[i] - at[i-1]; got != gap {
				t.Errorf("call times %v: %s after the one before, want %s", at, got, gap)
			}
		}
	})
}

func TestGate_pauseBeyondPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &fakeStore{interval: 5 * time.Millisecond}
		gate := NewGate(store, time.Now)
		if err := gate.Throttled(t.Context(), time.Minute); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			begin := time.Now()
			_, err := gate.Wait(t.Context())
			e, ok := errors.AsType[*Error](err)
			if !ok || e.Class != ClassThrottled || e.RetryAfter != time.Minute {
				t.Fatalf("got %#v, want a throttled error for a minute", err)
			}
			if took := time.Since(begin); took != 0 {
				t.Errorf("kept waiting for %s", took)
			}
		}
		if len(store.reservations()) != 1 {
			t.Errorf("reserved %v: being turned away must take no more call times", store.reservations())
		}
		// Within patience the caller waits, and gets the very time reserved before.
		time.Sleep(40 * time.Second)
		begin := time.Now()
		if _, err := gate.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took != 20*time.Second {
			t.Errorf("waited %s, want 20s", took)
		}
		if len(store.reservations()) != 1 {
			t.Errorf("reserved %v, want one reservation in all", store.reservations())
		}
	})
}

func TestGate_Throttled_givesSlabBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &fakeStore{interval: 10 * time.Millisecond}
		gate := NewGate(store, time.Now)
		for range 3 { // into the slab of ten
			if _, err := gate.Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if err := gate.Throttled(t.Context(), 5*time.Second); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		if _, err := gate.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took != 5*time.Second {
			t.Errorf("the next call came after %s, want 5s: a slab from before must not be used", took)
		}
		if want := []time.Duration{5 * time.Second}; !slices.Equal(store.throttled, want) {
			t.Errorf("the store was told %v, want %v", store.throttled, want)
		}
	})
}

func TestGate_contextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &fakeStore{interval: 10 * time.Second}
		gate := NewGate(store, time.Now)
		if _, err := gate.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var all sync.WaitGroup
		for range 2 { // one at the front, one in the queue
			all.Go(func() {
				if _, err := gate.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("got %v, want the context's error", err)
				}
			})
		}
		all.Wait()
		if _, err := gate.Wait(t.Context()); err != nil {
			t.Errorf("the gate is stuck after a caller left: %v", err)
		}
	})
}

func TestGate_storeFails(t *testing.T) {
	down := errors.New("database down")
	gate := NewGate(&fakeStore{err: down}, time.Now)
	if _, err := gate.Wait(t.Context()); !errors.Is(err, down) {
		t.Errorf("Wait: %v, want the store's error", err)
	}
	if err := gate.Throttled(t.Context(), 0); !errors.Is(err, down) {
		t.Errorf("Throttled: %v, want the store's error", err)
	}
	if _, err := NewGate(&fakeStore{}, time.Now).Wait(t.Context()); err == nil {
		t.Error("an interval of 0 would be no limit at all; want an error")
	}
}
