package repo

import (
	"context"
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

// Now is the database's time, in UTC, cut to the microsecond that Postgres
// keeps. All instances agree on it, to within a round trip to the database.
func (s *Store) Now() time.Time {
	if s.now != nil {
		return s.now().UTC().Truncate(time.Microsecond)
	}
	return s.ServerNow()
}

// ServerNow is the same even where Config.Now has given Now another clock: the
// time that the database's own now() tells.
func (s *Store) ServerNow() time.Time {
	s.clock.mu.Lock()
	defer s.clock.mu.Unlock()
	return s.clock.reading.at(time.Now()).UTC().Truncate(time.Microsecond)
}
