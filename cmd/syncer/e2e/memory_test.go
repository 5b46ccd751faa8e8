package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"syncer/internal/imsim"
)

// unwatched is the program without the race detector, which takes several times
// the memory.
func (w *world) unwatched() string {
	w.t.Helper()
	program := filepath.Join(w.t.TempDir(), "syncer")
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-o", program, "syncer/cmd/syncer").CombinedOutput(); err != nil {
		w.t.Fatalf("go build: %v\n%s", err, out)
	}
	return program
}

// peak is the most memory that the process ever had resident, in MiB.
func (p *process) peak() (mib int) {
	p.world.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		p.world.t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &mib); n == 1 {
			return mib >> 10
		}
	}
	p.world.t.Fatal("/proc/PID/status has no VmHWM")
	return 0
}

// TestMemory_hostileAnswers: backends whose answers inflate to a thousand times
// their size, have no end, or come byte by byte and hold on to what they take,
// drive the memory of the daemon nowhere; a healthy app has all its ticks.
func TestMemory_hostileAnswers(t *testing.T) {
	t.Parallel()
	const crowd = "[apps.users]\ntable = \"public.crowd\"\nuser_id = \"uid\"\n"
	w := newFaultWorld(t, 100, 1000,
		&faulty{name: "inflates", rate: 1000, config: crowd, fault: imsim.Fault{Kind: imsim.FaultBomb}},
		&faulty{name: "has no end", rate: 1000, config: crowd, fault: imsim.Fault{Kind: imsim.FaultHuge}},
		&faulty{name: "byte by byte", rate: 1000, config: crowd, fault: imsim.Fault{Kind: imsim.FaultDrip}},
	)
	w.exec(`CREATE TABLE public.crowd (id bigint PRIMARY KEY, uid text)`)
	w.exec(`INSERT INTO public.crowd SELECT n, 'u' || n FROM generate_series(1, 7000) AS n`) // 64 calls at once
	w.program = w.unwatched()
	w.begin()
	jobs := ""
	for _, f := range w.faulty {
		for _, app := range []string{f.tencent(), f.openIM()} {
			for _, kind := range []string{"presence", "accounts"} {
				jobs += fmt.Sprintf("[[jobs]]\nname = \"%s-%s\"\nkind = %q\napp = %q\nschedule = \"@every 2s\"\n", app, kind, kind, app)
			}
		}
	}
	for _, app := range []string{"main", "chat"} {
		jobs += fmt.Sprintf("[[jobs]]\nname = %q\nkind = \"presence\"\napp = %q\nschedule = \"@every 30s\"\n", app, app)
	}
	w.addConfig(jobs)
	p := w.daemon("SYNCER_SWEEP_PAGE_USERS=100")
	w.eventually("dozens of answers have inflated", func() bool {
		return w.faulty[0].hits() >= 60 && w.faulty[1].hits() >= 20 && w.faulty[2].hits() >= 60
	})
	w.exec(`CREATE TABLE public.attacked AS SELECT clock_timestamp() AS at`)
	w.waitSQL("2", `
SELECT count(DISTINCT name) FROM syncer.sync_run JOIN syncer.app USING (app_id), public.attacked
WHERE name IN ('main', 'chat') AND status = 'succeeded' AND finished_at > attacked.at`)
	peak := p.peak()
	for _, f := range w.faulty {
		t.Logf("%s: %d answers", f.name, f.hits())
	}
	t.Logf("at most %d MiB resident", peak)
	if peak >= 200 {
		t.Errorf("%d MiB were resident", peak)
	}
	w.end()
	p.stop()
	// The run that the start catches up on may begin just before the next tick, which it
	// then keeps from having a run of its own.
	for _, run := range query(w.world, pgx.RowTo[string], `
SELECT concat_ws(' ', name, tick, status, error) FROM syncer.sync_run AS u JOIN syncer.app USING (app_id)
WHERE name IN ('main', 'chat') AND status NOT IN ('succeeded', 'running')
  AND NOT (status = 'skipped' AND tick = (SELECT min(tick) + interval '30 seconds' FROM syncer.sync_run AS first WHERE first.app_id = u.app_id))`) {
		t.Errorf("a run of a healthy app: %s", run)
	}
	w.wantSQL("0", `
SELECT count(*) FROM (
    SELECT tick - lag(tick) OVER (PARTITION BY app_id ORDER BY tick) AS step
    FROM syncer.sync_run JOIN syncer.app USING (app_id) WHERE name IN ('main', 'chat')
) AS ticks WHERE step <> interval '30 seconds'`)
}
