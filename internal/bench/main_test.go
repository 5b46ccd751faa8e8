package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	for _, test := range []struct {
		args string
		want options
		text string
	}{
		{"", options{users: 1_000_000, out: "bin/bench-results", syncer: "bin/syncer", simulator: "bin/syncer", profiles: true}, ""},
		{"-only wal,memory -runs 7 -users 20000 -out x -syncer y -simulator z -profiles=false", options{only: []string{"wal", "memory"}, runs: 7, users: 20_000, out: "x", syncer: "y", simulator: "z"}, ""},
		{"-smoke", options{smoke: true, users: smokeUsers, runs: smokeRuns, out: "bin/bench-results", syncer: "bin/syncer", simulator: "bin/syncer", profiles: true}, ""},
		{"-only wall", options{}, "bench: -only wall: there is no such scenario; see -list\n"},
		{"-users 99", options{}, "bench: -users 99: want 10000 to 10000000\n"},
		{"-runs -1", options{}, "bench: -runs -1: want 1 or more\n"},
		{"steady", options{}, "bench: bench takes no argument \"steady\"\n"},
	} {
		var stderr bytes.Buffer
		got, err := parse(strings.Fields(test.args), &stderr)
		if diff := cmp.Diff(test.text, stderr.String()); diff != "" {
			t.Errorf("bench %s says (-want +got):\n%s", test.args, diff)
		}
		if err != nil {
			continue
		}
		if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(options{})); diff != "" {
			t.Errorf("bench %s (-want +got):\n%s", test.args, diff)
		}
	}
}

func TestList(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := run([]string{"-list"}, &stdout, &stderr); code != exitDone || stderr.Len() > 0 {
		t.Fatalf("exit code %d\n%s", code, stderr.String())
	}
	var listed, want []string
	for line := range strings.Lines(stdout.String()) {
		listed = append(listed, strings.Fields(line)[0])
	}
	for _, s := range scenarios {
		want = append(want, s.name)
	}
	if diff := cmp.Diff(want, listed); diff != "" {
		t.Errorf("listed (-want +got):\n%s", diff)
	}
}
