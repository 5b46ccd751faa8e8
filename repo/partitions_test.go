package repo_test

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"

	"syncer/imclient"
	"syncer/internal/pg"
	"syncer/repo"
)

const day = 24 * time.Hour

// makePartitions makes the partitions of so many days ahead.
func (b *bench) makePartitions(t testing.TB, period string, ahead time.Duration, want int) {
	t.Helper()
	if made, err := b.store.MakePartitions(t.Context(), period, b.clock.Now().Add(ahead)); made != want || err != nil {
		t.Errorf("MakePartitions by %s = %d, %v; want %d", period, made, err, want)
	}
}

func TestPartitions(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.makePartitions(t, "month", 61*day, 6)
	b.makePartitions(t, "month", 61*day, 0)
	if _, err := b.store.MakePartitions(t.Context(), "year", noon); err == nil || !strings.Contains(err.Error(), "make history partitions: ") {
		t.Errorf("MakePartitions by year: %v", err)
	}
	r := b.startedRange(t, b.backfill(imclient.KindPresence))
	save(t, b.store.Presence(), r, page("k", seen("alice", offline, at(1))), 1)
	wantLines(t, b.conn, "where the row is", `SELECT tableoid::regclass::text FROM presence_history`, "presence_history_20261101")
	if dropped, err := b.store.DropPartitions(t.Context(), time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)); dropped != 2 || err != nil {
		t.Errorf("DropPartitions = %d, %v; want 2", dropped, err)
	}
	wantLines(t, b.conn, "history beyond the retention", historySQL)
}

// More than the database does in one transaction.
func TestPartitions_many(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.makePartitions(t, "day", 119*day, 240)
	if dropped, err := b.store.DropPartitions(t.Context(), noon.Add(110*day)); dropped != 220 || err != nil {
		t.Errorf("DropPartitions = %d, %v; want 220", dropped, err)
	}
}

// TestPartitions_afterAbsence: times that were not observed get no partitions, but rows
// that wait in the default partition do. A clock that is years ahead makes as few.
func TestPartitions_afterAbsence(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.makePartitions(t, "day", 2*day, 6)
	const rowSQL = `INSERT INTO presence_history (app_id, user_id, state, platforms, observed_at, run_id) VALUES ($1, 'alice', 'online', '{}', $2, 1)`
	exec(t, b.conn, rowSQL, b.app.ID, noon.Add(100*day))
	b.clock.pass(3 * 365 * day)
	b.makePartitions(t, "day", 14*day, 2*15+1)
	b.makePartitions(t, "day", 14*day, 0)
	wantLines(t, b.conn, "where the row is", `SELECT tableoid::regclass::text FROM presence_history`, "presence_history_20270302")
	// When the clock was wrong, those of the present follow upon those that were there.
	b.clock.pass(-3*365*day + day)
	b.makePartitions(t, "day", 2*day, 2)
	wantLines(t, b.conn, "partitions of the present", `SELECT count(*) FROM history_partitions('presence_history') WHERE lower_end < '2026-12-01'`, "4")
	// A coarser period keeps to what is there: a short one before the day of the row.
	b.clock.pass(40 * day)
	b.makePartitions(t, "month", 61*day, 4+3)
	b.makePartitions(t, "month", 61*day, 0)
}

// A page without a partition is written; it is moved when there is
// one, and dropped with the rest if that never happens.
func TestPartitions_missing(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const whereSQL = `SELECT user_id, tableoid::regclass::text FROM presence_history ORDER BY user_id`
	r := b.startedRange(t, b.backfill(imclient.KindPresence))
	save(t, b.store.Presence(), r, page("k", seen("alice", offline, at(1))), 1)
	wantLines(t, b.conn, "without a partition", whereSQL, "alice presence_history_default")
	b.makePartitions(t, "day", 0, 2)
	wantLines(t, b.conn, "with a partition", whereSQL, "alice presence_history_20261122")
	b.clock.pass(day)
	save(t, b.store.Presence(), r, page("l", seen("bob", offline, b.clock.Now())), 1)
	wantLines(t, b.conn, "a day later", whereSQL, "alice presence_history_20261122", "bob presence_history_default")
	if dropped, err := b.store.DropPartitions(t.Context(), noon.Add(2*day)); dropped != 2 || err != nil {
		t.Errorf("DropPartitions = %d, %v; want 2", dropped, err)
	}
	wantLines(t, b.conn, "beyond the retention", whereSQL)
}

func TestPartitions_inUse(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.makePartitions(t, "day", 0, 2)
	exec(t, b.conn, `BEGIN`)
	exec(t, b.conn, `SELECT count(*) FROM presence_history`)
	if _, err := b.store.MakePartitions(t.Context(), "day", noon.Add(day)); !errors.Is(err, repo.ErrHistoryInUse) {
		t.Errorf("MakePartitions while the history is read: %v", err)
	}
	if _, err := b.store.DropPartitions(t.Context(), noon.Add(day)); !errors.Is(err, repo.ErrHistoryInUse) {
		t.Errorf("DropPartitions while the history is read: %v", err)
	}
	exec(t, b.conn, `COMMIT`)
	b.makePartitions(t, "day", day, 1) // the other's has been made
	// So is the default partition, locked for good by another session.
	exec(t, b.conn, `BEGIN`)
	exec(t, b.conn, `LOCK TABLE presence_history_default`)
	if _, err := b.store.DropPartitions(t.Context(), noon); !errors.Is(err, repo.ErrHistoryInUse) {
		t.Errorf("DropPartitions while the default partition is locked: %v", err)
	}
	exec(t, b.conn, `ROLLBACK`)
}

func TestPartitions_anotherRole(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	role := "syncer_test_" + strings.ToLower(rand.Text()[:10])
	exec(t, b.conn, `CREATE ROLE `+role)
	t.Cleanup(func() {
		if _, err := b.conn.Exec(context.Background(), "DROP OWNED BY "+role+"; DROP ROLE "+role); err != nil {
			t.Error(err)
		}
	})
	exec(t, b.conn, `GRANT USAGE ON SCHEMA syncer TO `+role+`; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA syncer TO `+role)
	store := openStore(t, pg.Config{URL: withParameters(t, b.url, "role", role), Schema: "syncer", MaxConns: 2, Process: "worker", Now: b.clock.Now})
	_, err := store.MakePartitions(t.Context(), "day", noon)
	if err == nil || !strings.Contains(err.Error(), "syncer grant-worker") {
		t.Errorf("MakePartitions by another role: %v", err)
	}
	if _, err := store.DropPartitions(t.Context(), noon); err == nil || !strings.Contains(err.Error(), "syncer grant-worker") {
		t.Errorf("DropPartitions by another role: %v", err)
	}
	if err := b.store.GrantWorker(t.Context(), role); err != nil {
		t.Fatal(err)
	}
	if made, err := store.MakePartitions(t.Context(), "day", noon); made == 0 || err != nil {
		t.Errorf("MakePartitions by a worker = %d, %v", made, err)
	}
	if dropped, err := store.DropPartitions(t.Context(), noon.Add(day)); dropped == 0 || err != nil {
		t.Errorf("DropPartitions by a worker = %d, %v", dropped, err)
	}
}

// What was true before the cut is still known from the snapshot, and from the
// row that ends the stretch.
func TestRetention_openSessions(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.makePartitions(t, "day", 9*day, 20)
	r := b.startedRange(t, b.backfill(imclient.KindPresence))
	save(t, b.store.Presence(), r, page("k", seen("alice", offline, at(1)), seen("bob", onlineIOS, at(1))), 2)
	known := load(t, b.store.Presence(), b.app.ID, "alice")
	save(t, b.store.Presence(), r, page("l", changed("alice", known, onlineIOS, at(2), at(60))), 1)
	if dropped, err := b.store.DropPartitions(t.Context(), noon.Add(2*day)); dropped != 4 || err != nil {
		t.Errorf("DropPartitions = %d, %v; want 4", dropped, err)
	}
	wantLines(t, b.conn, "history", historySQL)
	wantLines(t, b.conn, "since when", `SELECT user_id, state::text, since_after, since FROM presence_snapshot ORDER BY user_id`,
		"alice online 12:00:02 12:01:00", "bob online - 12:00:01")
	later := noon.Add(3 * day)
	known = load(t, b.store.Presence(), b.app.ID, "alice")
	save(t, b.store.Presence(), r, page("m", changed("alice", known, offline, later.Add(-time.Minute), later)), 1)
	wantLines(t, b.conn, "the stretch that ended", `SELECT user_id, prev_state::text, prev_since_after, prev_since, not_before, observed_at FROM presence_history`,
		"alice online 12:00:02 12:01:00 11:59:00 12:00:00")
}

func TestDropOldRuns(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	sweep := func(n repo.NewRun) int64 {
		r := b.startedRange(t, n)
		p := page[imclient.Presence]("k")
		p.Counts = repo.RangeCounts{"online": {"all": 1}}
		save(t, b.store.Presence(), r, p, 0)
		b.finish(t, r, "")
		b.clock.pass(time.Hour)
		return r.Run.ID
	}
	sweep(b.tick(imclient.KindPresence, at(0)))    // 1
	sweep(b.tick(imclient.KindPresence, at(3600))) // 2: the newest tick
	sweep(b.backfill(imclient.KindPresence))       // 3: the newest complete run
	failed := b.startedRange(t, b.backfill(imclient.KindPresence))
	b.finish(t, failed, "no answer") // 4: may be resumed
	b.clock.pass(time.Hour)
	other := b.tick(imclient.KindAccounts, at(0))
	other.Listed = []string{"alice"}
	b.complete(t, other) // 5: the newest tick of the other kind, complete of none
	b.clock.pass(time.Hour)
	b.complete(t, b.backfill(imclient.KindAccounts)) // 6: the newest complete one of that kind
	b.clock.pass(day)
	b.start(t, b.backfill(imclient.KindPresence)) // 7: running
	const leftSQL = `SELECT u.run_id, count(c.run_id) FROM sync_run AS u LEFT JOIN presence_count AS c USING (app_id, run_id) GROUP BY u.run_id ORDER BY u.run_id`

	drop := func(before time.Time, want int64) {
		t.Helper()
		if dropped, err := b.store.DropOldRuns(t.Context(), before); dropped != want || err != nil {
			t.Errorf("DropOldRuns = %d, %v; want %d", dropped, err, want)
		}
	}
	drop(noon, 0)
	wantLines(t, b.conn, "runs that are not old", leftSQL, "1 1", "2 1", "3 1", "4 0", "5 0", "6 0", "7 0")
	drop(b.clock.Now(), 1)
	wantLines(t, b.conn, "runs, and their counts", leftSQL, "2 1", "3 1", "4 0", "5 0", "6 0", "7 0")
	if _, err := b.store.DropOldRanges(t.Context(), b.clock.Now()); err != nil {
		t.Fatal(err)
	}
	drop(b.clock.Now(), 1)
	wantLines(t, b.conn, "runs once the ranges are gone", leftSQL, "2 1", "3 1", "5 0", "6 0", "7 0")
	if tick, err := b.store.LastTick(t.Context(), b.app.ID, imclient.KindPresence, "job"); !tick.Equal(at(3600)) || err != nil {
		t.Errorf("LastTick = %s, %v; want %s", tick, err, at(3600))
	}
	run := b.find(t, 7)
	if run.PrevCompleteAt == nil {
		t.Error("the running run does not know the complete one before it")
	}
	wantLines(t, b.conn, "counts of no run", `SELECT run_id FROM presence_count AS c WHERE NOT EXISTS (SELECT FROM sync_run AS u WHERE u.run_id = c.run_id)`)
}

// In batches: more runs than one statement removes.
func TestDropOldRuns_many(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	exec(t, b.conn, `
INSERT INTO sync_run (app_id, job, kind, trigger, tick, status, started_at, observed_from, finished_at)
SELECT $1, 'job', 'presence', 'cron', at, 'skipped', at, at, at
FROM generate_series($2::timestamptz - interval '12000 minutes', $2, '1 minute') AS at`, b.app.ID, noon)
	if dropped, err := b.store.DropOldRuns(t.Context(), at(1)); dropped != 12000 || err != nil {
		t.Errorf("DropOldRuns = %d, %v; want all 12,000 but the newest tick", dropped, err)
	}
	wantLines(t, b.conn, "runs", `SELECT tick FROM sync_run`, "12:00:00")
}

// A gap stays as long as any stretch that it may have interrupted.
func TestDropOldGaps(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		row  string
		want []string
	}{
		"nobody is known":             {``, nil},
		"an open stretch before":      {`INSERT INTO presence_snapshot VALUES (1, 'u', 'online', '{}', '2026-11-01 12:00', '2026-11-01 12:00', 1, '2026-11-01 09:59')`, []string{"presence"}},
		"an open stretch after":       {`INSERT INTO presence_snapshot VALUES (1, 'u', 'online', '{}', '2026-11-01 12:00', '2026-11-01 12:00', 1, '2026-11-01 10:31')`, nil},
		"an ended stretch before":     {`INSERT INTO presence_history VALUES (1, 'u', 'online', 'offline', '{}', '2026-11-21', '2026-11-21', 1, '2026-11-01 09:59')`, []string{"presence"}},
		"an ended stretch after":      {`INSERT INTO presence_history VALUES (1, 'u', 'online', 'offline', '{}', '2026-11-21', '2026-11-21', 1, '2026-11-01 10:31')`, nil},
		"an account since before":     {`INSERT INTO account_snapshot VALUES (1, 'u', 'imported', '2026-11-01 10:20', '2026-11-01 10:20', 1)`, []string{"accounts"}},
		"an account since afterwards": {`INSERT INTO account_snapshot VALUES (1, 'u', 'imported', '2026-11-01 10:31', '2026-11-01 10:20', 1)`, nil},
		"an account that changed":     {`INSERT INTO account_history VALUES (1, 'u', 'imported', 'not_imported', '2026-11-01 09:00', '2026-11-21', 1)`, []string{"accounts"}},
		"another app's":               {`INSERT INTO app (name, provider, created_at) VALUES ('other', 'openim', '2026-11-01'); INSERT INTO presence_snapshot SELECT app_id, 'u', 'online', '{}', '2026-10-01', '2026-10-01', 1, '2026-10-01' FROM app WHERE name = 'other'`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			exec(t, b.conn, `
INSERT INTO observation_gap (app_id, kind, last_seen_from, started_at, ended_at, next_seen_by, run_id)
SELECT $1, kind, '2026-11-01 08:30', '2026-11-01 09:00', '2026-11-01 10:00', '2026-11-01 10:30', 1 FROM unnest('{presence,accounts}'::text[]) AS kind`, b.app.ID)
			if test.row != "" {
				exec(t, b.conn, test.row)
			}
			const gapsSQL = `SELECT kind FROM observation_gap ORDER BY kind DESC`
			if _, err := b.store.DropOldRuns(t.Context(), time.Date(2026, 11, 1, 10, 30, 0, 0, time.UTC)); err != nil {
				t.Fatal(err)
			}
			wantLines(t, b.conn, "gaps that are not old", gapsSQL, "presence", "accounts")
			if _, err := b.store.DropOldRuns(t.Context(), noon.Add(-day)); err != nil {
				t.Fatal(err)
			}
			wantLines(t, b.conn, "gaps", gapsSQL, test.want...)
		})
	}
}
