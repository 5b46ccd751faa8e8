package e2e

import (
	"strings"
	"testing"
)

// TestStopsByItself: nothing in a daemon has to be cut off for it to end: with a
// grace longer than the test lasts it ends, amid a sweep and at rest.
func TestStopsByItself(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{users: 2000, config: everySecond})
	w.run(exitDone, "migrate", "up")
	env := []string{"SYNCER_SWEEP_STOP_GRACE=10m", "SYNCER_APPS_MAIN_TENCENT_PRESENCE_RATE=2", "SYNCER_SWEEP_PAGE_USERS=100", "SYNCER_SWEEP_RANGE_USERS=200"}
	amid := w.daemon(env...)
	w.begun()
	amid.stop()
	w.wantSQL("running", `SELECT status FROM syncer.sync_run ORDER BY run_id LIMIT 1`)
	env = append(env, "SYNCER_APPS_MAIN_TENCENT_PRESENCE_RATE=100", "SYNCER_JOBS_PRESENCE_SCHEDULE=@yearly")
	atRest := w.daemon(env...)
	w.waitSQL("0", running)
	atRest.stop()
	for _, p := range []*process{amid, atRest} {
		if !strings.HasSuffix(p.stderr.String(), `"message":"stopped"}`+"\n") {
			t.Errorf("it did not end by itself:\n%s", p.stderr.String())
		}
	}
	w.truthful()
}
