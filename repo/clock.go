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
	mu     sync.Mutex
	server time.Time // the database's time …
	local  time.Time // … at this local instant (with its monotonic reading)
	err    time.Duration
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
	best := clock{err: time.Hour}
	for range readings {
		sent := time.Now()
		var server time.Time
		if err := conn.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&server); err != nil {
			return fmt.Errorf("read the database's clock: %w", err)
		}
		if took := time.Since(sent); took < best.err {
			best.server, best.local, best.err = server, sent.Add(took/2), took
		}
	}
	s.clock.mu.Lock()
	defer s.clock.mu.Unlock()
	s.clock.server, s.clock.local, s.clock.err = best.server, best.local, best.err
	return nil
}

// Now is the database's time, in UTC, cut to the microsecond that Postgres
// keeps. All instances agree on it, to within a round trip to the database.
func (s *Store) Now() time.Time {
	if s.now != nil {
		return s.now().UTC().Truncate(time.Microsecond)
	}
	s.clock.mu.Lock()
	defer s.clock.mu.Unlock()
	return s.clock.server.Add(time.Since(s.clock.local)).UTC().Truncate(time.Microsecond)
}
