package repo_test

import (
	"testing"
	"time"

	"syncer/internal/pgtest"
	"syncer/repo"
)

func TestNowIsTheDatabasesTime(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn := connect(t, url)
	store := openStore(t, repo.Config{URL: url, Schema: "syncer", MaxConns: 1, Process: "p"})
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
	store := openStore(t, repo.Config{URL: pgtest.Database(t), Schema: "syncer", MaxConns: 1, Process: "p",
		Now: func() time.Time { return noon.Add(1999).In(shanghai) }})
	if now, want := store.Now(), noon.Add(time.Microsecond); now != want {
		t.Errorf("Now = %s, want %s", now, want)
	}
}

func TestProcessIsKnownToTheDatabase(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	store := openStore(t, repo.Config{URL: url, Schema: "syncer", MaxConns: 1, Process: "host-1-abc"})
	if store.Process() != "host-1-abc" || store.Schema() != "syncer" || store.Pool() == nil {
		t.Errorf("process %s, schema %s", store.Process(), store.Schema())
	}
	wantLines(t, connect(t, url), "sessions", `SELECT application_name FROM pg_stat_activity WHERE datname = current_database() AND application_name <> ''`, "syncer host-1-abc")
}
