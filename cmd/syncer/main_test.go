package main

import (
	"flag"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"syncer/internal/dev/pgtest"
)

var update = flag.Bool("update", false, "write what the commands print into the scripts of testdata/script")

// TestMain lets the test binary stand in for syncer: it is found in PATH by that
// name, by scripts and by world.start.
func TestMain(m *testing.M) {
	testscript.Main(tests{pgtest.M{M: m}}, map[string]func(){"syncer": main})
}

// tests are run four at once: most wait most of the time, for calls, ticks and
// signs of life.
type tests struct{ pgtest.M }

func (m tests) Run() int {
	flag.Parse()
	if err := flag.Set("test.parallel", "4"); err != nil {
		panic(err)
	}
	return m.M.Run()
}
