package jobs

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"syncer/imclient"
	"syncer/internal/imsim"
	"syncer/repo"
)

// engineEnv holds the engineSpec of a process that is to be an engine and
// nothing else, so that one can be killed or frozen.
const engineEnv = "SYNCER_JOBS_TEST_ENGINE"

// runEngineProcess is such a process; SIGTERM stops it. It returns the exit code.
func runEngineProcess(spec string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := engineProcess(ctx, spec); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func engineProcess(ctx context.Context, spec string) error {
	var s engineSpec
	if err := json.Unmarshal([]byte(spec), &s); err != nil {
		return err
	}
	e, err := newTestEngine(ctx, s, zerolog.New(os.Stderr))
	if err != nil {
		return err
	}
	defer e.close()
	if err := e.Start(ctx); err != nil {
		return err
	}
	<-ctx.Done()
	stopCtx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	return e.Stop(stopCtx)
}

// process starts an engine in a process of its own.
func (w *world) process(s engineSpec) *exec.Cmd {
	w.t.Helper()
	spec, err := json.Marshal(s)
	if err != nil {
		w.t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		w.t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), engineEnv+"="+string(spec))
	cmd.Stderr = w.log
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		_ = cmd.Process.Kill() // if it is still there
		_ = cmd.Wait()
	})
	return cmd
}

// client makes an engine that does not work: it starts and watches runs.
func (w *world) client(s engineSpec) *testEngine {
	w.t.Helper()
	e, err := newTestEngine(w.ctx, s, w.log.logger())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(e.close)
	return e
}

// underWay waits until a run has swept some users.
func (w *world) underWay(e *testEngine, run repo.Run, users int64) {
	w.t.Helper()
	w.eventually("the run is under way", func() bool {
		now, err := e.store.FindRun(w.ctx, run.ID)
		if err != nil {
			w.t.Fatal(err)
		}
		return now.Users >= users
	})
}

// slowSpec is an engine that takes 12 seconds for 6,000 accounts, so that a test
// can act meanwhile.
func (w *world) slowSpec(process string) engineSpec {
	s := w.nextSpec(process)
	s.Rate = 5
	return s
}

// nextSpec is an engine that goes on where one of slowSpec was stopped.
func (w *world) nextSpec(process string) engineSpec {
	s := w.spec()
	s.Process, s.Rate, s.Batch, s.Range, s.Page, s.RescueAfter = process, 400, 100, 1000, 200, 3*time.Second
	return s
}

// TestKilled: a process is killed in the middle of a run. Another one takes the
// run over and goes on after the last pages written; no transition is lost or
// doubled.
func TestKilled(t *testing.T) {
	t.Parallel()
	for _, provider := range []imclient.Provider{tencentApp, openIMApp} {
		t.Run(string(provider), func(t *testing.T) {
			t.Parallel()
			w := setup(t, worldOptions{users: 6000})
			other := w.client(w.nextSpec("survivor"))
			victim := w.process(w.slowSpec("victim"))
			run := w.start(other, provider, imclient.KindAccounts)
			w.underWay(other, run, 1500)
			if err := victim.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = victim.Wait()
			swept, err := other.store.FindRun(w.ctx, run.ID)
			if err != nil || swept.Status != repo.RunRunning || swept.Users >= 6000 {
				t.Fatalf("the run was not to be through: %+v, %v", swept, err)
			}
			if err := other.Start(w.ctx); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { w.stop(other, grace) })
			run = w.wait(other, run)
			w.ended(run, repo.RunSucceeded)
			if run.Users != 6000 || run.Changed != 6000 {
				t.Errorf("counters %+v", run.Counters)
			}
			w.truthful(accountTables, other.app(provider), userIDs(6000))
			// Only pages that were in flight when the victim died were asked about
			// twice: two ranges with a page being saved, one waiting, one being read.
			path := simPaths[accountTables.served[provider]]
			if ids := w.sim.Stats().APIs[path].IDs; ids > 6000+2*4*200 {
				t.Errorf("%d users were asked about: the ranges were begun anew", ids)
			}
		})
	}
}

// TestFrozen: a process freezes while it waits for an answer, which arrives and
// lies there. Meanwhile another process takes the range over and sees that
// nobody has changed (again), so that it writes nothing by which the snapshots
// could tell. The frozen one wakes up, reads its stale answer and writes nothing
// either, whether the run is closed by then or only the range is done.
func TestFrozen(t *testing.T) {
	t.Parallel()
	for _, runGoesOn := range []bool{false, true} {
		t.Run(fmt.Sprintf("run goes on %t", runGoesOn), func(t *testing.T) {
			t.Parallel()
			testFrozen(t, runGoesOn)
		})
	}
}

func testFrozen(t *testing.T, runGoesOn bool) {
	const users = 400
	w := setup(t, worldOptions{users: 2 * users, change: 0.5})
	w.rounds.AccountShare = 0
	s := w.spec()
	s.Range, s.Workers, s.RescueAfter, s.Timeout = users, 1, 3*time.Second, patience
	sleeper, other := s, s
	sleeper.Process, other.Process = "sleeper", "other"
	first := w.engine(s)
	w.ended(w.backfill(first, tencentApp, imclient.KindPresence), repo.RunSucceeded)
	w.stop(first, grace)
	app := first.app(tencentApp)
	histories, snapshots := w.history(presenceTables, app.ID), w.snapshot(presenceTables, app.ID)

	w.rounds.SetRound(1)
	b := w.client(other)
	fault := w.fault(imsim.Fault{Kind: imsim.FaultDelay, Delay: patience, Times: 1})
	frozen := w.process(sleeper)
	run := w.start(b, tencentApp, imclient.KindPresence)
	w.eventually("the sleeper has asked about the first range", func() bool { return w.hits(fault) == 1 })
	send(t, frozen, syscall.SIGSTOP)
	w.sim.ClearFault(fault)
	w.eventually("the sleeper is answered", func() bool { return w.stale(users) > users/4 })

	w.rounds.SetRound(0)
	if runGoesOn {
		fault = w.fault(imsim.Fault{Kind: imsim.FaultDelay, Delay: patience, IDs: []string{userID(2 * users)}})
		other.Workers = 2
		b = w.client(other)
	}
	if err := b.Start(w.ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.stop(b, grace) })
	if runGoesOn {
		w.underWay(b, run, users)
	} else {
		w.ended(w.wait(b, run), repo.RunSucceeded)
	}
	send(t, frozen, syscall.SIGCONT)
	send(t, frozen, syscall.SIGTERM)
	if err := frozen.Wait(); err != nil {
		t.Errorf("the sleeper did not end well: %v\n%s", err, w.log.tail())
	}
	if diff := cmp.Diff(histories, w.history(presenceTables, app.ID)); diff != "" {
		t.Errorf("the sleeper has changed the history:\n%s", diff)
	}
	if diff := cmp.Diff(snapshots, w.snapshot(presenceTables, app.ID)); diff != "" {
		t.Errorf("the sleeper has changed snapshots:\n%s", diff)
	}
	w.sim.ClearFaults()
	run = w.wait(b, run)
	w.ended(run, repo.RunSucceeded)
	if run.Users != 2*users || run.Changed != 0 {
		t.Errorf("counters %+v", run.Counters)
	}
}

// stale is how many of the first users were served another value since the first.
func (w *world) stale(users int) (n int) {
	for _, id := range userIDs(users) {
		if len(w.sim.Served(imsim.TencentPresence, id)) > 1 {
			n++
		}
	}
	return n
}

// send sends a signal to a process.
func send(t *testing.T, cmd *exec.Cmd, sig syscall.Signal) {
	t.Helper()
	if err := cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}
