// Package leash runs commands that must not outlive the program that started
// them. The demo and benchmarks start syncer with it; pgcluster starts Postgres
// with it. It needs a Unix.
package leash

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// script ends its process group, which holds all commands of the leash, and
// removes their folder, $1.
const script = `trap '' HUP INT QUIT TERM
read -r line && exit
kill -TERM 0
sleep 2
rm -rf "$1"
kill -KILL 0`

// Leash is a process group for the commands that a program starts. A Ctrl-C at the
// terminal does not reach it, so that the program can end its commands in order.
type Leash struct {
	dir   string
	guard *Guard
}

// New returns a leash for commands that run in dir. If the program dies, its
// commands are ended and dir is removed.
func New(dir string) (*Leash, error) {
	guard, err := StartGuard(&syscall.SysProcAttr{Setpgid: true}, "syncer-leash", script, dir)
	if err != nil {
		return nil, err
	}
	return &Leash{dir: dir, guard: guard}, nil
}

// Release ends the leash. Call it after its commands have ended.
func (l *Leash) Release() error { return l.guard.Release() }

// stopPatience is how long a command may take to stop after a signal before it is
// killed. The daemon allows pages in flight 20 s.
const stopPatience = 30 * time.Second

// Command returns a command that runs in the leash's folder. When ctx ends the
// command gets an interrupt, and is killed if it does not stop.
func (l *Leash) Command(ctx context.Context, path string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = l.dir
	cmd.Env = cleanEnv(os.Environ())
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pgid: l.guard.PID()}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = stopPatience
	return cmd
}

// Start starts a command in the background, which runs until Process.Stop. Its
// output is appended to a file in the leash's folder.
func (l *Leash) Start(output, path string, args ...string) (*Process, error) {
	return Start(l.Command(context.Background(), path, args...), filepath.Join(l.dir, output))
}

// cleanEnv leaves out the variables that configure syncer or Postgres.
func cleanEnv(environ []string) []string {
	var clean []string
	for _, variable := range environ {
		if !strings.HasPrefix(variable, "SYNCER_") && !strings.HasPrefix(variable, "PG") {
			clean = append(clean, variable)
		}
	}
	return clean
}
