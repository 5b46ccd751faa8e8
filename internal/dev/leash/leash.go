// Package leash runs commands that must not outlive the program that started
// them: for the demo and benchmarks. It needs a Unix.
package leash

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// script waits for a line, or for the end of its standard input. The latter
// comes when the program is gone, however it went: a pipe's other end closes with
// the process, also on kill -9. Then it ends its process group, in which all
// commands are, and removes their folder, $1.
const script = `trap '' HUP INT QUIT TERM
read -r line && exit
kill -TERM 0
sleep 2
rm -rf "$1"
kill -KILL 0`

// Leash is a process group for everything that a program starts, apart from
// Postgres, which has one of its own. Ctrl-C does not reach it from the terminal: the
// program ends its commands itself, in order.
type Leash struct {
	dir  string
	cmd  *exec.Cmd
	hold *os.File // its standard input
}

// New makes a leash for commands that run in a folder, which goes with them if
// the program dies.
func New(dir string) (*Leash, error) {
	stdin, hold, err := os.Pipe() // close-on-exec: no command inherits the hold
	if err != nil {
		return nil, err
	}
	defer stdin.Close()
	cmd := exec.Command("/bin/sh", "-c", script, "syncer-leash", dir)
	cmd.Dir = "/"
	cmd.Stdin = stdin
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		_ = hold.Close()
		return nil, fmt.Errorf("start /bin/sh: %w", err)
	}
	return &Leash{dir: dir, cmd: cmd, hold: hold}, nil
}

// Release ends the group. Its commands have ended by now, or been killed.
func (l *Leash) Release() error {
	_, err := l.hold.WriteString("\n")
	if err := errors.Join(err, l.hold.Close(), l.cmd.Wait()); err != nil {
		return fmt.Errorf("let go of processes: %w", err)
	}
	return nil
}

// stopPatience is how long a program may take to heed a signal before it is
// killed. The daemon grants pages in flight 20 s.
const stopPatience = 30 * time.Second

// Command prepares a program that runs in the folder. When ctx ends it is asked
// to stop, and killed if it does not.
func (l *Leash) Command(ctx context.Context, path string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = l.dir
	cmd.Env = cleanEnv(os.Environ())
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pgid: l.cmd.Process.Pid}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = stopPatience
	return cmd
}

// cleanEnv leaves out what is meant for another syncer or Postgres.
func cleanEnv(environ []string) []string {
	var clean []string
	for _, variable := range environ {
		if !strings.HasPrefix(variable, "SYNCER_") && !strings.HasPrefix(variable, "PG") {
			clean = append(clean, variable)
		}
	}
	return clean
}
