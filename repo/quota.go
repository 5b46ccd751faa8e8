package repo

import (
	"context"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"syncer/imclient"
)

// Quota hands out the call times of one (app, API) to all instances, from one
// row. It is an imclient.CallStore.
type Quota struct {
	store *Store
	appID int16
	api   string
	limit atomic.Uint64 // see Limit
	// answeredAt is when a call was last answered, in microseconds since 1970; 0:
	// none was.
	answeredAt atomic.Int64
}

// Quota gives the quota of an app's API at the configured rate.
func (s *Store) Quota(appID int16, kind imclient.Kind, limit float64) *Quota {
	q := &Quota{store: s, appID: appID, api: string(kind)}
	q.SetLimit(limit)
	return q
}

// Kind is whose API it is about: an app has one of each.
func (q *Quota) Kind() imclient.Kind { return imclient.Kind(q.api) }

// Limit is the calls in any one second, all instances together.
func (q *Quota) Limit() float64 { return math.Float64frombits(q.limit.Load()) }

// SetLimit changes the configured rate. Call times that are handed out already,
// for a fifth of a second at most, stay as they are. The other instances go by their own
// limit until theirs is changed too.
func (q *Quota) SetLimit(limit float64) { q.limit.Store(math.Float64bits(limit)) }

// Answered takes note that a call was answered, in whatever way. Other instances
// learn it from the next reservation, which costs nothing more.
func (q *Quota) Answered(at time.Time) { q.answeredAt.Store(at.UnixMicro()) }

// After a rate-limit answer the rate is half; every recoveryStep it gains a
// tenth of the configured rate again.
const (
	recoveryStep  = 2 * time.Second
	recoveryGain  = 0.1
	throttleBurst = time.Second
)

// rateSQL is the rate in force: what was left at the last throttling plus what
// came back since. The instance that throttled may be ahead of us by a little.
// $3 configured rate, $4 now, $5 recoveryGain, $6 recoveryStep in seconds.
const rateSQL = `CASE
        WHEN q.throttled_at IS NULL THEN $3::float8
        ELSE least($3, q.rate + $3 * $5::float8 * greatest(0, floor(extract(epoch FROM $4::timestamptz - q.throttled_at)::float8 / $6::float8)))
    END`

// The margin of call times, in microseconds: that of the calls before, which
// shrinks by marginDecay a second of calls, but not below minMargin, or what the late
// calls of this instance need, if that is more. For refusedFor after a rate-limit
// answer it is the longest, whatever was measured.
// $7 call times, $8 what is needed, $10 marginDecay, $11 minMargin and $12 MaxMargin in
// microseconds, $13 refusedFor in seconds.
const marginSQL = `CASE
        WHEN q.throttled_at > $4 - $13::float8 * interval '1 second' THEN $12::float8
        ELSE least($12, greatest($11::float8, $8::float8, q.margin - $10::float8 * $7::float8 / $3::float8))
    END`

const (
	minMargin = 4 * time.Millisecond
	// firstMargin is that of the first calls, of which nothing is known.
	firstMargin = 8 * time.Millisecond
	// marginDecay is by how much the margin shrinks in a second of calls. So the second
	// after a call has half of it less margin than the call, on average.
	marginDecay = 2 * time.Millisecond
	// refusedFor is how long a refused call counts more than what was measured.
	refusedFor = 10 * time.Minute
)

// One UPDATE takes $7 call times. Their spacing is (1s + margin) / rate, rounded up
// to what Postgres keeps: it must never come out shorter. A call time is never in the
// past. $9 is when a call of this instance was last answered, $14 firstMargin.
const reserveCallsSQL = `
INSERT INTO syncer.api_quota AS q (app_id, api, rate, next_at, answered_at, margin)
VALUES ($1, $2, $3, $4::timestamptz + $7::float8 * ceil((1e6 + $14::float8) / $3::float8) * interval '1 microsecond', $9::timestamptz, $14)
ON CONFLICT (app_id, api) DO UPDATE
SET rate = CASE WHEN q.throttled_at IS NULL THEN $3 ELSE least(q.rate, $3) END,
    margin = ` + marginSQL + `,
    next_at = greatest(q.next_at, $4) + $7 * ceil((1e6 + ` + marginSQL + `) / ` + rateSQL + `) * interval '1 microsecond',
    answered_at = greatest(q.answered_at, $9)
RETURNING next_at, margin, ceil((1e6 + margin) / ` + rateSQL + `)::bigint`

// clockPause is how long calls are put off while the database's clock is not believed.
const clockPause = time.Minute

// ReserveCalls takes n consecutive call times. There are none while the database's
// clock is not believed. The margin is what the latest calls of all instances need, and
// the error of this instance's clock, which delays all its calls against others'.
func (q *Quota) ReserveCalls(ctx context.Context, n int, late time.Duration) (imclient.CallTimes, error) {
	if doubt := q.store.ClockDoubt(); doubt != nil {
		return imclient.CallTimes{}, &imclient.Error{Class: imclient.ClassThrottled, Text: doubt.Error(), RetryAfter: clockPause}
	}
	var end time.Time
	var margin float64
	var interval int64
	var answered *time.Time
	if at := q.answeredAt.Load(); at != 0 {
		answered = new(time.UnixMicro(at))
	}
	needed := late + q.store.ClockError() + marginDecay/2
	err := q.store.QueryRow(ctx, reserveCallsSQL, q.appID, q.api, q.Limit(), q.store.Now(),
		recoveryGain, recoveryStep.Seconds(), float64(n), micros(needed), answered,
		micros(marginDecay), micros(minMargin), micros(imclient.MaxMargin), refusedFor.Seconds(), micros(firstMargin)).Scan(&end, &margin, &interval)
	if err != nil {
		return imclient.CallTimes{}, fmt.Errorf("reserve %d calls of %s: %w", n, q.api, err)
	}
	times := imclient.CallTimes{Interval: time.Duration(interval) * time.Microsecond}
	times.Margin = max(minMargin, time.Duration(margin)*time.Microsecond-marginDecay/2)
	times.First = end.Add(-time.Duration(n) * times.Interval)
	return times, nil
}

func micros(d time.Duration) float64 { return float64(d.Microseconds()) }

const putOffSQL = `
UPDATE syncer.api_quota
SET next_at = next_at + $3::float8 * interval '1 microsecond'
WHERE app_id = $1 AND api = $2`

// PutOff moves the call times that nobody has yet by d.
func (q *Quota) PutOff(ctx context.Context, d time.Duration) error {
	if _, err := q.store.Exec(ctx, putOffSQL, q.appID, q.api, micros(d)+1); err != nil {
		return fmt.Errorf("put off the calls of %s: %w", q.api, err)
	}
	return nil
}

// The rate in force is halved, but not below a hundredth of the configured one,
// and only once for a burst of answers ($8 seconds): calls in flight are all
// refused together. A longer pause ($7 seconds) counts always.
const throttleSQL = `
INSERT INTO syncer.api_quota AS q (app_id, api, rate, next_at, throttled_at)
VALUES ($1, $2, $3::float8 / 2, $4::timestamptz + $7::float8 * interval '1 second', $4)
ON CONFLICT (app_id, api) DO UPDATE
SET rate = CASE
        WHEN q.throttled_at > $4 - $8::float8 * interval '1 second' THEN q.rate
        ELSE greatest($3 / 100, ` + rateSQL + ` / 2)
    END,
    throttled_at = CASE
        WHEN q.throttled_at > $4 - $8 * interval '1 second' THEN q.throttled_at
        ELSE $4
    END,
    next_at = greatest(q.next_at, $4 + $7 * interval '1 second')`

// Throttle halves the rate for all instances and hands out no call time within
// the next pause.
func (q *Quota) Throttle(ctx context.Context, pause time.Duration) error {
	_, err := q.store.Exec(ctx, throttleSQL, q.appID, q.api, q.Limit(), q.store.Now(),
		recoveryGain, recoveryStep.Seconds(), pause.Seconds(), throttleBurst.Seconds())
	if err != nil {
		return fmt.Errorf("throttle %s: %w", q.api, err)
	}
	return nil
}
