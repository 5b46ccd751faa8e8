package jobs

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"syncer/imclient"
	"syncer/imclient/imsim"
	"syncer/repo"
)

// opinions is how many second opinions were asked for so far.
func (w *world) opinions() int64 { return int64(w.sim.Stats().APIs[imsim.PathOpenIMUsersStatus].Calls) }

// set makes the users first to last reachable on these devices only.
func (w *world) set(first, last int, devices ...imsim.Device) {
	for n := first; n <= last; n++ {
		w.sim.Users().Set(userID(n), devices...)
	}
}

var onWeb = imsim.Device{Platform: imsim.Web, Mode: imsim.Online}

// doubtSpec makes pages of a hundred users, each one call, in two ranges.
func (w *world) doubtSpec(provider imclient.Provider) engineSpec {
	s := w.spec()
	s.Providers, s.Batch, s.Range, s.Page = []imclient.Provider{provider}, 500, 200, 100
	return s
}

// all says that every one of the users has this value, and only it.
func all(value string, first, last int) map[string]string {
	values := make(map[string]string)
	for n := first; n <= last; n++ {
		values[userID(n)] = value
	}
	return values
}

const (
	webOnline = `online {"web": "online"}`
	nowhere   = `offline {}`
)

// transitions is what the history has of an app's users after they were first
// seen, and how many times.
func (w *world) transitions(app *App) map[string]int {
	w.t.Helper()
	n := make(map[string]int)
	for _, rows := range w.history(presenceTables, app.ID) {
		for _, r := range rows[1:] {
			n[r.Prev+" → "+r.Value]++
		}
	}
	return n
}

// verdicts are those in the log, with how often each was given.
func (w *world) verdicts() map[string]int {
	n := make(map[string]int)
	for _, line := range w.log.lines(`"verdict":`) {
		_, rest, _ := strings.Cut(line, `"verdict":"`)
		name, _, _ := strings.Cut(rest, `"`)
		if !strings.Contains(line, `"level":"warn"`) || !strings.Contains(line, `"before":`) || !strings.Contains(line, `"gone":`) ||
			!strings.Contains(line, `"app":`) || !strings.Contains(line, `"run_id":`) || !strings.Contains(line, `"range":`) {
			w.t.Errorf("a verdict that does not say enough: %s", line)
		}
		n[name]++
	}
	return n
}

// collapse is a test of pages that look offline: users 101 to 200, a page.
type collapse struct {
	name     string
	provider imclient.Provider
	// happen makes users look, or be, offline.
	happen func(w *world)
	// What comes of it.
	status      repo.RunStatus
	disbelieved int64
	failed      int64 // contradicted, each for himself
	err         string
	stored      map[string]string // of users 101 to 200
	calls       int64             // besides one for each of the four pages
	verdicts    map[string]int
	noDoubt     bool
}

// lie makes users 101 to 200 look offline on some paths, for some calls.
func lie(path string, times int) func(w *world) {
	return func(w *world) {
		ids := userIDs(200)[100:]
		w.fault(imsim.Fault{Kind: imsim.FaultOffline, Path: path, Times: times, IDs: ids})
	}
}

// logout makes users really go offline.
func logout(first, last int) func(w *world) { return func(w *world) { w.set(first, last) } }

// then does several things.
func then(steps ...func(w *world)) func(w *world) {
	return func(w *world) {
		for _, step := range steps {
			step(w)
		}
	}
}

// failing makes calls for a second opinion fail.
func withFault(f imsim.Fault) func(w *world) {
	return func(w *world) {
		f.Path = imsim.PathOpenIMUsersStatus
		w.fault(f)
	}
}

// none: the server offers no second opinion.
var none = withFault(imsim.Fault{Kind: imsim.FaultStatus, Status: 404, Body: "404 page not found"})

// TestCollapse: what becomes of a page of which everybody is offline at once.
func TestCollapse(t *testing.T) {
	t.Parallel()
	const contradicted = "answers about 100 users were not believed: 100 of 100 users online went offline at once, and /user/get_users_status contradicts; they keep their last known value"
	const refused = "answers about 100 users were not believed: 100 of 100 users online went offline at once, and /user/get_users_status, which could confirm it, is refused: " +
		"openim get_users_status: code 1002: NoPermissionError: only app manager; make admin_user_id one of the server's admin users (imAdminUserID in its configuration); they keep their last known value"
	online, offline := all(webOnline, 101, 200), all(nowhere, 101, 200)
	mixed := all(nowhere, 101, 149)
	maps.Copy(mixed, all(webOnline, 150, 200))
	most := all(nowhere, 101, 151)
	maps.Copy(most, all(webOnline, 152, 200))
	for _, tc := range []collapse{
		{name: "for one answer", provider: tencentApp, happen: lie("", 1), stored: online, calls: 1, verdicts: map[string]int{"in doubt": 1, "recovered": 1}},
		{name: "for two answers", provider: tencentApp, happen: lie("", 2), stored: online, calls: 2, verdicts: map[string]int{"in doubt": 2, "recovered": 1}},
		{name: "for ever", provider: tencentApp, happen: lie("", 0), stored: offline, calls: 2, verdicts: map[string]int{"in doubt": 2, "believed": 1}},
		{name: "a real logout", provider: tencentApp, happen: logout(101, 200), stored: offline, calls: 2, verdicts: map[string]int{"in doubt": 2, "believed": 1}},
		{name: "a logout of few", provider: tencentApp, happen: logout(101, 149), stored: mixed, noDoubt: true},

		{name: "for one answer", provider: openIMApp, happen: lie("", 1), stored: online, calls: 1, verdicts: map[string]int{"in doubt": 1, "recovered": 1}},
		{name: "for two answers", provider: openIMApp, happen: lie(imsim.PathOpenIMPresence, 2), stored: online, calls: 3, verdicts: map[string]int{"in doubt": 2, "recovered": 1}},
		{name: "for ever", provider: openIMApp, happen: lie(imsim.PathOpenIMPresence, 0), stored: online, calls: 4, verdicts: map[string]int{"in doubt": 2, "disbelieved": 1},
			status: repo.RunPartial, disbelieved: 100, err: contradicted},
		{name: "for ever, the second opinion too", provider: openIMApp, happen: lie("", 0), stored: offline, calls: 2, verdicts: map[string]int{"in doubt": 1, "confirmed": 1}},
		{name: "a real logout", provider: openIMApp, happen: logout(101, 200), stored: offline, calls: 2, verdicts: map[string]int{"in doubt": 1, "confirmed": 1}},
		// A gateway is dead for long, and half of its users leave meanwhile.
		{name: "for ever, and half of them leave", provider: openIMApp, happen: then(logout(101, 150), lie(imsim.PathOpenIMPresence, 0)), stored: online, calls: 4,
			verdicts: map[string]int{"in doubt": 2, "disbelieved": 1}, status: repo.RunPartial, disbelieved: 100, err: contradicted},
		{name: "a logout of most", provider: openIMApp, happen: then(logout(101, 151), lie(imsim.PathOpenIMPresence, 0)), stored: most, calls: 2,
			verdicts: map[string]int{"in doubt": 1, "confirmed": 1}, status: repo.RunPartial, failed: 49},
		{name: "a logout of few", provider: openIMApp, happen: logout(101, 149), stored: mixed, noDoubt: true},
		{name: "no second opinion", provider: openIMApp, happen: then(none, lie(imsim.PathOpenIMPresence, 0)), stored: offline, calls: 3, verdicts: map[string]int{"in doubt": 2, "believed": 1}},
		{name: "the second opinion fails once", provider: openIMApp, happen: then(withFault(imsim.Fault{Kind: imsim.FaultCode, Code: 500, Times: 1}), logout(101, 200)),
			stored: offline, calls: 3, verdicts: map[string]int{"in doubt": 1, "confirmed": 1}},
		// It says nothing about most of them, twice: that confirms nothing.
		{name: "the second opinion leaves users out", provider: openIMApp, happen: then(withFault(imsim.Fault{Kind: imsim.FaultDrop, IDs: userIDs(200)[101:]}), logout(101, 200)),
			stored: online, calls: 6, verdicts: map[string]int{"in doubt": 2, "disbelieved": 1}, status: repo.RunPartial, disbelieved: 100, err: contradicted},
		// There is a second opinion, but not for us: nothing confirms the collapse, and the other pages are written.
		{name: "for ever, and the second opinion is refused", provider: openIMApp, happen: then(withFault(imsim.Fault{Kind: imsim.FaultNotAdmin}), lie(imsim.PathOpenIMPresence, 0)),
			stored: online, calls: 4, verdicts: map[string]int{"in doubt": 2, "disbelieved": 1}, status: repo.RunPartial, disbelieved: 100, err: refused},
		{name: "for two answers, and the second opinion is refused", provider: openIMApp, happen: then(withFault(imsim.Fault{Kind: imsim.FaultNotAdmin}), lie(imsim.PathOpenIMPresence, 2)),
			stored: online, calls: 3, verdicts: map[string]int{"in doubt": 2, "recovered": 1}},
	} {
		t.Run(string(tc.provider)+" "+tc.name, func(t *testing.T) {
			t.Parallel()
			testCollapse(t, tc)
		})
	}
}

func testCollapse(t *testing.T, tc collapse) {
	w := setup(t, worldOptions{users: 400})
	w.set(1, 400, onWeb)
	e := w.engine(w.doubtSpec(tc.provider))
	app := e.app(tc.provider)
	first := w.backfill(e, tc.provider, imclient.KindPresence)
	w.ended(first, repo.RunSucceeded)
	w.ended(w.backfill(e, tc.provider, imclient.KindPresence), repo.RunSucceeded)
	calls := w.calls()

	tc.happen(w)
	run := w.backfill(e, tc.provider, imclient.KindPresence)
	if tc.status == "" {
		tc.status = repo.RunSucceeded
	}
	w.ended(run, tc.status)
	suspected := int64(1)
	if tc.noDoubt {
		suspected, tc.verdicts = 0, map[string]int{}
	}
	changed := int64(0)
	for _, value := range tc.stored {
		if value == nowhere {
			changed++
		}
	}
	run.ID, run.StartedAt, run.FinishedAt, run.PrevCompleteAt = 0, time.Time{}, nil, nil
	want := repo.Run{
		AppID: app.ID, Job: BackfillJob, Kind: imclient.KindPresence, Trigger: repo.TriggerBackfill, Status: tc.status, Planned: true, RecordFailures: true,
		Suspected: suspected, Disbelieved: tc.disbelieved, Error: tc.err,
		Counters: repo.Counters{Users: 400, Changed: changed, Failed: tc.disbelieved + tc.failed, Calls: w.calls() - calls, Retries: run.Retries},
	}
	if diff := cmp.Diff(want, run); diff != "" {
		t.Errorf("run (-want +got):\n%s", diff)
	}
	if made := run.Calls - 4; made != tc.calls {
		t.Errorf("%d calls more than pages, want %d", made, tc.calls)
	}
	wantStored := all(webOnline, 1, 400)
	maps.Copy(wantStored, tc.stored)
	if diff := cmp.Diff(wantStored, w.snapshot(presenceTables, app.ID)); diff != "" {
		t.Errorf("snapshots (-want +got):\n%.2000s", diff)
	}
	wantTransitions := map[string]int{}
	if changed > 0 {
		wantTransitions["online → "+nowhere] = int(changed)
	}
	if diff := cmp.Diff(wantTransitions, w.transitions(app)); diff != "" {
		t.Errorf("transitions (-want +got):\n%s", diff)
	}
	if n := w.count(`SELECT count(*) FROM syncer.user_failure WHERE code = 'contradicted' AND known_at IS NOT NULL`); n != tc.failed {
		t.Errorf("%d users failed as contradicted, want %d", n, tc.failed)
	}
	if diff := cmp.Diff(tc.verdicts, w.verdicts()); diff != "" {
		t.Errorf("verdicts in the log (-want +got):\n%s", diff)
	}
	complete := query(w, pgx.RowTo[bool], `SELECT complete FROM syncer.sync_run ORDER BY run_id DESC LIMIT 1`)[0]
	if counts := w.count(`SELECT count(*) FROM syncer.presence_count JOIN syncer.sync_run USING (run_id) WHERE run_id = (SELECT max(run_id) FROM syncer.sync_run)`); complete != (tc.disbelieved == 0) || complete != (counts > 0) {
		t.Errorf("complete %t with %d counts; %d users were disbelieved", complete, counts, tc.disbelieved)
	}
	wantMetrics := fmt.Sprintf("syncer_disbelieved_users_total{app=%[1]q} %[2]d\nsyncer_suspect_pages_total{app=%[1]q} %[3]d\n", app.Name, tc.disbelieved, suspected)
	if diff := cmp.Diff(wantMetrics, e.metrics("syncer_disbelieved_users_total", "syncer_suspect_pages_total")); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
}

// metrics are those of the engine with the given names, as they are scraped.
func (e *testEngine) metrics(names ...string) (text string) {
	got := httptest.NewRecorder()
	promhttp.HandlerFor(e.registry, promhttp.HandlerOpts{}).ServeHTTP(got, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for line := range strings.Lines(got.Body.String()) {
		if name := line[:strings.IndexAny(line, "{ ")]; slices.Contains(names, name) {
			text += line
		}
	}
	return text
}

// TestCollapse_brackets: a logout of everybody that is believed only at the
// second or third answer lies within its brackets, and the answers came no
// sooner after one another than they should.
func TestCollapse_brackets(t *testing.T) {
	t.Parallel()
	for provider, answers := range map[imclient.Provider]int{tencentApp: 3, openIMApp: 2} {
		t.Run(string(provider), func(t *testing.T) {
			t.Parallel()
			w := setup(t, worldOptions{users: 100})
			w.set(1, 100, onWeb)
			s := w.doubtSpec(provider)
			s.CollapseDelay = 500 * time.Millisecond
			e := w.engine(s)
			app := e.app(provider)
			seen := w.backfill(e, provider, imclient.KindPresence)
			w.ended(seen, repo.RunSucceeded)
			out := e.store.Now()
			w.set(1, 100)
			w.ended(w.backfill(e, provider, imclient.KindPresence), repo.RunSucceeded)
			for id, rows := range w.history(presenceTables, app.ID) {
				if len(rows) != 2 || rows[1].NotBefore == nil {
					t.Fatalf("%s has %d rows, want first seen and one bracket", id, len(rows))
				}
				if rows[1].NotBefore.After(out) || rows[1].NotBefore.Before(seen.StartedAt) || rows[1].ObservedAt.Before(out) {
					t.Errorf("%s went offline at %s, not in (%s, %s]", id, out, rows[1].NotBefore, rows[1].ObservedAt)
				}
				served := w.sim.Served(presenceTables.served[provider], id)
				gone := served[len(served)-1]
				if gone.State != "offline" || gone.Times != answers {
					t.Errorf("%s was served as %s %d times, want offline %d times", id, gone.State, gone.Times, answers)
				}
				if took := gone.LastServed.Sub(gone.FirstServed); took < time.Duration(answers-1)*s.CollapseDelay {
					t.Errorf("%d answers came within %s, although each is %s after the one before", answers, took, s.CollapseDelay)
				}
			}
		})
	}
}

// TestCollapse_others: while one page is in doubt the others are written, the
// run says that it is suspect, and it can be stopped and resumed.
func TestCollapse_others(t *testing.T) {
	t.Parallel()
	w := setup(t, worldOptions{users: 400})
	w.set(1, 400, onWeb)
	s := w.doubtSpec(openIMApp)
	s.CollapseDelay = time.Hour
	e := w.engine(s)
	app := e.app(openIMApp)
	w.ended(w.backfill(e, openIMApp, imclient.KindPresence), repo.RunSucceeded)
	lie(imsim.PathOpenIMPresence, 1)(w)
	w.set(399, 400)
	run := w.start(e, openIMApp, imclient.KindPresence)
	w.underWay(e, run, 300)
	w.eventually("only the page in doubt is left", func() bool {
		return w.count(`SELECT count(*) FROM syncer.sync_range WHERE run_id = $1 AND status <> 'done'`, run.ID) == 1
	})
	type doubt struct {
		Suspicion      int
		Lower, Upper   string
		Attempt        int
		Waits, Pending bool
	}
	got := query(w, pgx.RowToStructByPos[doubt], `
SELECT suspicion, lower_key, upper_key, attempt, ask_after > clock_timestamp() + interval '55 minutes', status = 'pending'
FROM syncer.sync_range WHERE suspicion > 0`)
	if diff := cmp.Diff([]doubt{{1, "100", "200", 0, true, true}}, got); diff != "" {
		t.Errorf("the page in doubt (-want +got):\n%s", diff)
	}
	now, err := e.store.FindRun(w.ctx, run.ID)
	if err != nil || !now.Suspect || now.Suspected != 1 || now.Users != 300 || now.Changed != 2 || now.Status != repo.RunRunning {
		t.Errorf("the run meanwhile: %+v, %v", now, err)
	}
	want := all(webOnline, 1, 398)
	maps.Copy(want, all(nowhere, 399, 400))
	if diff := cmp.Diff(want, w.snapshot(presenceTables, app.ID)); diff != "" {
		t.Errorf("snapshots meanwhile (-want +got):\n%.2000s", diff)
	}

	w.stop(e, grace)
	if err := e.Cancel(w.ctx, run.ID, "stopped"); err != nil {
		t.Fatal(err)
	}
	if n := w.count(`SELECT count(*) FROM syncer.sync_run WHERE suspect`); n != 0 {
		t.Error("the run is suspect although it was closed")
	}
	w.exec(`UPDATE syncer.sync_range SET ask_after = clock_timestamp() WHERE suspicion > 0`) // the hour passes
	again := w.engine(s)
	resumed, err := again.StartBackfill(w.ctx, Backfill{AppID: app.ID, Kind: imclient.KindPresence, Resume: true, Waiting: func(repo.Run) {}})
	if err != nil || resumed.ID != run.ID {
		t.Fatalf("resumed run %d, %v; want %d", resumed.ID, err, run.ID)
	}
	done := w.wait(again, run)
	w.ended(done, repo.RunSucceeded)
	if done.Users != 400 || done.Changed != 2 || done.Suspect || done.Suspected != 1 {
		t.Errorf("the run at its end: %+v", done)
	}
	if diff := cmp.Diff(want, w.snapshot(presenceTables, app.ID)); diff != "" {
		t.Errorf("snapshots at the end (-want +got):\n%.2000s", diff)
	}
	if diff := cmp.Diff(map[string]int{"in doubt": 1, "recovered": 1}, w.verdicts()); diff != "" {
		t.Errorf("verdicts (-want +got):\n%s", diff)
	}
}

// TestCollapse_killed: a process is killed with all pages in doubt. Another goes
// on where it was: no page is lost, and none is believed sooner for it.
func TestCollapse_killed(t *testing.T) {
	t.Parallel()
	for _, provider := range []imclient.Provider{tencentApp, openIMApp} {
		t.Run(string(provider), func(t *testing.T) {
			t.Parallel()
			w := setup(t, worldOptions{users: 400})
			w.set(1, 400, onWeb)
			s := w.doubtSpec(provider)
			s.RescueAfter = 3 * time.Second
			first := w.engine(s)
			app := first.app(provider)
			w.ended(w.backfill(first, provider, imclient.KindPresence), repo.RunSucceeded)
			w.stop(first, grace)
			w.set(1, 400)
			s.Process = "survivor"
			other := w.client(s)
			s.Process, s.CollapseDelay = "victim", 2*time.Second
			victim := w.process(s)
			run := w.start(other, provider, imclient.KindPresence)
			w.eventually("all pages are in doubt", func() bool {
				return w.count(`SELECT count(*) FROM syncer.sync_range WHERE suspicion = 1`) == 4
			})
			if err := victim.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = victim.Wait()
			if err := other.Start(w.ctx); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { w.stop(other, grace) })
			run = w.wait(other, run)
			w.ended(run, repo.RunSucceeded)
			if run.Users != 400 || run.Changed != 400 || run.Suspected != 4 {
				t.Errorf("run %+v", run)
			}
			w.truthful(presenceTables, app, userIDs(400))
			answers := map[imclient.Provider]int{tencentApp: 3, openIMApp: 2}[provider]
			for _, id := range userIDs(400) {
				served := w.sim.Served(presenceTables.served[provider], id)
				if gone := served[len(served)-1]; gone.Times < answers {
					t.Fatalf("%s was believed to be offline after %d answers, want %d", id, gone.Times, answers)
				}
			}
		})
	}
}

// TestCollapse_off: a ratio of 1 turns the guard off.
func TestCollapse_off(t *testing.T) {
	t.Parallel()
	w := setup(t, worldOptions{users: 100})
	w.set(1, 100, onWeb)
	s := w.doubtSpec(tencentApp)
	s.CollapseRatio, s.CollapseMin = 1, 1
	e := w.engine(s)
	w.ended(w.backfill(e, tencentApp, imclient.KindPresence), repo.RunSucceeded)
	w.set(1, 100)
	run := w.backfill(e, tencentApp, imclient.KindPresence)
	w.ended(run, repo.RunSucceeded)
	if run.Changed != 100 || run.Suspected != 0 || run.Calls != 1 {
		t.Errorf("run %+v", run)
	}
}
