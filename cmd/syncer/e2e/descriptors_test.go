package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// descriptors sets how many file descriptors a process may have open.
func (p *process) descriptors(limit int) {
	p.world.t.Helper()
	// Only the soft limit: what is above it was allowed to open before stays open.
	out, err := exec.Command("prlimit", "--pid", p.pid(), fmt.Sprintf("--nofile=%d:", limit)).CombinedOutput()
	if err != nil {
		p.world.t.Fatalf("prlimit: %v: %s", err, out)
	}
}

// noDescriptors is what the system says.
const noDescriptors = "too many open files"

// patientGap: no process sweeps for longer than three ticks here. A user whom the
// backend has forgotten meanwhile would rightly be recorded as rejected.
const patientGap = "SYNCER_SWEEP_MAX_GAP=5m"

// TestNoDescriptors: a daemon that may open nothing any more, while its connections
// to the database are lost, says so, stays, and goes on by itself when it may again.
func TestNoDescriptors(t *testing.T) {
	t.Parallel()
	const users = 1000
	w := newWorld(t, worldOptions{users: users, change: 0.1, config: everySecond})
	w.run(exitDone, "migrate", "up")
	p := w.daemon("SYNCER_LOG_LEVEL=info", patientGap)
	w.waitSQL("true", `SELECT count(*) > 0 FROM syncer.sync_run WHERE status = 'partial'`)

	p.descriptors(3)
	w.rounds.SetRound(1)
	const endSQL = `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'syncer %'`
	w.exec(endSQL)
	p.said(noDescriptors)
	// Somebody comes for metrics, and is let wait.
	address := strings.TrimPrefix(p.admin(), "http://")
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	p.said(`"error":"http: Accept error: accept tcp ` + address + `: accept4: ` + noDescriptors)
	const outage = 8 * time.Second
	until := time.Now().Add(outage)
	w.eventually("the outage is over", func() bool { return time.Now().After(until) })
	if !p.lives() {
		t.Fatalf("it ended\n%s", p.stderr.String())
	}
	// Not a line for each of the many tries.
	n := strings.Count(p.stderr.String(), noDescriptors)
	t.Logf("%d lines about it within %s", n, outage)
	if n > 30 {
		t.Errorf("it said %d times within %s that it can open nothing\n%s", n, outage, p.stderr.String())
	}

	p.descriptors(1024)
	last := w.text(`SELECT max(run_id) FROM syncer.sync_run`)
	w.waitSQL("true", `SELECT count(*) > 0 FROM syncer.sync_run WHERE run_id > $1 AND status = 'partial'`, last)
	w.eventually("it is ready", func() bool { status, _ := w.get(p.admin() + "/readyz"); return status == 200 })
	p.stop()
	w.truthful()
	// The stop may have met a run; it stays open for the next start.
	w.wantSQL("0", `SELECT count(*) FROM syncer.sync_run WHERE status = 'failed'`)
}

// TestFewDescriptors: with too few descriptors to start, the daemon says so and
// ends. With enough to start and too few for what it is to do, it says so, stays, and
// stops in good order. With enough of them the next one goes on.
func TestFewDescriptors(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{users: 1000, change: 0.1, config: everySecond})
	w.run(exitDone, "migrate", "up")
	p := w.barelyStarts()
	p.said(noDescriptors)
	w.waitSQL("true", `SELECT count(*) >= 3 FROM syncer.sync_run`)
	p.stop()
	if n := strings.Count(p.stderr.String(), noDescriptors); n > 10 {
		t.Errorf("it said %d times that it can open nothing\n%s", n, p.stderr.String())
	}
	p = w.daemon(patientGap)
	w.waitSQL("true", `SELECT count(*) > 1 FROM syncer.sync_run WHERE complete`)
	p.stop()
	w.wantSQL("0", `SELECT count(*) FROM syncer.sync_run WHERE status = 'failed'`)
	w.truthful()
}

// barelyStarts returns a daemon with so few descriptors that with one less it does
// not start. How many that are depends on what else the system has a program open.
func (w *world) barelyStarts() *process {
	w.t.Helper()
	program, err := exec.LookPath("syncer")
	if err != nil {
		w.t.Fatal(err)
	}
	whole := w.program
	defer func() { w.program = whole }()
	for limit := 10; ; limit++ {
		w.program = filepath.Join(w.dir, fmt.Sprintf("with-%d", limit))
		if err := os.WriteFile(w.program, fmt.Appendf(nil, "#!/bin/sh\nulimit -n %d\nexec %s \"$@\"\n", limit, program), 0o700); err != nil {
			w.t.Fatal(err)
		}
		p := w.start("SYNCER_LOG_LEVEL=info", patientGap, "run")
		ended := false
		w.eventually("it runs or ends", func() bool {
			select {
			case <-p.gone:
				ended = true
			default:
			}
			return ended || strings.Contains(p.stderr.String(), `"message":"running"`)
		})
		if !ended {
			return p
		}
		_, stderr := p.wait(exitFailed)
		wantText(w.t, stderr, noDescriptors)
	}
}
