//go:build long

package e2e

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"syncer/internal/imsim"
)

// skewEnv names the file that says by how many seconds the clock of a program made
// by skewedProgram is wrong: eight bytes, which the program looks at all the time.
const skewEnv = "SYNCER_TEST_CLOCK_SKEW_FILE"

// skew sets the clock of the program that looks at a file of the world's folder.
func (w *world) skew(file, by string) {
	w.t.Helper()
	d, err := time.ParseDuration(by)
	if err != nil {
		w.t.Fatal(err)
	}
	f, err := os.OpenFile(filepath.Join(w.dir, file), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Close()
	// The same file, not another one in its place: it is mapped into memory.
	if _, err := f.WriteAt(binary.NativeEndian.AppendUint64(nil, uint64(d/time.Second)), 0); err != nil {
		w.t.Fatal(err)
	}
}

// TestLongSkew: three daemons, the clock of one five seconds behind and of one
// an hour ahead, share ticks, work and limit as if all were right.
func TestLongSkew(t *testing.T) {
	program := skewedProgram(t)
	f := newFleet(t, fleetOptions{limit: 100, rate: 90, page: 100, worldOptions: worldOptions{users: 4000, config: everySecond, patience: longPatience}})
	f.program = program
	for _, skew := range []string{"-5s", "0s", "1h"} {
		f.skew("skew"+skew, skew)
		p := f.daemon(append(f.env, skewEnv+"=skew"+skew)...)
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

// TestLongClockJumps: the clocks of two daemons jump while they work, by an hour
// ahead and by an hour back, and are put right again. Ticks are neither missed nor
// doubled, the times in the tables are the database's, as are those of the
// signatures: none is refused.
func TestLongClockJumps(t *testing.T) {
	program := skewedProgram(t)
	f := newFleet(t, fleetOptions{limit: 100, rate: 90, page: 100, worldOptions: worldOptions{users: 4000, config: everySecond, patience: longPatience}})
	f.program = program
	files := []string{"first", "second"}
	for _, file := range files {
		f.skew(file, "0s")
		f.processes = append(f.processes, f.daemon(append(f.env, skewEnv+"="+file)...))
	}
	begun := f.text(`SELECT clock_timestamp()::text`)
	f.sweepOften(1)
	for _, skews := range [][]string{{"1h", "-1h"}, {"-1h", "1h"}, {"1h", "1h"}, {"-1h", "-1h"}, {"0s", "0s"}} {
		for i, file := range files {
			f.skew(file, skews[i])
		}
		f.sweepOften(1)
		for i, p := range f.processes {
			f.wrongBy(p, skews[i])
		}
		// As in TestLongSkew, ranges are put off.
		id, err := f.sim.AddFault(imsim.Fault{Kind: imsim.FaultStatus, Status: 502})
		if err != nil {
			t.Fatal(err)
		}
		f.waitSQL("true", `SELECT count(*) > 0 FROM syncer.river_job WHERE array_length(errors, 1) > 0 AND state IN ('available', 'scheduled', 'retryable')`)
		f.sim.ClearFault(id)
		f.sweepOften(2)
	}
	// By its clock a signature would be too old when it is made.
	f.skew("third", "-192h")
	late := f.daemon(append(f.env, skewEnv+"=third")...)
	f.processes = append(f.processes, late)
	f.change()
	f.eventually("the third has written pages", func() bool { return late.pages() > 0 })
	f.stop()
	f.finish()
	t.Logf("ticks were begun after at most %s", f.text(`SELECT max(started_at - tick)::text FROM syncer.sync_run`))
	f.everyTick()
	f.kept(100)
	for _, times := range []string{
		`SELECT least(min(started_at), min(finished_at)), greatest(max(started_at), max(finished_at)) FROM syncer.sync_run`,
		`SELECT min(observed_at), max(observed_at) FROM syncer.presence_history`,
		`SELECT min(asked_at), max(changed_at) FROM syncer.presence_snapshot`,
	} {
		f.wantSQL("true", `SELECT t.min >= $1::timestamptz - interval '1 second' AND t.max <= clock_timestamp() + interval '1 second' FROM (`+times+`) AS t (min, max)`, begun)
	}
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
	lines := strings.Split(strings.TrimSpace(p.stderr.String()), "\n")
	last := lines[len(lines)-1]
	if err := json.Unmarshal([]byte(last), &line); err != nil {
		f.t.Fatalf("%v: %s", err, last)
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
	patched := strings.Replace(string(text), "func Now() Time {\n"+now, "func Now() Time {\n"+now+"\tsec += atomic.LoadInt64(skewSeconds)\n", 1)
	patched = strings.Replace(patched, "import (\n", "import (\n\t\"sync/atomic\"\n\t\"syscall\"\n", 1)
	patched = strings.Replace(patched, `_ "unsafe"`, `"unsafe"`, 1)
	// Now may be called where no system call can be made.
	patched += fmt.Sprintf(`
// skewSeconds is by how much the wall clock is wrong.
var skewSeconds = func() *int64 {
	name, ok := syscall.Getenv(%q)
	if !ok {
		return new(int64)
	}
	fd, err := syscall.Open(name, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		panic(err)
	}
	defer syscall.Close(fd)
	page, err := syscall.Mmap(fd, 0, 8, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		panic(err)
	}
	return (*int64)(unsafe.Pointer(&page[0]))
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
	build := exec.Command("go", "build", "-buildvcs=false", "-overlay", filepath.Join(dir, "overlay.json"), "-o", program, "syncer/cmd/syncer")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build syncer with a wrong clock: %v\n%s", err, out)
	}
	return program
}
