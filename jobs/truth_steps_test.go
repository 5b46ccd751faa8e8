package jobs

import (
	"time"

	"github.com/jackc/pgx/v5"

	"syncer/imclient"
	"syncer/repo"
)

// recover makes the API and the second opinion tell the truth again.
func (tr *trial) recover() {
	tr.redisEmpty = false
	for _, u := range tr.users {
		u.lost, u.stale = false, false
	}
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
	runID, err := e.queue.run(tr.ctx, n)
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
	run.recorded = run.start
	for _, before := range tr.completed {
		if !before.start.After(run.prevComplete) {
			continue
		}
		run.prevComplete = before.start
		run.recorded = run.start
		if !run.listed && run.start.Sub(before.recorded) < 59*time.Minute {
			run.recorded = before.recorded
		}
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
	if err := e.workers.plan(tr.ctx, plan); err != nil {
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

// sweep goes through all ranges of a run that nobody works on, rechecks included.
func (tr *trial) sweep(run *simRun, latency time.Duration) {
	tr.t.Helper()
	for more := true; more; {
		more = false
		for i, o := range tr.open(run) {
			if o.pending {
				tr.work(i%2, run, o.no, o.job, latency, fate{what: goesThrough})
				more = true
			}
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
	if err := e.keeper.rescue(tr.ctx); err != nil {
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
	tr.recover()
	if run := tr.running(); run != nil {
		tr.clock.pass(10 * time.Minute) // nobody gives a sign of life
		tr.rescue(0)
		tr.sweep(run, time.Second)
		if run.status == repo.RunRunning {
			tr.t.Fatalf("run %d does not end", run.id)
		}
	}
	tr.config.RemovalRatio = 1
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
	tr.wakeAll()
	for _, u := range tr.users {
		if u.life != nil && !u.isInside() {
			tr.t.Errorf("%s has left the users table, and still has a snapshot", u.id)
		}
	}
}
