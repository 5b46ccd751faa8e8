package pgcluster

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// watchdogScript waits for the end of its standard input, which comes when the
// process that started the cluster is gone, however it went: a pipe's other end
// closes with the process, also on kill -9, os.Exit, or a test that timed out.
// Then it stops the server, if one still runs, and removes the cluster's folder.
// Removing is tried again because an interrupted initdb may still be writing.
//
// $1 is the cluster's folder, $2 that of the binaries.
const watchdogScript = `cat
"$2/pg_ctl" stop -m immediate -t 10 -D "$1/data" || {
	read -r pid <"$1/data/postmaster.pid"
	case $pid in [1-9]*) kill -KILL "$pid" ;; esac
}
for try in 1 2 3 4 5; do
	rm -rf "$1" && break
	sleep 1
done`

// watchdog cleans up after a cluster whose owner dies without stopping it. It is
// a process of its own, which works on every Unix; the kernel's parent-death
// signal is Linux only, is bound to one OS thread of ours, and removes no files.
type watchdog struct {
	cmd   *exec.Cmd
	leash *os.File // its standard input; never written to, only held open
}

// startWatchdog runs a watchdog over dir, as the server's account so that it can
// harm nothing else, and in a session of its own so that Ctrl-C spares it.
func startWatchdog(dir string, bin Binaries, as account) (*watchdog, error) {
	stdin, leash, err := os.Pipe() // close-on-exec: no child of ours inherits the leash
	if err != nil {
		return nil, err
	}
	defer stdin.Close()
	cmd := exec.Command("/bin/sh", "-c", watchdogScript, "syncer-postgres-watchdog", dir, bin.Dir)
	cmd.Dir = "/"
	cmd.Stdin = stdin
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: as.credential}
	if err := cmd.Start(); err != nil {
		_ = leash.Close()
		return nil, fmt.Errorf("starting the watchdog: %w", err)
	}
	return &watchdog{cmd: cmd, leash: leash}, nil
}

// release lets the watchdog go and waits for its end. It does its work once
// more on the way, which finds nothing to do after a clean stop.
func (w *watchdog) release() error {
	if err := w.leash.Close(); err != nil {
		return err
	}
	if err := w.cmd.Wait(); err != nil {
		return fmt.Errorf("watchdog: %w", err)
	}
	return nil
}
