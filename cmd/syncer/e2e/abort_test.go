package e2e

import (
	"fmt"
	"syscall"
	"testing"
)

// TestSecrets_abort: what a daemon prints that is ended as a watchdog ends it, the
// stacks of all that it was doing, holds no secret. The world looks for them when
// the test ends.
func TestSecrets_abort(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{dbURL: canaryDatabase(t), users: 200, change: 0.1, config: fmt.Sprintf(ticking, "1s", false)})
	w.run(exitDone, "migrate", "up")
	p := w.daemon("GOTRACEBACK=all")
	p.said(`"message":"run closed"`)
	p.signal(syscall.SIGABRT)
	_, stderr := p.wait(2)
	wantText(t, stderr, "SIGABRT: abort", "goroutine 1 ", "syncer/jobs.(*keeper)", "net/http")
}
