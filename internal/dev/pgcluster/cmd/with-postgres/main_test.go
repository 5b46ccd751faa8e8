package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"syncer/internal/dev/pgcluster"
)

// commandMode makes the test binary the command itself.
const commandMode = "SYNCER_WITH_POSTGRES_TEST_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(commandMode) != "" {
		main()
	}
	os.Exit(m.Run())
}

// command prepares with-postgres with its arguments, without a server to share.
func command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Env = append(os.Environ(), commandMode+"=1", pgcluster.EnvURL+"=", pgcluster.EnvRun+"=")
	return cmd
}

func wantExit(t *testing.T, err error, want int) {
	t.Helper()
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		t.Fatalf("ended with %v; want exit code %d", err, want)
	}
	if got := exit.ExitCode(); got != want {
		t.Errorf("exit code %d; want %d", got, want)
	}
}

func TestUsage(t *testing.T) {
	out, err := command(t, "--").CombinedOutput()
	wantExit(t, err, exitUsage)
	if !strings.Contains(string(out), "usage:") {
		t.Errorf("printed %q", out)
	}
}

func TestCommandNotFound(t *testing.T) {
	out, err := command(t, "--", "no-such-command-here").CombinedOutput()
	wantExit(t, err, exitFailed)
	if !strings.Contains(string(out), "no-such-command-here") {
		t.Errorf("printed %q", out)
	}
}

func TestExitCode(t *testing.T) {
	wantExit(t, command(t, "--", "sh", "-c", "exit 7").Run(), 7)
	wantExit(t, command(t, "--", "sh", "-c", "kill -KILL $$").Run(), 128+9)
}

// TestRun_needsNoQuotes: the run is part of databases' names, which tests write
// into SQL as they are.
func TestRun_needsNoQuotes(t *testing.T) {
	out, err := command(t, "--", "sh", "-c", "printf %s $"+pgcluster.EnvRun).Output()
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`^[a-z0-9_]+$`).Match(out) {
		t.Errorf("%s=%s", pgcluster.EnvRun, out)
	}
}

// TestSignal interrupts with-postgres while its command, which answers with an
// exit code of its own, uses the server; afterwards the server must be gone.
func TestSignal(t *testing.T) {
	cmd := command(t, "sh", "-c", `trap "exit 9" TERM; echo "$`+pgcluster.EnvURL+` $`+pgcluster.EnvRun+`"; while :; do sleep 0.1; done`)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	var url, run string
	if _, err := fmt.Sscan(line, &url, &run); err != nil {
		t.Fatalf("environment of the command: %v", err)
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	wantExit(t, cmd.Wait(), 9)
	if _, err := pgx.Connect(t.Context(), url); err == nil {
		t.Error("the server runs on")
	}
}

func TestStart_calledOff(t *testing.T) {
	signals := make(chan os.Signal, 1)
	signals <- syscall.SIGTERM
	cluster, err := start(signals)
	if err == nil {
		t.Fatalf("started, and stopped with %v, after a signal that should have called it off", cluster.Stop())
	}
	if want := "called off by a signal: terminated"; err.Error() != want {
		t.Errorf("error %v; want %s", err, want)
	}
}

func TestSharedServer(t *testing.T) {
	cmd := command(t, "sh", "-c", `echo "$`+pgcluster.EnvURL+`"`)
	cmd.Env = append(cmd.Env, pgcluster.EnvURL+"=postgres://elsewhere/db")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(out), "postgres://elsewhere/db\n"; got != want {
		t.Errorf("the command was given the server %q; want %q", got, want)
	}
}
