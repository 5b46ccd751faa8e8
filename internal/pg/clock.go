package pg

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// clock is the database's clock, read locally: a reading of it, carried on by this
// machine's monotonic clock. So machines whose wall clocks differ, or jump, agree on the
// time.
type clock struct {
	mu      sync.Mutex
	reading reading
	latest  time.Time // the latest time that onward returned
	doubt   error     // why the database's clock is not believed; nil: it is
	guessed bool      // the reading is of another clock, because none of the database's was believed yet
}

// now returns the time by the reading.
func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reading.at(time.Now()).UTC().Truncate(time.Microsecond)
}

// onward returns now, but never less than before: if the database's clock is set back,
// time stands still until that has caught up.
func (c *clock) onward() time.Time {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.After(c.latest) {
		c.latest = now
	}
	return c.latest
}

func (c *clock) state() (latest time.Time, doubt error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.latest, c.doubt
}

// reading is one reading of the database's clock.
type reading struct {
	server time.Time     // the database's time …
	local  time.Time     // … at this local instant (with its monotonic reading)
	err    time.Duration // the largest possible error, either way
}

// at carries the reading on to another local instant.
func (r reading) at(local time.Time) time.Time { return r.server.Add(local.Sub(r.local)) }

// maxDrift is the inverse of the rate at which two machines' clocks may drift apart: 100
// ppm, a bad crystal.
const maxDrift = 10_000

// adopt takes over a new reading, unless the old one, carried on, is still more exact: a
// reading of a busy database must not make time jump. A reading that contradicts the old
// one is adopted, because the database's clock was set.
func (c *clock) adopt(r reading) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.doubt = nil; c.guessed {
		// No work was done by the guess.
		c.reading, c.latest, c.guessed = reading{}, time.Time{}, false
	}
	err := c.reading.err + r.local.Sub(c.reading.local)/maxDrift
	agree := c.reading.at(r.local).Sub(r.server).Abs() <= err+r.err
	if c.reading.local.IsZero() || r.err <= err || !agree {
		c.reading = r
	}
}

// leap is how far ahead of every other witness the database's clock is still believed.
// A machine whose clock is wrong by days, or a virtual machine that was paused, must not
// stop the work. What is recorded under a clock that is wrong by less can be waited for,
// or repaired.
const leap = 7 * 24 * time.Hour

// released is a time before which no clock can be right: a machine without a battery
// starts in 1970.
var released = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

// witness is a source of the time other than the database's clock.
type witness struct {
	name string
	at   time.Time
}

// witnesses returns the sources within this process: the reading before r, carried on,
// and the machine's clock.
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

// supported reports whether a time is not far ahead of some witness, or there is none.
func supported(at time.Time, all []witness) bool {
	for _, w := range all {
		if at.Sub(w.at) <= leap {
			return true
		}
	}
	return len(all) == 0
}

// distrust records that no witness supports r. The reading before it is carried on; if
// there is none, the newest witness takes its place.
func (c *clock) distrust(r reading, all []witness) {
	newest := all[0].at
	text := "it says " + Instant(r.server)
	for _, w := range all {
		text += ", " + w.name + " " + Instant(w.at)
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

// Instant returns a time as messages show it.
func Instant(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// newest executes a statement of one row: clock_timestamp(), and the newest time on record
// or NULL.
func (db *DB) newest(ctx context.Context, statement string) (now time.Time, newest *time.Time, err error) {
	if err := db.QueryRow(ctx, statement).Scan(&now, &newest); err != nil {
		return now, nil, fmt.Errorf("compare the database's clock with what is on record: %w", err)
	}
	return now, newest, nil
}

// ReadClock reads the database's clock anew. The caller repeats it now and then, so that
// the drift of this machine's clock stays small. If the clock is more than a week ahead
// of its earlier readings, of this machine's clock and of the newest time on record,
// it is not believed until one of them supports it: see CheckClock. newestSQL yields
// clock_timestamp() and the newest time on record, or NULL.
func (db *DB) ReadClock(ctx context.Context, newestSQL string) error {
	best, err := db.readClock(ctx)
	if err != nil {
		return fmt.Errorf("read the database's clock: %w", err)
	}
	all := db.clock.witnesses(best)
	if !db.config.TrustClock && (len(all) == 0 || !supported(best.server, all)) {
		_, newest, err := db.newest(ctx, newestSQL)
		switch code := SQLState(err); {
		case code == UndefinedTable || code == InvalidSchemaName || code == InsufficientPrivilege:
			// There is no record yet, or this role may not read it.
		case err != nil:
			return err
		case newest != nil:
			all = append(all, witness{"the newest time on record is", *newest})
		}
		if !supported(best.server, all) {
			db.clock.distrust(best, all)
			return nil
		}
	}
	db.clock.adopt(best)
	return nil
}

// readClock reads the clock several times. The quickest answer leaves the least room for
// error.
func (db *DB) readClock(ctx context.Context) (reading, error) {
	const readings = 5
	conn, err := db.pool.Acquire(ctx)
	if err != nil {
		return reading{}, err
	}
	defer conn.Release()
	over := statements{conn, db, func() {}}
	best := reading{err: time.Hour}
	for range readings {
		sent := time.Now()
		var server time.Time
		if err := over.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&server); err != nil {
			return reading{}, err
		}
		// It was read at some point on the way there and back.
		if half := time.Since(sent) / 2; half < best.err {
			best = reading{server: server, local: sent.Add(half), err: half}
		}
	}
	return best, nil
}

// ErrClockBehind reports that the database's clock is behind the times on record.
var ErrClockBehind = errors.New("the database's clock was set back")

// ErrClockAhead reports that the database's clock is far ahead of all other sources of
// the time.
var ErrClockAhead = errors.New("the database's clock is not believed")

// ClockTolerance is how far the database's clock may be behind without an error.
// Instances know it only to within a round trip, and after a failover it is another
// machine's.
const ClockTolerance = 5 * time.Second

// CheckClock returns ErrClockAhead if the last reading of the database's clock is not
// believed, and ErrClockBehind if the clock is behind the times on record, or behind
// those that this process has used. Until it is there again no call is made and no tick
// comes, so that what is recorded stays in order. newestSQL is as for ReadClock. With
// Config.Now it returns nil.
func (db *DB) CheckClock(ctx context.Context, newestSQL string) error {
	if db.config.Now != nil {
		return nil
	}
	latest, doubt := db.clock.state()
	if doubt != nil {
		return doubt
	}
	now, newest, err := db.newest(ctx, newestSQL)
	if err != nil {
		return err
	}
	if newest != nil && newest.Sub(now) > ClockTolerance {
		return fmt.Errorf("%w: it says %s, but times up to %s are on record; nothing is asked until it is there again (if it is wrong now, set it right; if the record is wrong, because it was ahead for a while: syncer repair-clock)",
			ErrClockBehind, Instant(now), Instant(*newest))
	}
	if latest.Sub(now) > ClockTolerance {
		return fmt.Errorf("%w: it says %s, but this process has gone by times up to %s; nothing is asked until it is there again (if it is right now, restart this process)",
			ErrClockBehind, Instant(now), Instant(latest))
	}
	return nil
}

// ClockDoubt returns what CheckClock returns for a clock that is not believed, without a
// statement.
func (db *DB) ClockDoubt() error {
	_, doubt := db.clock.state()
	return doubt
}

// Now returns the database's time in UTC, truncated to the microsecond that Postgres
// keeps. All instances agree on it to within a round trip. It never goes back.
func (db *DB) Now() time.Time {
	if db.config.Now != nil {
		return db.config.Now().UTC().Truncate(time.Microsecond)
	}
	return db.clock.onward()
}

// ClockError returns the largest possible difference between Now and the database's clock.
func (db *DB) ClockError() time.Duration {
	if db.config.Now != nil { // that clock is right by definition
		return 0
	}
	db.clock.mu.Lock()
	defer db.clock.mu.Unlock()
	return db.clock.reading.err
}

// ServerNow returns the time of the database's own now(), also where Config.Now replaces
// Now, and when the clock is set back.
func (db *DB) ServerNow() time.Time { return db.clock.now() }
