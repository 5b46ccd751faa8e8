package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"syncer/internal/imsim"
)

// ticking is a presence job of one app with a short interval.
const ticking = `
[[jobs]]
name     = "presence"
kind     = "presence"
app      = "chat"
schedule = "@every %s"
catch_up = %t
`

// TestDaemonsShareTicks: three daemons run each tick once, and keep together
// what the API allows.
func TestDaemonsShareTicks(t *testing.T) {
	t.Parallel()
	const limit = 20
	w := newWorld(t, worldOptions{
		users: 2000, change: 0.05, limits: imsim.Tencent{PresenceRate: limit},
		config: fmt.Sprintf(ticking, "1s", false) + `
[[jobs]]
name     = "accounts"
kind     = "accounts"
schedule = "@every 2s"
`,
	})
	env := []string{"SYNCER_APPS_CHAT_OPENIM_PRESENCE_RATE=14", "SYNCER_SWEEP_PAGE_USERS=250"}
	w.run(exitDone, "migrate", "up")
	var daemons []*process
	for range 3 {
		daemons = append(daemons, w.daemon(env...))
	}
	const ended = `SELECT count(*) FROM syncer.sync_run WHERE job = $1 AND status IN ('succeeded', 'partial')`
	for round := range 4 {
		w.rounds.SetRound(round)
		before := query(w, pgx.RowTo[int64], ended, "presence")[0]
		w.eventually("two more sweeps have ended", func() bool { return query(w, pgx.RowTo[int64], ended, "presence")[0] >= before+2 })
	}
	w.eventually("each daemon has written pages", func() bool { // the ranges are shared
		return !slices.ContainsFunc(daemons, func(p *process) bool { return !strings.Contains(p.stderr.String(), `"message":"page written"`) })
	})
	for _, p := range daemons {
		p.stop()
	}
	w.wantSQL("0", `SELECT count(*) FROM (SELECT FROM syncer.sync_run GROUP BY app_id, job, kind, tick HAVING count(*) > 1) AS twice`)
	w.wantSQL("0", `SELECT count(*) FROM syncer.sync_run WHERE tick IS NULL OR trigger = 'backfill' OR status IN ('failed', 'cancelled')`)
	// Every second has a row, possibly a skipped one.
	w.wantSQL("true", `SELECT max(tick) - min(tick) = (count(*) - 1) * interval '1 second' FROM syncer.sync_run WHERE job = 'presence'`)
	for _, p := range daemons {
		wantText(t, p.stderr.String(), `"message":"stopped"`)
	}
	stats := w.sim.Stats().APIs[imsim.PathOpenIMPresence]
	if stats.MaxPerSecond > limit || stats.RateLimited > 0 || stats.DuplicateCalls > 0 || stats.RepeatedNonces > 0 {
		t.Errorf("the presence API saw %+v, the limit is %d", stats, limit)
	}
}

// TestLostApp: a daemon whose app the database has lost ends, so that the service
// manager starts it again; the next start adds the app anew.
func TestLostApp(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.run(exitDone, "migrate", "up")
	p := w.daemon()
	w.exec(`UPDATE syncer.app SET name = 'other' WHERE name = 'chat'`) // the number is another app's
	_, stderr := p.wait(exitFailed)
	wantText(t, stderr, `app \"chat\": the database no longer has this app under the number that this process knows`, "restart this process, which adds the app again")
	p = w.daemon()
	w.wantSQL("chat,main,other", `SELECT string_agg(name, ',' ORDER BY name) FROM syncer.app`)
	p.stop()
}

// TestSkippedTicks: a tick that meets the previous run is skipped, and recorded.
func TestSkippedTicks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{users: 1000, config: fmt.Sprintf(ticking, "1s", false)})
	w.run(exitDone, "migrate", "up")
	if _, err := w.sim.AddFault(imsim.Fault{Kind: imsim.FaultHang}); err != nil {
		t.Fatal(err)
	}
	p := w.daemon("SYNCER_LOG_LEVEL=info")
	w.waitSQL("true", `SELECT count(*) >= 2 FROM syncer.sync_run WHERE status = 'skipped'`)
	w.wantSQL("1", `SELECT count(*) FROM syncer.sync_run WHERE status = 'running'`)
	w.sim.ClearFaults()
	w.waitSQL("true", `SELECT count(*) >= 2 FROM syncer.sync_run WHERE status = 'succeeded'`)
	p.stop()
	wantText(t, p.stderr.String(), "tick skipped: the previous run is still going")
	w.wantSQL("0", `SELECT count(*) FROM syncer.sync_run WHERE status = 'skipped' AND (users > 0 OR finished_at IS NULL)`)
}

// slowTicks makes a world whose one sweep, begun at once by a tick of long ago,
// takes a quarter of a minute, so that a test can act meanwhile.
func slowTicks(t *testing.T) (*world, []string) {
	t.Helper()
	w := newWorld(t, worldOptions{users: slowUsers, config: fmt.Sprintf(ticking, "7200h", true)})
	w.run(exitDone, "migrate", "up")
	// One worker each, so that there is work for all.
	return w, []string{"SYNCER_SWEEP_WORKERS=1", "SYNCER_SWEEP_STOP_GRACE=10m", presenceRate + "3", "SYNCER_SWEEP_PAGE_USERS=100"}
}

// TestStoppedDaemon: SIGTERM amid a run loses nothing, and the next start, here
// of two, goes on with it.
func TestStoppedDaemon(t *testing.T) {
	t.Parallel()
	w, env := slowTicks(t)
	p := w.daemon(env...)
	w.begun()
	p.stop()
	asked := w.asked()
	w.wantSQL("running", `SELECT status FROM syncer.sync_run`)
	w.wantSQL(fmt.Sprint(asked), `SELECT count(*) FROM syncer.presence_snapshot`)
	w.wantSQL("0", `SELECT count(*) FROM syncer.sync_range WHERE status = 'running'`)

	env = append(env, presenceRate+"100")
	next := []*process{w.daemon(env...), w.daemon(env...)}
	w.waitSQL("succeeded", `SELECT status FROM syncer.sync_run`)
	for _, p := range next {
		p.stop()
	}
	if all := w.asked(); all != slowUsers {
		t.Errorf("%d users were asked about, want %d", all, slowUsers)
	}
	w.wantSQL("catch_up 5000 5000", `SELECT concat_ws(' ', trigger, users, changed) FROM syncer.sync_run`)
	w.wantSQL("5000", `SELECT count(*) FROM syncer.presence_history`)
}

// TestKilledDaemon: when one of three is killed amid a run, the others finish
// its ranges, and write nothing twice.
func TestKilledDaemon(t *testing.T) {
	t.Parallel()
	w, env := slowTicks(t)
	killed := w.daemon(env...)
	w.begun()
	others := []*process{w.daemon(env...), w.daemon(env...)}
	w.waitSQL("true", `SELECT count(DISTINCT owner) > 1 FROM syncer.sync_range WHERE status = 'running'`)
	killed.kill()
	w.waitSQL("succeeded", `SELECT status FROM syncer.sync_run`)
	for _, p := range others {
		p.stop()
	}
	wantText(t, others[0].stderr.String()+others[1].stderr.String(), "took over work whose worker gave no sign of life")
	w.wantSQL("5000 5000", `SELECT concat_ws(' ', users, changed) FROM syncer.sync_run`)
	w.wantSQL("5000", `SELECT count(*) FROM syncer.presence_history`)
	if all := w.asked(); all >= slowUsers*3/2 {
		t.Errorf("%d users were asked about in all, of %d", all, slowUsers)
	}
}

// TestCatchUp: a tick that fell while nothing was up is run at the start, once,
// however many there were.
func TestCatchUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{users: 100, config: fmt.Sprintf(ticking, "1h", true)})
	w.run(exitDone, "migrate", "up")
	first := w.daemon()
	w.waitSQL("1", `SELECT count(*) FROM syncer.sync_run WHERE status = 'succeeded'`)
	first.stop()
	w.exec(`UPDATE syncer.sync_run SET tick = tick - interval '7 hours'`)
	daemons := []*process{w.daemon(), w.daemon()}
	w.waitSQL("2", `SELECT count(*) FROM syncer.sync_run WHERE status = 'succeeded'`)
	for _, p := range daemons {
		p.stop()
	}
	// The hour may turn meanwhile, which is a tick of its own.
	w.wantSQL("2", `SELECT count(*) FROM syncer.sync_run WHERE trigger = 'catch_up'`)

	// Not so with catch_up = false.
	w.exec(`UPDATE syncer.sync_run SET tick = tick - interval '7 hours'`)
	w.daemon("SYNCER_JOBS_PRESENCE_CATCH_UP=false").stop()
	w.wantSQL("2", `SELECT count(*) FROM syncer.sync_run WHERE trigger = 'catch_up'`)
}

// TestBadAppInDaemon: an app whose secret is wrong does not keep the other from
// its sweeps.
func TestBadAppInDaemon(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{users: 100, config: `
[[jobs]]
name     = "presence"
kind     = "presence"
schedule = "@every 1s"
`})
	w.run(exitDone, "migrate", "up")
	p := w.daemon("SYNCER_APPS_MAIN_TENCENT_SECRET_KEY=wrong")
	const runs = `SELECT count(*) >= 2 FROM syncer.sync_run JOIN syncer.app USING (app_id) WHERE name = $1 AND status = $2`
	w.waitSQL("true", runs, "main", "failed")
	w.waitSQL("true", runs, "chat", "succeeded")
	p.stop()
	wantText(t, w.text(`SELECT min(error) FROM syncer.sync_run WHERE status = 'failed'`), "check secret_key, sdk_app_id")
	wantText(t, p.stderr.String(), "check secret_key, sdk_app_id")
}

// TestStopGrace: calls that hang are cut off after the configured grace, and the
// daemon ends in good order all the same.
func TestStopGrace(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{users: 1000, config: fmt.Sprintf(ticking, "1s", true)})
	w.run(exitDone, "migrate", "up")
	if _, err := w.sim.AddFault(imsim.Fault{Kind: imsim.FaultHang}); err != nil {
		t.Fatal(err)
	}
	p := w.daemon("SYNCER_SWEEP_STOP_GRACE=1s", "SYNCER_APPS_CHAT_OPENIM_TIMEOUT=60s")
	w.eventually("a call hangs", func() bool { return w.sim.Faults()[0].Hits > 0 })
	begun := time.Now()
	p.stop()
	if took := time.Since(begun); took >= time.Minute {
		t.Errorf("the stop took %s", took)
	}
	w.sim.ClearFaults()
	next := w.daemon()
	w.waitSQL("true", `SELECT count(*) > 0 FROM syncer.sync_run WHERE status = 'succeeded'`)
	next.stop()
	w.wantSQL("1000", `SELECT count(*) FROM syncer.presence_history`)
}
