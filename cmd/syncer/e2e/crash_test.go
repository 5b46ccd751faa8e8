package e2e

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"syncer/internal/imsim"
)

// slowWorld has so many users that the first of two backfills takes 12 seconds, so that
// a test can act meanwhile: 50 pages, each a call of OpenIM's presence API, 4 a second.
// The second backfill is not held up.
func slowWorld(t *testing.T) (w *world, slow, fast []string) {
	t.Helper()
	w = newWorld(t, worldOptions{users: slowUsers, config: noJobs})
	w.run(exitDone, "migrate", "up")
	at := func(rate string) []string {
		return []string{"SYNCER_SWEEP_STOP_GRACE=10m", presenceRate + rate, "SYNCER_SWEEP_PAGE_USERS=100", "backfill", "--app", "chat", "--job", "presence"}
	}
	return w, at("4"), at("100")
}

const (
	slowUsers    = 5000
	presenceRate = "SYNCER_APPS_CHAT_OPENIM_PRESENCE_RATE="
)

// asked is how many user ids OpenIM's presence API was asked about.
func (w *world) asked() int { return w.sim.Stats().APIs[imsim.PathOpenIMPresence].IDs }

// begun waits until some users of a run have gone through, and some have not.
// Ticks that come meanwhile are runs of their own, which are skipped.
func (w *world) begun() {
	w.t.Helper()
	w.waitSQL("true", `SELECT sum(users) > 0 FROM syncer.sync_range`)
	w.wantSQL("1", `SELECT count(*) FROM syncer.sync_run WHERE status = 'running'`)
}

// TestStoppedBackfill: Ctrl-C lets pages in flight be written, and --resume goes
// on from there: no user is asked about twice.
func TestStoppedBackfill(t *testing.T) {
	t.Parallel()
	w, slow, fast := slowWorld(t)
	p := w.start(slow...)
	w.begun()
	p.signal(syscall.SIGINT)
	p.signal(syscall.SIGINT) // a terminal and a parent process may both send it
	stdout, stderr := p.wait(exitFailed)
	wantText(t, stdout, "cancelled", "chat presence: stopped by the operator")
	wantText(t, stderr, "stopping: finishing the pages in flight; Ctrl-C again ends at once",
		"syncer: stopped before the end: chat presence; continue with: syncer backfill --resume")
	w.wantSQL("cancelled", `SELECT status FROM syncer.sync_run`)
	asked := w.asked()
	if asked == 0 || asked >= slowUsers {
		t.Fatalf("%d users were asked about before the stop", asked)
	}
	w.wantSQL(fmt.Sprint(asked), `SELECT count(*) FROM syncer.presence_snapshot`)

	stdout, _ = w.run(exitDone, append(fast, "--resume")...)
	wantText(t, stdout, "succeeded  5,000")
	if all := w.asked(); all != slowUsers {
		t.Errorf("%d users were asked about in all, want %d", all, slowUsers)
	}
	w.wantSQL("1", `SELECT count(*) FROM syncer.sync_run`)
	w.wantSQL("5000", `SELECT count(*) FROM syncer.presence_history`)
}

// TestStopTwice: a second Ctrl-C, some time after the first, ends at once.
func TestStopTwice(t *testing.T) {
	t.Parallel()
	w, slow, _ := slowWorld(t)
	id, err := w.sim.AddFault(imsim.Fault{Kind: imsim.FaultHang})
	if err != nil {
		t.Fatal(err)
	}
	p := w.start(slow...)
	w.eventually("a call hangs", func() bool {
		faults := w.sim.Faults()
		return len(faults) == 1 && faults[0].ID == id && faults[0].Hits > 0
	})
	p.signal(syscall.SIGTERM)
	p.said("stopping")
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for {
		select {
		case <-p.gone:
			if code := p.cmd.ProcessState.ExitCode(); code != -1 {
				t.Errorf("it ended with %d, not by the signal", code)
			}
			return
		case <-again.C:
			_ = p.cmd.Process.Signal(syscall.SIGTERM) // fails when it has just ended
		case <-w.ctx.Done():
			t.Fatal("it does not end")
		}
	}
}

// TestKilledBackfill: a backfill that was killed goes on with --resume after its
// ranges are free again; only pages in flight are asked about twice.
func TestKilledBackfill(t *testing.T) {
	t.Parallel()
	w, slow, fast := slowWorld(t)
	p := w.start(slow...)
	w.begun()
	p.kill()
	w.wantSQL("running", `SELECT status FROM syncer.sync_run`)

	stdout, stderr := w.run(exitDone, append(fast, "--resume")...)
	wantText(t, stdout, "succeeded  5,000")
	wantText(t, stderr, "took over work whose worker gave no sign of life")
	if all := w.asked(); all >= slowUsers*3/2 {
		t.Errorf("%d users were asked about in all, of %d", all, slowUsers)
	}
	w.wantSQL("1", `SELECT count(*) FROM syncer.sync_run`)
	w.wantSQL("5000", `SELECT count(*) FROM syncer.presence_history`)
}

// TestTwoBackfills: the second waits for the first, says so, and works on it
// meanwhile.
func TestTwoBackfills(t *testing.T) {
	t.Parallel()
	w, slow, fast := slowWorld(t)
	// It ends when the second one waits for it, not before.
	held, err := w.sim.AddFault(imsim.Fault{Kind: imsim.FaultDelay, Delay: patience, IDs: []string{fmt.Sprintf("u%05d", slowUsers)}})
	if err != nil {
		t.Fatal(err)
	}
	first := w.start(append(slow, "--json")...)
	w.begun()
	second := w.start(append(fast, "--json")...)
	second.said("chat presence: waiting for run 1 to end (a backfill, since ")
	w.sim.ClearFault(held)
	first.wait(exitDone)
	stdout, stderr := second.wait(exitDone)
	wantText(t, stdout, `"run_id": 2`, `"changed": 0`)
	if n := strings.Count(stderr, "waiting for run"); n != 1 {
		t.Errorf("it said %d times that it waits", n)
	}
	w.wantSQL("2", `SELECT count(*) FROM syncer.sync_run WHERE status = 'succeeded' AND users = 5000`)
}

// TestOutage: while an API does not answer, the backfill goes on trying, and
// says so; when it is stopped and the API is back, --resume completes it.
func TestOutage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{users: 600, config: noJobs})
	w.run(exitDone, "migrate", "up")
	p := w.start("SYNCER_APPS_MAIN_TENCENT_BASE_URL=http://127.0.0.1:1", "backfill")
	p.said("failed; it will be retried")
	w.waitSQL("2", `SELECT count(*) FROM syncer.sync_run WHERE status = 'succeeded'`)
	p.signal(syscall.SIGINT)
	stdout, stderr := p.wait(exitFailed)
	wantText(t, stdout, "main presence: stopped by the operator")
	wantText(t, stderr, "connection refused", "stopped before the end: main presence, main accounts; continue with")

	// Hiccups are retried at once.
	if _, err := w.sim.AddFault(imsim.Fault{Kind: imsim.FaultStatus, Status: 502, Times: 2}); err != nil {
		t.Fatal(err)
	}
	stdout, _ = w.run(exitPartial, "backfill", "--resume", "--json")
	w.complete(stdout, 600)
	w.wantSQL("4", `SELECT count(*) FROM syncer.sync_run`)
	w.wantSQL("2", `SELECT count(*) FROM syncer.sync_run WHERE retries > 0`)
	w.truthful()
}
