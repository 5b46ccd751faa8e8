package jobs

import (
	"flag"
	"os"
	"testing"

	"go.uber.org/goleak"

	"syncer/internal/dev/pgtest"
)

func TestMain(m *testing.M) {
	if spec := os.Getenv(engineEnv); spec != "" {
		os.Exit(runEngineProcess(spec)) // this is a process started by a test
	}
	// How many cases each lab of TestTruth tries, unless told: so many take most of
	// a minute of CPU time, more than any other test here.
	if err := flag.Set("rapid.checks", "30"); err != nil {
		panic(err)
	}
	// Most tests wait most of the time, for backoffs, rates and signs of life.
	flag.Parse()
	if err := flag.Set("test.parallel", "4"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(pgtest.M{M: m})
}
