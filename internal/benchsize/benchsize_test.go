package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestRun measures little: everything that is measured is there, and nothing else
// is left.
func TestRun(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	output := filepath.Join(t.TempDir(), "out", "size.md")
	var stdout, stderr bytes.Buffer
	if code := run([]string{"-users", "1000", "-sweeps", "1", "-output", output}, &stdout, &stderr); code != exitDone {
		t.Fatalf("exit code %d\n%s", code, stderr.String())
	}
	written, err := os.ReadFile(output)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(stdout.String(), string(written)); diff != "" {
		t.Errorf("the file differs from what is printed (-printed +file):\n%s", diff)
	}
	var measured []string
	for _, m := range regexp.MustCompile("(?m)^\\| (`\\w+`|\\d+ %) \\| .*[1-9]").FindAllStringSubmatch(stdout.String(), -1) {
		measured = append(measured, m[1])
	}
	want := []string{
		"`presence_snapshot`", "`presence_history`", "`presence_day`", "`account_snapshot`", "`account_history`", "`presence_count`", "`sync_run`",
		"0 %", "1 %", "5 %", "20 %", "1 %", "5 %", "20 %",
	}
	if diff := cmp.Diff(want, measured); diff != "" {
		t.Errorf("measured (-want +got):\n%s\n%s", diff, stdout.String())
	}
	left, err := filepath.Glob(filepath.Join(temp, "*"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string(nil), left); diff != "" {
		t.Errorf("left behind (-want +got):\n%s", diff)
	}
}

// TestRun_stopped: a signal ends it at any time, here in the first step.
func TestRun_stopped(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b := &bench{options: options{users: 1000, sweeps: 1}, progress: &bytes.Buffer{}}
	if err := b.run(ctx, &bytes.Buffer{}); err == nil {
		t.Error("measured although it was stopped")
	}
	left, err := os.ReadDir(temp)
	if err != nil {
		t.Fatal(err)
	}
	if len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
