package e2e

import (
	"fmt"
	"strings"
	"testing"

	"syncer/internal/imsim"
)

// TestOutageOfOneApp: the API of one app is away, in one way after the other, until a run of
// it is given up; the other app of the same daemon has all its ticks meanwhile, and
// none is skipped. It takes few calls, no flood comes when the API is back, and what
// is stored is what was served.
func TestOutageOfOneApp(t *testing.T) {
	t.Parallel()
	const limit = 50
	// Nobody's account comes or goes: of such a user a run would be partial.
	rounds := &imsim.Rounds{Seed: 3, PresenceShare: 0.3}
	w := newWorld(t, worldOptions{users: 600, rounds: rounds, limits: imsim.Tencent{PresenceRate: limit},
		config: `
[[jobs]]
name     = "chat"
kind     = "presence"
app      = "chat"
schedule = "@every 2s"
[[jobs]]
name     = "main"
kind     = "presence"
app      = "main"
schedule = "@every 1s"
`})
	w.run(exitDone, "migrate", "up")
	const ended = `SELECT count(*) >= $3::int FROM syncer.sync_run WHERE job = $1 AND status = $2`
	p := w.daemon("SYNCER_SWEEP_OUTAGE=10s", "SYNCER_APPS_MAIN_TENCENT_PRESENCE_RATE=40", "SYNCER_APPS_MAIN_TENCENT_TIMEOUT=4s",
		// Users change between the runs as no users do.
		"SYNCER_SWEEP_COLLAPSE_RATIO=1")
	w.waitSQL("true", ended, "main", "succeeded", 2)
	w.waitSQL("true", ended, "chat", "succeeded", 1)

	const failing = 3 // calls that fail in each of the first ways
	away := w.text(`SELECT max(run_id) FROM syncer.sync_run`)
	before := w.sim.Stats().APIs[imsim.PathQueryOnlineStatus].Calls
	for i, f := range []imsim.Fault{
		{Kind: imsim.FaultHang, Times: failing},
		{Kind: imsim.FaultReset, Times: failing},
		{Kind: imsim.FaultStatus, Status: 503},
	} {
		f.Path, f.After = imsim.PathQueryOnlineStatus, i*failing
		if _, err := w.sim.AddFault(f); err != nil {
			t.Fatal(err)
		}
	}
	w.rounds.SetRound(1)
	w.waitSQL("true", ended, "main", "failed", 1)
	calls := w.sim.Stats().APIs[imsim.PathQueryOnlineStatus].Calls - before
	if calls < 3*failing || calls > 100 {
		t.Errorf("%d calls while the API was away", calls)
	}
	w.sim.ClearFaults()
	w.waitSQL("true", `SELECT count(*) >= 3 FROM syncer.sync_run WHERE job = 'main' AND status = 'succeeded'
		AND run_id > (SELECT max(run_id) FROM syncer.sync_run WHERE job = 'main' AND status = 'failed')`)
	p.stop()

	reason := w.text(`SELECT min(error) FROM syncer.sync_run WHERE status = 'failed'`)
	if !strings.HasPrefix(reason, "no answer since 20") || !strings.Contains(reason, "503") {
		t.Errorf("the run that was given up says %q", reason)
	}
	wantText(t, p.stderr.String(), "the API gives no answer; calls are held back", "the API answers again", "no answer since")
	// The other app: a run for each tick, none failed. A tick is skipped where a run takes
	// longer than the two seconds, on a machine that is far too busy.
	w.wantSQL("true", `SELECT max(tick) - min(tick) = (count(*) - 1) * interval '2 seconds' AND count(*) >= 8 AND count(*) FILTER (WHERE status = 'succeeded') >= 4
		FROM syncer.sync_run WHERE job = 'chat' AND run_id > $1::bigint`, away)
	w.wantSQL("", `SELECT concat_ws(' ', run_id, status, tick, error)
		FROM syncer.sync_run WHERE job = 'chat' AND run_id > $1::bigint AND status NOT IN ('succeeded', 'skipped', 'running')`, away)
	if got := w.sim.Stats().APIs[imsim.PathQueryOnlineStatus]; got.MaxPerSecond > limit || got.RateLimited > 0 {
		t.Errorf("the API that came back saw %+v, the limit is %d", got, limit)
	}
	w.truthful()
	w.wantSQL(fmt.Sprint(2*600), `SELECT count(*) FROM syncer.presence_snapshot`)
}

// TestOutageIsShown: while an API does not answer, runs, runs show and explain say so
// of the running run, long before it fails; once it answers they do not.
func TestOutageIsShown(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{users: 600, config: noJobs})
	w.run(exitDone, "migrate", "up")
	if _, err := w.sim.AddFault(imsim.Fault{Kind: imsim.FaultStatus, Status: 503, Path: imsim.PathQueryOnlineStatus}); err != nil {
		t.Fatal(err)
	}
	p := w.start("backfill", "--app", "main", "--job", "presence")
	const notice = "no answer from the API since 20"
	w.eventually("runs shows the outage", func() bool {
		stdout, _ := w.run(exitDone, "runs", "--format", "json")
		return strings.Contains(stdout, notice)
	})
	user := w.text(`SELECT min(uid) FROM public.users`)
	shown, _ := w.run(exitDone, "runs", "show", "1")
	wantText(t, strings.Join(strings.Fields(shown), " "), notice, "503")
	explained, _ := w.run(exitPartial, "explain", user, "--app", "main")
	wantText(t, strings.Join(strings.Fields(explained), " "), notice, "503")
	w.sim.ClearFaults()
	p.wait(exitPartial) // some users were never imported
	if runs, _ := w.run(exitDone, "runs"); strings.Contains(runs, "no answer") {
		t.Errorf("runs still shows the outage:\n%s", runs)
	}
	w.wantSQL("0", `SELECT count(*) FROM syncer.api_quota WHERE failing_since IS NOT NULL`)
}
