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
	doubt   error     // why the database's clock is not believed; nil: it is
	guessed bool      // the reading is another clock's, because none of the database's was believed yet
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
	if c.doubt = nil; c.guessed {
		// Nothing was done by the guess.
		c.reading, c.told, c.guessed = reading{}, time.Time{}, false
	}
	err := c.reading.err + r.local.Sub(c.reading.local)/maxDrift
	agree := c.reading.at(r.local).Sub(r.server).Abs() <= err+r.err
	if c.reading.local.IsZero() || r.err <= err || !agree {
		c.reading = r
	}
}

// leap is how far the database's clock may be ahead of every other witness of the
// time and still be believed: a machine's clock that is wrong by days, or a virtual
// machine that was paused for a while, must not stop the work. What is recorded
// under a clock that is wrong by less can be waited for, or repaired.
const leap = 7 * 24 * time.Hour

// released is a time before which no clock can be right: a machine without a
// battery starts in 1970.
var released = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

// witness is something besides the database's clock that tells the time.
type witness struct {
	name string
	at   time.Time
}

// witnesses returns what this process knows: the reading before r, carried on, and
// the machine's clock.
func (c *clock) witnesses(r reading) []witness {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []witness
	if machine := r.local.Round(0); machine.After(released) {
		all = append(all, witness{"this machine's clock says", machine})
	}
	if !c.reading.local.IsZero() && !c.guessed {
		all = append(all, witness{"by its earlier readings it should be", c.reading.at(r.local)})
	}
	return all
}

// supported reports whether a time is not far ahead of what all witnesses say, or
// nothing is known.
func supported(at time.Time, all []witness) bool {
	for _, w := range all {
		if at.Sub(w.at) <= leap {
			return true
		}
	}
	return len(all) == 0
}

// distrust takes note that no witness supports r. The reading before it is carried
// on; the newest witness takes its place if there is none.
func (c *clock) distrust(r reading, all []witness) {
	newest := all[0].at
	text := "it says " + instant(r.server)
	for _, w := range all {
		text += ", " + w.name + " " + instant(w.at)
		if w.at.After(newest) {
			newest = w.at
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reading.local.IsZero() {
		c.reading, c.guessed = reading{server: newest, local: r.local, err: leap}, true
	}
	c.doubt = fmt.Errorf("%w: %s; nothing is asked until they agree. Set the wrong clock right; if only the database's is right, run: syncer backfill --trust-clock", ErrClockAhead, text)
}

func instant(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// readings is how often the clock is asked at once; the quickest answer counts,
// since it leaves the least room for error.
const readings = 5

// ReadClock reads the database's clock anew. Call it now and then, so that the
// drift of this machine's clock stays small. If the clock is ahead by more than a
// week of its earlier readings, of this machine's clock and of all that is on
// record, it is not believed until one of them supports it: no work begins, see
// CheckClock.
func (s *Store) ReadClock(ctx context.Context) error {
	best, err := s.readClock(ctx)
	if err != nil {
		return fmt.Errorf("read the database's clock: %w", err)
	}
	all := s.clock.witnesses(best)
	if !s.trustClock && (len(all) == 0 || !supported(best.server, all)) {
		_, newest, err := s.newestTime(ctx)
		switch code := sqlState(err); {
		case code == undefinedTable || code == invalidSchemaName || code == insufficientPrivilege:
			// Nothing is on record yet, or not for this role.
		case err != nil:
			return err
		case newest != nil:
			all = append(all, witness{"the newest time on record is", *newest})
		}
		if !supported(best.server, all) {
			s.clock.distrust(best, all)
			return nil
		}
	}
	s.clock.adopt(best)
	return nil
}

func (s *Store) readClock(ctx context.Context) (reading, error) {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return reading{}, err
	}
	defer conn.Release()
	best := reading{err: time.Hour}
	for range readings {
		sent := time.Now()
		var server time.Time
		if err := conn.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&server); err != nil {
			return reading{}, err
		}
		// It was read somewhere on the way there and back.
		if half := time.Since(sent) / 2; half < best.err {
			best = reading{server: server, local: sent.Add(half), err: half}
		}
	}
	return best, nil
}

const newestTimeSQL = `
SELECT clock_timestamp(), greatest(
    (SELECT max(greatest(answered_at, throttled_at)) FROM syncer.api_quota),
    (SELECT greatest(started_at, finished_at) FROM syncer.sync_run ORDER BY run_id DESC LIMIT 1))`

// newestTime returns the database's time and the newest one on record, nil if there
// is none.
func (s *Store) newestTime(ctx context.Context) (now time.Time, newest *time.Time, err error) {
	if err := s.pool.QueryRow(ctx, s.sql(newestTimeSQL)).Scan(&now, &newest); err != nil {
		return now, nil, fmt.Errorf("compare the database's clock with what is on record: %w", err)
	}
	return now, newest, nil
}

// ErrClockBehind says that the database's clock is behind what is on record.
var ErrClockBehind = errors.New("the database's clock was set back")

// ErrClockAhead reports that the database's clock is far ahead of everything else
// that tells the time.
var ErrClockAhead = errors.New("the database's clock is not believed")

// clockTolerance is how far behind it may be: the instances know it only to within
// a round trip, and after a failover another machine's clock counts. So long the
// work waits without a word.
const clockTolerance = 5 * time.Second

// CheckClock returns ErrClockAhead if the last reading of the database's clock is not
// believed, and ErrClockBehind if it is behind the times on record, or behind those
// that this process has gone by. No call is made and no tick comes until it is there
// again, so that what is recorded stays in order.
func (s *Store) CheckClock(ctx context.Context) error {
	if s.now != nil { // it is not the clock that counts
		return nil
	}
	told, doubt := s.clock.state()
	if doubt != nil {
		return doubt
	}
	now, newest, err := s.newestTime(ctx)
	if err != nil {
		return err
	}
	if newest != nil && newest.Sub(now) > clockTolerance {
		return fmt.Errorf("%w: it says %s, but times up to %s are on record; nothing is asked until it is there again (if it is wrong now, set it right; if the record is wrong, because it was ahead for a while: syncer repair-clock)",
			ErrClockBehind, instant(now), instant(*newest))
	}
	if told.Sub(now) > clockTolerance {
		return fmt.Errorf("%w: it says %s, but this process has gone by times up to %s; nothing is asked until it is there again (if it is right now, restart this process)",
			ErrClockBehind, instant(now), instant(told))
	}
	return nil
}

// ClockDoubt is what CheckClock returns for a clock that is not believed, without
// asking the database.
func (s *Store) ClockDoubt() error {
	_, doubt := s.clock.state()
	return doubt
}

func (c *clock) state() (told time.Time, doubt error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.told, c.doubt
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
