package repo_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"syncer/imclient"
	"syncer/internal/pg"
	"syncer/repo"
)

// reserve takes n call times.
func reserve(t testing.TB, q *repo.Quota, n int) (first time.Time, interval time.Duration) {
	t.Helper()
	times, err := q.ReserveCalls(t.Context(), n, 0)
	if err != nil {
		t.Fatal(err)
	}
	return times.First, times.Interval
}

// leastMargin is the shortest margin that there is.
const leastMargin = 4 * time.Millisecond

// spacing is the interval of a rate with the margin that a new quota has.
func spacing(rate float64) time.Duration {
	return time.Duration(float64(time.Second+8*time.Millisecond) / rate)
}

// wantRate reserves one call and compares its spacing with that of a rate.
func wantRate(t testing.TB, q *repo.Quota, rate float64) {
	t.Helper()
	least, most := time.Duration(float64(time.Second+leastMargin)/rate), time.Duration(float64(time.Second+imclient.MaxMargin)/rate)
	if _, interval := reserve(t, q, 1); interval < least || interval > most+time.Microsecond {
		t.Errorf("calls are %s apart, want %s to %s: %g a second", interval, least, most, rate)
	}
}

func throttle(t testing.TB, q *repo.Quota, pause time.Duration) {
	t.Helper()
	if err := q.Throttle(t.Context(), pause); err != nil {
		t.Fatal(err)
	}
}

// wantLimit looks for a second that holds more calls than the limit, even if
// the calls before it were as late as they may be and the others punctual.
func wantLimit(t testing.TB, calls []time.Time, limit int, lateness time.Duration) {
	t.Helper()
	slices.SortFunc(calls, time.Time.Compare)
	for i := limit; i < len(calls); i++ {
		if d := calls[i].Sub(calls[i-limit]); d < time.Second+lateness {
			t.Errorf("calls %d to %d, one more than the limit, start within %s (%s to %s)",
				i-limit, i, d, calls[i-limit].Format(time.StampNano), calls[i].Format(time.StampNano))
			return
		}
	}
}

func TestReservedCallsKeepTheLimit(t *testing.T) {
	t.Parallel()
	// Rates whose spacing is no whole number of microseconds are the point.
	for _, rate := range []int{1, 7, 35, 90, 100, 180, 700} {
		t.Run(fmt.Sprint(rate), func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			var mu sync.Mutex
			var calls []time.Time
			var group errgroup.Group
			for i := range 8 {
				quota := b.open(t, fmt.Sprint(i)).Quota(b.app.ID, imclient.KindPresence, float64(rate))
				group.Go(func() error {
					for n := range 40 {
						slab := 1 + (i+n)%max(1, rate/10)
						times, err := quota.ReserveCalls(t.Context(), slab, 0)
						if err != nil {
							return err
						}
						mu.Lock()
						for k := range slab {
							calls = append(calls, times.First.Add(time.Duration(k)*times.Interval))
						}
						mu.Unlock()
						b.clock.pass(time.Duration(n*i) * time.Millisecond / 3)
					}
					return nil
				})
			}
			if err := group.Wait(); err != nil {
				t.Fatal(err)
			}
			wantLimit(t, calls, rate, leastMargin)
			for _, call := range calls {
				if call.Before(noon) {
					t.Fatalf("call time %s was in the past", call)
				}
			}
		})
	}
}

// In real time, with stores that read the database's clock each for itself.
func TestReservedCallsInRealTime(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const rate = 200
	var mu sync.Mutex
	var calls []time.Time
	var group errgroup.Group
	for i := range 8 {
		store := openStore(t, pg.Config{URL: b.url, Schema: "syncer", MaxConns: 2, Process: fmt.Sprint(i)})
		quota := store.Quota(b.app.ID, imclient.KindAccounts, rate)
		group.Go(func() error {
			for range 25 {
				asked := store.Now()
				times, err := quota.ReserveCalls(t.Context(), 5, 0)
				if err != nil {
					return err
				}
				if times.First.Before(asked) {
					return fmt.Errorf("call time %s is before it was asked for at %s", times.First, asked)
				}
				mu.Lock()
				for k := range 5 {
					calls = append(calls, times.First.Add(time.Duration(k)*times.Interval))
				}
				mu.Unlock()
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	wantLimit(t, calls, rate, leastMargin)
}

// The margin follows the latest calls of all instances, is never less than 4 ms or
// more than MaxMargin, and shrinks by 2 ms a second of calls. So does the lateness that
// a call may have, which is 1 ms less.
func TestMargin(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const rate = 100
	mine, others := b.store.Quota(b.app.ID, imclient.KindPresence, rate), b.open(t, "second").Quota(b.app.ID, imclient.KindPresence, rate)
	ms := time.Millisecond
	for i, tc := range []struct {
		q        *repo.Quota
		calls    int
		late     time.Duration
		throttle bool
		pass     time.Duration
		spaced   time.Duration // what is added to the second
		margin   time.Duration
	}{
		{q: mine, calls: 1, spaced: 8 * ms, margin: 7 * ms}, // nothing is known yet
		{q: mine, calls: 1, late: 19 * ms, spaced: 20 * ms, margin: 19 * ms},
		{q: mine, calls: 100, spaced: 18 * ms, margin: 17 * ms},
		{q: others, calls: 500, spaced: 8 * ms, margin: 7 * ms},
		{q: mine, calls: 50, spaced: 7 * ms, margin: 6 * ms},
		{q: mine, calls: 100, pass: time.Hour, spaced: 5 * ms, margin: 4 * ms}, // without calls nothing is measured
		{q: mine, calls: 1000, spaced: 4 * ms, margin: 4 * ms},
		{q: others, calls: 1, late: ms / 2, spaced: 4 * ms, margin: 4 * ms},
		{q: others, calls: 1, late: 5 * ms, spaced: 6 * ms, margin: 5 * ms}, // at once, for all
		{q: mine, calls: 50, late: 2 * ms, spaced: 5 * ms, margin: 4 * ms},  // the latest counts
		{q: mine, calls: 1, late: 300 * ms, spaced: 20 * ms, margin: 19 * ms},
		{q: mine, calls: 1000, spaced: 4 * ms, margin: 4 * ms},
		{q: others, calls: 1000, throttle: true, spaced: 20 * ms, margin: 19 * ms},
		{q: mine, calls: 1000, pass: 5 * time.Minute, spaced: 20 * ms, margin: 19 * ms},
		{q: mine, calls: 100, pass: 6 * time.Minute, spaced: 18 * ms, margin: 17 * ms},
		{q: mine, calls: 1000, spaced: 4 * ms, margin: 4 * ms},
	} {
		b.clock.pass(tc.pass)
		want := (time.Second + tc.spaced) / rate
		if tc.throttle {
			throttle(t, tc.q, 0)
			want *= 2
		}
		times, err := tc.q.ReserveCalls(t.Context(), tc.calls, tc.late)
		if err != nil {
			t.Fatal(err)
		}
		// Cut to the microsecond, rounded up.
		if off := times.Interval - want; off < 0 || off > time.Microsecond {
			t.Errorf("%d: calls are %s apart, want %s", i, times.Interval, want)
		}
		if off := times.Margin - tc.margin; off.Abs() > time.Microsecond {
			t.Errorf("%d: the margin is %s, want %s", i, times.Margin, tc.margin)
		}
	}
}

func TestIdleQuotaSavesNothingUp(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	q := b.store.Quota(b.app.ID, imclient.KindPresence, 100)
	if first, _ := reserve(t, q, 10); !first.Equal(noon) {
		t.Errorf("the first call ever may be sent at %s, want %s", first, noon)
	}
	if first, _ := reserve(t, q, 10); !first.Equal(noon.Add(10 * spacing(100))) {
		t.Errorf("the eleventh call may be sent at %s, want %s after the first", first, 10*spacing(100))
	}
	b.clock.pass(time.Hour)
	if first, _ := reserve(t, q, 10); !first.Equal(noon.Add(time.Hour)) {
		t.Errorf("after an idle hour a call may be sent at %s, want now", first)
	}
}

func TestPutOff(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	q, other := b.store.Quota(b.app.ID, imclient.KindPresence, 4), b.store.Quota(b.app.ID, imclient.KindAccounts, 4)
	first, interval := reserve(t, q, 1)
	reserve(t, other, 1)
	if err := q.PutOff(t.Context(), 40*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	// A microsecond more, for what the database cuts off.
	if next, _ := reserve(t, q, 1); next.Sub(first) < interval+40*time.Millisecond || next.Sub(first) > interval+40*time.Millisecond+time.Microsecond {
		t.Errorf("the next call time is %s after the first, want %s", next.Sub(first), interval+40*time.Millisecond)
	}
	if next, _ := reserve(t, other, 1); next.Sub(first) != interval {
		t.Errorf("the other API's next call time is %s after the first, want %s", next.Sub(first), interval)
	}
}

func TestThrottleAndRecovery(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	q, other := b.store.Quota(b.app.ID, imclient.KindPresence, 100), b.open(t, "second").Quota(b.app.ID, imclient.KindPresence, 100)
	wantRate(t, q, 100)
	b.clock.pass(time.Minute)
	throttle(t, q, 0)
	wantRate(t, other, 50) // for all instances
	for range 3 {          // the rest of the burst
		b.clock.pass(300 * time.Millisecond)
		throttle(t, other, 0)
	}
	wantRate(t, q, 50)
	b.clock.pass(200 * time.Millisecond)
	throttle(t, q, 0) // 1.1 s after the first: a new burst
	wantRate(t, other, 25)
	for _, want := range []float64{25, 35, 45, 55, 65, 75, 85, 95, 100, 100} {
		wantRate(t, q, want)
		b.clock.pass(2 * time.Second)
	}
	throttle(t, q, 0)
	b.clock.pass(5 * time.Second)
	wantRate(t, q, 70)
	throttle(t, q, 0) // halves what is in force, not what was
	wantRate(t, q, 35)
	b.clock.pass(time.Hour)
	wantRate(t, q, 100)
}

func TestThrottlingNeverStops(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	q := b.store.Quota(b.app.ID, imclient.KindPresence, 100)
	for range 30 {
		throttle(t, q, 0)
		b.clock.pass(1500 * time.Millisecond)
	}
	wantRate(t, q, 1)
	b.clock.pass(200 * time.Second)
	wantRate(t, q, 100)
}

// Two instances' clocks agree to within a round trip only: one may reserve at a
// time before that of the throttling.
func TestThrottledInTheFuture(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	q := b.store.Quota(b.app.ID, imclient.KindPresence, 100)
	for range 30 {
		throttle(t, q, 0)
		b.clock.pass(1500 * time.Millisecond)
	}
	throttle(t, q, 0)
	b.clock.pass(-5 * time.Millisecond)
	wantRate(t, q, 1)
	throttle(t, q, 0)
	wantRate(t, q, 1)
	first, interval := reserve(t, q, 3)
	second, _ := reserve(t, q, 1)
	if want := first.Add(3 * interval); second.Before(want) {
		t.Errorf("call times go backwards: %s after %s", second, first)
	}
}

func TestPause(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	q, other := b.store.Quota(b.app.ID, imclient.KindPresence, 100), b.open(t, "second").Quota(b.app.ID, imclient.KindPresence, 100)
	throttle(t, q, 20*time.Second) // before any call: the row is not there yet
	if first, _ := reserve(t, other, 1); first.Before(at(20)) {
		t.Errorf("a call at %s, within the pause of 20s", first)
	}
	throttle(t, other, time.Minute) // of the same burst: a longer pause counts
	wantRate(t, q, 50)
	if first, _ := reserve(t, q, 1); first.Before(at(60)) {
		t.Errorf("a call at %s, within the pause of a minute", first)
	}
	throttle(t, q, time.Second) // a shorter one does not
	if first, _ := reserve(t, other, 1); first.Before(at(60)) {
		t.Errorf("a call at %s, within the longer pause", first)
	}
	// Another API, and another app, have quotas of their own.
	if first, _ := reserve(t, b.store.Quota(b.app.ID, imclient.KindAccounts, 50), 1); !first.Equal(noon) {
		t.Errorf("the pause of one API holds up another until %s", first)
	}
	gate := imclient.NewGate(q, b.clock.Now)
	_, err := gate.Wait(t.Context())
	if apiErr, ok := errors.AsType[*imclient.Error](err); !ok || apiErr.Class != imclient.ClassThrottled || apiErr.RetryAfter < 50*time.Second {
		t.Errorf("a gate's Wait during a long pause: %v; want a throttled error", err)
	}
}

func TestConfiguredRateChanges(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	quota := func(rate float64) *repo.Quota { return b.store.Quota(b.app.ID, imclient.KindPresence, rate) }
	wantRate(t, quota(100), 100)
	wantRate(t, quota(40), 40)
	wantRate(t, quota(120), 120)
	throttle(t, quota(120), 0)
	wantRate(t, quota(120), 60)
	wantRate(t, quota(40), 40) // lower than what throttling left
	b.clock.pass(2 * time.Second)
	throttle(t, quota(40), 0)
	wantRate(t, quota(40), 20)
	b.clock.pass(time.Hour)
	wantRate(t, quota(10), 10)
	wantRate(t, quota(200), 200)
}

// Three instances with a gate each, and many callers, in real time: no second
// holds more call times than the limit. (That calls are sent at their times is
// shown, without a real clock, in imclient.)
func TestGatesTogether(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const rate, enough = 100, 250
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var mu sync.Mutex
	var calls []time.Time
	var group errgroup.Group
	for i := range 3 {
		store := openStore(t, pg.Config{URL: b.url, Schema: "syncer", MaxConns: 2, Process: fmt.Sprint(i)})
		gate := imclient.NewGate(store.Quota(b.app.ID, imclient.KindPresence, rate), store.Now)
		for range 5 {
			group.Go(func() error {
				for {
					call, err := gate.Wait(ctx)
					if ctx.Err() != nil {
						return nil
					}
					if err != nil {
						return err
					}
					mu.Lock()
					if calls = append(calls, call.At); len(calls) == enough {
						cancel()
					}
					mu.Unlock()
				}
			})
		}
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	wantLimit(t, calls, rate, leastMargin)
	if len(calls) < enough {
		t.Errorf("only %d calls in %s", len(calls), patience)
	}
}

// TestSetLimit: another rate holds from the next reservation on, also while a
// throttled one recovers.
func TestSetLimit(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	q := b.store.Quota(b.app.ID, imclient.KindPresence, 100)
	wantRate(t, q, 100)
	q.SetLimit(20)
	wantRate(t, q, 20)
	q.SetLimit(200)
	wantRate(t, q, 200)
	throttle(t, q, 0)
	wantRate(t, q, 100)
	q.SetLimit(40)
	wantRate(t, q, 40)
	if q.Limit() != 40 || q.Kind() != imclient.KindPresence {
		t.Errorf("limit %g of %s", q.Limit(), q.Kind())
	}
}

// TestReservedCallsForgotten: a promoted standby lacks the latest reservations of the
// failed primary, whose processes still use them. The call times that it gives out come
// after those.
func TestReservedCallsForgotten(t *testing.T) {
	t.Parallel()
	const rate, slab, processes = 100, 10, 5
	b := newBench(t)
	var quotas []*repo.Quota
	for i := range processes {
		quotas = append(quotas, b.open(t, fmt.Sprint(i)).Quota(b.app.ID, imclient.KindPresence, rate))
	}
	var calls []time.Time
	reserveAll := func() {
		for range 2 { // a slab in use and one ahead, as imclient.Gate has them
			for _, q := range quotas {
				first, interval := reserve(t, q, slab)
				for k := range slab {
					calls = append(calls, first.Add(time.Duration(k)*interval))
				}
			}
		}
	}
	reserve(t, quotas[0], 1)
	exec(t, b.conn, `CREATE TABLE standby AS SELECT * FROM api_quota`)
	reserveAll()
	exec(t, b.conn, `UPDATE api_quota AS q SET next_at = s.next_at, server_started_at = s.server_started_at - interval '1 hour' FROM standby AS s`)
	reserveAll()
	if len(calls) != 2*2*processes*slab {
		t.Errorf("%d calls", len(calls))
	}
	wantLimit(t, calls, rate, leastMargin)
	first, interval := reserve(t, quotas[0], 1)
	if second, _ := reserve(t, quotas[1], 1); second.Sub(first) > interval+time.Millisecond {
		t.Errorf("the same server waits again: calls at %s and %s", first, second)
	}
}
