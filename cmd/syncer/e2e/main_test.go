// Package e2e tests the built program: scripts, daemons, fleets, and faults of the API, the
// database and the host. A test's world has a folder with a configuration, a database
// (internal/dev/pgtest) and a simulator (internal/imsim). Tests of functions are in
// cmd/syncer, beside them.
package e2e

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"syncer/internal/dev/pgtest"
)

// The program's exit codes.
const (
	exitDone    = 0 // done and complete
	exitFailed  = 1 // failed or stopped
	exitUsage   = 2 // wrong usage or configuration
	exitPartial = 3 // done, but some users failed
)

// reportNames are the names of the reports.
var reportNames = []string{"concurrency", "active-users", "sessions", "platforms", "accounts", "runs", "gaps", "all"}

var update = flag.Bool("update", false, "write what the commands print into the scripts of testdata/script")

// TestMain builds syncer, and puts it into PATH for scripts and world.start.
func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(runWithProgram(m))
}

func runWithProgram(m *testing.M) int {
	dir, err := os.MkdirTemp("", "syncer-e2e")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	args := []string{"build", "-buildvcs=false", "-o", filepath.Join(dir, "syncer"), "syncer/cmd/syncer"}
	if raceDetector {
		args = append([]string{"build", "-race"}, args[1:]...)
	}
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	// Four tests at once: most wait most of the time, for calls, ticks and heartbeats.
	err = errors.Join(os.Setenv("PATH", dir+string(filepath.ListSeparator)+os.Getenv("PATH")), flag.Set("test.parallel", "4"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return pgtest.Run(m)
}
