package imclient

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
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
	margin    time.Duration // 0: MaxMargin
	err       error
	reserved  []int
	late      []time.Duration // what ReserveCalls was told, if it was more than nothing
	putOff    time.Duration
	throttled []time.Duration
	takes     time.Duration // how long a reservation takes
}

func (s *fakeStore) reservations() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.reserved)
}

func (s *fakeStore) ReserveCalls(_ context.Context, n int, late time.Duration) (CallTimes, error) {
	time.Sleep(s.takes)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return CallTimes{}, s.err
	}
	s.reserved = append(s.reserved, n)
	if late > 0 {
		s.late = append(s.late, late)
	}
	first := s.next
	if now := time.Now(); first.Before(now) {
		first = now
	}
	s.next = first.Add(time.Duration(n) * s.interval)
	return CallTimes{first, s.interval, cmp.Or(s.margin, MaxMargin)}, nil
}

func (s *fakeStore) PutOff(_ context.Context, d time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next = s.next.Add(d)
	s.putOff += d
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

func TestQuickest(t *testing.T) {
	ms := time.Millisecond
	var q quickest
	at := time.Now()
	for i, tc := range []struct {
		after, trip, want time.Duration
	}{
		{0, 40 * ms, 0}, // the first is the quickest
		{ms, 50 * ms, 10 * ms},
		{ms, 30 * ms, 0},
		{ms, 50 * ms, 20 * ms},
		{quickestFor, 50 * ms, 20 * ms}, // that of the stretch before counts too
		{ms, 60 * ms, 30 * ms},
		{quickestFor + ms, 60 * ms, 10 * ms}, // the way has become longer
		{quickestFor + ms, 70 * ms, 10 * ms},
	} {
		at = at.Add(tc.after)
		if got := q.excess(tc.trip, at); got != tc.want {
			t.Errorf("%d: a trip of %s is %s longer than the quickest, want %s", i, tc.trip, got, tc.want)
		}
	}
}

// The next reservation reports how late calls were. One that
// was later than its margin puts off the call times to come.
func TestGate_lateCalls(t *testing.T) {
	const trip = 50 * time.Millisecond // the quickest
	ms := time.Millisecond
	for name, tc := range map[string]struct {
		interval, margin, start, way time.Duration
		late, putOff                 time.Duration
	}{
		"punctual":                           {5 * ms, 6 * ms, 0, 0, 0, 0},
		"within the margin":                  {5 * ms, 6 * ms, 2 * ms, 4 * ms, 6 * ms, 0},
		"started late":                       {5 * ms, 6 * ms, 7 * ms, 0, 7 * ms, ms},
		"late on its way":                    {5 * ms, 6 * ms, ms, 6 * ms, 7 * ms, ms},
		"both":                               {5 * ms, 6 * ms, 7 * ms, 6 * ms, 13 * ms, 5 * ms},
		"by less than an interval":           {250 * ms, 6 * ms, 30 * ms, 0, 30 * ms, 24 * ms},
		"by many intervals":                  {5 * ms, 6 * ms, 90 * ms, 0, 90 * ms, 5 * ms},
		"a provider that takes its time":     {5 * ms, MaxMargin, 2 * ms, 300 * ms, maxLate, 0},
		"and so far everything was punctual": {5 * ms, 6 * ms, 2 * ms, 300 * ms, maxLate, 5 * ms},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &fakeStore{interval: tc.interval, margin: tc.margin}
				gate := NewGate(store, time.Now)
				wait := func() CallTime {
					t.Helper()
					call, err := gate.Wait(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					return call
				}
				answer := func(start, trip time.Duration) {
					call := wait()
					time.Sleep(start)
					gate.Sent(call)
					sent := time.Now()
					time.Sleep(trip)
					gate.Answered(call, sent)
				}
				answer(0, trip)
				answer(tc.start, trip+tc.way)
				for len(store.reservations()) < 6 { // one can be ahead of the call
					wait()
					synctest.Wait()
				}
				if want := slices.DeleteFunc([]time.Duration{tc.late}, func(d time.Duration) bool { return d == 0 }); !slices.Equal(store.late, want) {
					t.Errorf("the store was told of calls that were late by %v, want %v", store.late, want)
				}
				if store.putOff != tc.putOff {
					t.Errorf("call times were put off by %s, want %s", store.putOff, tc.putOff)
				}
			})
		})
	}
}

// followingStore follows the calls as repo.Quota does.
type followingStore struct {
	fakeStore
	rate    float64
	longest time.Duration // margin that it had
}

const minMargin, marginDecay = 4 * time.Millisecond, 2 * time.Millisecond

func (s *followingStore) ReserveCalls(ctx context.Context, n int, late time.Duration) (CallTimes, error) {
	s.mu.Lock()
	s.margin -= time.Duration(float64(marginDecay) * float64(n) / s.rate)
	s.margin = min(max(s.margin, late+marginDecay/2, minMargin), MaxMargin)
	s.longest = max(s.longest, s.margin)
	s.interval = time.Duration(float64(time.Second+s.margin) / s.rate)
	margin := max(minMargin, s.margin-marginDecay/2)
	s.mu.Unlock()
	times, err := s.fakeStore.ReserveCalls(ctx, n, late)
	times.Margin = margin
	return times, err
}

// TestGates_noSecondHoldsMore lets the gates of three processes share a limit, while
// calls start late and take different times on their way: at no time have more calls
// than the limit arrived within a second. When calls are punctual again, they make use
// of 99 % of it.
func TestGates_noSecondHoldsMore(t *testing.T) {
	const processes, callers, loud, quiet = 3, 20, 20 * time.Second, 30 * time.Second
	for _, rate := range []int{4, 30, 200} {
		for seed := range uint64(10) {
			synctest.Test(t, func(t *testing.T) {
				store := &followingStore{rate: float64(rate)}
				store.margin = MaxMargin
				begin := time.Now()
				var mu sync.Mutex
				var arrived []time.Duration
				var all sync.WaitGroup
				for process := range processes {
					gate := NewGate(store, time.Now)
					for caller := range callers {
						random := rand.New(rand.NewPCG(seed, uint64(process*callers+caller)))
						// one of twenty is long, at most as given
						delay := func(longest time.Duration) time.Duration {
							if time.Since(begin) > loud {
								return 0
							}
							if random.IntN(20) > 0 {
								longest /= 10
							}
							return time.Duration(random.Int64N(int64(longest)))
						}
						all.Go(func() {
							for time.Since(begin) < loud+quiet {
								call, err := gate.Wait(t.Context())
								for err == nil {
									time.Sleep(delay(100 * time.Millisecond)) // for a connection
									if !gate.Missed(call) {
										break
									}
									call, err = gate.Again(t.Context(), call)
								}
								if err != nil {
									t.Error(err)
									return
								}
								time.Sleep(delay(30 * time.Millisecond)) // for the writing
								gate.Sent(call)
								sent := time.Now()
								time.Sleep(10*time.Millisecond + delay(maxWay))
								mu.Lock()
								arrived = append(arrived, time.Since(begin))
								mu.Unlock()
								time.Sleep(30 * time.Millisecond)
								gate.Answered(call, sent)
							}
						})
					}
				}
				all.Wait()
				punctual := checkArrivals(t, rate, seed, arrived, loud+quiet/2)
				if least := 99 * rate * int(quiet/2/time.Second) / 100; punctual < least {
					t.Errorf("rate %d, seed %d: %d punctual calls in %s, want %d", rate, seed, punctual, quiet/2, least)
				}
				synctest.Wait() // a reservation may still be under way
				if store.longest < MaxMargin/2 {
					t.Errorf("rate %d, seed %d: the margin was %s at most", rate, seed, store.longest)
				}
			})
		}
	}
}

// checkArrivals checks that no second has more than rate arrivals. It returns how many are
// after begin, within 15 s.
func checkArrivals(t *testing.T, rate int, seed uint64, arrived []time.Duration, begin time.Duration) (punctual int) {
	t.Helper()
	slices.Sort(arrived)
	for i, at := range arrived {
		if at > begin && at <= begin+15*time.Second {
			punctual++
		}
		if i >= rate && at-arrived[i-rate] < time.Second {
			t.Errorf("rate %d, seed %d: calls %d to %d, one more than the limit, arrived within %s, at %s", rate, seed, i-rate, i, at-arrived[i-rate], at)
		}
	}
	return punctual
}

// At a low rate a call that is late costs its lateness, not a call time: all later
// ones come as much later.
func TestGate_late(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &fakeStore{interval: 250 * time.Millisecond}
		gate := NewGate(store, time.Now)
		begin := time.Now()
		var at []time.Duration
		note := func(call CallTime, err error) CallTime {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			at = append(at, call.At.Sub(begin))
			return call
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
		want := []time.Duration{0, 250 * ms, 290 * ms, 540 * ms, 800 * ms}
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

// TestGate_urgent: an urgent call waits for one of those that came before it at most, and
// has its own call time as they do.
func TestGate_urgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const interval = 10 * time.Millisecond
		gate := NewGate(&fakeStore{interval: interval}, time.Now)
		var mu sync.Mutex
		var order []string
		var at []time.Time
		var all sync.WaitGroup
		call := func(ctx context.Context, name string) {
			all.Go(func() {
				got, err := gate.Wait(ctx)
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				order, at = append(order, name), append(at, got.At)
			})
		}
		for range 50 {
			call(t.Context(), "sweep")
		}
		synctest.Wait()
		time.Sleep(5 * interval)
		mu.Lock()
		before := len(order)
		mu.Unlock()
		for range 3 {
			call(Urgent(t.Context()), "hint")
		}
		all.Wait()
		last := 0
		for i, name := range order {
			if name == "hint" {
				last = i
			}
		}
		if last > before+2*3 {
			t.Errorf("the last urgent call is number %d, and came when %d had passed", last+1, before)
		}
		for i := 1; i < len(at); i++ {
			if at[i].Sub(at[i-1]) < interval {
				t.Errorf("calls %d and %d are %s apart", i, i+1, at[i].Sub(at[i-1]))
			}
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
