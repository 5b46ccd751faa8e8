package main

import (
	"flag"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"syncer/internal/pgtest"
)

var update = flag.Bool("update", false, "write what the commands print into the scripts of testdata/script")

// TestMain lets the test binary stand in for syncer: it is found in PATH by that
// name, by scripts and by world.start.
func TestMain(m *testing.M) {
	// Most tests wait most of the time, for calls, ticks and signs of life.
	flag.Parse()
	if err := flag.Set("test.parallel", "4"); err != nil {
		panic(err)
	}
	testscript.Main(pgtest.M{M: m}, map[string]func(){"syncer": main})
}
