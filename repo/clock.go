package repo

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// clock is the database's clock, read locally: a reading of it, carried on by
// this machine's monotonic clock. Machines whose wall clocks disagree, or jump,
// still agree on the time.
type clock struct {
	mu      sync.Mutex
	reading reading
	told    time.Time // the newest time of onward
}

// now is the time by the reading.
func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reading.at(time.Now()).UTC().Truncate(time.Microsecond)
}

// onward is now, but never before another time that it has told: when the
// database's clock is set back it stands still until that has caught up.
func (c *clock) onward() time.Time {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.After(c.told) {
		c.told = now
	}
	return c.told
}

// reading is one look at the database's clock.
type reading struct {
	server time.Time     // the database's time …
	local  time.Time     // … at this local instant (with its monotonic reading)
	err    time.Duration // it may be wrong by so much either way
}

// at carries the reading on to another local instant.
func (r reading) at(local time.Time) time.Time { return r.server.Add(local.Sub(r.local)) }

// maxDrift is how much, of the time that passes, two machines' clocks may drift
// apart: 100 ppm, a bad crystal.
const maxDrift = 10_000

// adopt takes over a new reading, unless the old one, carried on, is the better
// one still: one look at a busy database must not throw the clock about. A
// reading that contradicts the old one wins: the database's clock was set.
func (c *clock) adopt(r reading) {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.reading.err + r.local.Sub(c.reading.local)/maxDrift
	agree := c.reading.at(r.local).Sub(r.server).Abs() <= err+r.err
	if c.reading.local.IsZero() || r.err <= err || !agree {
		c.reading = r
	}
}

// readings is how often the clock is asked at once; the quickest answer counts,
// since it leaves the least room for error.
const readings = 5

// ReadClock reads the database's clock anew. Call it now and then, so that the
// drift of this machine's clock stays small.
func (s *Store) ReadClock(ctx context.Context) error {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("read the database's clock: %w", err)
	}
	defer conn.Release()
	best := reading{err: time.Hour}
	for range readings {
		sent := time.Now()
		var server time.Time
		if err := conn.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&server); err != nil {
			return fmt.Errorf("read the database's clock: %w", err)
		}
		// It was read somewhere on the way there and back.
		if half := time.Since(sent) / 2; half < best.err {
			best = reading{server: server, local: sent.Add(half), err: half}
		}
	}
	s.clock.adopt(best)
	return nil
}

const newestTimeSQL = `
SELECT clock_timestamp(), greatest(
    (SELECT max(greatest(answered_at, throttled_at)) FROM syncer.api_quota),
    (SELECT greatest(started_at, finished_at) FROM syncer.sync_run ORDER BY run_id DESC LIMIT 1))`

// ErrClockBehind says that the database's clock is behind what is on record.
var ErrClockBehind = errors.New("the database's clock was set back")

// clockTolerance is how far behind it may be: the instances know it only to within
// a round trip, and after a failover another machine's clock counts. So long the
// work waits without a word.
const clockTolerance = 5 * time.Second

// CheckClock says whether the database's clock is behind the times on record:
// ErrClockBehind then. No call is made and no tick comes until it is there again,
// so that what is recorded stays in order.
func (s *Store) CheckClock(ctx context.Context) error {
	if s.now != nil { // it is not the clock that counts
		return nil
	}
	var now time.Time
	var newest *time.Time
	if err := s.pool.QueryRow(ctx, s.sql(newestTimeSQL)).Scan(&now, &newest); err != nil {
		return fmt.Errorf("compare the database's clock with what is on record: %w", err)
	}
	if newest == nil || newest.Sub(now) <= clockTolerance {
		return nil
	}
	const format = "2006-01-02 15:04:05 UTC"
	return fmt.Errorf("%w: it says %s, but times up to %s are on record; nothing is asked until it is there again (if it is wrong now, set it right)",
		ErrClockBehind, now.UTC().Format(format), newest.UTC().Format(format))
}

// Now is the database's time, in UTC, cut to the microsecond that Postgres
// keeps. All instances agree on it, to within a round trip to the database. It
// never goes back.
func (s *Store) Now() time.Time {
	if s.now != nil {
		return s.now().UTC().Truncate(time.Microsecond)
	}
	return s.clock.onward()
}

// ServerNow is the time that the database's own now() tells, also where Config.Now
// has given Now another clock, and when it is set back.
func (s *Store) ServerNow() time.Time { return s.clock.now() }
