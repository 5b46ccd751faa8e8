//go:build long

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"syncer/imclient/imsim"
)

// skewEnv is by how much the clock of a program made by skewedProgram is wrong.
const skewEnv = "SYNCER_TEST_CLOCK_SKEW"

// TestLongSkew: three daemons, the clock of one five seconds behind and of one
// an hour ahead, share ticks, work and limit as if all were right.
func TestLongSkew(t *testing.T) {
	program := skewedProgram(t)
	f := newFleet(t, fleetOptions{limit: 100, rate: 90, page: 100, worldOptions: worldOptions{users: 4000, config: everySecond, patience: longPatience}})
	f.program = program
	for _, skew := range []string{"-5s", "0s", "1h"} {
		p := f.daemon(append(f.env, skewEnv+"="+skew)...)
		f.processes = append(f.processes, p)
		f.wrongBy(p, skew)
	}
	// A hiccup of the backend that is longer than a batch's patience puts ranges
	// off, which is the queue's to do and its clients' to say until when.
	id, err := f.sim.AddFault(imsim.Fault{Kind: imsim.FaultStatus, Status: 502})
	if err != nil {
		t.Fatal(err)
	}
	f.eventually("every process has put a range off", func() bool {
		for _, p := range f.processes {
			if !strings.Contains(p.stderr.String(), "failed; it will be retried") {
				return false
			}
		}
		return true
	})
	if late := f.text(`SELECT coalesce(array_agg(state || ' for ' || (scheduled_at - clock_timestamp())), '{}')::text FROM syncer.river_job WHERE scheduled_at > clock_timestamp() + interval '3 minutes'`); late != "{}" {
		t.Errorf("ranges are put off by more than any retry: %s", late)
	}
	f.sim.ClearFault(id)
	f.sweepOften(5)
	f.stop()
	t.Logf("pages of each: %s", f.shares())
	t.Logf("ticks were begun after at most %s", f.text(`SELECT max(started_at - tick)::text FROM syncer.sync_run`))
	f.everyTick()
	f.kept(100)
}

// wrongBy checks that a process' clock is as wrong as it is meant to be: by the
// time of a line of its log.
func (f *fleet) wrongBy(p *process, skew string) {
	f.t.Helper()
	want, err := time.ParseDuration(skew)
	if err != nil {
		f.t.Fatal(err)
	}
	var line struct{ Time time.Time }
	first, _, _ := strings.Cut(p.stderr.String(), "\n")
	if err := json.Unmarshal([]byte(first), &line); err != nil {
		f.t.Fatalf("%v: %s", err, first)
	}
	if off := time.Until(line.Time); off < want-4*time.Second || off > want+time.Second {
		f.t.Fatalf("a clock that is to be wrong by %s is wrong by %s", skew, off)
	}
}

// skewedProgram builds syncer with a time package whose wall clock is wrong by
// skewEnv.
func skewedProgram(t *testing.T) string {
	t.Helper()
	const now = "\tsec, nsec, mono := runtimeNow()\n"
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatalf("go env GOROOT: %v", err)
	}
	source := filepath.Join(strings.TrimSpace(string(root)), "src", "time", "time.go")
	text, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), "func Now() Time {\n"+now); n != 1 {
		t.Fatalf("%s: Now is not written as expected (%d places); change this test to how Go %s reads the clock", source, n, runtime.Version())
	}
	patched := strings.Replace(string(text), "func Now() Time {\n"+now, "func Now() Time {\n"+now+"\tsec += skewSeconds\n", 1)
	patched = strings.Replace(patched, "import (\n", "import (\n\t\"syscall\"\n", 1)
	patched += fmt.Sprintf(`
// skewSeconds is by how much the wall clock is wrong.
var skewSeconds = func() int64 {
	value, ok := syscall.Getenv(%q)
	if !ok {
		return 0
	}
	skew, err := ParseDuration(value)
	if err != nil {
		panic(err)
	}
	return int64(skew / Second)
}()
`, skewEnv)
	dir := t.TempDir()
	file := filepath.Join(dir, "time.go")
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {source: file}})
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{file: []byte(patched), filepath.Join(dir, "overlay.json"): overlay} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	program := filepath.Join(dir, "syncer")
	build := exec.Command("go", "build", "-buildvcs=false", "-overlay", filepath.Join(dir, "overlay.json"), "-o", program, ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build syncer with a wrong clock: %v\n%s", err, out)
	}
	return program
}
