package jobs

import (
	"testing"
	"time"

	"syncer/imclient"
	"syncer/internal/imsim"
	"syncer/jobs/ask"
	"syncer/repo"
)

// TestStop_soft: an engine that is stopped finishes the pages in flight. Another
// one goes on after them: nobody is asked about twice.
func TestStop_soft(t *testing.T) {
	t.Parallel()
	w := setup(t, worldOptions{users: 6000})
	a := w.engine(w.slowSpec("a"))
	run := w.start(a, openIMApp, imclient.KindAccounts)
	w.underWay(a, run, 1000)
	w.stop(a, grace)
	swept, err := a.store.FindRun(w.ctx, run.ID)
	if err != nil {
		t.Fatal(err)
	}
	if ids := w.sim.Stats().APIs[imsim.PathOpenIMAccounts].IDs; int64(ids) != swept.Users || ids == 6000 {
		t.Errorf("%d users were asked about, %d written", ids, swept.Users)
	}
	b := w.engine(w.nextSpec("b"))
	run = w.wait(b, run)
	w.ended(run, repo.RunSucceeded)
	if ids := w.sim.Stats().APIs[imsim.PathOpenIMAccounts].IDs; ids != 6000 || run.Users != 6000 || run.Calls != w.calls() {
		t.Errorf("%d users were asked about; counters %+v", ids, run.Counters)
	}
	w.truthful(accountTables, b.app(openIMApp), userIDs(6000))
}

// TestStop_hard: when the grace is over, calls in flight are cancelled and the
// ranges given back; nothing waits for a rescue.
func TestStop_hard(t *testing.T) {
	t.Parallel()
	w := setup(t, worldOptions{users: 6000})
	s := w.slowSpec("a")
	s.RescueAfter, s.Timeout = time.Hour, patience
	a := w.engine(s)
	fault := w.fault(imsim.Fault{Kind: imsim.FaultHang, After: 12})
	run := w.start(a, tencentApp, imclient.KindAccounts)
	w.underWay(a, run, 400)
	w.eventually("calls hang", func() bool { return w.hits(fault) > 2 })
	begin := time.Now()
	w.stop(a, 100*time.Millisecond)
	if took := time.Since(begin); took > grace {
		t.Errorf("the stop took %s", took)
	}
	w.sim.ClearFault(fault)
	s.Process = "b"
	b := w.engine(s)
	run = w.wait(b, run)
	w.ended(run, repo.RunSucceeded)
	// A call that the stop cancelled on its way is counted, but not seen.
	if seen := w.calls(); run.Users != 6000 || run.Changed != 6000 || run.Calls < seen || run.Calls > seen+ask.CallsAhead {
		t.Errorf("counters %+v, the API saw %d calls", run.Counters, seen)
	}
	w.truthful(accountTables, b.app(tencentApp), userIDs(6000))
}
