package repo

import (
	"context"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"syncer/imclient"
)

// Quota gives all instances the call times of one API of an app, from one row. It
// implements imclient.CallStore. Safe for concurrent use.
type Quota struct {
	store *Store
	appID int16
	api   string
	limit atomic.Uint64 // see Limit
	// answeredAt is when a call was last answered, in microseconds since 1970; 0: never.
	answeredAt atomic.Int64
}

// Quota returns the quota of the API of a kind at the configured rate, in calls per second.
func (s *Store) Quota(appID int16, kind imclient.Kind, limit float64) *Quota {
	q := &Quota{store: s, appID: appID, api: string(kind)}
	q.SetLimit(limit)
	return q
}

// Kind returns the kind whose API it is.
func (q *Quota) Kind() imclient.Kind { return imclient.Kind(q.api) }

// Limit returns the configured rate: the calls of all instances in any one second.
func (q *Quota) Limit() float64 { return math.Float64frombits(q.limit.Load()) }

// SetLimit changes the configured rate of this instance; others keep theirs. Call times
// that are reserved already, at most 200 ms of them, stay as they are.
func (q *Quota) SetLimit(limit float64) { q.limit.Store(math.Float64bits(limit)) }

// Answered records that a call was answered, with success or not. The next reservation
// passes it on to other instances.
func (q *Quota) Answered(at time.Time) { q.answeredAt.Store(at.UnixMicro()) }

// A rate-limit answer halves the rate; every recoveryStep it regains a tenth of the
// configured rate.
const (
	recoveryStep  = 2 * time.Second
	recoveryGain  = 0.1
	throttleBurst = time.Second
)

// rateSQL is the rate in force: the rate after the last throttling plus what it regained.
// The clock of the instance that throttled may be a little ahead.
// $3 configured rate, $4 now, $5 recoveryGain, $6 recoveryStep in seconds.
const rateSQL = `CASE
        WHEN q.throttled_at IS NULL THEN $3::float8
        ELSE least($3, q.rate + $3 * $5::float8 * greatest(0, floor(extract(epoch FROM $4::timestamptz - q.throttled_at)::float8 / $6::float8)))
    END`

// The margin of call times, in microseconds: the earlier margin, which shrinks by
// marginDecay per second of calls down to minMargin, or what the late calls of this
// instance need, if that is more. For refusedFor after a rate-limit answer it is MaxMargin,
// whatever was measured. $7 call times, $8 what is needed, $10 marginDecay, $11 minMargin and
// $12 MaxMargin in microseconds, $13 refusedFor in seconds.
const marginSQL = `CASE
        WHEN q.throttled_at > $4 - $13::float8 * interval '1 second' THEN $12::float8
        ELSE least($12, greatest($11::float8, $8::float8, q.margin - $10::float8 * $7::float8 / $3::float8))
    END`

const (
	minMargin = 4 * time.Millisecond
	// firstMargin is the margin of the first calls, before anything is measured.
	firstMargin = 8 * time.Millisecond
	// marginDecay is how much the margin shrinks per second of calls, so that the second
	// after a call has, on average, half of it less margin than the call.
	marginDecay = 2 * time.Millisecond
	// refusedFor is how long a refused call outweighs what was measured.
	refusedFor = 10 * time.Minute
)

// One UPDATE reserves $7 call times. Their spacing is (1s + margin) / rate, rounded up to
// Postgres's resolution: it must never be shorter. A call time is never in the past. $9 is
// when a call of this instance was last answered, $14 firstMargin.
//
// If the server was started since the last reservation, it may be a promoted standby that
// lacks the latest ones: call times begin after those, $15 failoverHold in seconds from now.
const reserveCallsSQL = `
INSERT INTO syncer.api_quota AS q (app_id, api, rate, next_at, answered_at, margin, server_started_at)
VALUES ($1, $2, $3, $4::timestamptz + $7::float8 * ceil((1e6 + $14::float8) / $3::float8) * interval '1 microsecond', $9::timestamptz, $14, pg_postmaster_start_time())
ON CONFLICT (app_id, api) DO UPDATE
SET rate = CASE WHEN q.throttled_at IS NULL THEN $3 ELSE least(q.rate, $3) END,
    margin = ` + marginSQL + `,
    next_at = greatest(q.next_at, $4, CASE WHEN q.server_started_at <> pg_postmaster_start_time() THEN $4 + $15::float8 * interval '1 second' END) + $7 * ceil((1e6 + ` + marginSQL + `) / ` + rateSQL + `) * interval '1 microsecond',
    answered_at = greatest(q.answered_at, $9),
    server_started_at = pg_postmaster_start_time()
RETURNING next_at, margin, ceil((1e6 + margin) / ` + rateSQL + `)::bigint`

// failoverHold is how long the call times of a failed primary last at most: an instance
// holds 200 ms of them, so it is enough for ten instances.
const failoverHold = 2 * time.Second

// clockPause is how long calls are delayed while the database's clock is not believed.
const clockPause = time.Minute

// ReserveCalls reserves n consecutive call times. While the database's clock is not
// believed, it returns an error of class throttled. late is what the latest calls of this
// instance need; the margin is what those of all instances need, and the error of this
// instance's clock, which delays all its calls against others'.
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
		micros(marginDecay), micros(minMargin), micros(imclient.MaxMargin), refusedFor.Seconds(), micros(firstMargin),
		failoverHold.Seconds()).Scan(&end, &margin, &interval)
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

// PutOff delays the call times that are not reserved yet by d.
func (q *Quota) PutOff(ctx context.Context, d time.Duration) error {
	if _, err := q.store.Exec(ctx, putOffSQL, q.appID, q.api, micros(d)+1); err != nil {
		return fmt.Errorf("put off the calls of %s: %w", q.api, err)
	}
	return nil
}

// The rate in force is halved, but not below a hundredth of the configured one, and only
// once for a burst of answers ($8 seconds), because calls in flight are refused together. A
// longer pause ($7 seconds) is always applied.
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

// Throttle halves the rate of all instances, and leaves the next pause without call times.
func (q *Quota) Throttle(ctx context.Context, pause time.Duration) error {
	_, err := q.store.Exec(ctx, throttleSQL, q.appID, q.api, q.Limit(), q.store.Now(),
		recoveryGain, recoveryStep.Seconds(), pause.Seconds(), throttleBurst.Seconds())
	if err != nil {
		return fmt.Errorf("throttle %s: %w", q.api, err)
	}
	return nil
}

const failingSQL = `
UPDATE syncer.api_quota
SET failing_since = $3, failing_error = $4
WHERE app_id = $1 AND api = $2`

// Failing records that calls of this instance have had no answer since a time; a nil
// error records that they have. It holds until a call of any instance is answered.
func (q *Quota) Failing(ctx context.Context, since time.Time, newest error) error {
	var at *time.Time
	var text *string
	if newest != nil {
		at, text = &since, new(newest.Error())
	}
	if _, err := q.store.Exec(ctx, failingSQL, q.appID, q.api, at, text); err != nil {
		return fmt.Errorf("record whether %s fails: %w", q.api, err)
	}
	return nil
}
