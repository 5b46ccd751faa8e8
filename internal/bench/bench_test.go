package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestBench_stopped: a signal ends it at any time, here in the first step.
func TestBench_stopped(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var progress, stdout bytes.Buffer
	b := newBench(options{users: smokeUsers, runs: 1, out: filepath.Join(t.TempDir(), "out"), syncer: "syncer"}, &progress)
	if err := b.run(ctx, &stdout); err == nil {
		t.Errorf("measured although it was stopped:\n%s", stdout.String())
	}
	left, err := os.ReadDir(temp)
	if err != nil {
		t.Fatal(err)
	}
	if len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestInterval: there is time between two sweeps to change what is served.
func TestInterval(t *testing.T) {
	for _, test := range []struct {
		users, perSecond int
		want             time.Duration
	}{
		{100, 45_000, time.Second},
		{100_000, 100_000, 2 * time.Second},
		{1_000_000, 100_000, 12 * time.Second},
		{10_000_000, 100_000, 115 * time.Second},
	} {
		if got := interval(test.users, test.perSecond); got != test.want {
			t.Errorf("%d users at %d a second: every %s, want %s", test.users, test.perSecond, got, test.want)
		}
	}
}
