package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// figures are what differs between runs and machines.
var figures = regexp.MustCompile(`\d[\d,.]* (ms|s|MB)\b`)

// TestRun measures a small history: everything that is measured is there, and
// nothing else is left.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	syncer := filepath.Join(dir, "syncer")
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-o", syncer, "syncer/cmd/syncer").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	output := filepath.Join(dir, "out", "table.md")
	page := filepath.Join("..", "..", "docs", "reporting.md")
	var stdout, stderr bytes.Buffer
	if code := run([]string{"-users", "1000", "-days", "8", "-repeat", "1", "-lenient", "-syncer", syncer, "-page", page, "-output", output}, &stdout, &stderr); code != exitDone {
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
	for line := range strings.Lines(stdout.String()) {
		cells := strings.Split(strings.TrimSpace(line), " | ")
		if len(cells) == 7 && figures.MatchString(cells[3]) {
			measured = append(measured, cells[1])
		}
	}
	want := []string{"the whole history, a week a transaction", "a day, as maintenance does it after each"}
	for _, arguments := range reports {
		want = append(want, "`"+arguments+"`")
	}
	for _, query := range queries {
		want = append(want, query.what)
	}
	for _, query := range queries {
		if withDefaults[query.what] {
			want = append(want, query.what)
		}
	}
	documented, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, question := range readQuestions(string(documented)) {
		want = append(want, question.heading)
	}
	want = append(want, "an hour of sweeps: runs, counts and transitions", "the same without the indexes for reports")
	if diff := cmp.Diff(want, measured); diff != "" {
		t.Errorf("measured (-want +got):\n%s", diff)
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
	b := &bench{options: options{users: 1000, days: 8, repeat: 1}, progress: &bytes.Buffer{}}
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

// TestTargets: a median above its target counts, one at it or without any does not.
func TestTargets(t *testing.T) {
	var r result
	for _, row := range []timing{
		{what: "none", times: []time.Duration{time.Hour}},
		{what: "met", target: time.Second, times: []time.Duration{time.Hour, time.Second, 0}},
		{what: "missed", target: time.Second, times: []time.Duration{0, 2 * time.Second, 2 * time.Second}},
	} {
		r.add(row)
	}
	var got []string
	for _, row := range r.rows {
		got = append(got, row.verdict())
	}
	if diff := cmp.Diff([]string{"", "pass", "short"}, got); diff != "" {
		t.Errorf("verdicts (-want +got):\n%s", diff)
	}
	if missed := r.missed(); missed != 1 {
		t.Errorf("missed = %d, want 1", missed)
	}
}

func TestReadQuestions(t *testing.T) {
	page := "## A\n```sql\nSET x = 1;\n```\n### B?\ntext\n```sql\nSELECT 1;\n```\n```text\n1\n```\n```sql\nWITH c AS (SELECT) SELECT;\n```\n"
	want := []question{{"B?", "SELECT 1;\n"}, {"B? (2)", "WITH c AS (SELECT) SELECT;\n"}}
	if diff := cmp.Diff(want, readQuestions(page), cmp.AllowUnexported(question{})); diff != "" {
		t.Errorf("questions (-want +got):\n%s", diff)
	}
}
