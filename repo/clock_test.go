package repo_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"syncer/imclient"
	"syncer/internal/dev/pgtest"
	"syncer/internal/pg"
	"syncer/repo"
)

func TestNowIsTheDatabasesTime(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn := connect(t, url)
	store := openStore(t, pg.Config{URL: url, Schema: "syncer", MaxConns: 1, Process: "p"})
	for range 3 {
		// Bracketed by two readings of the database; each may be off by a round
		// trip on a busy machine.
		const tolerance = 250 * time.Millisecond
		before := value[time.Time](t, conn, `SELECT clock_timestamp()`)
		now := store.Now()
		after := value[time.Time](t, conn, `SELECT clock_timestamp()`)
		if now.Before(before.Add(-tolerance)) || now.After(after.Add(tolerance)) {
			t.Errorf("Now = %s, the database's clock went from %s to %s", now, before, after)
		}
		if now.Location() != time.UTC {
			t.Errorf("Now is in %s, want UTC", now.Location())
		}
		if now.Nanosecond()%1000 != 0 {
			t.Errorf("Now = %s is finer than a microsecond", now)
		}
		// As stored, it comes back as it was.
		if stored := value[time.Time](t, conn, `SELECT $1::timestamptz`, now); !stored.Equal(now) {
			t.Errorf("%s is stored as %s", now, stored)
		}
		if err := store.ReadClock(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestNowIsWhatTheConfigurationSays(t *testing.T) {
	t.Parallel()
	shanghai := time.FixedZone("CST", 8*3600)
	store := openStore(t, pg.Config{URL: pgtest.Database(t), Schema: "syncer", MaxConns: 1, Process: "p",
		Now: func() time.Time { return noon.Add(1999).In(shanghai) }})
	if now, want := store.Now(), noon.Add(time.Microsecond); now != want {
		t.Errorf("Now = %s, want %s", now, want)
	}
}

// TestCheckClock: any time on record shows that the database's clock was set back.
func TestCheckClock(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	store := openStore(t, pg.Config{URL: b.url, Schema: "syncer", MaxConns: 1, Process: "p"})
	check := func(what string, want bool) {
		t.Helper()
		if err := store.CheckClock(t.Context()); errors.Is(err, pg.ErrClockBehind) != want || !want && err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	check("nothing is on record", false)
	const runSQL = `INSERT INTO sync_run (app_id, job, kind, trigger, status, started_at, finished_at, observed_from)
VALUES ($1, 'j', 'presence', 'backfill', 'failed', clock_timestamp() + $2 * interval '1 second', clock_timestamp() + $3 * interval '1 second', clock_timestamp())`
	exec(t, b.conn, runSQL, b.app.ID, -10, 2)
	check("a run ended within a round trip of now", false)
	exec(t, b.conn, runSQL, b.app.ID, -10, 3600)
	err := store.CheckClock(t.Context())
	newest := value[time.Time](t, b.conn, `SELECT max(finished_at) FROM sync_run`).UTC().Format("times up to 2006-01-02 15:04:05 UTC are on record")
	if !errors.Is(err, pg.ErrClockBehind) || !strings.Contains(err.Error(), newest) {
		t.Errorf("a run ended in an hour: %v, want %q", err, newest)
	}
	exec(t, b.conn, runSQL, b.app.ID, -10, 0)
	check("the newest run is all right", false)
	const quotaSQL = `INSERT INTO api_quota (app_id, api, rate, next_at, throttled_at, answered_at)
VALUES ($1, $2, 1, clock_timestamp() + interval '1 hour', clock_timestamp() + $3 * interval '1 second', clock_timestamp() + $4 * interval '1 second')`
	exec(t, b.conn, quotaSQL, b.app.ID, "presence", 0, nil)
	check("the provider asked for a pause", false)
	exec(t, b.conn, quotaSQL, b.app.ID, "accounts", nil, 60)
	check("an answer came in a minute", true)
	exec(t, b.conn, `UPDATE api_quota SET answered_at = NULL, throttled_at = clock_timestamp() + interval '1 minute' WHERE api = 'accounts'`)
	check("it throttles in a minute", true)
}

func TestProcessIsKnownToTheDatabase(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	store := openStore(t, pg.Config{URL: url, Schema: "syncer", MaxConns: 1, Process: "host-1-abc"})
	if store.Process() != "host-1-abc" || store.Schema() != "syncer" || store.Pool() == nil {
		t.Errorf("process %s, schema %s", store.Process(), store.Schema())
	}
	wantLines(t, connect(t, url), "sessions", `SELECT application_name FROM pg_stat_activity WHERE datname = current_database() AND application_name <> ''`, "syncer host-1-abc")
}

const year = 365 * day

// TestReadClock_ahead: a clock that is years ahead of all other sources of the time is not
// believed, and the time goes on as before.
func TestReadClock_ahead(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	set := pgtest.Clock(t, b.url)
	open := func(trust bool) *repo.Store {
		return openStore(t, pg.Config{URL: b.url, Schema: "syncer", MaxConns: 2, Process: "p", TrustClock: trust})
	}
	check := func(what string, store *repo.Store, want error) {
		t.Helper()
		if err := store.ReadClock(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := store.CheckClock(t.Context()); !errors.Is(err, want) || want == nil && err != nil {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	near := func(what string, store *repo.Store, ahead time.Duration) {
		t.Helper()
		if off := time.Until(store.Now()) - ahead; off.Abs() > time.Minute {
			t.Errorf("%s: Now is off by %s", what, off)
		}
	}
	old := open(false)
	check("a right clock", old, nil)
	set(3 * year)
	check("it jumps ahead", old, pg.ErrClockAhead)
	near("it jumps ahead", old, 0)
	err := old.CheckClock(t.Context())
	for _, part := range []string{"it says " + time.Now().Add(3*year).UTC().Format("2006-01-02"), "this machine's clock says " + time.Now().UTC().Format("2006-01-02"), "by its earlier readings", "syncer backfill --trust-clock"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%v\ndoes not have %q", err, part)
		}
	}
	_, err = old.Quota(b.app.ID, imclient.KindPresence, 10).ReserveCalls(t.Context(), 1, 0)
	if imclient.ClassOf(err) != imclient.ClassThrottled {
		t.Errorf("ReserveCalls: %v", err)
	}
	// One that starts has no earlier reading.
	started := open(false)
	check("at the start", started, pg.ErrClockAhead)
	near("at the start", started, 0)
	for _, store := range []*repo.Store{old, started} {
		set(0)
		check("put right", store, nil)
		near("put right", store, 0)
		set(6 * day)
		check("ahead by less than a week", store, nil)
		near("ahead by less than a week", store, 6*day)
		set(0)
		check("put right again", store, pg.ErrClockBehind) // the process has gone by it
	}

	// Whoever trusts it records a time, by which all others believe it.
	set(3 * year)
	started = open(false)
	check("at the start, again", started, pg.ErrClockAhead)
	trusting := open(true)
	check("overruled", trusting, nil)
	near("overruled", trusting, 3*year)
	reserve(t, trusting.Quota(b.app.ID, imclient.KindPresence, 10), 1)
	exec(t, b.conn, `UPDATE api_quota SET answered_at = next_at`)
	check("the record supports it", started, nil)
	near("the record supports it", started, 3*year)
}

// TestReadClock_withoutSchema: before the first migration nothing is on record.
func TestReadClock_withoutSchema(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Clock(t, url)(3 * year)
	store := openStore(t, pg.Config{URL: url, Schema: "syncer", MaxConns: 1, Process: "p"})
	if err := store.ReadClock(t.Context()); err != nil {
		t.Error(err)
	}
	if err := store.ClockDoubt(); !errors.Is(err, pg.ErrClockAhead) {
		t.Errorf("ClockDoubt: %v", err)
	}
}
