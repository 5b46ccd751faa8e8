package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// leashScript waits for a line, or for the end of its standard input. The latter
// comes when the demo is gone, however it went: a pipe's other end closes with the
// process, also on kill -9. Then it ends its process group, in which all of the
// demo's commands are, and removes the demo's folder, $1.
const leashScript = `trap '' HUP INT QUIT TERM
read -r line && exit
kill -TERM 0
sleep 2
rm -rf "$1"
kill -KILL 0`

// leash is a process group for everything that the demo starts, apart from
// Postgres, which has one of its own. Ctrl-C does not reach it from the terminal: the
// demo ends its commands itself, in order.
type leash struct {
	cmd  *exec.Cmd
	hold *os.File // its standard input
}

func newLeash(dir string) (*leash, error) {
	stdin, hold, err := os.Pipe() // close-on-exec: no command inherits the hold
	if err != nil {
		return nil, err
	}
	defer stdin.Close()
	cmd := exec.Command("/bin/sh", "-c", leashScript, "syncer-demo-leash", dir)
	cmd.Dir = "/"
	cmd.Stdin = stdin
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		_ = hold.Close()
		return nil, fmt.Errorf("start /bin/sh: %w", err)
	}
	return &leash{cmd: cmd, hold: hold}, nil
}

// take puts a command that is yet to be started into the group.
func (l *leash) take(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pgid: l.cmd.Process.Pid}
}

// release ends the group. Its commands have ended by now, or been killed.
func (l *leash) release() error {
	_, err := l.hold.WriteString("\n")
	if err := errors.Join(err, l.hold.Close(), l.cmd.Wait()); err != nil {
		return fmt.Errorf("let go of the demo's processes: %w", err)
	}
	return nil
}
