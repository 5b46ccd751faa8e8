package jobs

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"syncer/imclient"
	"syncer/internal/imsim"
	"syncer/repo"
)

// TestBackfill_waits: a backfill waits for the run that is going, says so, and
// is one of its own afterwards.
func TestBackfill_waits(t *testing.T) {
	t.Parallel()
	w := setup(t, worldOptions{users: 100})
	e := w.engine(w.spec())
	app := e.app(tencentApp)
	fault := w.fault(imsim.Fault{Kind: imsim.FaultDelay, Path: imsim.PathTencentAccounts, Delay: patience, Times: 1})
	first := w.start(e, tencentApp, imclient.KindAccounts)
	waitingFor := make(chan repo.Run, 1)
	second := make(chan repo.Run, 1)
	go func() {
		run, err := e.StartBackfill(w.ctx, Backfill{AppID: app.ID, Kind: imclient.KindAccounts, Waiting: func(other repo.Run) {
			select {
			case waitingFor <- other:
			default:
			}
		}})
		if err != nil {
			t.Error(err)
		}
		second <- run
	}()
	if other := <-waitingFor; other.ID != first.ID || other.Job != BackfillJob || other.Status != repo.RunRunning {
		t.Errorf("it waits for %+v, want run %d", other, first.ID)
	}
	// The other kind and the other app are not in the way.
	w.ended(w.backfill(e, tencentApp, imclient.KindPresence), repo.RunSucceeded)
	w.ended(w.backfill(e, openIMApp, imclient.KindAccounts), repo.RunSucceeded)
	select {
	case run := <-second:
		t.Fatalf("it did not wait, but started run %d", run.ID)
	default:
	}
	w.sim.ClearFault(fault)
	run := <-second
	// By the order of transactions, not by started_at: that time is taken before the
	// insert, which can wait for the end of the first run.
	if n := w.count(`SELECT count(*) FROM syncer.sync_run WHERE run_id = $1 AND status = 'succeeded'`, first.ID); n != 1 || run.ID <= first.ID {
		t.Errorf("run %d started before run %d had ended", run.ID, first.ID)
	}
	w.ended(w.wait(e, run), repo.RunSucceeded)
}

// TestBackfill_givesUpWaiting: somebody who waits may leave.
func TestBackfill_givesUpWaiting(t *testing.T) {
	t.Parallel()
	w := setup(t, worldOptions{users: 100})
	e := w.engine(w.spec())
	w.fault(imsim.Fault{Kind: imsim.FaultDelay, Delay: patience, Times: 1})
	run := w.start(e, tencentApp, imclient.KindAccounts)
	ctx, cancel := context.WithCancel(w.ctx)
	_, err := e.StartBackfill(ctx, Backfill{AppID: run.AppID, Kind: run.Kind, Waiting: func(repo.Run) { cancel() }})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("StartBackfill: %v, want the context's error", err)
	}
	seen, err := e.WaitRun(ctx, run, func(repo.Run) {})
	if !errors.Is(err, context.Canceled) || seen.Status != repo.RunRunning {
		t.Errorf("WaitRun: run %s, %v, want it running and the context's error", seen.Status, err)
	}
	if runs := w.count(`SELECT count(*) FROM syncer.sync_run`); runs != 1 {
		t.Errorf("%d runs", runs)
	}
}

// TestBackfill_resume: a backfill that was stopped goes on where it was, with
// another engine; one that went through is left alone.
func TestBackfill_resume(t *testing.T) {
	t.Parallel()
	w := setup(t, worldOptions{users: 6000})
	a := w.engine(w.slowSpec("a"))
	resume := func(e *testEngine) repo.Run {
		t.Helper()
		run, err := e.StartBackfill(w.ctx, Backfill{AppID: e.app(openIMApp).ID, Kind: imclient.KindAccounts, Resume: true})
		if err != nil {
			t.Fatal(err)
		}
		return run
	}
	stopped := resume(a) // there is nothing to resume: a new one
	w.underWay(a, stopped, 1000)
	if joined := resume(a); joined.ID != stopped.ID {
		t.Errorf("run %d is going, but run %d was started", stopped.ID, joined.ID)
	}
	w.stop(a, grace)
	if err := a.Cancel(w.ctx, stopped, "stopped by the operator"); err != nil {
		t.Fatal(err)
	}
	asked := w.sim.Stats().APIs[imsim.PathOpenIMAccounts].IDs
	cancelled := w.wait(a, stopped)
	if cancelled.Status != repo.RunCancelled || cancelled.Error != "stopped by the operator" || cancelled.Users != int64(asked) || asked >= 6000 {
		t.Errorf("%d users were asked about; the run: %+v", asked, cancelled)
	}
	b := w.engine(w.nextSpec("b"))
	resumed := resume(b)
	done := w.wait(b, resumed)
	w.ended(done, repo.RunSucceeded)
	if asked := w.sim.Stats().APIs[imsim.PathOpenIMAccounts].IDs; resumed.ID != stopped.ID || asked != 6000 || done.Users != 6000 || done.Changed != 6000 || done.Calls != w.calls() {
		t.Errorf("run %d, %d users were asked about, counters %+v", resumed.ID, asked, done.Counters)
	}
	w.truthful(accountTables, b.app(openIMApp), userIDs(6000))
	if again := resume(b); again.ID != stopped.ID || again.Status != repo.RunSucceeded {
		t.Errorf("run %d is %s; the one that went through was to be left alone", again.ID, again.Status)
	}
}

// TestBackfill_resumeForgotten: of a backfill stopped long ago nobody knows any
// more where it was. It must not pass for one that asked about everybody.
func TestBackfill_resumeForgotten(t *testing.T) {
	t.Parallel()
	w := setup(t, worldOptions{users: 6000})
	a := w.engine(w.slowSpec("a"))
	old := w.start(a, openIMApp, imclient.KindAccounts)
	w.underWay(a, old, 1000)
	w.stop(a, grace)
	if err := a.Cancel(w.ctx, old, "stopped"); err != nil {
		t.Fatal(err)
	}
	w.exec(`UPDATE syncer.sync_run SET started_at = started_at - $1::interval, finished_at = finished_at - $1::interval`, rangesKept+time.Minute)
	s := w.nextSpec("b")
	s.Rate = 5000
	b := w.engine(s)
	w.eventually("what is left of the run is dropped", func() bool { return w.count(`SELECT count(*) FROM syncer.sync_range`) == 0 })
	run, err := b.StartBackfill(w.ctx, Backfill{AppID: old.AppID, Kind: old.Kind, Resume: true})
	if err != nil {
		t.Fatal(err)
	}
	run = w.wait(b, run)
	w.ended(run, repo.RunSucceeded)
	if run.ID == old.ID || run.Users != 6000 {
		t.Errorf("run %d (the old one is %d) with counters %+v", run.ID, old.ID, run.Counters)
	}
}

// TestBackfill_listed: a backfill can be limited to users of a list, as far as
// they are in the users table.
func TestBackfill_listed(t *testing.T) {
	t.Parallel()
	w := setup(t, worldOptions{users: 2500})
	w.exec(`INSERT INTO public.users (id, uid) VALUES (9001, 'u000001'), (9002, NULL)`)
	s := w.spec()
	s.Range, s.Page = 300, 100
	e := w.engine(s)
	app := e.app(openIMApp)
	wanted := map[string]bool{"stranger": true, "": true}
	for n := 1; n <= 2500; n += 3 {
		wanted[userID(n)] = true
	}
	found, missing, err := e.MatchListed(w.ctx, app.ID, wanted)
	if err != nil || len(found) != len(wanted)-2 || missing != 2 {
		t.Fatalf("%d found, %d missing, %v; want %d and 2", len(found), missing, err, len(wanted)-2)
	}
	run, err := e.StartBackfill(w.ctx, Backfill{AppID: app.ID, Kind: imclient.KindPresence, Listed: found})
	if err != nil {
		t.Fatal(err)
	}
	run = w.wait(e, run)
	w.ended(run, repo.RunSucceeded)
	if run.Users != int64(len(found)) || !run.Listed {
		t.Errorf("the run: %+v", run)
	}
	w.truthful(presenceTables, app, found)
	// The run looked at no other user and records nothing about them.
	if n := w.count(`SELECT (SELECT count(*) FROM syncer.sync_run WHERE complete) + (SELECT count(*) FROM syncer.presence_count)`); n != 0 {
		t.Errorf("a run limited to a list passes for a complete one")
	}
	empty, err := e.StartBackfill(w.ctx, Backfill{AppID: app.ID, Kind: imclient.KindPresence, Listed: []string{}})
	if err != nil {
		t.Fatal(err)
	}
	if empty = w.wait(e, empty); empty.Status != repo.RunSucceeded || empty.Users != 0 {
		t.Errorf("the run over nobody: %+v", empty)
	}
}

// TestTwoApps: one engine sweeps both kinds of two apps, one of each provider,
// over the same users table, all at once. What a complete presence run counts
// equals what its snapshot holds.
func TestTwoApps(t *testing.T) {
	t.Parallel()
	const users = 3000
	w := setup(t, worldOptions{users: users, change: 0.2})
	e := w.engine(w.spec())
	for round := range 3 {
		w.rounds.SetRound(round)
		var runs []repo.Run
		for provider := range e.apps {
			for _, kind := range imclient.Kinds() {
				runs = append(runs, w.start(e, provider, kind))
			}
		}
		for _, run := range runs {
			if run = w.wait(e, run); run.Status != repo.RunSucceeded && run.Status != repo.RunPartial || run.Users != users {
				t.Errorf("the run: %+v", run)
			}
		}
	}
	for _, app := range e.apps {
		for _, k := range bothTables {
			w.truthful(k, app, userIDs(users))
		}
	}
	// OpenIM knows no failing user, so that its last count is the snapshot's.
	type counted struct {
		State, Platform string
		Users           int64
	}
	app := e.app(openIMApp)
	got := query(w, pgx.RowToStructByPos[counted], `
SELECT state::text, platform, users FROM syncer.presence_count
WHERE app_id = $1 AND run_id = (SELECT max(run_id) FROM syncer.presence_count WHERE app_id = $1) ORDER BY 1, 2`, app.ID)
	want := query(w, pgx.RowToStructByPos[counted], `
SELECT state::text, platform, count(*)
FROM syncer.presence_snapshot, LATERAL (SELECT 'all' UNION ALL SELECT jsonb_object_keys(platforms)) AS p (platform)
WHERE app_id = $1 GROUP BY 1, 2 ORDER BY 1, 2`, app.ID)
	if diff := cmp.Diff(want, got); diff != "" || len(got) < 6 {
		t.Errorf("presence_count (-snapshot +counted):\n%s", diff)
	}
}
