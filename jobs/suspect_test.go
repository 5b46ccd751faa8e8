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
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"syncer/imclient"
	"syncer/internal/imsim"
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

// suspectSpec makes pages of a hundred users, each one call, in two ranges.
func (w *world) suspectSpec(provider imclient.Provider) engineSpec {
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

// transitions is what the history has of a run's users after they were first
// seen, and how many times.
func (w *world) transitions(app *App, runID int64) map[string]int {
	w.t.Helper()
	n := make(map[string]int)
	for _, rows := range w.history(presenceTables, app.ID) {
		for _, r := range rows {
			if r.RunID == runID && r.Prev != "" {
				n[r.Prev+" → "+r.Value]++
			}
		}
	}
	return n
}

// verdicts are those of a run in the log, with how often each was given.
func (w *world) verdicts(runID int64) map[string]int {
	n := make(map[string]int)
	for _, line := range w.log.lines(`"verdict":`) {
		_, rest, _ := strings.Cut(line, `"verdict":"`)
		name, _, _ := strings.Cut(rest, `"`)
		if !strings.Contains(line, `"level":"warn"`) || !strings.Contains(line, `"before":`) || !strings.Contains(line, `"gone":`) ||
			!strings.Contains(line, `"app":`) || !strings.Contains(line, `"run_id":`) || !strings.Contains(line, `"range":`) {
			w.t.Errorf("a verdict that does not say enough: %s", line)
		}
		if strings.Contains(line, fmt.Sprintf(`"run_id":%d,`, runID)) {
			n[name]++
		}
	}
	return n
}

// suspectCase is a test of pages that look offline: users 101 to 200, a page.
type suspectCase struct {
	name string
	// happen makes users look, or be, offline.
	happen func(w *world)
	// What comes of it.
	rejected int64
	failing  map[string]int64 // by code
	err      string
	stored   map[string]string // of users 101 to 200
	calls    int64             // besides one for each of the four pages
	verdicts map[string]int
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

// TestSuspect: what becomes of a page of which many users, or all, are offline at
// once.
func TestSuspect(t *testing.T) {
	t.Parallel()
	const refused = "suspect answers about 100 users were rejected: 100 of 100 users online went offline at once, and /user/get_users_status, which could confirm it, is refused: " +
		"openim get_users_status: code 1002: NoPermissionError: only app manager; make admin_user_id one of the server's admin users (imAdminUserID in its configuration); the users keep their last known value"
	online, offline := all(webOnline, 101, 200), all(nowhere, 101, 200)
	// gone are the users up to one, who are offline; the others are online.
	gone := func(last int) map[string]string {
		stored := all(nowhere, 101, last)
		maps.Copy(stored, all(webOnline, last+1, 200))
		return stored
	}
	lost := lie(imsim.PathOpenIMPresence, 0)
	contradicted := func(n int64) map[string]int64 { return map[string]int64{CodeContradicted: n} }
	cleared, clearedLater := map[string]int{"suspect": 1, "cleared": 1}, map[string]int{"suspect": 2, "cleared": 1}
	confirmed, rejected := map[string]int{"suspect": 2, "confirmed": 1}, map[string]int{"suspect": 2, "rejected": 1}
	for provider, cases := range map[imclient.Provider][]suspectCase{
		tencentApp: {
			{name: "for one answer", happen: lie("", 1), stored: online, calls: 1, verdicts: cleared},
			{name: "for two answers", happen: lie("", 2), stored: online, calls: 2, verdicts: clearedLater},
			{name: "for ever", happen: lie("", 0), stored: offline, calls: 2, verdicts: confirmed},
			{name: "a real logout", happen: logout(101, 200), stored: offline, calls: 2, verdicts: confirmed},
			{name: "a logout of few", happen: logout(101, 149), stored: gone(149)},
		},
		openIMApp: {
			// The second opinion contradicts, and the page is not even suspect.
			{name: "for one answer", happen: lie(imsim.PathOpenIMPresence, 1), stored: online, calls: 1, failing: contradicted(100)},
			{name: "for ever", happen: lost, stored: online, calls: 1, failing: contradicted(100)},
			{name: "for ever, and half of them leave", happen: then(logout(101, 150), lost), stored: gone(150), calls: 1, failing: contradicted(50)},
			// It agrees about so many that only its repetition is believed.
			{name: "for ever, and most of them leave", happen: then(logout(101, 151), lost), stored: gone(151), calls: 5, failing: contradicted(49), verdicts: confirmed},
			{name: "a real logout", happen: logout(101, 200), stored: offline, calls: 5, verdicts: confirmed},
			{name: "a logout of few", happen: logout(101, 149), stored: gone(149), calls: 1},
			{name: "by both opinions, once", happen: then(lie(imsim.PathOpenIMPresence, 1), lie(imsim.PathOpenIMUsersStatus, 1)), stored: online, calls: 2, verdicts: cleared},
			{name: "by both opinions, then by one", happen: then(lost, lie(imsim.PathOpenIMUsersStatus, 2)), stored: online, calls: 5, verdicts: clearedLater, failing: contradicted(100)},
			{name: "by both opinions, for ever", happen: lie("", 0), stored: offline, calls: 5, verdicts: confirmed},
			{name: "by the second opinion alone", happen: lie(imsim.PathOpenIMUsersStatus, 0), stored: online},
			{name: "the second opinion fails once", happen: then(withFault(imsim.Fault{Kind: imsim.FaultCode, Code: 500, Times: 1}), logout(101, 149)),
				stored: gone(149), calls: 2},
			// It says nothing about all but one of them, twice: that confirms nothing.
			{name: "the second opinion leaves users out", happen: then(withFault(imsim.Fault{Kind: imsim.FaultDrop, IDs: userIDs(200)[101:]}), logout(101, 200)),
				stored: gone(101), calls: 2, failing: map[string]int64{imclient.CodeMissing: 99}},

			{name: "no second opinion", happen: then(none, lost), stored: offline, calls: 3, verdicts: confirmed},
			{name: "for two answers, and no second opinion", happen: then(none, lie(imsim.PathOpenIMPresence, 2)), stored: online, calls: 3, verdicts: clearedLater},
			// There is a second opinion, but not for us: nothing confirms what is suspect, and the other pages are written.
			{name: "for ever, and the second opinion is refused", happen: then(withFault(imsim.Fault{Kind: imsim.FaultNotAdmin}), lost),
				stored: online, calls: 5, verdicts: rejected, rejected: 100, err: refused},
			{name: "for two answers, and the second opinion is refused", happen: then(withFault(imsim.Fault{Kind: imsim.FaultNotAdmin}), lie(imsim.PathOpenIMPresence, 2)),
				stored: online, calls: 4, verdicts: clearedLater},
		},
	} {
		t.Run(string(provider), func(t *testing.T) {
			t.Parallel()
			w := setup(t, worldOptions{users: 400})
			for _, tc := range cases {
				t.Run(tc.name, func(t *testing.T) {
					w := *w
					w.t = t
					w.testSuspect(provider, tc)
				})
			}
		})
	}
}

// testSuspect has an engine of its own, which has logged and counted nothing yet.
func (w *world) testSuspect(provider imclient.Provider, tc suspectCase) {
	t := w.t
	w.sim.ClearFaults()
	w.set(1, 400, onWeb)
	e := w.engine(w.suspectSpec(provider))
	app := e.app(provider)
	w.ended(w.backfill(e, provider, imclient.KindPresence), repo.RunSucceeded)
	calls := w.calls()

	tc.happen(w)
	run := w.backfill(e, provider, imclient.KindPresence)
	runID := run.ID
	failed := tc.rejected
	for _, n := range tc.failing {
		failed += n
	}
	status := repo.RunSucceeded
	if failed > 0 {
		status = repo.RunPartial
	}
	w.ended(run, status)
	suspectPages := int64(min(len(tc.verdicts), 1))
	changed := int64(0)
	for _, value := range tc.stored {
		if value == nowhere {
			changed++
		}
	}
	run.ID, run.KeyOrder, run.StartedAt, run.FinishedAt, run.PrevCompleteAt = 0, "", time.Time{}, nil, nil
	want := repo.Run{
		AppID: app.ID, Job: BackfillJob, Kind: imclient.KindPresence, Trigger: repo.TriggerBackfill, Status: status, Planned: true, RecordFailures: true,
		SuspectPages: suspectPages, RejectedAnswers: tc.rejected, Error: tc.err,
		Counters: repo.Counters{Users: 400, Changed: changed, Failed: failed, Calls: w.calls() - calls, Retries: run.Retries},
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
	if diff := cmp.Diff(wantTransitions, w.transitions(app, runID)); diff != "" {
		t.Errorf("transitions (-want +got):\n%s", diff)
	}
	failing := make(map[string]int64)
	for _, code := range w.failing(imclient.KindPresence, app.ID) {
		failing[code]++
	}
	if diff := cmp.Diff(tc.failing, failing, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("failing users (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(tc.verdicts, w.verdicts(runID), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("verdicts in the log (-want +got):\n%s", diff)
	}
	complete := query(w, pgx.RowTo[bool], `SELECT complete FROM syncer.sync_run ORDER BY run_id DESC LIMIT 1`)[0]
	counts := w.count(`SELECT coalesce(sum(users) FILTER (WHERE platform = 'all'), 0)::bigint FROM syncer.presence_count WHERE run_id = (SELECT max(run_id) FROM syncer.sync_run)`)
	// Contradicted users count with the value that they keep.
	wantCounts := 400 - tc.failing[imclient.CodeMissing]
	if tc.rejected > 0 {
		wantCounts = 0
	}
	if complete != (tc.rejected == 0) || counts != wantCounts {
		t.Errorf("complete %t, %d users counted; answers about %d were rejected", complete, counts, tc.rejected)
	}
	wantMetrics := fmt.Sprintf("syncer_contradicted_users_total{app=%[1]q} %[2]d\nsyncer_rejected_answers_total{app=%[1]q} %[3]d\nsyncer_suspect_pages_total{app=%[1]q} %[4]d\n",
		app.Name, tc.failing[CodeContradicted], tc.rejected, suspectPages)
	if diff := cmp.Diff(wantMetrics, e.metrics("syncer_contradicted_users_total", "syncer_rejected_answers_total", "syncer_suspect_pages_total")); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
}

// TestSuspect_call: one call of a page goes wrong, all users of it being offline
// with success. For the page they are few; for the call they are all.
func TestSuspect_call(t *testing.T) {
	t.Parallel()
	const users = 2000 // in calls of 500
	w := setup(t, worldOptions{users: users})
	w.set(1, users, onWeb)
	s := w.suspectSpec(tencentApp)
	s.Page, s.Range = users, users
	e := w.engine(s)
	app := e.app(tencentApp)
	w.ended(w.backfill(e, tencentApp, imclient.KindPresence), repo.RunSucceeded)
	w.fault(imsim.Fault{Kind: imsim.FaultOffline, Times: 1})
	run := w.backfill(e, tencentApp, imclient.KindPresence)
	w.ended(run, repo.RunSucceeded)
	if diff := cmp.Diff(map[string]int{"suspect": 1, "cleared": 1}, w.verdicts(run.ID)); diff != "" || run.SuspectPages != 1 || run.Changed != 0 {
		t.Errorf("run %+v; verdicts (-want +got):\n%s", run, diff)
	}
	if len(w.log.lines(`"before":2000,"gone":500,"suspect_calls":1,"verdict":"suspect"`)) != 1 {
		t.Errorf("the log does not say of the page what was seen: %q", w.log.lines(`"verdict"`))
	}
	if n := w.transitions(app, run.ID); len(n) > 0 {
		t.Errorf("transitions %v, want none", n)
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

// TestSuspect_brackets: a logout of everybody that is believed only at the third
// answer lies within its brackets, and the answers came no
// sooner after one another than they should.
func TestSuspect_brackets(t *testing.T) {
	t.Parallel()
	const answers = maxSuspectAnswers
	for _, provider := range []imclient.Provider{tencentApp, openIMApp} {
		t.Run(string(provider), func(t *testing.T) {
			t.Parallel()
			w := setup(t, worldOptions{users: 100})
			w.set(1, 100, onWeb)
			s := w.suspectSpec(provider)
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

// TestSuspect_others: while one page is suspect the others are written, the
// run says that it is suspect, and it can be stopped and resumed.
func TestSuspect_others(t *testing.T) {
	t.Parallel()
	w := setup(t, worldOptions{users: 400})
	w.set(1, 400, onWeb)
	s := w.suspectSpec(tencentApp)
	s.CollapseDelay = time.Hour
	e := w.engine(s)
	app := e.app(tencentApp)
	w.ended(w.backfill(e, tencentApp, imclient.KindPresence), repo.RunSucceeded)
	lie("", 1)(w)
	w.set(399, 400)
	run := w.start(e, tencentApp, imclient.KindPresence)
	w.underWay(e, run, 300)
	w.eventually("only the suspect page is left", func() bool {
		return w.count(`SELECT count(*) FROM syncer.sync_range WHERE run_id = $1 AND status <> 'done'`, run.ID) == 1
	})
	type recheck struct {
		Answers        int
		Lower, Upper   string
		Attempt        int
		Waits, Pending bool
	}
	got := query(w, pgx.RowToStructByPos[recheck], `
SELECT suspect_answers, lower_key, upper_key, attempt, recheck_after > clock_timestamp() + interval '55 minutes', status = 'pending'
FROM syncer.sync_range WHERE suspect_answers > 0`)
	if diff := cmp.Diff([]recheck{{1, "100", "200", 0, true, true}}, got); diff != "" {
		t.Errorf("the suspect page (-want +got):\n%s", diff)
	}
	now, err := e.store.FindRun(w.ctx, run.ID)
	if err != nil || !now.Suspect || now.SuspectPages != 1 || now.Users != 300 || now.Changed != 2 || now.Status != repo.RunRunning {
		t.Errorf("the run meanwhile: %+v, %v", now, err)
	}
	want := all(webOnline, 1, 398)
	maps.Copy(want, all(nowhere, 399, 400))
	if diff := cmp.Diff(want, w.snapshot(presenceTables, app.ID)); diff != "" {
		t.Errorf("snapshots meanwhile (-want +got):\n%.2000s", diff)
	}

	w.stop(e, grace)
	if err := e.Cancel(w.ctx, run, "stopped"); err != nil {
		t.Fatal(err)
	}
	if n := w.count(`SELECT count(*) FROM syncer.sync_run WHERE suspect`); n != 0 {
		t.Error("the run is suspect although it was closed")
	}
	w.exec(`UPDATE syncer.sync_range SET recheck_after = clock_timestamp() WHERE suspect_answers > 0`) // the hour passes
	again := w.engine(s)
	resumed, err := again.StartBackfill(w.ctx, Backfill{AppID: app.ID, Kind: imclient.KindPresence, Resume: true, Waiting: func(repo.Run) {}})
	if err != nil || resumed.ID != run.ID {
		t.Fatalf("resumed run %d, %v; want %d", resumed.ID, err, run.ID)
	}
	done := w.wait(again, run)
	w.ended(done, repo.RunSucceeded)
	if done.Users != 400 || done.Changed != 2 || done.Suspect || done.SuspectPages != 1 {
		t.Errorf("the run at its end: %+v", done)
	}
	if diff := cmp.Diff(want, w.snapshot(presenceTables, app.ID)); diff != "" {
		t.Errorf("snapshots at the end (-want +got):\n%.2000s", diff)
	}
	if diff := cmp.Diff(map[string]int{"suspect": 1, "cleared": 1}, w.verdicts(run.ID)); diff != "" {
		t.Errorf("verdicts (-want +got):\n%s", diff)
	}
}

// TestSuspect_killed: a process is killed with all pages suspect. Another goes
// on where it was: no page is lost, and none is believed sooner for it.
func TestSuspect_killed(t *testing.T) {
	t.Parallel()
	for _, provider := range []imclient.Provider{tencentApp, openIMApp} {
		t.Run(string(provider), func(t *testing.T) {
			t.Parallel()
			w := setup(t, worldOptions{users: 400})
			w.set(1, 400, onWeb)
			s := w.suspectSpec(provider)
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
			w.eventually("all pages are suspect", func() bool {
				return w.count(`SELECT count(*) FROM syncer.sync_range WHERE suspect_answers = 1`) == 4
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
			if run.Users != 400 || run.Changed != 400 || run.SuspectPages != 4 {
				t.Errorf("run %+v", run)
			}
			w.truthful(presenceTables, app, userIDs(400))
			const answers = maxSuspectAnswers
			for _, id := range userIDs(400) {
				served := w.sim.Served(presenceTables.served[provider], id)
				if gone := served[len(served)-1]; gone.Times < answers {
					t.Fatalf("%s was believed to be offline after %d answers, want %d", id, gone.Times, answers)
				}
			}
		})
	}
}

// TestSuspect_off: a ratio of 1 turns the guard off.
func TestSuspect_off(t *testing.T) {
	t.Parallel()
	w := setup(t, worldOptions{users: 100})
	w.set(1, 100, onWeb)
	s := w.suspectSpec(tencentApp)
	s.CollapseRatio, s.CollapseMin = 1, 1
	e := w.engine(s)
	w.ended(w.backfill(e, tencentApp, imclient.KindPresence), repo.RunSucceeded)
	w.set(1, 100)
	run := w.backfill(e, tencentApp, imclient.KindPresence)
	w.ended(run, repo.RunSucceeded)
	if run.Changed != 100 || run.SuspectPages != 0 || run.Calls != 1 {
		t.Errorf("run %+v", run)
	}
}
