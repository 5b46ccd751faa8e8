package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"syncer/internal/dev/pgcluster"
)

// beDemo makes the test binary the demo.
const beDemo = "BE_DEMO"

func TestMain(m *testing.M) {
	if os.Getenv(beDemo) != "" {
		main()
	}
	os.Exit(m.Run())
}

// patience ends a test that hangs; it is many times what any needs on a slow and
// busy machine.
const patience = 10 * time.Minute

// short are the arguments of a demo of a few seconds.
var short = []string{"-users", "2000", "-sweeps", "2", "-interval", "2s", "-days", "1"}

// showing is a demo as a process of its own, all of whose folders are in one.
type showing struct {
	cmd            *exec.Cmd
	dir            string
	page           string // of the reports: what stays
	stdout, stderr bytes.Buffer
	read           sync.WaitGroup // done when all of a piped stdout has been read
}

func newShowing(t *testing.T, environ []string, args ...string) *showing {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	s := &showing{dir: t.TempDir(), page: filepath.Join(t.TempDir(), "report.html")}
	s.cmd = exec.CommandContext(ctx, os.Args[0], append(args, "-page", s.page)...)
	// For root, Postgres runs as another user, who has to be let in.
	if err := os.Chmod(s.dir, 0o777); err != nil {
		t.Fatal(err)
	}
	s.cmd.Env = append(os.Environ(), beDemo+"=1", "TMPDIR="+s.dir)
	s.cmd.Env = append(s.cmd.Env, environ...)
	s.cmd.Stdout, s.cmd.Stderr = &s.stdout, &s.stderr
	return s
}

// wait waits for the demo's end and returns its exit code.
func (s *showing) wait(t *testing.T) int {
	t.Helper()
	err := s.cmd.Wait()
	s.read.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	}
	if err != nil {
		t.Fatal(err)
	}
	return 0
}

// checkNothingLeft fails if the demo left a file, or a process that was started
// from, or for, one of its folders.
func (s *showing) checkNothingLeft(t *testing.T) {
	t.Helper()
	left, err := os.ReadDir(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range left {
		t.Errorf("left behind: %s", entry.Name())
	}
	for _, process := range processesOf(t, s.dir) {
		t.Errorf("left behind: process %s", process)
	}
}

// processesOf lists the processes with dir in their arguments.
func processesOf(t *testing.T, dir string) (found []string) {
	t.Helper()
	all, err := exec.Command("ps", "-A", "-o", "pid=,args=").Output()
	if err != nil {
		t.Fatalf("list processes: %v", err)
	}
	for line := range strings.Lines(string(all)) {
		if strings.Contains(line, dir) {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}

func TestDemo(t *testing.T) {
	t.Parallel()
	s := newShowing(t, nil, short...)
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if code := s.wait(t); code != exitDone {
		t.Fatalf("exit code %d\n%s\n%s", code, &s.stdout, &s.stderr)
	}
	s.checkNothingLeft(t)
	out := s.stdout.String()
	for _, want := range []string{
		"$ syncer simulate", "$ cat config.toml", "$ syncer migrate up", "$ syncer config check --connect",
		"$ syncer backfill", "Exit code 3 means", "$ syncer run", "run closed", "25 people sign up", "exit code 0",
		"$ syncer runs --limit 12\nThe latest runs", "$ syncer runs show", "$ syncer report platforms", "android", "$ syncer report sessions",
		"$ syncer explain user-", "Last changes", "(first seen)",
		"both APIs refuse", "OpenIM has lost",
		"$ syncer report concurrency", "$ syncer report gaps", s.page,
		"make demo-keep",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the demo does not show %q", want)
		}
	}
	secrets := regexp.MustCompile(tencentKey + "|" + openIMSecret + `|://[^/\s]*:[^/\s]*@`)
	if found := secrets.FindString(out); found != "" {
		t.Errorf("the demo shows a secret: %s", found)
	}
	page, err := os.ReadFile(s.page)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"<!doctype html>", "tencent", "uplot"} {
		if !bytes.Contains(bytes.ToLower(page), []byte(want)) {
			t.Errorf("the page of the reports does not hold %q", want)
		}
	}
	if t.Failed() {
		t.Log(out)
	}
}

func TestStopped(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		after  string // what the demo has said last
		signal syscall.Signal
		args   []string
		code   int
	}{
		{"while building", "building the program", syscall.SIGINT, nil, exitStopped},
		{"while Postgres starts", "starting Postgres", syscall.SIGTERM, nil, exitStopped},
		{"while migrating", "$ syncer migrate up", syscall.SIGINT, nil, exitStopped},
		{"in the backfill", "$ syncer backfill", syscall.SIGINT, nil, exitStopped},
		{"while the daemon runs", "tail -f daemon.log", syscall.SIGHUP, nil, exitStopped},
		{"when kept", "/_sim/stats", syscall.SIGTERM, []string{"-keep"}, exitDone},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newShowing(t, nil, append(tt.args, short...)...)
			s.startAndAwait(t, tt.after)
			if err := s.cmd.Process.Signal(tt.signal); err != nil {
				t.Fatal(err)
			}
			if code := s.wait(t); code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			s.checkNothingLeft(t)
			if t.Failed() {
				t.Logf("%s\n%s", &s.stdout, &s.stderr)
			}
		})
	}
}

// A killed demo cleans up too, a little later.
func TestKilled(t *testing.T) {
	t.Parallel()
	s := newShowing(t, nil, short...)
	s.startAndAwait(t, "tail -f daemon.log")
	if err := s.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	s.wait(t)
	deadline := time.After(patience)
	poll := time.NewTicker(100 * time.Millisecond)
	defer poll.Stop()
	for {
		left, err := os.ReadDir(s.dir)
		if err != nil {
			t.Fatal(err)
		}
		if len(left) == 0 && len(processesOf(t, s.dir)) == 0 {
			return
		}
		select {
		case <-deadline:
			s.checkNothingLeft(t)
			return
		case <-poll.C:
		}
	}
}

// startAndAwait starts the demo and waits until it has said something.
func (s *showing) startAndAwait(t *testing.T, text string) {
	t.Helper()
	said, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s.cmd.Stdout = out
	err = s.cmd.Start()
	out.Close()
	if err != nil {
		t.Fatal(err)
	}
	heard := make(chan bool)
	s.read.Go(func() {
		defer said.Close()
		for r, waiting := bufio.NewReader(said), true; ; {
			b, err := r.ReadByte()
			if err != nil {
				close(heard)
				return
			}
			s.stdout.WriteByte(b)
			if waiting && bytes.HasSuffix(s.stdout.Bytes(), []byte(text)) {
				waiting = false
				heard <- true
			}
		}
	})
	if !<-heard {
		t.Fatalf("the demo ended with exit code %d before it said %q\n%s\n%s", s.wait(t), text, &s.stdout, &s.stderr)
	}
}

func TestCannotStart(t *testing.T) {
	t.Parallel()
	bin, err := pgcluster.FindOrInstall(t.Context(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name    string
		environ []string
		args    []string
		code    int
		want    string
	}{
		{"no Postgres", []string{"SYNCER_PG_BIN=/nonexistent"}, nil, exitFailed, "SYNCER_PG_BIN: /nonexistent has no initdb"},
		{"no go command", []string{"PATH=/nonexistent", "SYNCER_PG_BIN=" + bin.Dir}, nil, exitFailed, "put the go command into PATH"},
		{"a wrong flag", nil, []string{"-sweeps", "1"}, exitUsage, "-sweeps 1: want 2 or more"},
		{"a wrong argument", nil, []string{"now"}, exitUsage, `no argument "now"`},
		{"does not compile", []string{"GOFLAGS=-nonsense"}, nil, exitFailed, "go build"},
		{"no folder", []string{"TMPDIR=/nonexistent"}, nil, exitFailed, "make a folder for the demo"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newShowing(t, tt.environ, tt.args...)
			if err := s.cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if code := s.wait(t); code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			if !strings.Contains(s.stderr.String(), tt.want) {
				t.Errorf("does not say %q:\n%s", tt.want, &s.stderr)
			}
			s.checkNothingLeft(t)
		})
	}
}
