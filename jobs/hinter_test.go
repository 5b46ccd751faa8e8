package jobs

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"syncer/imclient"
	"syncer/internal/imsim"
	"syncer/repo"
)

// came returns what has become of an app's hints in an engine.
func (e *testEngine) came(app string) map[string]int {
	results := make(map[string]int)
	for _, result := range hintResults {
		if n := int(testutil.ToFloat64(e.counters.hints.WithLabelValues(app, result))); n > 0 {
			results[result] = n
		}
	}
	return results
}

func logins(told time.Time, first, last int) (hooks []imclient.Hook) {
	for n := first; n <= last; n++ {
		hooks = append(hooks, imclient.Hook{UserID: userID(n), State: imclient.StateOnline, Platform: imclient.PlatformWeb, ToldAt: told})
	}
	return hooks
}

func logouts(told time.Time, first, last int) (hooks []imclient.Hook) {
	for n := first; n <= last; n++ {
		hooks = append(hooks, imclient.Hook{UserID: userID(n), State: imclient.StateOffline, Platform: imclient.PlatformWeb, Logout: true, ToldAt: told})
	}
	return hooks
}

// TestHinter: hooks reach both of two processes. What they lead to is written once, with the
// provider's time, in a run that changes nothing of what sweeps record.
func TestHinter(t *testing.T) {
	t.Parallel()
	w := setup(t, worldOptions{users: 20})
	spec := w.spec()
	spec.Hints = 100
	first := w.engine(spec)
	spec.Process = "engine-2"
	engines := []*testEngine{first, w.engine(spec)}
	w.set(1, 6, onWeb)
	w.set(7, 20)
	sweeps := func(app *App) []string {
		return query(w, pgx.RowTo[string], `
SELECT run_id || ' ' || complete || ' ' || users FROM syncer.sync_run WHERE app_id = $1 AND trigger <> 'hint'
UNION ALL SELECT 'count ' || run_id || ' ' || state || ' ' || users FROM syncer.presence_count WHERE app_id = $1
UNION ALL SELECT 'gap' FROM syncer.observation_gap WHERE app_id = $1 ORDER BY 1`, app.ID)
	}
	var apps []*App
	before := make(map[string][]string)
	for _, provider := range spec.Providers {
		app := first.app(provider)
		apps = append(apps, app)
		w.ended(w.backfill(first, provider, imclient.KindPresence), repo.RunSucceeded)
		before[app.Name] = sweeps(app)
	}

	w.set(1, 3)
	w.set(7, 7, onWeb)
	told := first.store.Now().Truncate(time.Millisecond)
	for _, app := range apps {
		hooks := slices.Concat(logouts(told, 1, 3), logins(told, 7, 7),
			logins(told, 4, 4), // known already
			logins(told, 8, 8), // not true
			[]imclient.Hook{{UserID: "stranger", State: imclient.StateOnline, ToldAt: told}},
			logins(told.Add(-time.Hour), 7, 7)) // late: an earlier event
		for _, e := range engines {
			e.Hints(app.ID).Tell(hooks, e.store.Now())
		}
	}
	for _, app := range apps {
		came := make(map[string]int)
		w.eventually("each hint has come to something", func() bool {
			clear(came)
			all := 0
			for _, e := range engines {
				for result, n := range e.came(app.Name) {
					came[result] += n
					all += n
				}
			}
			return all == 2*8
		})
		// The other process may have asked about them too, or found them written.
		if n := came[hintConfirmed]; n < 4 || n > 8 || n+came[hintRepeated] != 12 || came[hintContradicted] != 2 || came[hintUnknownUser] != 2 {
			t.Errorf("%s: hints came to %v", app.Name, came)
		}
		rows := query(w, pgx.RowTo[string], `
SELECT user_id || ' ' || prev_state || ' ' || state || ' ' || (not_before < told_at AND told_at <= observed_at AND told_at = $2)
FROM syncer.presence_history JOIN syncer.sync_run AS u USING (run_id)
WHERE presence_history.app_id = $1 AND u.trigger = 'hint' ORDER BY 1`, app.ID, told)
		if diff := cmp.Diff([]string{"u000001 online offline true", "u000002 online offline true", "u000003 online offline true", "u000007 offline online true"}, rows); diff != "" {
			t.Errorf("%s: written by hints (-want +got):\n%s", app.Name, diff)
		}
		runs := query(w, pgx.RowTo[string], `
SELECT job || ' ' || kind || ' ' || status || ' ' || complete || ' ' || count(*) || ' ' || sum(changed) || ' ' || (sum(users) BETWEEN 5 AND 12) || ' ' || (sum(calls) BETWEEN 2 AND 8)
FROM syncer.sync_run WHERE app_id = $1 AND trigger = 'hint' AND tick = date_trunc('hour', started_at) GROUP BY job, kind, status, complete`, app.ID)
		if hours := []string{"hints presence succeeded false 1 4 true true", "hints presence succeeded false 2 4 true true"}; len(runs) != 1 || !slices.Contains(hours, runs[0]) {
			t.Errorf("%s: hint runs %q", app.Name, runs)
		}
		if diff := cmp.Diff(before[app.Name], sweeps(app)); diff != "" {
			t.Errorf("%s: what sweeps recorded has changed (-before +after):\n%s", app.Name, diff)
		}
		ends := query(w, pgx.RowTo[string], `
SELECT user_id || ' ' || (ended = $2) FROM syncer.presence_ended_stretch WHERE app_id = $1
UNION ALL SELECT user_id || ' ' || (told_at = $2) FROM syncer.presence_current WHERE app_id = $1 AND told_at IS NOT NULL AND state = 'online' ORDER BY 1`, app.ID, told)
		if diff := cmp.Diff([]string{"u000001 true", "u000002 true", "u000003 true", "u000007 true"}, ends); diff != "" {
			t.Errorf("%s: views (-want +got):\n%s", app.Name, diff)
		}
	}
	for _, provider := range spec.Providers {
		if run := w.backfill(first, provider, imclient.KindPresence); run.Status != repo.RunSucceeded || run.Changed != 0 {
			t.Errorf("the next sweep: %+v", run)
		}
	}
}

// TestHinter_suspect: that users are offline whose own hook announced it is no sign of a
// backend that fails; that others are, is.
func TestHinter_suspect(t *testing.T) {
	t.Parallel()
	w := setup(t, worldOptions{users: 20})
	spec := w.spec()
	spec.Hints, spec.CollapseMin, spec.Providers = 100, 2, []imclient.Provider{openIMApp}
	e := w.client(spec)
	w.set(1, 20, onWeb)
	if err := e.Start(w.ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.stop(e, grace) })
	w.ended(w.backfill(e, openIMApp, imclient.KindPresence), repo.RunSucceeded)
	app := e.app(openIMApp)
	h := e.Hints(app.ID)
	written := func() int64 {
		return w.count(`SELECT count(*) FROM syncer.presence_history WHERE app_id = $1 AND prev_state = 'online'`, app.ID)
	}
	w.set(1, 20)
	// Hints of another platform, so that they are asked about.
	hooks := logins(e.store.Now(), 1, 5)
	for i := range hooks {
		hooks[i].Platform = imclient.PlatformIOS
	}
	h.Tell(hooks, e.store.Now())
	w.eventually("the hints are dropped", func() bool { return e.came(app.Name)[hintDropped] == 5 })
	if n := written(); n != 0 {
		t.Errorf("%d users went offline, against their hints", n)
	}
	h.Tell(logouts(e.store.Now(), 1, 5), e.store.Now())
	w.eventually("the hints are confirmed", func() bool { return e.came(app.Name)[hintConfirmed] == 5 })
	if n := written(); n != 5 {
		t.Errorf("%d users went offline, want 5", n)
	}
	for n := 6; n <= 19; n++ { // their hints were lost on the way, in this process
		h.announced.note(userID(n), true, e.store.Now())
	}
	run := w.backfill(e, openIMApp, imclient.KindPresence)
	if run.Status != repo.RunSucceeded || run.SuspectPages != 0 || run.Changed != 15 {
		t.Errorf("the sweep: %+v", run)
	}
}

// TestHinter_outage: hints wait while the API gives no answer, and are dropped if more wait
// than a sweep would take to reach.
func TestHinter_outage(t *testing.T) {
	t.Parallel()
	w := setup(t, worldOptions{users: 20})
	spec := w.spec()
	spec.Hints, spec.Providers, spec.Rate, spec.Batch = 18, []imclient.Provider{openIMApp}, 100, 1
	e := w.client(spec)
	app := e.app(openIMApp)
	h := e.Hints(app.ID)
	w.set(1, 20, onWeb)
	other := w.engine(func() engineSpec { s := spec; s.Process, s.Hints = "sweeper", 0; return s }())
	w.ended(w.backfill(other, openIMApp, imclient.KindPresence), repo.RunSucceeded)
	w.set(1, 1)
	w.fault(imsim.Fault{Kind: imsim.FaultStatus, Status: 500})
	h.Tell(logouts(e.store.Now(), 1, 1), e.store.Now())
	if _, err := h.Look(w.ctx); err == nil {
		t.Error("no error, although the API gives no answer")
	}
	calls := w.calls()
	if more, err := h.Look(w.ctx); more || err != nil || w.calls() != calls {
		t.Errorf("with an open breaker: more %t, %v, %d calls", more, err, w.calls()-calls)
	}
	if n := h.waiting.size(); n != 1 {
		t.Errorf("%d hints wait, want 1", n)
	}
	w.sim.ClearFaults()
	w.ended(w.backfill(other, openIMApp, imclient.KindPresence), repo.RunSucceeded)
	h.lane.breaker = e.newBreaker(app, imclient.KindPresence)
	if _, err := h.Look(w.ctx); err != nil || e.came(app.Name)[hintRepeated] != 1 {
		t.Errorf("after the outage: %v, hints came to %v", err, e.came(app.Name))
	}

	h.Tell(logouts(e.store.Now(), 1, 20), e.store.Now())
	if n := e.came(app.Name)[hintDropped]; n != 2 {
		t.Errorf("%d hints dropped for want of room, want 2", n)
	}
	jobs := []Job{{Name: "presence", Kind: imclient.KindPresence, AppIDs: []int16{app.ID}, Schedule: everyTenth{}}}
	h.scheduler.jobs.Store(&jobs) // in a tenth of a second a sweep reaches ten users
	if _, err := h.Look(w.ctx); err != nil || e.came(app.Name)[hintDropped] != 20 {
		t.Errorf("more than a sweep takes to reach: %v, hints came to %v", err, e.came(app.Name))
	}
	h.Tell(logouts(e.store.Now(), 2, 3), e.store.Now().Add(-time.Second))
	if _, err := h.Look(w.ctx); err != nil || e.came(app.Name)[hintDropped] != 22 {
		t.Errorf("older than a sweep: %v, hints came to %v", err, e.came(app.Name))
	}
	if n := fmt.Sprint(e.came(app.Name)); n != fmt.Sprint(map[string]int{hintDropped: 22, hintRepeated: 1}) {
		t.Errorf("hints came to %s", n)
	}
}

// everyTenth is a schedule with ten ticks a second.
type everyTenth struct{}

func (everyTenth) Next(t time.Time) time.Time {
	return t.Truncate(100 * time.Millisecond).Add(100 * time.Millisecond)
}
