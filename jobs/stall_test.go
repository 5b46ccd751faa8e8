package jobs

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"syncer/imclient"
	"syncer/internal/imsim"
	"syncer/internal/schedule"
	"syncer/repo"
)

// watch lets an engine look for work that stalls so often that what stalls is found. A
// round of its housekeeping, each ten seconds, may come in between.
func (w *world) watch(e *testEngine) error {
	w.t.Helper()
	for range e.keeper.stallRounds + 1 {
		if err := e.keeper.watchWork(w.ctx); err != nil {
			w.t.Fatal(err)
		}
	}
	return e.Trouble()
}

// stallsAs checks that work stalls, that the log says why, and that the metric does.
func (w *world) stallsAs(e *testEngine, app, kind, want string) {
	w.t.Helper()
	if err := w.watch(e); !errors.Is(err, ErrStalled) || !strings.Contains(err.Error(), want) {
		w.t.Errorf("trouble: %v; want work that stalls: %s", err, want)
	}
	if lines := w.log.lines(`"level":"warn"`, ErrStalled.Error(), app); len(lines) == 0 {
		w.t.Errorf("nothing is logged:\n%s", w.log.tail())
	}
	if !e.gauged(w.t, "syncer_work_stalled", app, kind) {
		w.t.Error("syncer_work_stalled is 0")
	}
}

// gauged reports whether a gauge of an app and kind is 1.
func (e *testEngine) gauged(t *testing.T, name, app, kind string) bool {
	t.Helper()
	families, err := e.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			labels := map[string]string{}
			for _, label := range metric.GetLabel() {
				labels[label.GetName()] = label.GetValue()
			}
			if family.GetName() == name && labels["app"] == app && labels["kind"] == kind {
				return metric.GetGauge().GetValue() == 1
			}
		}
	}
	t.Fatalf("no %s of app %s and %s", name, app, kind)
	return false
}

// TestStall: work that is due and not taken up is a reason not to be ready, whatever the
// cause, until it is taken up.
func TestStall(t *testing.T) {
	t.Parallel()
	w := setup(t, worldOptions{users: 300})
	e := w.newEngine(w.spec(), func(e *Engine) { e.keeper.stallRounds = 3 })
	if err := w.watch(e); err != nil {
		t.Errorf("nothing is to be done: %v", err)
	}

	// The queue is paused, by its row, when the engine starts.
	app := e.app(tencentApp)
	paused, locked := queueName(app.ID, imclient.KindAccounts), queueName(app.ID, imclient.KindPresence)
	w.exec(`INSERT INTO syncer.river_queue (name, paused_at, updated_at) VALUES ($1, now(), now())`, paused)
	accounts := w.start(e, tencentApp, imclient.KindAccounts)
	// A session locks the job of the planning, for whatever reason.
	presence := w.start(e, tencentApp, imclient.KindPresence)
	locker, err := pgx.Connect(w.ctx, w.url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = locker.Close(context.Background()) }()
	if _, err := locker.Exec(w.ctx, `BEGIN`); err != nil {
		t.Fatal(err)
	}
	if _, err := locker.Exec(w.ctx, `SELECT FROM syncer.river_job WHERE queue = $1 FOR UPDATE`, locked); err != nil {
		t.Fatal(err)
	}
	w.begin(e)
	w.stallsAs(e, app.Name, "accounts", "its queue has been paused since ")
	w.stallsAs(e, app.Name, "accounts", "UPDATE syncer.river_queue SET paused_at = NULL WHERE name = '"+paused+"';")
	w.stallsAs(e, app.Name, "presence", "the planning of run")
	w.stallsAs(e, app.Name, "presence", "its job in the queue is available")

	if _, err := locker.Exec(w.ctx, `ROLLBACK`); err != nil {
		t.Fatal(err)
	}
	w.ended(w.wait(e, presence), repo.RunSucceeded)
	if err := w.watch(e); !errors.Is(err, ErrStalled) || strings.Contains(err.Error(), "presence") {
		t.Errorf("when only accounts stall: %v", err)
	}
	w.exec(`UPDATE syncer.sync_run SET status = 'cancelled', finished_at = now() WHERE run_id = $1`, accounts.ID)
	if err := w.watch(e); err != nil {
		t.Errorf("when nothing is left to be done: %v", err)
	}
	if e.gauged(t, "syncer_work_stalled", app.Name, "accounts") {
		t.Error("syncer_work_stalled is 1 in the end")
	}

	// No process records a tick.
	from := e.store.Now().Add(-time.Minute)
	e.scheduler.watched.Store(&[]watchedJob{{followed{"sweep", imclient.KindPresence, app.ID}, Job{Name: "sweep", Schedule: schedule.Every(time.Second)}, from}})
	w.stallsAs(e, app.Name, "presence", "the tick of job sweep at ")
	if _, err := e.StartTick(w.ctx, Job{Name: "sweep", Kind: imclient.KindPresence}, app.ID, e.store.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	w.eventually("its run is over", func() bool { return w.count(`SELECT count(*) FROM syncer.sync_run WHERE status = 'running'`) == 0 })
	if err := w.watch(e); err != nil {
		t.Errorf("when the tick has been recorded: %v", err)
	}
}

// TestStall_not: work that waits as it should does not count as stalled: because all
// workers are busy, because its range failed and is put off, because a suspect page is
// rechecked later, because the schedule does not want old ticks, or because the engine
// stops.
func TestStall_not(t *testing.T) {
	t.Parallel()
	w := setup(t, worldOptions{users: 900})
	s := w.spec()
	s.Workers, s.Range, s.Page, s.Batch, s.CollapseDelay, s.FirstRetry = 1, 300, 300, 100, time.Hour, time.Hour
	e := w.newEngine(s, func(e *Engine) { e.keeper.stallRounds = 3 })
	w.begin(e)
	tencent, openIM := e.app(tencentApp), e.app(openIMApp)

	// Three ranges, one worker, which is busy.
	hang := w.fault(imsim.Fault{Kind: imsim.FaultHang})
	busy := w.start(e, tencentApp, imclient.KindAccounts)
	w.eventually("the worker is busy", func() bool { return w.hits(hang) > 0 })
	w.eventually("others wait", func() bool {
		return w.count(`SELECT count(*) FROM syncer.sync_range WHERE run_id = $1 AND status = 'pending'`, busy.ID) > 1
	})
	if err := w.watch(e); err != nil {
		t.Errorf("while all workers are busy: %v", err)
	}
	w.sim.ClearFault(hang)
	w.ended(w.wait(e, busy), repo.RunSucceeded)

	// All calls fail, so that the ranges are put off for an hour or two.
	broken := w.fault(imsim.Fault{Kind: imsim.FaultStatus, Status: 500, IDs: []string{userID(1), userID(301), userID(601)}})
	w.start(e, openIMApp, imclient.KindAccounts)
	w.eventually("all ranges are put off", func() bool {
		return w.count(`SELECT count(*) FROM syncer.river_job WHERE queue = $1 AND kind = 'syncer_range' AND scheduled_at > now() + interval '1 s' AND state IN ('retryable', 'scheduled')`, queueName(openIM.ID, imclient.KindAccounts)) == 3
	})
	w.sim.ClearFault(broken)
	// Everyone is offline at once, so that all pages are asked about in an hour.
	w.ended(w.backfill(e, tencentApp, imclient.KindPresence), repo.RunSucceeded)
	w.exec(`UPDATE syncer.presence_snapshot SET state = 'online'`)
	w.fault(imsim.Fault{Kind: imsim.FaultOffline})
	w.start(e, tencentApp, imclient.KindPresence)
	w.eventually("all pages are suspect", func() bool {
		return w.count(`SELECT count(*) FROM syncer.sync_range WHERE status = 'pending' AND recheck_after IS NOT NULL`) == 3
	})
	// Ticks before the schedule began.
	e.scheduler.watched.Store(&[]watchedJob{{followed{"sweep", imclient.KindPresence, tencent.ID}, Job{Schedule: schedule.Every(8760 * time.Hour)}, e.store.Now()}})
	if err := w.watch(e); err != nil {
		t.Errorf("while all work is put off: %v", err)
	}
	w.stop(e, 10*time.Second)
	w.exec(`UPDATE syncer.sync_range SET recheck_after = NULL`)
	w.exec(`UPDATE syncer.river_job SET scheduled_at = now() WHERE finalized_at IS NULL`)
	if err := w.watch(e); err != nil {
		t.Errorf("when the engine has stopped: %v", err)
	}
}

// TestStallRounds: what counts as stalled waits for at least two minutes, and twice
// rescue_after.
func TestStallRounds(t *testing.T) {
	t.Parallel()
	for rescueAfter, want := range map[time.Duration]int{time.Minute: 12, 5 * time.Minute: 12, 30 * time.Second: 24, 10 * time.Second: 72} {
		if got := stallRounds(rescueAfter); got != want {
			t.Errorf("rescue_after %s: %d rounds, want %d", rescueAfter, got, want)
		}
	}
}
