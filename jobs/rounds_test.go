package jobs

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"syncer/imclient"
	"syncer/internal/imsim"
	"syncer/repo"
)

// TestRounds is the main proof: 5,000 users, five rounds with 5 % changing from
// one to the next, and one more in which nobody changes. What is stored equals
// what the API served, and users that did not change cost no write.
func TestRounds(t *testing.T) {
	for _, provider := range []imclient.Provider{imclient.ProviderTencent, imclient.ProviderOpenIM} {
		t.Run(string(provider), func(t *testing.T) {
			t.Parallel()
			testRounds(t, provider)
		})
	}
}

// passed is what is known about the run of one round.
type passed struct {
	run       repo.Run
	round     int
	changedAt time.Time // when the population went to the round
}

func testRounds(t *testing.T, provider imclient.Provider) {
	const users = 5000
	w := setup(t, worldOptions{users: users, change: 0.05, unknown: 0.02})
	spec := w.spec()
	spec.Providers = []imclient.Provider{provider}
	spec.Range, spec.Page, spec.Batch = 1000, 500, 250
	e := w.engine(spec)
	app, ids := e.app(provider), userIDs(users)
	runs := make(map[imclient.Kind][]passed)
	for _, round := range []int{0, 1, 2, 3, 4, 4} {
		now := passed{round: round, changedAt: time.Now()}
		w.rounds.SetRound(round)
		for _, k := range bothTables {
			now.run = w.round(e, k, app, ids)
			runs[k.kind] = append(runs[k.kind], now)
		}
	}
	w.stop(e, grace)
	e.close()
	for _, k := range bothTables {
		w.truthful(k, app, ids)
		w.bracketed(k, app, runs[k.kind])
		var changed int64
		for _, p := range runs[k.kind] {
			changed += p.run.Changed
		}
		// All that was ever written to the snapshot. The server's figures come
		// with the end of the connections at the latest.
		w.eventually("the server's figures hold all writes", func() bool {
			return w.count(`SELECT n_tup_ins + n_tup_upd + n_tup_del FROM pg_stat_user_tables WHERE relid = $1::regclass`, k.snapshot) >= changed
		})
		if n := w.count(`SELECT n_tup_ins + n_tup_upd + n_tup_del FROM pg_stat_user_tables WHERE relid = $1::regclass`, k.snapshot); n != changed {
			t.Errorf("%s: %d rows were written, %d users changed", k.snapshot, n, changed)
		}
	}
}

// round runs a backfill of one kind and checks its counters and what it wrote.
func (w *world) round(e *testEngine, k kindTables, app *App, ids []string) repo.Run {
	w.t.Helper()
	stretches := func(id string) int { return len(w.sim.Served(k.served[app.Provider], id)) }
	before := make(map[string]int, len(ids))
	wantFailing := make(map[string]string)
	for _, id := range ids {
		before[id] = stretches(id)
		if k.served[app.Provider] == imsim.TencentPresence && !w.rounds.Imported(id, time.Time{}) {
			wantFailing[id] = "70107"
		}
	}
	// A row that is written again, be it with the same contents, gets a new xmin.
	w.exec(fmt.Sprintf(`DROP TABLE IF EXISTS public.versions; CREATE TABLE public.versions AS SELECT user_id, xmin::text AS version FROM %s`, k.snapshot))
	opinions := w.opinions()

	run := w.backfill(e, app.Provider, k.kind)

	differ := make(map[string]bool)
	for _, id := range ids {
		if stretches(id) != before[id] {
			differ[id] = true
		}
	}
	written := make(map[string]bool)
	for _, id := range query(w, pgx.RowTo[string], fmt.Sprintf(`SELECT s.user_id FROM %s AS s LEFT JOIN public.versions AS v USING (user_id) WHERE v.version IS DISTINCT FROM s.xmin::text`, k.snapshot)) {
		written[id] = true
	}
	if diff := cmp.Diff(differ, written); diff != "" {
		w.t.Errorf("run %d of %s: users that differ and users written (-want +got):\n%.2000s", run.ID, k.kind, diff)
	}
	if diff := cmp.Diff(wantFailing, w.failing(k.kind, app.ID)); diff != "" {
		w.t.Errorf("run %d of %s: failing users (-want +got):\n%.2000s", run.ID, k.kind, diff)
	}
	status := repo.RunSucceeded
	if len(wantFailing) > 0 {
		status = repo.RunPartial
	}
	w.ended(run, status)
	batch := e.maxBatch(k.kind, app)
	// A page in which somebody changed platforms takes one call more.
	opinions = w.opinions() - opinions
	if pages := int64(len(ids) / e.config.PageUsers); opinions > pages {
		w.t.Errorf("run %d of %s: %d second opinions on %d pages", run.ID, k.kind, opinions, pages)
	}
	want := repo.Counters{Users: int64(len(ids)), Changed: int64(len(differ)), Failed: int64(len(wantFailing)), Calls: int64(len(ids)/batch) + opinions}
	if diff := cmp.Diff(want, run.Counters); diff != "" {
		w.t.Errorf("run %d of %s: counters (-want +got):\n%s", run.ID, k.kind, diff)
	}
	return run
}

// slack is how far the simulator's clock and the database's, as read by the
// engine, may be apart on one machine.
const slack = 100 * time.Millisecond

// bracketed checks that each transition happened in the time that its row
// names, and that this time is as short as the runs allow.
func (w *world) bracketed(k kindTables, app *App, runs []passed) {
	w.t.Helper()
	place := make(map[int64]int)
	for i, p := range runs {
		place[p.run.ID] = i
	}
	population := imsim.NewRounds(w.rounds.Seed, w.rounds.AccountShare)
	population.UnknownShare = w.rounds.UnknownShare
	for id, rows := range w.history(k, app.ID) {
		served := w.sim.Served(k.served[app.Provider], id)
		for i, row := range rows {
			if i >= len(served) {
				break // told by truthful
			}
			if row.ObservedAt.Before(served[i].FirstServed.Add(-slack)) || row.ObservedAt.After(*runs[place[row.RunID]].run.FinishedAt) {
				w.t.Errorf("%s of %s: observed at %s, served at %s", k.kind, id, row.ObservedAt, served[i].FirstServed)
			}
			if i == 0 {
				if row.NotBefore != nil {
					w.t.Errorf("%s of %s: first seen, but not before %s", k.kind, id, row.NotBefore)
				}
				continue
			}
			// When the user failed in the round before, he was last known when
			// the previous value was served first; else when that round began.
			since, until := served[i-1].FirstAsked.Add(-slack), served[i-1].LastServed
			previous := runs[place[row.RunID]-1]
			population.SetRound(previous.round)
			if k.served[app.Provider] != imsim.TencentPresence || population.Imported(id, time.Time{}) {
				since, until = previous.run.StartedAt, runs[place[row.RunID]].changedAt
			}
			if row.NotBefore.Before(since) || row.NotBefore.After(until.Add(slack)) {
				w.t.Errorf("%s of %s: the transition to %s is said to have happened after %s; that must be from %s to %s",
					k.kind, id, row.Value, row.NotBefore, since, until)
			}
		}
	}
}
