package leash

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// Guard is a shell process that cleans up if the program that started it dies
// without releasing it.
//
// Its standard input is a pipe that only the program holds open. The kernel closes
// the pipe when the program ends for any reason: kill -9, os.Exit, a test that
// timed out. This works on every Unix. The kernel's parent-death signal exists on
// Linux only, is bound to one OS thread, and removes no files.
type Guard struct {
	cmd  *exec.Cmd
	hold *os.File // the pipe's other end
}

// StartGuard runs a script, which must first wait for a line or the end of its
// standard input. A line is what Release writes. The guard is named name in lists
// of processes; the script gets args as $1, $2 and so on.
func StartGuard(attr *syscall.SysProcAttr, name, script string, args ...string) (*Guard, error) {
	stdin, hold, err := os.Pipe() // close-on-exec: other children of the program do not keep it open
	if err != nil {
		return nil, err
	}
	defer stdin.Close()
	cmd := exec.Command("/bin/sh", append([]string{"-c", script, name}, args...)...)
	cmd.Dir = "/"
	cmd.Stdin = stdin
	cmd.SysProcAttr = attr
	if err := cmd.Start(); err != nil {
		_ = hold.Close()
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return &Guard{cmd: cmd, hold: hold}, nil
}

// PID returns the guard's process id.
func (g *Guard) PID() int { return g.cmd.Process.Pid }

// Release writes a line to the script, closes its standard input and waits for its
// end.
func (g *Guard) Release() error {
	_, err := g.hold.WriteString("\n")
	err = errors.Join(err, g.hold.Close(), g.cmd.Wait())
	if err != nil {
		return fmt.Errorf("release %s: %w", g.cmd.Args[3], err)
	}
	return nil
}
