package jobs

import (
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"syncer/imclient"
	"syncer/repo"
)

var (
	offline   = imclient.Presence{State: imclient.StateOffline}
	onlineIOS = presenceOn(imclient.StateOnline, imclient.PlatformIOS)
	onlineTwo = presenceOn(imclient.StateOnline, imclient.PlatformIOS, imclient.PlatformWeb)
	pushIOS   = imclient.Presence{State: imclient.StatePushOnline}
)

func presenceOn(state imclient.State, platforms ...imclient.Platform) imclient.Presence {
	p := imclient.Presence{State: state}
	for _, platform := range platforms {
		p.Platforms.Add(platform, imclient.ModeOnline)
	}
	return p
}

// What a trial waits for is whole seconds, and what a gap may be is none, so
// that no stretch is about as long as it may be.
var (
	turnsLast = rapid.SampledFrom([]time.Duration{20 * time.Second, 3 * time.Minute, 17 * time.Minute, 2 * time.Hour, 30 * time.Hour})
	waits     = rapid.SampledFrom([]time.Duration{time.Second, 50 * time.Second, 4 * time.Minute, 13 * time.Minute, time.Hour, 7 * time.Hour})
	latencies = rapid.SampledFrom([]time.Duration{time.Second, 5 * time.Second, 40 * time.Second, 11 * time.Minute})
	maxGaps   = rapid.SampledFrom([]time.Duration{0, 90500 * time.Millisecond, 10*time.Minute + 500*time.Millisecond, time.Hour + 500*time.Millisecond})
)

// TestTruth lets anything happen to runs, in simulated time, on the real tables,
// and compares what is stored with what truly happened.
func TestTruth(t *testing.T) {
	t.Parallel()
	for i := range 2 { // that both cores have something to do
		t.Run(fmt.Sprint("lab ", i+1), func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			rapid.Check(t, func(t *rapid.T) { truthTrial(t, l) })
		})
	}
}

func truthTrial(t *rapid.T, l *lab) {
	tr := l.trial(t)
	tr.badBatch = rapid.Bool().Draw(t, "bad batch")
	tr.config.PageUsers = rapid.IntRange(2, 5).Draw(t, "users of a page")
	tr.config.RangeUsers = rapid.IntRange(3, 10).Draw(t, "users of a range")
	for range rapid.IntRange(1, 20).Draw(t, "users at first") {
		tr.drawJoin(t)
	}
	t.Repeat(map[string]func(*rapid.T){
		"start":   tr.drawStart,
		"listed":  tr.drawListed,
		"work 1":  tr.drawWork,
		"work 2":  tr.drawWork,
		"sweep 1": tr.drawSweep,
		"sweep 2": tr.drawSweep,
		"wake":    tr.drawWake,
		"end":     tr.drawEnd,
		"resume":  tr.drawResume,
		"wait":    func(t *rapid.T) { tr.wait(waits.Draw(t, "wait")) },
		"rescue":  func(t *rapid.T) { tr.rescue(drawProcess(t)) },
		"join":    tr.drawJoin,
		"leave":   tr.drawLeave,
		"reject":  tr.drawReject,
	})
	tr.windUp()
	tr.check()
}

func drawProcess(t *rapid.T) int { return rapid.IntRange(0, 1).Draw(t, "process") }

func (tr *trial) drawJoin(t *rapid.T) {
	var outside []*simUser
	keys := map[int64]bool{}
	for _, u := range tr.sorted() {
		if !u.isInside() {
			outside = append(outside, u)
			continue
		}
		keys[u.key] = true
	}
	var u *simUser
	switch {
	case len(outside) > 0 && rapid.Bool().Draw(t, "returns"):
		u = rapid.SampledFrom(outside).Draw(t, "user")
	case len(tr.users) == 30:
		t.Skip("enough users")
	default:
		u = &simUser{id: fmt.Sprintf("user%02d", len(tr.users)+1)}
		u.turns = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) turn {
			return turn{turnsLast.Draw(t, "for"), rapid.SampledFrom([]imclient.Presence{offline, onlineIOS, onlineTwo, pushIOS}).Draw(t, "value")}
		}), 1, 5).Draw(t, "turns")
	}
	key := rapid.Int64Range(1, 100).Filter(func(key int64) bool { return !keys[key] }).Draw(t, "key")
	tr.join(u, key)
}

func (tr *trial) drawUser(t *rapid.T, ok func(*simUser) bool) *simUser {
	var users []*simUser
	for _, u := range tr.sorted() {
		if ok(u) {
			users = append(users, u)
		}
	}
	if len(users) == 0 {
		t.Skip("no such user")
	}
	return rapid.SampledFrom(users).Draw(t, "user")
}

func (tr *trial) drawLeave(t *rapid.T) { tr.leave(tr.drawUser(t, (*simUser).isInside)) }

func (tr *trial) drawReject(t *rapid.T) {
	u := tr.drawUser(t, func(*simUser) bool { return true })
	u.rejected = !u.rejected
	tr.say("the API rejects %s: %t", u.id, u.rejected)
}

func (tr *trial) drawStart(t *rapid.T) {
	if tr.running() != nil {
		t.Skip("a run is going")
	}
	tr.start(drawProcess(t), maxGaps.Draw(t, "max_gap"), nil)
}

func (tr *trial) drawListed(t *rapid.T) {
	if tr.running() != nil {
		t.Skip("a run is going")
	}
	var inside []string
	for _, u := range tr.sorted() {
		if u.isInside() {
			inside = append(inside, u.id)
		}
	}
	if len(inside) == 0 {
		t.Skip("nobody to list")
	}
	tr.start(drawProcess(t), 0, rapid.SliceOfNDistinct(rapid.SampledFrom(inside), 1, min(len(inside), 4), rapid.ID[string]).Draw(t, "listed"))
}

func (tr *trial) drawWork(t *rapid.T) {
	run := tr.running()
	if run == nil {
		t.Skip("no run is going")
	}
	open := tr.open(run)
	if len(open) == 0 {
		t.Skip("nothing to work on")
	}
	o := rapid.SampledFrom(open).Draw(t, "range")
	f := fate{what: rapid.SampledFrom([]string{goesThrough, freezes, freezes, losesItsLast, meetsOutage}).Draw(t, "fate")}
	if f.what == freezes || f.what == meetsOutage {
		f.page = rapid.IntRange(1, 3).Draw(t, "page")
		f.silent, f.late = rapid.Bool().Draw(t, "silent"), rapid.Bool().Draw(t, "late")
	}
	tr.work(drawProcess(t), run, o.no, o.job, latencies.Draw(t, "latency"), f)
}

// drawSweep starts a run if none is going, and goes through what can be gone
// through of it.
func (tr *trial) drawSweep(t *rapid.T) {
	run := tr.running()
	if run == nil {
		run = tr.start(drawProcess(t), maxGaps.Draw(t, "max_gap"), nil)
	}
	tr.sweep(run, latencies.Draw(t, "latency"))
}

func (tr *trial) drawWake(t *rapid.T) {
	if len(tr.sleepers) == 0 {
		t.Skip("nobody sleeps")
	}
	tr.wakeUp(rapid.IntRange(0, len(tr.sleepers)-1).Draw(t, "sleeper"))
}

func (tr *trial) drawEnd(t *rapid.T) {
	run := tr.running()
	if run == nil {
		t.Skip("no run is going")
	}
	tr.end(run, rapid.SampledFrom([]repo.RunStatus{repo.RunFailed, repo.RunCancelled}).Draw(t, "status"))
}

func (tr *trial) drawResume(t *rapid.T) {
	if tr.running() != nil {
		t.Skip("a run is going")
	}
	var ended []*simRun
	for _, run := range tr.sortedRuns() {
		if run.status == repo.RunFailed || run.status == repo.RunCancelled {
			ended = append(ended, run)
		}
	}
	if len(ended) == 0 {
		t.Skip("no run to resume")
	}
	tr.resume(drawProcess(t), rapid.SampledFrom(ended).Draw(t, "run"))
}

// running is the run that is going, if there is one.
func (tr *trial) running() *simRun {
	for _, run := range tr.runs {
		if run.status == repo.RunRunning {
			return run
		}
	}
	return nil
}

// start starts a run and plans it.
func (tr *trial) start(process int, maxGap time.Duration, listed []string) *simRun {
	tr.t.Helper()
	e := tr.engineOf(process, &worker{trial: tr}, nobodyListens)
	n := repo.NewRun{AppID: tr.app.ID, Job: "job", Kind: imclient.KindPresence, Trigger: repo.TriggerCron, Tick: tr.clock.Now(), MaxGap: maxGap}
	if listed != nil {
		n.Job, n.Trigger, n.Tick, n.Listed = BackfillJob, repo.TriggerBackfill, time.Time{}, listed
	}
	runID, err := e.start(tr.ctx, n)
	if err != nil {
		tr.t.Fatal(err)
	}
	run := &simRun{id: runID, maxGap: maxGap, listed: listed != nil, status: repo.RunRunning, owners: map[int]*worker{}, met: map[string]bool{}}
	stored, err := tr.stores[process].FindRun(tr.ctx, runID)
	if err != nil {
		tr.t.Fatal(err)
	}
	run.start = stored.StartedAt
	run.looks = []look{{at: run.start}}
	for _, before := range tr.completed {
		run.prevComplete = later(run.prevComplete, before.start)
	}
	tr.runs[runID] = run
	tr.say("run %d starts, max_gap %s, limited to %v", runID, maxGap, listed)
	tr.plan(e, run)
	return run
}

func (tr *trial) plan(e *Engine, run *simRun) {
	tr.t.Helper()
	var jobID int64
	if err := tr.db.QueryRow(tr.ctx, `SELECT plan_job_id FROM syncer.sync_run WHERE run_id = $1`, run.id).Scan(&jobID); err != nil {
		tr.t.Fatal(err)
	}
	plan, err := e.store.ClaimPlan(tr.ctx, run.id, jobID)
	if err != nil {
		tr.t.Fatal(err)
	}
	defer plan.Done()
	if err := e.plan(tr.ctx, plan); err != nil {
		tr.t.Fatal(err)
	}
}

// openRange is a range to be worked on.
type openRange struct {
	no      int
	job     int64
	pending bool
}

func (tr *trial) open(run *simRun) []openRange {
	tr.t.Helper()
	rows, err := tr.db.Query(tr.ctx, `SELECT range_no, job_id, status = 'pending' FROM syncer.sync_range
WHERE run_id = $1 AND status IN ('pending', 'running') ORDER BY range_no`, run.id)
	if err != nil {
		tr.t.Fatal(err)
	}
	open, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (o openRange, err error) {
		err = row.Scan(&o.no, &o.job, &o.pending)
		return o, err
	})
	if err != nil {
		tr.t.Fatal(err)
	}
	return open
}

// sweep goes through all ranges of a run that nobody works on.
func (tr *trial) sweep(run *simRun, latency time.Duration) {
	tr.t.Helper()
	for i, o := range tr.open(run) {
		if o.pending {
			tr.work(i%2, run, o.no, o.job, latency, fate{what: goesThrough})
		}
	}
}

func (tr *trial) end(run *simRun, status repo.RunStatus) {
	tr.t.Helper()
	if err := tr.stores[0].EndRun(tr.ctx, run.id, status, "for the trial"); err != nil {
		tr.t.Fatal(err)
	}
	tr.look()
}

func (tr *trial) resume(process int, run *simRun) {
	tr.t.Helper()
	e := tr.engineOf(process, &worker{trial: tr}, nobodyListens)
	stored, err := e.store.FindRun(tr.ctx, run.id)
	if err != nil {
		tr.t.Fatal(err)
	}
	now := tr.clock.Now()
	if err := e.resume(tr.ctx, stored); err != nil {
		tr.t.Fatal(err)
	}
	run.status = repo.RunRunning
	run.looks = append(run.looks, look{at: now})
	tr.say("run %d is resumed", run.id)
	tr.look()
}

// wait lets time pass. Processes give signs of life meanwhile.
func (tr *trial) wait(d time.Duration) {
	tr.t.Helper()
	tr.clock.pass(d)
	for _, store := range tr.stores {
		if err := store.Beat(tr.ctx); err != nil {
			tr.t.Fatal(err)
		}
	}
}

// rescue takes over the ranges without a sign of life.
func (tr *trial) rescue(process int) {
	tr.t.Helper()
	e := tr.engineOf(process, &worker{trial: tr}, nobodyListens)
	if err := e.rescue(tr.ctx); err != nil {
		tr.t.Fatal(err)
	}
	run := tr.running()
	if run == nil {
		return
	}
	for _, o := range tr.open(run) {
		if o.pending && run.owners[o.no] != nil {
			tr.say("range %d of run %d is rescued", o.no, run.id)
			run.owners[o.no] = nil
		}
	}
}

// windUp finishes the run that is going and sweeps all users once more. Only then
// the last ones wake up, too late. Once it is known who is there, nobody needs
// the whole users table.
func (tr *trial) windUp() {
	tr.t.Helper()
	if run := tr.running(); run != nil {
		tr.clock.pass(10 * time.Minute) // nobody gives a sign of life
		tr.rescue(0)
		tr.sweep(run, time.Second)
		if run.status == repo.RunRunning {
			tr.t.Fatalf("run %d does not end", run.id)
		}
	}
	for i := range 3 {
		run := tr.start(i%2, 0, nil)
		tr.sweep(run, time.Second)
		if run.status == repo.RunRunning {
			tr.t.Fatalf("run %d does not end", run.id)
		}
		var reconciled bool
		if err := tr.db.QueryRow(tr.ctx, `SELECT reconciled FROM syncer.sync_run WHERE run_id = $1`, run.id).Scan(&reconciled); err != nil {
			tr.t.Fatal(err)
		}
		if i == 2 && reconciled {
			tr.t.Errorf("run %d has read the whole users table, which nobody has left", run.id)
		}
	}
	for len(tr.sleepers) > 0 {
		tr.wakeUp(0)
	}
	for _, u := range tr.users {
		if u.life != nil && !u.isInside() {
			tr.t.Errorf("%s has left the users table, and still has a snapshot", u.id)
		}
	}
}
