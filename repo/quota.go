package repo

import (
	"context"
	"fmt"
	"time"

	"syncer/imclient"
)

// Quota hands out the call times of one (app, API) to all instances, from one
// row. It is an imclient.CallStore.
type Quota struct {
	store *Store
	appID int16
	api   string
	limit float64 // calls in any one second, all instances together
}

// Quota gives the quota of an app's API at the configured rate.
func (s *Store) Quota(appID int16, kind imclient.Kind, limit float64) *Quota {
	return &Quota{store: s, appID: appID, api: string(kind), limit: limit}
}

// After a rate-limit answer the rate is half; every recoveryStep it gains a
// tenth of the configured rate again.
const (
	recoveryStep  = 10 * time.Second
	recoveryGain  = 0.1
	throttleBurst = time.Second
)

// One UPDATE takes $5 call times. The rate in force is what was left at the
// last throttling plus what came back since; spacing is (1s + lateness) / rate.
// A call time is never in the past.
const reserveCallsSQL = `
INSERT INTO syncer.api_quota AS q (app_id, api, rate, next_at)
VALUES ($1, $2, $3, $4::timestamptz + $5::float8 * $6::float8 / $3::float8 * interval '1 second')
ON CONFLICT (app_id, api) DO UPDATE
SET rate = CASE WHEN q.throttled_at IS NULL THEN $3 ELSE least(q.rate, $3) END,
    next_at = greatest(q.next_at, $4::timestamptz) + $5::float8 * $6::float8 * interval '1 second' / CASE
        WHEN q.throttled_at IS NULL THEN $3
        ELSE least($3, q.rate + $3 * $7::float8 * floor(extract(epoch FROM $4::timestamptz - q.throttled_at) / $8::float8))
    END
RETURNING next_at, CASE
    WHEN q.throttled_at IS NULL THEN $3
    ELSE least($3, q.rate + $3 * $7::float8 * floor(extract(epoch FROM $4::timestamptz - q.throttled_at) / $8::float8))
END`

// ReserveCalls takes n consecutive call times.
func (q *Quota) ReserveCalls(ctx context.Context, n int) (time.Time, time.Duration, error) {
	var end time.Time
	var rate float64
	err := q.store.pool.QueryRow(ctx, q.store.sql(reserveCallsSQL), q.appID, q.api, q.limit, q.store.Now(),
		float64(n), (time.Second+imclient.Lateness).Seconds(), recoveryGain, recoveryStep.Seconds()).Scan(&end, &rate)
	if err != nil {
		return time.Time{}, 0, fmt.Errorf("reserve %d calls of %s: %w", n, q.api, err)
	}
	interval := time.Duration(float64(time.Second+imclient.Lateness) / rate)
	return end.Add(-time.Duration(n) * interval), interval, nil
}

// The rate in force is halved, but not below a hundredth of the configured one,
// and only once for a burst of answers: calls in flight are all refused
// together. A longer pause counts always.
const throttleSQL = `
INSERT INTO syncer.api_quota AS q (app_id, api, rate, next_at, throttled_at)
VALUES ($1, $2, $3::float8 / 2, $4::timestamptz + $5::float8 * interval '1 second', $4)
ON CONFLICT (app_id, api) DO UPDATE
SET rate = CASE
        WHEN q.throttled_at IS NULL THEN $3 / 2
        WHEN q.throttled_at > $4::timestamptz - $8::float8 * interval '1 second' THEN q.rate
        ELSE greatest($3 / 100, least($3, q.rate + $3 * $6::float8 * floor(extract(epoch FROM $4::timestamptz - q.throttled_at) / $7::float8)) / 2)
    END,
    throttled_at = CASE
        WHEN q.throttled_at > $4::timestamptz - $8::float8 * interval '1 second' THEN q.throttled_at
        ELSE $4
    END,
    next_at = greatest(q.next_at, $4::timestamptz + $5::float8 * interval '1 second')`

// Throttle halves the rate for all instances and hands out no call time within
// the next pause.
func (q *Quota) Throttle(ctx context.Context, pause time.Duration) error {
	_, err := q.store.pool.Exec(ctx, q.store.sql(throttleSQL), q.appID, q.api, q.limit, q.store.Now(),
		pause.Seconds(), recoveryGain, recoveryStep.Seconds(), throttleBurst.Seconds())
	if err != nil {
		return fmt.Errorf("throttle %s: %w", q.api, err)
	}
	return nil
}
