package repo_test

import (
	"testing"
	"time"

	"syncer/imclient"
	"syncer/repo"
)

const gapsSQL = `SELECT kind, started_at, ended_at, last_seen_from, next_seen_by, run_id FROM observation_gap ORDER BY started_at`

// sweep runs a whole run of a minute: one page at its end, then it is closed.
func (b *bench) sweep(t testing.TB, n repo.NewRun) {
	t.Helper()
	r := b.startedRange(t, n)
	b.clock.pass(time.Minute)
	save(t, b.store.Presence(), r, page[imclient.Presence]("k"), 0)
	b.finish(t, r, "")
}

// every is a scheduled run of a job whose max_gap is three intervals.
func (b *bench) every(interval time.Duration) repo.NewRun {
	n := b.tick(imclient.KindPresence, b.clock.Now())
	n.MaxGap = 3 * interval
	return n
}

func TestGaps(t *testing.T) {
	t.Parallel()
	const minute, hour = time.Minute, time.Hour
	for name, tc := range map[string]struct {
		run  func(t *testing.T, b *bench)
		want []string
	}{
		"runs close upon each other": {func(t *testing.T, b *bench) {
			for range 3 {
				b.sweep(t, b.every(minute))
				b.clock.pass(3 * minute)
			}
		}, nil},
		"the daemon was stopped": {func(t *testing.T, b *bench) {
			b.sweep(t, b.every(minute))
			b.clock.pass(2 * hour)
			b.sweep(t, b.every(minute))
			b.clock.pass(minute)
			b.sweep(t, b.every(minute))
		}, []string{"presence 12:01:00 14:01:00 12:00:00 14:02:00 2"}},
		"the API was down": {func(t *testing.T, b *bench) {
			b.sweep(t, b.every(minute))
			for range 6 {
				r := b.startedRange(t, b.every(minute))
				b.clock.pass(10 * minute)
				b.finish(t, r, "connection refused")
			}
			b.sweep(t, b.every(minute))
		}, []string{"presence 12:01:00 13:01:00 12:00:00 13:02:00 8"}},
		"the schedule became a slower one": {func(t *testing.T, b *bench) {
			b.sweep(t, b.every(minute))
			for range 3 {
				b.clock.pass(hour)
				b.sweep(t, b.every(hour))
			}
		}, []string{"presence 12:01:00 13:01:00 12:00:00 13:02:00 2"}},
		"the schedule became a faster one, and nobody looked for two hours": {func(t *testing.T, b *bench) {
			b.sweep(t, b.every(hour))
			b.clock.pass(2 * hour)
			b.sweep(t, b.every(minute))
		}, []string{"presence 12:01:00 14:01:00 12:00:00 14:02:00 2"}},
		"by hand, with nothing scheduled": {func(t *testing.T, b *bench) {
			b.sweep(t, b.backfill(imclient.KindPresence))
			b.clock.pass(minute)
			b.sweep(t, b.backfill(imclient.KindPresence))
		}, []string{"presence 12:01:00 12:02:00 12:00:00 12:03:00 2"}},
		"a run of a list sees not everybody": {func(t *testing.T, b *bench) {
			b.sweep(t, b.every(minute))
			b.clock.pass(2 * minute)
			listed := b.backfill(imclient.KindPresence)
			listed.Listed = []string{"alice"}
			b.sweep(t, listed)
			b.clock.pass(2 * minute)
			b.sweep(t, b.every(minute))
		}, []string{"presence 12:01:00 12:06:00 12:00:00 12:07:00 3"}},
		"killed in the middle, and gone on with hours later": {func(t *testing.T, b *bench) {
			b.sweep(t, b.every(minute))
			runID := b.start(t, b.every(minute))
			b.plan(t, runID, "k")
			save(t, b.store.Presence(), b.claim(t, runID, 1), page[imclient.Presence]("k"), 0)
			b.clock.pass(5 * hour)
			for rangeNo := 1; rangeNo <= 2; rangeNo++ {
				r := b.claim(t, runID, rangeNo)
				save(t, b.store.Presence(), r, page[imclient.Presence]("l"), 0)
				b.clock.pass(minute)
				b.finish(t, r, "")
			}
			b.sweep(t, b.every(minute))
		}, []string{"presence 12:01:00 17:01:00 12:00:00 17:02:00 2"}},
		"killed after the last page, and closed hours later": {func(t *testing.T, b *bench) {
			r := b.startedRange(t, b.every(minute))
			save(t, b.store.Presence(), r, page[imclient.Presence]("k"), 0)
			b.clock.pass(5 * hour)
			b.finish(t, b.claim(t, r.Run.ID, 1), "")
			b.sweep(t, b.every(minute))
		}, []string{"presence 12:00:00 17:00:00 12:00:00 17:01:00 2"}},
		"frozen in the middle": {func(t *testing.T, b *bench) {
			b.sweep(t, b.every(minute))
			r := b.startedRange(t, b.every(minute))
			save(t, b.store.Presence(), r, page[imclient.Presence]("k"), 0)
			b.clock.pass(hour)
			save(t, b.store.Presence(), r, page[imclient.Presence]("l"), 0)
			save(t, b.store.Presence(), r, page[imclient.Presence]("m"), 0)
			b.finish(t, r, "")
		}, []string{"presence 12:01:00 13:01:00 12:00:00 13:01:00 2"}},
		"slow, but never standing still": {func(t *testing.T, b *bench) {
			b.sweep(t, b.every(minute))
			r := b.startedRange(t, b.every(minute))
			for range 60 {
				b.clock.pass(minute)
				save(t, b.store.Presence(), r, page[imclient.Presence]("k"), 0)
			}
			b.finish(t, r, "")
			b.sweep(t, b.every(minute))
		}, nil},
		"stopped and resumed": {func(t *testing.T, b *bench) {
			b.sweep(t, b.every(minute))
			r := b.startedRange(t, b.backfill(imclient.KindPresence))
			save(t, b.store.Presence(), r, page[imclient.Presence]("k"), 0)
			if err := b.store.EndRun(t.Context(), r.Run.ID, repo.RunCancelled, "stopped"); err != nil {
				t.Fatal(err)
			}
			b.clock.pass(hour)
			if err := b.store.ResumeRun(t.Context(), b.find(t, r.Run.ID), enqueue); err != nil {
				t.Fatal(err)
			}
			r = b.claim(t, r.Run.ID, 1)
			save(t, b.store.Presence(), r, page[imclient.Presence]("l"), 0)
			b.finish(t, r, "")
		}, []string{"presence 12:01:00 13:01:00 12:00:00 13:01:00 2"}},
		"stopped after the last page, and resumed": {func(t *testing.T, b *bench) {
			b.sweep(t, b.every(minute))
			b.clock.pass(minute)
			n := b.backfill(imclient.KindPresence)
			n.MaxGap = 3 * minute
			r := b.startedRange(t, n)
			save(t, b.store.Presence(), r, page[imclient.Presence]("k"), 0)
			if err := b.store.EndRun(t.Context(), r.Run.ID, repo.RunCancelled, "stopped"); err != nil {
				t.Fatal(err)
			}
			b.clock.pass(hour)
			if err := b.store.ResumeRun(t.Context(), b.find(t, r.Run.ID), enqueue); err != nil {
				t.Fatal(err)
			}
			b.finish(t, b.claim(t, r.Run.ID, 1), "")
			b.sweep(t, b.every(minute))
		}, []string{"presence 12:02:00 13:02:00 12:02:00 13:03:00 3"}},
		"stopped, and resumed after a newer run": {func(t *testing.T, b *bench) {
			r := b.startedRange(t, b.every(minute))
			save(t, b.store.Presence(), r, page[imclient.Presence]("k"), 0)
			if err := b.store.EndRun(t.Context(), r.Run.ID, repo.RunCancelled, "stopped"); err != nil {
				t.Fatal(err)
			}
			b.clock.pass(minute)
			b.sweep(t, b.every(minute))
			b.clock.pass(2 * minute)
			if err := b.store.ResumeRun(t.Context(), b.find(t, r.Run.ID), enqueue); err != nil {
				t.Fatal(err)
			}
			r = b.claim(t, r.Run.ID, 1)
			b.clock.pass(minute)
			save(t, b.store.Presence(), r, page[imclient.Presence]("l"), 0)
			b.finish(t, r, "")
			b.clock.pass(2 * minute)
			b.sweep(t, b.every(minute)) // five minutes after the newer run, two after the older one
			b.clock.pass(hour)
			b.sweep(t, b.every(minute))
		}, []string{"presence 12:08:00 13:08:00 12:07:00 13:09:00 4"}},
		"killed before the first page, and gone on with when all users had left": {func(t *testing.T, b *bench) {
			b.sweep(t, b.every(minute))
			runID := b.start(t, b.every(minute))
			b.plan(t, runID)
			b.clock.pass(5 * hour)
			b.finish(t, b.claim(t, runID, 1), "")
			b.sweep(t, b.every(minute))
		}, []string{"presence 12:01:00 17:01:00 12:01:00 17:02:00 3"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			tc.run(t, b)
			wantLines(t, b.conn, "gaps", gapsSQL, tc.want...)
			wantLines(t, b.conn, "runs left open", `SELECT run_id FROM sync_run WHERE status = 'running'`)
		})
	}
}
